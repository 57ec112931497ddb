"""Terms against collapse: their reference values, and what their gradients do to a collapsed batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from forethought.modules.regularisers import follow, hinge, info_nce, pair_energies, sigreg, vicreg
from torch import Tensor, nn

WIDTH = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=generator(seed))


def rank_one(count: int) -> Tensor:
    """Every dimension has unit variance and all of them say the same."""
    return torch.randn(count, 1, generator=generator(2)) * torch.ones(WIDTH)


def half_dead(count: int) -> Tensor:
    return gaussian(count) * (torch.arange(WIDTH) < WIDTH // 2)


CASES: list[tuple[str, Callable[[int], Tensor], float, float]] = [
    ("collapsed", lambda n: torch.zeros(n, WIDTH), 0.400, 0.404),
    ("rank one", rank_one, 0.15, 0.21),
    ("half dead", half_dead, 0.045, 0.065),
    ("small", lambda n: 0.1 * gaussian(n), 0.377, 0.397),
]


@pytest.mark.parametrize("count", [64, 256, 1024])
def test_sigreg_is_about_one_for_a_gaussian_of_any_size(count: int) -> None:
    batches = torch.stack([gaussian(count, seed) for seed in range(10)])
    assert float(sigreg(batches, generator())) == pytest.approx(1.0525, abs=0.07)  # expectation of the 17-knot rule


@pytest.mark.parametrize("count", [64, 256, 1024])
@pytest.mark.parametrize(("name", "make", "low", "high"), CASES, ids=[case[0] for case in CASES])
def test_sigreg_grows_with_n_where_something_is_wrong(
    name: str, make: Callable[[int], Tensor], low: float, high: float, count: int
) -> None:
    expected = 1.0 if name == "half dead" else 0.0  # the live half adds the sampling noise of a Gaussian
    value = float(sigreg(make(count), generator()))
    assert low * count < value < high * count + expected


def test_sigreg_cannot_tell_many_uniform_dimensions_from_a_gaussian() -> None:
    """A known blind spot: projections of many dimensions look Gaussian."""
    uniform = (torch.rand(20, 256, WIDTH, generator=generator(4)) * 2 - 1) * 3**0.5
    assert float(sigreg(uniform, generator())) == pytest.approx(1.05, abs=0.15)


def test_sigreg_does_not_mistake_a_shift_or_a_scale_for_a_gaussian() -> None:
    z = gaussian(256)
    right = float(sigreg(z, generator()))
    for wrong in (z + 1, z * 2, z * 0.5):
        assert float(sigreg(wrong, generator())) > 5 * right


def test_sigreg_averages_over_time_steps() -> None:
    z = torch.stack([gaussian(128), torch.zeros(128, WIDTH)])
    parts = [float(sigreg(part, generator())) for part in z]
    assert float(sigreg(z, generator())) == pytest.approx(sum(parts) / 2, rel=1e-4)


def test_sigreg_draws_its_directions_from_the_generator() -> None:
    z = half_dead(64)
    assert float(sigreg(z, generator(3))) == float(sigreg(z, generator(3)))
    assert float(sigreg(z, generator(3))) != float(sigreg(z, generator(4)))


@pytest.mark.parametrize("seed", range(3))
def test_sigreg_gradient_spreads_a_collapsed_batch_into_a_gaussian(seed: int) -> None:
    z = (0.05 * torch.randn(128, 8, generator=generator(seed)) + 0.5).requires_grad_()
    optimiser = torch.optim.Adam([z], 0.05)
    draws = generator(seed)
    for _ in range(150):
        optimiser.zero_grad()
        sigreg(z, draws, directions=32).backward()
        optimiser.step()
    z = z.detach()
    covariance = torch.cov(z.T)
    assert float(z.mean(0).abs().max()) < 0.2
    assert (covariance - torch.eye(8)).abs().max() < 0.35
    assert float(sigreg(z, generator(9))) < 2


def test_vicreg_reference_values() -> None:
    variance, covariance = (float(term) for term in vicreg(gaussian(256)))
    assert variance == pytest.approx(0.012, abs=0.012)
    assert covariance == pytest.approx(0.249, abs=0.03)
    variance, covariance = (float(term) for term in vicreg(torch.zeros(256, WIDTH)))
    assert variance == pytest.approx(0.99, abs=1e-4)
    assert covariance == 0
    line = rank_one(256)
    variance, covariance = (float(term) for term in vicreg(line / line.std(0)))
    assert variance == pytest.approx(0, abs=1e-3)
    assert covariance == pytest.approx(WIDTH - 1, rel=1e-3)  # 63 off-diagonal ones per row, over D


def test_vicreg_ignores_the_mean_and_averages_over_time_steps() -> None:
    z = gaussian(64)
    for shifted, plain in zip(vicreg(z + 7), vicreg(z), strict=True):
        assert float(shifted) == pytest.approx(float(plain), rel=1e-3)
    both = vicreg(torch.stack([z, torch.zeros_like(z)]))
    assert float(both[0]) == pytest.approx((float(vicreg(z)[0]) + 0.99) / 2, rel=1e-3)
    assert float(both[1]) == pytest.approx(float(vicreg(z)[1]) / 2, rel=1e-3)


def test_vicreg_gradient_needs_both_terms() -> None:
    """The variance term alone leaves a line a line; with the covariance term it becomes a cloud."""

    def train(weight: float) -> float:
        z = torch.randn(128, 1, generator=generator(1)) + 0.01 * torch.randn(128, 8, generator=generator(2))
        z = z.mul(0.3).requires_grad_()
        optimiser = torch.optim.Adam([z], 0.03)
        for _ in range(150):
            optimiser.zero_grad()
            variance, covariance = vicreg(z)
            (variance + weight * covariance).backward()
            optimiser.step()
        assert z.detach().std(0).min() > 0.8
        return float(torch.corrcoef(z.detach().T)[0, 1:].abs().mean())

    assert train(0.0) > 0.9
    assert train(0.2) < 0.3


# ---- contrastive baselines

CONTRASTS = [info_nce, hinge]


def test_energies_of_pairs() -> None:
    predicted, target = torch.randn(2, 3, 5, 4, generator=generator()), torch.randn(3, 5, 4, generator=generator(1))
    energies = pair_energies(predicted, target)
    assert energies.shape == (2, 3, 5, 5)
    for i in range(5):
        for j in range(5):
            expected = (predicted[:, :, i] - target[:, j]).square().mean(-1)
            assert torch.allclose(energies[:, :, i, j], expected, atol=1e-5)


def test_contrast_of_a_collapsed_batch_and_of_one_well_apart() -> None:
    """Collapsed: no better than a guess among N, and exactly the margin. Apart and well predicted: nothing to gain."""
    same, known = pair_energies(torch.ones(3, 16, 4), torch.ones(3, 16, 4)), torch.ones(3, 16)
    assert float(info_nce(same, known)) == pytest.approx(torch.tensor(16.0).log().item(), rel=1e-5)
    assert float(hinge(same, known)) == pytest.approx(1.0) and float(hinge(same, known, 2.5)) == pytest.approx(2.5)
    apart = 20 * torch.eye(16, 16).expand(3, -1, -1)
    for contrast in CONTRASTS:
        assert float(contrast(pair_energies(apart, apart), known)) == pytest.approx(0, abs=1e-5)
        assert float(contrast(pair_energies(apart.flip(1), apart), known)) > 4


def test_info_nce_of_two_samples_by_hand() -> None:
    energies, known = torch.tensor([[0.1, 0.4], [0.7, 0.3]]), torch.ones(2)
    expected = [math.log(1 + math.exp(-(0.4 - 0.1) / 0.5)), math.log(1 + math.exp(-(0.7 - 0.3) / 0.5))]
    assert float(info_nce(energies, known, 0.5)) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert float(hinge(energies, known)) == pytest.approx((0.7 + 0.6) / 2, rel=1e-5)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_samples_left_out_are_neither_compared_nor_compared_with(contrast: Callable[..., Tensor]) -> None:
    predicted, target = torch.randn(2, 6, 4, generator=generator()), torch.randn(2, 6, 4, generator=generator(1))
    known = torch.tensor([[1.0, 1, 1, 1, 0, 0], [1.0, 1, 1, 1, 0, 0]])
    target.requires_grad_()
    given = contrast(pair_energies(predicted, target), known)
    alone = contrast(pair_energies(predicted[:, :4], target[:, :4]), known[:, :4])
    assert float(given.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)
    gradient = torch.autograd.grad(given, target)[0]
    assert gradient.isfinite().all() and not gradient[:, 4:].any() and gradient[:, :4].abs().amax(-1).min() > 0
    nobody = contrast(pair_energies(predicted, target), torch.zeros(2, 6))
    assert float(nobody.detach()) == 0 and not torch.autograd.grad(nobody, target)[0].any()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_contrast_gradient_spreads_a_collapsed_batch(contrast: Callable[..., Tensor]) -> None:
    z = (0.05 * torch.randn(64, 4, generator=generator())).requires_grad_()
    optimiser = torch.optim.Adam([z], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        torch.autograd.backward(contrast(pair_energies(z, z), torch.ones(64)))
        optimiser.step()
    assert z.detach().std(0).min() > 0.5
    assert float(torch.corrcoef(z.detach().T).fill_diagonal_(0).abs().max()) < 0.5


# ---- the slow copy


def test_a_slow_copy_follows_and_keeps_the_buffers_up_to_date() -> None:
    slow, fast = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    fast(torch.randn(8, 3, generator=generator()))  # moves the running statistics
    before = [parameter.clone() for parameter in slow.parameters()]
    follow(slow, fast, 0.25)
    for old, now, new in zip(before, slow.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(now, 0.75 * old + 0.25 * new) and now.requires_grad
    assert all(torch.equal(mine, its) for mine, its in zip(slow.buffers(), fast.buffers(), strict=True))
    follow(slow, fast, 1.0)
    assert all(torch.allclose(mine, its) for mine, its in zip(slow.parameters(), fast.parameters(), strict=True))
