"""Checkpoints of a run in training: everything that the same run goes on from, bit for bit.

A checkpoint is a folder in `checkpoints/` of the run folder, named by the units of work done:

    manifest.json          what made it, settings, how far it is, and size, checksum and shapes of every other file
    config.json            settings and spaces; with
    weights.safetensors    the agent, so that `load_agent` reads a checkpoint as it reads a run folder
    learner.safetensors    optimisers, slow copies, generator
    trainer.safetensors    counters, generators, and while collecting the environments and what was observed
    memory-FIELD-N.npy     the memory in pieces; those that did not change are hard links to the last checkpoint's

It is written beside, flushed and renamed, so a checkpoint with its proper name is whole. Loading opens no name that a
file gives: which files there must be, and what shapes they have, follows from the settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..modules.memory import ShortTermMemory
from .checkpoint import agent_files, load_agent, part, upgraded
from .storage import (
    HEADER_LIMIT,
    array_bytes,
    file_size,
    parse_array,
    parse_json,
    parse_tensors,
    read_bytes,
    sync_folder,
    tensor_bytes,
    tensor_shapes,
    to_json,
    write_new,
)
from .training import Trainer

FORMAT = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""What turns a manifest of some format into one of the next."""
FOLDER = "checkpoints"
PIECE = 32 * 2**20
"""Bytes of a piece of the memory, about."""
_TENSORS = ("weights.safetensors", "learner.safetensors", "trainer.safetensors")
_PARTIAL = ".partial-"
_HEADER = 10_000  # bytes before the numbers of an array, at most


@runtime_checkable
class RememberingReport(Protocol):
    """A report that is saved with the run, because it goes on counting or writing curves."""

    def state(self) -> dict[str, Any]:
        """What it goes on from, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        ...


@dataclass(frozen=True)
class Piece:
    """Slots ``[first, end)`` of one of the memory's arrays, all streams."""

    field: str
    number: int
    first: int
    end: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"memory-{self.field}-{self.number:05d}.npy"


def pieces(memory: ShortTermMemory, slots: dict[str, int]) -> Iterator[Piece]:
    """What is filled of the memory, in pieces of so many slots of each array."""
    for field in memory.data:
        step = slots[field]
        for number, first in enumerate(range(0, memory.filled, step)):
            yield Piece(field, number, first, min(first + step, memory.filled))


