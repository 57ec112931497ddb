"""Evaluation: episodes on worlds the agent has not learned from, divided evenly over the environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .interaction import Behaviour, VectorEnv, interact

Split = Literal["unseen", "train"]


@dataclass(frozen=True)
class Episode:
    """One finished episode."""

    total: float
    """Undiscounted return."""
    decisions: int
    """Length in decisions."""
    success: bool
    """The task's own predicate, where the environment has one."""
    level: int
    """Procgen level seed, −1 elsewhere."""


@dataclass(frozen=True)
class Result:
    """A row of a comparison: one behaviour's episodes and what its decisions cost."""

    name: str
    episodes: tuple[Episode, ...]
    milliseconds: float
    """Wall-clock time per decision and environment, deciding only."""
    calls: float
    """Predictor calls per decision."""
    note: str = ""
    """What a reader must know about this row."""
    frames: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False, compare=False)
    """Pictures ``[H, W, 3]`` of the first environment's first episodes, where they were asked for."""
    world: str = ""
    """Where: the environment's id; empty where all rows are of one."""
    run: str = ""
    """Which training run; results of one row and several runs are seeds of one setting."""
    split: Split = "unseen"
    """Levels or starts that training has not seen, or its own levels."""
    steps: int = 0
    """Environment steps (frames) that training took; 0 where nothing was trained, or it is not known."""

    @property
    def returns(self) -> NDArray[np.float64]:
        """Undiscounted returns ``[episodes]``."""
        return np.array([episode.total for episode in self.episodes])

    @property
    def successes(self) -> NDArray[np.bool_]:
        """Success of each episode."""
        return np.array([episode.success for episode in self.episodes])


Progress = Callable[[int, int], None]
"""Told of finished and wanted episodes."""


def evaluate(
    name: str,
    env: VectorEnv,
    behaviour: Behaviour,
    per_env: int = 1,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    film: int = 0,
    progress: Progress | None = None,
    note: str = "",
    steps: int | None = None,
) -> Result:
    """Run ``per_env`` episodes in each environment; short episodes are not counted more often than long ones.

    Args:
        name: Of the row.
        env: Vector environment with same-step autoreset, on held-out levels.
        behaviour: Who decides.
        per_env: Episodes per environment.
        seed: Of the reset.
        options: Of the reset (start and goal pairs, say).
        film: Keep at most this many pictures of environment 0.
        progress: Told of finished episodes.
        note: Goes into the row.
        steps: Decisions after which an episode is left and counts as it stands; None: none is left early.

    Raises:
        ValueError: No steps, or more than one episode in each environment where episodes are left.
    """
    count = env.num_envs
    if steps is not None and (steps < 1 or per_env != 1):
        raise ValueError(f"steps is {steps} and per_env {per_env}; expected at least 1, and one episode of each")
    active = np.ones(count, np.bool_)
    totals, lengths, done = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64)
    levels = np.full(count, -1)
    episodes: list[Episode] = []
    frames: list[NDArray[np.uint8]] = []
    watch = Stopwatch(behaviour)
    for step in interact(env, watch, active, seed=seed, options=options):
        levels = step.infos.get("prev_level_seed", levels)  # of the episode that ended, where one did
        if len(frames) < film and active[0]:
            frames.extend(_picture(env, step.observation))
        totals += np.where(active, step.reward, 0.0)
        lengths += active
        success = np.asarray(step.infos.get("success", np.zeros(count, np.bool_)))
        left = lengths == steps if steps is not None else np.zeros(count, np.bool_)
        for index in np.flatnonzero((step.ended | left) & active):
            episodes.append(
                Episode(float(totals[index]), int(lengths[index]), bool(success[index]), int(levels[index]))
            )
            totals[index], lengths[index] = 0.0, 0
            done[index] += 1
            active[index] = done[index] < per_env
        if progress is not None:
            progress(len(episodes), count * per_env)
        if not active.any():
            break
    decisions = max(watch.decisions, 1)
    return Result(name, tuple(episodes), 1000 * watch.seconds / decisions, watch.calls / decisions, note, tuple(frames))


class Stopwatch:
    """A behaviour that measures the behaviour inside it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.seconds, self.decisions, self.calls = 0.0, 0, 0

    def act(self, observation: Any, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Any:
        """Decide, and count."""
        start = perf_counter()
        decision = self.behaviour.act(observation, first, active)
        self.seconds += perf_counter() - start
        self.decisions += int(active.sum())
        self.calls += decision.calls
        return decision


def _picture(env: VectorEnv, observation: Any) -> list[NDArray[np.uint8]]:
    """What environment 0 looks like: its rendering, its observation where that is a picture, or nothing."""
    if env.render_mode == "rgb_array":
        if hasattr(env.unwrapped, "render_first"):
            return [env.unwrapped.render_first()]
        pictures = env.render()
        if pictures is not None:
            return [np.asarray(pictures[0], np.uint8).copy()]
    x = observation["observation"] if isinstance(observation, dict) else observation
    colours = slice(0, x.shape[-1] - getattr(env.unwrapped, "context", 0))  # a context stands behind them
    return [x[0, ..., colours].copy()] if x.ndim == 4 and x.dtype == np.uint8 else []
