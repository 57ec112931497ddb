"""Evolution strategy on a cube: a normal distribution that moves and widens towards what costs less, noise and all.

Separable natural evolution strategies (Wierstra et al. 2014, JMLR 15:949, section 3.6) with antithetic pairs: each
draw has its mirror image, and only ranks count, so neither the scale nor the offset of the costs matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Evolution:
    """A search distribution over settings in [0, 1]^n.

    Attributes:
        mean: Its centre; always within the cube.
        width: Standard deviation of every setting.
        generation: How many generations it has learned from.
        seed: Of all draws; a generation's are always the same.
        pairs: Antithetic pairs in a generation.
    """

    mean: tuple[float, ...]
    width: tuple[float, ...]
    generation: int = 0
    seed: int = 0
    pairs: int = 4

    def ask(self) -> Vector:
        """The settings to try in this generation ``[2 · pairs, n]``, mirror images one after the other."""
        return np.asarray(np.clip(np.array(self.mean) + np.array(self.width) * self._draws(), 0.0, 1.0))

    def tell(self, costs: Sequence[float]) -> Evolution:
        """The distribution of the next generation.

        Args:
            costs: Of what `ask` gave, in its order; low is good.

        Raises:
            ValueError: Another number of costs than settings, or costs that are not finite.
        """
        values = np.asarray(costs, np.float64)
        if values.shape != (2 * self.pairs,) or not np.isfinite(values).all():
            raise ValueError(f"costs are {values.tolist()}, expected {2 * self.pairs} finite numbers")
        draws, mean, width = self._draws(), np.array(self.mean), np.array(self.width)
        weights = _utilities(values)[:, None]
        rate = 0.5 * (3 + math.log(len(mean))) / (5 * math.sqrt(len(mean)))
        mean = np.clip(mean + width * (weights * draws).sum(0), 0.0, 1.0)
        width = np.clip(width * np.exp(rate * (weights * (draws**2 - 1)).sum(0)), 0.02, 0.5)
        return replace(self, mean=tuple(mean.tolist()), width=tuple(width.tolist()), generation=self.generation + 1)

    def _draws(self) -> Vector:
        half = np.random.default_rng([self.seed, self.generation]).standard_normal((self.pairs, len(self.mean)))
        return np.asarray(np.stack([half, -half], axis=1).reshape(-1, len(self.mean)))


def _utilities(costs: Vector) -> Vector:
    """Weights by rank: the better half counts, the best most; they sum to 0. Equal costs have equal weights."""
    count = len(costs)
    raw = np.maximum(0.0, math.log(count / 2 + 1) - np.log(np.arange(1, count + 1)))
    by_rank = raw / raw.sum() - 1 / count
    weights = by_rank[np.argsort(np.argsort(costs, kind="stable"), kind="stable")]
    for cost in np.unique(costs):
        weights[costs == cost] = weights[costs == cost].mean()
    return np.asarray(weights)
