"""Any registered Gymnasium environment as a vector of float vectors or pixels.

`GymVectorEnv` turns what Gymnasium environments return into the two kinds of observation that the agent understands:
uint8 pixels [H, W, C] and float32 vectors [n]. Ends reset within the same step and keep the last observation in
`final_obs`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, iterate

from .wired import Wired

MIN_PIXELS = 32  # uint8 images with a shorter side are symbolic grids, not pictures
_GRID_IDS = ("MiniGrid-", "BabyAI-")
_GRID_KINDS = (11, 6, 4)  # MiniGrid's objects, colours, and states (or directions of an agent that is seen)

Array = npt.NDArray[Any]
Converter = Callable[[Any], Array]


class GymVectorEnv(VectorWrapper[Array, Array, Any, Any, Any]):
    """`num_envs` copies of a Gymnasium environment, with observations and actions in standard form.

    Observations: uint8 images with both sides of at least 32 stay as they are (a grey image gains a channel axis);
    any other Box becomes a flat float32 vector (small uint8 grids scaled to [0, 1]; the cells of MiniGrid, which are
    codes of object, colour and state, one-hot); Discrete and MultiDiscrete become one-hot float32; Dict and Tuple are
    concatenated if all parts are vectors, otherwise pick one with `observation_key`. Of a Dict with `observation` and
    `context` the context comes last, and `unwrapped.context` says how many numbers it has: what modulates an agent's
    perception and world model. Behind a picture each of them, from 0 to 1, is one more plane, 0 to 255 all over.
    Actions: Discrete (counted from 0), MultiDiscrete, or Box with finite bounds. Infos: `success` bool [B] for the
    episodes that ended in this step, from the environment's `is_success` or `success`, for MiniGrid from a positive
    last reward, otherwise False; the rest is passed on. Rewards are float32.

    Args:
        id: A registered environment id, such as "CartPole-v1".
        num_envs: Number of environments B.
        seed: Seed of the first `reset` that is called without one; environment i gets seed + i.
        observation_key: The part of a Dict (its key) or Tuple (its index as text) observation to use.
        max_steps: Steps until an episode is truncated, in place of the environment's own limit.
        wirings: Ways in which the controls may be wired, another in each episode (see `Wired`); 0: as they are.
        wirings_told: Whether a context tells how.
        render_mode: Passed to the environment.

    Raises:
        ValueError: A space that cannot be brought into standard form; the message says what to pass.
        ImportError: An optional package is missing.
    """

    def __init__(
        self,
        id: str,
        num_envs: int = 1,
        *,
        seed: int = 0,
        observation_key: str | None = None,
        max_steps: int | None = None,
        wirings: int = 0,
        wirings_told: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1 or (max_steps is not None and max_steps < 1):
            raise ValueError(f"num_envs={num_envs}, max_steps={max_steps}: expected both at least 1.")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed={seed!r}: expected a non-negative integer.")
        self._is_grid = id.startswith(_GRID_IDS)
        if self._is_grid:
            import_minigrid()
        make = partial(gymnasium.make, id, max_episode_steps=max_steps)
        if render_mode is not None:  # some environments take none
            make = partial(make, render_mode=render_mode)
        built = partial(_wired, make, wirings, wirings_told) if wirings else make
        base = _Copies([built] * num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        super().__init__(base)
        self.id = id
        raw = base.single_observation_space
        try:
            base.context = _context_width(raw) if observation_key is None else 0
            self.single_observation_space, self._convert = _observation_converter(raw, observation_key, self._is_grid)
            self.single_action_space, self._action_offset = _action_space(self.env.single_action_space)
        except ValueError as error:
            self.env.close()
            raise ValueError(f"{id}: {error}") from None
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._raw_space = self.env.observation_space
        self._first_seed: int | None = int(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Environment i is seeded with `seed + i`. Without it random streams go on; the very first reset uses
                the constructor's seed.
            options: `reset_mask` (bool [B]) resets only the marked environments; all else goes to the environments.

        Raises:
            gymnasium.error.ResetNeeded: A `reset_mask` before the first full reset.
        """
        if self._first_seed is not None:
            if options and "reset_mask" in options:
                raise gymnasium.error.ResetNeeded("reset_mask before the first reset: call reset() without it first.")
            seed = self._first_seed if seed is None else seed
        raw, infos = self.env.reset(seed=seed, options=None if options is None else dict(options))
        self._first_seed = None
        return self._observations(raw), infos | {"success": np.zeros(self.num_envs, np.bool_)}

    def step(self, actions: npt.ArrayLike) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take one action in every environment.

        Args:
            actions: Integers [B] (Discrete) or [B, n] (MultiDiscrete), or floats [B, …] (Box).

        Returns:
            Observations, rewards float32 [B], terminated bool [B], truncated bool [B], infos.

        Raises:
            ValueError: Actions of another shape, type or range.
            FloatingPointError: An environment returned NaN or infinity.
        """
        if self._first_seed is not None:
            raise gymnasium.error.ResetNeeded("step before the first reset: call reset() first.")
        checked = check_actions(actions, self.action_space) + self._action_offset
        raw, rewards, terminated, truncated, infos = self.env.step(checked)
        self._check_finite(rewards, "reward")
        ended = terminated | truncated
        infos["success"] = np.zeros(self.num_envs, np.bool_)
        if ended.any():
            infos["success"] = self._success(infos.get("final_info", {}), terminated, rewards, ended)
            for index in np.flatnonzero(ended):
                final = self._convert(infos["final_obs"][index])
                self._check_finite(final, "final observation", int(index))
                infos["final_obs"][index] = final
        return self._observations(raw), rewards.astype(np.float32), terminated, truncated, infos

    def _observations(self, raw: Any) -> Array:
        batch = np.stack([self._convert(one) for one in iterate(self._raw_space, raw)])
        self._check_finite(batch, "observation")
        return batch

    def _success(self, final_info: dict[str, Any], terminated: Array, rewards: Array, ended: Array) -> Array:
        for key in ("is_success", "success"):
            if key in final_info:
                return ended & np.asarray(final_info[key]).astype(np.bool_)
        return terminated & (rewards > 0) if self._is_grid else np.zeros(self.num_envs, np.bool_)

    def _check_finite(self, values: Array, what: str, index: int | None = None) -> None:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        place = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(values)))
        env, entry = (place[0], place[1:]) if index is None else (index, place)
        where = f" (entry {', '.join(map(str, entry))})" if entry else ""
        raise FloatingPointError(
            f"{self.id}: environment {env} returned the {what} {values[place]}{where}; expected finite numbers. The "
            "environment made it, not the agent: check its dynamics, or wrap it to clip what it returns."
        )


class _Copies(SyncVectorEnv):
    """Copies of one environment, of whose observation the last ``context`` numbers are a context."""

    context = 0


def _wired(make: Callable[[], gymnasium.Env[Any, Any]], wirings: int, told: bool) -> gymnasium.Env[Any, Any]:
    """One environment with controls that are wired anew."""
    return Wired(make(), wirings, told)


def _context_width(space: spaces.Space[Any]) -> int:
    """How many numbers the context of a Dict of `observation` and `context` has; 0 where there is none.

    Raises:
        ValueError: A context that is no vector, or beside a picture not of numbers from 0 to 1; or an observation
            beside it that is neither.
    """
    if not isinstance(space, spaces.Dict) or set(space.spaces) != {"observation", "context"}:
        return 0
    seen, told = space["observation"], space["context"]
    if not (_is_vector(told) and (_is_vector(seen) or _is_pixels(seen))):
        raise ValueError(f"the observation space {space} has a context; expected a vector beside a vector or a picture")
    if _is_pixels(seen) and isinstance(told, spaces.Box) and not ((told.low >= 0) & (told.high <= 1)).all():
        raise ValueError(f"the observation space {space} has a context beside pictures; expected numbers from 0 to 1")
    return spaces.flatdim(told)


def check_actions(actions: npt.ArrayLike, space: spaces.Space[Any]) -> Array:
    """Return `actions` as an array fit for the batched `space`.

    Box actions beyond their bounds by rounding (1e-5 of the range) are clipped.

    Raises:
        ValueError: Another shape, type or range than the space has.
    """
    array = np.asarray(actions)
    kinds = "iuf" if isinstance(space, spaces.Box) else "iu"
    if array.shape != space.shape or array.dtype.kind not in kinds:
        raise ValueError(f"actions have shape {array.shape} and type {array.dtype}; expected {space} (batch first).")
    if isinstance(space, spaces.MultiDiscrete):
        low, high, slack = np.zeros_like(space.nvec), space.nvec - 1, np.zeros(1)
    else:
        assert isinstance(space, spaces.Box)
        low, high, slack = space.low, space.high, 1e-5 * (space.high - space.low)
    if not ((array >= low - slack) & (array <= high + slack)).all():  # also catches NaN
        place = tuple(int(axis[0]) for axis in np.nonzero(~((array >= low - slack) & (array <= high + slack))))
        raise ValueError(
            f"actions[{', '.join(map(str, place))}] = {array[place]}: expected {low[place]} to {high[place]}. Clip or "
            "rescale the actions."
        )
    return np.clip(array, low, high).astype(space.dtype)


def import_minigrid() -> None:
    """Register MiniGrid's environments.

    Raises:
        ImportError: The package is missing; the message names the extra.
    """
    if importlib.util.find_spec("minigrid") is None:
        raise ImportError("MiniGrid is not installed. Install it with `pip install 'forethought[minigrid]'`.")
    importlib.import_module("minigrid")


def _action_space(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], int]:
    """The action space in standard form, and what to add to an action before it goes to the environment."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(space.n), int(space.start)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return space, 0
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if np.isfinite(space.low).all() and np.isfinite(space.high).all():
            return space, 0
        raise ValueError(
            f"the action space {space} has infinite bounds; expected finite ones, because planners search within them. "
            "Register the environment with gymnasium.wrappers.RescaleAction or ClipAction around finite bounds."
        )
    raise ValueError(
        f"the action space is {space}; expected Discrete, MultiDiscrete (one axis, from 0) or a float Box with finite "
        "bounds. Wrap the environment with an ActionWrapper that offers one of them."
    )


