"""The commands that compare: `forethought compare` and its baseline, `forethought ppo`."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from .agent import run
from .agent.comparison import CompareConfig, Player, references_for
from .agent.config import EnvConfig
from .agent.entrants import (
    Entrant,
    calibrations,
    check_entrants,
    compare_runs,
    constant_names,
    constants,
    gate_names,
    players_of,
    pupil_names,
    pupils,
    turns,
)
from .agent.evaluation import Result, Split
from .agent.ppo import PPOConfig, check_ppo, holds_ppo, load_ppo, train_ppo, whole_rollouts
from .agent.pretrained import FOLDER, pretrained, pretrained_names
from .agent.protocols import ROOM_BEHAVIOURS, find_protocol
from .agent.report import tables, write_report
from .commands import (
    PROTOCOL_NAMES,
    Changes,
    check_folder,
    check_numbers,
    default_folder,
    load_changed,
    read_progress,
    read_settings,
    title_of,
)
from .envs.make import has_levels
from .envs.rooms import Protocol
from .options import UsageError, given_all, leading, parse, wants_help
from .progress import RowProgress, StepProgress

PRETRAINED_NAMES = ", ".join(pretrained_names())


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Options of `forethought compare`."""

    settings: Annotated[CompareConfig, tyro.conf.arg(name="")]
    changes: Annotated[Changes, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Changes)
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: RUN/compare)")] = None
    """Where the report goes."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=f"({PROTOCOL_NAMES})")] = None
    """Rooms: how success is measured; by default the hardest that the room has."""
    pretrained: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME …", help_behavior_hint=f"({PRETRAINED_NAMES})")
    ] = ()
    """Agents that come along, beside or in place of runs."""


@dataclasses.dataclass(frozen=True)
class PPOOptions:
    """Options of `forethought ppo`: where, and all settings."""

    settings: Annotated[PPOConfig, tyro.conf.arg(name="")]
    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/ENV/seedN-ppo)")] = (
        None
    )
    """Run folder."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the run that the folder holds."""


def compare(arguments: Sequence[str], console: Console) -> int:
    """`forethought compare RUN …`."""
    about = (
        "Compare runs in all their modes and budgets with random play and an upper bound, where none of them has been; "
        "writes a report. Several runs that differ only in seed or world are one setting; NAME=FOLDER names settings. "
        "Folders of forethought ppo take part as well."
    )
    subjects, rest = leading(arguments)
    runs = [_named_run(argument) for argument in subjects]
    runs += [(None, pretrained(name)) for name in given_all("--pretrained", rest)]
    if not runs and not wants_help(rest):
        raise UsageError(
            "compare needs a run folder first: forethought compare RUN …; forethought train prints it, and "
            "--pretrained names agents that come along"
        )
    prog = shlex.join(["forethought", "compare", *(subjects or ["RUN"])])
    if wants_help(rest) and not (runs and all(folder.is_dir() for _, folder in runs)):
        parse(CompareOptions, CompareOptions(CompareConfig()), rest, prog, about)
    default = CompareOptions(default_comparison([_world_of(folder) for _, folder in runs]))
    options = parse(CompareOptions, default, rest, prog, about)
    config, out = options.settings, options.out or _beside(runs[0][1]) / "compare"
    entrants = [_entrant(name, folder, options.changes) for name, folder in runs]
    protocols = {entrant.world.id: find_protocol(options.protocol, entrant.world.id) for entrant in entrants}
    check_numbers(config)
    check_entrants(entrants, config, protocols)
    with RowProgress(gate_names(entrants, config), console, "decisions") as progress:
        gates = calibrations(entrants, config, progress)
    with RowProgress(pupil_names(entrants, config), console, "plans") as progress:
        taught = pupils(entrants, config, progress)
    with RowProgress(constant_names(entrants, config), console, "actions") as progress:
        held = constants(entrants, config, progress)
    players = players_of(entrants, config, gates, taught, held)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures for the film are drawn without a window
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written shows before the work
    whose = turns(players, config)
    rows, code = _played(whose, config, protocols, console)
    stopped = f"stopped after {len(rows)} of {len(whose)} rows" if code else None
    title, known = title_of(protocols, config), references_for(players)
    title = title if stopped is None else f"{title}, {stopped}"
    metadata = run.provenance() | {
        "command": shlex.join(["forethought", "compare", *arguments]),
        "comparison": dataclasses.asdict(config),
        "protocols": {id: protocol.name for id, protocol in protocols.items() if protocol is not None},
        "runs": [_about_run(entrant) for entrant in entrants],
    }
    report = write_report(rows, title, out, metadata, references=known)
    for shown in tables(rows, title, known):
        console.print(shown)
    for path in (report.page, *report.charts, *report.videos, report.summary, report.episodes):
        tell(console, str(path))
    if stopped is not None:
        tell(console, f"{stopped}; these are in the report")
    return code


