"""DotWall: a dot, a wall whose place and door change with every episode, and collisions that are a little random.

Follows the description of the PLDM / EB-JEPA environment in its 65-pixel units. The 65×65×2 picture is shown as
64×64×3: its last row and column, which lie outside the border, are cut off; channel 0 is the dot, channel 1 the wall
and the border, channel 2 is zero. Positions are `(x, y)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from .room_base import Placement, RoomVectorEnv
from .room_drawing import IMAGE_SIZE, Floats, Images, Layout, dot_patches, solid_mask
from .room_options import Bools, Rows, add_noise

LAYOUT = Layout(
    side=65, low=4.0, high=60.0, wall_half=1.5, door_half=4.0, border=(3.5, 4.5),
    dot_std=1.3, success_radius=4.5, action_limit=2.45,
)  # fmt: skip
STEP_PX = 2.45
"""Longest displacement of one step."""
WALL_HALF, DOOR_HALF = 1.0, LAYOUT.door_half
"""Where the dot's centre meets the wall and the door's jambs, from their middles; it is drawn 3 px wide."""
WALL_RANGE, DOOR_RANGE = (20.0, 44.0), (10.0, 54.0)
BOUNCE_STD_PX = 0.5
CLEARANCE_PX = 0.05
"""How far from a surface a dot that hit it stays at least."""
MARGIN_PX = 2.6
"""Starts and goals keep this distance, twice the dot's deviation, from the border lines and from the wall's middle."""
ALIGNED_PX = 2.0
PASS_PX = 3.0
NEAR_PX = (10.0, 8.0)
"""How far from the wall's middle, and from the door's along it, near_wall episodes begin at most."""
NEAR_DOOR = 0.4
"""Share of the near_wall episodes that begin near the door."""
PAIRS = ("cross_room", "near_wall")


def bound_norm(action: Floats) -> Floats:
    """Shorten actions [B,2] to a length of at most 2.45 px, keeping their direction."""
    length = np.linalg.norm(action, axis=1, keepdims=True)
    bounded: Floats = action * np.minimum(1.0, STEP_PX / np.maximum(length, 1e-12))
    return bounded


def _first_touch(position: Floats, step: Floats, wall: Floats, door: Floats) -> tuple[Floats, Bools]:
    """Find where on the way a dot first touches a surface.

    Returns:
        The fraction [B] of the step at the touch (infinite: none), and whether it is a door's jamb [B].
    """
    safe = np.where(np.abs(step) < 1e-12, 1e-12, step)
    border = np.where(safe > 0, LAYOUT.high, LAYOUT.low)
    touch = np.min((border - position) / safe, axis=1)
    jamb = np.zeros(len(position), dtype=np.bool_)
    far = 2.0 * LAYOUT.side
    for low_y, high_y in ((np.full_like(door, -far), door - DOOR_HALF), (door + DOOR_HALF, np.full_like(door, far))):
        low = np.stack([wall - WALL_HALF, low_y], axis=1)
        high = np.stack([wall + WALL_HALF, high_y], axis=1)
        near, away = (low - position) / safe, (high - position) / safe
        enter, leave = np.minimum(near, away), np.maximum(near, away)  # B,2: per axis
        entry = enter.max(axis=1)
        hit = (entry < leave.min(axis=1)) & (entry >= 0.0) & (entry < touch)
        touch = np.where(hit, entry, touch)
        jamb = np.where(hit, enter[:, 1] > enter[:, 0], jamb)
    return np.where(touch <= 1.0, touch, np.inf), jamb


def dot_wall_move(position: Floats, action: Floats, wall: Floats, door: Floats, noise: Floats) -> Floats:
    """Move dots by one step.

    A dot that meets the wall or the border stops there, is displaced by the noise, and kept on the side it came from.

    Args:
        position: Places [B,2] before the step, in 65-pixel units, none inside the wall.
        action: Displacements [B,2]; shortened to a length of 2.45 px.
        wall: The wall's x [B].
        door: The door's centre y [B].
        noise: What a collision adds [B,2], in px; the environment draws it from N(0, 0.5²).

    Returns:
        Places [B,2] after the step.
    """
    step = bound_norm(action)
    touch, jamb = _first_touch(position, step, wall, door)
    bounced = np.isfinite(touch)
    meeting = position + step * np.where(bounced, touch, 0.0)[:, None]
    landed = meeting + noise
    keep_off = WALL_HALF + CLEARANCE_PX
    left = position[:, 0] < wall
    beside = np.where(left, np.minimum(landed[:, 0], wall - keep_off), np.maximum(landed[:, 0], wall + keep_off))
    in_way = DOOR_HALF - CLEARANCE_PX
    landed[:, 0] = np.where(jamb, landed[:, 0], beside)
    landed[:, 1] = np.where(jamb, np.clip(landed[:, 1], door - in_way, door + in_way), landed[:, 1])
    landed = np.clip(landed, LAYOUT.low + CLEARANCE_PX, LAYOUT.high - CLEARANCE_PX)
    return np.where(bounced[:, None], landed, position + step)


def dot_wall_expert(
    position: Floats,
    goal: Floats,
    wall: Floats,
    door: Floats,
    *,
    noise_std: float = 0.0,
    generator: np.random.Generator | None = None,
) -> Floats:
    """Go before the door, through it, then straight to the goal, 2.45 px a step and no further than the way point.

    Args:
        position: Places [B,2] in 65-pixel units.
        goal: Goals [B,2].
        wall: The wall's x [B].
        door: The door's centre y [B].
        noise_std: Standard deviation of Gaussian noise on the action, clipped to Box(±2.45)² afterwards.
        generator: Source of the noise, needed when `noise_std` is not 0.

    Returns:
        Displacements [B,2].

    Raises:
        ValueError: If noise is asked for without a generator.
    """
    side = np.where(goal[:, 0] < wall, -1.0, 1.0)  # where the goal is, seen from the wall
    beyond = side * (position[:, 0] - wall)  # how far the dot is on the goal's side
    cleared = beyond > WALL_HALF
    within = np.abs(beyond) <= WALL_HALF
    aligned = within | (np.abs(position[:, 1] - door) <= ALIGNED_PX)
    doorway = np.stack([wall + np.where(aligned, side, -side) * PASS_PX, door], axis=1)
    offset = np.where(cleared[:, None], goal, doorway) - position
    return add_noise(bound_norm(offset), LAYOUT.action_limit, noise_std, generator)


def dot_wall_pairs(
    uniform: Floats, wall: Floats | None = None, door: Floats | None = None, near_wall: bool = False
) -> Placement:
    """Turn numbers uniform in [0,1) into episodes that lead from one room to the other.

    Walls lie at whole x in 20..44, door centres at whole y in 10..54; start and goal keep 2.6 px from the border lines
    and from the wall's middle; which room is the start's is a toss.

    Args:
        uniform: Numbers [n,7]: wall, door, side, start x, start y, goal x, goal y; with near_wall [n,8], the last one
            for whether it begins at the door.
        wall: Walls [n] to use instead of drawn ones.
        door: Doors [n] to use instead of drawn ones.
        near_wall: Starts lie at most 10 px beside the wall: two fifths of them at most 8 px above or below the door's
            centre, the others anywhere along it.

    Returns:
        The episodes.
    """
    if wall is None:
        wall = WALL_RANGE[0] + np.floor(uniform[:, 0] * (WALL_RANGE[1] - WALL_RANGE[0] + 1.0))
    if door is None:
        door = DOOR_RANGE[0] + np.floor(uniform[:, 1] * (DOOR_RANGE[1] - DOOR_RANGE[0] + 1.0))
    low, high = LAYOUT.low + MARGIN_PX, LAYOUT.high - MARGIN_PX
    swapped = uniform[:, 2] < 0.5
    left_x = low + np.where(swapped, uniform[:, 5], uniform[:, 3]) * (wall - MARGIN_PX - low)
    right_x = wall + MARGIN_PX + np.where(swapped, uniform[:, 3], uniform[:, 5]) * (high - wall - MARGIN_PX)
    start = np.stack([np.where(swapped, right_x, left_x), low + uniform[:, 4] * (high - low)], axis=1)
    if near_wall:
        beside = MARGIN_PX + uniform[:, 3] * (NEAR_PX[0] - MARGIN_PX)
        start[:, 0] = wall + np.where(swapped, beside, -beside)
        at_door = np.clip(door + (2.0 * uniform[:, 4] - 1.0) * NEAR_PX[1], low, high)
        start[:, 1] = np.where(uniform[:, 7] < NEAR_DOOR, at_door, start[:, 1])
    goal = np.stack([np.where(swapped, left_x, right_x), low + uniform[:, 6] * (high - low)], axis=1)
    return Placement(start, goal, wall, door)


class DotWallVectorEnv(RoomVectorEnv):
    """DotWall, batched; see :class:`.room_base.RoomVectorEnv` for what all room worlds share.

    Actions are displacements in Box(-2.45,2.45)² whose length is bounded by 2.45 px. An episode runs for 199 steps (200
    positions) and does not end at the goal, because success (distance below 4.5 px) is judged at its last position:
    read `infos["final_info"]["success"]`. `reset` also takes the options `wall` [B] in [20,44] and `door` [B] in
    [10,54], and `infos` also hold `wall` [B] and `door` [B].

    An episode's collision noise is drawn from the environment's generator when the episode begins, so it does not
    depend on how often the dot collides.

    Args:
        num_envs: Number of environments `B`.
        pairs: "cross_room", see :func:`dot_wall_pairs`; "near_wall": every second episode of an environment, by a toss,
            begins near the wall, so that random walks meet it and its door (published data cross the wall in 8 to 60 %
            of walks).
        max_steps: Steps until truncation.
        terminate_on_success: Whether reaching the goal ends the episode.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    LAYOUT = LAYOUT
    PAIRS = PAIRS
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {"wall": WALL_RANGE, "door": DOOR_RANGE}

    def __init__(
        self,
        num_envs: int = 1,
        *,
        pairs: Literal["cross_room", "near_wall"] = "cross_room",
        max_steps: int = 199,
        terminate_on_success: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            num_envs,
            pairs=pairs,
            max_steps=max_steps,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
        )
        self._noise = np.zeros((num_envs, max_steps, 2))
        self._backgrounds = np.zeros((num_envs, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

    def expert_action(self, noise_std: float = 0.0, generator: np.random.Generator | None = None) -> Floats:
        """Return :func:`dot_wall_expert` of the present state: actions [B,2]."""
        return dot_wall_expert(
            self._position, self._goal, self._wall, self._door, noise_std=noise_std, generator=generator
        )

    def _move(self, action: Floats) -> Floats:
        return dot_wall_move(self._position, action, self._wall, self._door, self._noise[self._all, self._steps])

    def _place(self, rows: Rows, given: Mapping[str, Floats]) -> Placement:
        uniform = np.stack([self._generators[row].random(7) for row in rows])
        chosen = {name: given[name][rows] for name in self.RANGES if name in given}
        placement = dot_wall_pairs(uniform, chosen.get("wall"), chosen.get("door"))
        if self.pairs == "near_wall":
            more = np.stack([self._generators[row].random(2) for row in rows])
            uniform = np.concatenate([uniform, more[:, :1]], axis=1)
            near = dot_wall_pairs(uniform, placement.wall, placement.door, near_wall=True)
            toss = more[:, 1] < 0.5
            placement.start[toss] = near.start[toss]
        return placement

    def _begin(self, rows: Rows) -> None:
        for row in rows:
            self._noise[row] = BOUNCE_STD_PX * self._generators[row].standard_normal((self.max_steps, 2))

    def _blocked(self, position: Floats, wall: Floats, door: Floats) -> Bools:
        blocked: Bools = (np.abs(position[:, 0] - wall) <= WALL_HALF) & (np.abs(position[:, 1] - door) >= DOOR_HALF)
        return blocked

    def _state_names(self) -> tuple[str, ...]:
        return (*super()._state_names(), "wall", "door", "noise")

    def _facts(self) -> dict[str, Floats]:
        return super()._facts() | {"wall": self._wall.copy(), "door": self._door.copy()}

    def _prepare_images(self, rows: Rows) -> None:
        solid = solid_mask(LAYOUT, self._wall[rows], self._door[rows], LAYOUT.side)[:, :IMAGE_SIZE, :IMAGE_SIZE]
        self._backgrounds[rows, :, :, 1] = 255.0 * solid
        super()._prepare_images(rows)

    def _draw(self, position: Floats, rows: Rows) -> Images:
        frames = self._backgrounds[rows]  # a copy
        dots, where = dot_patches(position, LAYOUT.dot_std, IMAGE_SIZE)
        where += self._all[: len(rows), None, None] * IMAGE_SIZE**2
        frames.reshape(-1, 3)[where, 0] = (255.0 * dots + 0.5).astype(np.uint8)
        return frames
