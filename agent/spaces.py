"""What an agent can be put into: the spaces of an environment, as agents understand them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from ..modules.actions import ActionSpace
from ..modules.types import SENSORS


@dataclass(frozen=True)
class Spaces:
    """What an environment shows, takes and measures: an observation's shape, whether it is pixels, goals, the actions;
    its sensors; how many numbers at a vector's end, or planes at a picture's, are the context."""

    shape: tuple[int, ...]
    pixels: bool
    goals: bool
    action: ActionSpace
    sensors: tuple[str, ...] = ()
    context: int = 0


def read_spaces(
    observation: spaces.Space[object],
    action: spaces.Space[object],
    sensors: tuple[str, ...] = (),
    context: int = 0,
) -> Spaces:
    """Understand the single spaces, the sensors and the context of a vector environment made by `make_env`.

    Raises:
        ValueError: A space, a sensor or a context that agents do not support.
    """
    if set(sensors) - set(SENSORS) or len(set(sensors)) < len(sensors):
        raise ValueError(f"the environment has the sensors {sensors}, expected different ones of {SENSORS}")
    goals = isinstance(observation, spaces.Dict)
    if isinstance(observation, spaces.Dict):
        if set(observation.spaces) != {"observation", "desired_goal"}:
            raise ValueError(
                f"Dict observation with entries {sorted(observation.spaces)}; expected observation and desired_goal, "
                "or select one entry with observation_key"
            )
        observation = observation["observation"]
    if not isinstance(observation, spaces.Box) or observation.shape is None:
        raise ValueError(
            f"observation space {observation} is not supported; expected a Box (make_env turns others into one)"
        )
    if not isinstance(action, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise ValueError(f"action space {action} is not supported; use Discrete, MultiDiscrete or Box")
    pixels = observation.dtype == np.uint8 and len(observation.shape) == 3
    if context and (goals or not 0 < context < observation.shape[-1]):
        raise ValueError(
            f"the environment says that {context} numbers of its observation are a context; it has the shape "
            f"{observation.shape}{' and goals' if goals else ''}, expected a longer vector or a picture of more "
            "planes, and no goals"
        )
    return Spaces(observation.shape, pixels, goals, action, tuple(sensors), context)