def _played(
    whose: Mapping[str, tuple[Player, Split]],
    config: CompareConfig,
    protocols: Mapping[str, Protocol | None],
    console: Console,
) -> tuple[list[Result], int]:
    """The rows that were played, and the exit code: not 0 where it was stopped before the last.

    Raises:
        KeyboardInterrupt: It was stopped before the first was.
    """
    rows: list[Result] = []
    try:
        with RowProgress(list(whose), console) as progress:
            for row in compare_runs(whose, config, protocols, progress):
                rows.append(row)
    except KeyboardInterrupt as stop:
        if not rows:
            raise
        number: int = getattr(stop, "number", signal.SIGINT)
        return rows, 128 + number
    return rows, 0


def ppo(arguments: Sequence[str], console: Console) -> int:
    """`forethought ppo ENV …`."""
    about = (
        "Train PPO (Stable-Baselines3) with the settings published for Procgen, as a baseline for forethought compare. "
        "Ctrl-C saves what was learned so far."
    )
    if not arguments or arguments[0].startswith("-"):
        if not wants_help(arguments):
            raise UsageError("ppo needs an environment first: forethought ppo ENV …; forethought envs lists them")
        arguments = ["procgen:fruitbot", *arguments]
    id, rest = arguments[0], arguments[1:]
    easy = "easy" if has_levels(id) else None  # refuses an unknown id
    default = PPOOptions(PPOConfig(EnvConfig(id, num_envs=64, distribution_mode=easy)))
    options = parse(PPOOptions, default, rest, f"forethought ppo {id}", about)
    config = options.settings
    if config.env.id != id:
        raise UsageError(f"--env.id says {config.env.id!r} and ENV is {id!r}; name the same environment")
    check_ppo(config)
    folder = options.run or default_folder(id, f"{config.seed}-ppo")
    _make_way(folder, options.overwrite)

    def ready() -> None:
        if (planned := whole_rollouts(config)) != config.steps:
            whole = f"whole rollouts of {config.rollout} decisions in each of {config.env.num_envs} environments"
            tell(console, f"--steps {config.steps} becomes {planned}: {whole} (--rollout, --env.num-envs)")

    progress = StepProgress(console, folder)
    try:
        with progress:
            train_ppo(config, folder, progress, ready)
    except KeyboardInterrupt as stop:
        if not holds_ppo(folder):
            raise
        tell(console, f"stopped; the policy so far is saved in {folder}")
        number: int = getattr(stop, "number", signal.SIGINT)
        return 128 + number
    tell(console, f"saved in {folder}: policy.safetensors, ppo.json, tensorboard/")
    tell(console, f"next: forethought compare {shlex.quote(str(folder))} --behaviours random")
    return 0


def _make_way(folder: Path, overwrite: bool) -> None:
    """Refuse to write over a run that nobody gave up, or over an agent; remove curves of a run that is replaced."""
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds an agent's run; name another folder (--run FOLDER)")
    if not holds_ppo(folder):
        return
    if not overwrite:
        raise ValueError(f"{folder} already holds a run; replace it (--overwrite) or name another (--run FOLDER)")
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def default_comparison(ids: Sequence[str]) -> CompareConfig:
    """The rows that all these worlds can have."""
    if all(find_protocol(None, id) is not None for id in ids):
        return CompareConfig(ROOM_BEHAVIOURS, episodes=100)
    if all(has_levels(id) for id in ids):
        return CompareConfig(train_levels=True)
    return CompareConfig(("mode-1", "mode-2", "random"))


def _beside(folder: Path) -> Path:
    """Where results go: into the run's folder, but not into that of the package."""
    return Path("runs") / "pretrained" / folder.name if folder.parent == FOLDER else folder


def _named_run(argument: str) -> tuple[str | None, Path]:
    """``NAME=FOLDER``, or a folder."""
    name, found, folder = argument.partition("=")
    return (name, Path(folder)) if found and name and not Path(argument).exists() else (None, Path(argument))


def _world_of(folder: Path) -> str:
    """The environment of a run."""
    check_folder(folder)
    return load_ppo(folder, "cpu").config.env.id if holds_ppo(folder) else read_settings(folder).env.id


def _entrant(name: str | None, folder: Path, changes: Changes) -> Entrant:
    """A run with changed settings; of PPO's only device and threads can change."""
    if holds_ppo(folder):
        return Entrant(folder, load_ppo(folder, changes.device, changes.threads), name)
    return Entrant(folder, load_changed(folder, changes), name)


def _about_run(entrant: Entrant) -> dict[str, Any]:
    config = entrant.agent.config
    return {
        "run": str(entrant.folder),
        "env": dataclasses.asdict(config.env),
        "training_seed": config.seed,
        "training": read_progress(entrant.folder),
    }


def tell(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
