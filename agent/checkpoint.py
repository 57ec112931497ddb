"""Agents on disk: weights as safetensors, settings as JSON; loading never runs code.

A run folder holds `config.json` (settings and spaces) and `weights.safetensors`: what acting needs. What going on with
the training needs lies in its `checkpoints/`; see `agent.resume`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..modules.actions import ActionEncoder
from ..modules.types import SENSORS
from .agent import Agent, build_networks
from .config import RunConfig
from .spaces import Spaces
from .storage import Shapes, from_json, in_a_line, read_json, read_tensors, tensor_bytes, to_json, write_atomically

FORMAT = 1
_LARGEST = 2**28  # numbers of an observation
_NETWORKS = ("perception", "world_model", "critic", "actor")
_MOST_PARTS = 1_000  # members or layers: networks are built one after the other
T = TypeVar("T")


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""What turns the content of a `config.json` of some format into that of the next one."""


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


def agent_files(agent: Agent) -> dict[str, bytes]:
    """What acting needs, as the contents of `weights.safetensors` and `config.json`."""
    tensors = {
        f"{name}.{key}": tensor
        for name, network in agent.networks().items()
        for key, tensor in network.state_dict().items()
    }
    seen = agent.spaces
    content = {
        "format": FORMAT,
        "config": to_json(agent.config),
        "spaces": {
            "shape": list(seen.shape),
            "pixels": seen.pixels,
            "goals": seen.goals,
            "action": describe_space(seen.action),
            "sensors": list(seen.sensors),
            "context": seen.context,
        },
    }
    return {"weights.safetensors": tensor_bytes(tensors), "config.json": json.dumps(content, indent=2).encode()}


def save_agent(agent: Agent, folder: Path) -> None:
    """Write what acting needs: `weights.safetensors` and then `config.json`.

    Raises:
        OSError: The disk is full or the folder cannot be written; what was there is unharmed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in agent_files(agent).items():
        write_atomically(folder / name, content)


def upgraded(content: Any, path: Path, wanted: int, migrations: dict[int, Callable[[dict[str, Any]], Any]]) -> Any:
    """Bring the content of a file from its format to the wanted one, one migration after the other.

    Raises:
        ValueError: A format without a way from there.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no object); restore it or train again")
    given = content.get("format")
    version = given if isinstance(given, int) and not isinstance(given, bool) else None
    while version in migrations and version != wanted:
        content = migrations[version](content)
        version += 1
    if version != wanted:
        raise ValueError(f"{path} has format {given!r}, this version reads {wanted}; train again")
    return content


