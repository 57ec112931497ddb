"""The floor that holds one action for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.agent.comparison import CompareConfig, bystanders, check_behaviours, compare, play
from forethought.agent.config import EnvConfig
from forethought.agent.constant import ConstantBehaviour, best_constant
from forethought.agent.entrants import Entrant, check_entrants, constant_names, constants, players_of
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.spaces import Spaces
from forethought.agent.worlds import build_env
from gymnasium import spaces
from numpy.typing import NDArray

from .small import SEEK, make_agent

LEAPER = EnvConfig("procgen:leaper", num_envs=4, distribution_mode="easy", action_repeat=3, actions=(1, 5, 7))
"""LEFT, UP and RIGHT: only UP brings the frog anywhere."""


class Slot(gymnasium.Env[NDArray[np.float32], int]):
    """Five slots for five steps; the fourth pays 1, all others less, the last ends the episode with its reward of 3."""

    PAYS = (0.2, 0.0, 0.4, 1.0, 3.0)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.steps = render_mode, 0
        self.observation_space, self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = int(action) == 4
        return np.zeros(1, np.float32), self.PAYS[int(action)], over, self.steps >= 5 and not over, {}


if "ForethoughtSlot-v0" not in gymnasium.registry:
    gymnasium.register("ForethoughtSlot-v0", entry_point=Slot)


def test_the_action_with_the_best_return_is_found_not_the_one_with_the_best_reward() -> None:
    told: list[tuple[int, int]] = []
    assert best_constant(EnvConfig("ForethoughtSlot-v0"), 0, 3, lambda done, all: told.append((done, all))) == 3
    assert told == [(action, 5) for action in range(1, 6)]
    env = build_env(EnvConfig("ForethoughtSlot-v0"), 4, seed=0, held_out=True)
    returns = [evaluate("", env, ConstantBehaviour(action, 4)).returns for action in range(5)]
    env.close()
    assert np.allclose(returns, np.repeat([[1.0], [0.0], [2.0], [5.0], [3.0]], 4, axis=1))


def test_levels_of_training_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []

    def watched(*arguments: Any, **options: Any) -> Result:
        result = evaluate(*arguments, **options)
        levels.extend(episode.level for episode in result.episodes)
        return result

    monkeypatch.setattr("forethought.agent.constant.evaluate", watched)
    best_constant(LEAPER, 0, 8)
    assert len(levels) == 24 and min(levels) >= 0 and max(levels) < LEAPER.train_levels


def test_equally_good_actions_leave_the_lowest() -> None:
    assert best_constant(replace(LEAPER, actions=(7, 1)), 0, 4) == 0  # neither brings the frog anywhere


def test_the_row_names_the_button_that_was_found_on_training_levels() -> None:
    [row] = bystanders(LEAPER, None, CompareConfig(("constant",), episodes=32, film=0))
    assert row.note == "always action 5, the best on training levels; actions held for 3 frames"
    up = play(row, CompareConfig(episodes=32, film=0))
    [other] = bystanders(LEAPER, None, CompareConfig(("constant",), episodes=32, film=0), constant=0)
    assert other.note.startswith("always action 1,")
    assert up.returns.mean() > 0 == play(other, CompareConfig(episodes=32, film=0)).returns.max()


def test_it_is_found_once_for_each_world_and_told() -> None:
    config = CompareConfig(("mode-1", "constant"), episodes=4, film=0)
    agent = make_agent()
    other = make_agent()
    other.config = replace(other.config, env=EnvConfig("ForethoughtSlot-v0"))
    two = [Entrant(Path("a"), agent), Entrant(Path("b"), agent), Entrant(Path("c"), other)]
    names = constant_names(two, config)
    assert names == ["constant actions, ForethoughtSeek-v0", "constant actions, ForethoughtSlot-v0"]
    told: list[int] = []
    held = constants(two, config, {names[1]: lambda done, _: told.append(done)})
    assert set(held) == {"ForethoughtSeek-v0", "ForethoughtSlot-v0"} and held["ForethoughtSlot-v0"] == 3
    assert told == [1, 2, 3, 4, 5]
    rows = [p for p in players_of(two, config, held={**held, "ForethoughtSlot-v0": 2}) if p.name == "constant"]
    assert [row.note for row in rows][1] == "always action 2, the best on other starts"
    assert constants(two, CompareConfig(("random",))) == {} and constant_names(two, CompareConfig(("random",))) == []


def test_it_stands_where_it_was_asked_for() -> None:
    rows = compare(make_agent(), CompareConfig(("constant", "mode-1", "random"), episodes=4, film=0))
    assert [row.name for row in rows] == ["constant", "mode-1", "random"]


def test_actions_that_cannot_all_be_tried_are_refused() -> None:
    box = Spaces((2,), False, False, spaces.Box(-1.0, 1.0, (2,), np.float32))
    with pytest.raises(ValueError, match=r"constant tries every action and X has Box.*leave it out"):
        check_behaviours(("constant",), "X", box)
    check_behaviours(("constant",), "X", SEEK)
    agent = make_agent()
    agent.spaces = box
    with pytest.raises(ValueError, match="leave it out"):
        check_entrants([Entrant(Path("a"), agent)], CompareConfig(("constant",)), {agent.config.env.id: None})
    with pytest.raises(ValueError, match="constant tries every action and Pendulum-v1 has Box"):
        best_constant(EnvConfig("Pendulum-v1"), 0)
