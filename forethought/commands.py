"""The commands that train and measure; importing this module imports torch."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import signal
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console

from .agent import checkpoint, comparison, run
from .agent.agent import Agent
from .agent.checkpoint import load_agent
from .agent.checkup import DECISIONS, examine, imagine_held_out, record_held_out
from .agent.comparison import CompareConfig
from .agent.config import RunConfig
from .agent.evaluation import Result
from .agent.faults import locked
from .agent.health_report import health_table, write_health
from .agent.presets import for_gpu, preset
from .agent.pretrained import pretrained, pretrained_names
from .agent.protocols import (
    check_room_behaviours,
    evaluate_protocol,
    find_protocol,
    protocol_key,
)
from .agent.report import tables
from .agent.resume import FOLDER, newest
from .agent.storage import read_json
from .envs.make import has_levels
from .envs.procgen import ACTION_MEANINGS
from .envs.rooms import PROTOCOLS, Protocol
from .options import UsageError, given, parse, wants_help
from .progress import RowProgress, TrainingProgress

PROTOCOL_NAMES = ", ".join(protocol_key(protocol) for protocol in PROTOCOLS)
_RUN_FILES = (
    "config.json",
    "progress.json",
    run.TIMING,
    "weights.safetensors",
    "learner.safetensors",
    "provenance.json",
)
_RUN_FOLDERS = (FOLDER, "best", "crash", "memory", "tensorboard", "compare", "evaluate")
_IMAGINED = 6  # episodes of a check-up


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `forethought train`: where, and all settings of a run."""

    settings: Annotated[RunConfig, tyro.conf.arg(name="")]
    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/ENV/seedN)")] = None
    """Run folder."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the interrupted run in the folder, with its settings."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the run that the folder holds."""
    gpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Procgen: settings for a GPU instead of a laptop (IMPALA encoder, larger latents, networks and batches)."""
    origin: Annotated[
        Path | None, tyro.conf.arg(name="from", metavar="FOLDER", help_behavior_hint="(default: untrained networks)")
    ] = None
    """Begin with the networks of a trained run, or of an agent that comes along (fruitbot …). Its settings are the
    defaults, but for the seed, which is one more, and schedule.prefill-updates, which is 0."""


@dataclasses.dataclass(frozen=True)
class Changes:
    """Settings that may differ from the run's; what is None stays as it was trained."""

    planner: str | None = None
    """Planner of Mode-2: random_shooting; Box: cem, icem, mppi, gradient; else categorical_cem, beam, tree."""
    horizon: int | None = None
    """Steps that are imagined."""
    candidates: int | None = None
    """Courses of action per iteration."""
    iterations: int | None = None
    """Iterations per decision."""
    habit: float | None = None
    """How reluctantly plans leave what Mode-1 would do: weight of −log π(a)."""
    futures: int | None = None
    """Draws of the latent variable in which each course is imagined (agents that have one)."""
    adversary: bool | None = None
    """True: of these futures the worst counts; False: their mean (agents that have one)."""
    views: int | None = None
    """Shifted views of a picture that are averaged before either mode decides."""
    sample: bool | None = None
    """True: draw actions, in Mode-1 from the policy and in Mode-2 from the distribution of the plan; False: take the
    likeliest and the best."""
    device: str | None = None
    """auto, cpu or cuda."""
    threads: int | None = None
    """Torch threads on the CPU."""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `forethought evaluate`."""

    changes: Annotated[Changes, tyro.conf.arg(name="")] = Changes()
    mode: Literal["mode-1", "mode-2", "both"] = "both"
    """How the agent acts."""
    episodes: int = 32
    """Episodes per mode, on levels, starts or pairs that training did not see."""
    seed: int = 1_000
    """Seed of these; the same for both modes."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=f"({PROTOCOL_NAMES})")] = None
    """Rooms: how success is measured; by default the hardest that the room has."""
    health: bool = True
    """Examine representation and world model as well."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: RUN/evaluate)")] = None
    """Where the files of that examination go."""


def train(arguments: Sequence[str], console: Console) -> int:
    """`forethought train ENV …`."""
    about = "Train an agent and leave it in a run folder, with TensorBoard files. Ctrl-C saves; --resume goes on."
    if not arguments or arguments[0].startswith("-"):
        if not wants_help(arguments):
            raise UsageError("train needs an environment first: forethought train ENV …; forethought envs lists them")
        about += " ENV is procgen:GAME, TwoRoom, DotWall or any Gymnasium id; these are the defaults for the first."
        arguments = ["procgen:fruitbot", *arguments]
        prog = "forethought train ENV"
    else:
        prog = f"forethought train {arguments[0]}"
    id, rest = arguments[0], arguments[1:]
    has_levels(id)  # refuses an unknown id
    default, name, origin = preset(id), given("--run", rest), _origin(given("--from", rest))
    if origin is not None and not wants_help(rest):
        default = read_settings(origin)
        # the networks know something and stay
        schedule = dataclasses.replace(default.schedule, prefill_updates=0, prefill_behaviour=0, renewal=None)
        default = dataclasses.replace(default, seed=default.seed + 1, schedule=schedule)
    if "--gpu" in rest and ("--resume" in rest or origin is not None):
        raise UsageError("--gpu chooses the settings of a new run; --resume and --from have those of the run they name")
    if "--gpu" in rest:
        default = for_gpu(default)
    folder = Path(name) if name else default_folder(id, given("--seed", rest) or str(default.seed))
    if "--resume" in rest and not wants_help(rest):
        default = read_settings(newest(folder / FOLDER) or folder)
    options = parse(TrainOptions, TrainOptions(default), rest, prog, about)
    config, folder = options.settings, options.run or default_folder(id, str(options.settings.seed))
    if config.env.id != id:
        what = (
            f"{folder} holds a run of" if options.resume else "--env.id says" if origin is None else f"{origin} is of"
        )
        raise UsageError(f"{what} {config.env.id!r} and ENV is {id!r}; name the same environment")
    if origin is not None:
        _check_origin(origin, folder, options)
    run.check_settings(config)
    _make_way(config, folder, options, origin)
    return _train(config, folder, options.resume, console, origin)


def _make_way(config: RunConfig, folder: Path, options: TrainOptions, origin: Path | None) -> None:
    """Refuse to write over a run that nobody gave up; remove one that was."""
    if options.resume and options.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    if options.resume or not any((folder / name).exists() for name in ("config.json", "progress.json", FOLDER)):
        return
    if not options.overwrite:
        raise ValueError(
            f"{folder} already holds a run; go on with it (--resume), replace it (--overwrite) or name another folder "
            "(--run FOLDER)"
        )
    agent, env = run.prepare(config)  # a mistake in the settings must not cost the old run
    env.close()
    if origin is not None:
        checkpoint.adopt(agent, origin)
    with locked(folder):
        for name in _RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        for name in _RUN_FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)


def _origin(name: str | None) -> Path | None:
    """The folder that ``--from`` means: one that there is, or that of an agent that comes along."""
    if name is None or Path(name).exists() or name not in pretrained_names():
        return None if name is None else Path(name)
    return pretrained(name)


def _check_origin(origin: Path, folder: Path, options: TrainOptions) -> None:
    if options.resume:
        raise UsageError("--resume goes on with the run in the folder and --from begins a new one; give one of them")
    if origin.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--from {origin} lies in {folder}; name another folder for the new run (--run FOLDER)")


def _train(config: RunConfig, folder: Path, resume: bool, console: Console, origin: Path | None = None) -> int:
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    header = f"{'going on with' if resume else 'training on'} {config.env.id} → {folder} ({config.device}, {threads})"
    progress = TrainingProgress(config, console, folder, header)
    try:
        with progress, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*reward is a NaN value")  # an error of ours says it better
            trained = run.train(config, folder, progress, resume, origin)
    except KeyboardInterrupt as stop:
        if not (folder / "progress.json").is_file():
            raise
        number: int = getattr(stop, "number", signal.SIGINT)
        if read_progress(folder).get("finished"):
            _tell(console, f"stopped in the check-up at the end; the training is finished and saved in {folder}")
            return 128 + number
        _tell(console, f"stopped; everything so far is saved in {folder}")
        _tell(console, f"go on with: forethought train {shlex.join([config.env.id, '--run', str(folder)])} --resume")
        return 128 + number
    timing = read_json(folder / run.TIMING)
    _tell(console, f"trained in {progress.elapsed:.0f} s: {timing['split']}")
    _tell(
        console,
        f"{timing['frames']:,} frames, {timing['frames_per_second']:.0f} a second all in all; at most "
        f"{timing['peak_megabytes']:.0f} MB of memory; saved in {folder}:",
    )
    if trained.config.env.actions:
        named = ", ".join(ACTION_MEANINGS[button] for button in trained.config.env.actions)
        _tell(
            console, f"  it chooses among {len(trained.config.env.actions)} of {len(ACTION_MEANINGS)} buttons: {named}"
        )
    _tell(console, "  weights.safetensors, config.json   the agent")
    _tell(console, "  tensorboard/                       curves: tensorboard --logdir " + shlex.quote(str(folder)))
    _tell(console, f"next: forethought compare {shlex.quote(str(folder))}")
    return 0


def evaluate(arguments: Sequence[str], console: Console) -> int:
    """`forethought evaluate RUN …`."""
    about = (
        "Measure a trained agent on levels, starts or pairs that training did not see: mean and 95 % interval, and the "
        "health of its representation and world model."
    )
    options, folder = _parse_for_run("evaluate", EvaluateOptions, EvaluateOptions(), arguments, about)
    agent = load_changed(folder, options.changes)
    modes = ("mode-1", "mode-2") if options.mode == "both" else (options.mode,)
    config = CompareConfig(modes, options.episodes, 1, options.seed, film=0)
    protocol = find_protocol(options.protocol, agent.config.env.id)
    _check_comparison(agent, config, protocol)
    out = options.out or folder / "evaluate"
    if options.health:
        out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written shows before the work
    rows = _measure(agent, config, protocol, console)
    console.print(tables(rows, title_of({agent.config.env.id: protocol}, config))[0])
    if options.health:
        metadata = _metadata("evaluate", arguments, folder, agent) | {"seed": options.seed}
        _check_up(agent, options.seed, out, metadata, console)
    return 0


def _check_up(agent: Agent, seed: int, out: Path, metadata: dict[str, Any], console: Console) -> None:
    """Examine representation and world model on held-out play; prints a table and writes JSON and charts."""
    with RowProgress(("random play", "health", "imagination"), console, "steps") as progress:
        recording = record_held_out(agent, DECISIONS, seed, progress["random play"])
        health = examine(agent, recording, seed, progress["health"])
        imagination = imagine_held_out(agent, health, recording, _IMAGINED, seed, progress["imagination"])
    id = agent.config.env.id
    paths = write_health(health, imagination, id, out, metadata)
    console.print(health_table(health, f"{id}, health of representation and world model on held-out play"))
    for path in paths:
        _tell(console, str(path))


def default_folder(id: str, seed: str) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / re.sub(r"[^A-Za-z0-9_.-]+", "-", id) / f"seed{seed}"


def _parse_for_run(command: str, kind: type[Any], default: Any, arguments: Sequence[str], about: str) -> Any:
    """Options and folder of a command about a trained run; ``--help`` works without a run."""
    if arguments and not arguments[0].startswith("-"):
        subject, rest = arguments[0], arguments[1:]
    elif wants_help(arguments):
        subject, rest = "RUN", arguments
    else:
        raise UsageError(
            f"{command} needs a run folder first: forethought {command} RUN …; forethought train prints it"
        )
    if not wants_help(rest):
        check_folder(Path(subject))
    return parse(kind, default, rest, f"forethought {command} {subject}", about), Path(subject)


def check_folder(folder: Path) -> None:
    """Refuse a run folder that does not exist.

    Raises:
        FileNotFoundError: There is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}; give the one that forethought train printed")


