"""Video data: watch a policy in any environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..envs.levels import Levels, LevelSplit
from ..envs.make import has_levels, make_env
from ..modules.configurator import Task, Thinking
from ..modules.genie.video import UNKNOWN, Clip, Split, VideoWriter, new_data_set, resize, write_about
from ..planners import Planner
from .agent import Agent, Decision
from .checkpoint import check_same_world, load_agent
from .evaluation import Progress
from .interaction import Behaviour, Observation, RandomBehaviour, Straying, VectorEnv, interact
from .oracle import ExpertBehaviour, OracleBehaviour
from .ppo import Reactive, holds_ppo, load_ppo
from .spaces import Spaces
from .worlds import spaces_of

PLAY = frozenset({"random", "sticky"})
"""Policies that play at random."""
_ORACLE = Task(discount=0.97, thinking=Thinking(horizon=10, candidates=64, iterations=1))
"""How the recorded oracle plans."""


@dataclass(frozen=True)
class Recording:
    """What is recorded."""

    steps: int = 20_000
    """Frames for training."""
    test_steps: int = 4_000
    """Frames for testing, on levels (or from starts) of their own."""
    num_envs: int = 16
    """Environments recorded side by side."""
    height: int = 64
    """Height of the frames; pictures are averaged down."""
    width: int = 64
    """Width of the frames."""
    policy: str = "sticky"
    """random: a new action at each step; sticky: held for a while; expert: the scripted one of Sprite and the rooms;
    oracle: plans in the true simulator (Procgen, Sprite; 64 courses of 10 steps); or the folder of a trained agent, in
    Mode-1, or of a PPO run (./expert, if that is its name); these draw from their policy."""
    exploration: float = 0.0
    """expert, oracle, trained: chance of an action that is drawn from `actions` instead, held as sticky ones are."""
    hold: int = 8
    """sticky: longest time for which an action is held; each time is drawn from 1 to this."""
    actions: tuple[int, ...] = ()
    """Discrete actions to choose from; all when empty. Procgen: 1 left, 4 nothing, 5 up, 7 right, 8 right and up …"""
    action_repeat: int = 1
    """Frames for which the environment holds each action."""
    distribution_mode: str | None = None
    """Procgen: easy, hard, extreme, memory or exploration."""
    train_levels: int = 200
    """Procgen: how many levels to record for training, [0, n); those for testing are elsewhere."""
    backgrounds: bool = True
    """Procgen: draw backgrounds."""
    one_theme: bool = False
    """Procgen: one theme instead of many."""
    seed: int = 0
    """Seed of environments and policy."""


class StickyBehaviour:
    """Random actions of a list, each held for a random time from 1 to ``hold`` steps."""

    def __init__(self, actions: NDArray[np.int64], num_envs: int, seed: int, hold: int) -> None:
        self.actions, self.hold = actions, hold
        self.generator = np.random.default_rng(seed)
        self.current = np.zeros(num_envs, np.int64)
        self.left = np.zeros(num_envs, np.int64)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Draw a new action, and how long it is held, where the last has run out."""
        renew = first | (self.left <= 0)
        drawn = self.actions[self.generator.integers(len(self.actions), size=len(first))]
        times = self.generator.integers(1, self.hold + 1, size=len(first))
        self.current, self.left = np.where(renew, drawn, self.current), np.where(renew, times, self.left) - 1
        nothing = np.zeros(len(first), np.bool_)
        return Decision(self.current, np.zeros((len(first), 1), np.float32), None, nothing, 0)


def record(id: str, config: Recording, folder: Path, progress: dict[str, Progress] | None = None) -> None:
    """Record both splits of an environment into a data set.

    Args:
        id: As in `make_env`.
        config: How.
        folder: Of the data set; must not hold one.
        progress: For train and test, told of frames.

    Raises:
        ValueError: Settings that do not fit the environment, or a folder in use.
    """
    check_recording(config)
    splits: tuple[tuple[Split, int], ...] = (("train", config.steps), ("test", config.test_steps))
    about: dict[str, Any] = {"env": id, "recording": _plain(config), "height": config.height, "width": config.width}
    with new_data_set(folder):
        for split, steps in splits:
            env = build_recorded(id, config, split)
            try:
                behaviour = recorded_behaviour(config, env, split, id)
                if isinstance(env.single_action_space, gymnasium.spaces.Discrete):
                    about["actions"] = int(env.single_action_space.n)
                    meanings = getattr(env.unwrapped, "action_meanings", None)
                    about["action_meanings"] = list(meanings) if meanings else None
                writer = VideoWriter(folder, split)
                tell = (progress or {}).get(split)
                for clip in watch(env, behaviour, steps, config.seed + (split == "test"), tell):
                    writer.write(_small(clip, config))
                writer.flush()
            finally:
                env.close()
            about[split] = {"frames": writer.frames, "clips": writer.clips, "levels": _levels(id, config, split)}
        write_about(folder, about)


