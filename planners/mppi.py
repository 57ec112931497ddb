"""Model-predictive path integral control (MPPI), for Box action spaces.

Like the cross-entropy method, but better elites count more: w = softmax(−(F − F_min) / λ), and mean and standard
deviation follow the weighted elites. Williams et al. 2017, "Information theoretic MPC for model-based reinforcement
learning", eq. 25-26, with a mean that moves in every iteration; the weighted standard deviation is that of TD-MPC
(Hansen et al. 2022, arXiv:2203.04955, eq. 4).

The gaps between energies are **divided** by the temperature λ: the smaller λ, the fewer elites count (TD-MPC multiplies
them by what it calls temperature). How many count is the effective sample size 1 / Σ w², shown to a watch as
`Progress.effective`: of the best 64 of 512 energies of standard deviation 0.3, about 58 at λ = 0.5 and 1 at 0.005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .cem import refine
from .checks import check_gaussian, check_number
from .sampling import INITIAL_STD
from .search import Search, spread
from .types import ActionSpace, Budget, Objective, Plan, Proposal, Watch


@dataclass(frozen=True)
class MPPI:
    """Path integral control over the sequences of a Box; returns the best sequence tried, the mean among them.

    Attributes:
        temperature: λ, what gaps between energies are divided by.
        normalise: Whether λ is in standard deviations of the elites' energies, so that it fits energies of every scale,
            rather than in units of the energy.
        elites: How many candidates of an iteration (int), or which fraction (float), have a weight.
        momentum: Share of the old mean and standard deviation kept in every update.
        initial_std: Standard deviation of the uninformed start, as a fraction of half the range of the Box.
        minimum_std: Smallest standard deviation, as a fraction of half the range of the Box.
        try_mean: Whether, from the second iteration on, the mean takes the place of one random candidate.
        agreement: Stop once the weighted elites' standard deviation, in half ranges, is on average below this in every
            environment (0: never).
    """

    temperature: float = 0.5
    normalise: bool = True
    elites: int | float = 1.0
    momentum: float = 0.1
    initial_std: float = INITIAL_STD
    minimum_std: float = 0.05
    try_mean: bool = True
    agreement: float = 0.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 1e-9, math.inf, exclusive=True)
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
        search = Search(
            "mppi", self.elites, objective, action_space, proposal, budget, batch, generator, watch, self.weights
        )
        return refine(search, self.initial_std, self.minimum_std, self.momentum, self.try_mean, self.agreement)

    def weights(self, energies: Tensor) -> Tensor:
        """softmax(−(F − F_min) / λ) ``[B, E]`` of energies ``[B, E]``, best first; 0 where they are +inf."""
        gaps = energies - energies[:, :1]
        if self.normalise:
            gaps = gaps / spread(energies).clamp(min=torch.finfo(energies.dtype).tiny)[:, None]
        return (-gaps / self.temperature).softmax(1)
