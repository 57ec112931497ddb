"""Published numbers that come along: Procgen's normalisation and PPO's learning curves (sources: `data/SOURCES.md`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalisation:
    """What maps returns to scores: (R − low) / (high − low) (Procgen paper, arXiv 1912.01588, appendix C)."""

    low: float
    """What a trivial policy gets that does not look; not the random policy's return."""
    high: float
    """The highest return that is possible, or that was seen."""
    random: float
    """Mean return of uniform random actions, as measured."""

    def __call__(self, returns: NDArray[Any]) -> NDArray[Any]:
        """Scores of returns, unclipped."""
        return (returns - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class PublishedPoint:
    """A point of PPO's published learning curve: 200 easy levels, mean of 3 runs, stochastic policy."""

    steps: int
    """Environment steps of training."""
    train: float
    """Mean return on the 200 training levels."""
    unseen: float
    """Mean return on all levels."""


def normalisation(id: str, distribution_mode: str | None = None) -> Normalisation | None:
    """The normalisation of an environment, or None where none was published.

    Args:
        id: Of the environment, such as "procgen:coinrun".
        distribution_mode: Procgen: "easy" (when None), "hard" …
    """
    for row in _read("procgen_normalisation.csv"):
        if row["game"] == game_of(id) and row["mode"] == (distribution_mode or "easy"):
            return Normalisation(float(row["r_min"]), float(row["r_max"]), float(row["random_mean"]))
    return None


def published_ppo(id: str, distribution_mode: str | None = None) -> tuple[PublishedPoint, ...]:
    """PPO's published curve in this environment, by steps; empty where there is none (it is of the easy mode)."""
    if (distribution_mode or "easy") != "easy":
        return ()
    return tuple(
        PublishedPoint(int(row["steps"]), float(row["train"]), float(row["test"]))
        for row in _read("procgen_ppo_easy200.csv")
        if row["game"] == game_of(id)
    )


def game_of(id: str) -> str | None:
    """The Procgen game that an environment id names, None for other environments."""
    name = id.removeprefix("forethought/").removesuffix("-v0")
    return next((name.removeprefix(prefix) for prefix in ("procgen:", "procgen-") if name.startswith(prefix)), None)


@cache
def _read(name: str) -> tuple[dict[str, str], ...]:
    assert __package__
    text = (files(__package__) / "data" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
