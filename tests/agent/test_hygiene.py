"""What a long life leaves behind: no open files, no threads, no processes, and curves of a bounded length."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forethought.agent.config import Saving
from rich.console import Console

from forethought.progress import TrainingProgress

from ..stress.endurance import Held, cycle, settings

pytestmark = pytest.mark.usefixtures("short_check_up")


def test_training_evaluating_and_playing_leave_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cycles of a run that is stopped and resumed in one process; after the first of them nothing is added."""
    config = replace(settings(), saving=Saving(minutes=0, units=5))
    config = replace(config, schedule=replace(config.schedule, prefill=100, prefill_updates=2, round_steps=16,
                                              round_updates=3))  # fmt: skip
    first, *rest = [cycle(config, tmp_path / "run", 12, number > 0) for number in range(4)]
    for held in rest[1:]:
        assert (held.files, held.threads, held.children) == (rest[0].files, rest[0].threads, rest[0].children)
    assert rest[-1].megabytes < first.megabytes + 50
    leaked = [open("/proc/self/stat") for _ in range(3)]  # noqa: SIM115 - control: it would be seen
    assert Held.now().files == rest[-1].files + 3
    for file in leaked:
        file.close()


def test_curves_of_a_long_run_are_no_longer_than_those_of_a_short_one(tmp_path: Path) -> None:
    """About 200 points of each phase, however many updates it has."""
    lengths = []
    for name, updates in (("short", 400), ("long", 40_000)):
        config = settings()
        schedule = replace(config.schedule, prefill_updates=updates, rounds=0)
        progress = TrainingProgress(
            replace(config, schedule=schedule), Console(file=io.StringIO()), tmp_path / name, ""
        )
        numbers: dict[str, Any] = {"loss": 0.5}
        with progress:
            for done in range(1, updates + 1):
                progress("world model", done, updates, numbers)
        lengths.append(sum(path.stat().st_size for path in (tmp_path / name / "tensorboard").iterdir()))
    assert 0.5 < lengths[1] / lengths[0] < 2
