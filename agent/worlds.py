"""Worlds as a run's settings describe them, for training and held-out."""

from __future__ import annotations

from ..envs.levels import Levels, LevelSplit
from ..envs.make import has_levels, make_env
from .agent import Agent
from .checkpoint import check_same_world
from .config import EnvConfig
from .interaction import VectorEnv
from .spaces import Spaces, read_spaces


def build_env(
    config: EnvConfig,
    num_envs: int,
    *,
    seed: int,
    held_out: bool,
    render_mode: str | None = None,
    action_repeat: int | None = None,
    terminate_on_success: bool | None = None,
) -> VectorEnv:
    """The run's world; ``held_out`` takes Procgen's test levels, which training never sees.

    Raises:
        ValueError: Unknown environment or options that do not belong to it.
    """
    return make_env(
        config.id,
        num_envs,
        seed=seed,
        split="test" if held_out and has_levels(config.id) else "train",
        levels=LevelSplit(train=Levels(0, config.train_levels)) if has_levels(config.id) else None,
        distribution_mode=config.distribution_mode,
        use_backgrounds=None if config.backgrounds else False,
        restrict_themes=True if config.one_theme else None,
        actions=config.actions or None,
        observation_key=config.observation_key,
        pairs=config.pairs,
        pixels=config.pixels,
        terminate_on_success=terminate_on_success,
        max_steps=None if held_out else config.train_steps,
        wirings=config.wirings or None,
        wirings_told=None if config.wirings_told else False,
        prompts=None if held_out else config.prompts,
        action_repeat=config.action_repeat if action_repeat is None else action_repeat,
        render_mode=render_mode,
    )


def held_out_env(agent: Agent, count: int, seed: int, render_mode: str | None = None) -> VectorEnv:
    """The agent's world where training has not been; in goal tasks episodes run on past the goal, as in training.

    Raises:
        ValueError: The world has other observations or actions than the agent was trained for.
    """
    settings = agent.config.env
    goals = False if agent.config.task.goals else None
    env = build_env(settings, count, seed=seed, held_out=True, render_mode=render_mode, terminate_on_success=goals)
    check_same_world(agent, spaces_of(env), settings.id)
    return env


def spaces_of(env: VectorEnv) -> Spaces:
    """What an environment shows, takes and measures; its base may say ``sensors`` and ``context``.

    Raises:
        ValueError: Something that agents do not support.
    """
    sensors, context = getattr(env.unwrapped, "sensors", ()), getattr(env.unwrapped, "context", 0)
    return read_spaces(env.single_observation_space, env.single_action_space, sensors, context)
