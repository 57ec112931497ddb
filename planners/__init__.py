"""Optimisers over action sequences. They know an objective and an action space, and no network."""

from __future__ import annotations

from gymnasium import spaces

from .categorical_cem import CategoricalCEM
from .cem import GaussianCEM
from .random_shooting import RandomShooting
from .sampling import check_space, clip, repeat, shift, shift_actions, uniform, uninformed
from .types import (
    ActionSpace,
    Budget,
    Categorical,
    Distribution,
    Gaussian,
    Nodes,
    Objective,
    Plan,
    Planner,
    Proposal,
    StepwiseObjective,
)

PLANNERS: dict[str, type[Planner]] = {
    "random_shooting": RandomShooting,
    "cem": GaussianCEM,
    "categorical_cem": CategoricalCEM,
}
"""Planners by name."""


def make_planner(name: str, action_space: ActionSpace) -> Planner:
    """The planner of this name with its default options.

    Raises:
        ValueError: If no planner has the name, or the planner does not fit the action space.
    """
    if name not in PLANNERS:
        raise ValueError(
            f"unknown planner {name!r}, expected one of {', '.join(map(repr, PLANNERS))}: "
            f"for {action_space} use {default_planner(action_space)!r}"
        )
    check_space(name, action_space)
    return PLANNERS[name]()


def default_planner(action_space: ActionSpace) -> str:
    """Name of the planner to use for this action space: "cem" for a Box, else "categorical_cem".

    Raises:
        ValueError: If no planner fits the action space.
    """
    name = "cem" if isinstance(action_space, spaces.Box) else "categorical_cem"
    check_space(name, action_space)
    return name


__all__ = [
    "PLANNERS",
    "ActionSpace",
    "Budget",
    "Categorical",
    "CategoricalCEM",
    "Distribution",
    "Gaussian",
    "GaussianCEM",
    "Nodes",
    "Objective",
    "Plan",
    "Planner",
    "Proposal",
    "RandomShooting",
    "StepwiseObjective",
    "clip",
    "default_planner",
    "make_planner",
    "repeat",
    "shift",
    "shift_actions",
    "uniform",
    "uninformed",
]
