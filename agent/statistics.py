"""Statistics of evaluations: how far a mean, a success rate or a comparison can be trusted.

The conventions are rliable's (arXiv 2108.13264): intervals beside every mean, the interquartile mean against outliers,
and the probability of improvement instead of a ratio of means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 1_000_000  # bootstrap draws held in memory at once: 8 MB


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it; the bounds are NaN where one value alone cannot say how far it is off."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there are bounds."""
        return not math.isnan(self.low)


def mean_interval(values: ArrayLike, seed: int = 0, confidence: float = 0.95, repetitions: int = 10_000) -> Interval:
    """Mean with its percentile-bootstrap interval.

    Args:
        values: Independent measurements ``[n]``, returns of episodes say.
        seed: Of the resampling; the same seed gives the same interval.
        confidence: Chance that the interval covers the true mean, in (0, 1).
        repetitions: Bootstrap samples.

    Returns:
        The mean and its bounds in the unit of ``values``. A single value has no spread to resample: its bounds are NaN.

    Raises:
        ValueError: If there are no values, if they are not finite, or if an option is out of range.
    """
    _check_confidence(confidence)
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}; at least 1 bootstrap sample is needed.")
    data = _vector(values, "values")
    mean = float(data.mean())
    if len(data) == 1:
        return Interval(mean, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS // len(data))
    means = [
        data[generator.integers(len(data), size=(min(chunk, repetitions - start), len(data)))].mean(axis=1)
        for start in range(0, repetitions, chunk)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Interval(mean, float(low), float(high))


def wilson(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Success rate with its Wilson score interval, which stays honest at 0 % and 100 %.

    Args:
        successes: Episodes that succeeded.
        count: All episodes.
        confidence: Chance that the interval covers the true rate, in (0, 1).

    Returns:
        The rate ``successes / count`` and its bounds, within [0, 1].

    Raises:
        ValueError: If ``count`` is below 1, ``successes`` is outside 0 … ``count``, or ``confidence`` outside (0, 1).
    """
    _check_confidence(confidence)
    if count < 1:
        raise ValueError(f"count is {count}; a success rate needs at least 1 episode.")
    if not 0 <= successes <= count:
        raise ValueError(f"successes is {successes}; expected 0 … count = {count}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / count
    shrink = 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact where rounding would leave 1e-17
    high = 1.0 if successes == count else min(1.0, centre + half)
    return Interval(rate, low, high)


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Chance that an episode of ``x`` beats one of ``y``: P(X > Y) + P(X = Y) / 2, the Mann–Whitney statistic.

    Args:
        x: Returns ``[n]`` of the candidate.
        y: Returns ``[m]`` of the one it is compared with; ``n`` and ``m`` may differ.

    Returns:
        0 … 1; 0.5 says that neither is better.

    Raises:
        ValueError: If either has no values or values that are not finite.
    """
    return auroc(_vector(x, "x"), _vector(y, "y"))


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the ROC curve of a score: P(positive > negative) + P(equal) / 2, over all pairs.

    Args:
        positive: Scores ``[n]`` of what should score high.
        negative: Scores ``[m]`` of what should score low.

    Returns:
        1 where the score tells all apart, 0.5 where it tells nothing.

    Raises:
        ValueError: If either has no values or values that are not finite.
    """
    high, low = _vector(positive, "positive"), np.sort(_vector(negative, "negative"))
    below, up_to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + up_to).mean() / (2 * len(low)))


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of what is left when ⌊n / 4⌋ values are cut off at either end.

    Args:
        values: Measurements ``[n]``.

    Raises:
        ValueError: If there are no values, or if they are not finite.
    """
    data = np.sort(_vector(values, "values"))
    cut = len(data) // 4
    return float(data[cut : len(data) - cut].mean())


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs.

    Args:
        x: Measurements ``[n]``.
        y: What they are compared with ``[n]``.

    Returns:
        −1 … 1; 0 where one of the two is constant and so orders nothing.

    Raises:
        ValueError: If they are not finite, empty or of different lengths.
    """
    one, other = _ranks(_vector(x, "x")), _ranks(_vector(y, "y"))
    if len(one) != len(other):
        raise ValueError(f"x has {len(one)} values and y {len(other)}; expected pairs.")
    one, other = one - one.mean(), other - other.mean()
    scale = math.sqrt(float((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / scale if scale else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks ``[n]``, counted from 0; equal values get the mean of theirs."""
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    ranks: NDArray[np.float64] = (below + up_to - 1) / 2
    return ranks


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as a vector of finite numbers."""
    data = np.asarray(values, np.float64)
    if data.ndim != 1:
        raise ValueError(f"{name} has shape {data.shape}; expected a flat sequence of numbers.")
    if len(data) == 0:
        raise ValueError(f"{name} is empty; at least one finished episode is needed.")
    bad = np.flatnonzero(~np.isfinite(data))
    if len(bad):
        raise ValueError(
            f"{name}[{bad[0]}] is {data[bad[0]]} ({len(bad)} of {len(data)} values are not finite); "
            "find out which environment or behaviour made it before comparing."
        )
    return data


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a chance between 0 and 1, 0.95 say.")
