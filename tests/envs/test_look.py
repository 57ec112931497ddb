"""Look: a look tells where the prize is, and nothing else does."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from forethought.envs import make_env
from forethought.envs.look import LEFT, LOOK, RIGHT, LookEnv
from gymnasium.utils.env_checker import check_env

ID = "forethought/Look-v0"


def step(env: LookEnv, action: int) -> tuple[float, float, bool, bool, bool]:
    seen, reward, terminated, truncated, info = env.step(np.int64(action))
    return float(seen[0]), reward, terminated, truncated, info["is_success"]


def test_it_is_a_gymnasium_environment_and_a_vector_of_them() -> None:
    check_env(gymnasium.make(ID).unwrapped)
    env = make_env(ID, 3, seed=1)
    assert env.reset()[0].tolist() == [[0.0]] * 3
    env.close()


def test_a_look_tells_and_nothing_else_does() -> None:
    env, prizes, blind = LookEnv(price=0.25), [], 0.0
    for episode in range(200):
        assert env.reset(seed=episode)[0].tolist() == [0.0]
        seen, reward, *ended = step(env, LOOK)
        assert reward == -0.25 and ended == [False, False, False]
        prize, other = (LEFT, RIGHT) if seen < 0 else (RIGHT, LEFT)
        assert step(env, prize)[1:] == (1.0, True, False, True)
        env.reset(seed=episode)
        assert step(env, other)[1:] == (-1.0, True, False, False)
        env.reset(seed=episode)
        blind += step(env, LEFT)[1]
        prizes.append(prize)
    assert 80 < prizes.count(LEFT) < 120 and abs(blind) < 40


def test_who_only_looks_is_stopped() -> None:
    env = LookEnv(patience=2)
    env.reset(seed=0)
    assert step(env, LOOK)[2:] == (False, False, False) and step(env, LOOK)[2:] == (False, True, False)


@pytest.mark.parametrize(("price", "patience"), [(1.0, 4), (-0.1, 4), (0.2, 0)])
def test_impossible_worlds_are_refused(price: float, patience: int) -> None:
    with pytest.raises(ValueError, match=f"price is {price} and patience {patience}"):
        LookEnv(price, patience)