def read_settings(folder: Path) -> RunConfig:
    """A run's settings, read along with all that acting needs; also where the run's device is not."""
    check_folder(folder)
    load_agent(folder, device="cpu")
    return checkpoint.read_settings(folder)[0]


def _metadata(command: str, arguments: Sequence[str], folder: Path, agent: Agent) -> dict[str, Any]:
    """What is needed to repeat a measurement."""
    return run.provenance() | {
        "command": shlex.join(["forethought", command, *arguments]),
        "run": str(folder),
        "env": dataclasses.asdict(agent.config.env),
        "training_seed": agent.config.seed,
        "training": read_progress(folder),
    }


def read_progress(folder: Path) -> dict[str, Any]:
    """What the run says about its progress; empty where it says nothing."""
    path = folder / "progress.json"
    return dict(read_json(path)) if path.is_file() else {}


def load_changed(folder: Path, changes: Changes) -> Agent:
    """The run's agent with changed settings, which are checked as those of a training are."""
    saved = read_settings(folder)
    wanted = {name: value for name, value in dataclasses.asdict(changes).items() if value is not None}
    outer = {name: wanted.pop(name) for name in ("device", "threads") if name in wanted}
    task = dataclasses.replace(saved.task, thinking=dataclasses.replace(saved.task.thinking, **wanted))
    run.check_settings(dataclasses.replace(saved, task=task, **outer))
    agent = load_agent(folder, task=task, **outer)
    torch.set_num_threads(agent.config.threads)
    return agent


