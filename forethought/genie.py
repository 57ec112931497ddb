"""`forethought genie …`: worlds learned from video; importing this module imports torch."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from .agent.agent import pick_device
from .agent.faults import locked
from .agent.genie_data import Recording, record
from .agent.genie_decoding import LabelRow, label_curve
from .agent.genie_evaluation import Examination, examine_world
from .agent.genie_import import Importing, import_videos
from .agent.genie_minari import PREFIX, import_minari
from .agent.genie_play import PlayOptions, play
from .agent.genie_report import card_tables, label_table, write_card
from .agent.genie_resume import CHECKPOINT, train_world
from .agent.genie_settings import GenieTraining
from .agent.run import provenance
from .agent.storage import from_json
from .envs.genie import find_world, pretrained_worlds
from .envs.make import has_levels
from .genie_acting import beside, clone, made, plan, split_world, subject, tell, transfer
from .modules.genie.files import PARTS, load_settings, load_world
from .modules.genie.latent_action import LatentActionConfig
from .modules.genie.tokenizer import TokenizerConfig
from .modules.genie.video import VideoDataset
from .modules.genie.world import GenieConfig
from .options import UsageError, given, parse, wants_help
from .progress import RowProgress, clock, curve_sizes, cut_curves, numbers

GENIE_HELP = """\
usage: forethought genie COMMAND …

  record ENV       film a policy in any environment: video to learn from, true actions kept apart
  import FOLDER    read a folder of MP4 or GIF videos, without actions; minari:NAME reads one of Minari's data sets
  train DATA       learn a world from video: tokenizer, latent actions, dynamics
  evaluate WORLD   the report card of a world on test video: pictures, control, what the codes mean
  play WORLD       walk through a world in the browser (this machine only), or in the terminal
  plan [WORLD]     plan in the dream and act in the true environment, beside the same planner in the true simulator
  transfer RUN …   agents and PPO that were trained in a dream, at work in the true environment
  clone [WORLD]    imitate an expert seen on video without actions; how many labels it takes

COMMAND --help explains a command and its options. To begin with:

  forethought genie record procgen:coinrun --out data/coinrun --height 32 --width 32
  forethought genie train data/coinrun --run runs/genie/coinrun
  forethought genie evaluate runs/genie/coinrun --data data/coinrun"""

_PLAIN_SECONDS = 10.0
_POINTS = 200


@dataclasses.dataclass(frozen=True)
class RecordOptions:
    """Options of `forethought genie record`."""

    recording: Annotated[Recording, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Recording)
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: data/ENV)")] = None
    """Where the data goes."""


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of `forethought genie import`."""

    importing: Annotated[Importing, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Importing)
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: data/FOLDER)")] = None
    """Where the data goes."""
    key: str = ""
    """Minari: the entry of Dict observations that is a picture."""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `forethought genie train`."""

    settings: Annotated[GenieTraining, tyro.conf.arg(name="")]
    run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/genie/DATA)")] = None
    """Folder of the world."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the interrupted training in the folder, with its settings."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the world that the folder holds."""
    twin_of: Annotated[Path | None, tyro.conf.arg(metavar="WORLD", help_behavior_hint="(default: none)")] = None
    """Learn the true-action twin of this world (a folder, or one that comes along): its settings and tokenizer, and the
    recorded actions for latent ones; what it does better is what latent actions cost (forethought genie evaluate …
    --twin)."""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `forethought genie evaluate`."""

    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Data set whose test split is dreamed on."""
    settings: Annotated[Examination, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Examination)
    labels: tuple[int, ...] = (16, 64, 256, 1024)
    """Labelled training steps from which real actions are learned; both maps are tried with each number of them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: WORLD/evaluate)")] = None
    """Where the report goes."""
    twin: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """The world's true-action twin (forethought genie train … --twin-of WORLD), to measure beside it."""
    device: str = "auto"
    """auto (CUDA, else CPU), cpu or cuda."""
    threads: int = 2
    """Torch threads on the CPU."""


def genie(arguments: Sequence[str], console: Console) -> int:
    """`forethought genie COMMAND …`.

    Raises:
        UsageError: No such command.
    """
    commands: dict[str, Callable[[Sequence[str], Console], int]] = {
        "record": _record, "import": _import, "train": _train, "evaluate": _evaluate, "play": _play,
        "plan": plan, "transfer": transfer, "clone": clone,
    }  # fmt: skip
    if arguments[0] not in commands:
        raise UsageError(f"genie has no command {arguments[0]!r}; expected {', '.join(commands)}")
    return commands[arguments[0]](arguments[1:], console)


