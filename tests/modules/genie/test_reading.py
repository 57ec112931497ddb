"""Pictures and videos from files: what they show is read, and what is missing is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forethought.modules.genie.containers import check_whole
from forethought.modules.genie.reading import read_prompt, read_video
from PIL import Image

from .films import cut, film, noise

KINDS = {
    "gif": (".gif", {}),
    "mp4": (".mp4", {}),
    "mp4, index first": (".mp4", {"movflags": "faststart"}),
    "mp4, in fragments": (".mp4", {"movflags": "frag_every_frame+empty_moov"}),
    "mov": (".mov", {}),
    "mkv": (".mkv", {}),
    "webm": (".webm", {}),
    "webm, live": (".webm", {"live": "1"}),
    "avi": (".avi", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_video_is_read_and_one_that_was_cut_is_refused(kind: str, tmp_path: Path) -> None:
    """Wherever it was cut; decoders pass over it mostly."""
    suffix, options = KINDS[kind]
    whole = noise(tmp_path / f"whole{suffix}", **options)
    assert len(read_video(whole)) == 10
    content = whole.read_bytes()
    for share in (0.999, 0.95, 0.7, 0.5, 0.3, 0.1):
        short = cut(whole, tmp_path / f"short{suffix}", share)
        with pytest.raises(ValueError, match=rf"short\{suffix} was cut short"):
            read_video(short)
    for lost in range(1, 400):  # at every byte of the end; the last fragment is followed by an index alone
        short.write_bytes(content[:-lost])
        try:
            check_whole(short)
        except ValueError:
            continue
        assert kind == "mp4, in fragments" and len(read_video(short)) == 10


def test_a_gif_that_lost_half_of_its_frames_would_be_read_without_a_word(tmp_path: Path) -> None:
    """So it is really the container that tells: a trailer at the cut does not help, bytes after the end do no harm."""
    whole = noise(tmp_path / "whole.gif")
    short = cut(whole, tmp_path / "short.gif", 0.5)
    short.write_bytes(short.read_bytes() + b";")
    with pytest.raises(ValueError, match="was cut short"):
        read_video(short)
    short.write_bytes(whole.read_bytes() + b"and more")
    assert len(read_video(short)) == 10


def test_frames_are_left_out_and_reading_ends_where_enough_are_read(tmp_path: Path) -> None:
    film(tmp_path / "a.gif", frames=11)
    frames = read_video(tmp_path / "a.gif")[:, 0, 0, 0].astype(int)
    assert np.array_equal(frames, 10 * np.arange(11))
    assert np.array_equal(read_video(tmp_path / "a.gif", every=3)[:, 0, 0, 0], frames[::3])
    assert np.array_equal(read_video(tmp_path / "a.gif", every=2, most=4)[:, 0, 0, 0], frames[:8:2])


def test_a_dream_begins_with_a_picture_or_the_first_frames_of_a_video(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).integers(256, size=(32, 48, 3)).astype(np.uint8)
    Image.fromarray(draws).save(tmp_path / "picture.png")
    mean = draws.reshape(16, 2, 16, 3, 3).mean((1, 3))
    prompt = read_prompt(tmp_path / "picture.png", 16, 16, 4)
    assert prompt.shape == (1, 16, 16, 3) and prompt.dtype == np.uint8 and np.abs(prompt[0] - mean).max() <= 0.5
    Image.fromarray(draws[..., 0]).save(tmp_path / "grey.png")
    assert np.ptp(read_prompt(tmp_path / "grey.png", 32, 48, 4), -1).max() == 0
    for suffix in (".gif", ".mp4"):
        prompt = read_prompt(film(tmp_path / f"video{suffix}"), 16, 16, 4)
        assert prompt.shape == (4, 16, 16, 3)
        assert np.abs(prompt.astype(int) - 10 * np.arange(4)[:, None, None, None]).max() <= 6  # what a codec leaves
    assert len(read_prompt(film(tmp_path / "short.gif", frames=3), 16, 16, 4)) == 3


def test_files_that_cannot_be_read_get_one_clear_line(tmp_path: Path) -> None:
    for name in ("nothing.png", "nothing.mp4", "."):
        with pytest.raises(FileNotFoundError, match="there is no picture or video"):
            read_prompt(tmp_path / name, 16, 16, 4)
    for name, kind in (("broken.mp4", "video"), ("broken.gif", "video"), ("broken.png", "picture")):
        for content in (b"", b"not a film"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name} cannot be read as a {kind} \([^\n]+\); [^\n]+\Z"):
                read_prompt(tmp_path / name, 16, 16, 4)
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    for share in (0.99, 0.5, 0.01):
        with pytest.raises(ValueError, match=r"short\.png cannot be read as a picture"):
            read_prompt(cut(tmp_path / "a.png", tmp_path / "short.png", share), 16, 16, 4)
    content = bytearray((tmp_path / "a.png").read_bytes())
    for place in range(0, len(content), 97):  # damage is found, or makes another picture
        content[place] ^= 0xFF
        (tmp_path / "damaged.png").write_bytes(content)
        try:
            assert read_prompt(tmp_path / "damaged.png", 16, 16, 4).shape == (1, 16, 16, 3)
        except ValueError as error:
            assert "cannot be read as a picture" in str(error)
        content[place] ^= 0xFF
