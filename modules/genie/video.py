"""Video data: chunks of uint8 frames, and beside them, for evaluation only, what was truly done.

A data set is a folder with `dataset.json` and the splits `train/` and `test/`. A split has `frames-0000.npy` uint8
``[n, H, W, 3]`` and `clips-0000.npy` int64 ``[n]``, the number of the uninterrupted clip that a frame belongs to. What
no video shows lies apart in `labels/`: `actions-0000.npy` int64 (the action taken at a frame, −1 where unknown),
`rewards-0000.npy` float32 and `ended-0000.npy` bool (whether the world ended the episode with that action).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..storage import array_bytes, read_array, read_json, write_atomically

FORMAT = 1
Split = Literal["train", "test"]
UNKNOWN = -1
_MOST_ACTIONS = 65_535
_LABELS: dict[str, type[Any]] = {"actions": np.int64, "rewards": np.float32, "ended": np.bool_}


@dataclass(frozen=True)
class Clip:
    """An uninterrupted video, with labels where there are any.

    Attributes:
        frames: uint8 ``[n, H, W, 3]``.
        actions: Taken at each frame ``[n]``; None where unknown.
        rewards: Of these ``[n]``.
        ended: Whether the world ended the episode with it ``[n]``.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.int64] | None = None
    rewards: NDArray[np.float32] | None = None
    ended: NDArray[np.bool_] | None = None


class VideoWriter:
    """Collects clips of one split and writes them in chunks.

    Args:
        folder: Of the data set.
        split: Of the clips.
        chunk: Frames after which a file is written.
    """

    def __init__(self, folder: Path, split: Split, chunk: int = 8192) -> None:
        self.folder, self.chunk = folder / split, chunk
        (self.folder / "labels").mkdir(parents=True, exist_ok=True)
        self.frames, self.clips, self.chunks, self.longest = 0, 0, 0, 0
        self._waiting: list[Clip] = []
        self._held = 0

    def write(self, clip: Clip) -> None:
        """Add a clip."""
        self._waiting.append(clip)
        self.longest = max(self.longest, len(clip.frames))
        self._held += len(clip.frames)
        if self._held >= self.chunk:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        lengths = [len(clip.frames) for clip in self._waiting]
        numbers = np.arange(self.clips, self.clips + len(lengths)).repeat(lengths)
        self._save("frames", np.concatenate([clip.frames for clip in self._waiting]))
        self._save("clips", numbers.astype(np.int64))
        blanks = {"actions": UNKNOWN, "rewards": np.nan, "ended": False}
        for name, kind in _LABELS.items():
            parts = [getattr(clip, name) for clip in self._waiting]
            filled = [
                np.full(n, blanks[name]) if part is None else part for part, n in zip(parts, lengths, strict=True)
            ]
            self._save(f"labels/{name}", np.concatenate(filled).astype(kind))
        self.frames += self._held
        self.clips += len(lengths)
        self.chunks += 1
        self._waiting, self._held = [], 0

    def _save(self, name: str, array: NDArray[Any]) -> None:
        write_atomically(self.folder / f"{name}-{self.chunks:04}.npy", array_bytes(array))


@contextmanager
def new_data_set(folder: Path) -> Iterator[None]:
    """Within it a data set is made, or nothing: what was written goes again where that fails or is stopped.

    An empty folder that was there before stays, as does what others have put into it meanwhile.

    Raises:
        ValueError: The folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; remove it or name another")
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        yield
    except BaseException:  # Ctrl-C as well
        for part in ("train", "test"):
            shutil.rmtree(folder / part, ignore_errors=True)
        with suppress(OSError):
            (folder / "dataset.json.part").unlink(missing_ok=True)
            (folder / "dataset.json").unlink(missing_ok=True)
            for made in missing:
                made.rmdir()  # only where it is empty
        raise


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write `dataset.json`, last: a folder with it is complete."""
    write_atomically(folder / "dataset.json", json.dumps({"format": FORMAT, **about}, indent=2).encode())


