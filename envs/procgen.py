"""The 16 games of Procgen as one Gymnasium vector environment.

`ProcgenVectorEnv` steps OpenAI's simulator through gym3, in one process. It adds what gym3 leaves out: episodes that
run out of time are *truncated* and all others *terminated*, success is reported apart from both, levels for training
and for testing cannot mix, `reset` works at any time, and the whole simulator can be saved and restored mid-episode.

Two facts of the simulator shape every user of this module. It resets an ended environment within the same step
(`AutoresetMode.SAME_STEP`), and it throws the last frame of the episode away: there is **no** `final_obs`, and the
observation that comes with the end belongs to the next level already. Never join the two in one training sequence.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .levels import SEED_RANGE, Levels, LevelSplit
from .procgen_state import ProcgenState, check_state, header_of

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
ACTION_MEANINGS = (
    "LEFT-DOWN", "LEFT", "LEFT-UP", "DOWN", "NOOP", "UP", "RIGHT-DOWN", "RIGHT", "RIGHT-UP",
    "D", "A", "W", "S", "Q", "E",
)  # fmt: skip
NOOP = 4
_FORCE_END = -1  # raw action understood by the simulator: end the level now
MODES: dict[str, tuple[str, ...]] = {
    "easy": GAMES,
    "hard": GAMES,
    "extreme": ("chaser", "dodgeball", "leaper", "starpilot"),
    "memory": ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner"),
    "exploration": ("coinrun", "caveflyer", "leaper", "jumper", "maze", "heist", "climber", "ninja"),
}
_STEP_LIMITS = {"leaper": 500, "maze": 500, "bossfight": 4000, "plunder": 4000, "bigfish": 6000}


def step_limit(game: str, distribution_mode: str = "easy") -> int:
    """Steps after which the simulator ends an episode of `game`."""
    if game == "jumper" and distribution_mode == "memory":
        return 2000
    return _STEP_LIMITS.get(game, 1000)


def import_procgen() -> Any:
    """Import and return the module `procgen` without the notices that its dependency gym prints.

    Raises:
        ImportError: The package is not installed; the message names the one for this Python.
    """
    if (loaded := sys.modules.get("procgen")) is not None:
        return loaded
    environment = dict(os.environ)  # gym also redirects SDL's sound for the whole process
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module("procgen")
    except ImportError as error:
        package = "procgen" if sys.version_info < (3, 11) else "procgen-mirror"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ImportError(
            f"Procgen could not be imported ({error}). On Python {version} install it with "
            f"`pip install {package}==0.10.7` (wheels exist for x86-64 Linux, Python 3.7 to 3.12)."
        ) from error
    finally:
        for name in ("SDL_AUDIODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT"):
            if name in environment:
                os.environ[name] = environment[name]
            else:
                os.environ.pop(name, None)


class ProcgenVectorEnv(VectorEnv[npt.NDArray[np.uint8], npt.NDArray[Any], npt.NDArray[Any]]):
    """`num_envs` copies of one Procgen game, stepped together.

    Observations are uint8 [B, 64, 64, 3]; actions are 15 buttons, `ACTION_MEANINGS`, or some of them. An end within the
    step limit is terminated; an end exactly at the limit without success is truncated (a death in that very step cannot
    be told apart). Infos: `level_seed` int32 [B] (current level), `prev_level_seed` int32 [B] (level before it) and
    `success` bool [B] (the episode that ended in this step was solved; False elsewhere).

    Args:
        game: One of `GAMES`.
        num_envs: Number of environments B.
        seed: Seed of the simulator, taken modulo 2**31. Same seed, same actions: same run.
        split: `"train"` or `"test"`: which levels of `levels` to play.
        levels: The level ranges; `LevelSplit()` when None. Exploration mode has one fixed level and takes none.
        distribution_mode: `"easy"` or `"hard"`; `"extreme"`, `"memory"` and `"exploration"` exist for some games.
        num_threads: Threads of the simulator; 0 steps in the calling thread.
        paint_vel_info: Paint the agent's velocity into the top-left corner (no effect in some games).
        use_backgrounds: Draw backgrounds; False makes them black.
        center_agent: Keep the agent in the middle of the picture.
        restrict_themes: One theme instead of many.
        use_monochrome_assets: Coloured rectangles instead of drawings.
        use_generated_assets: Randomly generated drawings.
        actions: The buttons to choose from, by number; all when empty. They are numbered anew, in this order.
        render_mode: None, or `"rgb_array"` for `render`, 512 × 512 pixels (slows every step down).

    Raises:
        ValueError: An unknown game, mode, split, button or render mode, or numbers that make no sense.
        ImportError: The package procgen is missing.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 15,
    }

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        *,
        seed: int = 0,
        split: str = "train",
        levels: LevelSplit | None = None,
        distribution_mode: str = "easy",
        num_threads: int = 0,
        paint_vel_info: bool = False,
        use_backgrounds: bool = True,
        center_agent: bool = True,
        restrict_themes: bool = False,
        use_monochrome_assets: bool = False,
        use_generated_assets: bool = False,
        actions: tuple[int, ...] = (),
        render_mode: str | None = None,
    ) -> None:
        _check_arguments(
            game,
            num_envs,
            split,
            levels,
            distribution_mode=distribution_mode,
            num_threads=num_threads,
            actions=actions,
            render_mode=render_mode,
        )
        self.game = game
        self.distribution_mode = distribution_mode
        self.split = split
        self.step_limit = step_limit(game, distribution_mode)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.buttons = np.array(actions or range(len(ACTION_MEANINGS)), np.int32)
        self._numbers = frozenset(range(len(self.buttons)))
        self.action_meanings = tuple(ACTION_MEANINGS[button] for button in self.buttons)
        self.noop = int((self.buttons == NOOP).argmax())  # the first where none does nothing
        self.single_action_space = gymnasium.spaces.Discrete(len(self.buttons))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._options: dict[str, Any] = {
            "num": num_envs,
            "env_name": game,
            "distribution_mode": distribution_mode,
            "num_threads": num_threads,
            "paint_vel_info": paint_vel_info,
            "use_backgrounds": use_backgrounds,
            "center_agent": center_agent,
            "restrict_themes": restrict_themes,
            "use_monochrome_assets": use_monochrome_assets,
            "use_generated_assets": use_generated_assets,
            "render_mode": render_mode,
        }
        self.levels: Levels | None = None  # None: the one level of exploration mode
        if distribution_mode != "exploration":
            self.levels = getattr(levels or LevelSplit(), split)
            self._options |= {"start_level": self.levels.start, "num_levels": self.levels.count}
        self._steps = np.zeros(num_envs, np.int64)
        self._fresh = True  # no episode has begun since the simulator was built
        self._sim: Any = None
        self._build(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Rebuild the simulator with this seed. Without it, running episodes are abandoned for the next levels
                (nothing is skipped if none has begun).
            options: `{"reset_mask": bool [B]}` resets the marked environments only, and leaves the others as they are.

        Returns:
            Observations uint8 [B, 64, 64, 3] and infos.

        Raises:
            ValueError: Unknown options, a bad mask, or a seed together with a mask.
        """
        self._check_open()
        super().reset(seed=seed)
        mask = self._reset_mask(options)
        if seed is not None:
            if mask is not None:
                raise ValueError("reset got seed and reset_mask. A seed restarts all environments; pass one of them.")
            self._build(seed)
        elif mask is not None:
            self._force_end(mask)
        elif not self._fresh:
            self._force_end(np.ones(self.num_envs, np.bool_))
        self._fresh = False
        return self.observe(), self._infos()

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Take one action in every environment.

        Args:
            actions: Integers [B] in [0, 15), or below the number of those to choose from.

        Returns:
            Observations uint8 [B, 64, 64, 3], rewards float32 [B], terminated bool [B], truncated bool [B], infos.
            Where an episode ended, the reward is its last and the observation is the first of the next level.

        Raises:
            ValueError: Actions of another shape, type or range.
        """
        if self.closed:
            self._check_open()
        sim = self._sim
        self._advance(self.buttons[self._check_actions(actions)])
        self._fresh = False
        self._steps += 1
        terminated, truncated, infos = sim._first.copy(), np.zeros(self.num_envs, np.bool_), self._infos()
        if True in terminated.tolist():  # cheaper than any() on few environments
            ended = terminated
            infos["success"] = ended & sim._info["prev_level_complete"].astype(np.bool_)
            truncated = ended & (self._steps >= self.step_limit) & ~infos["success"]
            terminated = ended & ~truncated
            self._steps[ended] = 0
        return sim._ob["rgb"].copy(), sim._rew.copy(), terminated, truncated, infos

    def observe(self) -> npt.NDArray[np.uint8]:
        """The current observations, uint8 [B, 64, 64, 3] (also after `set_state`)."""
        self._check_open()
        observations: npt.NDArray[np.uint8] = self._sim._ob["rgb"].copy()
        return observations

    def get_state(self) -> ProcgenState:
        """Save the simulator and the step counters, mid-episode or not (about 30 kB per environment)."""
        self._check_open()
        return ProcgenState([self._save_one(index) for index in range(self.num_envs)], self._steps.copy())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """`get_state` as plain arrays for a checkpoint."""
        return self.get_state().to_arrays()

    def set_state(self, state: ProcgenState | Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue exactly from what `get_state` or `state` returned, here or in an environment built alike.

        Raises:
            ValueError: Another number of environments, another game, other options or levels, or damaged bytes.
        """
        self._check_open()
        if not isinstance(state, ProcgenState):
            state = ProcgenState.from_arrays(state)
        steps = np.asarray(state.steps)
        if len(state.simulator) != self.num_envs or steps.shape != (self.num_envs,):
            raise ValueError(
                f"The state holds {len(state.simulator)} environments and step counters of shape {steps.shape}; "
                f"expected {self.num_envs} of both. Build the environment with num_envs={len(state.simulator)}."
            )
        for index, content in enumerate(state.simulator):
            check_state(index, content, self._header)
        for index, content in enumerate(state.simulator):
            self._sim.call_c_func("set_state", index, content, len(content))
        self._sim.observe()
        self._steps = steps.astype(np.int64)
        self._fresh = False

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One picture uint8 [512, 512, 3] per environment, or None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: build the environment with render_mode='rgb_array'.")
            return None
        self._check_open()
        return tuple(self._sim._info["rgb"].copy())

    def close_extras(self, **kwargs: Any) -> None:
        """Free the simulator."""
        if self._sim is not None:
            self._sim.close()

    def _build(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed={seed!r}: expected one non-negative integer for the whole vector.")
        previous = self._sim
        self._sim = import_procgen().ProcgenGym3Env(**self._options, rand_seed=int(seed) % SEED_RANGE)
        if previous is not None:
            previous.close()  # only now: the library and its pictures stay loaded
        self._sim.observe()  # draws the first observation into gym3's buffers
        self._header = header_of(self._save_one(0))
        self._steps[:] = 0
        self._fresh = True

    def _force_end(self, mask: npt.NDArray[np.bool_]) -> None:
        """Load the next level where `mask`; the simulator steps all environments, so the others are put back."""
        kept = {int(index): self._save_one(index) for index in np.flatnonzero(~mask)}
        self._advance(np.where(mask, _FORCE_END, NOOP))
        for index, content in kept.items():
            self._sim.call_c_func("set_state", index, content, len(content))
        self._sim.observe()
        self._steps[mask] = 0

    def _advance(self, actions: npt.NDArray[Any]) -> None:
        """Step the simulator and wait for it; what it returns lies in gym3's buffers, which the next step overwrites.

        `act` and `observe` of gym3 do the same and copy on the way, actions even twice.
        """
        sim = self._sim
        sim._ac["action"][:] = actions
        sim._c_lib.libenv_act(sim._c_env)
        sim._c_lib.libenv_observe(sim._c_env)

    def _save_one(self, index: int) -> bytes:
        if not hasattr(self, "_state_buffer"):
            self._state_buffer = self._sim._ffi.new("char[]", 2**20)
        size = self._sim.call_c_func("get_state", int(index), self._state_buffer, 2**20)
        return bytes(self._sim._ffi.buffer(self._state_buffer, size))

    def _infos(self) -> dict[str, Any]:
        raw = self._sim._info  # gym3's get_info() builds a dict per environment
        return {
            "level_seed": raw["level_seed"].copy(),
            "prev_level_seed": raw["prev_level_seed"].copy(),
            "success": np.zeros(self.num_envs, np.bool_),
        }

    def _check_actions(self, actions: npt.ArrayLike) -> npt.NDArray[Any]:
        array = np.asarray(actions)
        if array.dtype.kind not in "iu" or array.shape != (self.num_envs,):
            raise ValueError(
                f"actions have shape {array.shape} and type {array.dtype}; expected integers of shape "
                f"({self.num_envs},), one per environment."
            )
        if not self._numbers.issuperset(array.tolist()):  # cheaper than comparing arrays
            index = int(np.flatnonzero((array < 0) | (array >= len(self.buttons)))[0])
            raise ValueError(
                f"actions[{index}] = {array[index]}: expected 0 to {len(self.buttons) - 1} (see action_meanings)."
            )
        return array

    def _reset_mask(self, options: dict[str, Any] | None) -> npt.NDArray[np.bool_] | None:
        if unknown := set(options or ()) - {"reset_mask"}:
            raise ValueError(f"reset got unknown options {sorted(unknown)}; expected only 'reset_mask'.")
        if not options:
            return None
        mask = np.asarray(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"options['reset_mask'] is {mask!r}; expected bool of shape ({self.num_envs},) with at least one True."
            )
        return mask

    def _check_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("This ProcgenVectorEnv is closed. Build a new one.")


def _check_arguments(
    game: str,
    num_envs: int,
    split: str,
    levels: LevelSplit | None,
    *,
    distribution_mode: str,
    num_threads: int,
    actions: tuple[int, ...],
    render_mode: str | None,
) -> None:
    _check_choice("game", game, GAMES)
    _check_choice("split", split, ("train", "test"))
    _check_choice("distribution_mode", distribution_mode, tuple(MODES))
    if game not in MODES[distribution_mode]:
        fitting = [mode for mode, games in MODES.items() if game in games]
        raise ValueError(
            f"distribution_mode={distribution_mode!r} does not exist for {game}; expected one of {fitting}. "
            f"Games that have it: {', '.join(MODES[distribution_mode])}."
        )
    if distribution_mode == "exploration" and (levels is not None or split != "train"):
        raise ValueError(
            f"Exploration mode plays one fixed level, so train and test would be the same; given split={split!r}, "
            f"levels={levels}. Leave levels away and use split='train'."
        )
    if num_envs < 1 or num_threads < 0:
        raise ValueError(f"num_envs={num_envs}, num_threads={num_threads}: expected at least 1 and at least 0.")
    if not set(actions) <= set(range(len(ACTION_MEANINGS))) or len(set(actions)) < len(actions):
        raise ValueError(f"actions={actions}: expected different buttons from 0 to {len(ACTION_MEANINGS) - 1}.")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'.")


def _check_choice(name: str, given: str, expected: Sequence[str]) -> None:
    if given not in expected:
        close = difflib.get_close_matches(str(given), expected, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{name}={given!r}: expected one of {', '.join(expected)}.{hint}")
