"""Level ranges of procedurally generated games, kept apart for training and testing."""

from __future__ import annotations

from dataclasses import dataclass

SEED_RANGE = 2**31  # Procgen keeps seeds in 32-bit signed integers


@dataclass(frozen=True)
class Levels:
    """A range of level seeds, `start, start + 1, …, start + count - 1`.

    Attributes:
        start: First level seed.
        count: Number of levels; 0 stands for all levels (see `Levels.all`).

    Raises:
        ValueError: A negative number, a seed beyond what the simulator can hold, or a start with "all levels".
    """

    start: int
    count: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 0 or self.start + self.count >= SEED_RANGE:
            raise ValueError(f"{self}: expected start >= 0, count >= 0 and start + count < 2**31 = {SEED_RANGE}.")
        if self.count == 0 and self.start != 0:
            raise ValueError(f"{self}: with all levels the simulator ignores start. Write Levels.all() instead.")

    @classmethod
    def all(cls) -> Levels:
        """The official "all levels" set: seeds drawn from [0, 2**31 - 1)."""
        return cls(0, 0)

    @property
    def stop(self) -> int:
        """One past the last level seed."""
        return self.start + self.count if self.count else SEED_RANGE - 1

    def __contains__(self, level_seed: int) -> bool:
        return self.start <= level_seed < self.stop

    def overlaps(self, other: Levels) -> bool:
        """Whether a level belongs to both ranges."""
        return max(self.start, other.start) < min(self.stop, other.stop)


@dataclass(frozen=True)
class LevelSplit:
    """Which levels are trained on and which are kept for testing.

    The default keeps both finite and disjoint. The protocol of the Procgen paper tests on *all* levels, which contain
    the training levels; say so explicitly: `LevelSplit(Levels(0, 200), Levels.all(), allow_overlap=True)`.

    Attributes:
        train: Levels of `split="train"`.
        test: Levels of `split="test"`.
        allow_overlap: Accept training levels among the test levels.

    Raises:
        ValueError: The two ranges overlap and `allow_overlap` is not set.
    """

    train: Levels = Levels(0, 200)
    test: Levels = Levels(1_000_000, 1_000_000)
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        if self.train.overlaps(self.test) and not self.allow_overlap:
            raise ValueError(
                f"Training and test levels overlap: {self.train} and {self.test} (count 0 means all levels). Expected "
                "disjoint ranges; choose others, or pass allow_overlap=True if the protocol asks for it."
            )
