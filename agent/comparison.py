"""Comparisons: who is measured beside whom, in which worlds, on which levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..envs.make import has_levels
from ..envs.rooms import Protocol, sample_pairs
from ..modules.types import DOUBTS, Gate, Mode
from .agent import Agent
from .budgets import retask, search_of, thought_of, with_budget
from .calibration import Signal, calibrate, with_gate
from .checkpoint import check_same_world
from .checkup import HELD_OUT_SEED
from .config import EnvConfig
from .configuring import configured, mode_of
from .constant import ConstantBehaviour, best_constant, check_constant
from .evaluation import Progress, Result, Split, evaluate
from .interaction import Behaviour, RandomBehaviour, VectorEnv
from .oracle import ExpertBehaviour, OracleBehaviour
from .policies import distilled
from .protocols import NoOpBehaviour
from .report import References
from .scores import Normalisation, normalisation, published_ppo
from .spaces import Spaces
from .worlds import build_env, spaces_of


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and on how much."""

    behaviours: tuple[str, ...] = ("mode-1", "mode-2", "random", "constant", "oracle")
    """Rows: mode-1, mode-2, gated (plans where in doubt), random, constant (the one action that does best on training
    levels), oracle (Procgen: the true simulator), no-op or expert (rooms)."""
    episodes: int = 32
    """Episodes per row, run and split."""
    oracle_episodes: int = 8
    """Episodes of the oracle, which is slow."""
    seed: int = HELD_OUT_SEED
    """Seed of the levels (or starts); the same for every row."""
    film: int = 300
    """Pictures kept of each row's first episode for the video."""
    budgets: tuple[int, ...] = ()
    """More rows of Mode-2, with so many predictor calls per decision; 0 is Mode-1. The planning-scaling curve:
    0 64 256 1024 4096."""
    gates: tuple[float, ...] = ()
    """Rows of the gated mode: shares of decisions to plan, 0.1 0.3 0.5 say. Thresholds are the quantiles above which so
    many doubts lie while training levels (or starts) are played."""
    signals: tuple[Signal, ...] = ("surprise",)
    """What these gates look at: entropy (of the policy), spread (of the critic), variance (of an ensemble),
    surprise (a state worse than the world model expected)."""
    gate_controls: bool = True
    """Beside each of them a row that plans as often, but when chance has it."""
    configurations: tuple[str, ...] = ()
    """More rows, one for each file that forethought configure wrote (RUN/configure/level-3.json)."""
    distil: int = 0
    """One more row: Mode-1 when its policy has learned so many plans of Mode-2, made on training levels (or starts)."""
    train_levels: bool = False
    """Procgen: play the levels of training as well, and show the gap."""


BEHAVIOURS = ("mode-1", "mode-2", "gated", "random", "constant", "oracle", "expert")
_ROOMS = {"TwoRoom", "DotWall", "forethought/TwoRoom-v0", "forethought/DotWall-v0"}


@dataclass(frozen=True)
class Player:
    """Who plays a row: how it begins to act in a world, and what a reader must know about it."""

    name: str
    """Of the row."""
    world: EnvConfig
    """Where it plays, and how it sees that world."""
    begin: Callable[[VectorEnv], Behaviour]
    """Its behaviour in an environment."""
    run: str = ""
    """Training run; empty for those that were not trained."""
    steps: int = 0
    """Environment steps of training."""
    note: str = ""
    slow: bool = False
    """Plays `oracle_episodes` episodes."""


def compare(agent: Agent, config: CompareConfig, progress: Mapping[str, Progress] | None = None) -> list[Result]:
    """Run each behaviour on the same unseen levels, one episode in each environment.

    Args:
        agent: The same agent serves both modes.
        config: What to compare.
        progress: Per row, told of finished episodes.

    Raises:
        ValueError: An unknown behaviour, or one that this world does not have.
    """
    check_behaviours(config.behaviours, agent.config.env.id, agent.spaces)
    players = modes_of(agent, config) + bystanders(agent.config.env, agent, config)
    ordered = sorted(players, key=lambda player: _place(player.name, config.behaviours))
    return [play(player, config, progress=(progress or {}).get(player.name)) for player in ordered]


def _place(name: str, behaviours: Sequence[str]) -> int:
    return next((index for index, known in enumerate(behaviours) if name.startswith(known)), len(behaviours))


