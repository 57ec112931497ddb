"""The gate: what it looks at, when it plans, what that costs, and how its thresholds are found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import calibration
from forethought.agent.agent import Agent
from forethought.agent.calibration import SEED, calibrate, check_gates, measure_doubts, thresholds, with_gate
from forethought.agent.checkpoint import from_json, to_json
from forethought.agent.comparison import CompareConfig, modes_of, play
from forethought.agent.curves import gate_chart
from forethought.agent.evaluation import Episode, Result
from forethought.agent.modes import doubts, wants_plan
from forethought.agent.run import check_settings, prepare
from forethought.agent.spaces import Spaces
from forethought.agent.standings import standings
from forethought.agent.style import colours_of
from forethought.agent.training import Trainer
from forethought.modules.configurator import Task, Thinking
from forethought.modules.types import Gate, State
from gymnasium import spaces
from torch import Tensor

from .small import make_agent, settings, tiny, wake

ENVS = 6
THINKING = Thinking(horizon=4, candidates=8, iterations=2, proposals=2)
COST = 4 * (8 * 2 + 2)
ALL, NONE = np.ones(ENVS, np.bool_), np.zeros(ENVS, np.bool_)


def gate_agent(gate: Gate, members: int = 1, goals: bool = False, **thinking: Any) -> Agent:
    return make_agent(goals, members=members, thinking=replace(THINKING, gate=gate, **thinking))


def observations(step: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(step).uniform(-1, 1, (ENVS, 2)).astype(np.float32)


def looked_at(agent: Agent, step: int = 0) -> Tensor:
    m = agent.modules
    with torch.no_grad():
        s = m.perception.encode(torch.from_numpy(observations(step))[:, None])
        configuration = m.configurator("gated")
        return doubts(m, s, m.actor(s, configuration), configuration, torch.full((ENVS,), 0.5))


# ---- the doubts and the decision


def test_doubts_are_what_they_are_called() -> None:
    agent = gate_agent(Gate(entropy=0.0, variance=0.0, spread=0.0, surprise=0.0), members=3)
    m, found = agent.modules, looked_at(agent)
    with torch.no_grad():
        s = m.perception.encode(torch.from_numpy(observations())[:, None])
        configuration = m.configurator("gated")
        p = m.actor(s, configuration).probabilities()
        carry, _ = m.world_model.advance(m.world_model.begin(s.latent), p.argmax(-1))
        belief = m.critic.logits(s.latent).softmax(-1)
        values = m.critic.two_hot.centres.sign() * m.critic.two_hot.centres.abs().expm1()
        mean = (belief * values).sum(-1, keepdim=True)
        each = (belief * (values - mean) ** 2).sum(-1)
        cost_to_go = m.critic(s, configuration).sum(-1)
    assert torch.allclose(found[:, 0], -(p * p.log()).sum(-1), atol=1e-5)
    assert torch.allclose(found[:, 1], ((carry[0] - carry[0].mean(1, keepdim=True)) ** 2).mean((1, 2)), atol=1e-5)
    assert torch.allclose(found[:, 2], (configuration.v[: each.shape[-1]] ** 2 * each).sum(-1).sqrt(), rtol=1e-4)
    assert torch.allclose(found[:, 3], cost_to_go - 0.5, atol=1e-6)
    assert (found.std(0) > 1e-3).all()


def test_what_has_no_threshold_is_not_looked_at() -> None:
    agent = gate_agent(Gate(spread=0.0), members=3)
    before = agent.modules.world_model.calls
    found = looked_at(agent)
    assert found[:, [0, 1, 3]].isnan().all() and not found[:, 2].isnan().any()
    assert agent.modules.world_model.calls == before


def test_one_doubt_above_its_threshold_is_enough() -> None:
    no = math.nan
    doubt = torch.tensor([[0.1, no, 5.0, no], [0.3, no, 5.0, no], [0.1, no, 7.0, 1.0], [0.2, no, 6.0, 1.5]])
    generator = torch.Generator().manual_seed(0)
    assert wants_plan(doubt, Gate(entropy=0.2, spread=6.0), generator).tolist() == [False, True, True, False]
    assert wants_plan(doubt, Gate(entropy=0.2), generator).tolist() == [False, True, False, False]
    assert wants_plan(doubt, Gate(surprise=1.0), generator).tolist() == [False, False, False, True]
    assert not wants_plan(doubt, Gate(), generator).any()
    by_chance = wants_plan(torch.full((4_000, 4), math.nan), Gate(chance=0.3), generator).float().mean()
    assert 0.27 < by_chance < 0.33


# ---- deeds and their price


def test_a_gate_that_is_always_open_is_mode_2_and_one_that_is_shut_is_mode_1() -> None:
    for threshold, mode in ((-1.0, "mode-2"), (math.inf, "mode-1")):
        agent = gate_agent(Gate(entropy=threshold))
        one = agent.begin(ENVS, "gated")
        told = [one.act(observations(step), ALL if step == 0 else NONE, ALL) for step in range(4)]
        agent.generator.manual_seed(agent.config.seed)
        other = agent.begin(ENVS, mode)  # type: ignore[arg-type]
        for step, decision in enumerate(told):
            same = other.act(observations(step), ALL if step == 0 else NONE, ALL)
            assert np.array_equal(decision.action, same.action) and np.array_equal(decision.plan, same.plan)
            assert decision.calls == same.calls and np.array_equal(decision.planned, same.planned)


@pytest.mark.parametrize("members", [1, 3])
def test_only_those_in_doubt_are_planned_for_and_paid_for(members: int) -> None:
    agent = gate_agent(Gate(entropy=0.0, spread=math.inf), members)
    middle = float(looked_at(agent)[:, 0].median())
    agent = with_gate(agent, Gate(entropy=middle))
    expected = looked_at(agent)[:, 0].numpy() > middle
    decision = agent.begin(ENVS, "gated").act(observations(), ALL, ALL)
    assert 0 < expected.sum() < ENVS and np.array_equal(decision.planned, expected)
    assert decision.calls == COST * expected.sum() * members
    mode_1 = agent.begin(ENVS, "mode-1").act(observations(), ALL, ALL)
    assert np.array_equal(decision.action[~expected], mode_1.action[~expected])
    assert decision.plan[expected].sum(-1) == pytest.approx(1) and not decision.plan[~expected].any()
    assert decision.doubts is not None and np.allclose(decision.doubts[:, 0], looked_at(agent)[:, 0], atol=1e-5)


def test_looking_ahead_for_the_variance_is_paid_for() -> None:
    agent = gate_agent(Gate(variance=math.inf), members=3)
    assert agent.begin(ENVS, "gated").act(observations(), ALL, ALL).calls == 3 * ENVS
    with pytest.raises(ValueError, match=r"gate.variance is set and the world model is no ensemble"):
        gate_agent(Gate(variance=0.1)).begin(ENVS, "gated").act(observations(), ALL, ALL)


@pytest.mark.parametrize("members", [1, 3])
def test_surprise_is_that_it_is_worse_than_the_world_model_expected(members: int) -> None:
    """TC(s) − TC(ŝ), ŝ where the last reaction or the whole committed part of the last plan was to lead."""
    agent = gate_agent(Gate(surprise=math.inf, chance=0.5), members, commit=2)
    m, acting = agent.modules, agent.begin(ENVS, "gated")
    configuration = m.configurator("gated")

    def critic(latent: Tensor) -> Tensor:
        with torch.no_grad():
            return m.critic(State(latent), configuration).sum(-1)  # type: ignore[no-any-return]

    def latent(step: int) -> Tensor:
        with torch.no_grad():
            return m.perception.encode(torch.from_numpy(observations(step))[:, None]).latent

    first = acting.act(observations(0), ALL, ALL)
    assert first.doubts is not None and np.isnan(first.doubts).all()  # nothing was expected
    assert 0 < first.planned.sum() < ENVS and first.course is not None
    assert first.calls == members * (COST * first.planned.sum() + ENVS + 2 * first.planned.sum())
    with torch.no_grad():
        course = m.world_model.rollout(State(latent(0)), torch.from_numpy(first.course[:, None].copy())).latent[:, 0]
        react = m.world_model.rollout(State(latent(0)), torch.from_numpy(first.action[:, None, None].copy())).latent
    second = acting.act(observations(1), NONE, ALL)
    assert second.doubts is not None
    told = second.doubts[:, 3]
    assert np.array_equal(np.isnan(told), first.planned)  # in the middle of a plan nobody asks
    expected = (critic(latent(1)) - critic(react[:, 0, 1])).numpy()
    assert np.allclose(told[~first.planned], expected[~first.planned], atol=1e-5)
    back = agent.begin(ENVS, "gated")
    back.restore(acting.state())  # what is expected goes on with a run
    agent.generator.manual_seed(3)
    third = acting.act(observations(2), np.arange(ENVS) == 1, ALL)
    assert third.doubts is not None and np.isnan(third.doubts[1]).all()  # nor in a new episode
    old = (critic(latent(2)) - critic(course[:, 2])).numpy()
    asked = first.planned & (np.arange(ENVS) != 1)
    assert asked.any() and np.allclose(third.doubts[asked, 3], old[asked], atol=1e-5)
    agent.generator.manual_seed(3)
    again = back.act(observations(2), np.arange(ENVS) == 1, ALL)
    assert np.array_equal(again.doubts, third.doubts, equal_nan=True) and np.array_equal(again.action, third.action)


def test_whoever_is_surprised_plans() -> None:
    agent = gate_agent(Gate(surprise=math.inf))
    acting = agent.begin(ENVS, "gated")
    acting.act(observations(0), ALL, ALL)
    state = acting.state()
    told = acting.act(observations(1), NONE, ALL).doubts
    assert told is not None
    middle = float(np.median(told[:, 3]))
    other = with_gate(agent, Gate(surprise=middle)).begin(ENVS, "gated")
    other.restore(state)
    planned = other.act(observations(1), NONE, ALL).planned
    assert 0 < planned.sum() < ENVS and np.array_equal(planned, told[:, 3] > middle)


def test_plans_are_carried_out_and_reactions_are_decided_anew() -> None:
    agent = gate_agent(Gate(entropy=0.0), commit=3)
    agent = with_gate(agent, Gate(entropy=float(looked_at(agent)[:, 0].median()) + 1e-4))
    acting = agent.begin(ENVS, "gated")
    first = acting.act(observations(), ALL, ALL)
    course, planned = first.course, first.planned
    expected = agent.begin(ENVS, "mode-1").act(observations(), ALL, ALL).action
    assert course is not None and 0 < planned.sum() < ENVS
    for step in (1, 2):
        told = acting.act(observations(), NONE, ALL)  # nothing changes, so the same are in doubt
        assert told.doubts is not None and np.array_equal(np.isnan(told.doubts[:, 0]), planned)
        assert np.array_equal(told.action, np.where(planned, course[:, step], expected)) and told.calls == 0
    assert np.array_equal(acting.act(observations(), NONE, ALL).planned, planned)


def test_each_environment_is_planned_for_towards_its_own_goal() -> None:
    seen = Spaces((2,), False, True, spaces.Box(-1.0, 1.0, (2,), np.float32))
    config = settings(thinking=replace(THINKING, gate=Gate(chance=0.5), iterations=4, candidates=64))
    config = replace(
        config, task=replace(config.task, goals=True), world_model=replace(config.world_model, events=False)
    )
    agent = wake(Agent(config, seen))
    goals: list[Tensor] = []
    plan = agent.planner.plan

    class Spy:
        def plan(self, objective: Any, *rest: Any) -> Any:
            goals.append(torch.cat([objective.s.latent, objective.configuration.goal], -1))
            return plan(objective, *rest)

    agent.planner = Spy()  # type: ignore[assignment]
    x = {"observation": observations(), "desired_goal": observations(1)}
    decision = agent.begin(ENVS, "gated").act(x, ALL, ALL)
    m = agent.modules
    pairs = [m.perception.encode(torch.from_numpy(observations(i))[:, None]).latent for i in (0, 1)]
    assert 0 < decision.planned.sum() < ENVS
    assert torch.allclose(goals[0], torch.cat(pairs, -1)[torch.from_numpy(decision.planned)], atol=1e-5)


def test_a_gate_is_saved_and_checked() -> None:
    task = Task(context=(0.0, 1.0), thinking=Thinking(gate=Gate(entropy=0.25, surprise=2.0, chance=0.5)))
    assert from_json(Task, json.loads(json.dumps(to_json(task)))) == task
    with pytest.raises(ValueError, match="the gated mode has no gate: set a threshold"):
        make_agent().begin(2, "gated")
    config = settings(thinking=replace(THINKING, gate=Gate(variance=0.5)))
    with pytest.raises(ValueError, match=r"gate.variance is set and world_model.members 1"):
        check_settings(config)
    with pytest.raises(ValueError, match=r"gate.chance is 1.5, expected a number from 0 to 1"):
        check_settings(settings(thinking=replace(THINKING, gate=Gate(chance=1.5))))
    config = replace(settings(), schedule=replace(settings().schedule, mode="gated"))
    with pytest.raises(ValueError, match=r"schedule.mode is gated and there is no gate"):
        check_settings(config)


def test_a_run_can_collect_in_the_gated_mode() -> None:
    config = tiny()
    thinking = replace(config.task.thinking, gate=Gate(chance=0.5), commit=2)
    schedule = replace(config.schedule, mode="gated", rounds=1, mode_1_rounds=0)
    config = replace(config, task=replace(config.task, thinking=thinking), schedule=schedule)
    agent, env = prepare(config)
    trainer = Trainer(agent, env, lambda *told: None)
    trainer.run()
    env.close()
    planned = trainer.memory.data["planned"][:, : trainer.memory.filled]
    assert 0.1 < planned[:, 25:].mean() < 0.5  # of those after the prefill
    assert agent.modules.world_model.calls > 0


# ---- thresholds


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_thresholds_let_through_the_share_that_was_asked_for(share: float, columns: int) -> None:
    draws = np.random.default_rng(0)
    shared = draws.normal(size=(3_000, 1))
    found = (np.array([1.0, 50.0, 1e-3][:columns]) * np.exp(shared + draws.normal(size=(3_000, columns)))).astype("f4")
    limits = thresholds(found, share)
    above = found > np.array(limits)
    assert above.any(1).mean() == pytest.approx(share, abs=0.01)
    assert np.ptp(above.mean(0)) < 0.01  # the same quantile of each
    found[draws.uniform(size=found.shape) < 0.1] = np.nan  # not looked at: no doubt
    assert (found > np.array(thresholds(found, share))).any(1).mean() == pytest.approx(share, abs=0.01)


def test_a_calibrated_gate_plans_about_as_often_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[int, bool]] = []
    build = calibration.build_env

    def spied(config: Any, count: int, **options: Any) -> Any:
        seeds.append((options["seed"], options["held_out"]))
        return build(config, count, **options)

    monkeypatch.setattr(calibration, "build_env", spied)
    agent = make_agent(thinking=THINKING)
    before = agent.config, agent.generator.get_state()
    gate = calibrate(agent, 0.3, ("entropy", "spread"), decisions=640)
    assert (agent.config, gate.variance, gate.chance) == (before[0], None, None)
    assert torch.equal(agent.generator.get_state(), before[1])
    assert set(seeds) == {(SEED, False)}
    found = measure_doubts(with_gate(agent, gate), 640)
    assert gate.entropy is not None and gate.spread is not None
    planned = (found[:, 0] > gate.entropy) | (found[:, 2] > gate.spread)
    assert 0.2 < planned.mean() < 0.4


@pytest.mark.parametrize(
    ("shares", "signals", "match"),
    [
        ((0.0,), ("entropy",), "--gates is 0.0"),
        ((0.3, 0.3), ("entropy",), "expected different shares"),
        ((0.3,), ("boredom",), "--signals is boredom, expected some of entropy, variance, spread, surprise"),
        ((0.3,), (), "--signals is empty"),
        ((0.3,), ("variance",), "no ensemble"),
    ],
)
def test_gates_that_cannot_be_are_refused(shares: Any, signals: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_gates(make_agent(), shares, signals)


# ---- in comparisons


def test_rows_of_the_gate_have_their_control_beside_them() -> None:
    config = CompareConfig(("mode-1", "mode-2"), episodes=6, film=0, gates=(0.3,))
    players = modes_of(make_agent(thinking=THINKING), config, gates={0.3: Gate(entropy=0.5)})
    assert [player.name for player in players] == ["mode-1", "mode-2", "gated · 30 %", "random-gate · 30 %"]
    assert players[2].note.startswith("plans where entropy above 0.5")
    full, gated, chance = (play(player, config).calls for player in players[1:])
    assert full == COST and 0 <= gated <= COST and 0.1 * COST < chance < 0.6 * COST
    bare = modes_of(make_agent(thinking=THINKING), replace(config, gate_controls=False), gates={0.3: Gate(entropy=0.5)})
    assert [player.name for player in bare] == ["mode-1", "mode-2", "gated · 30 %"]


def test_the_chart_goes_from_reacting_to_thinking() -> None:
    told = {
        "mode-1": (4.0, 0), "gated · 30 %": (8.0, 150), "gated · 60 %": (9.0, 300), "mode-2": (10.0, 500),
        "random-gate · 30 %": (6.0, 160), "random-gate · 60 %": (7.0, 310), "mode-2 · 64 calls": (3.0, 64),
    }  # fmt: skip
    rows = standings([
        Result(name, tuple(Episode(mean + x, 9, False, -1) for x in (-1.0, 1.0)), 1.0, calls, world="w", run="r")
        for name, (mean, calls) in told.items()
    ])  # fmt: skip
    figure = gate_chart(rows, "title", colours_of([row.name for row in rows]))
    assert figure is not None
    lines = [line for line in figure.axes[0].lines if len(np.asarray(line.get_xdata())) == 4]
    assert [np.asarray(line.get_xdata()).tolist() for line in lines] == [[0, 30, 60, 100], [0, 32, 62, 100]]
    assert [np.asarray(line.get_ydata()).tolist() for line in lines] == [[4, 8, 9, 10], [4, 6, 7, 10]]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert gate_chart(rows[:3], "title", colours_of([row.name for row in rows])) is None
