"""The cross-entropy method with a Gaussian, for Box action spaces.

Draw candidates from independent normal distributions, keep the elites (the candidates of least energy), fit the
distributions to them, and draw again: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous
optimization"; for planning with learned models Chua et al. 2018 (PETS). From Pinneri et al. 2020 (iCEM,
arXiv:2008.06389): candidates are clipped at the bounds, the best sequence ever seen is returned instead of the last
mean, and the mean itself is tried. `ICEM` has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .checks import check_gaussian
from .sampling import INITIAL_STD, draw_gaussian
from .search import Search
from .types import ActionSpace, Budget, Objective, Plan, Proposal, Watch


@dataclass(frozen=True)
class GaussianCEM:
    """Cross-entropy method over the sequences of a Box.

    Attributes:
        elites: How many candidates of an iteration (int), or which fraction (float), the next iteration follows.
        momentum: Share of the old mean and standard deviation kept in every update.
        initial_std: Standard deviation of the uninformed start, as a fraction of half the range of the Box.
        minimum_std: Smallest standard deviation, as a fraction of half the range of the Box.
        try_mean: Whether, from the second iteration on, the mean takes the place of one random candidate.
        agreement: Stop once the elites' standard deviation, in half ranges, is on average below this in every
            environment (0: never). Below `minimum_std` that hardly happens.
    """

    elites: int | float = 0.1
    momentum: float = 0.1
    initial_std: float = INITIAL_STD
    minimum_std: float = 0.05
    try_mean: bool = True
    agreement: float = 0.0

    def __post_init__(self) -> None:
        check_gaussian(self.elites, self.initial_std, self.minimum_std, self.momentum, self.agreement)

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
        search = Search("cem", self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        return refine(search, self.initial_std, self.minimum_std, self.momentum, self.try_mean, self.agreement)


def refine(
    search: Search, initial_std: float, minimum_std: float, momentum: float, try_mean: bool, agreement: float
) -> Plan:
    """Draw candidates from a Gaussian, fit it to their weighted elites, and again; options as in `GaussianCEM`."""
    candidates = search.budget.candidates
    current = search.first_gaussian(initial_std, minimum_std)
    minimum = minimum_std * search.half
    for iteration in search.rounds():
        mean = try_mean and iteration > 0 and candidates > 1
        elites = search.evaluate(draw_gaussian(current, search.limits, candidates, search.generator, mean))
        current = search.follow(current, elites, momentum, minimum)
        if search.agree(elites, agreement):
            break
    return search.plan(current)
