"""`forethought doctor`: what is installed, which device and threads are used, and what will work."""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .agent.agent import pick_device
from .agent.config import RunConfig
from .envs.make import make_env
from .options import UsageError, wants_help

_HELP = """\
usage: forethought doctor

Checks the installation by using it: builds and steps environments, encodes two frames of video, writes to runs/.
Exit code 0 if training will work, else 1."""

_LOW_DISK = 2 * 2**30  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    ok: bool
    text: str
    """What was found, or what to do."""
    essential: bool = True
    """Whether training cannot work without it."""


def doctor(arguments: Sequence[str], console: Console) -> int:
    """Examine this machine; 0 if the essentials work, else 1."""
    if arguments:
        if wants_help(arguments):
            console.print(_HELP, markup=False, highlight=False, soft_wrap=True)
            return 0
        raise UsageError(f"doctor got {' '.join(arguments)!r}: expected nothing")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    findings = examine()
    for finding in findings:
        verdict = ("ok", "green") if finding.ok else ("missing", "red" if finding.essential else "yellow")
        table.add_row(Text(finding.name, style="bold"), Text(*verdict), Text(finding.text))
    console.print(table)
    broken = [finding.name for finding in findings if finding.essential and not finding.ok]
    said = f"training will not work before this is mended: {', '.join(broken)}" if broken else "training will work"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    return 1 if broken else 0


def examine() -> list[Finding]:
    """All findings, in the order of the report."""
    names = ("forethought", "torch", "numpy", "gymnasium", "stable-baselines3", "tensorboard")
    return [
        _python(),
        *(_package(name) for name in names),
        _device(),
        _cores(),
        _tried("CartPole", _cartpole, "reinstall: pip install --force-reinstall gymnasium"),
        _tried("Procgen", _procgen, f"reinstall: pip install --force-reinstall {_procgen_package()}"),
        _tried("MiniGrid", _minigrid, "pip install 'forethought[minigrid]', or do without", essential=False),
        _tried("video (H.264)", _video, "pip install --force-reinstall av; until then compare with --film 0", False),
        _disk(Path("runs")),
        _writable(Path("runs")),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    fits = (3, 10) <= sys.version_info < (3, 13)
    return Finding("Python", fits, found if fits else f"{found}; expected 3.10, 3.11 or 3.12: make a new environment")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        known = name == "forethought"  # a checkout that was not installed works where its dependencies are
        return Finding(name, False, "run pip install . in the checkout" if known else f"pip install {name}", not known)


def _device() -> Finding:
    device = pick_device("auto")
    return Finding("device", True, f"auto is {device}" + (" (no accelerator found)" if device.type == "cpu" else ""))


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = RunConfig().threads
    limit = os.environ.get("OMP_NUM_THREADS")
    budget = f"{usable} usable cores; a run takes {threads} torch threads (--threads)"
    if limit:
        budget += f"; OMP_NUM_THREADS={limit} is set, --threads goes before it"
    if threads > usable:
        budget += f"; give --threads {usable}"
    return Finding("threads", True, budget)


def _tried(name: str, attempt: Callable[[], str], fix: str, essential: bool = True) -> Finding:
    try:
        return Finding(name, True, attempt(), essential)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Finding(name, False, f"{fix} ({reason})", essential)


def _cartpole() -> str:
    return _step("CartPole-v1")


def _procgen_package() -> str:
    return "procgen" if sys.version_info < (3, 11) else "procgen-mirror"


def _procgen() -> str:
    package = _procgen_package()
    return f"{package} {version(package)}, {_step('procgen:fruitbot')}"


def _minigrid() -> str:
    return f"minigrid {version('minigrid')}, {_step('MiniGrid-Empty-5x5-v0', 'image')}"


def _step(id: str, observation_key: str | None = None) -> str:
    env = make_env(id, 2, observation_key=observation_key)
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(10):
            env.step(env.action_space.sample())
    finally:
        env.close()
    return "built and took 10 steps"


def _video() -> str:
    import imageio.v3 as iio  # noqa: PLC0415  (a finding if it is missing)

    frames = np.zeros((2, 64, 64, 3), np.uint8)
    file = io.BytesIO()
    iio.imwrite(file, frames, plugin="pyav", extension=".mp4", codec="libx264", fps=15)
    return f"av {version('av')}, encoded 2 frames in {len(file.getvalue())} bytes"


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{free / 2**30:.1f} GiB free"
    fits = free >= _LOW_DISK
    return Finding("disk", fits, text if fits else f"{text}; free some, a pixel run needs about 2 GiB", False)


def _writable(folder: Path) -> Finding:
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding("runs/", True, f"{folder.absolute()} can be written")
    except OSError as error:
        return Finding("runs/", False, f"{place} cannot be written ({error.strerror}); change folder or give --run")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    whole = folder.absolute()
    return next(place for place in (whole, *whole.parents) if place.is_dir())
