"""Videos of a folder: what is imported is what the files show, whole or not at all, and mistakes are named."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forethought.agent import genie_import
from forethought.agent.genie_import import Importing, import_videos
from forethought.modules.genie.video import VideoDataset, VideoWriter, read_about

from ..modules.genie.films import cut, film


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def test_folders_of_videos_are_imported(source: Path, tmp_path: Path) -> None:
    for number in range(3):
        film(source / f"{number}.mp4", shade=40 * number)
    film(source / "9.gif", height=48, width=32)
    with pytest.raises(ValueError, match=r"9\.gif has frames of 48×32 and those before it of 32×48; choose one size"):
        import_videos(source, Importing(), tmp_path / "mixed")
    import_videos(source, Importing(height=16, width=16, every=2, test_share=0.3), tmp_path / "data")
    train, test = (VideoDataset(tmp_path / "data", split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert len(train) + len(test) == 4 * 6 and len(test) == 2 * 6  # every third one, and the last
    clip = train.read(train.starts(6), 6)[1].astype(int)
    assert np.abs(clip[:, 3, 3, 0] - (40 + 20 * np.arange(6))).max() <= 6  # what the codec leaves of it
    assert not train.labelled


def test_a_single_video_is_divided_in_time(source: Path, tmp_path: Path) -> None:
    for frames, share, parts in ((10, 0.3, [7, 3]), (10, 0.1, [8, 2]), (10, 0.9, [2, 8]), (4, 0.1, [2, 2])):
        film(source / "one.gif", frames=frames)
        data = tmp_path / f"{frames}-{share}"
        import_videos(source, Importing(test_share=share), data)
        assert [read_about(data)[split]["frames"] for split in ("train", "test")] == parts
        assert all(len(VideoDataset(data, split).starts(2)) for split in ("train", "test"))  # type: ignore[arg-type]


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("mistake", ["mixed", "cut", "broken", "stopped", "one frame"])
def test_what_fails_leaves_nothing_and_the_second_try_succeeds(
    mistake: str, existed: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though chunks of the first videos were written already; an empty folder that was there stays."""
    for number in range(3):
        film(source / f"{number}.gif")
    data, bad = tmp_path / "new" / "data", source / "9.gif"
    if existed:
        data.mkdir(parents=True)
    film(bad, frames=1 if mistake == "one frame" else 12, height=48 if mistake == "mixed" else 32)
    if mistake == "cut":
        cut(bad, bad, 0.5)
    if mistake == "broken":
        bad.write_bytes(b"GIF89a")
    kept: list[bool] = []

    def watch(done: int, total: int) -> None:
        if done == 3:
            kept.append((data / "train").is_dir())
            if mistake == "stopped":
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(genie_import, "VideoWriter", partial(VideoWriter, chunk=4))
        with pytest.raises(KeyboardInterrupt if mistake == "stopped" else ValueError, match=LINES[mistake]):
            import_videos(source, Importing(), data, watch)
    assert kept == [True] and data.exists() == existed == data.parent.exists()
    assert not existed or not list(data.iterdir())
    if mistake != "stopped":
        bad.unlink()
    import_videos(source, Importing(), data)
    assert len(VideoDataset(data, "train")) + len(VideoDataset(data, "test")) == 36 + 12 * (mistake == "stopped")


LINES = {
    "mixed": r"9\.gif has frames of 48×48 and those before it of 32×48",
    "cut": r"9\.gif was cut short",
    "broken": r"9\.gif was cut short",
    "one frame": "the longest video for test has 1 frame .every is 1.; expected at least 2 frames in one for train",
    "stopped": None,
}


def test_what_others_put_there_stays(source: Path, tmp_path: Path) -> None:
    film(source / "a.gif")
    film(source / "b.gif", height=16)
    data = tmp_path / "data"
    with pytest.raises(ValueError, match="choose one size"):
        import_videos(source, Importing(), data, lambda *_: (data / "mine").touch())
    assert [path.name for path in data.iterdir()] == ["mine"]
    with pytest.raises(ValueError, match="is not an empty folder; remove it or name another"):
        import_videos(source, Importing(height=8, width=8), data)
    assert [path.name for path in data.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("films", "config", "split"),
    [
        ((1,), Importing(), "train"),
        ((3,), Importing(), "test"),
        ((12,), Importing(every=4), "test"),
        ((1, 12), Importing(), "train"),
        ((12, 12, 1), Importing(), "test"),
    ],
)
def test_a_split_in_which_no_frame_follows_another_is_refused(
    films: tuple[int, ...], config: Importing, split: str, source: Path, tmp_path: Path
) -> None:
    for number, frames in enumerate(films):
        film(source / f"{number}.gif", frames=frames)
    with pytest.raises(ValueError, match=rf"longest video for {split} has 1 frame .*at least 2 frames"):
        import_videos(source, config, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_bad_input_gets_one_clear_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no videos"):
        import_videos(source, Importing(), tmp_path / "out")
    with pytest.raises(ValueError, match="give both, or neither"):
        import_videos(source, Importing(height=16), tmp_path / "out")
    with pytest.raises(ValueError, match=r"every is 0 and test_share 0\.1"):
        import_videos(source, Importing(every=0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
