"""The one loop between policies and environments; collecting, evaluating and filming all run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .agent import Array, Decision

Observation = Any  # an array [B, ...], or a dict of them in goal tasks
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


class Behaviour(Protocol):
    """Anything that decides for B environments: an agent in a mode, chance, an expert, an oracle."""

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide; see `Acting.act`."""
        ...


@dataclass(frozen=True)
class Step:
    """One step of B environments: what was seen, decided and what came of it."""

    observation: Observation
    decision: Decision
    action: Array
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[str, Any]
    facts: dict[str, Any]
    """The infos that came with the observation; `infos` came with the next one."""

    @property
    def seen(self) -> Array:
        """The observation without the goal ``[B, *shape]``."""
        return np.asarray(self.observation["observation"] if isinstance(self.observation, dict) else self.observation)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Where the episode ended in this step ``[B]``."""
        return self.terminated | self.truncated


def interact(
    env: VectorEnv,
    behaviour: Behaviour,
    active: NDArray[np.bool_] | None = None,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Reset the environments and act in them for ever.

    Args:
        env: A vector environment with same-step autoreset.
        behaviour: Who decides.
        active: Where decisions are wanted ``[B]``; the caller may change it between steps. Everywhere by default.
        seed: Of the reset.
        options: Of the reset.
    """
    observation, facts = env.reset(seed=seed, options=options)
    wanted = np.ones(env.num_envs, np.bool_) if active is None else active
    first = np.ones(env.num_envs, np.bool_)
    while True:
        decision = behaviour.act(observation, first, wanted)
        following, reward, terminated, truncated, infos = env.step(decision.action)
        step = Step(
            observation,
            decision,
            decision.action,
            np.asarray(reward, np.float32),
            np.asarray(terminated),
            np.asarray(truncated),
            infos,
            facts,
        )
        yield step
        observation, facts, first = following, infos, step.ended


class RandomBehaviour:
    """Uniform random actions, each held for ``sticky`` steps (or until the episode ends)."""

    def __init__(self, space: gymnasium.Space[Any], num_envs: int, seed: int, plan: int, sticky: int = 1) -> None:
        self.space, self.num_envs, self.sticky, self.plan = space, num_envs, sticky, plan
        self.generator = np.random.default_rng(seed)
        self.action = self._draw()
        self.age = np.zeros(num_envs, np.int64)

    def _draw(self) -> Array:
        space, shape = self.space, (self.num_envs,)
        if isinstance(space, gymnasium.spaces.Discrete):
            return self.generator.integers(space.n, size=shape)
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            return self.generator.integers(space.nvec, size=(*shape, len(space.nvec)))
        assert isinstance(space, gymnasium.spaces.Box)
        return self.generator.uniform(space.low, space.high, size=(*shape, *space.shape)).astype(np.float32)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Draw a new action where the last was held long enough."""
        renew = first | (self.age >= self.sticky)
        self.age = np.where(renew, 1, self.age + 1)
        mask = renew.reshape(-1, *[1] * (self.action.ndim - 1))
        self.action = np.where(mask, self._draw(), self.action)
        nothing = np.zeros(self.num_envs, np.bool_)
        return Decision(self.action, np.zeros((self.num_envs, self.plan), np.float32), None, nothing, 0)


class Exploring:
    """A behaviour whose actions are sometimes replaced by random ones."""

    def __init__(self, behaviour: Behaviour, random: RandomBehaviour, chance: float) -> None:
        self.behaviour, self.random, self.chance = behaviour, random, chance

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide as the behaviour does, then explore."""
        decision = self.behaviour.act(observation, first, active)
        noise = self.random.act(observation, first, active).action
        explore = self.random.generator.random(len(first)) < self.chance
        action = np.where(explore.reshape(-1, *[1] * (noise.ndim - 1)), noise, decision.action)
        return Decision(action, decision.plan, decision.course, decision.planned, decision.calls)
