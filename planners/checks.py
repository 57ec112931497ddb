"""What planners refuse: spaces they cannot search, options and budgets out of range, and energies that are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .types import Budget, Objective, StepwiseObjective

SUPPORTED: dict[str, tuple[type[spaces.Space[Any]], ...]] = {
    "random_shooting": (spaces.Box, spaces.Discrete, spaces.MultiDiscrete),
    "cem": (spaces.Box,),
    "icem": (spaces.Box,),
    "mppi": (spaces.Box,),
    "gradient": (spaces.Box,),
    "categorical_cem": (spaces.Discrete, spaces.MultiDiscrete),
    "beam": (spaces.Discrete, spaces.MultiDiscrete),
    "tree": (spaces.Discrete, spaces.MultiDiscrete),
}
"""Which planner fits which action spaces."""


def either(names: Sequence[str]) -> str:
    """Names as a choice: ``a, b or c``."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def check_space(planner: str, action_space: spaces.Space[Any]) -> None:
    """Raise ValueError unless the planner of this name can search this action space."""
    if not isinstance(action_space, SUPPORTED[planner]):
        fitting = [repr(name) for name, kinds in SUPPORTED.items() if isinstance(action_space, kinds)]
        expected = either([kind.__name__ for kind in SUPPORTED[planner]])
        advice = f"use {either(fitting)}" if fitting else "flatten it into one of these with a wrapper"
        raise ValueError(f"planner {planner!r} expects a {expected} action space, got {action_space}: {advice}")
    if len(action_space.shape or ()) > 1 or (isinstance(action_space, spaces.Box) and action_space.shape == ()):
        raise ValueError(f"expected an action space of shape (A,), got {action_space}: flatten it with a wrapper")
    if isinstance(action_space, spaces.Box):
        if not np.issubdtype(action_space.dtype, np.floating):
            raise ValueError(f"expected a Box of floats, got {action_space}: integer actions are a MultiDiscrete")
    elif np.any(action_space.start):  # type: ignore[attr-defined]
        raise ValueError(f"expected actions that count from 0, got {action_space}: shift them with a wrapper")


def check_number(option: str, value: float, lowest: float, highest: float, *, exclusive: bool = False) -> None:
    """Raise ValueError unless ``lowest <= value <= highest`` (``< highest`` if exclusive)."""
    if not (lowest <= value < highest if exclusive else lowest <= value <= highest):
        raise ValueError(f"{option}={value}, expected {lowest} <= {option} {'<' if exclusive else '<='} {highest}")


def check_elites(elites: int | float) -> None:
    """Raise ValueError unless ``elites`` is a count >= 1 (int) or a fraction in (0, 1] (float)."""
    if isinstance(elites, bool) or not (elites >= 1 if isinstance(elites, int) else 0 < elites <= 1):
        raise ValueError(f"elites={elites}, expected a count >= 1 (int) or a fraction of the candidates in (0, 1]")


def elite_count(elites: int | float, candidates: int) -> int:
    """How many of the candidates are elites; a fraction is rounded, to at least one."""
    count = elites if isinstance(elites, int) else max(1, round(elites * candidates))
    if count > candidates:
        raise ValueError(
            f"elites={elites} of candidates={candidates}, expected elites <= candidates: "
            "raise the budget's candidates or give elites as a fraction"
        )
    return count


def check_agreement(agreement: float, elites: int | float) -> None:
    """Raise ValueError unless ``agreement`` is in [0, 1) and, where it is used, more than one elite can agree."""
    check_number("agreement", agreement, 0, 1, exclusive=True)
    if agreement and elites == 1 and isinstance(elites, int):
        raise ValueError(f"agreement={agreement} with elites=1, expected elites >= 2: one always agrees with itself")


def check_gaussian(
    elites: int | float, initial_std: float, minimum_std: float, momentum: float, agreement: float
) -> None:
    """Raise ValueError unless the options that planners with a Gaussian share are in range."""
    check_elites(elites)
    check_number("momentum", momentum, 0, 1, exclusive=True)
    check_number("minimum_std", minimum_std, 0, 1)
    check_number("initial_std", initial_std, max(minimum_std, 1e-6), 10)
    check_agreement(agreement, elites)


def check_budget(budget: Budget, batch: int) -> None:
    """Raise ValueError unless every number of the budget, and the batch, is a whole one >= 1, and there is time."""
    numbers = {
        "horizon": budget.horizon,
        "candidates": budget.candidates,
        "iterations": budget.iterations,
        "hold": budget.hold,
        "batch": batch,
    }
    for name, value in numbers.items():
        try:
            index(value)
        except TypeError:
            raise ValueError(f"{name}={value!r}, expected a whole number") from None
        if value < 1:
            raise ValueError(f"{name}={value}, expected {name} >= 1: to act without planning, use Mode-1")
    if budget.milliseconds is not None and not budget.milliseconds > 0:
        raise ValueError(f"milliseconds={budget.milliseconds}, expected more than 0, or None for no limit")


def check_calls(planner: str, needed: int, available: int, reason: str) -> None:
    """Raise ValueError unless the predictor calls of the budget pay for a planner's first iteration."""
    if needed > available:
        raise ValueError(
            f"planner {planner!r} needs at least {needed} predictor calls ({reason}) and the budget has {available}: "
            "raise candidates or iterations"
        )


def stepwise(planner: str, objective: Objective, *needed: str) -> StepwiseObjective:
    """The objective as one that can be followed step by step.

    Raises:
        ValueError: It lacks one of the ``needed`` attributes of `StepwiseObjective`.
    """
    missing = [name for name in needed if not hasattr(objective, name)]
    if missing:
        raise ValueError(
            f"planner {planner!r} follows its objective step by step and {type(objective).__name__} has no "
            f"{either(missing)}: give it a StepwiseObjective"
        )
    return cast(StepwiseObjective, objective)


def checked_energies(energies: Tensor, expected: tuple[int, int], what: str = "candidate") -> tuple[Tensor, bool]:
    """Energies ``[B, S]`` in float32 or float64, after the checks that no result of a planner can do without.

    As long as nothing is wrong or forbidden, one number is read back from the device: the sum of all.

    Returns:
        The energies, and whether all are finite: none is forbidden.

    Raises:
        ValueError: The shape is not the expected ``(B, S)``.
        FloatingPointError: NaN or -inf among them, or an environment all of whose candidates are forbidden (+inf).
    """
    if energies.shape != expected:
        raise ValueError(
            f"the objective returned energies of shape {list(energies.shape)} for {list(expected)} "
            f"[environments, {what}s]: return one energy per {what}"
        )
    if energies.dtype not in (torch.float32, torch.float64):
        energies = energies.float()
    if math.isfinite(energies.sum().item()):
        return energies, True
    least = energies.amin(1)  # finite where none is NaN or -inf and not all are +inf
    if bool(least.isfinite().all()):
        return energies, bool(energies.isfinite().all())  # a sum of finite numbers may be infinite, too
    invalid = int((~(energies > -math.inf)).sum())
    if invalid:
        raise FloatingPointError(
            f"{invalid} of {energies.numel()} energies are not finite (NaN or -inf), expected numbers, or +inf for "
            f"forbidden {what}s: the world model or a cost head diverged; check its outputs and weights"
        )
    raise FloatingPointError(
        f"all {expected[1]} {what}s are forbidden (energy +inf) in {int((least == math.inf).sum())} of {expected[0]} "
        "environments, expected at least one that is not: raise the budget's candidates or loosen the hard constraints"
    )
