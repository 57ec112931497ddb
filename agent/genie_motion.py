"""What a latent action does to the view: where the picture moves in true steps that got its code, and in dreams of it.

It needs no labels. In games whose camera follows the player (CoinRun, Jumper …) motions of the view are what buttons
do; where the camera stands still nothing is seen of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIRECTIONS = ("still", "left", "right", "up", "down")


@dataclass(frozen=True)
class Motion:
    """How the view moves with one code.

    Attributes:
        code: The latent action.
        steps: True steps that got it.
        shift: Mean motion of the view in these, pixels to the right and down.
        direction: The commonest of `DIRECTIONS` in these.
        share: Share of these with that direction.
        dreamed: Share of dreamed steps with that direction, where nothing but this code is taken.
        otherwise: The same in dreams of the other codes: what it would be if the code did not matter; 0 without others.
    """

    code: int
    steps: int
    shift: tuple[float, float]
    direction: str
    share: float
    dreamed: float
    otherwise: float


def view_shifts(before: Tensor, after: Tensor) -> NDArray[np.int64]:
    """Whole pixels ``[n, 2]`` (right, down) by which the view moved between frames ``[n, H, W, C]``.

    The shift under which what is seen in both agrees best (mean squared error), up to a sixth of a side; of equal ones
    the shortest.
    """
    height, width = before.shape[1:3]
    reach = max(1, min(height, width) // 6)
    ways = sorted(product(range(-reach, reach + 1), repeat=2), key=lambda way: way[0] ** 2 + way[1] ** 2)
    best = torch.full((len(before),), torch.inf, device=before.device)
    found = torch.zeros(len(before), 2, dtype=torch.long, device=before.device)
    for right, down in ways:
        old = before[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
        new = after[:, max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
        error = (old - new).square().flatten(1).mean(1)
        better = error < best - 1e-6
        best = torch.where(better, error, best)
        found[better] = torch.tensor([right, down], device=found.device)
    shifts: NDArray[np.int64] = found.cpu().numpy()
    return shifts


def directions(shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices into `DIRECTIONS` ``[n]`` of shifts ``[n, 2]``: that of the longer side."""
    right, down = shifts.T
    sideways = np.where(right < 0, 1, 2)
    upright = np.where(down < 0, 3, 4)
    told: NDArray[np.int64] = np.where(np.abs(right) >= np.abs(down), sideways, upright)
    told[(right == 0) & (down == 0)] = 0
    return told


def motions(
    shifts: NDArray[np.int64], codes: NDArray[np.int64], dreamed: NDArray[np.int64], actions: int
) -> list[Motion]:
    """One row for each code that true steps got.

    Args:
        shifts: Of true steps ``[n, 2]``.
        codes: Of these ``[n]``.
        dreamed: Of dreamed steps, ``[codes, m, 2]``.
        actions: How many codes there are.
    """
    told = directions(shifts)
    dreams = np.stack([directions(part) for part in dreamed])
    rows = []
    for code in range(actions):
        got = codes == code
        if not got.any():
            continue
        counts = np.bincount(told[got], minlength=len(DIRECTIONS))
        usual = int(counts.argmax())
        right, down = shifts[got].mean(0)
        others = np.delete(dreams, code, 0)
        rows.append(
            Motion(
                code, int(got.sum()), (float(right), float(down)), DIRECTIONS[usual], float(counts[usual] / got.sum()),
                float((dreams[code] == usual).mean()), float((others == usual).mean()) if others.size else 0.0,
            )
        )  # fmt: skip
    return rows
