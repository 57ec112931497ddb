"""`forethought genie plan, transfer and clone`: what was learned in dreams, in the true environment."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from .agent.agent import pick_device
from .agent.evaluation import Result
from .agent.genie_cloning import Cloning, clones
from .agent.genie_contest import (
    MODES,
    Arena,
    Contestant,
    DreamPlanning,
    chance,
    contest,
    enter,
    expert,
    planners_of,
    rows_as_json,
    trained,
    world_of,
)
from .agent.genie_real import Meaning, need_home
from .agent.report import tables
from .agent.run import provenance
from .commands import check_folder
from .envs.genie import PRETRAINED, find_world, pretrained_worlds
from .modules.genie.files import load_settings, load_world
from .modules.genie.video import VideoDataset
from .modules.storage import write_atomically
from .modules.types import Mode
from .options import UsageError, leading, parse, wants_help
from .progress import RowProgress


@dataclasses.dataclass(frozen=True)
class Trial:
    """How contestants are measured in the true environment."""

    episodes: int = 64
    """Episodes of each row, the same starts (or test levels) for all."""
    episode_steps: int = 0
    """Decisions after which an episode is left and counts as it stands; 0: none is left early."""
    seed: int = 0
    """Seed of episodes, labels, weights and draws."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: beside the world)")] = (
        None
    )
    """Where the rows go, as JSON."""
    device: str = "auto"
    """auto (CUDA, else CPU), cpu or cuda."""
    threads: int = 2
    """Torch threads on the CPU."""


@dataclasses.dataclass(frozen=True)
class Naming:
    """How it is learned what the codes mean."""

    labels: int = 256
    """Steps of random play in the true environment, with their actions, from which it is learned what codes mean."""
    meaning: Meaning = "dictionary"
    """How codes become real actions: dictionary (by the code alone) or decoder (by code and frame)."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """Options of `forethought genie plan`."""

    trial: Annotated[Trial, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Trial)
    naming: Annotated[Naming, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Naming)
    planning: Annotated[DreamPlanning, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DreamPlanning)


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """Options of `forethought genie transfer`."""

    trial: Annotated[Trial, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Trial)
    naming: Annotated[Naming, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Naming)
    sample: bool = True
    """PPO and Mode-1 draw from their policy; else they take the likeliest action."""
    modes: tuple[Mode, ...] = MODES
    """Modes in which our own agents act."""


@dataclasses.dataclass(frozen=True)
class CloneOptions:
    """Options of `forethought genie clone`."""

    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """The expert's video, recorded where the world was: forethought genie record ENV --policy expert."""
    trial: Annotated[Trial, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Trial)
    cloning: Annotated[Cloning, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Cloning)


def plan(arguments: Sequence[str], console: Console) -> int:
    """`forethought genie plan WORLD …`."""
    about = (
        "Plan with latent actions in the dream that begins with the frames at hand, and do what they mean in the true "
        "environment; beside it the same planner in the true simulator, and chance. The world needs learned rewards. "
        "WORLD may be left out: the small one that comes along is planned in."
    )
    folder, rest = split_world(arguments)
    options = parse(PlanOptions, PlanOptions(), rest, "forethought genie plan [WORLD]", about)
    arena = _enter(folder, options.trial, options.naming)
    rows = planners_of(arena, options.planning, options.trial.seed)
    return _measure("plan", arguments, arena, rows, options.trial, beside(folder) / "plan", console)


def transfer(arguments: Sequence[str], console: Console) -> int:
    """`forethought genie transfer RUN …`."""
    about = (
        "Let runs that were trained in a dream (forethought train genie:WORLD, forethought ppo genie:WORLD) act in the "
        "true environment: they see its frames, answer with codes, and what these mean is done. Beside them chance."
    )
    subjects, rest = leading(arguments)
    folders = [Path(part) for part in subjects]
    if not folders and not wants_help(rest):
        raise UsageError("transfer needs run folders first: forethought genie transfer RUN …")
    options = parse(TransferOptions, TransferOptions(), rest, "forethought genie transfer RUN …", about)
    for folder in folders:
        check_folder(folder)
    worlds = {world_of(folder) for folder in folders}
    if len(worlds) > 1:
        raise UsageError(
            f"the runs were trained in different dreams, {', '.join(map(str, sorted(worlds)))}; name one's"
        )
    arena = _enter(worlds.pop(), options.trial, options.naming)
    seed = options.trial.seed
    rows = [row for folder in folders for row in trained(arena, folder, options.sample, seed, options.modes)]
    env = arena.home.build(1, "test", seed)
    rows += [*expert(env), chance(arena.home, seed)]
    env.close()
    return _measure("transfer", arguments, arena, rows, options.trial, folders[0] / "transfer", console)