def _observation_converter(space: spaces.Space[Any], key: str | None, is_grid: bool) -> tuple[spaces.Box, Converter]:
    """The observation space in standard form and the function that brings one observation into it."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = (
            space.spaces if isinstance(space, spaces.Dict) else {str(i): part for i, part in enumerate(space.spaces)}
        )
        if key is not None and key not in parts:
            raise ValueError(f"observation_key={key!r}: expected one of {list(parts)}, the parts of {space}.")
        if key is not None:
            index: Any = key if isinstance(space, spaces.Dict) else int(key)
            chosen, convert = _observation_converter(parts[key], None, is_grid)
            return chosen, lambda observation: convert(observation[index])
        if _context_width(space):
            return _with_context(parts["observation"], parts["context"], is_grid)
        if not _is_vector(space):
            usable = [name for name, part in parts.items() if _is_vector(part) or _is_pixels(part)]
            raise ValueError(
                f"the observation space {space} has parts that are not vectors; its keys are {list(parts)}. Expected "
                f"vectors only, or one part: pass observation_key with one of {usable}."
            )
    elif key is not None:
        raise ValueError(f"observation_key={key!r}, but the observation space {space} has no parts. Leave it away.")
    if _is_pixels(space):
        return _pixels(space)
    if not _is_vector(space):
        raise ValueError(
            f"the observation space is {space}; expected Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple "
            "of them. Wrap the environment with an ObservationWrapper that offers one of them."
        )
    return _vector(space, is_grid)


def _with_context(
    observation: spaces.Space[Any], context: spaces.Space[Any], is_grid: bool
) -> tuple[spaces.Box, Converter]:
    """Vectors of the observation with the context behind, or pictures with a plane for each of its numbers."""
    if _is_pixels(observation):
        return _with_planes(observation, context)
    (seen, see), (told, tell) = _vector(observation, is_grid), _vector(context, False)
    low, high = np.concatenate([seen.low, told.low]), np.concatenate([seen.high, told.high])
    box = spaces.Box(low, high, dtype=np.float32)
    return box, lambda both: np.concatenate([see(both["observation"]), tell(both["context"])])


def _with_planes(observation: spaces.Space[Any], context: spaces.Space[Any]) -> tuple[spaces.Box, Converter]:
    """Pictures with the context behind their colours: each number is one more plane, equally bright all over."""
    (seen, see), (told, tell) = _pixels(observation), _vector(context, False)
    height, width, colours = seen.shape
    box = spaces.Box(0, 255, (height, width, colours + told.shape[0]), np.uint8)

    def convert(both: Any) -> Array:
        planes = np.rint(255 * tell(both["context"])).astype(np.uint8)
        return np.concatenate([see(both["observation"]), np.broadcast_to(planes, (height, width, len(planes)))], -1)

    return box, convert


def _pixels(space: spaces.Space[Any]) -> tuple[spaces.Box, Converter]:
    assert isinstance(space, spaces.Box)
    if len(space.shape) == 2:
        grey = spaces.Box(space.low[..., None], space.high[..., None], dtype=np.uint8)
        return grey, lambda observation: np.asarray(observation)[..., None]
    return space, np.asarray


def _vector(space: spaces.Space[Any], is_grid: bool) -> tuple[spaces.Box, Converter]:
    if isinstance(space, spaces.Box) and space.dtype == np.uint8:
        width = int(np.prod(space.shape))
        if is_grid and space.shape[-1:] == (3,):  # a ball is no more than a key, but another thing
            return spaces.Box(0.0, 1.0, (width // 3 * sum(_GRID_KINDS),), np.float32), _symbols
        return spaces.Box(0.0, 1.0, (width,), np.float32), lambda seen: (np.asarray(seen, np.float32) / 255).ravel()
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    with np.errstate(over="ignore"):
        box = spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)
    return box, lambda observation: np.array(spaces.flatten(space, observation), np.float32)


def _symbols(cells: Any) -> Array:
    """MiniGrid's codes ``[..., 3]`` as one-hot float32, flat; a code of no known kind is zeros."""
    codes = np.asarray(cells)
    kinds = [codes[..., part, None] == np.arange(count) for part, count in enumerate(_GRID_KINDS)]
    symbols: Array = np.concatenate(kinds, axis=-1).astype(np.float32)
    return symbols.ravel()


def _is_pixels(space: spaces.Space[Any]) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and min(space.shape[:2]) >= MIN_PIXELS
    )


def _is_vector(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return all(_is_vector(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return all(_is_vector(part) for part in space.spaces)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return True
    return isinstance(space, spaces.Box) and not _is_pixels(space)
