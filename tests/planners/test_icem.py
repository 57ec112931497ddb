"""iCEM: shrinking populations, kept elites, coloured candidates, and honest calls."""

from __future__ import annotations

import pytest
import torch
from forethought.planners import ICEM, Budget, Gaussian, GaussianCEM
from torch import Tensor

from .problems import BOX, Distance, Watched, run, targets


@pytest.mark.parametrize(
    ("decay", "elites", "expected"),
    [
        (1.25, 10, [100, 80, 64, 51, 40, 32, 26, 20, 20]),  # 100 / 1.25^i, and never less than two for each elite
        (2.0, 0.1, [100, 50, 25, 20]),
        (1.0, 10, [100, 100, 100]),
        (2.0, 70, [100, 100, 100]),
    ],
)
def test_the_population_shrinks_to_twice_the_elites(decay: float, elites: float, expected: list[int]) -> None:
    asked = Watched(Distance(BOX, targets(BOX, batch=2, horizon=3)))
    planner = ICEM(decay=decay, elites=elites)
    budget = Budget(3, 100, len(expected))
    plan = run(planner, asked, BOX, budget, batch=2)
    assert [actions.shape[1] for actions in asked.asked] == expected
    assert plan.calls == 3 * sum(expected) <= budget.calls


def test_kept_elites_stay_in_the_running_without_being_asked_about_again() -> None:
    """From the second iteration on everything new is worse, so what was kept are the elites."""
    asked: list[Tensor] = []

    def objective(actions: Tensor) -> Tensor:
        asked.append(actions.clone())
        return torch.arange(actions.shape[1]).float()[None] + 100 * (len(asked) > 1)

    for keep, kept in ((0.5, 5), (0.31, 4), (0.0, 0), (1.0, 10)):
        asked.clear()
        plan = run(ICEM(elites=10, keep=keep), objective, BOX, Budget(2, 40, 3))
        assert torch.equal(plan.elites, torch.cat((asked[0][:, :kept], asked[2][:, : 10 - kept]), 1))
        assert torch.equal(plan.actions, asked[0][:, 0]) and plan.energy.item() == 0
        assert plan.calls == 2 * (40 + 32 + 25)


def test_kept_elites_pull_the_next_distribution() -> None:
    asked: list[Tensor] = []

    def objective(actions: Tensor) -> Tensor:
        asked.append(actions.clone())
        return torch.arange(actions.shape[1]).float()[None]

    plan = run(ICEM(elites=4, keep=0.5, momentum=0.0, minimum_std=0.0), objective, BOX, Budget(2, 20, 2))
    assert isinstance(plan.distribution, Gaussian)
    pool = torch.cat((asked[0][:, :2], asked[1][:, :2]), 1)  # energies 0, 1 and 0, 1
    assert torch.allclose(plan.distribution.mean, pool.mean(1), atol=1e-6)
    assert torch.allclose(plan.distribution.std, pool.std(1, correction=0), atol=1e-6)


def test_candidates_are_as_smooth_as_their_colour() -> None:
    def roughness(colour: float) -> float:
        asked = Watched(Distance(BOX, targets(BOX, batch=2, horizon=10)))
        run(ICEM(colour=colour), asked, BOX, Budget(10, 500, 1), batch=2)
        return float(asked.asked[0].diff(dim=2).square().mean())

    assert roughness(0) > 1.5 * roughness(1) > 2.5 * roughness(2) > 3 * roughness(4)


def test_smooth_optima_are_found_with_fewer_calls_than_cem_needs() -> None:
    """Optima that change slowly, as those of slow bodies do, over a horizon of 30 (Pinneri et al. 2020, table 1)."""
    time = torch.arange(30) / 30
    phase = torch.rand(32, 1, 2, generator=torch.Generator().manual_seed(0)) * 6
    target = 0.8 * torch.sin(phase + 3 * time[None, :, None])
    objective = Distance(BOX, target)
    smooth = run(ICEM(colour=2.0), objective, BOX, Budget(30, 60, 5), batch=32)
    plain = run(GaussianCEM(), objective, BOX, Budget(30, 60, 5), batch=32)
    assert smooth.calls < 0.8 * plain.calls
    assert smooth.energy.mean() < 0.5 * plain.energy.mean()
