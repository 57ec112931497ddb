"""Recordings: play where training has not been, with what the world says about itself beside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.memory import MemoryShape, ShortTermMemory, Window
from .agent import Agent, plan_width
from .evaluation import Progress
from .interaction import Behaviour, Step, VectorEnv, interact

_FACTS = {"position": ("x", "y"), "wall": ("wall",), "door": ("door",)}
"""Ground truth in the infos of room worlds, and the names of its numbers."""


def memory_for(agent: Agent, streams: int, capacity: int, goals: bool = False) -> ShortTermMemory:
    """An empty memory that fits the agent's world, with or without the goals that episodes are given."""
    spaces = agent.spaces
    shape = MemoryShape(
        observation=spaces.shape,
        pixels=spaces.pixels,
        action=spaces.action.shape or (),
        discrete=agent.modules.world_model.actions.discrete,
        plan=plan_width(spaces),
        horizon=agent.config.task.thinking.horizon,
        goals=goals,
        sensors=len(agent.modules.world_model.sensors),
    )
    config = agent.config
    return ShortTermMemory(shape, streams, capacity, config.perception.history, config.schedule.memory_gib)


@dataclass(frozen=True)
class Recording:
    """What was seen and done, and what was true.

    Attributes:
        memory: Transitions of E environments.
        names: Of the K facts about each observation; none where the world shows only pixels and says nothing.
        facts: ``[E, T, K]``.
    """

    memory: ShortTermMemory
    names: tuple[str, ...]
    facts: NDArray[np.float32]

    def windows(self, count: int, steps: int, generator: np.random.Generator) -> Window:
        """Draw windows of ``steps`` transitions, or of as many as there are."""
        return draw_windows(self.memory, count, steps, generator)

    def observations(self) -> Tensor:
        """All percepts, environment by environment ``[E·T, history, *shape]``."""
        stream, start = np.divmod(np.arange(len(self.memory)), self.memory.filled)
        return self.memory.read(stream, start, 0).observation[:, 0]

    def episodes(self) -> Tensor:
        """Number of the episode of each percept ``[E·T]``."""
        return torch.from_numpy(np.cumsum(self.memory.data["age"][:, : self.memory.filled].reshape(-1) == 0))


def draw_windows(memory: ShortTermMemory, count: int, steps: int, generator: np.random.Generator) -> Window:
    """Windows of ``steps`` transitions, or of as many as the memory has in a row."""
    return memory.sample(count, min(steps, memory.filled - memory.history), generator)


def facts_of(agent: Agent, step: Step) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """What is true of an observation: names and numbers ``[E, K]``.

    Places in rooms, elsewhere the entries of a vector observation; nothing where there are only pixels.
    """
    count = len(step.reward)
    if "position" in step.facts:
        told = [key for key in _FACTS if key in step.facts]
        columns = [np.asarray(step.facts[key], np.float32).reshape(count, -1) for key in told]
        return tuple(name for key in told for name in _FACTS[key]), np.concatenate(columns, axis=1)
    if agent.spaces.pixels:
        return (), np.zeros((count, 0), np.float32)
    return tuple(f"observation {index}" for index in range(step.seen.shape[1])), step.seen.astype(np.float32)


def record(
    agent: Agent, env: VectorEnv, behaviour: Behaviour, steps: int, seed: int, progress: Progress | None = None
) -> Recording:
    """Watch a behaviour for some steps and remember everything.

    Args:
        agent: Says what a memory of its world looks like.
        env: Vector environment with same-step autoreset, where training has not been.
        behaviour: Who decides.
        steps: Of each environment, at least 2.
        seed: Of the reset.
        progress: Told of steps.
    """
    memory = memory_for(agent, env.num_envs, (steps + 1) * env.num_envs)
    facts: list[NDArray[np.float32]] = []
    names: tuple[str, ...] = ()
    for step in islice(interact(env, behaviour, seed=seed), steps):
        memory.write(step.seen, step.action, step.reward, step.terminated, step.truncated, sensors=step.sensors)
        names, row = facts_of(agent, step)
        facts.append(row)
        if progress is not None:
            progress(len(facts), steps)
    return Recording(memory, names, np.stack(facts, axis=1))
