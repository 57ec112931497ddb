"""Controls that are wired anew in each episode: tasks that contradict each other, and a context that tells which."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs


class Wired(gymnasium.Wrapper[dict[str, Any], Any, Any, Any], RecordConstructorArgs):
    """An environment whose controls mean something else in each episode, drawn from K wirings.

    In wiring k action a of a Discrete space does what a + k (modulo n) does in the world itself; a Box has two, the
    second with every action mirrored at its middle. Observations become Dicts: `observation`, the world's own, and
    `context`, float32 [K], the wiring as one-hot, or zeros where nobody is to be told.

    Args:
        env: With Discrete actions, or a Box.
        wirings: K, at least 2; at most n actions or 2.
        told: Whether the context tells.

    Raises:
        ValueError: Other actions, or a number of wirings that there are not.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], wirings: int, told: bool = True) -> None:
        RecordConstructorArgs.__init__(self, wirings=wirings, told=told)
        gymnasium.Wrapper.__init__(self, env)
        space = env.action_space
        if not isinstance(space, spaces.Discrete | spaces.Box):
            raise ValueError(f"action space {space} cannot be wired anew; expected Discrete or Box")
        most = int(space.n) if isinstance(space, spaces.Discrete) else 2
        if not 2 <= wirings <= most:
            raise ValueError(f"wirings is {wirings}, expected 2 to {most} with actions {space}")
        self.wirings, self.told, self.wiring = wirings, told, 0
        context = spaces.Box(0.0, 1.0, (wirings,), np.float32)
        self.observation_space = spaces.Dict({"observation": env.observation_space, "context": context})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode with another wiring; `options["wiring"]` asks for one.

        Raises:
            ValueError: There is no such wiring.
        """
        options = dict(options or {})
        asked = options.pop("wiring", None)
        if asked is not None and asked not in range(self.wirings):
            raise ValueError(f"options['wiring'] is {asked}, expected 0 to {self.wirings - 1}")
        observation, info = self.env.reset(seed=seed, options=options)
        drawn = int(self.env.unwrapped.np_random.integers(self.wirings))
        self.wiring = drawn if asked is None else int(asked)
        return self._told(observation), info | {"wiring": self.wiring}

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Do what the action means in this episode."""
        space = self.env.action_space
        if isinstance(space, spaces.Discrete):
            meant: Any = space.start + (action - space.start + self.wiring) % space.n
        else:
            assert isinstance(space, spaces.Box)
            meant = (space.low + space.high - action).astype(space.dtype) if self.wiring else action
        observation, reward, terminated, truncated, info = self.env.step(meant)
        return self._told(observation), reward, terminated, truncated, info | {"wiring": self.wiring}

    def _told(self, observation: Any) -> dict[str, Any]:
        context = np.zeros(self.wirings, np.float32)
        context[self.wiring] = float(self.told)
        return {"observation": observation, "context": context}
