"""Learning to configure (level 3 of the ladder): an evolution strategy on realised cost over whole episodes.

What a configuration costs is the intrinsic cost that was really felt, under the *scripted* drive weights (else the
cheapest would be not to care), plus a stated price for every thousand predictor calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..modules.configurator import Configurator, Task
from ..modules.cost import goal_distance, interoception
from ..modules.knobs import settings_of, turned
from ..modules.types import Mode, State
from .agent import Agent
from .budgets import retask
from .calibration import SEED
from .checkup import HELD_OUT_SEED
from .evolution import Evolution
from .interaction import Step, interact
from .statistics import Interval, mean_interval
from .storage import from_json, read_json, to_json, write_atomically
from .worlds import build_env

FORMAT = 1


@dataclass(frozen=True)
class ConfigureConfig:
    """How a configuration is learned."""

    knobs: tuple[str, ...] = (
        "thinking.horizon",
        "thinking.candidates",
        "thinking.iterations",
        "thinking.proposals",
        "thinking.commit",
        "thinking.gate.entropy",
    )
    """What it may set: thinking.horizon, .candidates, .iterations, .hold, .proposals, .commit, .risk,
    .habit, thinking.gate.entropy, .variance, .spread, .surprise, and the drive weights pleasure, ending, effort."""
    generations: int = 8
    """Generations of the evolution strategy."""
    pairs: int = 4
    """Antithetic pairs of configurations in each."""
    episodes: int = 8
    """Training episodes that each of them plays; the same for all of a generation."""
    held_out: int = 64
    """Held-out episodes on which the learned configuration is measured beside the scripted one."""
    price: float = 0.01
    """What a thousand predictor calls cost, in units of intrinsic cost (reward)."""
    width: float = 0.2
    """Standard deviation of the first generation, as a share of every knob's range."""
    longest: int = 500
    """Decisions after which an episode is not waited for any more."""
    seed: int = 0
    """Of the draws; training episodes follow from it and the run's seed."""


@dataclass(frozen=True)
class Realised:
    """What a configuration cost in some episodes.

    Attributes:
        felt: Intrinsic cost of each episode under the scripted weights ``[episodes]``.
        total: The same with the price of thinking ``[episodes]``.
        returns: Reward of each ``[episodes]``.
        calls: Predictor calls per decision.
    """

    felt: NDArray[np.float64]
    total: NDArray[np.float64]
    returns: NDArray[np.float64]
    calls: float


@dataclass(frozen=True)
class Learned:
    """A configuration that was learned, always with the scripted one beside it.

    Attributes:
        scripted: The task as a person configured it.
        learned: The task as the outer loop configured it.
        config: How it was learned.
        evolution: Where the search is.
        history: Mean realised cost of each generation.
        measured: On held-out episodes, when it is finished: by name ``scripted``, ``learned`` and ``saved`` (scripted
            less learned, episode by episode) the mean and the bounds of its 95 % interval.
    """

    scripted: Task
    learned: Task
    config: ConfigureConfig
    evolution: Evolution
    history: tuple[float, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)


def mode_of(task: Task) -> Mode:
    """How an agent acts under a configuration: gated where it has a gate, else Mode-2."""
    return "gated" if task.thinking.gate.open else "mode-2"


def realise(
    agent: Agent, task: Task, episodes: int, seed: int, *, held_out: bool, price: float, longest: int = 500
) -> Realised:
    """Act under a configuration for whole episodes, one in each environment, and add up what is felt.

    Args:
        agent: Whose task is the scripted one: its weights say what counts.
        task: The configuration to act under.
        episodes: How many, side by side.
        seed: Of levels (or starts); equal seeds play equal episodes.
        held_out: On levels that training cannot see.
        price: Of a thousand predictor calls.
        longest: Decisions after which an episode counts as it is.
    """
    env = build_env(agent.config.env, episodes, seed=seed, held_out=held_out)
    felt, returns, calls, decisions = np.zeros(episodes), np.zeros(episodes), 0, 0
    active = np.ones(episodes, np.bool_)
    try:
        acting = retask(agent, task).begin(episodes, mode_of(task))
        for step in interact(env, acting, active, seed=seed):
            felt += np.where(active, intrinsic(agent, step), 0.0)
            returns += np.where(active, step.reward, 0.0)
            calls += step.decision.calls
            decisions += int(active.sum())
            active &= ~step.ended
            longest -= 1
            if longest <= 0 or not active.any():
                break
    finally:
        env.close()
    each = calls / episodes  # the batch's calls are not told apart by episode
    return Realised(felt, felt + price * each / 1_000, returns, calls / decisions)


