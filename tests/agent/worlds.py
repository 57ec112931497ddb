"""A tiny analytic world for tests: a point on a line that moves left, stays or moves right."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Line(gymnasium.Env[NDArray[np.float32], int]):
    """Position in [−1, 1]; reward is the position after the move; ends by time after 20 steps, falls off at −1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.position, self.steps = 0.0, 0

    def _observe(self) -> NDArray[np.float32]:
        return np.array([self.position, np.sin(3 * self.position)], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.position = min(1.0, self.position + 0.15 * (int(action) - 1))
        self.steps += 1
        fell = self.position <= -1
        return self._observe(), self.position, fell, self.steps >= 20 and not fell, {}


gymnasium.register("ForethoughtLine-v0", entry_point=Line)
