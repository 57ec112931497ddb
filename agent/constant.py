"""The best constant action: a floor for worlds in which holding one button already does well."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .agent import Decision
from .config import EnvConfig
from .evaluation import Progress, evaluate
from .interaction import Observation
from .worlds import build_env

_EACH = 32
"""Episodes of each action."""


class ConstantBehaviour:
    """The same action for ever.

    Args:
        action: Which.
        num_envs: In so many environments.
    """

    def __init__(self, action: int, num_envs: int) -> None:
        self.action = np.full(num_envs, action)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """What it always does."""
        nothing = np.zeros(len(first), np.bool_)
        return Decision(self.action.copy(), np.zeros((len(first), 1), np.float32), None, nothing, 0)


def check_constant(space: gymnasium.Space[Any], id: str) -> int:
    """How many actions there are to try.

    Raises:
        ValueError: Actions that are not one of a few.
    """
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ValueError(f"constant tries every action and {id} has {space}, not Discrete actions; leave it out")
    return int(space.n)


def best_constant(world: EnvConfig, seed: int, each: int = _EACH, progress: Progress | None = None) -> int:
    """The action that does best when it is held for whole episodes; the lowest of those that do equally well.

    Args:
        world: Where; on its training levels, which the row that it makes does not play.
        seed: Of the levels, and where there are none of the starts.
        each: Episodes of each action.
        progress: Told of actions that were tried.

    Raises:
        ValueError: Actions that are not one of a few.
    """
    returns: list[float] = []
    actions = 1
    while len(returns) < actions:
        env = build_env(world, each, seed=seed, held_out=False)
        try:
            actions = check_constant(env.single_action_space, world.id)
            held = ConstantBehaviour(len(returns), each)
            returns.append(float(evaluate("constant", env, held, seed=seed).returns.mean()))
        finally:
            env.close()
        if progress is not None:
            progress(len(returns), actions)
    return int(np.argmax(returns))
