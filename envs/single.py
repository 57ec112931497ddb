"""One environment of a vector as an ordinary `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv


class SingleEnv(gymnasium.Env[Any, Any]):
    """Present a vector environment of size one as a single environment that waits for `reset` after an end.

    The vector environment has started its next episode by the time an end is reported. At an end `step` therefore
    returns `final_obs` where the vector environment gives it, and otherwise (Procgen) the observation *before* the
    end, because the last frame is lost. The next `reset()` without seed returns the first observation of the episode
    that is already loaded. Infos are scalars; at an end, `level_seed` already names the loaded level and
    `prev_level_seed` the one that ended.

    Args:
        env: A vector environment with `num_envs == 1` and `AutoresetMode.SAME_STEP`; this object closes it.

    Raises:
        ValueError: Another number of environments or another autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if env.num_envs != 1:
            raise ValueError(f"SingleEnv got a vector of {env.num_envs} environments; expected num_envs=1.")
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"SingleEnv got autoreset mode {mode}; expected a vector with AutoresetMode.SAME_STEP.")
        self.env = env
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self.metadata = {key: value for key, value in env.metadata.items() if key != "autoreset_mode"}
        self.render_mode = env.render_mode
        self._ready = False  # an episode is running
        self._loaded: tuple[Any, dict[str, Any]] | None = None  # the next episode's first observation and infos
        self._observation: Any = None

    @property
    def noop(self) -> Any:
        """The action that does nothing.

        Raises:
            AttributeError: The environment has no such action.
        """
        noop = self.env.unwrapped.noop  # type: ignore[attr-defined]
        return noop if np.shape(noop) == self.action_space.shape else noop[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return its first observation and infos; `seed` restarts the vector environment."""
        super().reset(seed=seed)
        if self._loaded is not None and seed is None and not options:
            self._observation, infos = self._loaded
        else:
            observations, vector_infos = self.env.reset(seed=seed, options=options)
            self._observation, infos = _row(observations), _first(vector_infos)
        self._loaded = None
        self._ready = True
        return self._observation, infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            gymnasium.error.ResetNeeded: The episode has ended, or none has begun.
        """
        if not self._ready:
            raise gymnasium.error.ResetNeeded("No episode is running. Call reset() first, and again after every end.")
        observations, rewards, terminated, truncated, vector_infos = self.env.step(np.asarray(action)[None])
        final = {key: value for key, value in vector_infos.items() if key.removeprefix("_").startswith("final_")}
        vector_infos = {key: value for key, value in vector_infos.items() if key not in final}
        infos = _first(vector_infos)
        if terminated[0] or truncated[0]:
            self._ready = False
            loaded_infos = infos | {"success": False} if "success" in infos else dict(infos)
            self._loaded = _row(observations), loaded_infos
            infos |= _first(final.get("final_info", {}))
            if "final_obs" in final:
                self._observation = final["final_obs"][0]
        else:
            self._observation = _row(observations)
        return self._observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), infos

    def render(self) -> Any:
        """The picture of the environment, uint8 [H, W, 3], or None without a render mode."""
        frames = self.env.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()


def _row(observations: Any) -> Any:
    """Observation 0 of a batch; a dict of batches gives a dict."""
    if isinstance(observations, dict):
        return {key: _row(value) for key, value in observations.items()}
    return observations[0]


def _first(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos of environment 0: array entries become scalars, masks (`_key`) decide which are present."""
    result: dict[str, Any] = {}
    for key, value in infos.items():
        mask = infos.get(f"_{key}")
        if (key.startswith("_") and key[1:] in infos) or (mask is not None and not mask[0]):
            continue
        if isinstance(value, dict):
            result[key] = _first(value)
        else:
            result[key] = value[0].item() if isinstance(value[0], np.generic) else value[0]
    return result
