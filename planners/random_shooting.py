"""Random shooting: try many random courses of action and take the best. The floor every other planner must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from gymnasium import spaces

from .actions import block_mean
from .checks import check_elites, check_number
from .sampling import fit_categorical
from .search import Elites, Search
from .types import ActionSpace, Budget, Categorical, Distribution, Gaussian, Objective, Plan, Proposal, Watch


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
        watch: Watch | None = None,
    ) -> Plan:
        """Look for the sequence of least energy for each of ``batch`` environments."""
        name = "random_shooting"
        search = Search(name, self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        start = self._start(search)
        elites: Elites | None = None
        for _ in search.rounds():
            elites = search.evaluate(search.draw(start), elites)
        assert elites is not None
        return search.plan(self._fit(search, elites))

    def _start(self, search: Search) -> Distribution | None:
        """The proposed distribution at F free actions, or None to draw uniformly."""
        if isinstance(search.action_space, spaces.Box):
            return search.proposed_gaussian(self.minimum_std)
        probabilities = search.proposed_probabilities(self.exploration)
        return None if probabilities is None else Categorical(probabilities)

    def _fit(self, search: Search, elites: Elites) -> Distribution:
        """The softened distribution ``[B, F, ...]`` of elites."""
        hold = search.budget.hold
        if isinstance(search.action_space, spaces.Box):
            fitted = search.fit(elites)
            return Gaussian(fitted.mean, fitted.std.maximum(self.minimum_std * search.half))
        frequencies = fit_categorical(elites.actions, elites.weights, search.components, self.smoothing)
        return Categorical(block_mean(frequencies, hold))
