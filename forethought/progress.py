"""What a user sees and TensorBoard gets while a run trains: one line per phase, with numbers and the time left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from .agent.config import RunConfig
from .agent.training import behaviour_updates, model_updates, resting

PHASES = ("collect", "world model", "rounds", "predictor", "behaviour")
_COUNTS = ("total", "base", "done", "last", "last_total", "written")  # of a phase, that a resumed run goes on from
_PLAIN_SECONDS = 10.0  # between lines where there is no terminal
_ROW_SECONDS = 60.0  # the same for the row of a comparison
_DRAW_SECONDS = 0.1
_POINTS = 200  # that TensorBoard gets of a phase, about


def phase_totals(config: RunConfig) -> dict[str, int]:
    """Units of work of each phase over the whole schedule; steps of all environments count as one."""
    schedule, envs = config.schedule, config.env.num_envs
    before = resting(schedule)
    lives = 1 + (schedule.renewal is not None)
    first = lives * schedule.prefill_behaviour if schedule.rounds else 0
    return {
        "collect": max(1, schedule.prefill // envs) + schedule.rounds * max(1, schedule.round_steps // envs),
        "world model": model_updates(schedule, before),
        "rounds": schedule.rounds,
        "predictor": schedule.predictor_updates + (schedule.rounds - before) * schedule.round_updates,
        "behaviour": first + schedule.rounds * behaviour_updates(schedule) + schedule.final_behaviour_updates,
    }


class Phase:
    """One phase: how much is done over the whole schedule, and how long that took."""

    def __init__(self, total: int) -> None:
        self.total, self.base, self.done = total, 0, 0
        self.last, self.last_total = 0, 0
        self.seconds, self.began = 0.0, 0
        self.numbers: dict[str, float] = {}
        self.written: int | None = None

    def advance(self, done: int, total: int) -> None:
        """Take in a report; ``done`` starts anew with every stretch of the phase."""
        if done <= self.last:
            self.base += self.last_total
        self.last, self.last_total = done, total
        self.done = self.base + done
        self.total = max(self.total, self.done)

    def spend(self, seconds: float, done: int) -> None:
        """Time went by until this report; what goes before a stretch's first unit (latents at rest) happens once."""
        if done == 1:
            self.began += 1
        else:
            self.seconds += seconds

    @property
    def left(self) -> float | None:
        """Seconds left, where the phase has run long enough to tell."""
        if self.done >= self.total:
            return 0.0
        units = self.done - self.began
        return self.seconds / units * (self.total - self.done) if units > 0 else None


