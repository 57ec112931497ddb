"""The cross-entropy method with categorical distributions, for Discrete and MultiDiscrete action spaces.

The combinatorial form of Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization":
draw candidates from independent categorical distributions, one per step and component, and move their probabilities
to the frequencies of the actions among the elites, with Laplace smoothing (no action ever becomes impossible) and
momentum (de Boer et al. 2005, "A tutorial on the cross-entropy method", section 3 calls it smoothed updating).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from gymnasium import spaces

from .sampling import (
    Components,
    Search,
    block_mean,
    check_budget,
    check_elites,
    check_number,
    check_space,
    draw_categorical,
    elite_count,
    elite_weights,
    fit_categorical,
    proposed_actions,
    proposed_categorical,
    repeat,
)
from .types import ActionSpace, Budget, Categorical, Objective, Plan, Proposal


@dataclass(frozen=True)
class CategoricalCEM:
    """Cross-entropy method over the sequences of a Discrete or MultiDiscrete space.

    Attributes:
        elites: How many candidates of an iteration (int), or which fraction (float), the next iteration follows.
        momentum: Share of the old probabilities kept in every update.
        smoothing: Pseudo-count added to every action among the elites (Laplace).
        exploration: Share of uniform mixed into a proposed distribution.
    """

    elites: int | float = 0.1
    momentum: float = 0.1
    smoothing: float = 0.1
    exploration: float = 0.05

    def __post_init__(self) -> None:
        check_elites(self.elites)
        check_number("momentum", self.momentum, 0, 1, exclusive=True)
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
        check_space("categorical_cem", action_space)
        assert not isinstance(action_space, spaces.Box)
        check_budget(budget, batch)
        horizon, hold, device = budget.horizon, budget.hold, generator.device
        components = Components.of(action_space, device)
        proposals = proposed_actions(proposal, action_space, budget, batch, device)
        search = Search(objective, action_space, proposals, elite_count(self.elites, budget.candidates))
        current = proposed_categorical(proposal, components, budget, batch, self.exploration)  # [B, F, N]
        if current is None:
            current = components.uniform.expand(batch, -(-horizon // hold), -1)
        for _ in range(budget.iterations):
            free = draw_categorical(current, components, budget.candidates, generator)  # [B, S, F, A]
            elites, energies = search.evaluate(repeat(free, hold, horizon, dim=2))
            frequencies = fit_categorical(elites, elite_weights(energies), components, self.smoothing)
            current = block_mean(frequencies, hold).lerp(current, self.momentum)
        return search.plan(Categorical(repeat(current, hold, horizon, dim=1)), budget)