def intrinsic(agent: Agent, step: Step) -> NDArray[np.float64]:
    """u·IC(ι) ``[B]`` that a step really made the agent feel, under the scripted weights."""
    m, device = agent.modules, agent.device
    action = torch.from_numpy(np.asarray(step.action)).to(device)
    distance, goal = None, None
    with torch.no_grad():
        if agent.config.task.goals:
            history = agent.config.perception.history
            here, there = (
                m.perception.encode(torch.from_numpy(np.repeat(np.asarray(x)[:, None], history, 1)).to(device))
                for x in (step.observation["observation"], step.observation["desired_goal"])
            )
            goal, distance = State(there.latent), goal_distance(here.latent, there.latent)
        reward, ended = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (step.reward, step.terminated))
        effort = m.world_model.actions.effort(m.world_model.actions(action))
        felt = () if step.sensors is None else torch.from_numpy(step.sensors).to(device).unbind(-1)
        measured = dict(zip(m.world_model.sensors, felt, strict=False))  # a goal task has no heads for them
        iota = interoception(reward, ended, effort, distance, **measured)
        u = Configurator(agent.config.task)("mode-1", goal, device).u
        return m.intrinsic_cost(iota, u).sum(-1).cpu().numpy().astype(np.float64)


def begin(agent: Agent, config: ConfigureConfig) -> Learned:
    """A search that starts at the scripted configuration.

    Raises:
        ValueError: Settings that cannot work.
    """
    check_configure(agent, config)
    task = agent.config.task
    start = tuple(settings_of(task, config.knobs))
    search = Evolution(start, (config.width,) * len(start), seed=config.seed, pairs=config.pairs)
    return Learned(task, task, config, search)