def _record(arguments: Sequence[str], console: Console) -> int:
    about = "Film a policy in an environment. ENV is procgen:GAME, TwoRoom, DotWall or any Gymnasium id that draws."
    id, rest = subject("record", "ENV", "an environment", arguments)
    if id != "ENV":
        has_levels(id)  # refuses an unknown id
    options = parse(RecordOptions, RecordOptions(), rest, f"forethought genie record {id}", about)
    folder = options.out or Path("data") / _slug(id)
    with RowProgress(("train", "test"), console, "frames") as progress:
        record(id, options.recording, folder, progress)
    tell(console, f"recorded in {folder}")
    return 0


def _import(arguments: Sequence[str], console: Console) -> int:
    about = (
        "Read the videos in a folder (MP4, GIF, WebM, MKV, AVI, MOV) into a data set; they need no actions. "
        "minari:NAME reads one of Minari's data sets that is on this machine."
    )
    source, rest = subject("import", "FOLDER", "a folder of videos", arguments)
    options = parse(ImportOptions, ImportOptions(), rest, f"forethought genie import {source}", about)
    minari = source.startswith(PREFIX)
    name = source.removeprefix(PREFIX) if minari else Path(source).name
    folder = options.out or Path("data") / _slug(name)
    with RowProgress(("videos",), console, "videos") as progress:
        if minari:
            import_minari(name, options.importing, folder, options.key, progress["videos"])
        else:
            import_videos(Path(source), options.importing, folder, progress["videos"])
    tell(console, f"imported into {folder}")
    return 0


def _train(arguments: Sequence[str], console: Console) -> int:
    about = "Learn a world from video. Ctrl-C saves; --resume goes on."
    source, rest = subject("train", "DATA", "a data set", arguments)
    name = given("--run", rest)
    folder = Path(name) if name else _folder_for(source)
    if wants_help(rest):
        default = GenieTraining()
    else:
        data = VideoDataset(Path(source), "train")
        default = _starting_settings(folder, rest, data)
    options = parse(TrainOptions, TrainOptions(default), rest, f"forethought genie train {source}", about)
    config, folder = options.settings, options.run or folder
    _make_way(folder, options)
    torch.set_num_threads(config.threads)
    test = VideoDataset(Path(source), "test")
    story = {"data": {"folder": source, **data.about}, "training": dataclasses.asdict(config)} | provenance()
    story["command"] = shlex.join(["forethought", "genie", "train", *arguments])
    if options.resume:
        story["before"] = load_settings(folder)[1]
    progress = GenieProgress(console, folder)
    tokenizer = None if options.twin_of is None else find_world(options.twin_of) / "tokenizer.safetensors"
    try:
        with progress:
            told = json.loads(json.dumps(story))
            train_world(config, (data, test), folder, progress, told, options.resume, tokenizer)
    except KeyboardInterrupt as stop:
        if not (folder / CHECKPOINT).is_file():
            raise
        again = shlex.join(["forethought", "genie", "train", source, "--run", str(folder), "--resume"])
        tell(console, f"stopped; everything so far is saved in {folder}")
        tell(console, f"go on with: {again}")
        number: int = getattr(stop, "number", signal.SIGINT)
        return 128 + number
    tell(console, f"the world is in {folder} ({clock(progress.elapsed)})")
    return 0


def _make_way(folder: Path, options: TrainOptions) -> None:
    """Refuse to write over a world that nobody gave up; remove the weights of one that was."""
    if options.resume and options.overwrite:
        raise UsageError("--resume keeps what is there and --overwrite replaces it; give one of them")
    if options.resume and options.twin_of is not None:
        raise UsageError("--resume goes on with the settings in the folder, a twin's as well; leave --twin-of away")
    if options.twin_of is not None and options.twin_of.absolute() == folder.absolute():
        raise UsageError(f"{folder} is the world itself; name another folder for its twin with --run FOLDER")
    if (folder / "world.json").exists() and not options.resume:
        if not options.overwrite:
            raise ValueError(f"{folder} already holds a world; give --resume, --overwrite or another --run FOLDER")
        with locked(folder):
            for name in (*(f"{part}.safetensors" for part in PARTS), CHECKPOINT):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _starting_settings(folder: Path, rest: Sequence[str], data: VideoDataset) -> GenieTraining:
    """Settings before options: those of the world that is gone on with, of the twin's world, or what suits the data."""
    default = default_training(data.height, data.width)
    if "--resume" in rest:
        return saved_training(folder, default)
    original = given("--twin-of", rest)
    return twin_training(find_world(original), data) if original else default


def twin_training(folder: Path, data: VideoDataset) -> GenieTraining:
    """Settings of a world's twin: the same, but for the actions.

    Raises:
        FileNotFoundError: No world there.
        ValueError: The world does not tell how it was trained, or the data has no true actions.
    """
    world, about = load_settings(folder)
    if "training" not in about:
        raise ValueError(f"{folder}/world.json does not tell how the world was trained; train it again")
    if not data.labelled:
        raise ValueError(f"{data.folder} has no true actions, which a twin learns from; record data with them")
    actions = 1 + max(int(chunk.max()) for chunk in data.labels["actions"])
    world = dataclasses.replace(world, latent_action=dataclasses.replace(world.latent_action, actions=actions))
    return dataclasses.replace(saved_training(folder, GenieTraining()), world=world, true_actions=True)


