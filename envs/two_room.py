"""TwoRoom: two rooms, one door, a red dot that must go where the goal image shows it.

The physics is that of `swm/TwoRoom-v1` (stable-worldmodel) with its default factors, in its 224-pixel units; the
picture is drawn at 64×64. Positions are `(x, y)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .room_base import Placement, RoomVectorEnv
from .room_drawing import IMAGE_SIZE, Floats, Images, Layout, dot_patches, rescale, solid_mask
from .room_options import Bools, Rows, add_noise

LAYOUT = Layout(
    side=224, low=14.0, high=210.0, wall_half=5.0, door_half=14.0, border=(9.5, 13.5),
    dot_std=7.0, success_radius=16.0, action_limit=1.0,
)  # fmt: skip
SPEED_PX = 5.0
WALL_X, DOOR_Y = 112.0, 49.0
LEFT_FACE, RIGHT_FACE = 100.0, 124.0
"""Where the dot's rim touches the wall: wall ± (half thickness 5 + radius 7)."""
STANDOFF_PX = 0.5
"""A dot stopped by the wall is put this far before the face."""
DOOR_REACH = 15.75
"""The door lets pass what lies within this distance of its centre: half-extent 14 + a quarter of the radius."""
CLAMP = (21.0, 203.0)
SPAWN = (14.0, 209.0)
APPROACH_PX = 10.5
"""The expert turns from the door to the goal at this distance from the door's centre."""
EXPERT_NOISE_STD = 2.0
EXPERT_STEPS = 25
COLLECT_STEPS = 100
WALL_MARGIN_PX = 12.0
_BLOCK = 64
_POOL = 32
"""Pairs drawn in advance per environment; simulating the expert costs the same for one pair as for many."""
PAIRS = ("uniform", "cross_room", "expert_25")


def in_door(y: Floats) -> Bools:
    """Say which heights [B] the door lets pass."""
    passable: Bools = np.abs(y - DOOR_Y) <= DOOR_REACH
    return passable


def two_room_move(position: Floats, action: Floats) -> Floats:
    """Move dots by one step.

    A move that would touch the wall from the side it started on, with its *destination* outside the door, ends just
    before the wall; hence a move sideways out of the doorway is thrown back by up to 12 px.

    Args:
        position: Places [B,2] before the step, in 224-pixel units.
        action: Actions [B,2]; clipped to [-1, 1], then 5 px per unit.

    Returns:
        Places [B,2] after the step.
    """
    moved = np.clip(position + SPEED_PX * np.clip(action, -1.0, 1.0), *CLAMP)
    from_left, shut = position[:, 0] < WALL_X, ~in_door(moved[:, 1])
    stopped_left = shut & from_left & (moved[:, 0] > LEFT_FACE)
    stopped_right = shut & ~from_left & (moved[:, 0] < RIGHT_FACE)
    moved[stopped_left, 0] = LEFT_FACE - STANDOFF_PX
    moved[stopped_right, 0] = RIGHT_FACE + STANDOFF_PX
    return moved


def two_room_expert(
    position: Floats, goal: Floats, *, noise_std: float = 0.0, generator: np.random.Generator | None = None
) -> Floats:
    """Head straight for the door's centre until within 10.5 px of it, then straight for the goal, at unit speed.

    Args:
        position: Places [B,2] in 224-pixel units.
        goal: Goals [B,2].
        noise_std: Standard deviation of Gaussian noise on the action, clipped afterwards; 2.0 collected the data.
        generator: Source of the noise, needed when `noise_std` is not 0.

    Returns:
        Actions [B,2] in [-1, 1].

    Raises:
        ValueError: If noise is asked for without a generator.
    """
    door = np.array([WALL_X, DOOR_Y])
    other_room = (position[:, 0] < WALL_X) != (goal[:, 0] < WALL_X)
    to_door = other_room & (np.linalg.norm(position - door, axis=1) > APPROACH_PX)
    offset = np.where(to_door[:, None], door, goal) - position
    length = np.linalg.norm(offset, axis=1, keepdims=True)
    direction = offset / np.maximum(length, 1e-9)
    return add_noise(direction, LAYOUT.action_limit, noise_std, generator)


def _windows(start: Floats, target: Floats, generator: np.random.Generator) -> tuple[Floats, Floats, Bools]:
    """Walk noisy experts from `start` to `target` [n,2] and cut a window of 25 steps out of each walk.

    As in the published data an episode ends at its target or after 100 steps; the window lies anywhere in it, every
    episode counting once. Episodes shorter than the window are refused.
    """
    path = [start]
    for _ in range(COLLECT_STEPS):
        action = two_room_expert(path[-1], target, noise_std=EXPERT_NOISE_STD, generator=generator)
        path.append(two_room_move(path[-1], action))
    walk = np.stack(path)  # T+1,n,2
    arrived = np.linalg.norm(walk[1:] - target, axis=2) < LAYOUT.success_radius
    length = np.where(arrived.any(axis=0), arrived.argmax(axis=0) + 1, COLLECT_STEPS)
    free = np.maximum(length - EXPERT_STEPS + 1, 0)
    first = (generator.random(len(start)) * free).astype(np.intp)
    each = np.arange(len(start))
    return walk[first, each], walk[first + np.where(free > 0, EXPERT_STEPS, 0), each], free > 0


