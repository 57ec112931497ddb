"""Where the time of a run goes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from .agent import Decision
from .interaction import Behaviour, Observation


class Stopwatch:
    """Seconds of wall-clock time spent on each kind of work.

    Attributes:
        seconds: By kind of work, in the order in which it was first done.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, work: str) -> Iterator[None]:
        """Count what happens inside as ``work``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(work, time.perf_counter() - began)

    def add(self, work: str, seconds: float) -> None:
        """Count so many seconds as ``work``."""
        self.seconds[work] = self.seconds.get(work, 0.0) + seconds

    def split(self) -> str:
        """In words: every kind of work with its seconds and its share."""
        total = max(sum(self.seconds.values()), 1e-9)
        return ", ".join(f"{work} {spent:.0f} s ({spent / total:.0%})" for work, spent in self.seconds.items())


class Timed:
    """A behaviour whose decisions are timed.

    Args:
        behaviour: Who decides.
        watch: Who counts.
    """

    def __init__(self, behaviour: Behaviour, watch: Stopwatch) -> None:
        self.behaviour, self.watch = behaviour, watch

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide as the behaviour does."""
        with self.watch("acting"):
            return self.behaviour.act(observation, first, active)


def peak_megabytes() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
