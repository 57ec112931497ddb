"""Kill a small training run at random moments (SIGKILL), go on, and see that nothing was lost or doubled.

    OMP_NUM_THREADS=1 python tests/stress/kill.py --kills 100

A reference run is never touched. Other runs are killed again and again until they finish. After every kill the run must
resume, having lost at most one checkpoint interval and the unit under way; every finished run must have the reference's
weights, byte for byte, and its TensorBoard curves, point for point. Run by hand; it prints what happened.
"""

from __future__ import annotations

import argparse
import io
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from forethought.agent import keeper, run
from forethought.agent.config import RunConfig, Saving
from forethought.agent.presets import preset
from forethought.agent.resume import FOLDER, newest
from forethought.modules.configurator import Thinking
from rich.console import Console

from forethought.progress import TrainingProgress

INTERVAL = 15  # units between checkpoints


def settings() -> RunConfig:
    """CartPole through every phase in 150 units of work."""
    config = preset("CartPole-v1")
    schedule = replace(
        config.schedule, prefill=200, prefill_updates=20, rounds=2, round_steps=80, round_updates=10, capacity=300,
        predictor_updates=5, predictor_batch=16, final_behaviour_updates=20,
    )  # fmt: skip
    return replace(
        config,
        env=replace(config.env, num_envs=4),
        task=replace(config.task, thinking=Thinking(horizon=4, candidates=8, iterations=1)),
        model_loss=replace(config.model_loss, batch=8, steps=4),
        behaviour=replace(config.behaviour, batch=8, steps=4, imagination=3),
        schedule=schedule,
        saving=Saving(minutes=0, units=INTERVAL),
        device="cpu",
        threads=1,
    )


class Child:
    """A training run in a process of its own; `reached` and `begun` are its units of work, shared with us."""

    def __init__(self, folder: Path, resume: bool) -> None:
        self.shared = mmap.mmap(-1, 16)
        self.began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            self._train(folder, resume)

    def _train(self, folder: Path, resume: bool) -> None:
        code, pause, load = 1, keeper.Keeper.pause, keeper.Keeper.resume

        def told(self_: keeper.Keeper) -> None:
            struct.pack_into("q", self.shared, 0, self_.trainer.units)
            pause(self_)

        def loaded(self_: keeper.Keeper) -> None:
            load(self_)
            struct.pack_into("q", self.shared, 8, self_.trainer.units + 1)

        keeper.Keeper.pause, keeper.Keeper.resume = told, loaded  # type: ignore[method-assign]
        try:
            report = TrainingProgress(settings(), Console(file=io.StringIO()), folder, "")
            with report:
                run.train(settings(), folder, report, resume)
            code = 0
        except BaseException:
            folder.with_name(f"{folder.name}.log").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    @property
    def reached(self) -> int:
        return int(struct.unpack_from("q", self.shared, 0)[0])

    @property
    def begun(self) -> int | None:
        """Units it resumed with, once it has."""
        value = int(struct.unpack_from("q", self.shared, 8)[0])
        return value - 1 if value else None

    def end(self, units: int | None = None, seconds: float = 0.0) -> int:
        """Wait for it, or kill it so many seconds after so many units of work; returns its exit code, or −9."""
        since: float | None = None
        while units is not None and (since is None or time.monotonic() - since < seconds):
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if since is None and (units < 0 or self.reached - (self.begun or 0) >= units):
                since = time.monotonic()
            time.sleep(0.0005)
        if units is not None:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard point: step and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def problems(folder: Path, reference: Path) -> list[str]:
    """How a finished run differs from the reference."""
    found = []
    if (folder / "weights.safetensors").read_bytes() != (reference / "weights.safetensors").read_bytes():
        found.append("other weights")
    if (mine := curves(folder)) != (wanted := curves(reference)):
        found.append(f"other curves: {sorted(tag for tag in wanted if mine.get(tag) != wanted[tag])}")
    if left := [path.name for path in folder.iterdir() if path.name == FOLDER or ".part" in path.name]:
        found.append(f"left behind: {left}")
    return found


def main() -> int:  # noqa: PLR0912, PLR0915 - one story, told from its beginning to its end
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.set_num_threads(1)
    run.DECISIONS = 128  # the check-up at the end is not what is tried here
    draws, home = np.random.default_rng(given.seed), Path(tempfile.mkdtemp(prefix="kill-"))
    reference = Child(home / "reference", False)
    assert reference.end() == 0, (home / "reference.log").read_text()
    span = time.monotonic() - reference.began
    print(f"reference: {reference.reached} units in {span:.1f} s, a checkpoint every {INTERVAL}", flush=True)
    kills = fresh = finished = worst = 0
    faults: list[str] = []
    number, folder, resume, reached = 0, home / "0", False, 0
    while kills < given.kills or resume:
        child = Child(folder, resume)
        if kills >= given.kills:
            code = child.end()
        elif draws.random() < 0.15:  # at any time, while it starts or loads perhaps
            code = child.end(-1, float(draws.uniform(0, 0.3 * span)))
        else:
            code = child.end(int(draws.integers(1, 4 * INTERVAL)), float(draws.exponential(span / reference.reached)))
        if resume and child.begun is not None:
            worst = max(worst, reached - child.begun)
            if reached - child.begun > INTERVAL:
                faults.append(f"run {number}: at unit {reached}, resumed at {child.begun}")
        if code == -signal.SIGKILL:
            kills += 1
            reached = max(child.reached, reached if child.begun is None and resume else 0)
            resume = newest(folder / FOLDER) is not None
            finished_file = folder / "progress.json"
            if finished_file.is_file() and '"finished": true' in finished_file.read_text():
                code, resume = 0, False  # killed after the end, in the check-up
            elif not resume:
                fresh += 1
                if reached:
                    faults.append(f"run {number}: no checkpoint after {reached} units")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            else:
                continue
        elif code:
            faults.append(f"run {number}: {folder.with_name(folder.name + '.log').read_text()[-500:]}")
        elif found := problems(folder, home / "reference"):
            faults.append(f"run {number}: {found}")
        else:
            finished += 1
        number, resume, reached = number + 1, False, 0
        folder = home / str(number)
        print(f"{kills} kills, {finished} runs finished alike, {len(faults)} faults", flush=True)
    print(
        f"{kills} kills over {number} runs: {fresh} before the first checkpoint (begun anew), at most {worst} units "
        f"lost of an interval of {INTERVAL}, {finished} runs finished with the reference's weights and curves, "
        f"{len(faults)} faults"
    )
    for fault in faults:
        print(fault)
    if not faults:
        shutil.rmtree(home)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
