"""What every planner takes and returns. Planners know an objective and an action space, and no network.

Shapes: B environments, S candidate plans, T steps of the horizon, A width of an action (Box, MultiDiscrete) or number
of actions (Discrete). An action sequence is ``[B, S, T]`` int64 for Discrete, ``[B, S, T, A]`` float32 for Box and
``[B, S, T, A]`` int64 for MultiDiscrete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from gymnasium import spaces
from torch import Tensor

ActionSpace = spaces.Box | spaces.Discrete | spaces.MultiDiscrete
"""The action spaces of one environment (not batched) that agents support."""

Objective = Callable[[Tensor], Tensor]
"""Action sequences ``[B, S, T, ...]`` to energies ``[B, S]``; low is good."""


Nodes = tuple[Tensor, ...]
"""Imagined states, N for each environment: tensors ``[B, N, ...]`` that only the objective understands."""


class StepwiseObjective(Protocol):
    """An objective that can also be followed step by step, for planners that grow a tree.

    The energy of a sequence is Σ γ^t Π(continue) cost[t] + γ^T Π(continue) leaf, as `Objective` returns it.
    """

    @property
    def discount(self) -> float:
        """γ."""
        ...

    def __call__(self, actions: Tensor) -> Tensor:
        """Energies ``[B, S]`` of action sequences ``[B, S, T, ...]``."""
        ...

    def root(self) -> Nodes:
        """The present state of each environment, as N = 1 node."""
        ...

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        """What ``actions [B, N, ...]`` lead to: nodes, costs ``[B, N]`` and chances to go on ``[B, N]``."""
        ...

    def leaf(self, nodes: Nodes) -> Tensor:
        """Cost-to-go ``[B, N]`` expected from nodes on."""
        ...

    def prior(self, nodes: Nodes) -> Tensor:
        """Probabilities ``[B, N, A]`` with which an actor would take each discrete action."""
        ...


@dataclass(frozen=True)
class Budget:
    """What one decision may cost: at most ``candidates × iterations × horizon`` predictor calls per environment.

    Attributes:
        horizon: Steps T of an imagined course of action.
        candidates: Courses S tried in one iteration.
        iterations: How often the candidates are improved and tried again.
        hold: How many consecutive steps a candidate keeps each action (1 is free choice at every step).
        milliseconds: Wall-clock time after which nothing more is begun, so that a decision takes at most one iteration
            longer; the first is always made. None: no limit, and the same seed gives the same plan on every machine.
    """

    horizon: int = 12
    candidates: int = 64
    iterations: int = 3
    hold: int = 1
    milliseconds: float | None = None

    @property
    def calls(self) -> int:
        """Predictor calls that one decision in one environment may make at most."""
        return self.horizon * self.candidates * self.iterations


@dataclass(frozen=True)
class Gaussian:
    """Independent normal action distributions of a plan: ``mean`` and ``std``, both ``[B, T, A]``."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Categorical:
    """Independent categorical action distributions of a plan.

    ``probabilities`` is ``[B, T, A]`` for Discrete(A); for MultiDiscrete it is ``[B, T, sum(nvec)]``, the
    distributions of the components one behind the other.
    """

    probabilities: Tensor


Distribution = Gaussian | Categorical


@dataclass(frozen=True)
class Proposal:
    """Where a planner may start: the shifted last plan, and courses of action that the actor would take.

    Attributes:
        distribution: Initial search distribution, or None for the uninformed one of the action space.
        actions: Candidate sequences ``[B, P, T, ...]`` (P < S) that take the place of as many random ones in the first
            iteration, or None.
    """

    distribution: Distribution | None = None
    actions: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """The outcome of one decision.

    Attributes:
        actions: Best sequence found, ``[B, T, ...]``.
        distribution: Distribution of the elites of the last iteration; of tree search, how often actions were tried.
        energy: Energy of ``actions`` ``[B]``.
        baseline: Mean energy of the first iteration's candidates ``[B]``; how much was gained by thinking.
        calls: Predictor calls used per environment (forward ones; what a gradient costs beside them is not counted).
        milliseconds: Wall-clock time of the whole batch.
        elites: Those of the last iteration, best first ``[B, E, T, ...]``.
    """

    actions: Tensor
    distribution: Distribution
    energy: Tensor
    baseline: Tensor
    calls: int
    milliseconds: float
    elites: Tensor


@dataclass(frozen=True)
class Progress:
    """What a planner shows of one iteration.

    Attributes:
        iteration: Counted from 0.
        calls: Predictor calls so far, per environment.
        energy: Of ``actions`` ``[B]``.
        spread: Standard deviation of the energies of the elites that are not forbidden ``[B]``.
        effective: Effective number of elites 1 / Σ w² under the weights w with which they count ``[B]``.
        actions: Best sequence so far ``[B, T, ...]``.
    """

    iteration: int
    calls: int
    energy: Tensor
    spread: Tensor
    effective: Tensor
    actions: Tensor


Watch = Callable[[Progress], None]
"""Is told of every iteration of a planner, without touching it."""


class Planner(Protocol):
    """An optimiser over action sequences."""

    def plan(
        self,
        objective: Objective,
        action_space: ActionSpace,
        proposal: Proposal,
        budget: Budget,
        batch: int,
        generator: torch.Generator,
        watch: Watch | None = None,
    ) -> Plan:
        """Look for the sequence of least energy for each of ``batch`` environments.

        Args:
            objective: What to minimise; a `StepwiseObjective` for beam and tree search, differentiable for gradients.
            action_space: Of one environment.
            proposal: Where to start.
            budget: What the decision may cost.
            batch: Environments B.
            generator: Draws everything random, on the device where the plan is made.
            watch: Is told of every iteration.

        Raises:
            ValueError: The planner cannot search the space, or an argument does not fit.
            FloatingPointError: The objective returned NaN or -inf, or forbids every candidate.
        """
        ...
