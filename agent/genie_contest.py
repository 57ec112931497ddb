"""Who learned or plans in a dream, measured in the true environment beside chance and upper bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from ..envs.genie import PRETRAINED, find_world
from ..modules.configurator import Task, Thinking
from ..modules.genie.files import has_outcomes, load_settings, load_world
from ..modules.genie.world import Genie
from ..modules.types import Mode
from ..planners import Budget, make_planner
from .agent import Agent
from .checkpoint import load_agent
from .checkup import HELD_OUT_SEED
from .evaluation import Progress, Result, evaluate
from .genie_data import plan_truly, recorded_behaviour
from .genie_planning import DreamBehaviour
from .genie_real import ActionMap, Home, LatentBehaviour, Meaning, learn_map, need_home, play_labels
from .interaction import Behaviour, VectorEnv
from .oracle import ExpertBehaviour, Savable
from .ppo import Reactive, holds_ppo, load_ppo
from .statistics import Interval, mean_interval, wilson

MODES: tuple[Mode, ...] = ("mode-1", "mode-2")
_GENIE = "genie:"
TREES = ("beam", "tree")
"""Planners that follow an objective step by step."""


@dataclass(frozen=True)
class Contestant:
    """Who plays a row: how it begins to act in the true environment."""

    name: str
    begin: Callable[[VectorEnv], Behaviour]
    note: str = ""


@dataclass(frozen=True)
class Arena:
    """A world, where it was recorded, and what its codes mean there."""

    folder: Path
    world: Genie
    home: Home
    actions: ActionMap | None
    device: torch.device

    def latent(self, inner: Behaviour, env: VectorEnv) -> Behaviour:
        """Whoever decides on codes, as a behaviour of the true environment."""
        return LatentBehaviour(env, self.world, inner, self.actions, self.device)


@dataclass(frozen=True)
class DreamPlanning:
    """How is planned, in the dream and in the true simulator alike."""

    planners: tuple[str, ...] = ("categorical_cem", "random_shooting")
    """Planners of discrete actions. Of beam and tree, which follow a dream step by step, the upper bound in the true
    simulator is the categorical CEM."""
    horizon: int = 6
    """Steps of a course."""
    candidates: int = 64
    """Courses per iteration."""
    iterations: int = 2
    """Iterations per decision."""
    hold: int = 1
    """Steps for which each action of a course is held; a longer look ahead with as few choices."""
    commit: int = 1
    """Steps of a plan that are carried out before the next is made."""
    discount: float = 0.95
    """γ: below 1, or a reward now and one later count alike."""
    sampling_steps: int = 0
    """MaskGIT steps per dreamed frame; 0: the world's own. One with temperature 0 is fastest."""
    temperature: float = -1.0
    """Sampling temperature in the dream; negative: the world's own."""
    simulator: bool = True
    """Plan in the true simulator as well, where it can be saved (Procgen, Sprite): the upper bound."""


def enter(folder: Path, labels: int, meaning: Meaning, seed: int, device: torch.device) -> Arena:
    """Read a world, build its home and learn what its codes mean.

    Raises:
        FileNotFoundError: No world there.
        ValueError: The world does not tell where it was recorded, or labels below 1.
    """
    about = load_settings(folder)[1]
    home = need_home(about, str(folder))
    world = load_world(folder, device)
    known = play_labels(world, home, labels, seed, device)
    return Arena(folder, world, home, learn_map(world, known, meaning, seed), device)


