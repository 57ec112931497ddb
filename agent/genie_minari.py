"""Video from Minari's offline data sets (https://minari.farama.org): episodes whose observations are pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modules.genie.video import UNKNOWN, Clip, Split, VideoWriter, new_data_set, resize
from .evaluation import Progress
from .genie_import import Importing, check_importing, finish_import

PREFIX = "minari:"


def import_minari(name: str, config: Importing, folder: Path, key: str = "", progress: Progress | None = None) -> None:
    """Read a Minari data set that is on this machine into a data set of ours.

    Discrete actions, rewards and endings go into `labels/`. The observation after an episode's last step is kept as a
    frame; no action leaves it.

    Args:
        name: As `minari list local` shows it.
        config: Size and share of tests; every n-th frame is kept without actions, since several lie between two.
        folder: Of the data set; must not hold one.
        key: The entry of Dict observations that is a picture.
        progress: Told of episodes.

    Raises:
        ImportError: Minari is not installed.
        FileNotFoundError: No such data set on this machine.
        ValueError: Observations that are not pictures, too few frames, or numbers out of range.
    """
    check_importing(config)
    data = load_minari(name)
    count = int(data.total_episodes)
    period = max(2, round(1 / config.test_share))
    size: tuple[int, int] = (config.height, config.width)
    actions = 0
    with new_data_set(folder):
        writers: dict[Split, VideoWriter] = {"train": VideoWriter(folder, "train"), "test": VideoWriter(folder, "test")}
        for number, clip in enumerate(_clips(data, key, config.every, name)):
            size = size if size[0] else (clip.frames.shape[1], clip.frames.shape[2])
            small = Clip(resize(clip.frames, *size), clip.actions, clip.rewards, clip.ended)
            writers["test" if number % period == period - 1 or number == count - 1 else "train"].write(small)
            actions = actions if clip.actions is None else max(actions, 1 + int(clip.actions.max()))
            if progress is not None:
                progress(number + 1, count)
        about: dict[str, Any] = {"minari": name, "importing": dict(vars(config)), "height": size[0], "width": size[1]}
        if actions:
            about["actions"] = actions
        finish_import(folder, writers, about, config)


def load_minari(name: str) -> Any:
    """A `minari.MinariDataset`.

    Raises:
        ImportError: Minari is not installed.
        FileNotFoundError: No such data set on this machine.
        ValueError: It holds fewer than two episodes.
    """
    try:
        import minari  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise ImportError(
            "reading Minari data needs the package minari: pip install 'minari[hdf5]', or forethought[minari]"
        ) from error
    try:
        data = minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"there is no Minari data set {name!r} on this machine; get it with minari download {name}"
        ) from error
    if int(data.total_episodes) < 2:
        raise ValueError(f"Minari's {name} has {data.total_episodes} episodes; at least 2 are needed, one for testing")
    return data


def _clips(data: Any, key: str, every: int, name: str) -> Iterator[Clip]:
    for episode in data.iterate_episodes():
        frames = _pictures(episode.observations, key, name)[::every]
        steps = len(episode.rewards)
        if every > 1 or not np.issubdtype(np.asarray(episode.actions).dtype, np.integer):
            yield Clip(frames)
            continue
        if np.ndim(episode.actions) != 1:
            raise ValueError(
                f"Minari's {name} has actions of shape {np.shape(episode.actions)}; expected one number each"
            )
        after = np.zeros(len(frames) - steps)  # the last observation, which no step leaves
        yield Clip(
            frames,
            np.concatenate([episode.actions, after + UNKNOWN]).astype(np.int64),
            np.concatenate([episode.rewards, after]).astype(np.float32),
            np.concatenate([episode.terminations, after]).astype(np.bool_),
        )


def _pictures(observations: Any, key: str, name: str) -> NDArray[np.uint8]:
    if isinstance(observations, dict):
        if key not in observations:
            raise ValueError(
                f"Minari's {name} has observations with the entries {', '.join(observations)}; choose one with --key"
            )
        observations = observations[key]
    elif key:
        raise ValueError(f"Minari's {name} has observations without entries and --key is {key!r}; leave it away")
    frames = np.asarray(observations)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[-1] not in (1, 3)):
        raise ValueError(
            f"Minari's {name} has observations {frames.dtype} {frames.shape[1:]}; expected pictures, uint8 [H, W, 3]"
        )
    frames = frames if frames.ndim == 4 else frames[..., None]
    return frames if frames.shape[-1] == 3 else frames.repeat(3, -1)
