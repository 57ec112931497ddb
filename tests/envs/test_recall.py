"""Recall: what is asked was shown, half of it on each side, and nothing at the question gives the answer away."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from forethought.envs import make_env
from forethought.envs.recall import RecallEnv
from gymnasium.utils.env_checker import check_env

ID = "forethought/Recall-v0"


def test_it_is_a_gymnasium_environment_and_a_vector_of_them() -> None:
    check_env(gymnasium.make(ID).unwrapped)
    env = make_env(ID, 3, seed=1)
    assert env.reset()[0].shape == (3, 5)
    env.close()


@pytest.mark.parametrize(("symbols", "wait"), [(2, 2), (4, 0)])
def test_an_episode_shows_every_symbol_and_asks_for_one(symbols: int, wait: int) -> None:
    env, answers = RecallEnv(symbols, wait), []
    for episode in range(60):
        x, _ = env.reset(seed=episode)
        sides = np.full(symbols, -1)
        for _ in range(symbols):
            sides[x[:symbols].argmax()] = x[symbols : symbols + 2].argmax()
            assert x.sum() == 2 and x[-1] == 0
            x, reward, terminated, truncated, _ = env.step(np.int64(0))
            assert (reward, terminated, truncated) == (0.0, False, False)
        assert sorted(sides) == [0] * (symbols // 2) + [1] * (symbols // 2)
        for _ in range(wait):
            assert not x.any()
            x, *_ = env.step(np.int64(1))
        assert x[-1] == 1 and x[:symbols].sum() == 1 and not x[symbols : symbols + 2].any()
        truth = sides[x[:symbols].argmax()]
        action = truth if episode % 2 else 1 - truth
        _, reward, terminated, truncated, info = env.step(np.int64(action))
        assert (reward, terminated, truncated) == (1.0 if episode % 2 else -1.0, True, False)
        assert info["is_success"] == bool(episode % 2)
        answers.append((int(x[:symbols].argmax()), int(truth)))
    assert len(set(answers)) == 2 * symbols  # every question has either answer


def test_impossible_worlds_are_refused() -> None:
    for symbols, wait in ((0, 1), (3, 1), (2, -1)):
        with pytest.raises(ValueError, match="expected 2, 4 … and a wait from 0"):
            RecallEnv(symbols, wait)
