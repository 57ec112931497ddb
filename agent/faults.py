"""What a run does when something goes wrong around it: a second writer, a signal, numbers or memory that give out."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..modules.memory import Window
from .errors import Stopped
from .storage import save_tensors, write_atomically

LOWER = {
    "collect": "task.thinking.candidates, task.thinking.horizon or env.num_envs",
    "world model": "model_loss.batch or model_loss.steps",
    "predictor": "schedule.predictor_batch or schedule.capacity (its latents are kept as well)",
    "behaviour": "behaviour.batch, behaviour.imagination or schedule.reanalyse",
}
"""By phase, the settings that memory use depends on."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process writes to a run folder, which is made if needed.

    The system gives the lock back when its holder ends in whatever way; the file that stays behind means nothing.

    Raises:
        BlockingIOError: Another process trains there.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise BlockingIOError(
                f"{folder} is being written by {holder}; wait for it, stop it, or name another folder"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}); see that nobody else writes there", stacklevel=3
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        os.close(handle)


class StopRequest:
    """The signal that asked to stop, if one did."""

    number: int | None = None

    def obey(self) -> None:
        """Stop if asked to.

        Raises:
            Stopped: It was asked for.
        """
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within, Ctrl-C and SIGTERM wait for whoever asks; a second one is told to be patient, a third gives up.

    So a unit of work is never torn apart. Signals can only be caught in the main thread; elsewhere nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    count = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count, request.number = count + 1, number
        if count == 2:
            os.write(2, b"\nstill saving; once more to give up\n")  # print is not safe within a signal
        if count > 2:
            raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def statistics_kept(*networks: torch.nn.Module | None) -> Iterator[None]:
    """If what is done within fails, networks are left at rest and with the running statistics that they had before."""
    there = [network for network in networks if network is not None]
    before = [[buffer.clone() for buffer in network.buffers()] for network in there]
    modes = [network.training for network in there]
    try:
        yield
    except BaseException:
        for network, buffers, training in zip(there, before, modes, strict=True):
            network.train(training)
            for buffer, old in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(old)
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the machine or of the accelerator gave out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def write_crash(
    folder: Path,
    error: BaseException,
    facts: dict[str, Any],
    window: Window | None,
    networks: dict[str, torch.nn.Module],
) -> Path:
    """Leave what helps to understand a failure in ``crash/`` of the run folder: a report, and the last batch.

    Args:
        folder: Run folder.
        error: What happened.
        facts: What else is to be told, as JSON.
        window: That was learned from last.
        networks: Whose parameters are looked at.

    Returns:
        The folder.
    """
    crash = folder / "crash"
    crash.mkdir(exist_ok=True)
    parameters = {f"{name}.{key}": t for name, network in networks.items() for key, t in network.state_dict().items()}
    batch = {} if window is None else {key: value for key, value in vars(window).items() if isinstance(value, Tensor)}
    report = facts | {
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)).splitlines(),
        "batch": {name: _describe(tensor) for name, tensor in batch.items()},
        "not finite": {name: _describe(t) for name, t in parameters.items() if not torch.isfinite(t).all()},
    }
    write_atomically(crash / "crash.json", json.dumps(report, indent=2).encode())
    save_tensors(crash / "batch.safetensors", batch)
    return crash


def _describe(tensor: Tensor) -> dict[str, Any]:
    """Shape, how many entries are not finite, and the range of those that are."""
    flat = tensor.detach().double().flatten()
    finite = flat[torch.isfinite(flat)]
    span = [float(finite.min()), float(finite.max())] if len(finite) else []
    return {"shape": list(tensor.shape), "not finite": len(flat) - len(finite), "range": span}
