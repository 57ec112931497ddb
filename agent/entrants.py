"""Several trained runs in one comparison: which of them are seeds of one setting, and which rows they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..envs.make import has_levels
from ..envs.rooms import Protocol
from ..modules.types import Gate
from .agent import Agent
from .calibration import calibrate, check_gates
from .checkpoint import decisions_of
from .comparison import CompareConfig, Player, bystanders, check_behaviours, modes_of, play
from .config import EnvConfig, RunConfig, Saving
from .configuring import configured
from .constant import best_constant
from .evaluation import Progress, Result, Split
from .policies import check_distil, distilled
from .ppo import Reactive, reactive_player
from .protocols import check_room_behaviours


@dataclass(frozen=True)
class Entrant:
    """A trained run that takes part."""

    folder: Path
    agent: Agent | Reactive
    """What it trained: an agent, or a policy of Stable-Baselines3."""
    name: str | None = None
    """Of its setting, where the user gave one."""

    @property
    def world(self) -> EnvConfig:
        """Where it was trained."""
        return self.agent.config.env

    @property
    def steps(self) -> int:
        """Environment steps (frames) of its training, 0 where the folder does not say."""
        return decisions_of(self.folder) * self.world.action_repeat


def prefixes(entrants: Sequence[Entrant]) -> list[str]:
    """What stands before the row names of each entrant: its setting, or nothing where all are of one.

    Runs that differ only in seed, world, device and threads are of one setting, unless their user named them
    differently. A setting without a name is called after the folder of its first run.
    """
    keys = [_setting(entrant) for entrant in entrants]
    found = []
    for entrant, key in zip(entrants, keys, strict=True):
        rivals = {k for other, k in zip(entrants, keys, strict=True) if type(other.agent) is type(entrant.agent)}
        first = entrants[keys.index(key)]
        found.append(f"{first.name or _called(first, entrants)}: " if len(rivals) > 1 else "")
    return found


def _setting(entrant: Entrant) -> object:
    if entrant.name is not None:
        return type(entrant.agent), entrant.name
    config = entrant.agent.config
    if isinstance(config, RunConfig):
        config = replace(config, saving=Saving())
    return replace(config, seed=0, device="", threads=1, env=replace(config.env, id="", actions=()))


def _called(entrant: Entrant, entrants: Sequence[Entrant]) -> str:
    """The last part of the folder, or the last two where others end alike."""
    alike = sum(other.folder.name == entrant.folder.name for other in entrants) > 1
    return "/".join(entrant.folder.absolute().parts[-2 if alike else -1 :])


def calibrations(
    entrants: Sequence[Entrant], config: CompareConfig, progress: Mapping[str, Progress] | None = None
) -> dict[Path, dict[float, Gate]]:
    """The gates that the config asks for, by run folder and share.

    Args:
        entrants: Who takes part; only agents have gates.
        config: Says which gates.
        progress: By `gate_names`, told of decisions.
    """
    found: dict[Path, dict[float, Gate]] = {}
    told = progress or {}
    for entrant in entrants:
        if isinstance(entrant.agent, Agent):
            found[entrant.folder] = {
                share: calibrate(entrant.agent, share, config.signals, progress=told.get(_gate(entrant, share)))
                for share in config.gates
            }
    return found


def gate_names(entrants: Sequence[Entrant], config: CompareConfig) -> list[str]:
    """What is to be calibrated, for progress bars."""
    return [_gate(e, share) for e in entrants if isinstance(e.agent, Agent) for share in config.gates]


def _gate(entrant: Entrant, share: float) -> str:
    return f"gate {100 * share:g} %, {entrant.folder}"


def pupils(
    entrants: Sequence[Entrant], config: CompareConfig, progress: Mapping[str, Progress] | None = None
) -> dict[Path, Agent]:
    """The agents whose policies have learned plans, by run folder; none where the config asks for none.

    Args:
        entrants: Who takes part; only agents plan.
        config: Says how many plans.
        progress: By `pupil_names`, told of plans.
    """
    told = progress or {}
    agents = [(e, e.agent) for e in entrants if isinstance(e.agent, Agent) and config.distil]
    return {e.folder: distilled(agent, config.distil, told.get(_pupil(e))) for e, agent in agents}


def pupil_names(entrants: Sequence[Entrant], config: CompareConfig) -> list[str]:
    """Who is to be taught, for progress bars."""
    return [_pupil(e) for e in entrants if isinstance(e.agent, Agent) and config.distil]


def _pupil(entrant: Entrant) -> str:
    return f"distilling, {entrant.folder}"


def constants(
    entrants: Sequence[Entrant], config: CompareConfig, progress: Mapping[str, Progress] | None = None
) -> dict[str, int]:
    """The best constant action of each world, by its id; none where the config asks for none.

    Args:
        entrants: Whose worlds.
        config: Says whether.
        progress: By `constant_names`, told of actions.
    """
    told = progress or {}
    worlds = {id: _home(entrants, id)[0] for id in _worlds(entrants) if "constant" in config.behaviours}
    seed = config.seed + config.episodes
    return {id: best_constant(world, seed, progress=told.get(_constant(id))) for id, world in worlds.items()}


def constant_names(entrants: Sequence[Entrant], config: CompareConfig) -> list[str]:
    """Where constant actions are to be tried, for progress bars."""
    return [_constant(id) for id in _worlds(entrants) if "constant" in config.behaviours]


def _constant(id: str) -> str:
    return f"constant actions, {id}"


def _worlds(entrants: Sequence[Entrant]) -> list[str]:
    return list(dict.fromkeys(entrant.world.id for entrant in entrants))


def _home(entrants: Sequence[Entrant], id: str) -> tuple[EnvConfig, Agent | None]:
    """A world as its first agent knows it, and that agent; as the first policy knows it where there is no agent."""
    mine = [entrant for entrant in entrants if entrant.world.id == id]
    lender = next((entrant.agent for entrant in mine if isinstance(entrant.agent, Agent)), None)
    return (mine[0].world if lender is None else lender.config.env), lender


def players_of(
    entrants: Sequence[Entrant],
    config: CompareConfig,
    gates: Mapping[Path, Mapping[float, Gate]] | None = None,
    taught: Mapping[Path, Agent] | None = None,
    held: Mapping[str, int] | None = None,
) -> list[Player]:
    """Everybody who plays: the modes of each run, then those that were not trained, once for each world.

    Args:
        entrants: The runs.
        config: Says which rows.
        gates: From `calibrations`; None: calibrate here.
        taught: From `pupils`; None: teach here.
        held: From `constants`; None: find them here.

    Raises:
        ValueError: A budget too small for an agent's plans.
    """
    players: list[Player] = []
    for entrant, prefix in zip(entrants, prefixes(entrants), strict=True):
        if isinstance(entrant.agent, Agent):
            own = None if gates is None else gates[entrant.folder]
            pupil = None if taught is None else taught.get(entrant.folder)
            players += modes_of(entrant.agent, config, prefix, str(entrant.folder), entrant.steps, own, pupil)
        else:
            players.append(reactive_player(entrant.agent, prefix, str(entrant.folder), entrant.steps))
    for id in _worlds(entrants):
        players += bystanders(*_home(entrants, id), config, None if held is None else held.get(id))
    return players


def check_entrants(
    entrants: Sequence[Entrant], config: CompareConfig, protocols: Mapping[str, Protocol | None]
) -> None:
    """Refuse before the work what would fail after it.

    Args:
        entrants: Who takes part.
        config: What is compared.
        protocols: Of the rooms, by world.

    Raises:
        ValueError: A behaviour that does not exist or that a world does not have; a budget below 0 or given twice; a
            run given twice; worlds of one name and different options.
    """
    if any(budget < 0 for budget in config.budgets) or len(set(config.budgets)) < len(config.budgets):
        given = " ".join(map(str, config.budgets))
        raise ValueError(f"--budgets is {given}, expected different numbers of predictor calls from 0 up, 0 64 256 say")
    folders = [entrant.folder.absolute() for entrant in entrants]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"run {folder} is given twice; name each folder once")
    looks: dict[str, str] = {}
    for entrant in entrants:
        id, look = entrant.world.id, _look(entrant.world)
        if looks.setdefault(id, look) != look:
            raise ValueError(f"runs of {id} were trained in worlds of {looks[id]} and {look}; compare runs of one")
        protocol = protocols[id]
        if protocol is None:
            check_behaviours(config.behaviours, id, entrant.agent.spaces)
        elif isinstance(entrant.agent, Agent):
            check_room_behaviours(config.behaviours, entrant.agent, protocol)
        if isinstance(entrant.agent, Agent):
            check_gates(entrant.agent, config.gates, config.signals)
            if config.distil:
                check_distil(entrant.agent, config.distil)
            for file in config.configurations:
                configured(entrant.agent, Path(file))
            if "gated" in config.behaviours and not (config.gates or entrant.agent.config.task.thinking.gate.open):
                raise ValueError(
                    f"gated was asked for and {entrant.folder} has no gate; give shares to plan, --gates 0.1 0.3"
                )
    if "oracle" in config.behaviours and not any(isinstance(entrant.agent, Agent) for entrant in entrants):
        raise ValueError("the oracle plans with an agent's planner and budget, and no agent was given; leave it out")


def _look(world: EnvConfig) -> str:
    """What tells worlds of one id apart, besides their levels."""
    found = [f"mode {world.distribution_mode}"]
    found += [] if world.backgrounds else ["no backgrounds"]
    found += ["one theme"] if world.one_theme else []
    return ", ".join(found)


def turns(players: Sequence[Player], config: CompareConfig) -> dict[str, tuple[Player, Split]]:
    """Who plays which levels, under a name of its own for the progress bars; trained players play theirs as well."""
    found: dict[str, tuple[Player, Split]] = {}
    worlds = {player.world.id for player in players}
    for player in players:
        several = sum((p.name, p.world.id) == (player.name, player.world.id) for p in players) > 1
        name = " ".join([player.name, *([player.world.id] * (len(worlds) > 1)), *([player.run] * several)])
        found[name] = (player, "unseen")
        if config.train_levels and player.run and has_levels(player.world.id):
            found[f"{name}, training levels"] = (player, "train")
    return found


def compare_runs(
    whose: Mapping[str, tuple[Player, Split]],
    config: CompareConfig,
    protocols: Mapping[str, Protocol | None],
    progress: Mapping[str, Progress] | None = None,
) -> Iterator[Result]:
    """Play turn after turn; the first run of each row is filmed.

    Args:
        whose: From `turns`.
        config: How much, and from which seed.
        protocols: Of the rooms, by world.
        progress: By turn, told of finished episodes.
    """
    filmed: set[Any] = set()
    for name, (player, split) in whose.items():
        row = (player.name, player.world.id)
        quiet = replace(config, film=config.film if row not in filmed and split == "unseen" else 0)
        filmed.add(row)
        yield play(player, quiet, protocols[player.world.id], split, (progress or {}).get(name))