def two_room_pairs(pairs: str, generator: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Draw starts and goals.

    `uniform` is the environment's own law: start and goal uniform in [14,209]², the start not within 12 px of the
    wall's middle, both in one room or not. `cross_room` keeps those in opposite rooms with the goal off the wall, too.
    `expert_25` takes places 25 steps apart on a noisy expert's walk toward a uniform target (the 25/50 protocol), as
    pairs cut out of the published data are; so a start is any place on such a walk.

    Args:
        pairs: One of `PAIRS`.
        generator: Source of everything drawn; drawn in blocks, so fewer pairs are a prefix of more.
        count: How many.

    Returns:
        Starts [count,2] and goals [count,2] in 224-pixel units.

    Raises:
        ValueError: If `pairs` is unknown.
    """
    if pairs not in PAIRS:
        raise ValueError(f"pairs is {pairs!r}; expected one of {', '.join(map(repr, PAIRS))}.")
    starts: list[Floats] = []
    goals: list[Floats] = []
    found = 0
    while found < count:
        start, goal = generator.uniform(*SPAWN, (2, _BLOCK, 2))
        kept = np.abs(start[:, 0] - WALL_X) > WALL_MARGIN_PX
        if pairs == "expert_25":
            start, goal, long_enough = _windows(start, goal, generator)
            kept &= long_enough
        elif pairs == "cross_room":
            kept &= np.abs(goal[:, 0] - WALL_X) > WALL_MARGIN_PX
            kept &= (start[:, 0] < WALL_X) != (goal[:, 0] < WALL_X)
        starts.append(start[kept])
        goals.append(goal[kept])
        found += int(kept.sum())
    return np.concatenate(starts)[:count], np.concatenate(goals)[:count]


@cache
def _background() -> tuple[NDArray[np.float32], Images]:
    """Draw the empty world once: the 224-pixel drawing averaged over the area of each of the 64×64 pixels.

    Returns:
        Its brightness [64·64] in [0,255] and its picture [64,64,3].
    """
    solid = solid_mask(LAYOUT, np.array([WALL_X]), np.array([DOOR_Y]), LAYOUT.side)[0]
    twice = solid.repeat(2, axis=0).repeat(2, axis=1)  # 448 = 64·7: now every pixel of the 64 is a whole block
    block = 2 * LAYOUT.side // IMAGE_SIZE
    covered = twice.reshape(IMAGE_SIZE, block, IMAGE_SIZE, block).mean(axis=(1, 3))
    brightness = (255.0 * (1.0 - covered)).astype(np.float32)
    return brightness.reshape(-1), np.rint(brightness).astype(np.uint8)[..., None].repeat(3, axis=-1)


class TwoRoomVectorEnv(RoomVectorEnv):
    """TwoRoom, batched; see :class:`.room_base.RoomVectorEnv` for what all room worlds share.

    Actions are Box(-1,1)² times 5 px. By default an episode ends at the goal (distance below 16 px after the step) and
    is truncated after 100 steps. The picture is the 224-pixel world's look at 64×64: white floor, black border and
    wall, a red Gaussian dot.

    Args:
        num_envs: Number of environments `B`.
        pairs: "uniform", "cross_room" or "expert_25", see :func:`two_room_pairs`.
        max_steps: Steps until truncation.
        terminate_on_success: Whether reaching the goal ends the episode.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    LAYOUT = LAYOUT
    PAIRS = PAIRS

    def __init__(
        self,
        num_envs: int = 1,
        *,
        pairs: Literal["uniform", "cross_room", "expert_25"] = "uniform",
        max_steps: int = 100,
        terminate_on_success: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            num_envs,
            pairs=pairs,
            max_steps=max_steps,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
        )
        self._wall[:], self._door[:] = WALL_X, DOOR_Y
        self._pool = np.zeros((num_envs, _POOL, 4))
        self._pooled = np.zeros(num_envs, dtype=np.int64)

    def expert_action(self, noise_std: float = 0.0, generator: np.random.Generator | None = None) -> Floats:
        """Return :func:`two_room_expert` of the present state: actions [B,2]."""
        return two_room_expert(self._position, self._goal, noise_std=noise_std, generator=generator)

    def _move(self, action: Floats) -> Floats:
        return two_room_move(self._position, action)

    def _reseeded(self, row: int) -> None:
        self._pooled[row] = 0

    def _place(self, rows: Rows, given: Mapping[str, Floats]) -> Placement:
        for row in rows[self._pooled[rows] == 0]:
            pairs = two_room_pairs(self.pairs, self._generators[row], _POOL)
            self._pool[row] = np.concatenate(pairs, axis=1)
            self._pooled[row] = _POOL
        drawn = self._pool[rows, _POOL - self._pooled[rows]]
        self._pooled[rows] -= 1
        return Placement(drawn[:, :2], drawn[:, 2:], self._wall[rows], self._door[rows])

    def _blocked(self, position: Floats, wall: Floats, door: Floats) -> Bools:
        within = (position[:, 0] > LEFT_FACE) & (position[:, 0] < RIGHT_FACE)
        return within & ~in_door(position[:, 1])

    def _state_names(self) -> tuple[str, ...]:
        return (*super()._state_names(), "pool", "pooled")

    def _draw(self, position: Floats, rows: Rows) -> Images:
        brightness, picture = _background()
        frames = np.empty((len(position), *picture.shape), dtype=np.uint8)
        frames[:] = picture
        centre = rescale(position, LAYOUT.side, IMAGE_SIZE)
        alpha, where = dot_patches(centre, LAYOUT.dot_std * IMAGE_SIZE / LAYOUT.side, IMAGE_SIZE)
        floor = brightness[where] * (1.0 - alpha) + np.float32(0.5)
        where += self._all[: len(rows), None, None] * IMAGE_SIZE**2
        pixels = frames.reshape(-1, 3)
        pixels[where, 0] = (floor + np.float32(255.0) * alpha).astype(np.uint8)
        pixels[where, 1] = pixels[where, 2] = floor.astype(np.uint8)
        return frames
