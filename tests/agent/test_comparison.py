"""Several runs, modes and budgets beside each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import thinking_within, with_budget, without_critic
from forethought.agent.comparison import CompareConfig, Player, compare, modes_of, play, references_for
from forethought.agent.config import EnvConfig
from forethought.agent.entrants import (
    Entrant,
    check_entrants,
    compare_runs,
    players_of,
    prefixes,
    pupil_names,
    pupils,
    turns,
)
from forethought.agent.evaluation import Result
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.protocols import evaluate_protocol
from forethought.envs.rooms import TWO_ROOM_CROSS_100
from forethought.modules.configurator import Thinking
from forethought.modules.types import State

from .small import fingerprint, make_agent, settings, tiny
from .test_evaluation import room_agent

__all__ = ["room_agent"]


def entrant(folder: str, name: str | None = None, **changes: object) -> Entrant:
    agent = make_agent()
    agent.config = replace(agent.config, **changes)  # type: ignore[arg-type]
    return Entrant(Path(folder), agent, name)


# ---- budgets


@pytest.mark.parametrize("proposals", [0, 6])
@pytest.mark.parametrize("commit", [1, 3])
@pytest.mark.parametrize("budget", [64, 256, 1024])
def test_a_budget_is_used_and_never_exceeded(budget: int, commit: int, proposals: int) -> None:
    agent = make_agent(thinking=Thinking(horizon=6, iterations=3, commit=commit, proposals=proposals))
    acting = with_budget(agent, budget).begin(2, "mode-2")
    ones = np.ones(2, np.bool_)
    calls = sum(acting.act(np.zeros((2, 2), np.float32), ones & (step == 0), ones).calls for step in range(3 * commit))
    per_decision = calls / (2 * 3 * commit)
    assert 0.8 * budget < per_decision <= budget


def test_small_budgets_cost_iterations_before_candidates() -> None:
    thinking = Thinking(horizon=6, candidates=64, iterations=3)
    told = {calls: thinking_within(calls, thinking) for calls in (64, 256, 1024)}
    assert [(t.candidates, t.iterations) for t in told.values()] == [(10, 1), (21, 2), (56, 3)]
    assert thinking_within(1024, thinking, members=2).candidates == 28
    with pytest.raises(ValueError, match="11 predictor calls is too small for plans of 6 steps, which need 12"):
        thinking_within(11, thinking)
    assert thinking_within(12, thinking).candidates == 2


def test_budgets_leave_the_agent_alone() -> None:
    agent = make_agent()
    before = agent.config, agent.modules, agent.generator.get_state()
    with_budget(agent, 64).begin(1, "mode-2").act(np.zeros((1, 2), np.float32), np.ones(1, bool), np.ones(1, bool))
    assert before[:2] == (agent.config, agent.modules) and (before[2] == agent.generator.get_state()).all()


def test_without_its_critic_an_agent_expects_nothing() -> None:
    agent = make_agent()
    before = fingerprint(agent.modules.critic)
    latent = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    configuration = agent.modules.configurator("mode-2")
    with torch.no_grad():
        expected = agent.modules.critic(State(latent), configuration)
        nothing = without_critic(agent).modules.critic(State(latent), configuration)
    assert expected.abs().max() > 1e-3 > nothing.abs().max() * 100
    assert fingerprint(agent.modules.critic) == before


def test_rows_of_an_agent_are_its_modes_and_budgets() -> None:
    config = CompareConfig(("mode-2", "random"), episodes=2, film=0, budgets=(0, 48))
    players = modes_of(Agent(tiny(), make_agent().spaces), config, "small: ", "here", 12)
    assert [player.name for player in players] == ["small: mode-1", "small: mode-2", "small: mode-2 · 48 calls"]
    results = [play(player, config) for player in players]
    assert [result.calls for result in results] == [0, 3 * 6 * 2, 48]
    assert {(r.world, r.run, r.split, r.steps) for r in results} == {("ForethoughtSeek-v0", "here", "unseen", 12)}


def test_a_distilled_row_is_a_policy_that_learned_plans() -> None:
    agent = Agent(tiny(), make_agent().spaces)
    config = CompareConfig(("mode-1",), episodes=2, film=0, distil=8)
    (before, taught) = modes_of(agent, config, "small: ")
    assert [before.name, taught.name] == ["small: mode-1", "small: mode-1 · distilled"]
    assert taught.note == "has learned 8 plans"
    result = play(taught, config)
    assert result.calls == 0 and len(result.episodes) == 2
    mine = entrant("a")
    found = pupils([mine], config)
    assert isinstance(mine.agent, Agent)
    assert pupil_names([mine], config) == ["distilling, a"] and list(found) == [mine.folder]
    assert fingerprint(found[mine.folder].modules.actor) != fingerprint(mine.agent.modules.actor)
    without = replace(config, distil=0)
    assert pupils([mine], without) == {} and pupil_names([mine], without) == []
    with pytest.raises(ValueError, match="--distil is 3, expected 0 or at least 4 plans"):
        check_entrants([mine], replace(config, distil=3), {mine.world.id: None})


# ---- runs


GAMES = (("procgen:maze", (1, 3, 4, 5, 7)), ("procgen:fruitbot", (0, 4, 6, 9)))


def test_runs_that_differ_in_their_seed_are_one_setting() -> None:
    one, two = entrant("a/seed0"), entrant("a/seed1", seed=1)
    assert prefixes([one, two]) == ["", ""]
    other = entrant("b/seed0", model_loss=replace(settings().model_loss, batch=7))
    assert prefixes([one, two, other]) == ["a/seed0: ", "a/seed0: ", "b/seed0: "]
    games = [entrant(game, env=replace(settings().env, id=game, actions=actions)) for game, actions in GAMES]
    assert prefixes(games) == ["", ""]  # each game has buttons of its own
    assert prefixes([replace(one, name="x"), replace(two, name="x"), replace(other, name="y")]) == ["x: ", "x: ", "y: "]


def test_everybody_plays_once_under_a_name_of_its_own() -> None:
    config = CompareConfig(("mode-1", "mode-2", "random"), budgets=(64,))
    runs = [entrant("a"), entrant("b", seed=1)]
    whose = turns(players_of(runs, config), config)
    assert list(whose) == [
        *(f"{row} {run}" for run in "ab" for row in ("mode-1", "mode-2", "mode-2 · 64 calls")),
        "random",
    ]
    results = list(compare_runs(whose, replace(config, episodes=2, film=0), {"ForethoughtSeek-v0": None}))
    assert [(r.name, r.run) for r in results] == [(p.name, p.run) for p, _ in whose.values()]
    assert all(len(r.episodes) == 2 for r in results)


def test_the_old_way_gives_the_same_numbers() -> None:
    config = CompareConfig(("mode-1", "mode-2", "random"), episodes=3, film=0)
    alone = compare(make_agent(), config)
    runs = [Entrant(Path("a"), make_agent())]
    together = list(compare_runs(turns(players_of(runs, config), config), config, {"ForethoughtSeek-v0": None}))
    assert [(r.name, r.episodes, r.calls) for r in alone] == [(r.name, r.episodes, r.calls) for r in together]


def test_training_levels_are_those_of_training_and_unseen_ones_are_not() -> None:
    world = EnvConfig("procgen:bigfish", train_levels=5, distribution_mode="easy")
    player = Player("p", world, lambda env: RandomBehaviour(env.single_action_space, env.num_envs, 0, 1), run="r")
    config = CompareConfig(("random",), episodes=6, film=0, train_levels=True)
    untrained = replace(player, name="random", run="")
    whose = turns([player, untrained], config)
    assert list(whose) == ["p", "p, training levels", "random"]
    unseen, train, chance = compare_runs(whose, config, {"procgen:bigfish": None})
    assert (unseen.split, train.split, chance.split) == ("unseen", "train", "unseen")
    assert {episode.level for episode in train.episodes} <= set(range(5))
    assert not {episode.level for episode in unseen.episodes} & set(range(5))
    assert unseen.episodes == chance.episodes and unseen.episodes != train.episodes
    known = references_for([player])
    assert known.scale is not None and known.scale("procgen:bigfish") is not None
    assert len(known.published["procgen:bigfish"]) == 7


def test_rooms_are_measured_by_their_protocol(room_agent: Agent) -> None:
    config = CompareConfig(("mode-2", "random", "no-op", "expert"), episodes=3, film=0, seed=4)
    short = replace(TWO_ROOM_CROSS_100, budget_steps=12)
    players = players_of([Entrant(Path("room"), room_agent)], config)
    results = list(compare_runs(turns(players, config), config, {"TwoRoom": short}))
    rows = evaluate_protocol(room_agent, short, [result.name for result in results], pairs=3, seed=4)
    told: dict[str, Result] = {row.name: row for row in rows}
    assert [r.name for r in results] == ["mode-2", "random", "no-op", "expert"]
    for result in results[1:]:
        assert result.episodes == told[result.name].episodes


@pytest.mark.parametrize(
    ("folders", "config", "match"),
    [
        ("ab", CompareConfig(("mode-1", "oracle")), "no oracle"),
        ("ab", CompareConfig(("mode-7",)), "unknown behaviour"),
        ("aa", CompareConfig(("mode-1",)), "given twice"),
        ("ab", CompareConfig(("mode-1",), budgets=(64, 64)), "--budgets is 64 64"),
        ("ab", CompareConfig(("mode-1",), budgets=(-1,)), "--budgets is -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(folders: str, config: CompareConfig, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_entrants([entrant(folder) for folder in folders], config, {"ForethoughtSeek-v0": None})