def clone(arguments: Sequence[str], console: Console) -> int:
    """`forethought genie clone WORLD --data FOLDER …`."""
    about = (
        "Imitate an expert seen on video without actions: the world names the codes between its frames, a policy "
        "learns to choose them, and a few labels say what they mean. Beside it the same network on all true actions."
    )
    folder, rest = split_world(arguments)
    if "--data" not in " ".join(rest) and not wants_help(rest):
        raise UsageError("clone needs an expert's video: forethought genie clone WORLD --data FOLDER")
    options = parse(CloneOptions, CloneOptions(Path("DATA")), rest, "forethought genie clone [WORLD]", about)
    trial = options.trial
    torch.set_num_threads(trial.threads)
    device = pick_device(trial.device)
    home = need_home(load_settings(folder)[1], str(folder))
    world, data = load_world(folder, device), VideoDataset(options.data, "train")
    with RowProgress(("learning",), console, "updates") as progress:
        rows = clones(world, home, data, options.cloning, trial.seed, device, progress["learning"])
    arena = Arena(folder, world, home, None, device)
    return _measure("clone", arguments, arena, rows, trial, beside(folder) / "clone", console)


def split_world(arguments: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """The folder of the world that is named first, the smallest that comes along where none is, and the options.

    After ``--pretrained`` it is one of those that come along, whatever folders there are.

    Raises:
        UsageError: None of this name comes along.
    """
    shipped = arguments[:1] == ["--pretrained"]
    rest = list(arguments[shipped:])
    if not rest or rest[0].startswith("-"):
        return PRETRAINED, rest
    name = rest.pop(0)
    if not shipped:
        return find_world(name), rest
    if name not in pretrained_worlds():
        raise UsageError(f"no world {name!r} comes along; there are {', '.join(pretrained_worlds())}")
    return PRETRAINED.parent / name, rest


def beside(folder: Path) -> Path:
    """Where results go: into the folder of the world, but not into that of the package."""
    return Path("runs") / "genie" / "pretrained" / folder.name if folder.parent == PRETRAINED.parent else folder


def _enter(folder: Path, trial: Trial, naming: Naming) -> Arena:
    torch.set_num_threads(trial.threads)
    return enter(folder, naming.labels, naming.meaning, trial.seed, pick_device(trial.device))


def _measure(
    command: str,
    arguments: Sequence[str],
    arena: Arena,
    rows: Sequence[Contestant],
    trial: Trial,
    default: Path,
    console: Console,
) -> int:
    """Play every row, show the table and write it; rows that were played before it is stopped are kept."""
    path = made(trial.out or default) / "rows.json"
    metadata: dict[str, Any] = provenance() | {
        "command": shlex.join(["forethought", "genie", command, *arguments]),
        "world": str(arena.folder),
        "env": arena.home.id,
    }
    kept = 0

    def keep(results: Sequence[Result]) -> None:
        nonlocal kept
        told = {"metadata": metadata, "rows": rows_as_json(results)}
        write_atomically(path, json.dumps(told, indent=2).encode())
        kept = len(results)

    try:
        with RowProgress([row.name for row in rows], console) as progress:
            results = contest(arena.home, rows, trial.episodes, trial.seed, progress, trial.episode_steps, keep)
    except KeyboardInterrupt as stop:
        if not kept:
            raise
        tell(console, f"stopped; {kept} of {len(rows)} rows are in {path}")
        number: int = getattr(stop, "number", signal.SIGINT)
        return 128 + number
    cut = f", {trial.episode_steps} decisions at most" if trial.episode_steps else ""
    for table in tables(results, f"{arena.home.id}, true environment, test starts (seed {trial.seed}){cut}"):
        console.print(table)
    tell(console, str(path))
    return 0


def subject(command: str, name: str, what: str, arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """What a command is about, and its options; ``--help`` works without."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    if wants_help(arguments):
        return name, arguments
    raise UsageError(f"{command} needs {what} first: forethought genie {command} {name} …")


def made(folder: Path) -> Path:
    """The folder, made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tell(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
