"""Look: a world for whoever foresees that a look may tell, small enough to be learned in seconds.

A prize is behind one of two doors, an equal loss behind the other, and nothing is known of which. To look costs a
little, and tells; to open a door ends the episode. That is the tiger problem (Cassandra, Kaelbling and Littman 1994)
with a listener who never mishears. Opening at once is worth 0 on average, looking first 1 − price. A model that
foresees one outcome of the look foresees the mean of both, which looks like not having looked, so it sees no use in it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Observation = NDArray[np.float32]
LOOK, LEFT, RIGHT = range(3)


class LookEnv(gymnasium.Env[Observation, np.int64]):
    """Two doors, and a look.

    The observation is one number: −1 or 1 for the prize being left or right, once it was looked, and 0 before. Actions:
    0 look, 1 open the left door, 2 the right one. Rewards: −price, and 1 or −1. Success: the prize.

    Args:
        price: Of a look, from 0 up to 1.
        patience: Steps after which an episode without an opened door is truncated.
        render_mode: None; there is nothing to be drawn.

    Raises:
        ValueError: A price that no look can be worth, or no step at all.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (as Gymnasium declares it)

    def __init__(self, price: float = 0.2, patience: int = 4, render_mode: str | None = None) -> None:
        if not 0 <= price < 1 or patience < 1:
            raise ValueError(f"price is {price} and patience {patience}; expected 0 up to 1, and at least 1 step")
        self.price, self.patience, self.render_mode = price, patience, render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.prize, self.looked, self.steps = LEFT, False, 0

    def _observe(self) -> Observation:
        side = -1.0 if self.prize == LEFT else 1.0
        return np.array([side if self.looked else 0.0], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Hide the prize."""
        super().reset(seed=seed)
        self.prize, self.looked, self.steps = int(self.np_random.integers(LEFT, RIGHT + 1)), False, 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Look, or open a door."""
        self.steps += 1
        if int(action) != LOOK:
            right = int(action) == self.prize
            return self._observe(), 1.0 if right else -1.0, True, False, {"is_success": right}
        self.looked = True
        return self._observe(), -self.price, False, self.steps >= self.patience, {"is_success": False}
