"""A sprite in a box: the smallest world that a Genie can be learned from, with a task and its answer known.

The box is 16×16 pixels and the sprite a square of 4×4 that moves by its own width, so it has 16 places. The task is to
reach the lower right corner, which looks like any other place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .gym import check_actions
from .room_options import read_mask, read_seeds

Images = NDArray[np.uint8]
SIDE, SPRITE = 16, 4
MOVES = np.array([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]) * SPRITE
"""Stay, left, right, up, down: rows and columns."""
GOAL = np.array([SIDE - SPRITE, SIDE - SPRITE])
_BACKGROUND, _COLOUR = (20, 20, 60), (250, 220, 40)


@dataclass(frozen=True)
class SpriteState:
    """Everything needed to continue a `SpriteVectorEnv`, its generators apart: places ``[B, 2]`` and steps ``[B]``."""

    places: NDArray[np.int64]
    steps: NDArray[np.int64]

    def repeat(self, index: int, count: int) -> SpriteState:
        """Environment ``index``, ``count`` times."""
        return SpriteState(self.places[[index] * count], self.steps[[index] * count])


class SpriteVectorEnv(VectorEnv[Images, NDArray[Any], NDArray[Any]]):
    """B sprites. Observations are uint8 ``[B, 16, 16, 3]``, actions stay, left, right, up and down.

    A move out of the box is none. Reaching the corner gives reward 1 and terminates; `success` says so. An ended
    environment resets within the same step and leaves its last picture in `final_obs`.

    Args:
        num_envs: B.
        seed: Of the first episodes; environment i gets seed + i.
        max_steps: Steps until an episode is truncated.
        render_mode: None or "rgb_array" (the observation).

    Raises:
        ValueError: An argument out of range.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }
    action_meanings = ("stay", "left", "right", "up", "down")
    noop = 0

    def __init__(
        self, num_envs: int = 1, *, seed: int = 0, max_steps: int = 12, render_mode: str | None = None
    ) -> None:
        if num_envs < 1 or max_steps < 1:
            raise ValueError(f"num_envs={num_envs}, max_steps={max_steps}: expected both at least 1.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'.")
        self.num_envs, self.max_steps, self.render_mode = num_envs, max_steps, render_mode
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np.random.default_rng(seed + index) for index in range(num_envs)]
        self._places = np.zeros((num_envs, 2), np.int64)
        self._steps = np.zeros(num_envs, np.int64)
        self._running = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Begin new episodes, anywhere but in the corner.

        Args:
            seed: Environment i draws anew from seed + i; or one seed for each.
            options: `reset_mask`, bool ``[B]``: only these.

        Raises:
            ValueError: Unknown options or values that do not fit.
            ResetNeeded: A `reset_mask` before the first full reset.
        """
        options = dict(options or {})
        rows = read_mask(options.pop("reset_mask", None), self.num_envs)
        if options:
            raise ValueError(f"reset got unknown options {sorted(options)}; expected reset_mask.")
        if not self._running and len(rows) < self.num_envs:
            raise ResetNeeded("reset_mask before the first reset: call reset() without it first.")
        for index, one in enumerate(read_seeds(seed, self.num_envs)):
            if one is not None:
                self._generators[index] = np.random.default_rng(one)
        self._running = True
        self._begin(rows)
        return draw(self._places), self._infos(np.zeros(self.num_envs, np.bool_))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Images, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Move.

        Raises:
            ValueError: Actions of another shape, type or range.
            ResetNeeded: No episode has begun.
        """
        if not self._running:
            raise ResetNeeded("step before the first reset: call reset() first.")
        after = self._places + MOVES[check_actions(actions, self.action_space)]
        inside = ((after >= 0) & (after <= SIDE - SPRITE)).all(1, keepdims=True)
        self._places = np.where(inside, after, self._places)
        self._steps += 1
        terminated = (self._places == GOAL).all(1)
        truncated = (self._steps >= self.max_steps) & ~terminated
        infos, ended = self._infos(terminated), terminated | truncated
        if ended.any():
            final = draw(self._places)
            self._begin(np.flatnonzero(ended))
            infos |= {"final_obs": final, "_final_obs": ended, "final_info": self._infos(terminated)}
            infos["_final_info"] = ended
        return draw(self._places), terminated.astype(np.float32), terminated, truncated, infos

    def render(self) -> tuple[Images, ...] | None:
        """The newest pictures, or None without a render mode."""
        return None if self.render_mode is None else tuple(draw(self._places))

    def get_state(self) -> SpriteState:
        """Where the sprites are, for `set_state`; the generators are not part of it."""
        return SpriteState(self._places.copy(), self._steps.copy())

    def set_state(self, state: SpriteState) -> None:
        """Go on from a state.

        Raises:
            ValueError: A state of another number of environments.
        """
        if len(state.places) != self.num_envs:
            raise ValueError(f"a state of {len(state.places)} sprites for {self.num_envs}; give one for each.")
        self._places, self._steps, self._running = state.places.copy(), state.steps.copy(), True

    def expert_action(self) -> NDArray[np.int64]:
        """A shortest way to the corner ``[B]``: right, then down."""
        return np.where(self._places[:, 1] < GOAL[1], 2, np.where(self._places[:, 0] < GOAL[0], 4, 0))

    def _begin(self, rows: NDArray[np.int64]) -> None:
        per_side = SIDE // SPRITE
        for row in rows:  # the corner is the last place
            self._places[row] = np.divmod(int(self._generators[row].integers(per_side**2 - 1)), per_side)
            self._places[row] *= SPRITE
        self._steps[rows] = 0

    def _infos(self, success: NDArray[np.bool_]) -> dict[str, Any]:
        return {"success": success.copy()}


def draw(places: NDArray[np.int64]) -> Images:
    """Pictures ``[n, 16, 16, 3]`` of sprites at ``places [n, 2]`` (upper left pixel: row and column)."""
    pixels = np.broadcast_to(np.array(_BACKGROUND, np.uint8), (len(places), SIDE, SIDE, 3)).copy()
    offset = np.arange(SPRITE)
    rows, columns = places[:, :1] + offset, places[:, 1:] + offset
    pixels[np.arange(len(places))[:, None, None], rows[:, :, None], columns[:, None]] = _COLOUR
    return pixels