def contest(
    home: Home,
    contestants: Sequence[Contestant],
    episodes: int,
    seed: int,
    progress: Mapping[str, Progress] | None = None,
    steps: int = 0,
    keep: Callable[[Sequence[Result]], None] | None = None,
) -> list[Result]:
    """One episode for each contestant in each of ``episodes`` environments, the same for all, on test levels.

    Args:
        home: The true environment.
        contestants: Who plays.
        episodes: Of each.
        seed: Of the levels.
        progress: By contestant, told of finished episodes.
        steps: Decisions after which an episode is left and counts as it stands; 0: none is left early.
        keep: Given the rows so far after each, which may take minutes.

    Raises:
        ValueError: No episodes, or fewer steps than none.
    """
    if episodes < 1 or steps < 0:
        raise ValueError(f"episodes is {episodes} and steps {steps}, expected at least 1 and at least 0")
    rows = []
    unseen = HELD_OUT_SEED + seed
    for one in contestants:
        env = home.build(episodes, "test", unseen)
        try:
            tell = (progress or {}).get(one.name)
            row = evaluate(
                one.name, env, one.begin(env), seed=unseen, note=one.note, progress=tell, steps=steps or None
            )
        finally:
            env.close()
        rows.append(replace(row, world=home.id))
        if keep is not None:
            keep(rows)
    return rows


def chance(home: Home, seed: int) -> Contestant:
    """Random play, of the actions that were recorded."""
    recording = replace(home.recording, policy="random", seed=seed)
    return Contestant("random", lambda env: recorded_behaviour(recording, env, "test", home.id), "floor")


def expert(env: VectorEnv, shown: Home | None = None) -> list[Contestant]:
    """Who plays in an expert's video, if it can be asked: the oracle, an agent whose folder is there, or a script."""
    policy = "" if shown is None else shown.recording.policy
    note = "plans in the true simulator" if policy == "oracle" else "an agent, Mode-1"
    if shown is not None and (policy == "oracle" or Path(policy).is_dir()):
        recording, id = shown.recording, shown.id
        return [Contestant("expert", lambda env: recorded_behaviour(recording, env, "test", id), note)]
    return [Contestant("expert", ExpertBehaviour, "scripted")] if hasattr(env.unwrapped, "expert_action") else []


def planners_of(arena: Arena, settings: DreamPlanning, seed: int) -> list[Contestant]:
    """Every planner in the dream and in the true simulator, and chance.

    Raises:
        ValueError: The world has no outcome heads, or settings out of range.
    """
    if not has_outcomes(arena.folder):
        raise ValueError(
            f"{arena.folder} has not learned rewards, which plans are made for; go on with its training: "
            "forethought genie train DATA --resume --updates.outcomes 1000"
        )
    for name in ("horizon", "candidates", "iterations", "hold", "commit", "sampling_steps"):
        least = int(name != "sampling_steps")
        if getattr(settings, name) < least:
            raise ValueError(f"{name} is {getattr(settings, name)}, expected at least {least}")
    if not settings.planners or not 0 < settings.discount <= 1:
        raise ValueError(
            f"planners are {list(settings.planners)} and discount {settings.discount}; expected some, and a number "
            "above 0 up to 1"
        )
    found = [_in_dream(arena, settings, name, seed) for name in settings.planners]
    with_simulator = settings.simulator and _savable(arena.home)
    if with_simulator:
        # the simulator plays whole courses: where the dream is searched as a tree, CEM is the upper bound
        whole = dict.fromkeys("categorical_cem" if name in TREES else name for name in settings.planners)
        found += [_in_simulator(arena.home, settings, name, seed) for name in whole]
    return [*found, chance(arena.home, seed)]


def _in_dream(arena: Arena, settings: DreamPlanning, name: str, seed: int) -> Contestant:
    codes = known_codes(arena)
    planner = make_planner(name, spaces.Discrete(len(codes)))
    budget = Budget(settings.horizon, settings.candidates, settings.iterations, settings.hold)

    def begin(env: VectorEnv) -> Behaviour:
        inner = DreamBehaviour(
            arena.world, env.num_envs, planner, budget, settings.discount, seed, arena.device,
            arena.world.sampling_with(settings.sampling_steps, settings.temperature), settings.commit, codes,
        )  # fmt: skip
        return arena.latent(inner, env)

    return Contestant(f"dream, {name}", begin, "latent actions")


