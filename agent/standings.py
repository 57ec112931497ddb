"""What the results of one row say together: means over runs, the gap between known and unseen levels, scores, costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .aggregate import Array, aggregate, average, difference, improvement
from .evaluation import Episode, Result
from .scores import Normalisation
from .statistics import Interval, mean_interval, wilson

Scale = Callable[[str], Normalisation | None]
"""The normalisation of a world, None where none is known."""


@dataclass(frozen=True)
class Standing:
    """A row in one world, over all runs that took part."""

    name: str
    world: str
    unseen: tuple[Result, ...]
    """A result per run."""
    train: tuple[Result, ...]
    """A result per run on its training levels; empty where they were not played."""
    mean: Interval
    """Mean return on unseen levels; with several runs the interval is over runs, else over episodes."""
    train_mean: Interval | None
    gap: Interval | None
    """Mean return on training levels less that on unseen ones."""
    score: Interval | None
    """The mean, normalised."""
    success: Interval | None
    """Share of episodes on unseen levels, with Wilson's interval; None in tasks without success."""

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """All episodes on unseen levels."""
        return tuple(episode for result in self.unseen for episode in result.episodes)

    @property
    def returns(self) -> NDArray[np.float64]:
        """Their returns."""
        return np.concatenate([result.returns for result in self.unseen])

    @property
    def milliseconds(self) -> float:
        """Per decision, mean over runs."""
        return float(np.mean([result.milliseconds for result in self.unseen]))

    @property
    def calls(self) -> float:
        """Predictor calls per decision, mean over runs."""
        return float(np.mean([result.calls for result in self.unseen]))

    @property
    def decisions(self) -> float:
        """Mean length of an episode on unseen levels."""
        return float(np.mean([episode.decisions for episode in self.episodes]))

    @property
    def steps(self) -> int:
        """Environment steps of training, of the run that took most."""
        return max(result.steps for result in self.unseen)

    @property
    def note(self) -> str:
        """The results' notes."""
        return "; ".join(dict.fromkeys(result.note for result in self.unseen if result.note))


def standings(rows: Sequence[Result], scale: Scale | None = None) -> tuple[Standing, ...]:
    """Check results and bring them together, worlds and rows in the order of their first result.

    Args:
        rows: One result per row, world, run and split.
        scale: Knows the worlds' normalisation; none by default.

    Raises:
        ValueError: There is nothing to show, two results are of the same row, a row has no episodes or was played on
            training levels alone, or a return is not finite.
    """
    _check(rows)
    tasks = {row.world for row in rows if row.successes.any()}
    worlds = dict.fromkeys(row.world for row in rows)
    return tuple(
        _standing(name, world, [row for row in rows if (row.name, row.world) == (name, world)], world in tasks, scale)
        for world in worlds
        for name in dict.fromkeys(row.name for row in rows if row.world == world)
    )


def _standing(name: str, world: str, rows: Sequence[Result], success: bool, scale: Scale | None) -> Standing:
    unseen = tuple(row for row in rows if row.split == "unseen")
    train = tuple(row for row in rows if row.split == "train")
    if not unseen:
        raise ValueError(f"Row {name!r} was played on training levels alone; play unseen ones as well.")
    mean = _mean(unseen)
    norm = scale(world) if scale is not None else None
    both = [(a, b) for a in train for b in unseen if a.run == b.run]
    pooled = np.concatenate([row.successes for row in unseen])
    return Standing(
        name,
        world,
        unseen,
        train,
        mean,
        _mean(train) if train else None,
        difference([a.returns for a, _ in both], [b.returns for _, b in both]) if both else None,
        None if norm is None else Interval(*(float(norm(np.array(x))) for x in (mean.mean, mean.low, mean.high))),
        wilson(int(pooled.sum()), len(pooled)) if success else None,
    )


def _mean(results: Sequence[Result]) -> Interval:
    if len(results) == 1:
        return mean_interval(results[0].returns)
    return aggregate([[result.returns for result in results]], average)


def _check(rows: Sequence[Result]) -> None:
    if not rows:
        raise ValueError("There are no rows; a report needs the results of at least one behaviour.")
    keys = [(row.name, row.world, row.run, row.split) for row in rows]
    for row, key in zip(rows, keys, strict=True):
        if keys.count(key) > 1:
            raise ValueError(f"{keys.count(key)} rows are called {row.name!r}; give each row its own name.")
        if not row.episodes:
            raise ValueError(f"Row {row.name!r} has no episodes; evaluate it for at least one, or leave it out.")
        bad = np.flatnonzero(~np.isfinite(row.returns))
        if len(bad):
            raise ValueError(
                f"Row {row.name!r}, episode {bad[0]}: the return is {row.returns[bad[0]]}, expected a finite number; "
                "look for the reward that made it."
            )


def chance_to_beat(ours: Standing, other: Standing) -> Interval:
    """Probability of improvement of one row over another of the same world."""
    return improvement([[r.returns for r in ours.unseen]], [[r.returns for r in other.unseen]])


@dataclass(frozen=True)
class Overall:
    """A row over all worlds, in normalised scores."""

    name: str
    tasks: tuple[tuple[Array, ...], ...]
    """Normalised returns on unseen levels, by world and run."""

    def summary(self, statistic: Callable[[Array], Array]) -> Interval:
        """A statistic over all runs and worlds, with its stratified-bootstrap interval."""
        return aggregate(self.tasks, statistic)

    def beats(self, other: Overall) -> Interval:
        """Probability of improvement, averaged over worlds."""
        return improvement(self.tasks, other.tasks)


def overall(places: Sequence[Standing], scale: Scale) -> tuple[Overall, ...]:
    """The rows that took part in every world; empty where a world has no normalisation."""
    worlds = list(dict.fromkeys(place.world for place in places))
    norms = {world: norm for world in worlds if (norm := scale(world)) is not None}
    if len(norms) < len(worlds):
        return ()
    found = []
    for name in dict.fromkeys(place.name for place in places):
        mine = {place.world: place for place in places if place.name == name}
        if len(mine) == len(worlds):
            tasks = tuple(tuple(norms[world](r.returns) for r in mine[world].unseen) for world in worlds)
            found.append(Overall(name, tasks))
    return tuple(found)