def default_training(height: int, width: int) -> GenieTraining:
    """Settings for frames of this size that suit a CPU: 64 tokens of a frame up to 32 pixels or from 64 on."""
    patch = 4 if min(height, width) <= 32 else 8
    coarse = 4 if min(height, width) <= 16 else 8
    tokenizer, action = TokenizerConfig(patch=patch), LatentActionConfig(patch=coarse, margin=coarse // 2)
    return GenieTraining(GenieConfig(height, width, tokenizer=tokenizer, latent_action=action))


def saved_training(folder: Path, default: GenieTraining) -> GenieTraining:
    """The settings that the world in a folder is trained with; of a world that does not tell them, its own alone."""
    world, about = load_settings(folder)
    if "training" not in about:
        return dataclasses.replace(default, world=world)
    return dataclasses.replace(from_json(GenieTraining, about["training"], f"{folder}: training"), world=world)


def _evaluate(arguments: Sequence[str], console: Console) -> int:
    about = "Measure a world on the test split of a data set; writes a table, JSON, charts and pictures."
    name, rest = subject("evaluate", "WORLD", "the folder of a world", arguments)
    default = EvaluateOptions(Path("DATA"))
    if "--data" not in " ".join(rest) and not wants_help(rest):
        raise UsageError("evaluate needs test video: forethought genie evaluate WORLD --data FOLDER")
    options = parse(EvaluateOptions, default, rest, f"forethought genie evaluate {name}", about)
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    folder = find_world(name)
    world, data = load_world(folder, device), VideoDataset(options.data, "test")
    out = made(options.out or beside(folder) / "evaluate")
    twin = None if options.twin is None else load_world(options.twin, device, need=("tokenizer", "dynamics"))
    with RowProgress(("clips",), console, "clips") as progress:
        card = examine_world(world, data, options.settings, device, progress["clips"], twin, folder)
    metadata = provenance() | {
        "command": shlex.join(["forethought", "genie", "evaluate", *arguments]),
        "settings": dataclasses.asdict(options.settings),
    }
    shown = options.settings.prompt_frames
    for table in card_tables(card, f"{name} on test clips of {options.data}, {shown} true frames, then dreamed"):
        console.print(table)
    train = VideoDataset(options.data, "train")
    rows: list[LabelRow] = []
    if train.labelled and data.labelled:
        actions = 1 + max(int(chunk.max()) for split in (train, data) for chunk in split.labels["actions"])
        rows = label_curve(world, train, data, options.labels, actions, options.settings.seed, device)
        console.print(label_table(rows))
    for path in write_card(card, out, metadata, rows):
        tell(console, str(path))
    return 0


def _play(arguments: Sequence[str], console: Console) -> int:
    about = (
        "Walk through a world: keys choose latent actions. Serves one page on this machine only; --terminal draws in "
        "the terminal instead. WORLD is a folder, or one of those that come along: "
        f"{', '.join(pretrained_worlds())} (sprite where it is left out); --pretrained NAME says the same of those."
    )
    folder, rest = split_world(arguments)
    options = parse(PlayOptions, PlayOptions(), rest, "forethought genie play [WORLD]", about)
    play(folder, options, lambda line: tell(console, line))
    return 0


class GenieProgress:
    """Bars on a terminal, a line now and then elsewhere, and TensorBoard files."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[numbers]}", style="dim"), console=console,
                             disable=not console.is_terminal)  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        self.writer: SummaryWriter | None = None
        self.start, self.said = time.monotonic(), 0.0

    def __enter__(self) -> GenieProgress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        if self.writer is not None:
            self.writer.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def state(self) -> dict[str, Any]:
        """How much of the curves is on the disk by now."""
        return {"curves": curve_sizes(self.folder, self.writer)}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`: what came after it is made again."""
        cut_curves(self.folder, state["curves"])

    def __call__(self, phase: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Take in a report."""
        if phase not in self.tasks:
            self.tasks[phase] = self.bars.add_task(phase, total=total, numbers="")
        self.bars.update(self.tasks[phase], completed=done, numbers=numbers(metrics))
        if metrics and (done % max(1, total // _POINTS) == 0 or done == total):
            self.writer = self.writer or SummaryWriter(str(self.folder / "tensorboard"))
            for key, value in metrics.items():
                self.writer.add_scalar(f"{phase}/{key}".replace(" ", "_"), value, done)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.said > _PLAIN_SECONDS or done == total):
            self.said = now
            line = f"[{clock(self.elapsed)}] {phase} {done}/{total} {numbers(metrics, 4)}"
            self.console.print(Text(line.strip()), soft_wrap=True)


def _folder_for(source: str) -> Path:
    return Path("runs") / "genie" / _slug(Path(source).name)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
