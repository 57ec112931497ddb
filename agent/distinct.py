"""Which actions do the same? They are tried out, each from the same saved states of the simulator.

Procgen has 15 buttons for every game, and most games use far fewer: eight of them do nothing in Fruitbot, three each
steer left and right. Who chooses among 15 mostly does nothing there, searches a wider tree and is asked to tell apart
what is the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..envs.make import has_levels
from ..envs.procgen import ACTION_MEANINGS
from .config import EnvConfig
from .interaction import VectorEnv
from .oracle import Savable, SavedState
from .worlds import build_env

STATES = 120
"""States that every action is tried from; with 15 actions held for 3 frames that costs 5,400 frames, and about half as
many to come to these states."""
_APART = 8  # decisions between two states of one environment
_SHOWS = 3  # frames that are compared at least: what is thrown or fired shows after the first


def with_distinct_actions(config: EnvConfig, seed: int) -> EnvConfig:
    """The same world with one of each group of equal actions, where its settings ask for that.

    Raises:
        ValueError: It is no Procgen game.
    """
    if not config.distinct_actions or config.actions:
        return config
    if not has_levels(config.id):
        raise ValueError(f"env.distinct_actions is set, and {config.id} is no Procgen game; leave it off")
    env = build_env(config, len(ACTION_MEANINGS), seed=seed, held_out=False, action_repeat=1)
    try:
        groups = equal_actions(env, max(config.action_repeat, _SHOWS), STATES, seed)
    finally:
        env.close()
    return replace(config, actions=tuple(group[0] for group in groups))


def equal_actions(env: VectorEnv, repeat: int, states: int, seed: int) -> list[list[int]]:
    """Groups of actions after which, in every state, frames, reward and ending were the same.

    Args:
        env: Without action repeat, with as many copies as there are actions.
        repeat: Frames for which an action is held; all of them are compared.
        states: How many to try, at least; random play comes to them.
        seed: Of that play.

    Returns:
        The groups in the order of their first members; the one that does nothing begins with that action.

    Raises:
        ValueError: The environment cannot be saved and restored.
    """
    copies = env.unwrapped
    if not isinstance(copies, Savable):
        raise ValueError(
            f"actions are tried out in a simulator that can be saved (Procgen, Sprite); {type(copies).__name__} is not"
        )
    env.reset(seed=seed)
    count, draws = env.num_envs, np.random.default_rng(seed)
    same, tried = np.ones((count, count), np.bool_), 0
    while tried < states:
        for _ in range(_APART):
            chosen = draws.integers(count, size=count)
            for _ in range(repeat):
                env.step(chosen)
        present: SavedState = copies.get_state()
        for index in range(count):
            copies.set_state(present.repeat(index, count))
            same &= _alike(env, repeat)
            tried += 1
        copies.set_state(present)
    order = [copies.noop, *(action for action in range(count) if action != copies.noop)]
    groups: list[list[int]] = []
    for action in order:
        for group in groups:
            if same[action, group[0]]:
                group.append(action)
                break
        else:
            groups.append([action])
    return sorted(groups, key=min)


def _alike(env: VectorEnv, repeat: int) -> NDArray[np.bool_]:
    """Whether two actions do the same from here on ``[A, A]``: copy i takes action i."""
    count = env.num_envs
    same, alive = np.ones((count, count), np.bool_), np.ones(count, np.bool_)
    for _ in range(repeat):
        frames, reward, terminated, truncated, _ = env.step(np.arange(count))
        after = alive & ~(terminated | truncated)
        seen = np.asarray(frames).reshape(count, -1).copy()
        seen[~after] = 0  # the next episode says nothing
        facts = np.where(alive, reward, 0.0)
        same &= (seen[:, None] == seen[None]).all(-1) & (facts[:, None] == facts[None]) & (after[:, None] == after)
        alive = after
    return same
