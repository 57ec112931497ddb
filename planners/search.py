"""The bookkeeping of one decision, the same for every planner: checks, elites, the best so far, calls and the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from .actions import Components, bounds, joint_actions, repeat, uniform
from .checks import check_budget, check_space, checked_energies, elite_count
from .proposals import proposed_actions, proposed_categorical, proposed_gaussian
from .sampling import Limits, draw_categorical, draw_gaussian, fit_gaussian, hold_gaussian, uninformed
from .types import (
    ActionSpace,
    Budget,
    Categorical,
    Distribution,
    Gaussian,
    Objective,
    Plan,
    Progress,
    Proposal,
    Watch,
)


def equal_weights(energies: Tensor) -> Tensor:
    """Equal weights ``[B, E]`` that sum to 1 over the elites that are not forbidden (energy below +inf)."""
    allowed = (energies != torch.inf).float()
    return allowed / allowed.sum(1, keepdim=True)


class Elites(NamedTuple):
    """Candidates of least energy, best first.

    Attributes:
        actions: ``[B, E, T, A]``.
        energies: ``[B, E]``.
        weights: How much each counts in the next distribution ``[B, E]``, with sum 1; 0 where it is forbidden.
        even: Whether all are known to count the same.
    """

    actions: Tensor
    energies: Tensor
    weights: Tensor
    even: bool

    def best(self, count: int) -> Elites:
        """The first ``count`` of them, with weights as they are."""
        return Elites(self.actions[:, :count], self.energies[:, :count], self.weights[:, :count], self.even)


@dataclass
class Search:
    """One decision of a planner: asks the objective, selects elites, and remembers the best and the baseline.

    Its constructor takes what the planner was given, its name and its elites first.

    Attributes:
        planner: Name of the planner.
        elites: How many candidates of an iteration (int), or which fraction (float), are elites.
        weigh: Weights ``[B, E]`` of elites with energies ``[B, E]``, best first; None for `equal_weights`.
        started: Clock at the start, in seconds.
        calls: Predictor calls per environment so far.
        shown: Iterations that the watch was told of.
        baseline: Mean energy ``[B]`` of the first iteration's candidates that are not forbidden.
        found: Best sequence ``[B, T, A]`` of every iteration and its energy ``[B]``.
        last: Elites of the last iteration.

    Raises:
        ValueError: The planner cannot search the space, or the budget or the proposed actions do not fit.
    """

    planner: str
    elites: int | float
    objective: Objective
    action_space: ActionSpace
    proposal: Proposal
    budget: Budget
    batch: int
    generator: torch.Generator
    watch: Watch | None = None
    weigh: Callable[[Tensor], Tensor] | None = None
    started: float = field(default_factory=perf_counter)
    calls: int = 0
    shown: int = 0
    baseline: Tensor | None = None
    found: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    last: Elites | None = None

    def __post_init__(self) -> None:
        check_space(self.planner, self.action_space)
        check_budget(self.budget, self.batch)
        budget, device = self.budget, self.generator.device
        self.count = elite_count(self.elites, budget.candidates)
        self.free = -(-budget.horizon // budget.hold)
        self.blocks = [min(budget.hold, budget.horizon - start) for start in range(0, budget.horizon, budget.hold)]
        self.proposals = proposed_actions(self.proposal, self.action_space, budget, self.batch, device)
        self.rows = torch.arange(self.batch, device=device)[:, None]
        self.even = torch.full((self.batch, self.count), 1 / self.count, device=device)
        self.finite = True  # no energy was +inf so far

    @cached_property
    def limits(self) -> Limits:
        """Bounds of the Box."""
        assert isinstance(self.action_space, spaces.Box)
        return bounds(self.action_space, self.generator.device)

    @cached_property
    def half(self) -> Tensor:
        """Half the range of the Box ``[A]``."""
        low, high = self.limits
        return (high - low) / 2

    @cached_property
    def components(self) -> Components:
        """Components of the Discrete or MultiDiscrete."""
        assert not isinstance(self.action_space, spaces.Box)
        return Components.of(self.action_space, self.generator.device)

    def joint_actions(self) -> Tensor:
        """Every action ``[J, A]`` of a Discrete or MultiDiscrete (`actions.joint_actions`)."""
        return joint_actions(self.planner, self.action_space, self.components)

    def proposed_gaussian(self, minimum_std: float) -> Gaussian | None:
        """The proposed Gaussian ``[B, F, A]`` with a standard deviation of at least ``minimum_std`` half ranges."""
        return proposed_gaussian(self.proposal, self.limits, self.budget, self.batch, minimum_std)

    def first_gaussian(self, initial_std: float, minimum_std: float) -> Gaussian:
        """Where a search in a Box starts ``[B, F, A]``: as proposed, else in its middle with ``initial_std``."""
        proposed = self.proposed_gaussian(minimum_std)
        if proposed is not None:
            return proposed
        start = uninformed(self.action_space, self.batch, self.free, self.generator.device, initial_std)
        assert isinstance(start, Gaussian)
        return start

    def proposed_probabilities(self, exploration: float) -> Tensor | None:
        """The proposed probabilities ``[B, F, N]`` with a share ``exploration`` of uniform mixed in."""
        return proposed_categorical(self.proposal, self.components, self.budget, self.batch, exploration)

    def rounds(self, most: int | None = None) -> Iterator[int]:
        """Count iterations from 0 until there were ``most`` (the budget's), or time is up; the first always happens."""
        for iteration in range(self.budget.iterations if most is None else most):
            if iteration and self.late():
                return
            yield iteration

    def late(self) -> bool:
        """Whether the budget's milliseconds are spent."""
        limit = self.budget.milliseconds
        return limit is not None and 1000 * (perf_counter() - self.started) >= limit

    def evaluate(self, free: Tensor, kept: Elites | None = None) -> Elites:
        """Try candidates ``[B, S, F, A]``, beside elites kept from before, and select the elites.

        In the first iteration the proposed actions take the first places.
        """
        candidates = repeat(free, self.budget.hold, self.budget.horizon, dim=2)
        if not self.found and self.proposals is not None:
            candidates[:, : self.proposals.shape[1]] = self.proposals
        return self.select(candidates, self.ask(candidates), kept)

    def ask(self, candidates: Tensor) -> Tensor:
        """Checked energies ``[B, S]`` of candidates ``[B, S, T, A]``."""
        self.calls += candidates.shape[1] * candidates.shape[2]
        shape = (candidates.shape[0], candidates.shape[1])
        energies, finite = checked_energies(self.objective(self.outside(candidates)), shape)
        self.finite &= finite
        return energies

    def select(self, candidates: Tensor, energies: Tensor, kept: Elites | None = None) -> Elites:
        """The elites of an iteration's candidates ``[B, S, T, A]`` and of those kept; remembers the best."""
        if self.baseline is None:
            self.baseline = mean_energy(energies)
        if kept is not None:
            candidates = torch.cat((kept.actions, candidates), 1)
            energies = torch.cat((kept.energies, energies), 1)
        best, places = energies.topk(min(self.count, energies.shape[1]), dim=1, largest=False)
        places = places.view(*places.shape, 1, 1).expand(-1, -1, *candidates.shape[2:])
        even = self.finite and self.weigh is None and best.shape[1] == self.count
        weights = self.even if even else (self.weigh or equal_weights)(best)
        self.last = Elites(candidates.gather(1, places), best, weights, even)
        self.found.append((self.last.actions[:, 0].clone(), best[:, 0]))  # a view would keep all elites
        if self.watch is not None:
            self.show(*self.best(), self.last.energies, self.last.weights)
        return self.last

    def best(self) -> tuple[Tensor, Tensor]:
        """The best sequence ever seen ``[B, T, A]`` and its energy ``[B]``; of equals, the first."""
        actions, energies = (torch.stack(parts) for parts in zip(*self.found, strict=True))
        iteration, rows = energies.argmin(0), self.rows[:, 0]
        return actions[iteration, rows], energies[iteration, rows]

    def show(self, actions: Tensor, energy: Tensor, energies: Tensor, weights: Tensor) -> None:
        """Tell the watch of an iteration: the best so far, and energies and weights ``[B, E]`` of elites."""
        if self.watch is not None:
            effective = 1 / weights.square().sum(1)
            self.watch(Progress(self.shown, self.calls, energy, spread(energies), effective, self.outside(actions)))
            self.shown += 1

    def draw(self, start: Distribution | None) -> Tensor:
        """Candidates ``[B, S, F, A]`` from a distribution ``[B, F, ...]``, or uniform ones without it."""
        candidates, generator = self.budget.candidates, self.generator
        if isinstance(start, Gaussian):
            return draw_gaussian(start, self.limits, candidates, generator)
        if isinstance(start, Categorical):
            return draw_categorical(start.probabilities, self.components, candidates, generator)
        actions = uniform(self.action_space, self.batch, candidates, self.free, generator)
        return actions.unsqueeze(3) if isinstance(self.action_space, spaces.Discrete) else actions

    def fit(self, elites: Elites) -> Gaussian:
        """The Gaussian ``[B, F, A]`` of elites in a Box."""
        fitted = fit_gaussian(elites.actions, None if elites.even else elites.weights)
        return hold_gaussian(fitted, self.budget.hold)

    def follow(self, current: Gaussian, elites: Elites, momentum: float, minimum: Tensor) -> Gaussian:
        """The Gaussian ``[B, F, A]`` of the next iteration: that of the elites, held back by ``momentum``.

        Its standard deviation is at least ``minimum [A]``.
        """
        fitted = self.fit(elites)
        fitted.mean.lerp_(current.mean, momentum)
        fitted.std.lerp_(current.std, momentum).clamp_(minimum)
        return fitted

    def agree(self, elites: Elites, agreement: float) -> bool:
        """Whether the elites of every environment differ by less than ``agreement``; never for 0.

        How much they differ is the mean over steps and components of their standard deviation in half ranges (Box), or
        of the share of elites that do not take the commonest action (else).
        """
        if not agreement:
            return False
        if isinstance(self.action_space, spaces.Box):
            std = fit_gaussian(elites.actions, elites.weights).std
            differences = std / self.half.clamp(min=torch.finfo(std.dtype).tiny)
        else:
            common = elites.actions.mode(1, keepdim=True).values
            differences = ((elites.actions != common) * elites.weights[:, :, None, None]).sum(1)
        return bool((differences.flatten(1).mean(1) < agreement).all())

    def steps_left(self, depth: Tensor) -> Tensor:
        """Steps until the horizon ``[B]`` after ``depth`` free actions ``[B]``."""
        return self.budget.horizon - depth * self.budget.hold

    def plan(self, distribution: Distribution) -> Plan:
        """The outcome, with a distribution given at the F free actions."""
        hold, horizon = self.budget.hold, self.budget.horizon
        if isinstance(distribution, Gaussian):
            mean = distribution.mean.clamp(*self.limits)  # where rounding led out of the Box
            mean, std = (repeat(part, hold, horizon, dim=1) for part in (mean, distribution.std))
            distribution = Gaussian(mean, std)
        else:
            distribution = Categorical(repeat(distribution.probabilities, hold, horizon, dim=1))
        assert self.last is not None and self.baseline is not None
        actions, energy = self.best()
        return Plan(
            actions=self.outside(actions),
            distribution=distribution,
            energy=energy,
            baseline=self.baseline,
            calls=self.calls,
            milliseconds=1000 * (perf_counter() - self.started),
            elites=self.outside(self.last.actions),
        )

    def outside(self, actions: Tensor) -> Tensor:
        """Actions ``[..., A]`` as everyone else knows them: without A for Discrete."""
        return actions.squeeze(-1) if isinstance(self.action_space, spaces.Discrete) else actions


def mean_energy(energies: Tensor) -> Tensor:
    """Mean ``[B]`` of the energies ``[B, S]`` that are not forbidden."""
    allowed = energies != torch.inf
    return energies.where(allowed, 0).sum(1) / allowed.sum(1)


def spread(energies: Tensor) -> Tensor:
    """Standard deviation ``[B]`` of the energies ``[B, S]`` that are not forbidden."""
    gaps = energies.where(energies != torch.inf, torch.nan) - mean_energy(energies)[:, None]
    return gaps.square().nanmean(1).sqrt()
