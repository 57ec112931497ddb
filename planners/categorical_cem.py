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

from .actions import block_mean
from .checks import check_agreement, check_elites, check_number
from .sampling import draw_categorical, fit_categorical
from .search import Search
from .types import ActionSpace, Budget, Categorical, Objective, Plan, Proposal, Watch


@dataclass(frozen=True)
class CategoricalCEM:
    """Cross-entropy method over the sequences of a Discrete or MultiDiscrete space.

    Attributes:
        elites: How many candidates of an iteration (int), or which fraction (float), the next iteration follows.
        momentum: Share of the old probabilities kept in every update.
        smoothing: Pseudo-count added to every action among the elites (Laplace).
        exploration: Share of uniform mixed into a proposed distribution.
        agreement: Stop once the share of elites that do not take the commonest action is on average below this in
            every environment (0: never).
    """

    elites: int | float = 0.1
    momentum: float = 0.1
    smoothing: float = 0.1
    exploration: float = 0.05
    agreement: float = 0.0

    def __post_init__(self) -> None:
        check_elites(self.elites)
        check_number("momentum", self.momentum, 0, 1, exclusive=True)
        check_number("smoothing", self.smoothing, 0, math.inf, exclusive=True)
        check_number("exploration", self.exploration, 0, 1)
        check_agreement(self.agreement, self.elites)

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
        name = "categorical_cem"
        search = Search(name, self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        components = search.components
        current = search.proposed_probabilities(self.exploration)  # [B, F, N]
        if current is None:
            current = components.uniform.expand(batch, search.free, -1)
        for _ in search.rounds():
            elites = search.evaluate(draw_categorical(current, components, budget.candidates, generator))
            frequencies = fit_categorical(elites.actions, elites.weights, components, self.smoothing)
            current = block_mean(frequencies, budget.hold).lerp(current, self.momentum)
            if search.agree(elites, self.agreement):
                break
        return search.plan(Categorical(current))
