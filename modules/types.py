"""What the modules say to each other: states, trajectories and the configuration.

Shapes: B batch (environments), S candidate plans, T steps, D latent width, I interoceptive channels, K drives, E
ensemble members, A width of an encoded action. Index convention: ``a[t]`` leads from ``s[t]`` to ``s[t+1]``; energy is
read on ``s[1] … s[T]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

SENSORS = ("energy", "hazard_distance")
"""What a world may measure of the agent besides reward and ending: the charge of its battery from 0 to 1, and the
distance to the nearest hazard, 0 at contact, in widths of the world."""

INTEROCEPTION = ("reward", "ended", "effort", "goal_distance", *SENSORS, "disagreement", "impact")
"""The interoceptive channels ι, in order: reward event, end of the episode by the world, ‖a‖², ‖s − s_goal‖²/D; the
sensors that the world offers; variance of the ensemble's predictions, ‖Pred(s, a) − Pred(s, no-op)‖²/D. 0 where
unknown."""

DRIVES = ("pleasure", "ending", "effort", "goal", "hunger", "hazard", "novelty", "agency")
"""The drives of the intrinsic cost, in order; drive k reads channel k of ι."""

SENSOR_DRIVES = {"energy": "hunger", "hazard_distance": "hazard"}
"""The drive that reads each sensor."""

IMAGINED_DRIVES = ("novelty", "agency")
"""Drives about the world model's own predictions: felt in imagination alone, and only where they have weight."""

Mode = Literal["mode-1", "mode-2", "gated"]

DOUBTS = ("entropy", "variance", "spread", "surprise")
"""What a reactive agent can be unsure about, in order: see `Gate`."""


