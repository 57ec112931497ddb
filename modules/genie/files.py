"""A world's folder: settings as JSON, weights as safetensors, prompts as `.npy`; reading it never runs code.

`world.json` holds the settings and where the world was learned from, `tokenizer.safetensors`,
`latent_action.safetensors`, `dynamics.safetensors` and `outcomes.safetensors` the weights of each part,
`prompts.npy` uint8 ``[P, F, H, W, 3]`` the clips that dreams begin with.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .world import Genie, GenieConfig

FORMAT = 1
PARTS = ("tokenizer", "latent_action", "dynamics", "outcomes")
"""What is learned, in this order; outcomes need labelled episodes and may be missing."""
T = TypeVar("T")


def save_settings(folder: Path, config: GenieConfig, about: dict[str, Any]) -> None:
    """Write `world.json`; ``about`` is any JSON that tells where the world comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "config": dataclasses.asdict(config), "about": about}
    _replace(folder / "world.json", json.dumps(content, indent=2).encode())


def save_part(folder: Path, name: str, part: nn.Module) -> None:
    """Write the weights of one part, atomically."""
    path = folder / f"{name}.safetensors"
    beside = path.with_name(path.name + ".part")
    try:
        save_file({key: value.detach().contiguous().cpu() for key, value in part.state_dict().items()}, beside)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error}); free some space or choose another folder") from error


def save_prompts(folder: Path, prompts: NDArray[np.uint8]) -> None:
    """Write the clips that dreams begin with, ``[P, F, H, W, 3]``."""
    beside = folder / "prompts.npy.part"
    with beside.open("wb") as file:
        np.save(file, prompts, allow_pickle=False)
    beside.replace(folder / "prompts.npy")


def load_settings(folder: Path) -> tuple[GenieConfig, dict[str, Any]]:
    """Settings of a world, and what it says about itself.

    Raises:
        FileNotFoundError: The folder holds no world.
        ValueError: `world.json` is damaged or of another version.
    """
    path = folder / "world.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no Genie world (no world.json); make one with forethought genie train")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"{path} has format {content['format']!r}, this version reads {FORMAT}; train again")
        return _build(GenieConfig, content["config"], "config"), dict(content["about"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def load_world(folder: Path, device: torch.device, need: tuple[str, ...] = PARTS[:3]) -> Genie:
    """Read a world back; parts that are not needed are read where they exist.

    Args:
        folder: Of the world.
        device: Where it goes.
        need: Parts that must be there.

    Raises:
        FileNotFoundError: No world, or a part that is needed is missing.
        ValueError: A file is damaged or does not fit the settings.
    """
    config, _ = load_settings(folder)
    with torch.random.fork_rng(devices=[]):
        world = Genie(config)
    for name in PARTS:
        path = folder / f"{name}.safetensors"
        if path.is_file():
            load_part(path, getattr(world, name))
        elif name in need:
            raise FileNotFoundError(
                f"{path} is missing: this world has no {name.replace('_', ' ')} yet; go on with its training "
                "(forethought genie train … --resume)"
            )
    return world.to(device).eval()


def load_part(path: Path, part: nn.Module) -> None:
    """Read weights into a part.

    Raises:
        ValueError: The file is damaged or holds other weights.
    """
    try:
        part.load_state_dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit world.json: {' '.join(str(error).split())}") from error


def has_outcomes(folder: Path) -> bool:
    """Whether the world has learned rewards and endings."""
    return (folder / "outcomes.safetensors").is_file()


def load_prompts(folder: Path, config: GenieConfig) -> NDArray[np.uint8]:
    """The clips that dreams begin with ``[P, F, H, W, 3]``.

    Raises:
        FileNotFoundError: There are none.
        ValueError: The file is damaged or does not fit the settings.
    """
    path = folder / "prompts.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give prompts, or train the world again")
    try:
        prompts = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error
    return check_prompts(prompts, config, str(path))


def check_prompts(prompts: NDArray[Any], config: GenieConfig, where: str) -> NDArray[np.uint8]:
    """Refuse what dreams of this world cannot begin with.

    Raises:
        ValueError: Another shape, type or length.
    """
    size = (config.height, config.width, 3)
    if prompts.ndim != 5 or prompts.shape[2:] != size or prompts.dtype != np.uint8 or 0 in prompts.shape:
        raise ValueError(
            f"{where}: prompts have shape {prompts.shape} and type {prompts.dtype}; expected uint8 clips "
            f"[P, F, {config.height}, {config.width}, 3]"
        )
    if prompts.shape[1] > config.context:
        raise ValueError(
            f"{where}: {prompts.shape[1]} frames in a prompt; this world sees {config.context}, give fewer"
        )
    return prompts


def _build(kind: type[T], value: Any, where: str) -> T:
    """Nested dataclasses from JSON; unknown, missing and ill-typed settings are refused."""
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        given = sorted(value) if isinstance(value, dict) else value
        raise ValueError(f"world.json: {where} has {given}, expected {sorted(hints)}; another version wrote it")
    return kind(**{name: _convert(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where)
    if typing.get_origin(hint) is tuple:
        fits = isinstance(value, list) and all(type(item) is int for item in value)
        value = tuple(value) if fits else value
    elif typing.get_origin(hint) is typing.Literal:
        fits = value in typing.get_args(hint)
    else:
        fits = type(value) in ((int, float) if hint is float else (hint,))
    if not fits:
        raise ValueError(f"world.json: {where} is {value!r}, expected {hint}; correct the file or train again")
    return value


def _replace(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a crash leaves the old file readable."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error.strerror}); free some space or choose another folder") from error
