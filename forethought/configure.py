"""The command that learns configurations: `forethought configure`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from .agent.agent import Agent
from .agent.configuring import (
    ConfigureConfig,
    Learned,
    begin,
    check_configure,
    differing,
    generation,
    load,
    measure,
    save,
    verdict,
)
from .agent.storage import tensor_bytes, write_atomically
from .commands import Changes, check_folder, load_changed
from .comparing import tell
from .modules.configurator import Task
from .modules.knobs import TaskTable
from .options import UsageError, leading, parse, wants_help
from .progress import RowProgress


@dataclasses.dataclass(frozen=True)
class ConfigureOptions:
    """Options of `forethought configure`."""

    settings: Annotated[ConfigureConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=ConfigureConfig)
    changes: Annotated[Changes, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Changes)
    level: Literal[1, 3] = 3
    """3: search for what costs least over whole episodes. 1: a table from task to configuration, learned from the runs'
    scripted ones."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with an interrupted search, with its settings."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the configuration that the run has."""


def configure(arguments: Sequence[str], console: Console) -> int:
    """`forethought configure RUN …`."""
    about = (
        "Learn how to configure a trained agent, and show it beside the configuration that a person wrote. Writes "
        "RUN/configure/level-3.json (or level-1.json), which forethought compare takes as a row (--configurations). "
        "Ctrl-C keeps what was searched so far; --resume goes on."
    )
    subjects, rest = leading(arguments)
    runs = [Path(argument) for argument in subjects]
    if not runs and not wants_help(rest):
        raise UsageError("configure needs a run folder first: forethought configure RUN …; forethought train prints it")
    prog = shlex.join(["forethought", "configure", *(subjects or ["RUN"])])
    options = parse(ConfigureOptions, ConfigureOptions(), rest, prog, about)
    for folder in runs:
        check_folder(folder)
    files = [folder / "configure" / f"level-{options.level}.json" for folder in runs]
    if options.level == 1:
        return _table(runs, files, options, console)
    if len(runs) > 1:
        raise UsageError(f"level 3 learns for one run, and {len(runs)} were given; name one")
    return _search(load_changed(runs[0], options.changes), files[0], options, console)


def _search(agent: Agent, path: Path, options: ConfigureOptions, console: Console) -> int:
    learned = _beginning(agent, path, options)
    config = learned.config
    check_configure(agent, config)
    save(learned, path)
    with RowProgress(["search"], console, "configurations") as progress:
        while learned.evolution.generation < config.generations:
            learned = generation(agent, learned, progress["search"])
            save(learned, path)
    tell(console, f"measuring both on {config.held_out} held-out episodes …")
    learned = measure(agent, learned)
    save(learned, path)
    tell(console, f"{agent.config.env.id}, level 3 beside the script")
    console.print(_sheet(learned.scripted, learned.learned))
    for name in ("scripted", "learned"):
        row = learned.measured[name]
        mean, low, high = row["cost"]
        tell(
            console,
            f"{name}: cost {mean:.4g} ({low:.4g} … {high:.4g}) per episode, {row['calls']:.0f} calls per decision, "
            f"return {row['return'][0]:.4g}",
        )
    tell(console, verdict(learned))
    tell(console, str(path))
    return 0


def _beginning(agent: Agent, path: Path, options: ConfigureOptions) -> Learned:
    if options.resume and options.overwrite:
        raise UsageError("--resume goes on with a search and --overwrite replaces it; give one of them")
    if options.resume:
        learned = load(path)
        if learned.scripted != agent.config.task:
            raise ValueError(f"{path} began from another scripted configuration; begin again (--overwrite)")
        return learned
    if path.exists() and not options.overwrite:
        raise ValueError(f"{path} exists; go on with it (--resume) or replace it (--overwrite)")
    return begin(agent, options.settings)


def _table(runs: Sequence[Path], files: Sequence[Path], options: ConfigureOptions, console: Console) -> int:
    """Level 1: learn what the runs' tasks are configured as, by the name of their world."""
    agents = [load_changed(folder, options.changes) for folder in runs]
    tasks: dict[str, Task] = {agent.config.env.id: agent.config.task for agent in agents}
    if len(tasks) < len(agents):
        raise ValueError("two runs are of one world, and the table goes by worlds; give runs of different ones")
    if not options.overwrite and (there := next((path for path in files if path.exists()), None)):
        raise ValueError(f"{there} exists; replace it (--overwrite)")
    for agent in agents:
        check_configure(agent, options.settings)
    table = TaskTable(list(tasks), options.settings.knobs, seed=options.settings.seed)
    worst = table.fit(tasks)
    tell(console, f"learned {len(tasks)} tasks; the largest error of a setting is {worst:.3g} of its range")
    for agent, path in zip(agents, files, strict=True):
        said = table.task(agent.config.env.id, agent.config.task)
        save(dataclasses.replace(begin(agent, options.settings), learned=said), path)
        write_atomically(path.with_name("table.safetensors"), tensor_bytes(dict(table.state_dict())))
        tell(console, f"{agent.config.env.id}, level 1 beside the script")
        console.print(_sheet(agent.config.task, said))
        tell(console, str(path))
    return 0


def _sheet(scripted: Task, learned: Task) -> Table:
    """Where a learned configuration differs from the scripted one."""
    table = Table()
    for name in ("setting", "scripted", "learned"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for name, one, other in differing(scripted, learned):
        table.add_row(name, _number(one), _number(other))
    if not table.row_count:
        table.add_row("all settings", "as written", "the same")
    return table


def _number(value: Any) -> str:
    return "not set" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
