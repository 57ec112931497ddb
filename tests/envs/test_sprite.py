"""The sprite in its box: moves, the corner, endings, states and seeds."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from forethought.envs.make import make_env
from forethought.envs.sprite import GOAL, MOVES, SpriteState, SpriteVectorEnv
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from ..agent.sprites import find


def test_it_passes_the_checks_of_gymnasium_and_stable_baselines() -> None:
    check_env(gymnasium.make("forethought/Sprite-v0", render_mode="rgb_array").unwrapped, skip_render_check=True)
    check_env_sb3(gymnasium.make("forethought/Sprite-v0").unwrapped)
    assert isinstance(make_env("Sprite", 3), SpriteVectorEnv)


def test_it_moves_within_the_box() -> None:
    env = SpriteVectorEnv(5)
    env.reset(seed=0)
    env.set_state(SpriteState(np.array([[4, 4], [4, 0], [4, 12], [0, 4], [8, 8]]), np.zeros(5, np.int64)))
    pictures, reward, terminated, truncated, _ = env.step(np.arange(5))
    assert np.array_equal(find(pictures), [[4, 4], [4, 0], [4, 12], [0, 4], [12, 8]])  # stays, three walls, down
    assert not (reward.any() or terminated.any() or truncated.any())
    for action, move in enumerate(MOVES):
        env.set_state(SpriteState(np.full((5, 2), 4), np.zeros(5, np.int64)))
        assert np.array_equal(find(env.step(np.full(5, action))[0]), np.full((5, 2), 4) + move)


def test_the_corner_pays_and_ends_and_time_runs_out() -> None:
    env = SpriteVectorEnv(2, max_steps=3)
    env.reset(seed=0)
    env.set_state(SpriteState(np.array([[12, 8], [0, 0]]), np.array([2, 2])))
    pictures, reward, terminated, truncated, infos = env.step(np.array([2, 1]))
    assert reward.tolist() == [1, 0] and terminated.tolist() == [True, False] and truncated.tolist() == [False, True]
    assert infos["success"].tolist() == [True, False]
    assert np.array_equal(find(infos["final_obs"]), [GOAL, [0, 0]])
    assert not np.array_equal(pictures, infos["final_obs"])  # the next episodes have begun
    assert env.get_state().steps.tolist() == [0, 0]


def test_the_expert_takes_a_shortest_way() -> None:
    env = SpriteVectorEnv(64, seed=3)
    before = env.reset()[0]
    left = np.abs(find(before) - GOAL).sum(1) // 4
    running = np.ones(64, np.bool_)
    for step in range(1, 7):
        _, reward, terminated, _, _ = env.step(env.expert_action())
        assert np.array_equal(terminated & running, (left == step) & running) and (reward == terminated).all()
        running &= ~terminated
    assert not running.any() and left.min() == 1 and left.max() == 6


def test_states_repeat_and_seeds_repeat() -> None:
    env, twin = SpriteVectorEnv(3, seed=1), SpriteVectorEnv(1, seed=2)
    assert np.array_equal(env.reset()[0][1], twin.reset()[0][0])  # environment i is seeded with seed + i
    state = env.get_state().repeat(2, 4)
    copies = SpriteVectorEnv(4)
    copies.set_state(state)
    assert np.array_equal(copies.step(np.zeros(4, np.int64))[0], env.step(np.zeros(3, np.int64))[0][[2] * 4])
    with pytest.raises(ValueError, match="a state of 4 sprites for 3"):
        env.set_state(state)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ResetNeeded):
        SpriteVectorEnv(1).step(np.array([0]))
    env = SpriteVectorEnv(2)
    env.reset()
    for wrong in (np.array([0, 5]), np.array([0]), np.array([0.5, 1])):
        with pytest.raises(ValueError):
            env.step(wrong)
    with pytest.raises(ValueError, match="unknown options"):
        env.reset(options={"prompt": 1})
    for options in ({"num_envs": 0}, {"max_steps": 0}, {"render_mode": "human"}):
        with pytest.raises(ValueError):
            SpriteVectorEnv(**options)  # type: ignore[arg-type]
