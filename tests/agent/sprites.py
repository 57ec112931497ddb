"""A sprite in a box of 16×16 pixels that it never leaves: five actions, one colour.

    python tests/agent/sprites.py FOLDER

writes the data set that the small world that comes along was learned from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from forethought.modules.genie.video import Clip, VideoWriter, write_about
from numpy.typing import NDArray

SIDE, SPRITE, STRIDE = 16, 4, 4
MOVES = np.array([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]) * STRIDE
"""Stay, left, right, up, down: rows and columns."""
BACKGROUNDS = np.array([(20, 20, 60)], np.uint8)
COLOURS = np.array([(250, 220, 40)], np.uint8)


def draw(position: NDArray[np.int64], background: NDArray[np.uint8], colour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures ``[n, 16, 16, 3]`` of sprites at ``position [n, 2]``."""
    pixels = np.broadcast_to(background[:, None, None], (len(position), SIDE, SIDE, 3)).copy()
    offset = np.arange(SPRITE)
    rows, columns = position[:, :1] + offset, position[:, 1:] + offset
    pixels[np.arange(len(position))[:, None, None], rows[:, :, None], columns[:, None]] = colour[:, None, None]
    return pixels


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
    background = BACKGROUNDS[generator.integers(len(BACKGROUNDS), size=count)].repeat(steps, 0)
    colour = COLOURS[generator.integers(len(COLOURS), size=count)].repeat(steps, 0)
    return draw(places.reshape(-1, 2), background, colour).reshape(count, steps, SIDE, SIDE, 3), actions


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