def play(
    player: Player,
    config: CompareConfig,
    protocol: Protocol | None = None,
    split: Split = "unseen",
    progress: Progress | None = None,
) -> Result:
    """Measure one row: as many environments as episodes, one episode in each.

    Args:
        player: Who plays.
        config: How much, and from which seed.
        protocol: Rooms: law of start and goal, and the verdict; None elsewhere.
        split: Unseen levels, or those of training.
        progress: Told of finished episodes.

    Raises:
        ValueError: The player was made for another world.
    """
    world = player.world
    count = min(config.oracle_episodes, config.episodes) if player.slow else config.episodes
    options: dict[str, Any] | None = None
    if protocol is not None:
        env: VectorEnv = protocol.make(count, render_mode="rgb_array" if config.film else None)
        options = dict(sample_pairs(protocol, count, config.seed, split="held_out").options(slice(0, count)))
    else:
        mode = _film_mode(world) if config.film else None
        env = build_env(world, count, seed=config.seed, held_out=split == "unseen", render_mode=mode)
    try:
        result = evaluate(
            player.name,
            env,
            player.begin(env),
            seed=config.seed,
            options=options,
            film=config.film,
            progress=progress,
            note=player.note,
        )
    finally:
        env.close()
    return replace(result, world=world.id, run=player.run, split=split, steps=player.steps)


def modes_of(
    agent: Agent,
    config: CompareConfig,
    prefix: str = "",
    run: str = "",
    steps: int = 0,
    gates: Mapping[float, Gate] | None = None,
    pupil: Agent | None = None,
) -> list[Player]:
    """The rows of one trained agent: its modes, its gates and its budgets.

    Args:
        agent: Serves all of them.
        config: Says which.
        prefix: Before the rows' names, where settings are compared.
        run: Its run folder.
        steps: Environment steps of its training.
        gates: By share of decisions to plan, calibrated before; None: calibrate what the config asks for.
        pupil: The agent with a policy that has learned plans; None: teach it here if the config asks for it.

    Raises:
        ValueError: A budget too small for the agent's plans, or gates that cannot be calibrated.
    """
    world = agent.config.env

    def player(name: str, mode: Mode, acting: Agent, note: str) -> Player:
        def begin(env: VectorEnv) -> Behaviour:
            check_same_world(acting, spaces_of(env), world.id)
            return acting.begin(env.num_envs, mode)

        drawn = "acts by chance" * acting.config.task.thinking.sample
        return Player(prefix + name, world, begin, run, steps, _joined(drawn, note))

    players = []
    if "mode-1" in config.behaviours or 0 in config.budgets:
        players.append(player("mode-1", "mode-1", agent, _held(world)))
    if config.distil:
        taught = distilled(agent, config.distil) if pupil is None else pupil
        players.append(player("mode-1 · distilled", "mode-1", taught, f"has learned {config.distil} plans"))
    if "mode-2" in config.behaviours:
        players.append(player("mode-2", "mode-2", agent, _joined(thought_of(agent), _held(world))))
    if "gated" in config.behaviours and (agent.config.task.thinking.gate.open or not config.gates):
        players.append(
            player("gated", "gated", agent, _joined(_told(agent.config.task.thinking.gate), thought_of(agent)))
        )
    if gates is None:
        gates = {share: calibrate(agent, share, config.signals) for share in config.gates}
    for share, gate in gates.items():
        about = _joined(_told(gate), thought_of(agent))
        players.append(player(f"gated · {100 * share:g} %", "gated", with_gate(agent, gate), about))
        if config.gate_controls:
            chance = with_gate(agent, Gate(chance=share))
            players.append(player(f"random-gate · {100 * share:g} %", "gated", chance, "plans when chance has it"))
    for file in config.configurations:
        task = configured(agent, Path(file))
        who = retask(agent, task)
        about = _joined(_told(task.thinking.gate), thought_of(who))
        players.append(player(f"configured · {Path(file).stem}", mode_of(task), who, about))
    for calls in config.budgets:
        if calls:
            other = with_budget(agent, calls)
            players.append(player(f"mode-2 · {calls} calls", "mode-2", other, thought_of(other)))
    return players


