"""Measures of learned simulators: how like the truth pictures are, and how like the true actions latent ones."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_CEILING_DB = 60.0


def psnr(drawn: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB ``[...]`` of frames ``[..., H, W, C]`` in [0, 1]; at most 60."""
    error = (drawn.clamp(0, 1) - truth).square().flatten(-3).mean(-1)
    return (-10 * error.clamp(min=1e-12).log10()).clamp(max=_CEILING_DB)


def ssim(drawn: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """Structural similarity ``[...]`` of frames ``[..., H, W, C]`` in [0, 1] (Wang et al. 2004).

    Uniform windows and sample covariances, the mean over channels and all windows within the frame.
    """
    lead = drawn.shape[:-3]
    x, y = (frames.clamp(0, 1).flatten(0, -4).permute(0, 3, 1, 2) for frames in (drawn, truth))
    count = window * window

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, 1)

    mx, my = mean(x), mean(y)
    scale = count / (count - 1)
    vx, vy = scale * (mean(x * x) - mx * mx), scale * (mean(y * y) - my * my)
    both = scale * (mean(x * y) - mx * my)
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return value.flatten(1).mean(1).reshape(lead)


def contingency(codes: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each code ``[...]`` met each true action ``[...]``: counts ``[codes, actions]``."""
    counts = np.zeros((int(codes.max()) + 1, int(truth.max()) + 1), np.int64)
    np.add.at(counts, (codes.reshape(-1), truth.reshape(-1)), 1)
    return counts


def mutual_information(counts: NDArray[np.int64]) -> float:
    """Normalised mutual information of a contingency table: I / ((H(codes) + H(actions)) / 2), in [0, 1]."""
    joint = counts / counts.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    outer = np.outer(rows, columns)
    seen = joint > 0
    information = float((joint[seen] * np.log(joint[seen] / outer[seen])).sum())
    spread = sum(float(-(p[p > 0] * np.log(p[p > 0])).sum()) for p in (rows, columns)) / 2
    return information / spread if spread > 0 else 0.0


def best_matching(counts: NDArray[np.int64]) -> float:
    """Share of steps whose code means its action under the best one-to-one matching of codes and actions.

    Raises:
        ValueError: More than 16 on both sides, which this search does not reach.
    """
    table = counts if counts.shape[0] <= counts.shape[1] else counts.T
    many, few = table.T, table.shape[0]  # each of the many takes one of the few, or none
    if few > 16:
        raise ValueError(
            f"{counts.shape[0]} codes and {counts.shape[1]} actions; matching is exact for up to 16 of one"
        )

    @cache
    def best(index: int, taken: int) -> int:
        if index == len(many):
            return 0
        found = best(index + 1, taken)
        for one in range(few):
            if not taken >> one & 1:
                found = max(found, int(many[index, one]) + best(index + 1, taken | 1 << one))
        return found

    return best(0, 0) / int(counts.sum())


def majority(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The action that each code met most often ``[codes]``."""
    commonest: NDArray[np.int64] = counts.argmax(1)
    return commonest
