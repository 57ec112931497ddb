"""Procgen worlds as they look: with or without backgrounds, in one theme or many; and what may stand beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forethought.agent.comparison import CompareConfig, Player, references_for
from forethought.agent.config import EnvConfig
from forethought.agent.entrants import Entrant, check_entrants
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.worlds import build_env
from forethought.envs.levels import Levels, LevelSplit
from forethought.envs.make import make_env

from .small import make_agent

COINRUN = EnvConfig("procgen:coinrun", train_levels=50)
PLAIN = replace(COINRUN, backgrounds=False, one_theme=True)


def skies(config: EnvConfig, held_out: bool = False) -> np.ndarray:
    """The highest rows of 12 levels."""
    env = build_env(config, 12, seed=3, held_out=held_out)
    frames, _ = env.reset(seed=3)
    env.close()
    return np.asarray(frames)[:, :2]


@pytest.mark.parametrize("held_out", [False, True])
def test_without_backgrounds_and_with_one_theme_levels_share_a_sky(held_out: bool) -> None:
    many, one = skies(COINRUN, held_out), skies(PLAIN, held_out)
    assert len({sky.tobytes() for sky in many}) > 6
    assert len({sky.tobytes() for sky in one}) < 4


def test_looks_are_those_that_procgen_names() -> None:
    ours = build_env(PLAIN, 12, seed=3, held_out=False)
    levels = LevelSplit(train=Levels(0, 50))
    theirs = make_env(COINRUN.id, 12, seed=3, levels=levels, use_backgrounds=False, restrict_themes=True)
    assert np.array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])


def test_worlds_without_levels_have_no_such_looks() -> None:
    with pytest.raises(ValueError, match="does not have the options use_backgrounds=False"):
        build_env(EnvConfig("TwoRoom", backgrounds=False), 1, seed=0, held_out=False)


@pytest.mark.parametrize("world", [replace(COINRUN, backgrounds=False), replace(COINRUN, one_theme=True)])
def test_what_was_published_stands_beside_the_usual_looks_alone(world: EnvConfig) -> None:
    def player(config: EnvConfig) -> Player:
        return Player("p", config, lambda env: RandomBehaviour(env.single_action_space, env.num_envs, 0, 1), run="r")

    usual, other = references_for([player(COINRUN)]), references_for([player(world)])
    assert usual.scale is not None and usual.scale(COINRUN.id) is not None and usual.published
    assert other.scale is not None and other.scale(COINRUN.id) is None and not other.published


def test_runs_of_different_looks_are_not_compared() -> None:
    def entrant(folder: str, world: EnvConfig) -> Entrant:
        agent = make_agent()
        agent.config = replace(agent.config, env=world)
        return Entrant(Path(folder), agent)

    config = CompareConfig(("mode-1",))
    check_entrants([entrant("a", PLAIN), entrant("b", PLAIN)], config, {COINRUN.id: None})
    told = "worlds of mode None and mode None, no backgrounds, one theme; compare runs of one"
    with pytest.raises(ValueError, match=told):
        check_entrants([entrant("a", COINRUN), entrant("b", PLAIN)], config, {COINRUN.id: None})