def check_numbers(config: CompareConfig) -> None:
    """Refuse numbers out of range and rows that occur twice.

    Raises:
        ValueError: Names the option.
    """
    for name, value, least in (
        ("episodes", config.episodes, 1),
        ("oracle_episodes", config.oracle_episodes, 1),
        ("seed", config.seed, 0),
        ("film", config.film, 0),
    ):
        if value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected at least {least}")
    names = config.behaviours
    if not (names or config.budgets or config.gates) or len(set(names)) < len(names):
        raise ValueError(
            f"--behaviours is {' '.join(names) or 'empty'}, expected different rows, such as mode-1 mode-2"
        )


def _check_comparison(agent: Agent, config: CompareConfig, protocol: Protocol | None) -> None:
    """Refuse before the work what would fail after it."""
    check_numbers(config)
    if protocol is None:
        comparison.check_behaviours(config.behaviours, agent.config.env.id, agent.spaces)
    else:
        check_room_behaviours(config.behaviours, agent, protocol)


def _measure(agent: Agent, config: CompareConfig, protocol: Protocol | None, console: Console) -> list[Result]:
    _check_comparison(agent, config, protocol)
    with RowProgress(config.behaviours, console) as progress:
        if protocol is None:
            return comparison.compare(agent, config, progress)
        return evaluate_protocol(
            agent,
            protocol,
            config.behaviours,
            config.episodes,
            config.seed,
            film=config.film,
            progress=progress,
        )


def title_of(protocols: Mapping[str, Protocol | None], config: CompareConfig) -> str:
    """Where a comparison was made; ``protocols`` has an entry for each world."""
    if len(protocols) > 1:
        return f"{len(protocols)} worlds, where training has not been (seed {config.seed})"
    [(id, protocol)] = protocols.items()
    if protocol is not None:
        return f"{id}, protocol {protocol.name}, held-out pairs (seed {config.seed})"
    return f"{id}, {'unseen levels' if has_levels(id) else 'unseen starts'} (seed {config.seed})"


def _tell(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
