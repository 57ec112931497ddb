"""Reading Minari data; a stand-in with the parts of its interface that are used, since it is optional."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forethought.agent.genie_import import Importing
from forethought.agent.genie_minari import import_minari
from forethought.modules.genie.video import UNKNOWN, VideoDataset


@dataclass
class Episode:
    """As minari.EpisodeData: one more observation than steps."""

    observations: Any
    actions: Any
    rewards: Any
    terminations: Any


@dataclass
class Data:
    episodes: list[Episode]

    @property
    def total_episodes(self) -> int:
        return len(self.episodes)

    def iterate_episodes(self) -> Iterator[Episode]:
        return iter(self.episodes)


def episodes(count: int = 4, side: int = 8) -> list[Episode]:
    draws = np.random.default_rng(0)
    found = []
    for number in range(count):
        steps = 5 + number
        ended = np.arange(steps) == steps - 1
        pictures = draws.integers(256, size=(steps + 1, side, side, 3)).astype(np.uint8)
        found.append(Episode(pictures, draws.integers(3, size=steps), 2.0 * ended, ended))
    return found


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Data]:
    shelf: dict[str, Data] = {}

    def load_dataset(name: str) -> Data:
        if name not in shelf:
            raise FileNotFoundError(name)
        return shelf[name]

    monkeypatch.setitem(sys.modules, "minari", SimpleNamespace(load_dataset=load_dataset))
    return shelf


def test_episodes_become_clips_with_labels(library: dict[str, Data], tmp_path: Path) -> None:
    library["box/random-v0"] = Data(episodes())
    told: list[tuple[int, int]] = []
    import_minari("box/random-v0", Importing(test_share=0.5), tmp_path / "data", "", lambda *now: told.append(now))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    train, test = (VideoDataset(tmp_path / "data", split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.about["minari"] == "box/random-v0" and train.about["actions"] == 3
    for data, numbers in ((train, (0, 2)), (test, (1, 3))):
        kept = [episodes()[number] for number in numbers]
        assert np.array_equal(data._frames[0], np.concatenate([one.observations for one in kept]))
        actions, ended = data.labels["actions"][0], data.labels["ended"][0]
        steps = actions != UNKNOWN
        assert np.array_equal(actions[steps], np.concatenate([one.actions for one in kept]))
        assert ended.sum() == 2 and (data.labels["rewards"][0][ended] == 2).all()
        assert (~steps).sum() == 2 and data.labelled  # only the last frames have no action


def test_pictures_are_found_made_smaller_and_coloured(library: dict[str, Data], tmp_path: Path) -> None:
    grey = [Episode({"image": one.observations[..., 0], "state": 0}, one.actions, one.rewards, one.terminations)
            for one in episodes()]  # fmt: skip
    library["grey"] = Data(grey)
    import_minari("grey", Importing(height=4, width=4), tmp_path / "data", "image")
    frames = VideoDataset(tmp_path / "data", "train")._frames[0]
    block = episodes()[0].observations[0, :2, :2, 0].astype(float).mean()
    assert frames.shape[1:] == (4, 4, 3) and abs(frames[0, 0, 0, 1] - block) <= 0.5
    with pytest.raises(ValueError, match="entries image, state; choose one with --key"):
        import_minari("grey", Importing(), tmp_path / "other")
    library["plain"] = Data(episodes())
    with pytest.raises(ValueError, match="observations without entries and --key is 'image'; leave it away"):
        import_minari("plain", Importing(), tmp_path / "other", "image")


def test_fewer_frames_and_box_actions_have_no_labels(library: dict[str, Data], tmp_path: Path) -> None:
    library["box"] = Data([Episode(one.observations, one.actions * 0.5, one.rewards, one.terminations)
                           for one in episodes()])  # fmt: skip
    library["every"] = Data(episodes())
    import_minari("box", Importing(), tmp_path / "box")
    import_minari("every", Importing(every=2), tmp_path / "every")
    assert not VideoDataset(tmp_path / "box", "train").labelled
    every = VideoDataset(tmp_path / "every", "train")
    assert not every.labelled and np.array_equal(every._frames[0][:3], episodes()[0].observations[::2])


def test_what_cannot_be_read_gets_one_line(
    library: dict[str, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library["short"] = Data(episodes(1))
    vectors = [Episode(np.zeros((len(one.actions) + 1, 3)), one.actions, one.rewards, one.terminations)
               for one in episodes()]  # fmt: skip
    library["vectors"] = Data(vectors)
    with pytest.raises(FileNotFoundError, match="minari download nothing"):
        import_minari("nothing", Importing(), tmp_path / "a")
    with pytest.raises(ValueError, match="1 episodes; at least 2"):
        import_minari("short", Importing(), tmp_path / "b")
    with pytest.raises(ValueError, match=r"observations float64 \(3,\); expected pictures"):
        import_minari("vectors", Importing(), tmp_path / "c")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'minari\[hdf5\]'"):
        import_minari("short", Importing(), tmp_path / "d")