def read_about(folder: Path) -> dict[str, Any]:
    """What a data set says about itself.

    Raises:
        FileNotFoundError: The folder holds no data set.
        ValueError: `dataset.json` is damaged.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no complete data set (no dataset.json); make one with forethought genie record or import"
        )
    about = read_json(path)
    given = about.get("format") if isinstance(about, dict) else None
    if given != FORMAT:
        raise ValueError(f"{path} has format {given!r}, this version reads {FORMAT}; record the data again")
    return dict(about)


class VideoDataset:
    """One split of a data set; frames are read from disk when they are needed.

    Args:
        folder: Of the data set.
        split: train or test.

    Raises:
        FileNotFoundError: No data set, or no chunks in the split.
        ValueError: A file is damaged.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.about = read_about(folder)
        self.folder = folder / split
        count = len(list(self.folder.glob("frames-*.npy")))
        if not count:
            raise FileNotFoundError(f"{self.folder} holds no frames; record or import data for the split {split!r}")
        self._frames = [self._read("frames", index, 4, np.uint8) for index in range(count)]
        self._clips = [self._read("clips", index, 1, np.int64) for index in range(count)]
        self.labels = {
            name: [self._read(f"labels/{name}", index, 1, kind) for index in range(count)]
            for name, kind in _LABELS.items()
        }
        self._check()
        self.height, self.width = self._frames[0].shape[1:3]

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._frames)

    def _check(self) -> None:
        """Refuse chunks that do not fit each other.

        Raises:
            ValueError: Names the folder and what does not fit.
        """
        shapes = {chunk.shape[1:] for chunk in self._frames}
        if len(shapes) > 1 or {shape[-1] for shape in shapes} != {3}:
            raise ValueError(f"{self.folder} holds frames of the sizes {sorted(shapes)}; expected one, record it again")
        for index, frames in enumerate(self._frames):
            beside = {"clips": self._clips[index], **{name: chunks[index] for name, chunks in self.labels.items()}}
            for name, chunk in beside.items():
                if len(chunk) != len(frames) or not len(frames):
                    raise ValueError(
                        f"{self.folder} has {len(frames)} frames and {len(chunk)} {name} in chunk {index}; expected as "
                        "many, at least one; record the data again"
                    )
            if self._clips[index][0] < 0 or not set(np.unique(np.diff(self._clips[index])).tolist()) <= {0, 1}:
                raise ValueError(f"{self.folder} has clips in chunk {index} that are not counted one by one; "
                                 "record the data again")  # fmt: skip
            actions = beside["actions"]
            if actions.min() < UNKNOWN or actions.max() > _MOST_ACTIONS:
                raise ValueError(f"{self.folder} has actions from {actions.min()} to {actions.max()} in chunk {index}; "
                                 f"expected {UNKNOWN} to {_MOST_ACTIONS}, record the data again")  # fmt: skip

    @cached_property
    def labelled(self) -> bool:
        """Whether all actions are known; none needs to leave the last frame of a clip."""
        lasts = [np.append(clips[1:] != clips[:-1], True) for clips in self._clips]
        pairs = zip(self.labels["actions"], lasts, strict=True)
        return all(bool(((chunk != UNKNOWN) | last).all()) for chunk, last in pairs)

    def need_size(self, height: int, width: int) -> None:
        """Refuse frames of another size than a world's.

        Raises:
            ValueError: Says both sizes.
        """
        if (self.height, self.width) != (height, width):
            raise ValueError(
                f"{self.folder} has frames of {self.height}×{self.width} and the world sees {height}×{width}; record "
                f"them with --height {height} --width {width}"
            )

    def starts(self, steps: int) -> NDArray[np.int64]:
        """Where windows of ``steps`` frames can begin ``[n, 2]``: chunk and place in it.

        Raises:
            ValueError: No clip is that long.
        """
        found = []
        for index, clips in enumerate(self._clips):
            last = len(clips) - steps + 1
            if last > 0:
                place = np.flatnonzero(clips[:last] == clips[steps - 1 :])
                found.append(np.stack([np.full(len(place), index), place], 1))
        if not found or not sum(len(part) for part in found):
            longest = max(int(np.bincount(clips - clips[0]).max()) for clips in self._clips)
            raise ValueError(
                f"{self.folder} has no clip of {steps} frames, the longest has {longest}; record longer ones or "
                "shorten the context"
            )
        return np.concatenate(found)

    def read(self, starts: NDArray[np.int64], steps: int) -> NDArray[np.uint8]:
        """Windows ``[n, steps, H, W, 3]`` from places ``[n, 2]``."""
        return np.stack([self._frames[chunk][place : place + steps] for chunk, place in starts])

    def read_past(self, ends: NDArray[np.int64], frames: int) -> NDArray[np.uint8]:
        """The frames up to places ``[n, 2]`` and with them ``[n, frames, H, W, 3]``; a clip's first frame stands for
        those before it."""
        found = []
        for chunk, place in ends:
            first = np.searchsorted(self._clips[chunk], self._clips[chunk][place])
            found.append(self._frames[chunk][np.maximum(np.arange(place - frames + 1, place + 1), first)])
        return np.stack(found)

    def clip_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers ``[n]`` of the clips that places ``[n, 2]`` lie in."""
        return np.array([self._clips[chunk][place] for chunk, place in starts], np.int64)

    def read_label(self, name: str, starts: NDArray[np.int64], steps: int) -> NDArray[Any]:
        """Labels ``[n, steps]`` of windows: actions, rewards or ended."""
        return np.stack([self.labels[name][chunk][place : place + steps] for chunk, place in starts])

    def _read(self, name: str, index: int, dimensions: int, kind: type[Any]) -> NDArray[Any]:
        path = self.folder / f"{name}-{index:04}.npy"
        try:
            array = read_array(path, kind, dimensions)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; the data set is not whole, record it again") from None
        return array if dimensions == 4 else np.array(array)  # frames stay on the disk


def resize(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Frames ``[n, H, W, 3]`` as ``[n, height, width, 3]``: means of areas, so that nothing flickers."""
    if frames.shape[1:3] == (height, width):
        return frames
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    small = F.interpolate(x, (height, width), mode="area").round().to(torch.uint8)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())
