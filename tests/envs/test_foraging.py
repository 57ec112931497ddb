"""Foraging: what moves, drains, refills and is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from forethought.envs import ActionRepeat, make_env
from forethought.envs.foraging import DRAIN, HAZARD_RADIUS, MEAL, STEP, ForagingVectorEnv
from gymnasium.error import ResetNeeded


def placed(env: ForagingVectorEnv, **arrays: Any) -> ForagingVectorEnv:
    """The environment with things put where a test wants them."""
    env.reset(seed=0)
    state = env.state()
    for name, value in arrays.items():
        state[name] = np.broadcast_to(np.asarray(value, float), state[name].shape).copy()
    env.set_state(state)
    return env


def far(**arrays: Any) -> dict[str, Any]:
    """A dot in the middle with nothing near it, and changes to that."""
    return {"position": 0.5, "energy": 0.5, "food": 0.95, "token": 0.05, "hazard": [0.95, 0.05]} | arrays


def test_a_step_moves_and_drains() -> None:
    env = placed(ForagingVectorEnv(1), **far())
    observation, reward, terminated, truncated, infos = env.step(np.array([[1.0, -3.0]]))
    assert np.allclose(infos["position"], [[0.5 + STEP, 0.5 - STEP]])  # clipped to a full action
    assert np.allclose(observation[0, :3], [0.5 + STEP, 0.5 - STEP, 0.5 - DRAIN])
    assert (reward[0], terminated[0], truncated[0]) == (0, False, False)
    assert not (infos["food"] | infos["token"] | infos["contact"]).any()
    for _ in range(40):
        observation, *_ = env.step(np.array([[-1.0, 0.0]]))
    assert observation[0, 0] == 0 and observation[0, 2] == 0  # neither walks through the wall nor below empty


def test_food_fills_the_battery_and_comes_back_elsewhere() -> None:
    env = placed(ForagingVectorEnv(1), **far(food=[0.5, 0.5 + STEP]))
    _, reward, _, _, infos = env.step(np.array([[0.0, 1.0]]))
    assert infos["food"][0] and not infos["token"][0] and reward[0] == 0
    assert infos["interoception"][0, 0] == pytest.approx(0.5 - DRAIN + MEAL)
    assert np.abs(env.state()["food"][0, 0] - [0.5, 0.5 + STEP]).max() > 1e-6
    env = placed(ForagingVectorEnv(1), **far(food=0.5, energy=0.9))
    assert env.step(np.zeros((1, 2)))[4]["interoception"][0, 0] == 1  # full


def test_a_token_is_reward_and_a_hazard_is_not() -> None:
    env = placed(ForagingVectorEnv(1), **far(token=0.5))
    _, reward, _, _, infos = env.step(np.zeros((1, 2)))
    assert reward[0] == 1 and infos["token"][0] and not infos["food"][0]
    env = placed(ForagingVectorEnv(1), **far(hazard=0.5))
    _, reward, _, _, infos = env.step(np.zeros((1, 2)))
    assert reward[0] == 0 and infos["contact"][0]


def test_sensors_measure_the_charge_and_the_way_to_the_nearest_rim() -> None:
    env = placed(ForagingVectorEnv(2), **far(hazard=[[0.5, 0.9], [0.8, 0.5]]))
    felt = env.step(np.zeros((2, 2)))[4]["interoception"]
    assert env.sensors == ("energy", "hazard_distance") and felt.dtype == np.float32
    assert np.allclose(felt, [[0.5 - DRAIN, 0.3 - HAZARD_RADIUS]] * 2)
    inside = placed(ForagingVectorEnv(1), **far(hazard=0.55)).step(np.zeros((1, 2)))[4]
    assert inside["interoception"][0, 1] == 0 and inside["contact"][0]


def test_at_an_end_sensors_tell_of_the_episode_that_ended() -> None:
    env = ForagingVectorEnv(2, max_steps=3)
    env.reset(seed=[1, 2])
    for _ in range(2):
        env.step(np.zeros((2, 2)))
    before = env.state()["energy"]
    observation, _, terminated, truncated, infos = env.step(np.zeros((2, 2)))
    assert truncated.all() and not terminated.any()
    last = np.stack(list(infos["final_obs"]))
    assert np.allclose(infos["interoception"][:, 0], last[:, 2])
    assert np.allclose(last[:, 2], np.clip(before - DRAIN + MEAL * infos["food"], 0, 1), atol=1e-6)
    assert np.allclose(infos["final_info"]["position"], last[:, :2]) and np.allclose(
        infos["position"], observation[:, :2]
    )
    assert not np.allclose(observation, last)


def test_observations_say_where_things_are() -> None:
    env = placed(ForagingVectorEnv(1), **far(food=[0.7, 0.4]))
    observation = env.step(np.zeros((1, 2)))[0][0]
    assert np.allclose(observation[3:5], [0.2, -0.1]) and len(observation) == 3 + 3 * 4
    assert observation[11] == pytest.approx(np.exp(-(0.2**2 + 0.1**2) / 0.2**2))
    assert env.observation_space.contains(env.step(np.zeros((1, 2)))[0])


def test_pictures_show_everything() -> None:
    env = placed(ForagingVectorEnv(1, pixels=True), **far(food=[0.2, 0.8], energy=0.75))
    picture = env.step(np.zeros((1, 2)))[0][0]
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert picture[51, 12].tolist() == [40, 160, 60]  # food at x 0.2, y 0.8: row 51, column 12
    assert picture[32, 32].tolist() == [30, 60, 200]
    assert picture[0, 40].tolist() == [0, 0, 0] and picture[0, 50].tolist() == [200, 200, 200]
    view = ForagingVectorEnv(1, render_mode="rgb_array")
    view.reset(seed=0)
    pictures = view.render()
    assert pictures is not None and pictures[0].shape == (224, 224, 3)


def test_a_batch_equals_its_singles_and_goes_on_from_its_state() -> None:
    seeds, draws = [3, 17, 4], np.random.default_rng(0)
    actions = draws.uniform(-1, 1, (40, 3, 2))
    batch = ForagingVectorEnv(3, max_steps=15)
    batch.reset(seed=seeds)
    together = [batch.step(action)[0] for action in actions]
    for row, seed in enumerate(seeds):
        single = ForagingVectorEnv(1, max_steps=15)
        single.reset(seed=seed)
        alone = [single.step(action[row : row + 1])[0][0] for action in actions]
        assert np.array_equal(alone, [seen[row] for seen in together])
    saved = batch.state()
    future = [batch.step(action)[0] for action in actions]
    twin = ForagingVectorEnv(3, max_steps=15)
    twin.reset(seed=99)
    twin.set_state(saved)
    assert np.array_equal([twin.step(action)[0] for action in actions], future)


def test_action_repeat_passes_the_last_measurement_on() -> None:
    env = make_env("Foraging", 1, seed=0, max_steps=3, action_repeat=2)
    assert isinstance(env, ActionRepeat) and env.unwrapped.sensors == ("energy", "hazard_distance")  # type: ignore[attr-defined]
    env.reset(seed=0)
    first = env.step(np.zeros((1, 2)))[4]["interoception"][0, 0]
    _, _, _, truncated, infos = env.step(np.zeros((1, 2)))  # the third frame ends the episode, the fourth is another's
    assert truncated[0] and infos["interoception"][0, 0] == pytest.approx(first - DRAIN, abs=1e-6)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="hazards is 0; expected an integer of at least 1"):
        ForagingVectorEnv(1, hazards=0)
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        ForagingVectorEnv(1, render_mode="human")
    env = ForagingVectorEnv(2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"options \['position'\]"):
        env.reset(options={"position": np.zeros((2, 2))})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions has shape"):
        env.step(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="'food' has shape"):
        env.set_state(env.state() | {"food": np.zeros((2, 5, 2))})
