"""Comparisons: who is measured beside whom, in which worlds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..envs.make import has_levels
from .agent import Agent, read_spaces
from .checkpoint import check_same_world
from .checkup import HELD_OUT_SEED
from .evaluation import Progress, Result, evaluate
from .interaction import Behaviour, RandomBehaviour, VectorEnv
from .oracle import ExpertBehaviour, OracleBehaviour
from .worlds import build_env


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and on how much."""

    behaviours: tuple[str, ...] = ("mode-1", "mode-2", "random", "oracle")
    """Rows: mode-1, mode-2, random, oracle (Procgen: the true simulator) or expert (rooms)."""
    episodes: int = 32
    """Episodes per row."""
    oracle_episodes: int = 8
    """Episodes of the oracle, which is slow."""
    sample: bool = False
    """Mode-1 draws from its policy instead of taking the likeliest action."""
    seed: int = HELD_OUT_SEED
    """Seed of the levels (or starts); the same for every row."""
    film: int = 300
    """Pictures kept of each row's first episode for the video."""


BEHAVIOURS = ("mode-1", "mode-2", "random", "oracle", "expert")


def compare(agent: Agent, config: CompareConfig, progress: dict[str, Progress] | None = None) -> list[Result]:
    """Run each behaviour on the same unseen levels, one episode in each environment.

    Args:
        agent: The same agent serves both modes.
        config: What to compare.
        progress: Per row, told of finished episodes.

    Raises:
        ValueError: An unknown behaviour, or one that this world does not have.
    """
    check_behaviours(config.behaviours, agent.config.env.id)
    rows = []
    for name in config.behaviours:
        count = min(config.oracle_episodes, config.episodes) if name == "oracle" else config.episodes
        env = build_env(agent.config.env, count, seed=config.seed, held_out=True, render_mode=_film_mode(agent, config))
        try:
            check_same_world(
                agent, read_spaces(env.single_observation_space, env.single_action_space), agent.config.env.id
            )
            behaviour = make_behaviour(name, agent, env, config)
            rows.append(
                evaluate(
                    name,
                    env,
                    behaviour,
                    seed=config.seed,
                    film=config.film,
                    progress=(progress or {}).get(name),
                    note=_note(name, agent),
                )
            )
        finally:
            env.close()
    return rows


def check_behaviours(names: Sequence[str], id: str) -> None:
    """Refuse behaviours that do not exist or that this world does not have.

    Raises:
        ValueError: Names the behaviour.
    """
    for name in names:
        if name not in BEHAVIOURS:
            raise ValueError(f"unknown behaviour {name!r}; choose from {', '.join(BEHAVIOURS)}")
        if name == "oracle" and not has_levels(id):
            raise ValueError(f"{id} has no oracle, which needs a simulator that can be saved (Procgen); leave it out")
        if name == "expert" and id not in {"TwoRoom", "DotWall", "forethought/TwoRoom-v0", "forethought/DotWall-v0"}:
            raise ValueError(f"{id} has no expert (only the rooms have); leave it out")


def make_behaviour(name: str, agent: Agent, env: VectorEnv, config: CompareConfig) -> Behaviour:
    """The behaviour of this name, at work in ``env``."""
    if name in {"mode-1", "mode-2"}:
        return agent.begin(env.num_envs, "mode-1" if name == "mode-1" else "mode-2", sample=config.sample)
    if name == "random":
        return RandomBehaviour(agent.spaces.action, env.num_envs, config.seed, plan=1)
    if name == "expert":
        return ExpertBehaviour(env)
    thinking = agent.config.task.thinking
    simulator = build_env(agent.config.env, thinking.candidates, seed=config.seed, held_out=True, action_repeat=1)
    return OracleBehaviour(
        env, simulator, agent.config.task, agent.config.env.action_repeat, config.seed, agent.planner
    )


def _film_mode(agent: Agent, config: CompareConfig) -> str | None:
    """Worlds whose observation is not a picture are drawn for the film, where they can draw."""
    if not config.film or (agent.spaces.pixels and not agent.spaces.goals):
        return None
    env = build_env(agent.config.env, 1, seed=0, held_out=False)
    modes = env.metadata.get("render_modes", ())
    env.close()
    return "rgb_array" if "rgb_array" in modes else None


def _note(name: str, agent: Agent) -> str:
    thinking = agent.config.task.thinking
    budget = f"{thinking.candidates}×{thinking.iterations} plans of {thinking.horizon} steps"
    repeat = agent.config.env.action_repeat
    held = f"; in every row actions are held for {repeat} frames" if repeat > 1 else ""
    notes = {"mode-2": budget + held, "oracle": f"true simulator, {budget}", "expert": "scripted, knows the state"}
    return notes.get(name, "")
