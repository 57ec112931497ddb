"""MPPI: what its temperature means, and how many elites count."""

from __future__ import annotations

import math

import pytest
import torch
from forethought.planners import MPPI, Budget, Gaussian, Progress
from torch import Tensor

from .problems import BOX, Distance, Watched, generator, run, targets


def normal(count: int, std: float, batch: int = 200) -> Tensor:
    return std * torch.randn(batch, count, generator=generator(1))


def effective(planner: MPPI, energies: Tensor) -> float:
    """The effective sample size that a watch is shown, on average."""
    seen: list[Progress] = []
    budget = Budget(1, energies.shape[1], 1)
    run(planner, lambda actions: energies, BOX, budget, batch=len(energies), watch=seen.append)
    return float(seen[0].effective.mean())


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 58.4), (2.0, 63.7), (0.005, 1.08), (200.0, 64.0)])
def test_gaps_are_divided_by_the_temperature(temperature: float, expected: float) -> None:
    """The best 64 of 512 energies of standard deviation 0.3: multiplied by 0.5 and 0.005, 63.7 and 64.0 would count."""
    found = effective(MPPI(temperature, normalise=False, elites=64), normal(512, 0.3))
    assert found == pytest.approx(expected, abs=0.4)


def test_how_many_of_all_candidates_count() -> None:
    """For normal energies of standard deviation σ about S exp(-(σ/λ)²)."""
    found = effective(MPPI(1.0, normalise=False), normal(2000, 0.5, batch=20))
    assert found == pytest.approx(2000 * math.exp(-0.25), rel=0.02)


def test_weights_are_those_of_the_formula() -> None:
    energies = torch.tensor([[1.0, 2.0, 4.0, math.inf], [3.0, 3.0, 3.0, 3.0]])
    weights = MPPI(2.0, normalise=False).weights(energies)
    raw = torch.tensor([1.0, math.exp(-0.5), math.exp(-1.5), 0.0])
    assert torch.allclose(weights, torch.stack((raw / raw.sum(), torch.full((4,), 0.25))), atol=1e-6)
    scaled = MPPI(2.0, normalise=True).weights(energies)
    raw = (torch.tensor([0.0, -1.0, -3.0, -math.inf]) / (2 * math.sqrt(14 / 9))).exp()
    assert torch.allclose(scaled, torch.stack((raw / raw.sum(), torch.full((4,), 0.25))), atol=1e-6)


def test_a_normalised_temperature_fits_energies_of_every_scale() -> None:
    sizes = [effective(MPPI(0.5), normal(64, scale)) for scale in (1e-3, 1.0, 1e3)]
    assert max(sizes) - min(sizes) < 0.01 * sizes[0]
    plain = [effective(MPPI(0.5, normalise=False), normal(64, scale)) for scale in (1e-3, 1.0, 1e3)]
    assert plain[0] > 63.9 and plain[0] > plain[1] > plain[2] and plain[2] < 1.1


def test_the_colder_the_fewer_count() -> None:
    energies = normal(64, 1.0)
    sizes = [effective(MPPI(temperature), energies) for temperature in (1e-6, 0.1, 0.5, 2.0, 1e6)]
    assert sizes == sorted(sizes) and sizes[0] == pytest.approx(1) and sizes[-1] == pytest.approx(64, rel=1e-4)
    assert effective(MPPI(1e6, elites=10), energies) == pytest.approx(10, rel=1e-4)


def test_the_distribution_is_the_weighted_one() -> None:
    asked = Watched(Distance(BOX, targets(BOX, batch=2, horizon=3)))
    plan = run(MPPI(0.2, normalise=False, momentum=0.0, minimum_std=0.0), asked, BOX, Budget(3, 40, 1), batch=2)
    candidates = asked.asked[0]
    energies = asked.objective(candidates)
    weights = (-(energies - energies.amin(1, keepdim=True)) / 0.2).exp()
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None]
    mean = (weights * candidates).sum(1)
    std = (weights * (candidates - mean[:, None]).square()).sum(1).sqrt()
    assert isinstance(plan.distribution, Gaussian)
    assert torch.allclose(plan.distribution.mean, mean, atol=1e-5)
    assert torch.allclose(plan.distribution.std, std, atol=1e-5)
