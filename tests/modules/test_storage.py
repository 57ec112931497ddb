"""Files are what was written, or are refused in one line; nothing in them is run."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from forethought.modules import storage
from forethought.modules.storage import (
    array_bytes,
    from_json,
    parse_tensors,
    read_array,
    read_bytes,
    read_json,
    read_tensors,
    save_tensors,
    tensor_bytes,
    tensor_shapes,
    to_json,
    write_atomically,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2)}
SHAPES = {"a": (2, 3), "b": ()}


def test_changed_weights_are_refused_by_their_checksum(tmp_path: Path) -> None:
    """Every single byte of header and numbers, by one bit."""
    whole = tensor_bytes(TENSORS)
    for place in range(8, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        try:
            read = parse_tensors(bytes(changed))
        except ValueError:
            continue
        # what is left is white space, and the name of the checksum, without which the file is one of an older version
        assert read.keys() == TENSORS.keys(), place
        assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items()), place
    save_tensors(tmp_path / "x.safetensors", TENSORS)
    assert torch.equal(read_tensors(tmp_path / "x.safetensors", SHAPES)["a"], TENSORS["a"])


def header(**entries: Any) -> bytes:
    text = json.dumps({name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in
                       entries.items()}).encode()  # fmt: skip
    return struct.pack("<Q", len(text)) + text


CROOKED: dict[str, bytes] = {
    "nothing": b"",
    "too short": b"1234567",
    "a header longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope",
    "a list": struct.pack("<Q", 2) + b"[]",
    "a number": struct.pack("<Q", 2) + b"42",
    "NaN": struct.pack("<Q", 5) + b"[NaN]",
    "brackets without end": struct.pack("<Q", 60_000) + b"[" * 60_000,
    "bytes that are no text": struct.pack("<Q", 2) + b"\xff\xfe",
    "digits without end": struct.pack("<Q", 10_000) + b"1" * 10_000,
    "no shape": header() [:8] + b'{"a":{}}'[:2],
    "less than it says": header(a=("F32", [2, 3], [0, 24])) + b"0" * 23,
    "more than it says": header(a=("F32", [2, 3], [0, 24])) + b"0" * 25,
    "offsets beyond the shape": header(a=("F32", [2, 3], [0, 4_000])) + b"0" * 4_000,
    "negative sides": header(a=("F32", [-2, -3], [0, 24])) + b"0" * 24,
    "sides that are no numbers": header(a=("F32", ["x"], [0, 4])) + b"0" * 4,
    "three offsets": header(a=("F32", [1], [0, 4, 8])) + b"0" * 8,
    "offsets backwards": header(a=("F32", [1], [4, 0])) + b"0" * 4,
    "an unknown type": header(a=("PICKLE", [1], [0, 4])) + b"0" * 4,
    "overlapping tensors": header(a=("F32", [1], [0, 4]), b=("F32", [1], [0, 4])) + b"0" * 4,
    "a hole": header(a=("F32", [1], [4, 8])) + b"0" * 8,
    "a shape that fits no machine": header(a=("F32", [2**40, 2**20], [0, 4])) + b"0000",
}  # fmt: skip


@pytest.mark.parametrize("name", CROOKED)
def test_crooked_tensors_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(CROOKED[name])
    for expected in (None, SHAPES, {"a": (2, 3)}):
        with pytest.raises(ValueError, match=r"x\.safetensors") as refused:
            read_tensors(path, expected)
        assert "\n" not in str(refused.value)


def test_a_file_that_fits_no_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terabyte of nothing behind proper tensors, and one that is read whole."""
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS)
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match="its header describes"):
        tensor_shapes(path)

    def give_out(self: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", give_out)
    with pytest.raises(ValueError, match="more than fit into memory"):
        read_bytes(path)


# ---- arrays


def test_arrays_stay_on_the_disk_and_are_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for shape in ((3, 4), (0, 4), (2, 0)):
        array = np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)
        path.write_bytes(array_bytes(array))
        read = read_array(path, np.uint8, 2)
        assert np.array_equal(read, array) and read.shape == shape
        assert not read.size or not read.flags.writeable
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "y.npy", np.uint8, 2)


