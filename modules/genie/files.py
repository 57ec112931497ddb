"""A world's folder: settings as JSON, weights as safetensors, prompts as `.npy`; reading it never runs code.

`world.json` holds the settings and where the world was learned from, `tokenizer.safetensors`,
`latent_action.safetensors`, `dynamics.safetensors` and `outcomes.safetensors` the weights of each part,
`prompts.npy` uint8 ``[P, F, H, W, 3]`` the clips that dreams begin with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..storage import (
    array_bytes,
    from_json,
    in_a_line,
    read_array,
    read_json,
    read_tensors,
    save_tensors,
    to_json,
    write_atomically,
)  # fmt: skip
from .world import Genie, GenieConfig

FORMAT = 2
"""1 had no `tokenizer.changed`, `latent_action.pooling` and `outcomes`: all pixels and all patches counted alike."""
PARTS = ("tokenizer", "latent_action", "dynamics", "outcomes")
"""What is learned, in this order; outcomes need labelled episodes and may be missing."""
_LARGEST, _MOST = 65_536, 1_000  # any whole number in the settings; blocks and levels, which are made one by one


def save_settings(folder: Path, config: GenieConfig, about: dict[str, Any]) -> None:
    """Write `world.json`; ``about`` is any JSON that tells where the world comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "config": to_json(config), "about": about}
    write_atomically(folder / "world.json", json.dumps(content, indent=2).encode())


def save_part(folder: Path, name: str, part: nn.Module) -> None:
    """Write the weights of one part, atomically."""
    save_tensors(folder / f"{name}.safetensors", part.state_dict())


def save_prompts(folder: Path, prompts: NDArray[np.uint8]) -> None:
    """Write the clips that dreams begin with, ``[P, F, H, W, 3]``, atomically."""
    write_atomically(folder / "prompts.npy", array_bytes(prompts))


def load_settings(folder: Path) -> tuple[GenieConfig, dict[str, Any]]:
    """Settings of a world, and what it says about itself.

    Raises:
        FileNotFoundError: The folder holds no world.
        ValueError: `world.json` is damaged or of another version.
    """
    path = folder / "world.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no Genie world (no world.json); make one with forethought genie train")
    content = read_json(path)
    try:
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"{path} has format {content['format']!r}, this version reads 1 and {FORMAT}; train again")
        given = as_before(content["config"]) if content["format"] == 1 else content["config"]
        config, about = from_json(GenieConfig, given, f"{path}: config"), content["about"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} is damaged (about is {about!r}); restore it or train again")
    _check_sizes(config, path)
    return config, about


def as_before(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of format 1, in which the newer ones are missing, as those of this version."""
    new: dict[str, dict[str, Any]] = {"tokenizer": {"changed": 0.0}, "latent_action": {"pooling": "all"}}
    changed = {name: {**settings.get(name, {}), **values} for name, values in new.items()}
    return {**settings, **changed, "outcomes": {"layers": 0}}


def _check_sizes(config: GenieConfig, path: Path) -> None:
    """Refuse numbers that nobody can mean, before networks of these sizes are made."""
    parts = (config, config.tokenizer, config.latent_action, config.dynamics, config.outcomes)
    numbers = [(name, value) for part in parts for name, value in vars(part).items() if isinstance(value, int)]
    for name, value in [*numbers, *(("levels", level) for level in config.tokenizer.levels)]:
        if not 0 <= value <= (_MOST if "blocks" in name else _LARGEST):
            raise ValueError(f"{path} has {name} {value}; correct the file or train again")
    if len(config.tokenizer.levels) > _MOST:
        raise ValueError(f"{path} has {len(config.tokenizer.levels)} levels; correct the file or train again")


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
    found = [name for name in PARTS if (folder / f"{name}.safetensors").is_file()]
    if missing := [name for name in need if name not in found]:
        raise FileNotFoundError(
            f"{folder / missing[0]}.safetensors is missing: this world has no {missing[0].replace('_', ' ')} yet; go "
            "on with its training (forethought genie train … --resume)"
        )
    try:
        with torch.device("meta"):
            empty = Genie(config)
    except (RuntimeError, TypeError, ArithmeticError, IndexError) as error:
        raise ValueError(f"{folder / 'world.json'} describes no world ({in_a_line(error)}); train again") from error
    tensors = {name: _read_part(folder / f"{name}.safetensors", getattr(empty, name)) for name in found}
    with torch.random.fork_rng(devices=[]):
        world = Genie(config)
    for name, weights in tensors.items():
        getattr(world, name).load_state_dict(weights)
    return world.to(device).eval()


def load_part(path: Path, part: nn.Module) -> None:
    """Read weights into a part.

    Raises:
        FileNotFoundError: There are none.
        ValueError: The file is damaged or holds other weights.
    """
    part.load_state_dict(_read_part(path, part))


def _read_part(path: Path, part: nn.Module) -> dict[str, torch.Tensor]:
    return read_tensors(path, {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()})


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
    prompts = np.array(read_array(path, np.uint8, 5))
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
