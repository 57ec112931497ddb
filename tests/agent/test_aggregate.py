"""Statistics over runs and tasks: worked by hand, against the definition, and against rliable where it is installed."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from forethought.agent.aggregate import (
    Tasks,
    aggregate,
    average,
    improvement,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    run_scores,
)
from numpy.typing import NDArray


def runs_of(matrix: Any) -> Tasks:
    """A matrix runs × tasks as runs with one episode each."""
    return [[np.array([score]) for score in column] for column in np.asarray(matrix, float).T]


MATRIX = [[0.1, 0.5], [0.3, 0.9], [0.2, 2.0], [0.4, 0.7]]
"""Four runs of two tasks. In order: .1 .2 | .3 .4 .5 .7 | .9 2.0; the middle four have the mean 0.475."""


def spread(seed: int = 0, runs: int = 10, tasks: int = 5) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    scores: NDArray[np.float64] = np.arange(tasks) * 0.2 + generator.gamma(2.0, 0.2, (runs, tasks))
    return scores


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    assert aggregate(runs_of(MATRIX)).mean == pytest.approx(0.475)
    rows = interquartile_mean(np.array([[1, 2, 3, 100.0], [5, 5, 5, 5], [4, 1, 3, 2]]))
    assert rows.tolist() == [2.5, 5, 2.5]
    assert interquartile_mean(np.array([3.0, 1, 8])) == 4  # fewer than four: the mean


def test_mean_and_optimality_gap() -> None:
    assert aggregate(runs_of(MATRIX), average).mean == pytest.approx(5.1 / 8)
    # 2.0 counts as 1: (0.9 + 0.7 + 0.8 + 0.6 + 0.5 + 0.1 + 0.0 + 0.3) / 8
    assert aggregate(runs_of(MATRIX), optimality_gap).mean == pytest.approx(3.9 / 8)


def test_a_run_s_score_is_the_mean_of_its_episodes() -> None:
    tasks = [[[1.0, 2.0, 6.0], [0.0, 1.0]], [[4.0], [5.0]]]
    assert [scores.tolist() for scores in run_scores(tasks)] == [[3.0, 0.5], [4.0, 5.0]]
    assert aggregate(tasks, average).mean == pytest.approx(12.5 / 4)


def test_bootstrap_equals_the_enumeration_of_all_resamples() -> None:
    """Two tasks with two runs: sixteen equally likely resamples, so quantiles are known."""
    tasks = runs_of([[0.0, 10.0], [1.0, 20.0]])
    drawn = sorted(
        np.mean([*first, *second])
        for first in itertools.product((0.0, 1.0), repeat=2)
        for second in itertools.product((10.0, 20.0), repeat=2)
    )
    interval = aggregate(tasks, average, confidence=0.56, repetitions=40_000)
    assert (interval.low, interval.high) == pytest.approx(
        tuple(np.quantile(drawn, (0.22, 0.78), method="inverted_cdf")), abs=1e-9
    )
    wide = aggregate(tasks, average, confidence=0.999)
    assert (wide.low, wide.high) == (drawn[0], drawn[-1])


def test_resampling_stays_within_a_task() -> None:
    """Tasks that differ and runs that do not: were they mixed, the interval would not be a point."""
    interval = aggregate(runs_of([[0.0, 5.0], [0.0, 5.0], [0.0, 5.0]]), average)
    assert (interval.low, interval.mean, interval.high) == (2.5, 2.5, 2.5)


def test_intervals_cover_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    hits = sum(
        (interval := aggregate(runs_of(generator.normal(0.4, 1.0, (20, 3))), repetitions=300, seed=trial)).low
        <= 0.4
        <= interval.high
        for trial in range(300)
    )
    assert 0.88 < hits / 300 < 0.98


def test_a_single_run_is_resampled_by_episodes() -> None:
    episodes = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = aggregate([[episodes]])
    half = 1.96 * episodes.std() / 20
    assert (interval.low, interval.high) == pytest.approx((episodes.mean() - half, episodes.mean() + half), abs=0.02)
    assert math.isnan(aggregate([[[3.0]]]).low)


def test_seeds_give_the_same_interval_and_others_another() -> None:
    tasks = runs_of(spread())
    assert aggregate(tasks, seed=1) == aggregate(tasks, seed=1) != aggregate(tasks, seed=2)
    theirs = runs_of(spread(1))
    assert improvement(tasks, theirs, seed=1) == improvement(tasks, theirs, seed=1)
    assert improvement(tasks, theirs, seed=1) != improvement(tasks, theirs, seed=2)


def test_probability_of_improvement_counts_pairs_of_runs_within_tasks() -> None:
    x, y = runs_of([[1.0, 0.0], [3.0, 0.0]]), runs_of([[2.0, 0.0], [0.0, 1.0]])
    # Task 1: 1 > 0, 3 > 2, 3 > 0 of four pairs; task 2: half for two ties of four
    assert improvement(x, y).mean == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert improvement(y, x).mean == pytest.approx(1 - (3 / 4 + 1 / 4) / 2)
    many = improvement([[np.arange(5.0)]], [[np.arange(5.0) + 1]])  # single runs: pairs of episodes
    assert many.mean == pytest.approx((6 + 4 / 2) / 25)
    assert many.low < many.mean < many.high
    assert improvement(runs_of(spread()), runs_of(spread(1) - 9)).mean == 1.0


def test_profiles_count_what_is_above() -> None:
    profile = performance_profile(runs_of(MATRIX), [0.0, 0.2, 0.45, 0.9, 2.0])
    assert profile.share.tolist() == [1.0, 6 / 8, 4 / 8, 1 / 8, 0.0]  # strictly above, as in the definition
    assert (profile.low <= profile.share).all() and (profile.share <= profile.high).all()
    assert profile.high[2] - profile.low[2] < 1e-9  # all of task 2 is above and none of task 1: nothing to vary
    assert profile.high[1] - profile.low[1] > 0.2
    single = performance_profile([[[1.0, 2.0, 3.0, 4.0]]], [2.5])
    assert single.share.tolist() == [0.5] and single.low[0] < 0.5 < single.high[0]


@pytest.mark.parametrize(
    ("tasks", "match"),
    [
        ([], "no tasks"),
        ([[]], "task 0 has no runs"),
        ([[[1.0]], [[]]], "task 1"),
        ([[[1.0, math.nan]]], "not a finite"),
    ],
)
def test_what_has_no_statistics_is_refused(tasks: Tasks, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        aggregate(tasks)
    with pytest.raises(ValueError, match=match):
        performance_profile(tasks, [0.0])


def test_other_tasks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="2 tasks and y 1"):
        improvement(runs_of(MATRIX), [[[1.0]]])


def test_rliable_agrees() -> None:
    library = pytest.importorskip("rliable.library", reason="rliable pins old packages and is optional")
    metrics: Any = pytest.importorskip("rliable.metrics")
    ours, theirs = spread(), spread(1)
    for statistic, reference in (
        (interquartile_mean, metrics.aggregate_iqm),
        (average, metrics.aggregate_mean),
        (optimality_gap, metrics.aggregate_optimality_gap),
    ):
        points, bounds = library.get_interval_estimates(
            {"x": ours}, lambda scores, f=reference: np.array([f(scores)]), reps=5_000
        )
        interval = aggregate(runs_of(ours), statistic)
        assert interval.mean == pytest.approx(points["x"][0])
        assert (interval.low, interval.high) == pytest.approx(bounds["x"].ravel(), abs=0.02)
    points, bounds = library.get_interval_estimates(
        {"pair": (ours, theirs)}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=1_000
    )
    interval = improvement(runs_of(ours), runs_of(theirs))
    assert interval.mean == pytest.approx(points["pair"][0])
    assert (interval.low, interval.high) == pytest.approx(bounds["pair"].ravel(), abs=0.03)
    tau = np.linspace(0, 2, 9)
    shares, bands = library.create_performance_profile({"x": ours}, tau, reps=1_000)
    profile = performance_profile(runs_of(ours), tau)
    assert profile.share == pytest.approx(shares["x"])
    assert np.array([profile.low, profile.high]) == pytest.approx(bands["x"], abs=0.05)