def known_codes(arena: Arena) -> list[int]:
    """Codes that labelled play shows in a hundredth of its steps at least: what others do, nobody knows and no part of
    the world has learned."""
    if arena.actions is None:
        return list(range(arena.world.actions))
    times = arena.actions.dictionary.counts.sum(1)
    return torch.nonzero(100 * times >= times.sum()).flatten().tolist()


def _in_simulator(home: Home, settings: DreamPlanning, name: str, seed: int) -> Contestant:
    thinking = Thinking(
        horizon=settings.horizon, candidates=settings.candidates, iterations=settings.iterations, hold=settings.hold,
        commit=settings.commit,
    )  # fmt: skip
    task = Task(discount=settings.discount, thinking=thinking)

    def begin(env: VectorEnv) -> Behaviour:
        planner = make_planner(name, env.single_action_space)  # type: ignore[arg-type]
        return plan_truly(env, home.id, replace(home.recording, seed=seed), "test", task, planner)

    return Contestant(f"simulator, {name}", begin, "true actions, upper bound")


def _savable(home: Home) -> bool:
    env = home.build(1, "test", 0)
    try:
        return isinstance(env.unwrapped, Savable)
    finally:
        env.close()


def world_of(folder: Path) -> Path:
    """The dream that a run was trained in.

    Raises:
        ValueError: It was not trained in a dream.
    """
    id = load_ppo(folder, "cpu").config.env.id if holds_ppo(folder) else load_agent(folder, device="cpu").config.env.id
    if id == "forethought/Genie-v0":
        return PRETRAINED
    if not id.startswith(_GENIE):
        raise ValueError(f"{folder} was trained in {id}, not in a dream; train in genie:WORLD or forethought/Genie-v0")
    return find_world(id.removeprefix(_GENIE))


def trained(arena: Arena, folder: Path, sample: bool, seed: int, modes: Sequence[Mode] = MODES) -> list[Contestant]:
    """The rows of a run that was trained in the arena's dream: PPO, or an agent in its modes.

    Raises:
        ValueError: It was trained in another dream, or no modes.
    """
    if not modes:
        raise ValueError(f"no modes; give some of {', '.join(MODES)}")
    who: Agent | Reactive = load_ppo(folder) if holds_ppo(folder) else load_agent(folder)
    shape = (arena.world.config.height, arena.world.config.width, 3)
    space = spaces.Discrete(arena.world.actions)
    if (who.spaces.shape, who.spaces.action) != (shape, space):
        raise ValueError(
            f"{folder} sees {who.spaces.shape} and takes {who.spaces.action}; {arena.folder} shows {shape} and takes "
            f"{space}; was the world trained again?"
        )
    if isinstance(who, Agent):
        return [_in_mode(arena, folder, who, mode, sample) for mode in modes]
    from .sb3 import PolicyBehaviour  # noqa: PLC0415  (imports Stable-Baselines3)

    policy = who.policy

    def begin(env: VectorEnv) -> Behaviour:
        return arena.latent(PolicyBehaviour(policy, space, seed, sample), env)

    return [Contestant(f"{folder.name}: ppo", begin, "trained in the dream")]


def _in_mode(arena: Arena, folder: Path, agent: Agent, mode: Mode, sample: bool) -> Contestant:
    def begin(env: VectorEnv) -> Behaviour:
        return arena.latent(agent.begin(env.num_envs, mode, sample and mode == "mode-1"), env)

    return Contestant(f"{folder.name}: {mode}", begin, "trained in the dream")


def rows_as_json(rows: Sequence[Result]) -> list[dict[str, Any]]:
    """Rows with their intervals and every return."""
    return [
        {
            "name": row.name,
            "note": row.note,
            "episodes": len(row.episodes),
            "return": _plain(mean_interval(row.returns)),
            "success": _plain(wilson(int(row.successes.sum()), len(row.episodes))),
            "milliseconds": row.milliseconds,
            "calls": row.calls,
            "returns": row.returns.tolist(),
        }
        for row in rows
    ]


def _plain(value: Interval) -> list[float | None]:
    return [value.mean, *((value.low, value.high) if value.known else (None, None))]
