"""Videos of a folder as a data set: nothing but frames is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..modules.genie.reading import SUFFIXES, read_video
from ..modules.genie.video import Clip, Split, VideoWriter, new_data_set, resize, write_about
from .evaluation import Progress

_SPLITS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True)
class Importing:
    """How videos are read."""

    height: int = 0
    """Height of the frames; 0: as the videos are, which must then all be alike."""
    width: int = 0
    """Width of the frames; 0: as the videos are."""
    every: int = 1
    """Keep every so many frames (3 makes 10 frames per second of 30)."""
    test_share: float = 0.1
    """Share of the videos for testing; of a single video, its last part (at least 2 frames)."""


def import_videos(source: Path, config: Importing, folder: Path, progress: Progress | None = None) -> None:
    """Read a folder of MP4, GIF and the like, without actions, into a data set.

    Args:
        source: Folder of videos; those in folders below it are read too.
        config: How.
        folder: Of the data set; must not hold one.
        progress: Told of videos.

    Raises:
        FileNotFoundError: No videos.
        ValueError: Videos of mixed sizes, one that cannot be read or was cut short, too few frames, or numbers out of
            range. Nothing is left of the data set then.
    """
    check_importing(config)
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"{source} holds no videos; expected files that end in {', '.join(SUFFIXES)}")
    period = max(2, round(1 / config.test_share))
    size: tuple[int, int] | None = (config.height, config.width) if config.height else None
    with new_data_set(folder):
        writers: dict[Split, VideoWriter] = {split: VideoWriter(folder, split) for split in _SPLITS}
        for number, path in enumerate(paths):
            frames = read_video(path, config.every)
            if config.height:
                frames = resize(frames, config.height, config.width)
            size = size or (frames.shape[1], frames.shape[2])
            if frames.shape[1:3] != size:
                raise ValueError(
                    f"{path} has frames of {frames.shape[1]}×{frames.shape[2]} and those before it of "
                    f"{size[0]}×{size[1]}; choose one size with --height and --width"
                )
            if len(paths) == 1:
                border = max(2, len(frames) - max(2, round(config.test_share * len(frames))))  # a pair for each
                writers["train"].write(Clip(frames[:border]))
                writers["test"].write(Clip(frames[border:]))
            else:
                last = number % period == period - 1 or number == len(paths) - 1
                writers["test" if last else "train"].write(Clip(frames))
            if progress is not None:
                progress(number + 1, len(paths))
        assert size is not None
        about: dict[str, Any] = {
            "videos": str(source),
            "importing": dict(vars(config)),
            "height": size[0],
            "width": size[1],
        }
        finish_import(folder, writers, about, config)


def finish_import(folder: Path, writers: Mapping[Split, VideoWriter], about: dict[str, Any], config: Importing) -> None:
    """Write what waits, and what the data set says about itself.

    Args:
        folder: Of the data set.
        writers: Of its splits.
        about: What was imported.
        config: How.

    Raises:
        ValueError: A split in which no frame follows another.
    """
    for split, writer in writers.items():
        if writer.longest < 2:
            raise ValueError(
                f"the longest video for {split} has {writer.longest} frame{'s' * (writer.longest != 1)} (every is "
                f"{config.every}); expected at least 2 frames in one for train and in one for test, or 4 in a single "
                "video, which is divided; give longer videos, or keep more of their frames"
            )
        writer.flush()
        about[split] = {"frames": writer.frames, "clips": writer.clips, "levels": None}
    write_about(folder, about)


def check_importing(config: Importing) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: Names the setting.
    """
    if (config.height < 1) != (config.width < 1) or min(config.height, config.width) < 0:
        raise ValueError(f"height is {config.height} and width {config.width}; give both, or neither")
    if config.every < 1 or not 0 < config.test_share < 1:
        raise ValueError(f"every is {config.every} and test_share {config.test_share}; expected at least 1 and a share")
