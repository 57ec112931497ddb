"""Knobs: what a learned configurator may set, and how far. A task is a point in their cube.

Safety: no knob reaches below the floor that the intrinsic cost has for *ending*, whatever a configurator asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configurator import Task


@dataclass(frozen=True)
class Knob:
    """A bounded number of a task, turned by a setting in [0, 1]."""

    low: float
    high: float
    whole: bool = False
    """Integers only."""
    log: bool = False
    """Equal turns are equal factors."""

    def value(self, setting: float) -> float:
        """What a setting means; settings beyond the ends mean the ends."""
        x = min(max(setting, 0.0), 1.0)
        value = self.low * (self.high / self.low) ** x if self.log else self.low + x * (self.high - self.low)
        return round(value) if self.whole else value

    def setting(self, value: float) -> float:
        """The setting that means a value; values beyond the ends are brought to the ends."""
        bounded = min(max(value, self.low), self.high)
        if self.log:
            return math.log(bounded / self.low) / math.log(self.high / self.low)
        return (bounded - self.low) / (self.high - self.low)


KNOBS: dict[str, Knob] = {
    "thinking.horizon": Knob(1, 32, whole=True, log=True),
    "thinking.candidates": Knob(2, 256, whole=True, log=True),
    "thinking.iterations": Knob(1, 6, whole=True),
    "thinking.hold": Knob(1, 4, whole=True),
    "thinking.proposals": Knob(0, 32, whole=True),
    "thinking.commit": Knob(1, 6, whole=True),
    "thinking.risk": Knob(-1.0, 1.0),
    "thinking.habit": Knob(0.0, 2.0),
    "thinking.gate.entropy": Knob(0.0, 3.0),
    "thinking.gate.variance": Knob(1e-5, 1.0, log=True),
    "thinking.gate.spread": Knob(0.01, 100.0, log=True),
    "thinking.gate.surprise": Knob(0.001, 100.0, log=True),
    "pleasure": Knob(0.25, 4.0, log=True),
    "ending": Knob(0.0, 8.0),
    "effort": Knob(0.0, 1.0),
    "hunger": Knob(-4.0, 4.0),
    "hazard": Knob(0.0, 8.0),
}
"""By where they are in a `Task`. A gate's threshold that is not set counts as its lowest: everything is planned; of
surprise, wherever it is worse than expected."""


def settings_of(task: Task, names: Sequence[str]) -> list[float]:
    """The settings of a task's knobs.

    Raises:
        ValueError: An unknown knob.
    """
    check_knobs(names)
    found = []
    for name in names:
        value: Any = task
        for part in name.split("."):
            value = getattr(value, part)
        found.append(0.0 if value is None else KNOBS[name].setting(value))
    return found


def turned(task: Task, settings: Mapping[str, float]) -> Task:
    """The task with knobs at these settings, and everything else as it was.

    There are fewer proposals than candidates, and no more actions of a plan are carried out than it has.

    Raises:
        ValueError: An unknown knob.
    """
    check_knobs(list(settings))
    for name, setting in settings.items():
        task = _replaced(task, name.split("."), KNOBS[name].value(setting))
    thinking = task.thinking
    return replace(
        task,
        thinking=replace(
            thinking,
            proposals=min(thinking.proposals, thinking.candidates - 1),
            commit=min(thinking.commit, thinking.horizon),
        ),
    )


def check_knobs(names: Sequence[str]) -> None:
    """Refuse knobs that do not exist or are named twice.

    Raises:
        ValueError: Names them.
    """
    unknown = [name for name in names if name not in KNOBS]
    if unknown or not names or len(set(names)) < len(names):
        given = " ".join(names) or "empty"
        raise ValueError(f"--knobs is {given}, expected different ones of {', '.join(KNOBS)}")


def _replaced(whole: Any, path: Sequence[str], value: float) -> Any:
    first, *rest = path
    return replace(whole, **{first: _replaced(getattr(whole, first), rest, value) if rest else value})


class TaskTable(nn.Module):
    """The configurator of level 1: a task's name → embedding → settings of the knobs in [0, 1].

    It is trained to repeat configurations that exist (`fit`); what it adds is that names share what they have in
    common, and that a table can be trained further.

    Args:
        names: Of the tasks.
        knobs: What it sets.
        width: Of the embedding and the hidden layer.
        seed: Of the initial weights.

    Raises:
        ValueError: No names, a name twice, or an unknown knob.
    """

    def __init__(self, names: Sequence[str], knobs: Sequence[str], width: int = 16, seed: int = 0) -> None:
        super().__init__()
        if not names or len(set(names)) < len(names):
            raise ValueError(f"tasks are called {' '.join(names) or 'nothing'}, expected different names")
        check_knobs(knobs)
        self.names, self.knobs = tuple(names), tuple(knobs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(len(names), width)
            self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, len(knobs)))

    def forward(self, index: Tensor) -> Tensor:
        """Settings ``[B, knobs]`` of tasks ``[B]`` by number."""
        settings: Tensor = self.net(self.embedding(index)).sigmoid()
        return settings

    def task(self, name: str, template: Task) -> Task:
        """What the table says about a task; what is no knob is the template's.

        Raises:
            ValueError: An unknown name.
        """
        if name not in self.names:
            raise ValueError(f"no task {name!r} in the table; it knows {', '.join(self.names)}")
        with torch.no_grad():
            settings = self(torch.tensor([self.names.index(name)]))[0].tolist()
        return turned(template, dict(zip(self.knobs, settings, strict=True)))

    def fit(self, tasks: Mapping[str, Task], updates: int = 600, learning_rate: float = 0.03) -> float:
        """Learn to say what these tasks are configured as; returns the largest error of a setting.

        Args:
            tasks: Every name of the table, and its configuration.
            updates: Steps of Adam.
            learning_rate: At the beginning; falls to 0.

        Raises:
            ValueError: The names are not the table's.
        """
        if set(tasks) != set(self.names):
            raise ValueError(f"tasks to learn are {', '.join(tasks)}, expected {', '.join(self.names)}")
        target = torch.tensor([settings_of(tasks[name], self.knobs) for name in self.names])
        index = torch.arange(len(self.names))
        optimiser = torch.optim.Adam(self.parameters(), learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, updates)
        for _ in range(updates):
            optimiser.zero_grad()
            F.binary_cross_entropy(self(index), target).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            return float((self(index) - target).abs().max())