@dataclass(frozen=True)
class Gate:
    """When the gated agent plans: where one of its doubts is above its threshold. None: that doubt is not looked at."""

    entropy: float | None = None
    """Of the policy, in nats."""
    variance: float | None = None
    """Of the latent one step ahead over the members of an ensemble, mean over D; costs a predictor call of each."""
    spread: float | None = None
    """Standard deviation of the critic's cost-to-go under the distributions of its heads."""
    surprise: float | None = None
    """How much more the critic foresees in this state than in the one that the world model had expected of the last
    decision; costs a predictor call for each step that is expected."""
    chance: float | None = None
    """Plan with this chance besides, whatever the doubts: alone it is the control that a gate has to beat."""

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Of the doubts, in the order of `DOUBTS`."""
        return self.entropy, self.variance, self.spread, self.surprise

    @property
    def open(self) -> bool:
        """Whether there is anything that makes it plan."""
        return self.chance is not None or any(threshold is not None for threshold in self.thresholds)


@dataclass(frozen=True)
class State:
    """A world state as the modules see it.

    Attributes:
        latent: ``[..., D]``, what perception computes and the world model predicts.
        interoception: ι ``[..., I]``, measured with the percept or predicted with the latent; None where unknown.
        continuation: Chance in [0, 1] that the episode goes on in this state ``[...]``; None where unknown.
    """

    latent: Tensor
    interoception: Tensor | None = None
    continuation: Tensor | None = None


@dataclass(frozen=True)
class Trajectory:
    """An imagined course of events; index 0 is the state it starts from.

    Attributes:
        latent: ``[B, S, T+1, D]``.
        interoception: ι of ``s[1] … s[T]``, ``[B, S, T, I]``.
        continuation: Chance that the episode goes on in ``s[1] … s[T]``, given it went on before, ``[B, S, T]``.
        members: Of an ensemble's E members in M futures, whose mean the above are, each one's own:
            ``[B, S, M·E, T+1, D]`` and so on, future by future.
        futures: M, draws of the latent variable z.
    """

    latent: Tensor
    interoception: Tensor
    continuation: Tensor
    members: Trajectory | None = None
    futures: int = 1

    @property
    def each(self) -> Trajectory:
        """Every future, in the mean over members: ``[B, S, M, T+1, D]`` and so on."""
        if self.members is None:
            return Trajectory(self.latent.unsqueeze(2), self.interoception.unsqueeze(2), self.continuation.unsqueeze(2))
        latent, iota, going = (
            by_future(part, self.futures).mean(3)
            for part in (self.members.latent, self.members.interoception, self.members.continuation)
        )
        return Trajectory(latent, iota, going)

    @property
    def disagreement(self) -> Tensor:
        """Variance over members of the latents ``s[1] … s[T]`` in the same future, mean over futures and D,
        ``[B, S, T]``; 0 for one predictor."""
        if self.members is None:
            return torch.zeros_like(self.continuation)
        latent = by_future(self.members.latent[..., 1:, :], self.futures)
        return latent.var(3, correction=0).mean((2, -1))


def by_future(values: Tensor, futures: int) -> Tensor:
    """Members' own values ``[B, S, M·E, ...]`` as those of each future ``[B, S, M, E, ...]``."""
    return values.reshape(*values.shape[:2], futures, values.shape[2] // futures, *values.shape[3:])


@dataclass(frozen=True)
class Configuration:
    """How the configurator sets the other modules for the task at hand.

    Attributes:
        u: Weights of the intrinsic cost per drive ``[K]``.
        v: Weights of the critic per drive ``[K]``.
        goal: Latent of the goal state ``[B, D]``, or None for a task without one.
        mode: Which episode to run.
        discount: γ of the energy of a plan.
        horizon: Steps T that Mode-2 looks ahead.
        candidates: Courses of action per planning iteration.
        iterations: Planning iterations per decision.
        hold: Steps for which a candidate keeps each action.
        proposals: How many candidates of the first iteration are the actor's own roll-outs.
        commit: First actions of a plan that are carried out before planning again.
        risk: β of J = mean F + β·std F over futures and the members of an ensemble; above 0 uncertainty is shunned.
        futures: Draws M of the latent variable z in which each candidate is imagined, the same for all.
        adversary: Whether z is chosen against the agent: of the futures the worst counts.
        habit: η of the actor's surprise −η·log π(a), which is a cost of each imagined step besides; 0: none.
        views: Shifted views of a picture whose latents are averaged to the state.
        sample: Whether actions are drawn, from the policy or from the distribution of the plan.
        milliseconds: Time after which a decision begins no further iteration, or None.
        gate: Doubts above which the gated mode plans.
        recalled: What the percepts bring to mind ``[B, V]``, where perception recalls.
        context: Context ``[C]`` of perception and world model, in place of the one that the world tells; None: as told.
    """

    u: Tensor
    v: Tensor
    goal: Tensor | None = None
    mode: Mode = "mode-2"
    discount: float = 0.99
    horizon: int = 12
    candidates: int = 64
    iterations: int = 3
    hold: int = 1
    proposals: int = 0
    commit: int = 1
    risk: float = 0.0
    futures: int = 4
    adversary: bool = False
    habit: float = 0.0
    views: int = 1
    sample: bool = False
    milliseconds: float | None = None
    gate: Gate = Gate()
    recalled: Tensor | None = None
    context: Tensor | None = None

    @property
    def feels(self) -> tuple[str, ...]:
        """Those of `IMAGINED_DRIVES` that have weight; the others' channels need not be worked out."""
        weights = self.u[-len(IMAGINED_DRIVES) :].tolist()
        return tuple(name for name, weight in zip(IMAGINED_DRIVES, weights, strict=True) if weight)

    def with_goal(self, goal: Tensor | None) -> Configuration:
        """The same configuration for another goal ``[B, D]``."""
        return replace(self, goal=goal)


def drive_weights(device: torch.device | None = None, **weights: float) -> Tensor:
    """Build a weight vector ``[K]`` from drive names; drives not named get 0.

    Raises:
        ValueError: A name is not one of `DRIVES`.
    """
    unknown = sorted(set(weights) - set(DRIVES))
    if unknown:
        raise ValueError(f"unknown drive {unknown[0]!r}; the drives are {', '.join(DRIVES)}")
    return torch.tensor([weights.get(name, 0.0) for name in DRIVES], device=device)


def required_goal(configuration: Configuration, user: str) -> Tensor:
    """The configuration's goal ``[B, D]``.

    Raises:
        ValueError: It has none.
    """
    if configuration.goal is None:
        raise ValueError(f"this {user} was made for goals and the configuration has none; set configuration.goal")
    return configuration.goal
