"""The one loop between policies and environments; collecting, evaluating and filming all run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .agent import Array, Decision, fitting
from .checkpoint import part, prefixed
from .storage import generator_from, generator_tensor

Observation = Any  # an array [B, ...], or a dict of them in goal tasks
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


class Behaviour(Protocol):
    """Anything that decides for B environments: an agent in a mode, chance, an expert, an oracle."""

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide; see `Acting.act`."""
        ...


class Drawing(Behaviour, Protocol):
    """A behaviour that draws what it does."""

    generator: np.random.Generator


class ResumableBehaviour(Behaviour, Protocol):
    """A behaviour that can be left and gone on with."""

    def state(self) -> dict[str, Tensor]:
        """What it goes on from."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
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
    following: Observation = None
    """The next observation; where the episode ended, the first of the next one."""

    @property
    def seen(self) -> Array:
        """The observation without the goal ``[B, *shape]``."""
        return np.asarray(self.observation["observation"] if isinstance(self.observation, dict) else self.observation)

    @property
    def sensors(self) -> NDArray[np.float32] | None:
        """What the world's sensors measured on the outcome of this step ``[B, n]``; None where it has none."""
        measured = self.infos.get("interoception")
        return None if measured is None else np.asarray(measured, np.float32)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Where the episode ended in this step ``[B]``."""
        return self.terminated | self.truncated


class Courses:
    """Plans of discrete actions under way in B environments; some steps of each are carried out before the next.

    Args:
        num_envs: B.
        commit: Steps of a plan that are carried out.
    """

    def __init__(self, num_envs: int, commit: int) -> None:
        self.actions = np.zeros((num_envs, commit), np.int64)
        self.age = np.full(num_envs, commit)

    def due(self, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Which active environments need a new plan; those whose episode begins (``first``) do."""
        commit = self.actions.shape[1]
        self.age[first] = commit
        return np.flatnonzero(active & (self.age >= commit))

    def follow(self, index: NDArray[np.int64] | int, actions: NDArray[np.int64]) -> None:
        """Begin plans ``[..., T]``, of at least ``commit`` steps, in the environments in ``index``."""
        self.actions[index] = actions[..., : self.actions.shape[1]]
        self.age[index] = 0

    def advance(self, active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The present actions ``[B]``; those of active environments are carried out."""
        step = np.minimum(self.age, self.actions.shape[1] - 1)
        self.age[active] += 1
        present: NDArray[np.int64] = self.actions[np.arange(len(step)), step]
        return present


def interact(
    env: VectorEnv,
    behaviour: Behaviour,
    active: NDArray[np.bool_] | None = None,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    start: tuple[Observation, NDArray[np.bool_]] | None = None,
) -> Iterator[Step]:
    """Reset the environments and act in them for ever.

    Args:
        env: A vector environment with same-step autoreset. If it has the attribute ``sensors``, names of `SENSORS`, its
            infos hold ``interoception [B, n]``: what they measured on the outcome of the step just taken, which is the
            last state of the episode where one ended.
        behaviour: Who decides.
        active: Where decisions are wanted ``[B]``; the caller may change it between steps. Everywhere by default.
        seed: Of the reset.
        options: Of the reset.
        start: Go on without a reset from this observation, and where an episode begins with it ``[B]``.

    Raises:
        FloatingPointError: An observation or a reward is not finite.
    """
    facts: dict[str, Any] = {}
    if start is None:
        observation, facts = env.reset(seed=seed, options=options)
        first = np.ones(env.num_envs, np.bool_)
        check_finite("observation", observation)
    else:
        observation, first = start
    wanted = np.ones(env.num_envs, np.bool_) if active is None else active
    while True:
        decision = behaviour.act(observation, first, wanted)
        following, reward, terminated, truncated, infos = env.step(decision.action)
        check_finite("observation", following)
        check_finite("reward", reward)
        if "interoception" in infos:
            check_finite("interoception", infos["interoception"])
        step = Step(
            observation,
            decision,
            decision.action,
            np.asarray(reward, np.float32),
            np.asarray(terminated),
            np.asarray(truncated),
            infos,
            facts,
            following,
        )
        yield step
        observation, facts, first = following, infos, step.ended


def check_finite(what: str, value: Observation) -> None:
    """Refuse NaN and infinity before anything is made of them.

    Raises:
        FloatingPointError: Names the environment.
    """
    for array in value.values() if isinstance(value, dict) else (value,):
        numbers = np.asarray(array)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            place = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(numbers)))
            raise FloatingPointError(
                f"{what} of environment {place[0]} is {numbers[place]}, expected finite numbers; fix the environment"
            )


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

    def state(self) -> dict[str, Tensor]:
        """The generator and the actions that are held."""
        held = {"action": torch.from_numpy(self.action.copy()), "age": torch.from_numpy(self.age.copy())}
        return held | {"generator": generator_tensor(self.generator)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.action = fitting(state["action"], torch.from_numpy(self.action)).numpy()
        self.age = fitting(state["age"], torch.from_numpy(self.age)).numpy()
        self.generator = generator_from(state["generator"])

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Draw a new action where the last was held long enough."""
        renew = first | (self.age >= self.sticky)
        self.age = np.where(renew, 1, self.age + 1)
        mask = renew.reshape(-1, *[1] * (self.action.ndim - 1))
        self.action = np.where(mask, self._draw(), self.action)
        nothing = np.zeros(self.num_envs, np.bool_)
        return Decision(self.action, np.zeros((self.num_envs, self.plan), np.float32), None, nothing, 0)


class Straying:
    """A behaviour whose actions are sometimes replaced by random ones."""

    def __init__(self, behaviour: Behaviour, random: Drawing, chance: float) -> None:
        self.behaviour, self.random, self.chance = behaviour, random, chance

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide as the behaviour does, then explore."""
        decision = self.behaviour.act(observation, first, active)
        noise = self.random.act(observation, first, active).action
        explore = self.random.generator.random(len(first)) < self.chance
        action = np.where(explore.reshape(-1, *[1] * (noise.ndim - 1)), noise, decision.action)
        return Decision(action, decision.plan, decision.course, decision.planned, decision.calls)


class Exploring(Straying):
    """The same, and it can be left and gone on with."""

    behaviour: ResumableBehaviour
    random: RandomBehaviour

    def __init__(self, behaviour: ResumableBehaviour, random: RandomBehaviour, chance: float) -> None:
        super().__init__(behaviour, random, chance)

    def state(self) -> dict[str, Tensor]:
        """That of the behaviour and of the random one."""
        return prefixed("behaviour", self.behaviour.state()) | prefixed("random", self.random.state())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.behaviour.restore(part(state, "behaviour"))
        self.random.restore(part(state, "random"))


class Divided:
    """Two behaviours, each for its own environments, which can be left and gone on with.

    Args:
        first: Decides where ``mask`` is not set.
        second: Decides where it is.
        mask: ``[B]``.
    """

    def __init__(self, first: ResumableBehaviour, second: ResumableBehaviour, mask: NDArray[np.bool_]) -> None:
        self.first, self.second, self.mask = first, second, mask

    def state(self) -> dict[str, Tensor]:
        """That of both."""
        return prefixed("first", self.first.state()) | prefixed("second", self.second.state())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.first.restore(part(state, "first"))
        self.second.restore(part(state, "second"))

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Ask each where it decides."""
        one = self.first.act(observation, first, active & ~self.mask)
        other = self.second.act(observation, first, active & self.mask)

        def merged(a: Array, b: Array) -> Array:
            return np.where(self.mask.reshape(-1, *[1] * (a.ndim - 1)), b, a)

        course = None if one.course is None or other.course is None else merged(one.course, other.course)
        planned = np.where(self.mask, other.planned, one.planned)
        calls = one.calls + other.calls
        return Decision(merged(one.action, other.action), merged(one.plan, other.plan), course, planned, calls)
