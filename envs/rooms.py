"""The room worlds: what users import, and the protocols by which results on them are reported.

A protocol fixes the world, the law of start and goal, the budget of decisions, when success is judged and how near is
near enough. Its held-out pairs come from a random stream of their own, so no seed makes them meet the training pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .dot_wall import LAYOUT as DOT_WALL
from .dot_wall import DotWallVectorEnv, dot_wall_expert, dot_wall_move, dot_wall_pairs
from .room_base import RoomVectorEnv
from .room_drawing import Floats
from .two_room import LAYOUT as TWO_ROOM
from .two_room import TwoRoomVectorEnv, two_room_expert, two_room_move, two_room_pairs

_STREAMS = {"train": 0, "held_out": 1}


@dataclass(frozen=True)
class Protocol:
    """How success on a room world is measured; every reported number names one."""

    name: str
    """Name under which results are reported."""
    env: Literal["two_room", "dot_wall"]
    """The world."""
    pairs: Literal["uniform", "cross_room", "expert_25"]
    """The law of start and goal."""
    budget_steps: int
    """Decisions per episode."""
    judged: Literal["ever", "final"]
    """Whether the goal counts when reached at any step, or only when held at the last position."""
    success_radius: float
    """Distance, in the world's pixels, strictly below which the goal is reached."""

    def make(self, num_envs: int = 1, *, render_mode: str | None = None) -> RoomVectorEnv:
        """Build the world with this protocol's law and budget; its episodes end at the goal where any step counts.

        Args:
            num_envs: Number of environments, at least 1.
            render_mode: None or "rgb_array".

        Raises:
            ValueError: If an argument is out of range.
        """
        world: Any = TwoRoomVectorEnv if self.env == "two_room" else DotWallVectorEnv
        built: RoomVectorEnv = world(
            num_envs,
            pairs=self.pairs,
            max_steps=self.budget_steps,
            terminate_on_success=self.judged == "ever",
            render_mode=render_mode,
        )
        return built


TWO_ROOM_25_50 = Protocol("two_room 25/50", "two_room", "expert_25", 50, "ever", TWO_ROOM.success_radius)
TWO_ROOM_CROSS_50 = Protocol("two_room cross-room/50", "two_room", "cross_room", 50, "ever", TWO_ROOM.success_radius)
TWO_ROOM_CROSS_100 = Protocol("two_room cross-room/100", "two_room", "cross_room", 100, "ever", TWO_ROOM.success_radius)
DOT_WALL_200 = Protocol("dot_wall cross-room/200", "dot_wall", "cross_room", 199, "final", DOT_WALL.success_radius)
PROTOCOLS = (TWO_ROOM_25_50, TWO_ROOM_CROSS_50, TWO_ROOM_CROSS_100, DOT_WALL_200)


@dataclass(frozen=True)
class Pairs:
    """Starts and goals to evaluate on, in the world's pixels."""

    start: Floats
    """Starts [N,2]."""
    goal: Floats
    """Goals [N,2]."""
    wall: Floats | None = None
    """The wall's x [N], where it varies."""
    door: Floats | None = None
    """The door's centre y [N], where it varies."""

    def __len__(self) -> int:
        return len(self.start)

    def options(self, which: slice) -> dict[str, Floats]:
        """Return the reset options that start an environment on the pairs `which`, one per environment."""
        options = {"position": self.start[which], "goal": self.goal[which]}
        if self.wall is not None and self.door is not None:
            options |= {"wall": self.wall[which], "door": self.door[which]}
        return options


def sample_pairs(
    protocol: Protocol, count: int, seed: int, *, split: Literal["train", "held_out"] = "held_out"
) -> Pairs:
    """Draw a protocol's starts and goals.

    Args:
        protocol: The protocol.
        count: How many, at least 1; fewer are a prefix of more.
        seed: Seed, at least 0.
        split: Which random stream to use. The two never meet, nor either the streams of environments reset with a seed.

    Returns:
        The pairs.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"count is {count} and seed is {seed}; expected count >= 1 and seed >= 0.")
    if split not in _STREAMS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(map(repr, _STREAMS))}.")
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAMS[split],)))
    if protocol.env == "two_room":
        return Pairs(*two_room_pairs(protocol.pairs, generator, count))
    return Pairs(*dot_wall_pairs(generator.random((count, 7))))


__all__ = [
    "DOT_WALL",
    "DOT_WALL_200",
    "PROTOCOLS",
    "TWO_ROOM",
    "TWO_ROOM_25_50",
    "TWO_ROOM_CROSS_50",
    "TWO_ROOM_CROSS_100",
    "DotWallVectorEnv",
    "Pairs",
    "Protocol",
    "RoomVectorEnv",
    "TwoRoomVectorEnv",
    "dot_wall_expert",
    "dot_wall_move",
    "dot_wall_pairs",
    "sample_pairs",
    "two_room_expert",
    "two_room_move",
    "two_room_pairs",
]