def piece_slots(memory: ShortTermMemory) -> dict[str, int]:
    """Slots of each array that make a piece of about `PIECE` bytes."""
    return {field: max(1, PIECE // max(1, array[:, :1].nbytes)) for field, array in memory.data.items()}


@dataclass(frozen=True)
class Saved:
    """The checkpoint that the next one can share pieces with."""

    path: Path
    files: dict[str, dict[str, Any]]
    slots: dict[str, int]
    changes: int
    """`ShortTermMemory.changes` at that time."""
    versions: Any = None
    """Of the packages that made it."""


def save_checkpoint(trainer: Trainer, folder: Path, facts: dict[str, Any], last: Saved | None) -> Saved:
    """Write a checkpoint of a trainer between two units of work.

    Args:
        trainer: At rest.
        folder: Of the run's checkpoints.
        facts: What made the run, for the manifest.
        last: The checkpoint before, still in its place.

    Raises:
        OSError: The disk is full or the folder cannot be written; earlier checkpoints are unharmed.
    """
    target = folder / f"{trainer.units:09d}"
    partial = folder / f"{_PARTIAL}{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove(partial)
        partial.mkdir()
        files: dict[str, dict[str, Any]] = {}
        contents = agent_files(trainer.agent) | {
            "learner.safetensors": tensor_bytes(trainer.learner.state()),
            "trainer.safetensors": tensor_bytes(trainer.state()),
        }
        for name, content in contents.items():
            write_new(partial / name, content)
            files[name] = _entry(content)
            if name in _TENSORS:
                files[name]["shapes"] = {key: list(shape) for key, shape in tensor_shapes(partial / name).items()}
        slots = _write_pieces(trainer.memory, partial, files, last)
        told: object = trainer.report
        report = told.state() if isinstance(told, RememberingReport) else None
        manifest = {"format": FORMAT, **facts, "config": to_json(trainer.agent.config), "progress": trainer.progress()}
        manifest |= {"updates": trainer.learner.done, "report": report, "slots": slots, "files": files}
        write_new(partial / "manifest.json", _sealed(manifest))
        sync_folder(partial)
        remove(target)
        partial.rename(target)
        sync_folder(folder)
    except OSError as error:
        remove(partial)
        kept = newest(folder)
        raise OSError(
            f"could not write the checkpoint {target} ({error.strerror or error}); "
            + (f"{kept.name} is kept" if kept else "there is none before it")
            + "; free some space or mend the folder's permissions"
        ) from error
    return Saved(target, files, slots, trainer.memory.changes, facts.get("versions"))


def _write_pieces(
    memory: ShortTermMemory, partial: Path, files: dict[str, dict[str, Any]], last: Saved | None
) -> dict[str, int]:
    """Write or link every piece and note it in ``files``; returns the slots per piece."""
    slots = piece_slots(memory)
    shared = last if last is not None and last.slots == slots else None
    for piece in pieces(memory, slots):
        if shared is not None and memory.changed[piece.first : piece.end].max() <= shared.changes:
            try:
                os.link(shared.path / piece.name, partial / piece.name)
                files[piece.name] = shared.files[piece.name]
                continue
            except OSError:  # a file system without links, or the last checkpoint was moved away
                (partial / piece.name).unlink(missing_ok=True)
        array = memory.data[piece.field][:, piece.first : piece.end]
        content = array_bytes(array)
        write_new(partial / piece.name, content)
        files[piece.name] = _entry(content) | {"shape": list(array.shape), "dtype": array.dtype.str}
    return slots


def load_checkpoint(trainer: Trainer, path: Path) -> Saved:
    """Put a checkpoint into a fresh trainer with the same settings.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The checkpoint is damaged, of another version or of other settings.
    """
    manifest = read_manifest(path)
    saved = load_agent(path, device="cpu")
    mine = trainer.agent.config
    if replace(saved.config, saving=mine.saving) != replace(mine, device=saved.config.device):
        raise ValueError(f"{path} was trained with other settings; resume with the same, or choose another folder")
    try:
        files, slots = manifest["files"], {str(name): int(count) for name, count in manifest["slots"].items()}
        if min(slots.values()) < 1 or slots.keys() != trainer.memory.data.keys():
            raise ValueError(f"the pieces of its memory are {slots}")
        tensors = {name: parse_tensors(_verified(path, name, files)) for name in _TENSORS[1:]}
        for name, network in trainer.agent.networks().items():
            network.load_state_dict(saved.networks()[name].state_dict())
        trainer.learner.restore(tensors["learner.safetensors"])
        memory = trainer.memory
        memory.restore(part(tensors["trainer.safetensors"], "memory"))
        wanted = list(pieces(memory, slots))
        if surplus := files.keys() - {piece.name for piece in wanted} - {*_TENSORS, "config.json"}:
            raise ValueError(f"it lists files that do not belong to it: {', '.join(sorted(surplus)[:3])}")
        for piece in wanted:
            target = memory.data[piece.field][:, piece.first : piece.end]
            entry = files.get(piece.name, {})
            if entry.get("shape") != list(target.shape) or entry.get("dtype") != target.dtype.str:
                raise ValueError(f"{piece.name} is not listed as {target.dtype} {list(target.shape)}")
            if int(entry["bytes"]) > target.nbytes + _HEADER:
                raise ValueError(f"{piece.name} is listed with {entry['bytes']} bytes, expected {target.nbytes}")
            target[:] = parse_array(_verified(path, piece.name, files), target.shape, target.dtype)
        trainer.restore(tensors["trainer.safetensors"])
        told: object = trainer.report
        if isinstance(told, RememberingReport) and manifest["report"] is not None:
            told.restore(manifest["report"])
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        text = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} cannot be resumed from ({' '.join(text.split())})") from error
    return Saved(path, files, slots, memory.changes, manifest.get("versions"))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest and hold names, sizes and shapes of its files against it.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The checkpoint is damaged or of another version.
    """
    if stat.S_ISLNK(path.lstat().st_mode):
        raise ValueError(f"{path} is a link, expected the checkpoint's folder itself")
    where = path / "manifest.json"
    content = read_bytes(where, HEADER_LIMIT)
    try:
        document = parse_json(content)
        manifest = document["manifest"]
        if hashlib.sha256(_canonical(manifest)).hexdigest() != document["sha256"]:
            raise ValueError("its checksum is wrong")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is damaged ({error}); restore it or remove the checkpoint") from error
    manifest = upgraded(manifest, where, FORMAT, MIGRATIONS)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise ValueError(f"{where} is damaged (no list of files); restore it or remove the checkpoint")
    if missing := {*_TENSORS, "config.json"} - files.keys():
        raise ValueError(f"{where} does not list {', '.join(sorted(missing))}; restore it or remove the checkpoint")
    for name, entry in files.items():
        if not re.fullmatch(r"[a-z]+\.(safetensors|json)|memory-[a-z_]+-\d{5}\.npy", name):
            raise ValueError(f"{where} lists {name!r}, which is no file of a checkpoint; remove the checkpoint")
        if (size := file_size(path / name)) != entry.get("bytes"):
            raise ValueError(
                f"{path / name} has {size} bytes, expected {entry.get('bytes')}; it was cut off or changed"
            )
    for name in _TENSORS:
        shapes = {key: list(shape) for key, shape in tensor_shapes(path / name).items()}
        if shapes != files[name].get("shapes"):
            raise ValueError(f"{path / name} has other shapes than the manifest says; it was changed")
    for name in (*_TENSORS[:1], "config.json"):
        _verified(path, name, files)
    return dict(manifest)


def _verified(path: Path, name: str, files: dict[str, dict[str, Any]]) -> bytes:
    """The content of a file, if it is the one that the manifest describes."""
    content = read_bytes(path / name, int(files[name]["bytes"]))
    if hashlib.sha256(content).hexdigest() != files[name].get("sha256"):
        raise ValueError(f"{path / name} is damaged (its checksum is wrong); restore it or remove the checkpoint")
    return content


def newest(folder: Path) -> Path | None:
    """The latest whole checkpoint."""
    found = sorted(path for path in folder.glob("[0-9]*") if path.name.isdecimal())
    return found[-1] if found else None


def prune(folder: Path, keep: int) -> None:
    """Leave the latest ``keep`` checkpoints, and nothing that was never finished."""
    found = sorted(path for path in folder.glob("[0-9]*") if path.name.isdecimal())
    for path in [*found[:-keep], *folder.glob(f"{_PARTIAL}*")]:
        remove(path)


def remove(path: Path) -> None:
    """Remove a checkpoint; it loses its name first, so that half of one is never taken for a whole one."""
    if not path.exists():
        return
    if not path.name.startswith(_PARTIAL):
        gone = path.with_name(f"{_PARTIAL}{path.name}-gone")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        path = gone
    shutil.rmtree(path, ignore_errors=True)


def _entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sealed(manifest: dict[str, Any]) -> bytes:
    checksum = hashlib.sha256(_canonical(manifest)).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": checksum}, indent=1).encode()


def _canonical(manifest: Any) -> bytes:
    return json.dumps(manifest, sort_keys=True).encode()