def watch(
    env: VectorEnv, behaviour: Behaviour, steps: int, seed: int, progress: Progress | None = None, cut: int = 512
) -> Iterator[Clip]:
    """Clips of a behaviour at work, about ``steps`` frames in all; episodes of any length, cut after ``cut`` frames.

    The observation that comes with an end belongs to the next episode, so a clip ends before it; where the environment
    keeps the last picture (Procgen does not), it ends with that, which no action leaves. Environments whose
    observations are not pictures are drawn (render mode rgb_array).
    """
    count = env.num_envs
    rounds = -(-steps // count)
    discrete = isinstance(env.single_action_space, gymnasium.spaces.Discrete)
    open_clips: list[list[tuple[Any, ...]]] = [[] for _ in range(count)]
    for number, step in enumerate(islice(interact(env, behaviour, seed=seed), rounds)):
        pictures = _pictures(env, step.seen)
        for index in range(count):
            action = int(step.action[index]) if discrete else UNKNOWN
            row = (pictures[index], action, step.reward[index], step.terminated[index])
            open_clips[index].append(row)
            if step.ended[index] and not isinstance(env, _Drawn):
                final = step.infos.get("final_obs", [None] * count)[index]
                if final is not None:
                    open_clips[index].append((_coloured(final), UNKNOWN, 0.0, False))
            if step.ended[index] or len(open_clips[index]) == cut or number == rounds - 1:
                yield _clip(open_clips[index])
                open_clips[index] = []
        if progress is not None:
            progress(min((number + 1) * count, steps), steps)


class _Drawn(gymnasium.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """Remembers what an environment looked like before each step, for worlds whose observation is not a picture."""

    picture: Any = None

    def reset(self, **options: Any) -> Any:
        result = super().reset(**options)
        self.picture = self.render()
        return result

    def step(self, actions: Any) -> Any:
        self.before, result = self.picture, super().step(actions)
        self.picture = self.render()
        return result


def _pictures(env: VectorEnv, seen: NDArray[Any]) -> NDArray[np.uint8]:
    return _coloured(env.before if isinstance(env, _Drawn) else seen)


def pictures_now(env: VectorEnv, observation: NDArray[Any]) -> NDArray[np.uint8]:
    """What environments of `build_recorded` look like ``[B, H, W, 3]``, with the observation that they gave last."""
    return _coloured(env.picture if isinstance(env, _Drawn) else observation)


def _coloured(pictures: Any) -> NDArray[np.uint8]:
    frames = np.array(pictures, np.uint8)
    return frames if frames.shape[-1] == 3 else frames.repeat(3, -1)


def _clip(rows: list[tuple[Any, ...]]) -> Clip:
    frames, actions, rewards, ended = zip(*rows, strict=True)
    return Clip(np.stack(frames), np.array(actions, np.int64), np.array(rewards, np.float32), np.array(ended, np.bool_))


def _small(clip: Clip, config: Recording) -> Clip:
    return Clip(resize(clip.frames, config.height, config.width), clip.actions, clip.rewards, clip.ended)


def build_recorded(id: str, config: Recording, split: Split, chosen: bool = False) -> VectorEnv:
    """The environment as it is recorded; drawn where its observation is not a picture.

    Args:
        id: As in `make_env`.
        config: How it is recorded.
        split: Whose levels.
        chosen: Procgen: with the recorded actions alone, numbered anew.

    Raises:
        ValueError: Unknown environment, or options that it does not have.
    """
    procgen: dict[str, Any] = {}
    if has_levels(id):
        procgen = {
            "split": split,
            "levels": LevelSplit(train=Levels(0, config.train_levels)),
            "distribution_mode": config.distribution_mode,
            "use_backgrounds": None if config.backgrounds else False,
            "restrict_themes": True if config.one_theme else None,
            "actions": config.actions if chosen and config.actions else None,
        }
    options: dict[str, Any] = {"action_repeat": config.action_repeat, "seed": config.seed, **procgen}
    env = make_env(id, config.num_envs, **options)
    shape = _picture_shape(env)
    if len(shape) == 3 and shape[-1] in (1, 3):
        return env
    env.close()
    return _Drawn(make_env(id, config.num_envs, render_mode="rgb_array", **options))


def _picture_shape(env: VectorEnv) -> tuple[int, ...]:
    space = env.single_observation_space
    if isinstance(space, gymnasium.spaces.Dict):
        space = space["observation"]
    return tuple(space.shape or ()) if getattr(space, "dtype", None) == np.uint8 else ()


def recorded_behaviour(config: Recording, env: VectorEnv, split: Split, id: str) -> Behaviour:
    """The policy that is recorded.

    Raises:
        ValueError: A policy or actions that the environment does not have.
    """
    seed, space = config.seed + (split == "test"), env.single_action_space
    if config.policy not in PLAY:
        able = _able(config, env, split, id)
        if not config.exploration:
            return able
        return Straying(able, sticky_behaviour(config, env, id, seed, config.hold), config.exploration)
    hold = config.hold if config.policy == "sticky" else 1
    if not isinstance(space, gymnasium.spaces.Discrete):
        if config.actions:
            raise ValueError(f"actions are chosen from {config.actions} and {id} has no discrete ones; leave it away")
        return RandomBehaviour(space, env.num_envs, seed, plan=1, sticky=hold)
    return sticky_behaviour(config, env, id, seed, hold)


def sticky_behaviour(config: Recording, env: VectorEnv, id: str, seed: int, hold: int) -> StickyBehaviour:
    """Random choices of the recorded actions, each held for up to ``hold`` steps.

    Raises:
        ValueError: The environment has no such actions.
    """
    space = env.single_action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ValueError(f"{id} has no discrete actions to draw from; leave exploration at 0")
    actions = np.array(config.actions or range(int(space.n)), np.int64)
    if actions.min() < 0 or actions.max() >= space.n:
        raise ValueError(f"actions are {config.actions}; {id} has 0 to {int(space.n) - 1}")
    return StickyBehaviour(actions, env.num_envs, seed, hold)


def _able(config: Recording, env: VectorEnv, split: Split, id: str) -> Behaviour:
    """Who knows what to do: a script, a planner in the true simulator, or who was trained."""
    if config.policy == "expert":
        return ExpertBehaviour(env)
    if config.policy == "oracle":
        return plan_truly(env, id, config, split, _ORACLE)
    return _played_by(Path(config.policy), env, id, config.seed + (split == "test"))


def plan_truly(
    env: VectorEnv, id: str, config: Recording, split: Split, task: Task, planner: Planner | None = None
) -> Behaviour:
    """Plan in the true simulator, among the actions that were recorded.

    Args:
        env: From `build_recorded`.
        id: As in `make_env`.
        config: How it is recorded.
        split: Whose levels.
        task: What is wanted, and how hard to think.
        planner: Of discrete actions; None: the categorical CEM.

    Raises:
        ValueError: The environment cannot be saved and restored.
    """
    copies = build_recorded(id, replace(config, num_envs=task.thinking.candidates), split, chosen=True)
    oracle = OracleBehaviour(env, copies, task, config.action_repeat, config.seed, planner)
    fewer = copies.single_action_space != env.single_action_space
    return Buttons(oracle, config.actions) if fewer else oracle


class Buttons:
    """A behaviour that chooses among a few buttons, where all of them are to be had."""

    def __init__(self, behaviour: Behaviour, buttons: tuple[int, ...]) -> None:
        self.behaviour, self.buttons = behaviour, np.array(buttons)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """The decisions, by the environment's own numbers of buttons."""
        decision = self.behaviour.act(observation, first, active)
        return replace(decision, action=self.buttons[decision.action])


def _played_by(folder: Path, env: VectorEnv, id: str, seed: int) -> Behaviour:
    """An agent in Mode-1 or PPO, drawing from its policy; who was trained with some of a game's buttons presses those.

    Raises:
        FileNotFoundError: The folder holds neither.
        ValueError: It was trained in another world.
    """
    who: Agent | Reactive = load_ppo(folder) if holds_ppo(folder) else load_agent(folder)
    seen, buttons = spaces_of(env), who.config.env.actions
    if buttons and isinstance(seen.action, gymnasium.spaces.Discrete) and max(buttons) < seen.action.n:
        seen = replace(seen, action=gymnasium.spaces.Discrete(len(buttons)))
    behaviour: Behaviour
    if isinstance(who, Reactive):
        _check_fits(who, seen, folder, id)
        from .sb3 import PolicyBehaviour  # noqa: PLC0415  (imports Stable-Baselines3)

        behaviour = PolicyBehaviour(who.policy, seen.action, seed)
    else:
        check_same_world(who, seen, id)
        behaviour = who.begin(env.num_envs, "mode-1", sample=True)
    return Buttons(behaviour, buttons) if buttons else behaviour


def _check_fits(trained: Reactive, seen: Spaces, folder: Path, id: str) -> None:
    """Refuse to let PPO act where it sees or takes something else than it was trained with.

    Raises:
        ValueError: Says both.
    """
    mine = trained.spaces
    if seen.goals or (mine.shape, mine.pixels, mine.action) != (seen.shape, seen.pixels, seen.action):
        raise ValueError(
            f"the PPO policy in {folder} was trained on {trained.config.env.id} for observations {mine.shape} and "
            f"actions {mine.action}; {id} gives {seen.shape}{' with goals' if seen.goals else ''} and takes "
            f"{seen.action}; record it there or train one for this environment"
        )


def _levels(id: str, config: Recording, split: Split) -> list[int] | None:
    """First level and one past the last."""
    if not has_levels(id):
        return None
    levels = getattr(LevelSplit(train=Levels(0, config.train_levels)), split)
    return [levels.start, levels.stop]


def _plain(config: Recording) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def check_recording(config: Recording) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: Names the setting.
    """
    for name in ("steps", "test_steps", "num_envs", "height", "width", "hold", "action_repeat", "train_levels"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
    if not 0 <= config.exploration <= 1:
        raise ValueError(f"exploration is {config.exploration}, expected a chance from 0 to 1")
    if config.exploration and config.policy in PLAY:
        raise ValueError(
            f"exploration is {config.exploration} and policy {config.policy}, which plays at random anyway; set it to 0"
        )