def bystanders(
    world: EnvConfig, agent: Agent | None, config: CompareConfig, constant: int | None = None
) -> list[Player]:
    """The rows that were not trained: chance, standing still, and the upper bounds.

    Args:
        world: Where they play.
        agent: Lends the oracle its task, planner and budget; without one there is no oracle.
        config: Says which.
        constant: The action that is held for ever, found before; None: find it here if the config asks for it.
    """
    seed = config.seed
    if constant is None and "constant" in config.behaviours:
        constant = best_constant(world, seed + config.episodes)  # starts of its own where there are no levels

    def oracle(env: VectorEnv) -> Behaviour:
        assert agent is not None
        task = agent.config.task
        simulator = build_env(world, task.thinking.candidates, seed=seed, held_out=True, action_repeat=1)
        return OracleBehaviour(env, simulator, task, world.action_repeat, seed, agent.planner)

    def chance(env: VectorEnv) -> Behaviour:
        return RandomBehaviour(env.single_action_space, env.num_envs, seed, 1)

    found = {  # chance has all buttons, as in what is published, and a row of its own with those of the agent
        "random": Player("random", replace(world, actions=()), chance, note=_held(world)),
        "no-op": Player("no-op", world, NoOpBehaviour, note="stands still"),
        "expert": Player("expert", world, ExpertBehaviour, note="scripted, knows the state"),
    }
    if constant is not None:
        action = world.actions[constant] if world.actions else constant
        chosen = "training levels" if has_levels(world.id) else "other starts"
        about = _joined(f"always action {action}, the best on {chosen}", _held(world))
        found["constant"] = Player("constant", world, lambda env: ConstantBehaviour(constant, env.num_envs), note=about)
    if agent is not None:
        found["oracle"] = Player("oracle", world, oracle, note=f"true simulator, {search_of(agent)}", slow=True)
    players = [found[name] for name in config.behaviours if name in found]
    if "random" in config.behaviours and world.actions:  # what an agent owes to its few buttons alone
        fewer = replace(found["random"], name=f"random · {len(world.actions)} buttons", world=world)
        players.insert(players.index(found["random"]) + 1, fewer)
    return players


def check_behaviours(names: Sequence[str], id: str, spaces: Spaces) -> None:
    """Refuse behaviours that do not exist or that this world does not have.

    Raises:
        ValueError: Names the behaviour.
    """
    for name in names:
        if name not in BEHAVIOURS:
            raise ValueError(f"unknown behaviour {name!r}; choose from {', '.join(BEHAVIOURS)}")
        if name == "oracle" and not has_levels(id):
            raise ValueError(f"{id} has no oracle, which needs a simulator that can be saved (Procgen); leave it out")
        if name == "expert" and id not in _ROOMS:
            raise ValueError(f"{id} has no expert (only the rooms have); leave it out")
        if name == "constant":
            check_constant(spaces.action, id)


def references_for(players: Sequence[Player]) -> References:
    """What was published about the players' worlds."""
    worlds = {player.world.id: player.world for player in players if _as_published(player.world)}
    scales: dict[str, Normalisation | None] = {
        id: normalisation(id, world.distribution_mode) for id, world in worlds.items()
    }
    curves = {id: published_ppo(id, world.distribution_mode) for id, world in worlds.items()}
    return References(scales.get, {id: curve for id, curve in curves.items() if curve})


def _as_published(world: EnvConfig) -> bool:
    """Whether it looks as it did for those who published: with backgrounds and all themes."""
    return world.backgrounds and not world.one_theme


def _film_mode(world: EnvConfig) -> str | None:
    """Worlds whose observation is not a picture are drawn for the film, where they can draw."""
    env = build_env(world, 1, seed=0, held_out=False)
    modes = env.metadata.get("render_modes", ())
    seen = spaces_of(env)
    env.close()
    return "rgb_array" if "rgb_array" in modes and (seen.goals or not seen.pixels) else None


def _told(gate: Gate) -> str:
    named = {name: limit for name, limit in zip(DOUBTS, gate.thresholds, strict=True) if limit is not None}
    reasons = [f"{name} above {limit:.3g}" for name, limit in named.items()]
    if gate.chance is not None:
        reasons.append(f"chance ({gate.chance:g}) has it")
    return f"plans where {' or '.join(reasons)}" if reasons else ""


def _held(world: EnvConfig) -> str:
    repeat = world.action_repeat
    return f"actions held for {repeat} frames" if repeat > 1 else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
