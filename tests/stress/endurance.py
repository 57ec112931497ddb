"""Train, stop, go on, evaluate and dream for long, and see that nothing grows: memory, files, threads, processes.

    OMP_NUM_THREADS=1 python tests/stress/endurance.py --minutes 120

One run is trained on in one process, stopped by a signal and resumed again and again; in between its agent is loaded
and evaluated in both modes, and a Genie world is played through its server. After each cycle it prints what the process
holds; the first fifth of them is warming up. Run by hand.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forethought.agent import run
from forethought.agent.checkpoint import load_agent
from forethought.agent.comparison import CompareConfig, compare
from forethought.agent.config import RunConfig, Saving
from forethought.agent.errors import Stopped
from forethought.agent.genie_play import PlayOptions, Session, make_server
from forethought.agent.presets import preset
from forethought.envs.genie import PRETRAINED
from forethought.modules.configurator import Thinking
from rich.console import Console

from forethought.progress import TrainingProgress


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    megabytes: float
    files: int
    threads: int
    children: int

    @classmethod
    def now(cls) -> Held:
        """Of this process, after everything that is nobody's was given back."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        tasks = Path("/proc/self/task")
        children = sum(len((task / "children").read_text().split()) for task in tasks.iterdir())
        size = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return cls(size, len(os.listdir("/proc/self/fd")), len(list(tasks.iterdir())), children)


def settings() -> RunConfig:
    """CartPole in rounds without end; the memory is full soon."""
    config = preset("CartPole-v1")
    schedule = replace(config.schedule, prefill=400, prefill_updates=20, rounds=10**6, round_steps=80, round_updates=10,
                       capacity=1_000)  # fmt: skip
    return replace(
        config,
        env=replace(config.env, num_envs=4),
        task=replace(config.task, thinking=Thinking(horizon=4, candidates=16, iterations=1)),
        model_loss=replace(config.model_loss, batch=16, steps=4),
        behaviour=replace(config.behaviour, batch=16, steps=4, imagination=3),
        schedule=schedule,
        saving=Saving(minutes=0, units=100),
        device="cpu",
        threads=1,
    )


def train(config: RunConfig, folder: Path, units: int, resume: bool) -> None:
    """Go on for so many units of work, then be stopped by a signal."""
    progress, done = TrainingProgress(config, Console(file=io.StringIO()), folder, ""), [0]

    class Stopping:
        """The progress, and a signal in the end."""

        def __call__(self, *told: Any) -> None:
            progress(*told)
            done[0] += 1
            if done[0] == units:
                signal.raise_signal(signal.SIGTERM)

        state, restore = staticmethod(progress.state), staticmethod(progress.restore)

    try:
        with progress:
            run.train(config, folder, Stopping(), resume)
    except Stopped:
        return
    raise AssertionError("the run came to its end")


def play(folder: Path) -> None:
    """A dream of a few steps, through the server."""
    server = make_server(Session(PRETRAINED, PlayOptions(out=str(folder))), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for action in (0, 1, 0):
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{address}/step", f'{{"action": {action}}}'.encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            answer.read()
    server.shutdown()
    server.server_close()
    thread.join()


def cycle(config: RunConfig, folder: Path, units: int, resume: bool) -> Held:
    """Train, evaluate in both modes, play; what is held afterwards."""
    train(config, folder, units, resume)
    agent = load_agent(folder)
    compare(agent, CompareConfig(("mode-1", "mode-2"), episodes=1, film=0))
    play(folder)
    del agent
    return Held.now()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--minutes", type=float, default=120)
    options.add_argument("--units", type=int, default=300, help="of work in a cycle")
    given = options.parse_args()
    torch.set_num_threads(1)
    home = Path(tempfile.mkdtemp(prefix="endurance-"))
    begun, seen = time.monotonic(), []
    while time.monotonic() - begun < 60 * given.minutes or len(seen) < 5:
        held = cycle(settings(), home / "run", given.units, bool(seen))
        disk = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6
        seen.append((time.monotonic() - begun, held))
        print(
            f"{(time.monotonic() - begun) / 60:6.1f} min, cycle {len(seen)}: {held}, {disk:.1f} MB on disk", flush=True
        )
    warm = seen[len(seen) // 5 :]
    minutes, sizes = np.array([at / 60 for at, _ in warm]), np.array([held.megabytes for _, held in warm])
    slope = float(np.polyfit(minutes, sizes, 1)[0]) if len(warm) > 1 else 0.0
    counts = [{getattr(held, name) for _, held in warm} for name in ("files", "threads", "children")]
    print(
        f"{len(seen)} cycles of {given.units} units in {minutes[-1]:.0f} minutes: {sizes[0]:.0f} MB after warming up, "
        f"{sizes[-1]:.0f} MB at the end (at most {sizes.max():.0f}, {slope * 60:+.1f} MB per hour); "
        f"files {sorted(counts[0])}, threads {sorted(counts[1])}, children {sorted(counts[2])}"
    )
    shutil.rmtree(home)
    return int(any(max(count) > min(count) for count in counts[:1] + counts[2:]))


if __name__ == "__main__":
    sys.exit(main())
