"""Statistics over runs and tasks, by rliable's conventions (arXiv 2108.13264).

What is compared comes as tasks × runs × episodes: ``tasks[i][j]`` holds the scores of the episodes that run j played of
task i. A run's score is the mean of its episodes. Intervals are percentile bootstraps over *runs*, resampled
independently within each task. Where a task has a single run there is nothing to resample, and its episodes take the
place of runs: such an interval says how well this one run was measured, not how another run would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .statistics import Interval, auroc

Array = NDArray[np.float64]
Tasks = Sequence[Sequence[ArrayLike]]
"""Scores of episodes, by task and run."""

REPETITIONS = 10_000
"""Bootstrap samples of an aggregate."""
CURVE_REPETITIONS = 2_000
"""Bootstrap samples of a profile or of a probability of improvement."""
_DRAWS = 2_000_000  # numbers held in memory at once


def interquartile_mean(scores: Array) -> Array:
    """Mean of the middle half of the last axis ``[..., n]``: ⌊n / 4⌋ values are cut off at either end."""
    cut = scores.shape[-1] // 4
    middle: Array = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)
    return middle


def optimality_gap(scores: Array) -> Array:
    """By how much the scores ``[..., n]`` fall short of 1 on average; what exceeds 1 makes up for nothing."""
    gap: Array = 1 - np.minimum(scores, 1).mean(-1)
    return gap


def average(scores: Array) -> Array:
    """Mean of the last axis ``[..., n]``."""
    mean: Array = scores.mean(-1)
    return mean


def run_scores(tasks: Tasks) -> list[Array]:
    """Mean score of each run ``[runs]``, by task.

    Raises:
        ValueError: No tasks, a task without runs, a run without episodes, or a score that is not finite.
    """
    return [np.array([run.mean() for run in runs]) for runs in _checked(tasks)]


def aggregate(
    tasks: Tasks,
    statistic: Callable[[Array], Array] = interquartile_mean,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    repetitions: int = REPETITIONS,
) -> Interval:
    """A statistic of all run scores with its stratified-bootstrap interval.

    Args:
        tasks: Scores of episodes, by task and run.
        statistic: From ``[..., n]`` run scores of all tasks together to ``[...]``.
        seed: Of the resampling.
        confidence: Chance that the interval covers the true value.
        repetitions: Bootstrap samples.

    Raises:
        ValueError: See `run_scores`.
    """
    checked = _checked(tasks)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([_resampled(runs, generator, repetitions) for runs in checked], axis=1)
    estimate = float(statistic(np.concatenate(run_scores(tasks))))
    if all(len(runs) == 1 and len(runs[0]) == 1 for runs in checked):
        return Interval(estimate, np.nan, np.nan)
    return _interval(estimate, statistic(drawn), confidence)


def improvement(
    x: Tasks, y: Tasks, *, seed: int = 0, confidence: float = 0.95, repetitions: int = CURVE_REPETITIONS
) -> Interval:
    """Probability of improvement P(X > Y) + P(X = Y) / 2 over pairs of runs, averaged over tasks.

    In a task where either side has a single run, pairs of episodes are compared instead.

    Args:
        x: The candidate's scores.
        y: Of what it is compared with: the same tasks in the same order; numbers of runs may differ.
        seed: Of the resampling.
        confidence: Chance that the interval covers the true value.
        repetitions: Bootstrap samples.

    Raises:
        ValueError: The numbers of tasks differ; else see `run_scores`.
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} tasks and y {len(y)}; compare on the same tasks")
    generator = np.random.default_rng(seed)
    estimates, drawn = [], []
    for ours, theirs in zip(_checked(x), _checked(y), strict=True):
        runs = min(len(ours), len(theirs)) > 1
        a, b = (_units(task, runs) for task in (ours, theirs))
        estimates.append(auroc(a, b))
        picks = zip(_picks(len(a), generator, repetitions), _picks(len(b), generator, repetitions), strict=True)
        drawn.append([auroc(a[i], b[j]) for i, j in picks])
    return _interval(float(np.mean(estimates)), np.mean(drawn, axis=0), confidence)


