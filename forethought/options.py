"""Options on the command line: typed dataclasses through tyro, and mistakes told in one line."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import TypeVar

import tyro

T = TypeVar("T")


class UsageError(ValueError):
    """A mistake on the command line."""


def parse(kind: type[T], default: T, arguments: Sequence[str], prog: str, description: str) -> T:
    """Read options into a dataclass; ``--help`` prints the fields with their sentences and defaults, and exits.

    Args:
        kind: The dataclass.
        default: Values of the options that are not given.
        arguments: What was typed after the command and its subject.
        prog: What was typed up to there.
        description: First lines of the help.

    Raises:
        UsageError: An unknown option or a value that does not fit.
    """
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, default=default, args=list(arguments), prog=prog, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{in_one_line(complaint.getvalue())}; {prog} --help lists the options") from None


def in_one_line(box: str) -> str:
    """What tyro says in a box (of dashes where there is no UTF-8), in one line: message and suggested options."""
    lines = [line.strip("│ ").strip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    sections = [part.strip() for part in re.split(r"─{4,}|-{4,}", " ".join(lines))]
    if "╭" not in box:
        sections = sections[1:] or sections  # the title
    message = sections[0].rstrip(".")
    meant = [part for part in sections[1:] if part.startswith("Perhaps you meant")]
    suggested = re.findall(r"(?:^|\s)(--[\w.-]+)", meant[0]) if meant else []
    return f"{message}; perhaps you meant {' or '.join(dict.fromkeys(suggested))}" if suggested else message


def given(name: str, arguments: Sequence[str]) -> str | None:
    """The value of one option, read before the others because their defaults depend on it."""
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def given_all(name: str, arguments: Sequence[str]) -> list[str]:
    """The values of an option that takes several, read before the others because their defaults depend on them."""
    values, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith(f"{name}="):
            values.append(argument.removeprefix(f"{name}="))
        elif argument == name:
            more, rest = leading(rest)
            values += more
    return values


def leading(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What was typed before the first option, and the rest."""
    count = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    return list(arguments[:count]), list(arguments[count:])


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the explanation of a command was asked for."""
    return any(argument in {"-h", "--help"} for argument in arguments)
