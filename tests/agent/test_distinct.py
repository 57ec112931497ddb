"""Actions that do the same are found by trying them out, and one of each is kept."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from forethought.agent.comparison import CompareConfig, bystanders
from forethought.agent.config import EnvConfig
from forethought.agent.distinct import equal_actions, with_distinct_actions
from forethought.agent.worlds import build_env
from forethought.envs.make import make_env
from forethought.envs.procgen import ACTION_MEANINGS

FRUITBOT = EnvConfig("procgen:fruitbot", num_envs=2, action_repeat=3, distinct_actions=True)


@pytest.fixture(scope="module")
def fruitbot() -> EnvConfig:
    return with_distinct_actions(FRUITBOT, 0)


def test_fruitbot_has_four(fruitbot: EnvConfig) -> None:
    chosen = [ACTION_MEANINGS[button] for button in fruitbot.actions]
    assert chosen == ["LEFT-DOWN", "NOOP", "RIGHT-DOWN", "D"]  # D throws a key
    assert with_distinct_actions(fruitbot, 0) is fruitbot  # what is known is not tried out again


def test_what_shows_a_frame_later_is_told_apart_where_actions_are_held_for_one() -> None:
    assert len(with_distinct_actions(replace(FRUITBOT, action_repeat=1), 0).actions) == 4  # 3 by the first frame alone


def test_the_groups_hold_every_action_once_and_nothing_that_differs() -> None:
    env = make_env("procgen:maze", 15, seed=3)
    groups = equal_actions(env, 1, 45, 3)
    env.close()
    assert sorted(action for group in groups for action in group) == list(range(15))
    names = [{ACTION_MEANINGS[action] for action in group} for group in groups]
    assert {"LEFT", "LEFT-UP", "LEFT-DOWN"} in names and {"RIGHT", "RIGHT-UP", "RIGHT-DOWN"} in names
    assert {"UP"} in names and {"DOWN"} in names and len(names) == 5
    assert next(group for group in groups if 4 in group)[0] == 4  # the one that does nothing stands for its like


def test_the_same_seed_finds_the_same(fruitbot: EnvConfig) -> None:
    assert with_distinct_actions(FRUITBOT, 0) == fruitbot


def test_the_world_is_the_same_with_fewer_buttons(fruitbot: EnvConfig) -> None:
    few = build_env(fruitbot, 2, seed=1, held_out=False)
    every = build_env(replace(fruitbot, actions=()), 2, seed=1, held_out=False)
    few.reset(seed=1)
    every.reset(seed=1)
    draws = np.random.default_rng(0)
    for _ in range(20):
        chosen = draws.integers(4, size=2)
        one, other = few.step(chosen), every.step(np.array(fruitbot.actions)[chosen])
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    few.close()
    every.close()


def test_nothing_is_tried_out_unasked() -> None:
    config = replace(FRUITBOT, distinct_actions=False)
    assert with_distinct_actions(config, 0) is config


@pytest.mark.parametrize("id", ["CartPole-v1", "TwoRoom", "Sprite"])
def test_other_worlds_are_refused(id: str) -> None:
    with pytest.raises(ValueError, match="no Procgen game; leave it off"):
        with_distinct_actions(EnvConfig(id, distinct_actions=True), 0)


@pytest.mark.parametrize("actions", [(0, 15), (-1,), (3, 3)])
def test_buttons_that_do_not_exist_are_refused(actions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected different buttons from 0 to 14"):
        make_env("procgen:maze", 1, actions=actions)


def test_an_action_beyond_the_chosen_ones_is_refused() -> None:
    env = make_env("procgen:maze", 1, actions=(1, 4, 7))
    assert env.unwrapped.noop == 1 and env.unwrapped.action_meanings == ("LEFT", "NOOP", "RIGHT")  # type: ignore[attr-defined]
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        env.step(np.array([3]))
    env.close()


def test_chance_plays_with_all_buttons_and_with_those_of_the_agent(fruitbot: EnvConfig) -> None:
    rows = bystanders(fruitbot, None, CompareConfig(("no-op", "random")))
    for row, name, buttons in zip(rows[1:], ("random", "random · 4 buttons"), (15, 4), strict=True):
        env = build_env(row.world, 2, seed=0, held_out=True)
        assert row.name == name and env.single_action_space == gymnasium.spaces.Discrete(buttons)
        env.close()


def test_chance_has_one_row_where_the_agent_has_all_buttons(fruitbot: EnvConfig) -> None:
    [row] = bystanders(replace(fruitbot, actions=()), None, CompareConfig(("random",)))
    assert row.name == "random"
