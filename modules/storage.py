"""Files that are written whole or not at all, and read only if they are what was written; reading never runs code.

Tensors are safetensors whose header carries a SHA-256 of everything else in the file; arrays are `.npy` of version 1.0;
the rest is JSON, settings as nested dataclasses. What a header claims is held against the file's size and against what
the reader expects before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import reprlib
import stat
import struct
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]

HEADER_LIMIT = 16_000_000
"""Bytes of the longest header or JSON file that is read; ours have some ten thousand."""
_NPY_HEADER_LIMIT = 10_000
_WIDEST = 16  # bytes of a number
_BLOCK = 4096  # bytes that may become a hole


def write_new(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk. Zeros become holes, which take neither time nor room on most disks."""
    whole = len(content) // _BLOCK
    used = np.frombuffer(content, np.uint64, whole * _BLOCK // 8).reshape(whole, _BLOCK // 8).any(axis=1)
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False)) * _BLOCK
    with path.open("wb") as file, memoryview(content) as view:
        for first, end in edges.reshape(-1, 2).tolist():
            file.seek(first)
            file.write(view[first:end])
        file.seek(whole * _BLOCK)
        file.write(view[whole * _BLOCK :])
        file.truncate(len(view))
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk: only then do renamed files survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a crash or a full disk leaves the old file readable.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is unharmed.
    """
    beside = path.with_name(path.name + ".part")
    try:
        write_new(beside, content)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error.strerror}); free some space or choose another folder") from error


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: Of the file; links, devices and pipes are refused.
        limit: Bytes that it may have.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no regular file, too long, or cannot be read.
    """
    size = file_size(path)
    if limit is not None and size > limit:
        raise ValueError(f"{path} has {size} bytes, expected at most {limit}; restore it or train again")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except MemoryError:
        raise ValueError(f"{path} has {size} bytes, more than fit into memory; restore it or train again") from None


