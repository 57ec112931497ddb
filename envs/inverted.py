"""Controls that turn round in the middle of a run, for agents that are to notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper


class Inverted(VectorWrapper[Any, Any, Any, Any, Any]):
    """A vector environment whose controls are inverted from some step on: the last choice for the first, −a for a.

    Args:
        env: With Discrete, MultiDiscrete or Box actions.
        after: Steps of all environments with controls as they were; 0 inverts them at once.

    Raises:
        ValueError: Other actions, or a negative number of steps.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], after: int) -> None:
        super().__init__(env)
        space = env.single_action_space
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
            raise ValueError(f"action space {space} cannot be inverted; expected Discrete, MultiDiscrete or Box")
        if after < 0:
            raise ValueError(f"after is {after}, expected a number of steps from 0")
        self.after, self.taken = after, 0

    @property
    def inverted(self) -> bool:
        """Whether the controls are inverted in the next step."""
        return self.taken >= self.after

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take actions ``[B, ...]``, or their opposites."""
        given = self.opposite(np.asarray(actions)) if self.inverted else actions
        self.taken += 1
        return self.env.step(given)

    def opposite(self, actions: Any) -> Any:
        """The opposites of actions ``[B, ...]``: mirrored at the middle of the space."""
        space = self.env.single_action_space
        if isinstance(space, spaces.Discrete):
            return 2 * space.start + space.n - 1 - actions
        if isinstance(space, spaces.MultiDiscrete):
            return 2 * space.start + space.nvec - 1 - actions
        assert isinstance(space, spaces.Box)
        return (space.low + space.high - actions).astype(actions.dtype)
