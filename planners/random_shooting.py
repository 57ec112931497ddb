"""Random shooting: try many random courses of action and take the best. The floor every other planner must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor

from .sampling import (
    Components,
    Search,
    block_mean,
    bounds,
    check_budget,
    check_elites,
    check_number,
    check_space,
    draw_categorical,
    draw_gaussian,
    elite_count,
    elite_weights,
    fit_categorical,
    fit_gaussian,
    hold_gaussian,
    proposed_actions,
    proposed_categorical,
    proposed_gaussian,
    repeat,
    uniform,
)
from .types import ActionSpace, Budget, Categorical, Distribution, Gaussian, Objective, Plan, Proposal


@dataclass(frozen=True)
class RandomShooting:
    """Uniform random candidates (or draws from the proposed distribution), independent in every iteration.

    Attributes:
        elites: How many of all candidates (or which fraction of one iteration's) shape the returned distribution.
        minimum_std: Smallest standard deviation in a Box, as a fraction of half its range.
        smoothing: Pseudo-count added to every action of a discrete space in the returned distribution.
        exploration: Share of uniform mixed into a proposed categorical distribution.
    """

    elites: int | float = 0.1
    minimum_std: float = 0.05
    smoothing: float = 0.1
    exploration: float = 0.05

    def __post_init__(self) -> None:
        check_elites(self.elites)
        check_number("minimum_std", self.minimum_std, 0, 1)
        check_number("smoothing", self.smoothing, 0, math.inf, exclusive=True)
        check_number("exploration", self.exploration, 0, 1)

    @torch.no_grad()
    def plan(
        self,
        objective: Objective,
        action_space: ActionSpace,
        proposal: Proposal,
        budget: Budget,
        batch: int,
        generator: torch.Generator,
    ) -> Plan:
        """Look for the sequence of least energy for each of ``batch`` environments."""
        check_space("random_shooting", action_space)
        check_budget(budget, batch)
        proposals = proposed_actions(proposal, action_space, budget, batch, generator.device)
        search = Search(objective, action_space, proposals, elite_count(self.elites, budget.candidates))
        start = self._start(action_space, proposal, budget, batch, generator.device)
        elites, energies = search.evaluate(_draw(action_space, start, budget, batch, generator))
        for _ in range(budget.iterations - 1):
            more, theirs = search.evaluate(_draw(action_space, start, budget, batch, generator))
            energies, places = torch.cat((energies, theirs), 1).topk(search.count, dim=1, largest=False)
            elites = torch.cat((elites, more), 1)[torch.arange(batch, device=places.device)[:, None], places]
        return search.plan(self._fit(elites, elite_weights(energies), action_space, budget.hold), budget)

    def _start(
        self, action_space: ActionSpace, proposal: Proposal, budget: Budget, batch: int, device: torch.device
    ) -> Distribution | None:
        """The proposed distribution at F free actions, or None to draw uniformly."""
        if isinstance(action_space, spaces.Box):
            return proposed_gaussian(proposal, bounds(action_space, device), budget, batch, self.minimum_std)
        components = Components.of(action_space, device)
        probabilities = proposed_categorical(proposal, components, budget, batch, self.exploration)
        return None if probabilities is None else Categorical(probabilities)

    def _fit(self, elites: Tensor, weights: Tensor, action_space: ActionSpace, hold: int) -> Distribution:
        """The softened distribution ``[B, T, ...]`` of elites ``[B, E, T, A]``."""
        horizon = elites.shape[2]
        if isinstance(action_space, spaces.Box):
            low, high = bounds(action_space, elites.device)
            fitted = hold_gaussian(fit_gaussian(elites, weights), hold)
            std = fitted.std.maximum(self.minimum_std * (high - low) / 2)
            return Gaussian(repeat(fitted.mean, hold, horizon, dim=1), repeat(std, hold, horizon, dim=1))
        components = Components.of(action_space, elites.device)
        frequencies = fit_categorical(elites, weights, components, self.smoothing)
        return Categorical(repeat(block_mean(frequencies, hold), hold, horizon, dim=1))


def _draw(
    action_space: ActionSpace, start: Distribution | None, budget: Budget, batch: int, generator: torch.Generator
) -> Tensor:
    """One iteration's candidates ``[B, S, T, A]``."""
    if start is None:
        actions = uniform(action_space, batch, budget.candidates, budget.horizon, generator, hold=budget.hold)
        return actions.unsqueeze(3) if isinstance(action_space, spaces.Discrete) else actions
    if isinstance(action_space, spaces.Box):
        assert isinstance(start, Gaussian)
        free = draw_gaussian(start, *bounds(action_space, generator.device), budget.candidates, generator)
    else:
        assert isinstance(start, Categorical)
        components = Components.of(action_space, generator.device)
        free = draw_categorical(start.probabilities, components, budget.candidates, generator)
    return repeat(free, budget.hold, budget.horizon, dim=2)
