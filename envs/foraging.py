"""Foraging: a dot that gets hungry among food, hazards and tokens.

The world is a square of width 1 with `(x, y)` in [0, 1]², x to the right and y down. Food refills a battery that
drains, hazards hurt nobody by themselves, tokens are reward: what is worth doing here is a matter of drives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .room_drawing import IMAGE_SIZE, VIEW_SIZE, Floats, Images
from .room_options import Bools, Rows, pack_generator, read_mask, read_rows, read_seeds, unpack_generator

STEP = 0.1
"""Way of a full action along each axis."""
REACH = 0.12
"""Food and tokens are taken within this distance of their centres."""
HAZARD_RADIUS = 0.12
MEAL = 0.4
"""Charge that one patch of food gives."""
DRAIN = 0.02
"""Charge that a step takes."""
FIRST_CHARGE = (0.3, 1.0)
"""Episodes begin with a charge between these."""
BORDER = 0.1
"""Everything is placed at least so far from the edge."""
SMELL = 0.2
"""How far things smell: exp(−(d/0.2)²)."""
_TRIES = 16
_COLOURS = {"hazard": (220, 50, 40), "food": (40, 160, 60), "token": (250, 180, 20)}
_AGENT, _AGENT_RADIUS, _BAR = (30, 60, 200), 0.035, 0.04
_STATE = ("position", "energy", "food", "hazard", "token", "steps")


class ForagingVectorEnv(VectorEnv[Floats, Floats, NDArray[Any]]):
    """Foraging, batched.

    Actions are Box(-1,1)² times 0.1. A token within 0.12 gives reward 1, food within 0.12 refills the battery by 0.4 to
    at most 1; both come back elsewhere at once. A step drains the battery by 0.02; empty, it stays at 0. Nothing but
    the limit of steps ends an episode.

    Observations are vectors float32 [B,n]: position, charge, then where every food, hazard and token is from the dot,
    and how much each of them smells; or pictures uint8 [B,64,64,3]: blue dot, green food, red hazards, yellow tokens,
    and the battery as a bar at the top.

    The world's sensors are `energy`, the battery's charge in [0,1], and `hazard_distance`, from the dot to the nearest
    hazard's rim, 0 inside. `infos` hold over environments what came of the step just taken (of the ended episode where
    one ended): `interoception` [B,2] in the order of `sensors`, and whether there was `food`, a `token` and `contact`
    with a hazard [B]; and of the returned observation its `position` [B,2]. Episodes restart by themselves in
    gymnasium's same-step mode; then `final_obs` and `final_info` hold the last observation and position.

    Environment i draws from its own generator only, so it behaves as a batch of one with the same seed.

    Args:
        num_envs: Number of environments `B`, at least 1.
        food: Patches of food, at least 1.
        hazards: Hazards, at least 1.
        tokens: Tokens, at least 0.
        pixels: Whether observations are pictures.
        max_steps: Steps after which an episode is truncated, at least 1.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: If an argument is outside what is stated above.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - gymnasium declares it as an instance attribute
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }
    sensors = ("energy", "hazard_distance")
    """What `infos["interoception"]` measures, in this order."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        food: int = 1,
        hazards: int = 2,
        tokens: int = 1,
        pixels: bool = False,
        max_steps: int = 100,
        render_mode: str | None = None,
    ) -> None:
        least = {"num_envs": 1, "food": 1, "hazards": 1, "tokens": 0, "max_steps": 1}
        given = {"num_envs": num_envs, "food": food, "hazards": hazards, "tokens": tokens, "max_steps": max_steps}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f"{name} is {value}; expected an integer of at least {least[name]}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'.")
        self.num_envs, self.pixels, self.max_steps, self.render_mode = num_envs, pixels, max_steps, render_mode
        things = food + hazards + tokens
        self.single_observation_space = Box(
            *((0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) if pixels else _vector_bounds(things))
        )
        self.single_action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.noop = np.zeros((num_envs, 2), dtype=np.float32)
        self._all: Rows = np.arange(num_envs)
        self._generators: list[np.random.Generator] = []
        self._position, self._energy = np.zeros((num_envs, 2)), np.zeros(num_envs)
        self._food, self._hazard, self._token = (np.zeros((num_envs, n, 2)) for n in (food, hazards, tokens))
        self._steps = np.zeros(num_envs, dtype=np.int64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: None keeps the generators (fresh entropy at the first reset), an int seeds environment i with
                `seed + i`, a sequence gives one seed (or None) per environment.
            options: `reset_mask` [B] bool limits the reset to the environments marked True.

        Returns:
            Observations and infos of all environments, including those that were not reset.

        Raises:
            ValueError: If an option is unknown or has another shape, or the first reset leaves environments out.
        """
        if unknown := sorted(set(options or {}) - {"reset_mask"}):
            raise ValueError(f"reset was given the options {unknown}; Foraging accepts ['reset_mask'].")
        seeds, rows = read_seeds(seed, self.num_envs), read_mask((options or {}).get("reset_mask"), self.num_envs)
        if not self._generators:
            if rows.size < self.num_envs:
                raise ValueError("The first reset has a reset_mask that leaves out environments; reset all of them.")
            self._generators = [np.random.default_rng() for _ in range(self.num_envs)]
        for row in rows:
            if seeds[row] is not None:
                self._generators[row] = np.random.default_rng(seeds[row])
        self._begin(rows)
        nothing = np.zeros(self.num_envs, np.bool_)
        return self._observe(self._all), self._infos(nothing, nothing, self._contact())

    def step(self, actions: Floats) -> tuple[NDArray[Any], Floats, Bools, Bools, dict[str, Any]]:
        """Move every dot once; where an episode ends the next one starts in the same call.

        Args:
            actions: Moves [B,2]; clipped to [-1,1].

        Returns:
            Observations, rewards [B], terminated [B] (never), truncated [B] and infos, as the class describes.

        Raises:
            ResetNeeded: If the environment was never reset.
            ValueError: If the actions have another shape or are not finite.
        """
        if not self._generators:
            raise ResetNeeded("step was called before reset; call reset(seed=...) first.")
        move = np.clip(read_rows("actions", actions, (self.num_envs, 2), self._all), -1.0, 1.0)
        self._position = np.clip(self._position + STEP * move, 0.0, 1.0)
        self._steps += 1
        eaten, taken = self._take(self._food), self._take(self._token)
        self._energy = np.clip(self._energy - DRAIN + MEAL * eaten, 0.0, 1.0)
        infos = self._infos(eaten > 0, taken > 0, self._contact())
        ended = self._steps >= self.max_steps
        if ended.any():
            infos |= self._final(ended)
            self._begin(np.flatnonzero(ended))
            infos["position"] = self._position.copy()
        return self._observe(self._all), taken.astype(np.float64), np.zeros_like(ended), ended, infos

    def render(self) -> tuple[Any, ...] | None:
        """Draw each environment as uint8 [224,224,3].

        Returns:
            One picture per environment, or None when `render_mode` is None.

        Raises:
            ResetNeeded: If the environment was never reset.
        """
        if self.render_mode is None:
            return None
        if not self._generators:
            raise ResetNeeded("render was called before reset; call reset(seed=...) first.")
        return tuple(self._draw(self._all, VIEW_SIZE))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything the future depends on, as copied arrays over environments (generators included).

        Raises:
            ResetNeeded: If the environment was never reset.
        """
        if not self._generators:
            raise ResetNeeded("state was called before reset; call reset(seed=...) first.")
        arrays = {name: getattr(self, f"_{name}").copy() for name in _STATE}
        return arrays | {"generators": np.stack([pack_generator(generator) for generator in self._generators])}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what :meth:`state` returned, here or in another environment built with the same arguments.

        Raises:
            ValueError: If an entry is missing, unknown, or has another shape.
        """
        if set(state) != {*_STATE, "generators"}:
            raise ValueError(f"The state has the entries {sorted(state)}; expected {sorted([*_STATE, 'generators'])}.")
        shapes = {name: getattr(self, f"_{name}").shape for name in _STATE} | {"generators": (self.num_envs, 6)}
        for name, shape in shapes.items():
            if state[name].shape != shape:
                raise ValueError(f"The state's {name!r} has shape {state[name].shape}; expected {shape}.")
        for name in _STATE:
            setattr(self, f"_{name}", state[name].astype(getattr(self, f"_{name}").dtype, copy=True))
        self._generators = [unpack_generator(packed) for packed in state["generators"]]

    # The inner workings.

    def _begin(self, rows: Rows) -> None:
        """Draw new episodes for the environments `rows`."""
        for row in rows:
            draws = self._generators[row]
            self._hazard[row] = draws.uniform(BORDER, 1 - BORDER, self._hazard[row].shape)
            for things in (self._food, self._token):
                for i in range(things.shape[1]):
                    things[row, i] = self._free_place(row)
            self._position[row] = self._free_place(row)
            self._energy[row] = draws.uniform(*FIRST_CHARGE)
        self._steps[rows] = 0

    def _free_place(self, row: int) -> Floats:
        """A place [2] beside every hazard of environment `row`, or anywhere if a few tries find none."""
        places = self._generators[row].uniform(BORDER, 1 - BORDER, (_TRIES, 2))
        gap = np.linalg.norm(places[:, None] - self._hazard[row], axis=-1).min(axis=1)
        place: Floats = places[int((gap > HAZARD_RADIUS + REACH / 2).argmax())]
        return place

    def _take(self, things: Floats) -> NDArray[np.int64]:
        """Put things [B,n,2] within reach elsewhere; how many there were [B]."""
        near = np.linalg.norm(things - self._position[:, None], axis=-1) < REACH
        for row, i in np.argwhere(near):
            things[row, i] = self._free_place(row)
        count: NDArray[np.int64] = near.sum(axis=1)
        return count

    def _hazard_distance(self) -> Floats:
        """From each dot to the nearest hazard's rim [B], 0 inside."""
        centre: Floats = np.linalg.norm(self._hazard - self._position[:, None], axis=-1).min(axis=1)
        return np.maximum(centre - HAZARD_RADIUS, 0.0)

    def _contact(self) -> Bools:
        inside: Bools = self._hazard_distance() == 0
        return inside

    def _infos(self, food: Bools, token: Bools, contact: Bools) -> dict[str, Any]:
        felt = np.stack([self._energy, self._hazard_distance()], axis=1).astype(np.float32)
        infos = {"interoception": felt, "food": food, "token": token, "contact": contact}
        infos["position"] = self._position.copy()
        return infos | {f"_{name}": np.ones(self.num_envs, np.bool_) for name in infos}

    def _final(self, ended: Bools) -> dict[str, Any]:
        """Pack the last observations and positions of the ended episodes as gymnasium's SyncVectorEnv does."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        rows = np.flatnonzero(ended)
        for row, last in zip(rows, self._observe(rows), strict=True):
            final_obs[row] = last
        place = np.where(ended[:, None], self._position, 0.0)
        final_info = {"position": place, "_position": ended.copy()}
        masks = {"_final_obs": ended.copy(), "_final_info": ended.copy()}
        return {"final_obs": final_obs, "final_info": final_info} | masks

    def _observe(self, rows: Rows) -> NDArray[Any]:
        if self.pixels:
            return self._draw(rows, IMAGE_SIZE)
        things = np.concatenate([self._food[rows], self._hazard[rows], self._token[rows]], axis=1)
        relative = things - self._position[rows, None]
        smell = np.exp(-((relative / SMELL) ** 2).sum(axis=-1))
        parts = (self._position[rows], self._energy[rows, None], relative.reshape(len(rows), -1), smell)
        seen: NDArray[np.float32] = np.concatenate(parts, axis=1).astype(np.float32)
        return seen

    def _draw(self, rows: Rows, size: int) -> Images:
        """Draw environments as uint8 [n,size,size,3], discs with soft rims on white."""
        axis = (np.arange(size) + 0.5) / size
        picture = np.full((len(rows), size, size, 3), 255.0)
        discs = [
            *[(self._hazard[rows, i], HAZARD_RADIUS, _COLOURS["hazard"]) for i in range(self._hazard.shape[1])],
            *[(self._food[rows, i], REACH / 2, _COLOURS["food"]) for i in range(self._food.shape[1])],
            *[(self._token[rows, i], REACH / 2, _COLOURS["token"]) for i in range(self._token.shape[1])],
            (self._position[rows], _AGENT_RADIUS, _AGENT),
        ]
        for centre, radius, colour in discs:
            across, down = axis - centre[:, :1], axis - centre[:, 1:]
            distance = np.sqrt(down[:, :, None] ** 2 + across[:, None, :] ** 2)
            alpha = np.clip(0.5 + size * (radius - distance), 0.0, 1.0)[..., None]
            picture += alpha * (np.array(colour) - picture)
        charge = np.clip(0.5 + size * (self._energy[rows, None] - axis), 0.0, 1.0)[:, None, :, None]
        bar = slice(0, max(1, round(_BAR * size)))
        picture[:, bar] = 200.0 * (1 - charge)
        drawn: Images = np.rint(picture).astype(np.uint8)
        return drawn


def _vector_bounds(things: int) -> tuple[Any, Any, tuple[int], type[np.float32]]:
    """Lowest and highest values, shape and type of a vector observation with so many things."""
    width = 3 + 3 * things
    low = np.concatenate([np.zeros(3), -np.ones(2 * things), np.zeros(things)]).astype(np.float32)
    return low, np.ones(width, np.float32), (width,), np.float32
