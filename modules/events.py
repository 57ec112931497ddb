"""Events in what is remembered: rewards, endings and leaps of sensors, drawn more often than they come.

Rare events are what a world model has to learn from, and what it meets least often. Windows are therefore drawn so as
to contain some, and are weighted by how often they really come where that matters (1511.05952).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAP = 0.2
"""A change of a sensor within one step that counts as an event; sensors are shares (of a battery, of the world)."""


def leaps(sensors: NDArray[np.float32], age: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where a sensor leapt within an episode ``[E, N]``.

    Args:
        sensors: What they measured after each step ``[E, N, n]``.
        age: Steps since the episode began ``[E, N]``.
    """
    change = np.diff(sensors, axis=1, prepend=np.float32(0))
    within = age > 0
    within[:, 0] = False  # what came before it is not known
    found: NDArray[np.bool_] = (np.abs(change) > LEAP).any(axis=-1) & within
    return found


def event_chance(
    reward: NDArray[np.float32], ended: NDArray[np.bool_], leapt: NDArray[np.bool_] | None, rarity: float
) -> NDArray[np.float64] | None:
    """How likely each entry is to be the event that is drawn ``[E, N]``; None where nothing is an event, or all is.

    Args:
        reward: ``[E, N]``.
        ended: Whether the world ended the episode there ``[E, N]``.
        leapt: Whether a sensor leapt there ``[E, N]``; None: there are none.
        rarity: Events of a kind (a reward, to the nearest whole number, with or without an ending) that there are n of
            are each drawn in proportion to n to the power −rarity: 0 all events alike, 1 all kinds alike.
    """
    event = (reward != 0) | ended
    if leapt is not None:
        event = event | leapt
    if event.all() or not event.any():  # with a reward at every step nothing is an event
        return None
    chance = event.astype(np.float64)
    if rarity:
        kind = 2 * np.rint(reward[event]) + ended[event]
        _, which, count = np.unique(kind, return_inverse=True, return_counts=True)
        chance[event] = count[which] ** -rarity
    likely: NDArray[np.float64] = chance / chance.sum()
    return likely


def window_weights(
    chance: NDArray[np.float64], stream: NDArray[np.int64], start: NDArray[np.int64], steps: int, share: float
) -> Tensor:
    """Importance weights ``[B]`` of windows of which ``share`` were drawn so as to contain an event.

    An event is equally likely to be at each of its window's places; a window that would begin before the first entry,
    or end after the last, is moved there.

    Args:
        chance: Of each entry to be the event that is drawn ``[E, N]``.
        stream: Of each window ``[B]``.
        start: Where in it each window starts ``[B]``.
        steps: Transitions T of each.
        share: Of the windows that were drawn for an event.
    """
    last = chance.shape[1] - steps
    places = np.arange(steps)
    first, final = (start == 0)[:, None], (start == last)[:, None]
    ways = np.where(first, np.where(final, steps, steps - places), np.where(final, places + 1, 1))
    drawn = (chance[stream[:, None], start[:, None] + places] * ways).sum(1) / steps
    everywhere = len(chance) * (last + 1)
    return torch.from_numpy((1 / (1 - share + share * drawn * everywhere)).astype(np.float32))


def discounted_sums(
    reward: NDArray[np.float32], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], discount: float
) -> NDArray[np.float32]:
    """What came of each entry ``[E, N, 3]``: discounted sums of the rewards and of the ending that followed in its
    episode, and how much of them is open because a time limit or the newest entry cut it off (0: nothing, 1: all).

    Args:
        reward: Of the transition that each entry begins ``[E, N]``, in the order of time.
        terminated: Whether the world ended the episode in it ``[E, N]``.
        truncated: Whether a time limit did ``[E, N]``.
        discount: γ, per transition.
    """
    ended = terminated.astype(np.float32)
    sums = np.empty((*reward.shape, 3), np.float32)
    following = np.zeros((len(reward), 3), np.float32)
    following[:, 2] = 1
    cut = following.copy()
    for t in reversed(range(reward.shape[1])):
        following = np.where(truncated[:, t, None], cut, following) * (discount * (1 - ended[:, t, None]))
        following[:, 0] += reward[:, t]
        following[:, 1] += ended[:, t]
        sums[:, t] = following
    return sums
