import math

import numpy as np
import pytest
from forethought.agent.statistics import (
    Interval,
    auroc,
    iqm,
    mean_interval,
    probability_of_improvement,
    spearman,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (40, 40, 0.9124, 1.0),
        (0, 40, 0.0, 0.0876),
        (5, 10, 0.2366, 0.7634),
        (1, 10, 0.0179, 0.4042),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_matches_reference_values(successes, count, low, high):
    interval = wilson(successes, count)
    assert interval.mean == successes / count
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


def test_wilson_solves_the_equation_that_defines_it():
    rate, count, z = 7 / 23, 23, 1.2815515655446004  # 80 %
    interval = wilson(7, count, confidence=0.8)
    for bound in (interval.low, interval.high):
        assert abs(rate - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / count))


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, count):
    with pytest.raises(ValueError, match=r"expected|at least"):
        wilson(successes, count)


def test_bootstrap_agrees_with_the_normal_interval_of_many_values():
    values = np.random.default_rng(0).normal(3.0, 2.0, 1000)
    interval = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(1000)
    assert interval.mean == values.mean()
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_bootstrap_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(1)
    trials, hits = 400, {0.95: 0, 0.5: 0}
    for trial in range(trials):
        values = generator.normal(-1.0, 5.0, 40)
        for confidence in hits:
            interval = mean_interval(values, seed=trial, confidence=confidence, repetitions=500)
            hits[confidence] += interval.low <= -1.0 <= interval.high
    assert 0.90 < hits[0.95] / trials < 0.98
    assert 0.42 < hits[0.5] / trials < 0.58


def test_bootstrap_of_two_values_is_exact():
    # A resample of {0, 1} has mean 0 or 1 with chance 1/4 each: the 2.5 % and 97.5 % quantiles are the values.
    assert mean_interval([0, 1]) == Interval(0.5, 0.0, 1.0)
    assert mean_interval([0, 1], confidence=0.4) == Interval(0.5, 0.5, 0.5)


def test_bootstrap_is_seeded_and_does_not_touch_the_global_generator():
    values = np.random.default_rng(2).exponential(size=30)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_bootstrap_in_chunks_draws_what_it_would_draw_at_once(monkeypatch):
    values = np.random.default_rng(2).exponential(size=30)
    whole = mean_interval(values)
    monkeypatch.setattr("forethought.agent.statistics._DRAWS", 7000)
    assert mean_interval(values) == whole


def test_one_value_has_no_interval():
    interval = mean_interval([4.0])
    assert interval.mean == 4.0 and math.isnan(interval.low) and math.isnan(interval.high)
    assert not interval.known
    assert mean_interval([4.0, 4.0]) == Interval(4.0, 4.0, 4.0)


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([2, 3], [0, 1]) == 1.0
    assert probability_of_improvement([0, 1], [2, 3]) == 0.0
    assert probability_of_improvement([1, 1], [1, 1, 1]) == 0.5
    # pairs: 1>0, 1=1, 1<2; 2>0, 2>1, 2=2 → (3 + 2 · ½) / 6
    assert probability_of_improvement([1, 2], [2, 0, 1]) == pytest.approx(4 / 6)


def test_probability_of_improvement_counts_every_pair():
    generator = np.random.default_rng(5)
    x, y = generator.integers(0, 6, 31), generator.integers(1, 7, 17)
    pairs = [(a > b) + (a == b) / 2 for a in x for b in y]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(pairs))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)


def test_auroc_by_hand():
    assert auroc([2, 3], [0, 1]) == 1.0 and auroc([0, 1], [2, 3]) == 0.0 and auroc([5, 5], [5]) == 0.5
    # 1 beats 0 and ties with 1; 2 beats two and ties with 2; 3 beats all: (1.5 + 2.5 + 3) / 9
    assert auroc([1, 2, 3], [0, 1, 2]) == pytest.approx(7 / 9)


def test_auroc_is_the_area_under_the_roc_curve():
    generator = np.random.default_rng(6)
    positive, negative = generator.integers(2, 9, 40), generator.integers(0, 7, 25)  # with many ties
    thresholds = np.arange(10, -2, -1)[:, None]
    hits, alarms = (positive >= thresholds).mean(axis=1), (negative >= thresholds).mean(axis=1)
    assert auroc(positive, negative) == pytest.approx(((hits[1:] + hits[:-1]) / 2 * np.diff(alarms)).sum())


def test_iqm_by_hand():
    assert iqm([100, 2, 3, -50]) == 2.5
    assert iqm([8, 1, 2, 3, 4, 5, 6, 700]) == 4.5
    assert iqm([1, 2, 3, 4, 500]) == 3.0  # ⌊5 / 4⌋ = 1 off either end
    assert iqm([1, 2, 6]) == 3.0  # nothing to cut
    assert iqm([7]) == 7.0


def test_spearman_by_hand():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, -9]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(1 - 6 * 4 / (4 * 15))  # 1 − 6 Σd² / (n (n² − 1))
    assert spearman([1, 1, 2], [3, 5, 9]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))  # ranks ½, ½, 2 and 0, 1, 2
    assert spearman([7, 7, 7], [1, 2, 3]) == 0
    with pytest.raises(ValueError, match="x has 2 values and y 3"):
        spearman([1, 2], [1, 2, 3])


def test_spearman_does_not_see_monotone_changes_and_is_near_0_for_pairs_by_chance():
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(2, 2000))
    assert abs(spearman(x, y)) < 0.06
    assert spearman(np.exp(x), (x + y) ** 3) == pytest.approx(spearman(x, x + y))
    assert spearman(x, x + y) == pytest.approx(6 / math.pi * math.asin(math.sqrt(0.5) / 2), abs=0.03)


@pytest.mark.parametrize(
    "function",
    [
        mean_interval,
        iqm,
        lambda v: probability_of_improvement([1.0], v),
        lambda v: auroc(v, [1.0]),
        lambda v: spearman(v, [1.0]),
    ],
)
def test_bad_values_are_refused_by_name(function):
    with pytest.raises(ValueError, match="is empty; at least one"):
        function([])
    with pytest.raises(ValueError, match=r"\[1\] is nan \(1 of 3"):
        function([1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match=r"\[0\] is -inf"):
        function([-math.inf])
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        function([[1.0, 2.0]])


@pytest.mark.parametrize("options", [{"confidence": 0.0}, {"confidence": 95}, {"repetitions": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        mean_interval([1.0, 2.0], **options)