def difference(
    x: Sequence[ArrayLike],
    y: Sequence[ArrayLike],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    repetitions: int = REPETITIONS,
) -> Interval:
    """Mean over runs of (mean of x) − (mean of y), run j of one with run j of the other.

    Args:
        x: Scores of each run's episodes, on its training levels say.
        y: Scores of the same runs' episodes elsewhere.
        seed: Of the resampling: of runs, or with a single run of either side's episodes.
        confidence: Chance that the interval covers the true difference.
        repetitions: Bootstrap samples.

    Raises:
        ValueError: The numbers of runs differ; else see `run_scores`.
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} runs and y {len(y)}; give both of every run")
    [ours], [theirs] = _checked([x]), _checked([y])
    generator = np.random.default_rng(seed)
    apart = _units(ours, True) - _units(theirs, True)
    if len(apart) > 1:
        drawn = apart[_picks(len(apart), generator, repetitions)].mean(1)
        return _interval(float(apart.mean()), drawn, confidence)
    drawn = _resampled(ours, generator, repetitions) - _resampled(theirs, generator, repetitions)
    if len(ours[0]) == len(theirs[0]) == 1:
        return Interval(float(apart[0]), np.nan, np.nan)
    return _interval(float(apart[0]), drawn, confidence)


@dataclass(frozen=True)
class Profile:
    """A performance profile: which share of runs (single runs: episodes) scores above each threshold."""

    thresholds: Array
    share: Array
    low: Array
    high: Array


def performance_profile(
    tasks: Tasks,
    thresholds: ArrayLike,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    repetitions: int = CURVE_REPETITIONS,
) -> Profile:
    """Share of run scores above each threshold, averaged over tasks, with pointwise bootstrap bands.

    Args:
        tasks: Scores of episodes, by task and run; where any task has a single run, episodes count instead of runs.
        thresholds: Ascending scores τ ``[n]``.
        seed: Of the resampling.
        confidence: Chance that the band covers the true share at a threshold.
        repetitions: Bootstrap samples.

    Raises:
        ValueError: See `run_scores`.
    """
    checked, generator = _checked(tasks), np.random.default_rng(seed)
    tau = np.asarray(thresholds, np.float64)
    runs = min(len(task) for task in checked) > 1
    shares, drawn = [], []
    for task in checked:
        units = _units(task, runs)
        shares.append(_above(units, tau))
        drawn.append([_above(units[i], tau) for i in _picks(len(units), generator, repetitions)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.mean(drawn, axis=0), (tail, 1 - tail), axis=0)
    return Profile(tau, np.mean(shares, axis=0), low, high)


def _above(units: Array, thresholds: Array) -> Array:
    return 1 - np.searchsorted(np.sort(units), thresholds, side="right") / len(units)


def _units(runs: Sequence[Array], by_run: bool) -> Array:
    """What is drawn independently in one task: run scores, or all episodes."""
    return np.array([run.mean() for run in runs]) if by_run else np.concatenate(runs)


def _picks(count: int, generator: np.random.Generator, repetitions: int) -> NDArray[np.int64]:
    return generator.integers(count, size=(repetitions, count))


def _resampled(runs: Sequence[Array], generator: np.random.Generator, repetitions: int) -> Array:
    """Run scores of one task in each bootstrap sample ``[repetitions, runs]``."""
    if len(runs) > 1:
        return _units(runs, True)[_picks(len(runs), generator, repetitions)]
    episodes = runs[0]
    chunk = max(1, _DRAWS // len(episodes))
    parts = [
        episodes[_picks(len(episodes), generator, min(chunk, repetitions - start))].mean(1, keepdims=True)
        for start in range(0, repetitions, chunk)
    ]
    return np.concatenate(parts)


def _interval(estimate: float, drawn: Array, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(estimate, float(low), float(high))


def _checked(tasks: Tasks) -> list[list[Array]]:
    """The scores as vectors, none of them empty or without end."""
    if not len(tasks):
        raise ValueError("there are no tasks; statistics need at least one")
    checked = [[np.asarray(run, np.float64) for run in runs] for runs in tasks]
    for index, runs in enumerate(checked):
        if not runs or any(run.ndim != 1 or not len(run) for run in runs):
            raise ValueError(f"task {index} has no runs, or a run without episodes; leave it out or measure it")
        if not all(np.isfinite(run).all() for run in runs):
            raise ValueError(f"task {index} has a score that is not a finite number; look for the reward that made it")
    return checked
