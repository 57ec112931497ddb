"""Environments: Procgen, any Gymnasium id, the rooms, and learned simulators.

All of them are `gymnasium.vector.VectorEnv`s that reset an ended environment within the same step, and keep reward,
termination, truncation and success apart. `make_env` builds one by name:

    >>> env = make_env("CartPole-v1", num_envs=2, seed=0)
    >>> env.reset()[0].shape
    (2, 4)

Simulators are imported on first use, so importing this package needs none of them.
"""

from .action_repeat import ActionRepeat
from .gym import GymVectorEnv
from .levels import Levels, LevelSplit
from .make import has_levels, list_envs, make_env, register
from .procgen import ProcgenVectorEnv
from .procgen_state import ProcgenState
from .single import SingleEnv

__all__ = [
    "ActionRepeat",
    "GymVectorEnv",
    "LevelSplit",
    "Levels",
    "ProcgenState",
    "ProcgenVectorEnv",
    "SingleEnv",
    "has_levels",
    "list_envs",
    "make_env",
    "register",
]
