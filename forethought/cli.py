"""The command line: `forethought COMMAND …`. What a command needs is imported when it runs."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import gymnasium
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import __version__
from .agent.errors import CollapseError, OutOfMemoryError, Stopped
from .allocator import keep_freed_memory
from .envs.make import list_envs

Command = Callable[[Sequence[str], Console], int]

_HELP = """\
forethought {version}: agents that react (Mode-1) and think ahead (Mode-2)

usage: forethought COMMAND …

  train ENV      train an agent; ENV is procgen:GAME, TwoRoom, DotWall or any Gymnasium id
  evaluate RUN   both modes of a trained agent on worlds it has not seen, and its health
  compare RUN …  runs in both modes and at any budget beside random play, upper bounds and PPO: tables, charts, a page
  configure RUN  learn how to configure a trained agent, shown beside the scripted configuration
  ppo ENV        train PPO (Stable-Baselines3) as a baseline for compare
  genie …        worlds learned from video alone: record, import, train, evaluate, play, plan, transfer, clone
  envs           the environments that come along
  doctor         what is installed, which device and threads are used, and what will work

COMMAND --help explains a command and its options. To begin with:

  forethought train CartPole-v1
  forethought compare runs/CartPole-v1/seed0

Errors are one line and exit code 2; FORETHOUGHT_TRACEBACK=1 shows where they come from."""

_ENVS_HELP = """\
usage: forethought envs [--gymnasium TEXT]

Lists the environments that come with forethought. Any id registered with Gymnasium works as well.

  --gymnasium TEXT   list the registered Gymnasium ids that contain TEXT instead"""

_EXPECTED = (
    ValueError,
    ImportError,
    OSError,
    FloatingPointError,
    CollapseError,
    OutOfMemoryError,
    gymnasium.error.DependencyNotInstalled,
)
"""What our own code raises when something is wrong outside it; anything else is a bug and keeps its traceback."""


_FILE_WIDTH = 120  # of tables where there is no terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What was typed after `forethought`; the process's own arguments when None.

    Returns:
        Exit code: 0, 2 for a mistake in the input, 130 after Ctrl-C, 143 after SIGTERM; doctor returns 1 where
        something essential is missing.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=_FILE_WIDTH)
    try:
        with stoppable():
            return _dispatch(arguments, console)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        _say("stopped; nothing was written")
        return 128 + number
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except _EXPECTED as error:
        if os.environ.get("FORETHOUGHT_TRACEBACK"):
            raise
        _say(f"error: {in_short(error)}")
        return 2


def _dispatch(arguments: Sequence[str], console: Console) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in {"-h", "--help", "help"}:
        _explain(console, _HELP.format(version=__version__))
        return 0
    if name in {"-V", "--version"}:
        _explain(console, f"forethought {__version__}")
        return 0
    if name not in _COMMANDS:
        close = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown command {name!r}: expected {', '.join(_COMMANDS)}{hint}")
    return _COMMANDS[name](rest, console)


def _train(arguments: Sequence[str], console: Console) -> int:
    from .commands import train  # noqa: PLC0415

    return train(arguments, console)


def _evaluate(arguments: Sequence[str], console: Console) -> int:
    from .commands import evaluate  # noqa: PLC0415

    return evaluate(arguments, console)


def _compare(arguments: Sequence[str], console: Console) -> int:
    from .comparing import compare  # noqa: PLC0415

    return compare(arguments, console)


def _configure(arguments: Sequence[str], console: Console) -> int:
    from .configure import configure  # noqa: PLC0415

    return configure(arguments, console)


def _ppo(arguments: Sequence[str], console: Console) -> int:
    from .comparing import ppo  # noqa: PLC0415

    return ppo(arguments, console)


def _genie(arguments: Sequence[str], console: Console) -> int:
    from .genie import GENIE_HELP, genie  # noqa: PLC0415

    if not arguments or arguments[0] in {"-h", "--help"}:
        _explain(console, GENIE_HELP)
        return 0
    return genie(arguments, console)


def _doctor(arguments: Sequence[str], console: Console) -> int:
    from .doctor import doctor  # noqa: PLC0415

    return doctor(arguments, console)


def _envs(arguments: Sequence[str], console: Console) -> int:
    if arguments and arguments[0] in {"-h", "--help"}:
        _explain(console, _ENVS_HELP)
        return 0
    if arguments:
        if arguments[0] != "--gymnasium" or len(arguments) != 2:
            raise ValueError(f"envs got {' '.join(arguments)!r}: expected nothing, or --gymnasium TEXT")
        names = [id for id in gymnasium.registry if arguments[1].lower() in id.lower()]
        if not names:
            raise ValueError(f"no registered Gymnasium id contains {arguments[1]!r}; expected a part of a name")
        _explain(console, "\n".join(names))
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    for id, line in list_envs().items():
        table.add_row(Text(id), Text(line))
    console.print(table)
    _explain(
        console,
        "\nAny Gymnasium id works as well (CartPole-v1, Pendulum-v1, MiniGrid-Empty-5x5-v0 …); "
        "forethought envs --gymnasium TEXT finds them.",
    )
    return 0


_COMMANDS: dict[str, Command] = {
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "configure": _configure,
    "ppo": _ppo,
    "genie": _genie,
    "envs": _envs,
    "doctor": _doctor,
}


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM raise `Stopped` once; while that is dealt with, a second one waits, a third gives up.

    Signals can only be caught in the main thread; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 2:
            os.write(2, b"\nstill saving; once more to give up\n")  # print is not safe within a signal
            return
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_short(error: BaseException) -> str:
    """An error's message in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.filename is not None:
            text = f"{error.filename}: {text}; check the path and its permissions, or name another folder"
    return " ".join(text.split()) or type(error).__name__


def _explain(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
