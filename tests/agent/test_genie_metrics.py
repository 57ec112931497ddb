"""Measures of pictures and of codes against numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from forethought.agent.genie_metrics import best_matching, contingency, majority, mutual_information, psnr, ssim


def test_psnr() -> None:
    truth = torch.full((2, 3, 8, 8, 3), 0.5)
    drawn = truth.clone()
    drawn[0] += 0.1
    expected = torch.tensor([[20.0] * 3, [60.0] * 3])  # 10·log10(1 / 0.01), and the ceiling
    torch.testing.assert_close(psnr(drawn, truth), expected, atol=1e-3, rtol=0)
    assert psnr(drawn + 9, truth)[0, 0] == pytest.approx(-10 * np.log10(0.25), abs=1e-3)  # clipped to white


def test_ssim_of_equal_of_flat_and_of_inverted_pictures() -> None:
    noise = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert ssim(noise, noise) == pytest.approx(1.0)
    flat = ssim(torch.full_like(noise, 0.4), torch.full_like(noise, 0.6))
    assert flat == pytest.approx((2 * 0.24 + 1e-4) / (0.16 + 0.36 + 1e-4), abs=1e-4)
    assert ssim(1 - noise, noise) < -0.5
    assert ssim(noise[:, :8, :8], noise[:, :8, :8]).shape == (1,)


def test_codes_that_are_renamed_actions_agree_fully() -> None:
    truth = np.random.default_rng(0).integers(5, size=(40, 7))
    codes = np.array([3, 0, 4, 1, 2])[truth]
    counts = contingency(codes, truth)
    assert best_matching(counts) == 1.0
    assert mutual_information(counts) == pytest.approx(1.0)
    assert majority(counts).tolist() == [1, 3, 4, 0, 2]


def test_codes_of_chance_do_not_agree() -> None:
    draws = np.random.default_rng(0)
    codes, truth = draws.integers(4, size=4_000), draws.integers(4, size=4_000)
    counts = contingency(codes, truth)
    assert best_matching(counts) < 0.3
    assert mutual_information(counts) < 0.01
    assert mutual_information(contingency(np.zeros(9, np.int64), np.zeros(9, np.int64))) == 0


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (4, 6)])
def test_the_matching_is_the_best_of_all(shape: tuple[int, int]) -> None:
    counts = np.random.default_rng(sum(shape)).integers(50, size=shape)
    tall = counts if shape[0] >= shape[1] else counts.T
    best = max(
        sum(tall[row, column] for column, row in enumerate(rows))
        for rows in itertools.permutations(range(tall.shape[0]), tall.shape[1])
    )
    assert best_matching(counts) == pytest.approx(best / counts.sum())
