"""The cross-entropy method with a Gaussian, for Box action spaces.

Draw candidates from independent normal distributions, keep the elites (the candidates of least energy), fit the
distributions to them, and draw again: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous
optimization"; for planning with learned models Chua et al. 2018 (PETS). From Pinneri et al. 2020 (iCEM,
arXiv:2008.06389): candidates are clipped at the bounds, the best sequence ever seen is returned instead of the last
mean, and the mean itself is tried. Not taken over: coloured noise and a shrinking number of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces

from .sampling import (
    INITIAL_STD,
    Search,
    bounds,
    check_budget,
    check_elites,
    check_number,
    check_space,
    draw_gaussian,
    elite_count,
    elite_weights,
    fit_gaussian,
    hold_gaussian,
    proposed_actions,
    proposed_gaussian,
    repeat,
    uninformed,
)
from .types import ActionSpace, Budget, Gaussian, Objective, Plan, Proposal


@dataclass(frozen=True)
class GaussianCEM:
    """Cross-entropy method over the sequences of a Box.

    Attributes:
        elites: How many candidates of an iteration (int), or which fraction (float), the next iteration follows.
        momentum: Share of the old mean and standard deviation kept in every update.
        initial_std: Standard deviation of the uninformed start, as a fraction of half the range of the Box.
        minimum_std: Smallest standard deviation, as a fraction of half the range of the Box.
        try_mean: Whether, from the second iteration on, the mean takes the place of one random candidate.
    """

    elites: int | float = 0.1
    momentum: float = 0.1
    initial_std: float = INITIAL_STD
    minimum_std: float = 0.05
    try_mean: bool = True

    def __post_init__(self) -> None:
        check_elites(self.elites)
        check_number("momentum", self.momentum, 0, 1, exclusive=True)
        check_number("minimum_std", self.minimum_std, 0, 1)
        check_number("initial_std", self.initial_std, max(self.minimum_std, 1e-6), 10)

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
        check_space("cem", action_space)
        assert isinstance(action_space, spaces.Box)
        check_budget(budget, batch)
        horizon, hold, device = budget.horizon, budget.hold, generator.device
        low, high = bounds(action_space, device)
        minimum = self.minimum_std * (high - low) / 2
        proposals = proposed_actions(proposal, action_space, budget, batch, device)
        search = Search(objective, action_space, proposals, elite_count(self.elites, budget.candidates))
        current = proposed_gaussian(proposal, (low, high), budget, batch, self.minimum_std)
        if current is None:
            start = uninformed(action_space, batch, -(-horizon // hold), device, self.initial_std)
            assert isinstance(start, Gaussian)
            current = start
        for iteration in range(budget.iterations):
            free = draw_gaussian(current, low, high, budget.candidates, generator)  # [B, S, F, A]
            if self.try_mean and iteration > 0 and budget.candidates > 1:
                free[:, -1] = current.mean
            elites, energies = search.evaluate(repeat(free, hold, horizon, dim=2))
            fitted = hold_gaussian(fit_gaussian(elites, elite_weights(energies)), hold)
            mean = fitted.mean.lerp(current.mean, self.momentum)
            std = fitted.std.lerp(current.std, self.momentum).maximum(minimum)
            current = Gaussian(mean.clamp_(low, high), std)
        held = Gaussian(repeat(current.mean, hold, horizon, dim=1), repeat(current.std, hold, horizon, dim=1))
        return search.plan(held, budget)
