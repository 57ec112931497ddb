"""Hold every action for several frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper


@dataclass(frozen=True)
class HeldFrames:
    """What each of the frames showed and brought, R of them, for which B environments held an action.

    Attributes:
        observation: After each frame but the last ``[R−1, B, ...]``; where an episode ended, of the next one.
        reward: ``[R, B]``.
        terminated: ``[R, B]``.
        truncated: ``[R, B]``.
    """

    observation: npt.NDArray[Any]
    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]


class ActionRepeat(VectorWrapper[Any, Any, Any, Any, Any]):
    """Hold each action for `repeat` frames and add up the rewards.

    An environment that ends within a hold reports the end with the rewards up to it, and keeps the infos of that
    frame. It has begun its next episode by then: for the rest of the hold it receives `env.unwrapped.noop` where that
    exists, otherwise the held action, and what it earns there is added to that episode's next reward. A second end
    within the same hold cannot be reported: that stub of an episode is folded into the one that follows it, its
    reward included, and counted in `folded`.

    Attributes:
        repeat: Frames per action.
        folded: Ends lost so far because two fell into one hold.
        carried: Reward to be added to the next one, float64 [B].
        held_frames: The frames of the last hold; None before the first, and where observations are no arrays.

    Args:
        env: A vector environment with `AutoresetMode.SAME_STEP`.
        repeat: Frames per action, at least 2 (1 needs no wrapper).

    Raises:
        ValueError: A repeat below 2 or another autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], repeat: int) -> None:
        super().__init__(env)
        if repeat < 2:
            raise ValueError(f"repeat={repeat}: expected at least 2 frames per action; for 1 leave the wrapper away.")
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"ActionRepeat got autoreset mode {mode}; expected AutoresetMode.SAME_STEP.")
        self.repeat = repeat
        self.folded = 0
        self.carried = np.zeros(env.num_envs)
        self.held_frames: HeldFrames | None = None
        self._noop: Any = getattr(env.unwrapped, "noop", None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments (`reset_mask` included) and forget the carried rewards of those that restart."""
        mask = (options or {}).get("reset_mask")
        result = self.env.reset(seed=seed, options=None if options is None else dict(options))
        self.carried[slice(None) if mask is None else mask] = 0.0
        return result

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Any, npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Hold `actions` [B, …] for `repeat` frames.

        Returns:
            Observations after the last frame, rewards [B], terminated bool [B], truncated bool [B], infos.
        """
        held = np.asarray(actions)
        rewards, self.carried = self.carried, np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        ended = np.zeros(self.num_envs, np.bool_)
        end_infos: dict[str, Any] | None = None  # of environments that ended before the last frame
        seen: list[Any] = []
        felt: list[tuple[npt.NDArray[Any], ...]] = []
        for frame in range(self.repeat):
            observations, reward, frame_terminated, frame_truncated, infos = self.env.step(held)
            shown = isinstance(observations, np.ndarray)
            if shown and frame < self.repeat - 1:
                seen.append(observations.copy())
            felt.append((np.array(reward, np.float32), np.array(frame_terminated), np.array(frame_truncated)))
            np.add(rewards, reward, out=rewards, where=~ended)
            np.add(self.carried, reward, out=self.carried, where=ended)
            ends = frame_terminated | frame_truncated
            if frame == self.repeat - 1 and end_infos is not None:
                _merge(end_infos, infos, ~ended)
                infos = end_infos
            if not ends.any():
                continue
            self.folded += int((ends & ended).sum())
            new = ends & ~ended
            terminated |= frame_terminated & new
            truncated |= frame_truncated & new
            ended |= new
            if frame < self.repeat - 1:
                end_infos = {} if end_infos is None else end_infos
                _merge(end_infos, infos, new)
                if self._noop is not None:
                    idle = ended.reshape(-1, *[1] * (held.ndim - 1))
                    held = np.where(idle, self._noop, held).astype(held.dtype)
        self.held_frames = HeldFrames(np.stack(seen), *map(np.stack, zip(*felt, strict=True))) if shown else None
        return observations, rewards.astype(reward.dtype), terminated, truncated, infos

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The wrapped environment's `state()` together with the carried rewards, as plain arrays."""
        inner: dict[str, npt.NDArray[Any]] = self.env.state()  # type: ignore[attr-defined]
        return inner | {"carried": self.carried.copy()}

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what `state` returned.

        Raises:
            ValueError: Carried rewards are missing or of another shape, or the wrapped environment refuses.
        """
        carried = np.asarray(state.get("carried", ()), np.float64)
        if carried.shape != (self.num_envs,):
            raise ValueError(
                f"The state's 'carried' has shape {carried.shape}; expected ({self.num_envs},). Was it saved without "
                "action repeat, or with another num_envs?"
            )
        self.env.set_state({key: value for key, value in state.items() if key != "carried"})  # type: ignore[attr-defined]
        self.carried = carried.copy()


def _merge(target: dict[str, Any], infos: dict[str, Any], mask: npt.NDArray[np.bool_]) -> None:
    """Copy the entries of `infos` into `target` for the environments in `mask`."""
    for key, value in infos.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value, mask)
            continue
        if key not in target:
            target[key] = np.zeros_like(value) if value.dtype != object else np.full_like(value, None)
        target[key][mask] = value[mask]