def file_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A link, a folder, a device or a pipe.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise FileNotFoundError(f"{path} is missing; the run was not saved completely") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise ValueError(f"{path} is {kind}, expected a file as it was saved; put the file itself there")
    return found.st_size


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged.
    """
    content = read_bytes(path, HEADER_LIMIT)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def parse_json(content: bytes) -> Any:
    """Understand JSON; NaN and infinity are no JSON.

    Raises:
        ValueError: It is none.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(content.decode(), parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file with a checksum."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header, data = _split(save(plain))
    header["__metadata__"] = {"sha256": _digest(header, data)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors with a checksum, atomically.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is unharmed.
    """
    write_atomically(path, tensor_bytes(tensors))


def read_tensors(path: Path, expected: Shapes | None = None) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: Of the file.
        expected: Names and shapes that it must have; compared before tensors are made.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged, or holds something else.
    """
    file_size(path)
    if expected is not None and (given := tensor_shapes(path)) != expected:
        raise ValueError(f"{path} does not fit the settings: {_difference(given, expected)}; restore it or train again")
    content = read_bytes(path)
    try:
        return parse_tensors(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def parse_tensors(content: bytes) -> dict[str, Tensor]:
    """Undo `tensor_bytes`; files without a checksum, which older versions wrote, are read as well.

    Raises:
        ValueError: The content is damaged.
    """
    header, data = _split(content)
    metadata = header.pop("__metadata__", {})
    claimed = metadata.get("sha256") if isinstance(metadata, dict) else None
    if claimed not in {None, _digest(header, data)}:
        raise ValueError("its checksum is wrong")
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return tensors


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file, of which only the header is read.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The header is damaged or too long.
    """
    size = file_size(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        content = start + file.read(length) if length <= min(size, HEADER_LIMIT) else start
    try:
        header, _ = _split(content)
        header.pop("__metadata__", None)
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in header.items()}
        spans = {name: [int(end) for end in entry["data_offsets"]] for name, entry in header.items()}
        described = len(content) + max((last for _, last in spans.values()), default=0)
        if size != described or any(b - a > _WIDEST * math.prod(shapes[name]) for name, (a, b) in spans.items()):
            raise ValueError(f"it has {size} bytes and its header describes {described}")
        return shapes
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    if len(content) < 8:
        raise ValueError(f"it has {len(content)} bytes")
    length = struct.unpack("<Q", content[:8])[0]
    if length > min(len(content) - 8, HEADER_LIMIT):
        raise ValueError(f"its header claims {length} bytes, more than there are or than is read")
    header = parse_json(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header, content[8 + length :]


def _digest(header: Mapping[str, Any], data: bytes) -> str:
    named = json.dumps(header, sort_keys=True).encode()
    return hashlib.sha256(named + data).hexdigest()


def _difference(given: Shapes, expected: Shapes) -> str:
    for name in sorted(given.keys() | expected.keys()):
        if given.get(name) != expected.get(name):
            was, wanted = (list(shapes[name]) if name in shapes else "nothing" for shapes in (given, expected))
            return f"{name} is {was}, expected {wanted}"
    return "nothing"


def array_bytes(array: NDArray[Any]) -> bytes:
    """An array as the content of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def parse_array(content: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo `array_bytes`; the array is a view of ``content``.

    Raises:
        ValueError: It is no array, or one of another shape or type.
    """
    buffer = io.BytesIO(content)
    given, kind = _array_header(buffer)
    if given != shape or kind != dtype:
        raise ValueError(f"it holds {kind} {list(given)}, expected {dtype} {list(shape)}")
    data = content[buffer.tell() :]
    if len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"it holds {len(data)} bytes of data, expected {dtype} {list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)


def read_array(path: Path, dtype: type[Any], dimensions: int) -> NDArray[Any]:
    """An array of any length from a `.npy` file; it stays on the disk, and what is used of it is read.

    Args:
        path: Of the file.
        dtype: Type of its entries.
        dimensions: How many it must have.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged, or holds something else.
    """
    size, kind = file_size(path), np.dtype(dtype)
    try:
        with path.open("rb") as file:
            shape, given = _array_header(file)
            begin = file.tell()
        if given != kind or len(shape) != dimensions:
            raise ValueError(f"it holds {given} {list(shape)}, expected {kind} of {dimensions} dimensions")
        if size - begin != kind.itemsize * math.prod(shape):
            raise ValueError(f"it holds {size - begin} bytes of data, expected {kind} {list(shape)}")
        return np.memmap(path, kind, "r", begin, shape) if math.prod(shape) else np.zeros(shape, kind)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); restore it or make it again") from error


def _array_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type from the header of a `.npy` file, which is read up to its data."""
    npy: Any = np.lib.format  # whose types say too little
    try:
        version = npy.read_magic(file)
        shape, fortran, kind = npy.read_array_header_1_0(file, max_header_size=_NPY_HEADER_LIMIT)
    except Exception as error:  # numpy's parser lets through whatever Python's tokenizer and parser raise
        raise ValueError(f"its header cannot be read: {error}") from error
    if version != (1, 0):
        raise ValueError(f"its format is version {version[0]}.{version[1]}, expected version 1.0")
    if fortran or kind.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"it holds {kind} {list(shape)}{' by columns' * fortran}, expected plain numbers by rows")
    return shape, kind


def in_a_line(error: BaseException) -> str:
    """The beginning of an error's message, without line breaks."""
    return " ".join(str(error).split())[:200]


def to_json(value: Any) -> Any:
    """Nested dataclasses as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_json(kind: type[T], value: Any, where: str = "config") -> T:
    """Rebuild nested dataclasses; missing settings, which came later, get their defaults; others are refused.

    Raises:
        ValueError: The JSON does not describe this dataclass.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {reprlib.repr(value)}, expected an object with the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(value.keys() - fields.keys()):
        names = ", ".join(name if name.isidentifier() else reprlib.repr(name) for name in unknown[:5])
        raise ValueError(
            f"{where} has settings that {kind.__name__} does not know: {names}{' …' * (len(unknown) > 5)}; another "
            "version wrote it"
        )
    needed = {name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := ", ".join(sorted(needed - value.keys())):
        raise ValueError(f"{where} lacks {missing}; correct the file or train again")
    return kind(**{name: _convert(hints[name], given, f"{where}.{name}") for name, given in value.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value, where)
    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if origin is typing.Literal:
        fits = value in options
    elif origin is tuple:  # of any length
        fits = isinstance(value, list) and all(type(item) is options[0] for item in value)
        value = tuple(value) if fits else value
    elif origin in {typing.Union, types.UnionType}:
        fits = any(value is None if option is type(None) else isinstance(value, option) for option in options)
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not fits:
        raise ValueError(f"{where} is {reprlib.repr(value)}, expected {hint}; correct the file or train again")
    return value