def npy(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode() + data


BENT: dict[str, bytes] = {
    "nothing": b"",
    "no array": b"nonsense",
    "cut in the header": npy("{'descr': '|u1'")[:12],
    "another type": array_bytes(np.zeros((2, 3), np.int64)),
    "other dimensions": array_bytes(np.zeros(6, np.uint8)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", b"0" * 48),
    "code": npy("__import__('os').mkdir('sprung')"),
    "more code": npy("{'descr': __import__('os').mkdir('sprung'), 'fortran_order': False, 'shape': (2, 3), }"),
    "brackets without end": npy("(" * 5_000),
    "a header without end": npy(" " * 20_000),
    "by columns": npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", b"0" * 6),
    "less than it says": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", b"0" * 5),
    "more than it says": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", b"0" * 7),
    "a size that fits no machine": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10**15, 3), }"),
    "a large size": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 3), }", b"0" * 6),
    "negative sides": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -3), }", b"0" * 6),
    "fields": npy("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 3), }", b"0" * 6),
    "another format": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", b"0" * 6, b"\x02\x00"),
}


@pytest.mark.parametrize("name", BENT)
def test_bent_arrays_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.npy"
    path.write_bytes(BENT[name])
    with pytest.raises(ValueError, match=r"x\.npy is damaged") as refused:
        read_array(path, np.uint8, 2)
    assert "\n" not in str(refused.value) and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("read", [read_bytes, read_json, read_tensors, lambda path: read_array(path, np.uint8, 2)])
def test_what_is_no_file_is_refused(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("link", "a link"), ("pipe", "no regular file"), (".", "no regular file")):
        with pytest.raises(ValueError, match=kind):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere")


# ---- settings


@dataclass(frozen=True)
class Inner:
    levels: tuple[int, ...] = (8, 5)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    count: int
    rate: float = 0.5
    on: bool = False
    name: str | None = None
    inner: Inner = field(default_factory=Inner)


def test_settings_survive() -> None:
    for settings in (Outer(3), Outer(1, 2.0, True, "x", Inner((), "b")), Outer(0, name="", inner=Inner((1,)))):
        assert from_json(Outer, json.loads(json.dumps(to_json(settings)))) == settings
    assert from_json(Outer, {"count": 3}) == Outer(3)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], r"config is \[\]"),
        ({}, "lacks count"),
        ({"count": 1, "more": 2}, "does not know: more"),
        ({"count": "1"}, "config.count is '1'"),
        ({"count": True}, "config.count is True"),
        ({"count": 1.0}, "config.count is 1.0"),
        ({"count": 1, "rate": "x"}, "config.rate"),
        ({"count": 1, "rate": True}, "config.rate"),
        ({"count": 1, "on": 1}, "config.on is 1"),
        ({"count": 1, "name": 4}, "config.name is 4"),
        ({"count": 1, "inner": None}, "config.inner is None"),
        ({"count": 1, "inner": {"levels": 8}}, "config.inner.levels is 8"),
        ({"count": 1, "inner": {"levels": [8, True]}}, "config.inner.levels"),
        ({"count": 1, "inner": {"levels": [8.0]}}, "config.inner.levels"),
        ({"count": 1, "inner": {"kind": "c"}}, "config.inner.kind is 'c'"),
        ({"count": 1, "inner": {"kind": ["a"]}}, "config.inner.kind"),
    ],
)
def test_settings_of_another_kind_are_refused(content: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_json(Outer, content)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(where: Path, content: bytes) -> None:
        where.write_bytes(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_new", full)
    with pytest.raises(OSError, match=r"could not write .*x \(No space left on device\); free some space"):
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 50_000, 409_600])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_zeros_become_holes_and_nothing_else_changes(tmp_path: Path, size: int, share: float) -> None:
    draws = np.random.default_rng(size)
    blocks = draws.integers(1, 256, (-(-size // 4096), 4096), np.uint8) * (
        draws.uniform(size=(-(-size // 4096), 1)) < share
    )
    content = blocks.tobytes()[:size]
    path, hollow = tmp_path / "file", tmp_path / "hollow"
    path.write_bytes(b"x" * 2 * size)  # what was there goes
    storage.write_new(path, content)
    assert path.read_bytes() == content
    with hollow.open("wb") as file:
        file.truncate(409_600)
    if size == 409_600 and share == 0.1 and not hollow.stat().st_blocks:  # a disk that can have holes
        assert path.stat().st_blocks * 512 <= 2 * np.count_nonzero(blocks)
