"""Checks of what callers hand to the room worlds, and generators written as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .room_drawing import Floats

Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]

_MASK64 = (1 << 64) - 1


def pack_generator(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Write a PCG64 generator's state as six uint64 (state, increment, the cached half word); no pickle needed."""
    state = generator.bit_generator.state
    words = [state["state"]["state"], state["state"]["inc"]]
    halves = [part for word in words for part in (word & _MASK64, word >> 64)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def unpack_generator(packed: NDArray[np.integer[Any]]) -> np.random.Generator:
    """Make the generator that :func:`pack_generator` wrote; the words may have become signed ones of the same bits."""
    low, high, inc_low, inc_high, has_half, half = (int(word) & _MASK64 for word in packed)
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(bits)


def add_noise(action: Floats, limit: float, noise_std: float, generator: np.random.Generator | None) -> Floats:
    """Add Gaussian noise to actions [B,2] and clip them to Box(-limit, limit)², as the data collectors do.

    Raises:
        ValueError: If noise is asked for without a generator, or `noise_std` is negative or not finite.
    """
    if not np.isfinite(noise_std) or noise_std < 0:
        raise ValueError(f"noise_std is {noise_std}; expected a finite number >= 0.")
    if noise_std == 0:
        return action
    if generator is None:
        raise ValueError(f"noise_std is {noise_std} without a generator; pass generator=np.random.default_rng(seed).")
    return np.clip(action + noise_std * generator.standard_normal(action.shape), -limit, limit)


def read_rows(
    name: str, values: Any, shape: tuple[int, ...], rows: Rows, bounds: tuple[float, float] | None = None
) -> Floats:
    """Return `values` as float64 of `shape`, having checked the entries `rows` of it.

    Raises:
        ValueError: If it is not numeric, has another shape, or an entry is not finite or outside `bounds`.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers ({error}); expected shape {shape}.") from error
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}, one entry per environment.")
    finite = np.isfinite(array)
    within = finite if bounds is None else finite & (array >= bounds[0]) & (array <= bounds[1])
    bad = ~within.reshape(len(array), -1).all(axis=1)
    bad_rows = rows[bad[rows]]
    if bad_rows.size:
        row = bad_rows[0]
        wanted = "finite numbers" if bounds is None else f"world pixels in [{bounds[0]:g}, {bounds[1]:g}]"
        raise ValueError(f"{name}[{row}] is {array[row].tolist()}; expected {wanted}.")
    return array


def read_mask(mask: Any, num_envs: int) -> Rows:
    """Return the environments [n] that `mask` [B] bool marks, all of them when it is None.

    Raises:
        ValueError: If it has another shape or type, or marks nothing.
    """
    if mask is None:
        return np.arange(num_envs)
    array = np.asarray(mask)
    if array.shape != (num_envs,) or array.dtype != np.bool_:
        raise ValueError(
            f"options['reset_mask'] has shape {array.shape} and type {array.dtype}; expected ({num_envs},) of bool."
        )
    if not array.any():
        raise ValueError("options['reset_mask'] marks no environment; mark at least one, or do not call reset.")
    return np.flatnonzero(array)


def read_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Return one seed (or None) per environment: an int `s` means `s + i`, as gymnasium does.

    Raises:
        ValueError: If a seed is not an integer >= 0, or the sequence has another length than `num_envs`.
    """
    if seed is None:
        return [None] * num_envs
    seeds = [seed + i for i in range(num_envs)] if isinstance(seed, int | np.integer) else list(seed)
    if len(seeds) != num_envs:
        raise ValueError(f"seed has {len(seeds)} entries; expected {num_envs}, one per environment.")
    for value in seeds:
        if value is not None and (not isinstance(value, int | np.integer) or value < 0):
            raise ValueError(f"seed holds {value!r}; expected integers >= 0 or None.")
    return [None if value is None else int(value) for value in seeds]
