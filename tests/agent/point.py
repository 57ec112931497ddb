"""A point mass in a square: a world of Box actions in which everything is known, and an agent that learns it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from forethought.agent.config import RunConfig
from forethought.modules.configurator import Thinking
from gymnasium import spaces
from numpy.typing import NDArray

from .small import settings

SIDE, STEPS = 1.5, 30


class Point(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Pushed by its action ``[2]``: arriving within 0.4 of the middle pays 1, getting lost beyond ±1.5 costs 1."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-4.0, 4.0, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.place, self.speed, self.steps = np.zeros(2), np.zeros(2), 0

    def _observe(self) -> NDArray[np.float32]:
        return np.concatenate([self.place, 3 * self.speed]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.speed, self.steps = self.np_random.uniform(-1, 1, 2), np.zeros(2), 0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.speed = 0.5 * self.speed + 0.15 * np.clip(action, -1, 1)
        self.place = self.place + self.speed
        self.steps += 1
        lost = bool((abs(self.place) > SIDE).any())
        arrived = bool(np.square(self.place).sum() < 0.16)
        over = arrived or lost
        return self._observe(), float(arrived) - lost, over, self.steps >= STEPS and not over, {}


if "ForethoughtPoint-v0" not in gymnasium.registry:
    gymnasium.register("ForethoughtPoint-v0", entry_point=Point)


def point_settings(seed: int = 0) -> RunConfig:
    """Settings that learn `Point` in a few seconds."""
    config = settings(seed, "ForethoughtPoint-v0", Thinking(horizon=4, candidates=24, iterations=2))
    return replace(
        config,
        task=replace(config.task, discount=0.8),
        model_loss=replace(config.model_loss, regulariser_weight=0.003, balance=0.3),
        schedule=replace(config.schedule, prefill=2_400, prefill_updates=400, sticky=2),
    )
