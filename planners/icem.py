"""iCEM: a cross-entropy method that needs fewer samples, for Box action spaces (Pinneri et al. 2020, arXiv:2008.06389).

What it adds to the Gaussian cross-entropy method, section 3 of the paper: noise that is correlated in time (3.1), a
population that shrinks (3.3), elites that are kept (3.2) and, between decisions, shifted on: give
``Proposal(shift(plan, k, space), shift_elites(plan, k, count))``. As there, the best sequence ever seen is returned,
candidates are clipped at the bounds, and the mean is tried in the last iteration. Unlike there, kept elites are not
asked about again (the objective is a function), the last action of a shifted elite is repeated and not drawn, and
the standard deviation has a minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_gaussian, check_number
from .sampling import INITIAL_STD, place
from .search import Elites, Search
from .types import ActionSpace, Budget, Gaussian, Objective, Plan, Proposal, Watch


@dataclass(frozen=True)
class ICEM:
    """Improved cross-entropy method over the sequences of a Box.

    Attributes:
        elites: How many candidates of the first iteration (int), or which fraction (float), the next one follows.
        momentum: Share of the old mean and standard deviation kept in every update.
        initial_std: Standard deviation that every decision begins with, as a fraction of half the range of the Box;
            of a proposed distribution only the mean is used.
        minimum_std: Smallest standard deviation, as a fraction of half the range of the Box.
        colour: Exponent β of the noise's power spectrum 1 / f^β over time: 0 is white, 1 pink, 2 red.
        decay: Factor γ by which the population shrinks per iteration, down to twice the elites; 1 keeps it.
        keep: Fraction of the elites that stay candidates in the next iteration; 0 forgets them.
        try_mean: Whether the mean takes the place of one random candidate in the budget's last iteration.
        agreement: Stop once the elites' standard deviation, in half ranges, is on average below this in every
            environment (0: never).
    """

    elites: int | float = 0.1
    momentum: float = 0.1
    initial_std: float = INITIAL_STD
    minimum_std: float = 0.05
    colour: float = 1.0
    decay: float = 1.25
    keep: float = 0.3
    try_mean: bool = True
    agreement: float = 0.0

    def __post_init__(self) -> None:
        check_gaussian(self.elites, self.initial_std, self.minimum_std, self.momentum, self.agreement)
        check_number("colour", self.colour, 0, 10)
        check_number("decay", self.decay, 1, math.inf, exclusive=True)
        check_number("keep", self.keep, 0, 1)

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
        """Look for the sequence of least energy for each of ``batch`` environments.

        The population shrinks, so fewer calls are made than the budget allows: ``Plan.calls`` says how many.
        """
        search = Search("icem", self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        mean = search.first_gaussian(self.initial_std, self.minimum_std).mean
        current = Gaussian(mean, (self.initial_std * search.half).expand_as(mean))
        scale = spectrum(search.free, self.colour, generator.device)
        minimum = self.minimum_std * search.half
        staying = math.ceil(self.keep * search.count)
        kept: Elites | None = None
        for iteration in search.rounds():
            population = self.population(budget.candidates, search.count, iteration)
            noise = coloured_noise((batch, population, *mean.shape[1:]), scale, generator)
            last = iteration == budget.iterations - 1
            free = place(noise, current, search.limits, self.try_mean and last and population > 1)
            elites = search.evaluate(free, kept)
            current = search.follow(current, elites, self.momentum, minimum)
            if search.agree(elites, self.agreement):
                break
            kept = elites.best(staying) if staying else None
        return search.plan(current)

    def population(self, candidates: int, elites: int, iteration: int) -> int:
        """Candidates drawn in an iteration counted from 0: S γ^-i, but at least two for each elite, and at most S."""
        return min(candidates, max(int(candidates * self.decay**-iteration), 2 * elites))


def spectrum(steps: int, colour: float, device: torch.device) -> Tensor:
    """Standard deviations ``[2, K]`` of the real and imaginary Fourier coefficients of `coloured_noise`.

    Power ∝ 1 / f^colour; the frequency 0, where it would be infinite, has that of the lowest other one. The first and,
    for even ``steps``, the last of the K frequencies have no imaginary part, and the whole power in the real one.
    """
    frequencies = torch.arange(steps // 2 + 1, device=device)
    ends = (frequencies == 0) | (2 * frequencies == steps)
    scale = frequencies.clamp(min=1).float().pow(-colour / 2) * torch.where(ends, math.sqrt(2), 1.0)
    variance = (scale.square() * torch.where(ends, 1.0, 4.0)).sum() / steps**2
    return torch.stack((scale, scale.where(~ends, 0))) / variance.sqrt()


def coloured_noise(shape: tuple[int, int, int, int], scale: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise ``[B, S, F, A]`` of unit variance at every step, correlated over the F steps as `spectrum` says.

    Random Fourier coefficients, transformed back (Timmer and König 1995, "On generating power law noise").
    """
    batch, candidates, steps, width = shape
    frequencies = scale.shape[1]
    waves = torch.randn(2, batch, candidates, frequencies, width, generator=generator, device=generator.device)
    real, imaginary = waves.mul_(scale.view(2, 1, 1, frequencies, 1))
    noise: Tensor = torch.fft.irfft(torch.complex(real, imaginary), steps, dim=2)
    return noise