def check_configure(agent: Agent, config: ConfigureConfig) -> None:
    """Refuse what cannot work.

    Raises:
        ValueError: Names the option.
    """
    settings_of(agent.config.task, config.knobs)
    model = agent.config.world_model
    lone = {"thinking.gate.variance": model.members < 2, "thinking.risk": model.members < 2 and model.codes < 2}
    for name in lone.keys() & set(config.knobs):
        if lone[name]:
            raise ValueError(f"--knobs has {name}, and the world model is no ensemble; leave it out")
    for name in {"pleasure"} & set(config.knobs):
        if agent.config.task.goals:
            raise ValueError(f"--knobs has {name}, and the task is about goals; leave it out")
    for name in ("generations", "pairs", "episodes", "held_out", "longest"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least 1")
    if config.price < 0 or not 0 < config.width <= 0.5 or config.seed < 0:
        raise ValueError(
            f"--price is {config.price}, --width {config.width} and --seed {config.seed}; expected a price and a seed "
            "from 0 up and a width above 0 and at most 0.5"
        )


def generation(agent: Agent, learned: Learned, told: Callable[[int, int], None] = lambda done, total: None) -> Learned:
    """One generation: try its configurations on the same training episodes, and move on.

    Args:
        agent: Whose configuration is learned; it is left alone.
        learned: Where the search is.
        told: Of configurations tried, of all.
    """
    config, search = learned.config, learned.evolution
    asked = search.ask()
    seed = SEED + 10_000 * (1 + agent.config.seed) + search.generation * config.episodes
    costs = []
    for index, settings in enumerate(asked):
        task = turned(learned.scripted, dict(zip(config.knobs, settings.tolist(), strict=True)))
        found = realise(agent, task, config.episodes, seed, held_out=False, price=config.price, longest=config.longest)
        costs.append(float(found.total.mean()))
        told(search.generation * len(asked) + index + 1, config.generations * len(asked))
    after = search.tell(costs)
    task = turned(learned.scripted, dict(zip(config.knobs, after.mean, strict=True)))
    return replace(learned, learned=task, evolution=after, history=(*learned.history, float(np.mean(costs))))


def measure(agent: Agent, learned: Learned) -> Learned:
    """Measure scripted and learned configuration on the same held-out episodes."""
    config = learned.config
    rows = {
        name: realise(
            agent, task, config.held_out, HELD_OUT_SEED, held_out=True, price=config.price, longest=config.longest
        )
        for name, task in (("scripted", learned.scripted), ("learned", learned.learned))
    }
    told: dict[str, Any] = {
        name: {
            "cost": _bounds(row.total),
            "felt": _bounds(row.felt),
            "return": _bounds(row.returns),
            "calls": row.calls,
        }
        for name, row in rows.items()
    }
    told["saved"] = {"cost": _bounds(rows["scripted"].total - rows["learned"].total)}
    return replace(learned, measured=told)


def _bounds(values: NDArray[np.float64]) -> list[float]:
    interval: Interval = mean_interval(values)
    return [interval.mean, interval.low, interval.high]


def verdict(learned: Learned) -> str:
    """What came of it, in one sentence."""
    mean, low, high = learned.measured["saved"]["cost"]
    told = f"{mean:.3g} ({low:.3g} … {high:.3g}) per held-out episode"
    if low > 0:
        return f"the learned configuration saves {told}"
    return f"the learned configuration costs more: {told}" if high < 0 else f"a tie: the learned one saves {told}"


def save(learned: Learned, path: Path) -> None:
    """Write both configurations, and where the search is, as JSON.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, **asdict(learned)}
    write_atomically(path, json.dumps(to_json(content), indent=2).encode())


def load(path: Path) -> Learned:
    """Undo `save`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; forethought configure RUN writes one")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no configuration of format {FORMAT}; make it again with forethought configure RUN")
    try:
        config = dict(content["config"]) | {"knobs": tuple(content["config"]["knobs"])}
        search = dict(content["evolution"])
        search |= {name: tuple(float(x) for x in search[name]) for name in ("mean", "width")}
        return Learned(
            from_json(Task, content["scripted"], "scripted"),
            from_json(Task, content["learned"], "learned"),
            ConfigureConfig(**config),
            Evolution(**search),
            tuple(float(x) for x in content["history"]),
            dict(content["measured"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); make it again with forethought configure RUN") from error


def configured(agent: Agent, path: Path) -> Task:
    """The learned configuration in a file, if it can be this agent's.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged, or was learned for an agent of another kind.
    """
    task = load(path).learned
    if task.goals != agent.config.task.goals:
        about = ("reward", "goals")
        raise ValueError(f"{path} is about {about[task.goals]} and the agent about {about[not task.goals]}")
    gate, model = task.thinking.gate, agent.config.world_model
    alone = model.members < 2
    if alone and ((task.thinking.risk and model.codes < 2) or gate.variance is not None):
        raise ValueError(f"{path} weighs what an ensemble's members disagree about, and this agent has no ensemble")
    return task


def differing(scripted: Task, learned: Task) -> list[tuple[str, Any, Any]]:
    """Where two configurations differ: name, scripted and learned value."""
    return [(name, one, other) for name, one, other in _pairs(asdict(scripted), asdict(learned), "") if one != other]


def _pairs(one: dict[str, Any], other: dict[str, Any], where: str) -> Sequence[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name, value in one.items():
        if isinstance(value, dict):
            found += _pairs(value, other[name], f"{where}{name}.")
        else:
            found.append((f"{where}{name}", value, other[name]))
    return found
