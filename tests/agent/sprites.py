"""A sprite in a box of 16×16 pixels that it never leaves: five actions, one colour.

    python tests/agent/sprites.py FOLDER

writes the data set that the small world that comes along was learned from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from forethought.envs.sprite import MOVES, SIDE, SPRITE, draw
from forethought.modules.genie.video import Clip, VideoWriter, write_about
from numpy.typing import NDArray

STRIDE = SPRITE


def clips(count: int, steps: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Videos ``[count, steps, 16, 16, 3]`` under random actions ``[count, steps - 1]`` that stay in the box."""
    generator = np.random.default_rng(seed)
    places = np.empty((count, steps, 2), np.int64)
    places[:, 0] = generator.integers((SIDE - SPRITE) // STRIDE + 1, size=(count, 2)) * STRIDE
    actions = np.empty((count, steps - 1), np.int64)
    for step in range(steps - 1):
        after = places[:, step, None] + MOVES
        inside = ((after >= 0) & (after <= SIDE - SPRITE)).all(-1)
        actions[:, step] = (generator.random(inside.shape) * inside).argmax(1)
        places[:, step + 1] = after[np.arange(count), actions[:, step]]
    return draw(places.reshape(-1, 2)).reshape(count, steps, SIDE, SIDE, 3), actions


def find(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the sprite is in pictures ``[..., 16, 16, 3]``: row and column ``[..., 2]`` of the likest place."""
    likeness = (frames[..., 0].astype(np.int64) + frames[..., 1]).reshape(*frames.shape[:-3], 4, 4, 4, 4)
    best = likeness.sum((-3, -1)).reshape(*frames.shape[:-3], 16).argmax(-1)
    return np.stack(np.divmod(best, 4), -1) * STRIDE


def write(folder: Path, shuffle: bool = False) -> Path:
    """Sprite videos as a data set; shuffled, what follows a frame is any frame of any clip."""
    for split, count, seed in (("train", 700, 0), ("test", 120, 1)):
        writer = VideoWriter(folder, split)  # type: ignore[arg-type]
        order = np.random.default_rng(seed)
        videos, actions = clips(count, 8, seed)
        if shuffle:
            videos = order.permutation(videos.reshape(-1, 16, 16, 3)).reshape(videos.shape)
        for frames, taken in zip(videos, actions, strict=True):
            writer.write(Clip(frames, np.append(taken, 0)))
        writer.flush()
    write_about(folder, {"data": "sprites", "actions": len(MOVES)})
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
