"""Whether a video file is whole, as its container tells: decoders pass over what is missing from one that was cut."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


def check_whole(path: Path) -> None:
    """Refuse a GIF, MP4, MOV, WebM, MKV or AVI that ends too early; other kinds do not tell.

    Raises:
        OSError: It cannot be read.
        ValueError: It was cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[:6] in (b"GIF87a", b"GIF89a"):
            whole = _gif_is_whole(file)
        elif head[4:] in _BOXES:
            whole = _boxes_are_whole(file, size)
        elif head[:4] == b"\x1aE\xdf\xa3":
            whole = _elements_are_whole(file, size)
        else:
            whole = head[:4] != b"RIFF" or _riff_is_whole(file, size)
    if not whole:
        raise ValueError(
            f"{path} was cut short: it ends before its last frame does; copy it again, or convert it to keep what is "
            "left of it"
        )


def _gif_is_whole(file: BinaryIO) -> bool:
    """Blocks, up to the trailer."""
    file.seek(10)
    _skip_colours(file, file.read(3)[:1])
    while (kind := file.read(1)) != b";":
        if not kind:
            return False
        if kind == b"!":  # an extension and its label
            file.seek(1, 1)
        elif kind == b",":  # a picture: place and size, colours, bits of its codes
            _skip_colours(file, file.read(9)[8:])
            file.seek(1, 1)
        else:
            continue  # decoders pass over stray bytes, too
        while length := int.from_bytes(file.read(1), "big"):
            file.seek(length, 1)
    return True


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)


def _boxes_are_whole(file: BinaryIO, size: int) -> bool:
    """MP4 and MOV: boxes that begin with their length, one after the other."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # to the end of the file, or nothing that a box begins with
            return True
        place += length
    return place == size


def _elements_are_whole(file: BinaryIO, size: int) -> bool:
    """MKV and WebM: elements of name, length and content; of an unknown length (live video) what they hold is read."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(12)
        name = 9 - head[0].bit_length()
        if name > 4:
            return True  # nothing that an element begins with
        if len(head) <= name:
            return False
        digits = 9 - head[name].bit_length()
        most = (1 << 7 * digits) - 1
        length = int.from_bytes(head[name : name + digits], "big") & most
        place += name + digits + (0 if length == most else length)
    return place == size


def _riff_is_whole(file: BinaryIO, size: int) -> bool:
    """AVI: one or more lists that tell their length."""
    place, name = 0, b"RIFF"
    while name == b"RIFF":
        file.seek(place + 4)
        place += 8 + int.from_bytes(file.read(4), "little")
        file.seek(place)
        name = file.read(4)
    return place <= size
