"""What the goal-reaching worlds with a wall and a door share: episodes, options, resets, infos and drawing.

A world adds its physics, its start and goal law and its colours; see :mod:`.two_room` and :mod:`.dot_wall`.
Positions are `(x, y)` in the world's own pixels, x to the right and y down; images are `[row = y, column = x]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .room_drawing import IMAGE_SIZE, Floats, Images, Layout, paint_view
from .room_options import Bools, Rows, pack_generator, read_mask, read_rows, read_seeds, unpack_generator

Observation = dict[str, Images]


class Placement(NamedTuple):
    """Where episodes begin: `start` [n,2], `goal` [n,2], the wall's x `wall` [n] and the door's centre y `door` [n]."""

    start: Floats
    goal: Floats
    wall: Floats
    door: Floats


class RoomVectorEnv(VectorEnv[Observation, Floats, NDArray[Any]]):
    """A batch of goal-reaching episodes behind a wall with a door; base of the two worlds.

    Observations are `{"observation": uint8 [B,64,64,3], "desired_goal": uint8 [B,64,64,3]}`; the goal image is the same
    world drawn with the dot at the goal. Reward is 1.0 on the first step of an episode that reaches the goal, else 0.

    Episodes restart by themselves in gymnasium's same-step mode. `infos` always hold, over environments:
    `position` [B,2], `goal` [B,2] and `distance` [B] of the returned observation, and `success` [B], the verdict on the
    step just taken (so of the ended episode where one ended; after a reset: whether it starts inside the radius).
    Where an episode ended, `infos["final_obs"]` and `infos["final_info"]` hold its last observation and infos.

    Environment i draws from its own generator only, so it behaves as a batch of one with the same seed.

    Args:
        num_envs: Number of environments `B`, at least 1.
        pairs: The law of start and goal, one of `PAIRS`.
        max_steps: Steps after which an unfinished episode is truncated, at least 1.
        terminate_on_success: Whether reaching the goal ends the episode.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: If an argument is outside what is stated above.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - gymnasium declares it as an instance attribute
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }
    goal_conditioned = True
    """Observations hold the goal's picture beside the present one."""
    LAYOUT: ClassVar[Layout]
    PAIRS: ClassVar[tuple[str, ...]]
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Lowest and highest value of the options that are one number per environment."""

    def __init__(
        self, num_envs: int, *, pairs: str, max_steps: int, terminate_on_success: bool, render_mode: str | None
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_steps", max_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected an integer of at least 1.")
        if pairs not in self.PAIRS:
            raise ValueError(f"pairs is {pairs!r}; expected one of {', '.join(map(repr, self.PAIRS))}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'.")
        self.num_envs, self.pairs, self.max_steps = num_envs, pairs, max_steps
        self.terminate_on_success, self.render_mode = terminate_on_success, render_mode
        image = Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        limit = self.LAYOUT.action_limit
        self.single_observation_space = Dict({"observation": image, "desired_goal": image})
        self.single_action_space = Box(-limit, limit, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.noop = np.zeros((num_envs, 2), dtype=np.float32)
        self._all: Rows = np.arange(num_envs)
        self._generators: list[np.random.Generator] = []
        self._position = np.zeros((num_envs, 2))
        self._goal = np.zeros((num_envs, 2))
        self._wall = np.zeros(num_envs)
        self._door = np.zeros(num_envs)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._reached = np.zeros(num_envs, dtype=np.bool_)
        self._goal_images = np.zeros((num_envs, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

    # What a world adds.

    def _move(self, action: Floats) -> Floats:
        """Return the positions [B,2] after the actions [B,2]."""
        raise NotImplementedError

    def _place(self, rows: Rows, given: Mapping[str, Floats]) -> Placement:
        """Draw new episodes for the environments `rows` [n] by the law of `pairs`, each from its own generator."""
        raise NotImplementedError

    def _draw(self, position: Floats, rows: Rows) -> Images:
        """Draw the environments `rows` [n] with their dots at `position` [n,2]: uint8 [n,64,64,3]."""
        raise NotImplementedError

    def _reseeded(self, row: int) -> None:
        """Drop what was drawn in advance from the old generator of environment `row`."""

    def _begin(self, rows: Rows) -> None:
        """Prepare what the environments `rows` [n] need for a new episode, before anything is drawn."""

    def _blocked(self, position: Floats, wall: Floats, door: Floats) -> Bools:
        """Say which positions [n,2] lie inside the solid part of the wall."""
        raise NotImplementedError

    def expert_action(self, noise_std: float = 0.0, generator: np.random.Generator | None = None) -> Floats:
        """Return the world's scripted expert's actions [B,2] for the present state."""
        raise NotImplementedError

    # The vector environment.

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: None keeps the generators (fresh entropy at the first reset), an int seeds environment i with
                `seed + i`, a sequence gives one seed (or None) per environment.
            options: `position` [B,2] and `goal` [B,2] in the world's pixels replace what was drawn; `reset_mask` [B]
                bool limits the reset (and what is read from the other entries) to the environments marked True.
                A world may accept more, see its class.

        Returns:
            Observations and infos of all environments, including those that were not reset.

        Raises:
            ValueError: If an option is unknown, has another shape, is not finite, or lies outside the room.
        """
        seeds = read_seeds(seed, self.num_envs)
        given, rows = self._read_options(options or {})
        if not self._generators:
            if rows.size < self.num_envs:
                raise ValueError(
                    f"The first reset has a reset_mask that leaves out {self.num_envs - rows.size} environments, which"
                    " have no episode yet; reset all of them first."
                )
            self._generators = [np.random.default_rng() for _ in range(self.num_envs)]
        for row in rows:
            if seeds[row] is not None:
                self._generators[row] = np.random.default_rng(seeds[row])
                self._reseeded(row)
        self._new_episodes(rows, given)
        return self._observe(), self._infos(self._distance() < self.LAYOUT.success_radius)

    def step(self, actions: Floats) -> tuple[Observation, Floats, Bools, Bools, dict[str, Any]]:
        """Move every dot once; where an episode ends the next one starts in the same call.

        Args:
            actions: Displacements [B,2]; brought into the action's bounds by the world.

        Returns:
            Observations, rewards [B], terminated [B], truncated [B] and infos, as the class describes. An episode that
            reaches its goal on its last step is terminated, not truncated.

        Raises:
            ResetNeeded: If the environment was never reset.
            ValueError: If the actions have another shape or are not finite.
        """
        if not self._generators:
            raise ResetNeeded("step was called before reset; call reset(seed=...) first.")
        self._position = self._move(read_rows("actions", actions, (self.num_envs, 2), self._all))
        self._steps += 1
        success = self._distance() < self.LAYOUT.success_radius
        reward = (success & ~self._reached).astype(np.float64)
        self._reached |= success
        terminated = success & self.terminate_on_success
        truncated = (self._steps >= self.max_steps) & ~terminated
        observation, ended = self._observe(), terminated | truncated
        if not ended.any():
            return observation, reward, terminated, truncated, self._infos(success)
        final = self._final(observation, success, ended)
        rows = np.flatnonzero(ended)
        self._new_episodes(rows, {})
        observation["observation"][rows] = self._draw(self._position[rows], rows)
        observation["desired_goal"][rows] = self._goal_images[rows]
        return observation, reward, terminated, truncated, self._infos(success) | final

    def render(self) -> tuple[Any, ...] | None:
        """Draw each environment as uint8 [224,224,3] with a ring around the goal at the success radius.

        Returns:
            One picture per environment, or None when `render_mode` is None.

        Raises:
            ResetNeeded: If the environment was never reset.
        """
        if self.render_mode is None:
            return None
        if not self._generators:
            raise ResetNeeded("render was called before reset; call reset(seed=...) first.")
        return tuple(self._paint(slice(None)))

    def render_first(self) -> Images:
        """Draw environment 0 alone, as `render` does: for films, where drawing hundreds costs more than all the rest.

        Raises:
            ResetNeeded: If the environment was never reset.
        """
        if not self._generators:
            raise ResetNeeded("render_first was called before reset; call reset(seed=...) first.")
        picture: Images = self._paint(slice(1))[0]
        return picture

    def _paint(self, rows: slice) -> Images:
        return paint_view(self.LAYOUT, self._position[rows], self._goal[rows], self._wall[rows], self._door[rows])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything the future depends on, as copied arrays over environments (generators included).

        Raises:
            ResetNeeded: If the environment was never reset.
        """
        if not self._generators:
            raise ResetNeeded("state was called before reset; call reset(seed=...) first.")
        arrays = {name: getattr(self, f"_{name}").copy() for name in self._state_names()}
        return arrays | {"generators": np.stack([pack_generator(generator) for generator in self._generators])}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what :meth:`state` returned, here or in another environment built with the same arguments.

        Raises:
            ValueError: If an entry is missing, unknown, or has another shape.
        """
        names = [*self._state_names(), "generators"]
        if set(state) != set(names):
            raise ValueError(f"The state has the entries {sorted(state)}; expected {sorted(names)}.")
        for name in names:
            expected = (self.num_envs, 6) if name == "generators" else getattr(self, f"_{name}").shape
            if state[name].shape != expected:
                raise ValueError(
                    f"The state's {name!r} has shape {state[name].shape}; expected {expected}. "
                    "Use an environment with the same num_envs and max_steps."
                )
        for name in self._state_names():
            setattr(self, f"_{name}", state[name].astype(getattr(self, f"_{name}").dtype, copy=True))
        self._generators = [unpack_generator(packed) for packed in state["generators"]]
        self._prepare_images(self._all)

    # The inner workings.

    def _state_names(self) -> tuple[str, ...]:
        """Name the attributes (without underscore) that make up the state."""
        return ("position", "goal", "steps", "reached")

    def _prepare_images(self, rows: Rows) -> None:
        """Draw once what stays the same during the episodes of the environments `rows` [n]."""
        self._goal_images[rows] = self._draw(self._goal[rows], rows)

    def _distance(self) -> Floats:
        """Return each dot's distance [B] to its goal, in the world's pixels."""
        distance: Floats = np.linalg.norm(self._position - self._goal, axis=1)
        return distance

    def _observe(self) -> Observation:
        frames = self._draw(self._position, self._all)
        return {"observation": frames, "desired_goal": self._goal_images.copy()}

    def _facts(self) -> dict[str, NDArray[Any]]:
        """Return the state's arrays that every info carries."""
        return {"position": self._position.copy(), "goal": self._goal.copy(), "distance": self._distance()}

    def _infos(self, success: Bools) -> dict[str, Any]:
        infos = self._facts() | {"success": success}
        return infos | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in infos}

    def _final(self, observation: Observation, success: Bools, ended: Bools) -> dict[str, Any]:
        """Pack the last observations and infos of the ended episodes as gymnasium's SyncVectorEnv does."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(ended):
            final_obs[row] = {name: images[row].copy() for name, images in observation.items()}
        final_info: dict[str, Any] = {}
        for name, values in (self._facts() | {"success": success}).items():
            masked = np.zeros_like(values)
            masked[ended] = values[ended]
            final_info[name], final_info[f"_{name}"] = masked, ended.copy()
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": final_info,
            "_final_info": ended.copy(),
        }

    def _new_episodes(self, rows: Rows, given: Mapping[str, Floats]) -> None:
        """Draw new episodes for the environments `rows`, then apply what was given."""
        placement = self._place(rows, given)
        start, goal, wall, door = (array.copy() for array in (self._position, self._goal, self._wall, self._door))
        start[rows], goal[rows], wall[rows], door[rows] = placement
        if "position" in given:
            start[rows] = given["position"][rows]
            self._refuse_blocked(rows, start, wall, door)
        if "goal" in given:
            goal[rows] = given["goal"][rows]
        self._position, self._goal, self._wall, self._door = start, goal, wall, door
        self._steps[rows] = 0
        self._reached[rows] = False
        self._begin(rows)
        self._prepare_images(rows)

    def _refuse_blocked(self, rows: Rows, position: Floats, wall: Floats, door: Floats) -> None:
        blocked = self._blocked(position[rows], wall[rows], door[rows])
        if blocked.any():
            row = rows[blocked][0]
            raise ValueError(
                f"options['position'][{row}] is {position[row].tolist()}, inside the solid wall at x = {wall[row]:g}; "
                f"expected a place beside the wall or in its door at y = {door[row]:g}."
            )

    def _read_options(self, options: Mapping[str, Any]) -> tuple[dict[str, Floats], Rows]:
        """Check the options; return the arrays given and the environments to reset."""
        accepted = ("position", "goal", *self.RANGES, "reset_mask")
        unknown = [name for name in options if name not in accepted]
        if unknown:
            raise ValueError(f"reset was given the options {unknown}; {type(self).__name__} accepts {list(accepted)}.")
        rows = read_mask(options.get("reset_mask"), self.num_envs)
        given = {}
        for name in accepted[:-1]:
            if name in options:
                bounds = self.RANGES.get(name, (self.LAYOUT.low, self.LAYOUT.high))
                shape = () if name in self.RANGES else (2,)
                given[name] = read_rows(f"options[{name!r}]", options[name], (self.num_envs, *shape), rows, bounds)
        return given, rows
