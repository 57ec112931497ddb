"""Every frame for which an action is held begins a decision of its own: as many streams as there are frames in a hold.

An agent that holds each action for R frames sees one frame of R, and the others are as real. From the p-th of them
it takes R frames to the p-th of the next hold, too, R − p of them with the present action and p with the next: a
decision whose action is that of the larger part. So memory holds R times as many pictures and outcomes of the same
play.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..envs.action_repeat import ActionRepeat
from .agent import Array
from .config import RunConfig
from .interaction import Step, VectorEnv

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True)
class Hold:
    """A decision of B environments, frame by frame: R frames.

    Attributes:
        observation: Before each frame ``[R, B, ...]``.
        action: That was held ``[B, ...]``.
        reward: Of the whole decision, as its environment tells it ``[B]``.
        rewards: Of each frame ``[R, B]``.
        terminated: In each frame ``[R, B]``.
        truncated: In each frame ``[R, B]``.
    """

    observation: Array
    action: Array
    reward: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class Entry:
    """What R · B streams remember of one decision, offset by offset; see `ShortTermMemory.write`."""

    observation: Array
    action: Array
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class FrameStreams:
    """Makes entries of decisions and the frames that they are held for, one decision later.

    Attributes:
        last: The decision that waits for the next one.

    Args:
        env: Whose decisions they are.
    """

    def __init__(self, env: ActionRepeat) -> None:
        self.env = env
        self.last: Hold | None = None

    def entry(self, step: Step) -> Entry | None:
        """What is known of the decision before this one, now that this one is; None if there was none."""
        held = self.env.held_frames
        assert held is not None
        observation = np.concatenate([step.seen[None], held.observation])
        now = Hold(observation, step.action, step.reward, held.reward, held.terminated, held.truncated)
        last, self.last = self.last, now
        return None if last is None else _joined(last, now)

    def forget(self) -> None:
        """What comes next does not follow what came before."""
        self.last = None

    def state(self) -> dict[str, Tensor]:
        """The decision that waits."""
        return {} if self.last is None else {key: torch.from_numpy(array) for key, array in vars(self.last).items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.last = Hold(**{key: tensor.numpy().copy() for key, tensor in state.items()}) if state else None


def frame_streams(config: RunConfig, env: VectorEnv) -> FrameStreams | None:
    """Streams for every frame of a hold, where the settings want them.

    Raises:
        ValueError: Actions are not held, goals or plans are to be remembered, or the world measures something or cannot
            be saved.
    """
    if not config.schedule.every_frame:
        return None
    if not isinstance(env, ActionRepeat):
        raise ValueError("schedule.every_frame is set and env.action_repeat is 1: no action is held; leave it off")
    sensors: tuple[str, ...] = getattr(env.unwrapped, "sensors", ())
    if config.task.goals or config.schedule.mode != "mode-1" or sensors:
        raise ValueError(
            "schedule.every_frame is set, and goals, plans and what sensors measure are remembered of decisions only; "
            "leave it off, or collect with schedule.mode mode-1 in a reward task without sensors"
        )
    if not hasattr(env.unwrapped, "set_state"):
        raise ValueError(
            f"schedule.every_frame is set and the state of {config.env.id} cannot be saved, so that a run could not be "
            "resumed; leave it off"
        )
    return FrameStreams(env)


def _joined(one: Hold, two: Hold) -> Entry:
    """The decisions that begin at each frame of one hold and reach into the next."""
    repeat = len(one.rewards)
    rewards, terminated, truncated = [], [], []
    for offset in range(repeat):
        felt = _across(one.rewards, two.rewards, offset)
        ends, cuts = _across(one.terminated, two.terminated, offset), _across(one.truncated, two.truncated, offset)
        ended = ends | cuts
        # what follows an end belongs to the next episode
        first: NDArray[np.bool_] = np.cumsum(ended, axis=0) - ended == 0
        rewards.append((felt * first).sum(0) if offset else one.reward)
        terminated.append((ends & first).any(0))
        truncated.append((cuts & first).any(0))
    actions = [one.action if 2 * offset <= repeat else two.action for offset in range(repeat)]
    return Entry(
        np.concatenate(one.observation), np.concatenate(actions), np.concatenate(rewards).astype(np.float32),
        np.concatenate(terminated), np.concatenate(truncated),
    )  # fmt: skip


def _across(one: NDArray[_Kind], two: NDArray[_Kind], offset: int) -> NDArray[_Kind]:
    """R frames from number ``offset`` of a hold on, the last of them of the next one."""
    return np.concatenate([one[offset:], two[:offset]])
