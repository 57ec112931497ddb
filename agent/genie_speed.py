"""How long a step of a Genie world takes who plays, plans or trains in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from ..envs.genie import GenieVectorEnv
from ..modules.genie.sampler import Sampling

_WARM_UP = 5  # steps that are not timed


@dataclass(frozen=True)
class Speed:
    """Milliseconds of single steps: their median, the quartiles around it, and how many steps there were.

    Quartiles, because other jobs make some steps much slower and none much faster: a mean would tell of those jobs.
    """

    median: float
    lower: float
    upper: float
    steps: int


def measure_speed(
    folder: Path,
    prompts: NDArray[np.uint8],
    sampling: Sampling,
    device: torch.device,
    seed: int = 0,
    steps: int = 50,
) -> Speed:
    """Time single steps of an environment with one dream: what `GenieVectorEnv.step` does, under random codes.

    That is a frame, drawn and brought to the CPU, with its reward and ending; a step that ends an episode begins the
    next one. How many frames the dream has seen makes no difference, its past has a fixed number of places.

    Args:
        folder: Of the world.
        prompts: Clips to begin with, uint8 ``[P, F, H, W, 3]``.
        sampling: How frames are sampled; the order is the world's own.
        device: Where the world dreams.
        seed: Draws prompts, codes and noise.
        steps: Steps that are timed, at least 1.

    Raises:
        FileNotFoundError: No world there, or a part of it is missing.
        ValueError: No steps, files that are damaged, or prompts that do not fit the world.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    env = GenieVectorEnv(
        folder,
        seed=seed,
        prompts=prompts,
        max_steps=_WARM_UP + steps + 1,  # time alone ends no episode
        sampling_steps=sampling.steps,
        temperature=sampling.temperature,
        device=str(device),
    )
    env.reset()
    codes = np.random.default_rng(seed).integers(env.world.actions, size=(_WARM_UP + steps, 1))
    spent = []
    for code in codes:
        began = perf_counter()
        env.step(code)
        spent.append(1000 * (perf_counter() - began))
    lower, median, upper = np.quantile(spent[_WARM_UP:], (0.25, 0.5, 0.75))
    return Speed(float(median), float(lower), float(upper), steps)