def read_settings(folder: Path) -> tuple[RunConfig, Spaces]:
    """Settings and spaces of an agent on disk.

    Raises:
        FileNotFoundError: The folder holds no agent.
        ValueError: The file is damaged or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no trained agent (no config.json); give the folder that `forethought train` printed"
        )
    content = upgraded(read_json(path), path, FORMAT, MIGRATIONS)
    try:
        return from_json(RunConfig, content["config"]), saved_spaces(content["spaces"])
    except (KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it or train again") from error


def saved_spaces(told: dict[str, Any]) -> Spaces:
    """What an agent sees and does, from a file.

    Raises:
        ValueError: A shape that is none, an unknown space or an unknown sensor.
    """
    shape = told["shape"]
    if not all(isinstance(side, int) and side > 0 for side in shape) or math.prod(shape) > _LARGEST:
        raise ValueError(
            f"config.json has the observation shape {reprlib.repr(shape)}, expected positive whole numbers"
        )
    sensors = tuple(told.get("sensors", ()))  # files of earlier versions name none
    if set(sensors) - set(SENSORS) or len(set(sensors)) < len(sensors):
        raise ValueError(f"config.json has the sensors {reprlib.repr(sensors)}, expected different ones of {SENSORS}")
    context = told.get("context", 0)
    if not isinstance(context, int) or isinstance(context, bool) or context < 0:
        raise ValueError(f"config.json has the context {reprlib.repr(context)}, expected how many numbers it has")
    action = build_space(told["action"])
    return Spaces(tuple(shape), bool(told["pixels"]), bool(told.get("goals")), action, sensors, context)


def weight_shapes(config: RunConfig, seen: Spaces) -> Shapes:
    """Names and shapes of an agent's weights, without making them.

    Raises:
        ValueError: Settings that do not fit the spaces, or that nobody can mean.
    """
    if max(config.world_model.members, config.world_model.layers, config.world_model.codes) > _MOST_PARTS:
        raise ValueError(
            f"world_model has {config.world_model.members} members and {config.world_model.layers} layers, expected at "
            f"most {_MOST_PARTS}; correct config.json or train again"
        )
    actions = ActionEncoder(seen.action)
    try:
        with torch.device("meta"):
            networks = build_networks(config, seen, actions)
    except (RuntimeError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"config.json describes networks that cannot be built ({in_a_line(error)}); train again"
        ) from error
    return {
        f"{name}.{key}": tuple(tensor.shape)
        for name, network in zip(_NETWORKS, networks, strict=True)
        for key, tensor in network.state_dict().items()
    }


def load_agent(folder: Path, **changes: Any) -> Agent:
    """Read an agent back.

    Args:
        folder: Of the run, or of one of its checkpoints.
        changes: Settings of `RunConfig` to replace (`device`, `threads`, `task` …).

    Raises:
        FileNotFoundError: The folder holds no agent.
        ValueError: The files are damaged or of another version.
    """
    config, seen = read_settings(folder)
    config = dataclasses.replace(config, **changes)
    path = folder / "weights.safetensors"
    tensors = read_tensors(path, weight_shapes(config, seen))
    agent = Agent(config, seen)
    for name, network in agent.networks().items():
        network.load_state_dict(part(tensors, name))
    return agent


def adopt(agent: Agent, folder: Path) -> int:
    """Give an agent the networks of a trained one, to go on learning with.

    Args:
        agent: As its settings begin it.
        folder: Of the trained agent's run.

    Returns:
        Decisions that these networks were trained with; 0 where the folder does not say.

    Raises:
        FileNotFoundError: The folder holds no agent.
        ValueError: An agent of another world or with other networks, or damaged files.
    """
    config, seen = read_settings(folder)
    world = dataclasses.replace(config.env, num_envs=agent.config.env.num_envs)
    same = {"env": (world, agent.config.env)}
    same |= {name: (getattr(config, name), getattr(agent.config, name)) for name in _NETWORKS}
    for name, (given, wanted) in same.items():
        if given != wanted:
            was, now = (
                {key: value for key, value in vars(one).items() if value != vars(other)[key]}
                for one, other in ((given, wanted), (wanted, given))
            )
            raise ValueError(f"{folder} was trained with {name} {was} and not {now}; go on from it with the same")
    if seen != agent.spaces:
        raise ValueError(f"{folder} was trained in a world of {seen} and this one has {agent.spaces}; name the same")
    tensors = read_tensors(folder / "weights.safetensors", weight_shapes(agent.config, agent.spaces))
    for name, network in agent.networks().items():
        network.load_state_dict(part(tensors, name))
    return decisions_of(folder)


def decisions_of(folder: Path) -> int:
    """Decisions that a run's agent was trained with; 0 where the folder does not say."""
    try:
        return int(read_json(folder / "progress.json")["decisions"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def part(tensors: Mapping[str, T], name: str) -> dict[str, T]:
    """The entries called ``name.…``, under the rest of their names."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def prefixed(name: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """Undo `part`."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def check_same_world(agent: Agent, seen: Spaces, id: str) -> None:
    """Refuse to act in a world of other observations or actions than the agent was trained for.

    Raises:
        ValueError: They differ.
    """
    mine = agent.spaces
    differences = []
    if mine.context != seen.context:
        differences.append(f"a context of {mine.context} numbers, and {id} tells {seen.context}")
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


def optimiser_tensors(name: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The running averages of an Adam optimiser as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{name}.{index}.{key}": torch.as_tensor(value).clone()
        for index, averages in state.items()
        for key, value in averages.items()
    }


def load_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimiser_tensors`.

    Raises:
        ValueError: The averages do not fit the parameters.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in part(tensors, name).items():
        index, key = full.split(".")
        shape = torch.Size([]) if key == "step" else parameters[int(index)].shape
        if tensor.shape != shape:
            raise ValueError(f"{name}.{full} is {list(tensor.shape)}, expected {list(shape)}")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
