"""Spaces, objectives whose optimum is known, and ways to run a planner on them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from forethought.planners import (
    PLANNERS,
    ActionSpace,
    Budget,
    Categorical,
    Gaussian,
    Nodes,
    Objective,
    Plan,
    Planner,
    Proposal,
    Watch,
    uniform,
)
from forethought.planners.actions import Components, bounds
from forethought.planners.checks import SUPPORTED
from gymnasium import spaces
from torch import Tensor

BOX = spaces.Box(-1, 1, (2,))
SKEWED = spaces.Box(np.array([-0.4, 2.0, -9.0], np.float32), np.array([0.3, 2.5, -1.0], np.float32))
DOUBLE = spaces.Box(np.array([-0.1, 0.3]), np.array([0.7, 0.9]), dtype=np.float64)
DISCRETE = spaces.Discrete(5)
MULTI = spaces.MultiDiscrete([3, 5, 2])
SPACES: dict[str, ActionSpace] = {"box": BOX, "skewed": SKEWED, "double": DOUBLE, "discrete": DISCRETE, "multi": MULTI}
STEPWISE = ("beam", "tree")
PAIRS = [(name, label) for label, space in SPACES.items() for name in PLANNERS if isinstance(space, SUPPORTED[name])]
"""Every planner with every space that it solves."""

SAMPLING = [pair for pair in PAIRS if pair[0] not in (*STEPWISE, "gradient")]
"""Those that need no more than energies, and draw their candidates."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(
    planner: Planner,
    objective: Objective,
    space: ActionSpace,
    budget: Budget,
    *,
    proposal: Proposal | None = None,
    batch: int = 1,
    seed: int = 0,
    watch: Watch | None = None,
) -> Plan:
    return planner.plan(objective, space, proposal or Proposal(), budget, batch, generator(seed), watch)


def targets(space: ActionSpace, batch: int, horizon: int, seed: int = 7) -> Tensor:
    """A different optimum ``[B, T, ...]`` inside the bounds for every environment and step."""
    return uniform(space, batch, 1, horizon, generator(seed))[:, 0]


def sizes(space: ActionSpace) -> list[int]:
    """Actions of each component of a Discrete or MultiDiscrete."""
    assert not isinstance(space, spaces.Box)
    return Components.of(space, "cpu").sizes.tolist()


@dataclass
class Distance:
    """0 at the target: mean squared distance in half ranges (Box), share of wrong actions (else).

    It can also be followed step by step: a node is how many steps were made.
    """

    space: ActionSpace
    target: Tensor
    discount: float = 1.0
    steps: int = 0

    def wrong(self, actions: Tensor, goal: Tensor) -> Tensor:
        """Distance ``[...]`` of single actions."""
        if isinstance(self.space, spaces.Discrete):
            return (actions != goal).float()
        if isinstance(self.space, spaces.Box):
            low, high = bounds(self.space, "cpu")
            return ((actions - goal) / ((high - low) / 2)).square().mean(-1)
        return (actions != goal).float().mean(-1)

    def __call__(self, actions: Tensor) -> Tensor:
        return self.wrong(actions, self.target.unsqueeze(1)).mean(2)

    def root(self) -> Nodes:
        return (torch.zeros(len(self.target), 1, dtype=torch.long),)

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        self.steps += actions.shape[1]
        (time,) = nodes
        horizon = self.target.shape[1]
        goal = self.target[torch.arange(len(time))[:, None], time.clamp(max=horizon - 1)]
        cost = self.wrong(actions, goal) / horizon + 100.0 * (time >= horizon)  # what comes later must not count
        return (time + 1,), cost, torch.ones_like(cost)

    def leaf(self, nodes: Nodes) -> Tensor:
        return torch.zeros(nodes[0].shape)

    def prior(self, nodes: Nodes) -> Tensor:
        assert not isinstance(self.space, spaces.Box)
        return Components.of(self.space, "cpu").uniform.expand(*nodes[0].shape, -1)


@dataclass
class Chain:
    """A random MDP per environment with discount, endings, a critic and an actor; nodes are states.

    The energy is Σ γ^t Π(continue) cost[t] + γ^T Π(continue) leaf.
    """

    seed: int
    batch: int = 3
    states: int = 5
    actions: int = 3
    horizon: int = 4
    discount: float = 0.9
    steps: int = 0

    def __post_init__(self) -> None:
        source = generator(self.seed)
        shape = (self.batch, self.states, self.actions)
        self.following = torch.randint(self.states, shape, generator=source)
        self.costs = torch.rand(shape, generator=source) - 0.3
        self.going = 0.5 + 0.5 * torch.rand(shape, generator=source)
        self.values = torch.rand(shape[:2], generator=source)
        self.policy = torch.rand(shape, generator=source).softmax(-1)
        self.rows = torch.arange(self.batch)[:, None]

    def root(self) -> Nodes:
        return (torch.zeros(self.batch, 1, dtype=torch.long),)

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        self.steps += actions.shape[1]
        place = (self.rows, nodes[0], actions)
        return (self.following[place],), self.costs[place], self.going[place]

    def leaf(self, nodes: Nodes) -> Tensor:
        return self.values[self.rows, nodes[0]]

    def prior(self, nodes: Nodes) -> Tensor:
        return self.policy[self.rows, nodes[0]]

    def __call__(self, sequences: Tensor) -> Tensor:
        state = torch.zeros(sequences.shape[:2], dtype=torch.long)
        energy, share = torch.zeros(sequences.shape[:2]), torch.ones(sequences.shape[:2])
        for time, action in enumerate(sequences.unbind(2), 1):
            place = (self.rows, state, action)
            energy = energy + self.discount**time * share * self.costs[place]
            share, state = share * self.going[place], self.following[place]
        return energy + self.discount**time * share * self.values[self.rows, state]

    def least(self) -> Tensor:
        """The least energy ``[B]``, found by exhausting all sequences."""
        every = torch.tensor(list(itertools.product(range(self.actions), repeat=self.horizon)))
        return self(every.expand(self.batch, -1, -1)).min(1).values


@dataclass
class Watched:
    """An objective that remembers what it was asked."""

    objective: Objective
    asked: list[Tensor] = field(default_factory=list)

    def __call__(self, actions: Tensor) -> Tensor:
        self.asked.append(actions.detach().clone())
        return self.objective(actions)


def contained(actions: Tensor, space: ActionSpace) -> bool:
    flat = actions.flatten() if isinstance(space, spaces.Discrete) else actions.flatten(0, -2)
    return all(space.contains(action) for action in flat.numpy())


def same(one: Plan, other: Plan) -> bool:
    a, b = one.distribution, other.distribution
    equal = torch.equal(one.actions, other.actions) and torch.equal(one.energy, other.energy)
    if isinstance(a, Gaussian) and isinstance(b, Gaussian):
        return equal and torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    assert isinstance(a, Categorical) and isinstance(b, Categorical)
    return equal and torch.equal(a.probabilities, b.probabilities)


def sharp(space: ActionSpace, target: Tensor) -> Gaussian | Categorical:
    """The distribution ``[B, T, ...]`` that is certain of a target ``[B, T, ...]``."""
    if isinstance(space, spaces.Box):
        return Gaussian(target, torch.zeros_like(target))
    parts = target.unsqueeze(-1) if isinstance(space, spaces.Discrete) else target
    hot = [torch.nn.functional.one_hot(p, n) for p, n in zip(parts.unbind(-1), sizes(space), strict=True)]
    return Categorical(torch.cat(hot, -1).float())
