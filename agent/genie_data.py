"""Video data: watch a policy in any environment, or read videos from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..envs.levels import Levels, LevelSplit
from ..envs.make import has_levels, make_env
from ..modules.configurator import Task, Thinking
from ..modules.genie.video import UNKNOWN, Clip, Split, VideoWriter, resize, write_about
from ..planners import Planner
from .agent import Agent, Decision
from .checkpoint import check_same_world, load_agent
from .evaluation import Progress
from .interaction import Behaviour, Observation, RandomBehaviour, Straying, VectorEnv, interact
from .oracle import ExpertBehaviour, OracleBehaviour
from .worlds import spaces_of

_SPLITS: tuple[Split, Split] = ("train", "test")
PLAY = frozenset({"random", "sticky"})
"""Policies that play at random."""
_ORACLE = Task(discount=0.97, thinking=Thinking(horizon=10, candidates=64, iterations=1))
"""How the recorded oracle plans."""
SUFFIXES = (".mp4", ".gif", ".webm", ".mkv", ".avi", ".mov")


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
    Mode-1 (./expert, if that is its name)."""
    exploration: float = 0.0
    """expert, oracle, agents: chance of an action that is drawn from `actions` instead, held as sticky ones are."""
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
    make_way(folder)
    splits: tuple[tuple[Split, int], ...] = (("train", config.steps), ("test", config.test_steps))
    about: dict[str, Any] = {"env": id, "recording": _plain(config), "height": config.height, "width": config.width}
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
    """Who knows what to do: a script, a planner in the true simulator, or an agent."""
    if config.policy == "expert":
        return ExpertBehaviour(env)
    if config.policy == "oracle":
        return plan_truly(env, id, config, split, _ORACLE)
    return _played_by(load_agent(Path(config.policy)), env, id)


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


def _played_by(agent: Agent, env: VectorEnv, id: str) -> Behaviour:
    """An agent in Mode-1, drawing from its policy; one that was trained with some of a game's buttons presses those.

    Raises:
        ValueError: It was trained in another world.
    """
    seen, buttons = spaces_of(env), agent.config.env.actions
    if not buttons:
        check_same_world(agent, seen, id)
        return agent.begin(env.num_envs, "mode-1", sample=True)
    if isinstance(seen.action, gymnasium.spaces.Discrete) and max(buttons) < seen.action.n:
        seen = replace(seen, action=gymnasium.spaces.Discrete(len(buttons)))
    check_same_world(agent, seen, id)
    return Buttons(agent.begin(env.num_envs, "mode-1", sample=True), buttons)


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


def make_way(folder: Path) -> None:
    """Refuse to write over data.

    Raises:
        ValueError: The folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; remove it or name another")


@dataclass(frozen=True)
class Importing:
    """How videos are read."""

    height: int = 0
    """Height of the frames; 0: as the videos are, which must then all be alike."""
    width: int = 0
    """Width of the frames; 0: as the videos are."""
    every: int = 1
    """Keep every so many frames (3 makes 10 frames per second of 30)."""
    test_share: float = 0.1
    """Share of the videos for testing; of a single video, its last part."""


def import_videos(source: Path, config: Importing, folder: Path, progress: Progress | None = None) -> None:
    """Read a folder of MP4, GIF and the like, without actions, into a data set.

    Args:
        source: Folder of videos; those in folders below it are read too.
        config: How.
        folder: Of the data set; must not hold one.
        progress: Told of videos.

    Raises:
        FileNotFoundError: No videos.
        ValueError: Videos of mixed sizes, a video that cannot be read, or numbers out of range.
    """
    check_importing(config)
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"{source} holds no videos; expected files that end in {', '.join(SUFFIXES)}")
    make_way(folder)
    writers = {split: VideoWriter(folder, split) for split in _SPLITS}
    period = max(2, round(1 / config.test_share))
    size: tuple[int, int] | None = (config.height, config.width) if config.height else None
    for number, path in enumerate(paths):
        frames = read_video(path, config.every)
        if config.height:
            frames = resize(frames, config.height, config.width)
        size = size or (frames.shape[1], frames.shape[2])
        if frames.shape[1:3] != size:
            raise ValueError(
                f"{path} has frames of {frames.shape[1]}×{frames.shape[2]} and those before it of {size[0]}×{size[1]}; "
                "choose one size with --height and --width"
            )
        if len(paths) == 1:
            border = len(frames) - max(1, round(config.test_share * len(frames)))
            writers["train"].write(Clip(frames[:border]))
            writers["test"].write(Clip(frames[border:]))
        else:
            writers["test" if number % period == period - 1 or number == len(paths) - 1 else "train"].write(
                Clip(frames)
            )
        if progress is not None:
            progress(number + 1, len(paths))
    assert size is not None
    about: dict[str, Any] = {
        "videos": str(source),
        "importing": dict(vars(config)),
        "height": size[0],
        "width": size[1],
    }
    for split, writer in writers.items():
        writer.flush()
        about[split] = {"frames": writer.frames, "clips": writer.clips, "levels": None}
    write_about(folder, about)


def read_video(path: Path, every: int = 1) -> NDArray[np.uint8]:
    """The frames of a video ``[n, H, W, 3]``, every so many of them.

    Raises:
        ValueError: It cannot be read, or shows nothing.
    """
    import av  # noqa: PLC0415  (only where videos are read)

    try:
        with av.open(str(path)) as container:
            decoded = (frame for number, frame in enumerate(container.decode(video=0)) if number % every == 0)
            frames = [frame.to_ndarray(format="rgb24") for frame in decoded]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a video ({error}); remove it or convert it to MP4") from error
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path} has {'frames of different sizes' if frames else 'no frames'}; remove or convert it")
    return np.stack(frames)


def read_prompt(path: Path, height: int, width: int, frames: int) -> NDArray[np.uint8]:
    """A picture, or the first frames of a video, as a clip to begin a dream with ``[F, height, width, 3]``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture or video {path}")
    if path.suffix.lower() in SUFFIXES:
        return resize(read_video(path)[:frames], height, width)
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); convert it to PNG, or give an MP4") from error
    return resize(pixels[None], height, width)


def check_importing(config: Importing) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: Names the setting.
    """
    if (config.height < 1) != (config.width < 1) or min(config.height, config.width) < 0:
        raise ValueError(f"height is {config.height} and width {config.width}; give both, or neither")
    if config.every < 1 or not 0 < config.test_share < 1:
        raise ValueError(f"every is {config.every} and test_share {config.test_share}; expected at least 1 and a share")
