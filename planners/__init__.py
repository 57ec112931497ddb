"""Optimisers over action sequences. They know an objective and an action space, and no network."""

from __future__ import annotations

from gymnasium import spaces

from .actions import clip, repeat, spread, uniform
from .beam import BeamSearch
from .categorical_cem import CategoricalCEM
from .cem import GaussianCEM
from .checks import SUPPORTED, check_space
from .gradient import GradientDescent
from .icem import ICEM
from .mppi import MPPI
from .random_shooting import RandomShooting
from .sampling import drawn, shift, shift_actions, shift_elites, uninformed
from .tree import TreeSearch
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
    Progress,
    Proposal,
    StepwiseObjective,
    Watch,
)

PLANNERS: dict[str, type[Planner]] = {
    "random_shooting": RandomShooting,
    "cem": GaussianCEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": GradientDescent,
    "categorical_cem": CategoricalCEM,
    "beam": BeamSearch,
    "tree": TreeSearch,
}
"""Planners by name; `check_space` knows which action spaces each of them solves."""


def make_planner(name: str, action_space: ActionSpace) -> Planner:
    """The planner of this name with its default options.

    Raises:
        ValueError: If no planner has the name, or the planner does not fit the action space.
    """
    if name not in PLANNERS:
        known = (f"{known!r} ({', '.join(kind.__name__ for kind in SUPPORTED[known])})" for known in PLANNERS)
        raise ValueError(
            f"unknown planner {name!r}, expected one of {', '.join(known)}: "
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
    "ICEM",
    "MPPI",
    "PLANNERS",
    "ActionSpace",
    "BeamSearch",
    "Budget",
    "Categorical",
    "CategoricalCEM",
    "Distribution",
    "Gaussian",
    "GaussianCEM",
    "GradientDescent",
    "Nodes",
    "Objective",
    "Plan",
    "Planner",
    "Progress",
    "Proposal",
    "RandomShooting",
    "StepwiseObjective",
    "TreeSearch",
    "Watch",
    "clip",
    "default_planner",
    "drawn",
    "make_planner",
    "repeat",
    "shift",
    "shift_actions",
    "shift_elites",
    "spread",
    "uniform",
    "uninformed",
]
