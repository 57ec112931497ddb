"""Saving and loading: weights as safetensors, settings as JSON, memory as `.npy`; loading never runs code.

A run folder holds `config.json` (settings and spaces), `weights.safetensors` (what acting needs), and, to go on
training, `learner.safetensors`, `progress.json` and `memory/`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .agent import Agent, Spaces
from .config import RunConfig

FORMAT = 1
T = TypeVar("T")


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a crash or a full disk leaves the old file readable.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is unharmed.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(
            f"could not write {path} ({error.strerror}); free some space or choose another run folder"
        ) from error


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    beside = path.with_name(path.name + ".part")
    try:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, beside)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error}); free some space or choose another run folder") from error


def to_json(value: Any) -> Any:
    """Nested dataclasses as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_json(kind: type[T], value: Any, where: str = "config") -> T:
    """Rebuild nested dataclasses; unknown, missing and ill-typed settings are refused.

    Raises:
        ValueError: The JSON does not describe this dataclass.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}, expected an object with the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if value.keys() != names:
        wrong = ", ".join(sorted(value.keys() ^ names))
        raise ValueError(
            f"{where} does not have the fields of {kind.__name__} (differing: {wrong}); another version wrote it"
        )
    return kind(**{name: _convert(hints[name], value[name], f"{where}.{name}") for name in names})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value, where)
    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if origin is typing.Literal:
        fits = value in options
    elif origin in {typing.Union, types.UnionType}:
        fits = any(value is None if option is type(None) else isinstance(value, option) for option in options)
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not fits:
        raise ValueError(f"{where} is {value!r}, expected {hint}; correct the file or train again")
    return value


def describe_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """An action space as JSON."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist()}
    assert isinstance(space, spaces.Box)
    return {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist()}


def build_space(description: dict[str, Any]) -> spaces.Box | spaces.Discrete | spaces.MultiDiscrete:
    """Undo `describe_space`.

    Raises:
        ValueError: A kind of space that is not known.
    """
    kind = description.get("kind")
    if kind == "Discrete":
        return spaces.Discrete(int(description["n"]))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(description["nvec"], np.int64))
    if kind == "Box":
        return spaces.Box(np.array(description["low"], np.float32), np.array(description["high"], np.float32))
    raise ValueError(f"unknown action space {kind!r} in config.json; expected Discrete, MultiDiscrete or Box")


def save_agent(agent: Agent, folder: Path) -> None:
    """Write what acting needs: `weights.safetensors` and then `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": tensor
        for name, network in agent.networks().items()
        for key, tensor in network.state_dict().items()
    }
    save_tensors(folder / "weights.safetensors", tensors)
    seen = agent.spaces
    content = {
        "format": FORMAT,
        "config": to_json(agent.config),
        "spaces": {
            "shape": list(seen.shape),
            "pixels": seen.pixels,
            "goals": seen.goals,
            "action": describe_space(seen.action),
        },
    }
    write_atomically(folder / "config.json", json.dumps(content, indent=2).encode())


def load_agent(folder: Path, **changes: Any) -> Agent:
    """Read an agent back.

    Args:
        folder: Of the run.
        changes: Settings of `RunConfig` to replace (`device`, `threads`, `task` …).

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: The files are damaged or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no trained agent (no config.json); give the folder that `forethought train` printed"
        )
    try:
        content = json.loads(path.read_text())
        if content.get("format") != FORMAT:
            raise ValueError(f"{path} has format {content.get('format')!r}, this version reads {FORMAT}; train again")
        config = dataclasses.replace(from_json(RunConfig, content["config"]), **changes)
        seen = content["spaces"]
        found = Spaces(tuple(seen["shape"]), bool(seen["pixels"]), bool(seen["goals"]), build_space(seen["action"]))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error
    agent = Agent(config, found)
    tensors = read_tensors(folder / "weights.safetensors")
    for name, network in agent.networks().items():
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            network.load_state_dict(part)
        except RuntimeError as error:
            raise ValueError(f"{folder / 'weights.safetensors'} does not fit config.json: {error}") from error
    return agent


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the run was not saved completely")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def check_same_world(agent: Agent, seen: Spaces, id: str) -> None:
    """Refuse to act in a world of other observations or actions than the agent was trained for.

    Raises:
        ValueError: They differ.
    """
    mine = agent.spaces
    differences = []
    if (mine.shape, mine.pixels) != (seen.shape, seen.pixels):
        differences.append(f"observations {mine.shape}, and {id} gives {seen.shape}")
    if agent.config.task.goals and not seen.goals:
        differences.append(f"goals, and {id} shows none")
    if mine.action != seen.action:
        differences.append(f"actions {mine.action}, and {id} takes {seen.action}")
    if differences:
        raise ValueError(
            f"the agent was trained on {agent.config.env.id} for {'; for '.join(differences)}; "
            "evaluate it there or train one for this environment"
        )


def save_memory(folder: Path, data: dict[str, NDArray[Any]], cursor: int, filled: int) -> None:
    """Write the memory's arrays (only what is filled) as `.npy` files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in data.items():
        beside = folder / f"{name}.npy.part"
        try:
            with beside.open("wb") as file:
                np.save(file, array[:, :filled], allow_pickle=False)
            beside.replace(folder / f"{name}.npy")
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OSError(f"could not write {folder} ({error.strerror}); free some space") from error
    write_atomically(folder / "cursor.json", json.dumps({"cursor": cursor, "filled": filled}).encode())


def load_memory(folder: Path, data: dict[str, NDArray[Any]]) -> tuple[int, int]:
    """Read the memory's arrays back into ``data``; returns cursor and fill.

    Raises:
        ValueError: An array is missing, damaged or of another shape.
    """
    try:
        state = json.loads((folder / "cursor.json").read_text())
        cursor, filled = int(state["cursor"]), int(state["filled"])
        length = min(target.shape[1] for target in data.values())
        if not (0 <= filled <= length and 0 <= cursor < length):
            raise ValueError(f"cursor {cursor} and fill {filled} of {length} entries")
        for name, target in data.items():
            array = np.load(folder / f"{name}.npy", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name}.npy is an archive")
            if array.shape != target[:, :filled].shape or array.dtype != target.dtype:
                raise ValueError(f"{name} has shape {array.shape}, expected {target[:, :filled].shape}")
            target[:, :filled] = array
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the memory in {folder} cannot be read ({error}); start a new run") from error
    return cursor, filled


def optimiser_tensors(name: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The running averages of an Adam optimiser as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{name}.{index}.{key}": torch.as_tensor(value) for index, part in state.items() for key, value in part.items()
    }


def load_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        if full.startswith(f"{name}."):
            index, key = full.removeprefix(f"{name}.").split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