class TrainingProgress:
    """Told of every unit of work (`agent.training.Report`); draws and writes at a bearable rate.

    Nothing is drawn or written before work begins, so that a refused setting leaves no trace.

    Args:
        config: Of the run; says how much there is to do.
        console: Bars on a terminal, a line now and then elsewhere.
        folder: Run folder; event files go into its `tensorboard/`.
        header: Printed when work begins.
    """

    def __init__(self, config: RunConfig, console: Console, folder: Path, header: str) -> None:
        self.phases = {name: Phase(total) for name, total in phase_totals(config).items()}
        self.console, self.folder, self.header = console, folder, header
        self.writer: SummaryWriter | None = None
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.start = self.then = time.monotonic()
        self.drawn, self.current = 0.0, ""

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self._draw()
            self.bars.stop()
        elif self.current:
            self._line(self.current)
        if self.writer is not None:
            self.writer.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def __call__(self, phase: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Take in a report."""
        if self.writer is None:
            self._open()
        if phase == "health":
            self._scalars(phase, done, metrics)
            return
        name = "rounds" if phase.startswith("round") else phase
        now, state = time.monotonic(), self.phases[name]
        if name == "rounds":
            state.done, state.total = done, max(total, done)
        else:
            state.advance(done, total)
        state.numbers = dict(metrics)
        if name != "rounds":
            state.spend(now - self.then, done)
        self.then = now
        self._write(name, state)
        self._show(name, now)

    def state(self) -> dict[str, Any]:
        """How far the phases are, and how much of the curves is on the disk by now."""
        counts = {name: {key: getattr(phase, key) for key in _COUNTS} for name, phase in self.phases.items()}
        return {"phases": counts, "curves": curve_sizes(self.folder, self.writer)}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`: phases go on, and of the curves remains what there was then, so that no point is doubled.

        Raises:
            ValueError: It is no such state.
        """
        for name, phase in self.phases.items():
            for key in _COUNTS:
                value = state["phases"][name][key]
                if not isinstance(value, int) and not (value is None and key == "written"):
                    raise ValueError(f"{key} of {name} is {value!r}, expected a whole number")
                setattr(phase, key, value)
            phase.began = phase.done
        cut_curves(self.folder, state["curves"])

    def _open(self) -> None:
        self.console.print(self.header, soft_wrap=True, highlight=False, markup=False)
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        if not self.console.is_terminal:
            return
        columns = ("{task.description}", BarColumn(24), MofNCompleteColumn(), "{task.fields[left]}")
        drawn = [TextColumn(part, markup=False) if isinstance(part, str) else part for part in columns]
        self.bars = Progress(*drawn, TextColumn("{task.fields[numbers]}", style="dim"), console=self.console)
        for name, phase in self.phases.items():
            if phase.total:
                self.tasks[name] = self.bars.add_task(name, total=phase.total, left="", numbers="")
        self.tasks["in all"] = self.bars.add_task("in all", total=100, left="", numbers="")
        self.bars.start()

    def _write(self, name: str, phase: Phase) -> None:
        stride = max(1, phase.total // _POINTS)
        if phase.written is not None and phase.done - phase.written < stride and phase.done < phase.total:
            return
        phase.written = phase.done
        self._scalars(name, phase.done, phase.numbers)

    def _scalars(self, name: str, at: int, metrics: Mapping[str, float]) -> None:
        assert self.writer is not None
        for key, value in metrics.items():
            self.writer.add_scalar(f"{name}/{key}".replace(" ", "_"), value, at)

    def _show(self, name: str, now: float) -> None:
        if self.bars is not None:
            if now - self.drawn > _DRAW_SECONDS:
                self.drawn = now
                self._draw()
        elif name != "rounds" and (now - self.drawn > _PLAIN_SECONDS or not self.current):
            self.drawn, self.current = now, name
            self._line(name)
        else:
            self.current = name

    def _left(self) -> tuple[float, bool]:
        """Seconds left in all, and whether nothing is missing from this number."""
        parts = [phase.left for name, phase in self.phases.items() if name != "rounds"]
        return sum(part for part in parts if part is not None), None not in parts

    def _draw(self) -> None:
        assert self.bars is not None
        for name, phase in self.phases.items():
            if name in self.tasks:
                left = "" if name == "rounds" or phase.left is None else f"{clock(phase.left)} left"
                self.bars.update(
                    self.tasks[name],
                    completed=phase.done,
                    total=phase.total,
                    left=left,
                    numbers=numbers(phase.numbers),
                )
        left_seconds, whole = self._left()
        share = 100 * self.elapsed / max(self.elapsed + left_seconds, 1e-9) if whole else 0
        at_least = "" if whole else "at least "
        text = f"{at_least}{clock(left_seconds)} left, {clock(self.elapsed)} gone"
        self.bars.update(self.tasks["in all"], completed=int(share), left=text)

    def _line(self, name: str) -> None:
        phase = self.phases[name]
        left, whole = self._left()
        rounds = self.phases["rounds"]
        parts = [
            f"[{clock(self.elapsed)}] {name} {phase.done}/{phase.total}",
            f"round {rounds.done}/{rounds.total}" if rounds.total else "",
            f"{'' if whole else 'at least '}{clock(left)} left in all",
            numbers(phase.numbers),
        ]
        self.console.print(Text(", ".join(part for part in parts if part)), soft_wrap=True)


class RowProgress:
    """Finished episodes, or other units of work, of each row of a comparison.

    Episodes go on side by side and many end late: decisions say that something is going on, and the time that is left
    is told once a quarter of the episodes is over, from which it can be told.

    Args:
        names: Of the rows.
        console: Bars on a terminal; elsewhere a line per finished row, and one a minute of a row that takes longer.
        unit: What is counted.
    """

    def __init__(self, names: Sequence[str], console: Console, unit: str = "episodes") -> None:
        self.console, self.unit = console, unit
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks = {name: self.bars.add_task(name, total=None, start=False, state="") for name in names}
        self.began: dict[str, float] = {}
        self.told: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.finished: set[str] = set()

    def __enter__(self) -> dict[str, Callable[[int, int], None]]:
        self.bars.start()
        return {name: self._teller(name) for name in self.tasks}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def _teller(self, name: str) -> Callable[[int, int], None]:
        def tell(done: int, wanted: int) -> None:
            now = time.monotonic()
            seconds = now - self.began.setdefault(name, now)
            self.calls[name] = self.calls.get(name, 0) + 1
            episodes = self.unit == "episodes"  # told of after each decision
            state = (
                f"{done}/{wanted} {self.unit}, {f'decision {self.calls[name]}, ' if episodes else ''}{clock(seconds)}"
            )
            if 0 < done < wanted and (4 * done >= wanted or not episodes):
                state += f", {clock(seconds * (wanted - done) / done)} left"
            self.bars.start_task(self.tasks[name])
            self.bars.update(self.tasks[name], completed=done, total=wanted, state=state)
            if name in self.finished:
                return
            if done >= wanted:
                self.finished.add(name)
            due = name in self.finished or now - self.told.setdefault(name, now) >= _ROW_SECONDS
            if due and not self.console.is_terminal:
                self.told[name] = now
                self.console.print(Text(f"{name}: {state}"), soft_wrap=True)

        return tell


class StepProgress:
    """A single bar with the time left (`agent.ppo.Told`); a line now and then where there is no terminal.

    Args:
        console: Where it is drawn.
        folder: Where the work goes, shown at the start.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[state]}", markup=False))
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task: TaskID | None = None
        self.start, self.shown, self.done = time.monotonic(), 0.0, 0

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Take in a report."""
        now = time.monotonic()
        if self.task is None:
            self.console.print(f"training → {self.folder}", soft_wrap=True, highlight=False, markup=False)
            self.bars.start()
            self.task, self.start, self.shown = self.bars.add_task("", total=total, state=""), now, now
            return
        passed = now - self.start
        left = clock(passed / max(done, 1) * max(total - done, 0))
        state = ", ".join(part for part in (f"{left} left", numbers(metrics)) if part)
        self.bars.update(self.task, completed=min(done, total), state=state)
        ended = done >= total > self.done
        self.done = done
        if not self.console.is_terminal and (now - self.shown > _PLAIN_SECONDS or ended):
            self.shown = now
            self.console.print(Text(f"[{clock(passed)}] {done}/{total}, {state}"), soft_wrap=True)


def curve_sizes(folder: Path, writer: SummaryWriter | None) -> dict[str, int]:
    """Bytes of each event file of a run folder, after what waits in the writer was flushed to the disk."""
    if writer is not None:
        writer.flush()
        for path in _curves(folder):
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return {path.name: path.stat().st_size for path in _curves(folder)}


def cut_curves(folder: Path, sizes: Mapping[str, int]) -> None:
    """Leave of the event files what there was when they had these sizes."""
    for path in _curves(folder):
        length = sizes.get(path.name)
        if length is None:
            path.unlink()
        elif length < path.stat().st_size:
            os.truncate(path, length)


def _curves(folder: Path) -> list[Path]:
    found = (folder / "tensorboard").glob("events.out.tfevents.*")
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def clock(seconds: float) -> str:
    """Minutes and seconds, hours where there are any."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def numbers(metrics: Mapping[str, float], count: int = 3) -> str:
    """The first few metrics in short."""
    return ", ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:count])
