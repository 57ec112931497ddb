"""The two episodes: what each may call, what a decision costs, and what an agent carries from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Acting, Agent, Decision, plan_width
from forethought.agent.modes import Energy, propose, think, wander
from forethought.agent.run import check_settings
from forethought.agent.spaces import Spaces
from forethought.modules.configurator import Thinking
from forethought.modules.types import INTEROCEPTION, State, Trajectory
from forethought.modules.world_model import PredictorName
from forethought.planners import PLANNERS, Budget, Categorical, Plan, Planner, Proposal, shift, uninformed
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from .small import PREDICTORS, SEEK, certain, fingerprints, settings, wake
from .small import make_agent as make_small

ENVS = 3
THINKING = Thinking(horizon=4, candidates=8, iterations=3, proposals=2)
COST = 4 * (8 * 3 + 2)  # horizon × (candidates × iterations + proposals)
each_predictor = pytest.mark.parametrize(("predictor", "members"), PREDICTORS)
ALL, NONE = np.ones(ENVS, np.bool_), np.zeros(ENVS, np.bool_)


def make_agent(thinking: Thinking = THINKING, history: int = 1) -> Agent:
    config = settings(thinking=thinking)
    return wake(Agent(replace(config, perception=replace(config.perception, history=history)), SEEK))


def observations(step: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(step).uniform(-1, 1, (ENVS, 2)).astype(np.float32)


class Counted:
    """A callable that counts how often it is called."""

    def __init__(self, inside: Any) -> None:
        self.inside, self.times = inside, 0

    def __call__(self, *arguments: Any) -> Any:
        self.times += 1
        return self.inside(*arguments)


def counted(agent: Agent) -> tuple[Counted, Counted]:
    cost, critic = Counted(agent.modules.intrinsic_cost), Counted(agent.modules.critic)
    agent.modules = replace(agent.modules, intrinsic_cost=cost, critic=critic)  # type: ignore[arg-type]
    return cost, critic


@dataclass
class Spy:
    """A planner that remembers what it was asked and what it answered."""

    planner: Planner
    asked: list[Proposal] = field(default_factory=list)
    answered: list[Plan] = field(default_factory=list)

    def plan(
        self,
        objective: Any,
        space: Any,
        proposal: Proposal,
        budget: Budget,
        batch: int,
        generator: torch.Generator,
        watch: Any = None,
    ) -> Plan:
        self.asked.append(proposal)
        self.answered.append(self.planner.plan(objective, space, proposal, budget, batch, generator, watch))
        return self.answered[-1]

    def start(self, call: int) -> torch.Tensor:
        distribution = self.asked[call].distribution
        assert isinstance(distribution, Categorical)
        return distribution.probabilities


def spied(agent: Agent) -> Spy:
    spy = Spy(agent.planner)
    agent.planner = spy
    return spy


# ---- what a decision may call, and what it costs


@pytest.mark.parametrize("sample", [False, True])
def test_mode_1_calls_neither_world_model_nor_cost_nor_critic(sample: bool) -> None:
    agent = make_agent()
    cost, critic = counted(agent)
    spy = spied(agent)
    acting = agent.begin(ENVS, "mode-1", sample)
    for step in range(5):
        decision = acting.act(observations(step), ALL if step == 0 else NONE, ALL)
        assert decision.calls == 0 and not decision.planned.any() and decision.course is None
        assert decision.action.shape == (ENVS,) and decision.plan.shape == (ENVS, 3)
    assert agent.modules.world_model.calls == cost.times == critic.times == len(spy.asked) == 0


def test_mode_1_uses_its_generator_only_to_sample() -> None:
    agent = make_agent()
    for sample in (False, True):
        before = agent.generator.get_state()
        agent.begin(ENVS, "mode-1", sample).act(observations(), ALL, ALL)
        assert torch.equal(before, agent.generator.get_state()) != sample


def test_mode_1_takes_the_mode_of_the_policy_in_the_present_state() -> None:
    agent = make_agent()
    acting = agent.begin(ENVS, "mode-1")
    for step in range(4):
        x = observations(step)
        s = agent.modules.perception.encode(torch.from_numpy(x)[:, None])
        expected = agent.modules.actor(s, agent.modules.configurator("mode-1")).mode()
        assert np.array_equal(acting.act(x, ALL if step == 0 else NONE, ALL).action, expected.numpy())


@pytest.mark.parametrize("proposals", [0, 2])
@pytest.mark.parametrize("active", [ALL, np.array([True, False, True]), NONE], ids=["all", "two", "none"])
def test_mode_2_makes_exactly_its_budget(active: NDArray[np.bool_], proposals: int) -> None:
    agent = make_agent(replace(THINKING, proposals=proposals))
    cost, critic = counted(agent)
    acting = agent.begin(ENVS, "mode-2")
    expected = 4 * (8 * 3 + proposals) * int(active.sum())
    for step in range(3):
        before = agent.modules.world_model.calls
        decision = acting.act(observations(step), ALL if step == 0 else NONE, active)
        assert decision.calls == agent.modules.world_model.calls - before == expected
        assert np.array_equal(decision.planned, active)
    evaluations = 3 * 3 if active.any() else 0  # one batched call per iteration, nothing hidden
    assert cost.times == critic.times == evaluations


def test_with_commit_there_are_fewer_decisions_and_a_restart_decides_anew() -> None:
    agent = make_agent(replace(THINKING, commit=3))
    acting = agent.begin(ENVS, "mode-2")
    planned = []
    for step in range(7):
        first = ALL if step == 0 else np.array([False, step == 1, False])
        decision = acting.act(observations(step), first, ALL)
        assert decision.calls == COST * int(decision.planned.sum())
        planned.append(decision.planned.astype(int).tolist())
    assert planned == [[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert agent.modules.world_model.calls == COST * sum(map(sum, planned))


def test_commit_carries_out_the_first_actions_of_the_plan_in_order() -> None:
    agent = make_agent(replace(THINKING, commit=3))
    spy = spied(agent)
    acting = agent.begin(ENVS, "mode-2")
    actions = [acting.act(observations(step), ALL if step == 0 else NONE, ALL).action for step in range(6)]
    first, second = (answer.actions.numpy() for answer in spy.answered)
    assert np.array_equal(np.stack(actions, 1), np.concatenate([first[:, :3], second[:, :3]], 1))


def test_an_inactive_environment_keeps_its_place_in_the_plan() -> None:
    agent = make_agent(replace(THINKING, commit=2))
    acting = agent.begin(ENVS, "mode-2")
    acting.act(observations(0), ALL, ALL)
    only = np.array([True, False, False])
    for step in (1, 2, 3, 4):
        decision = acting.act(observations(step), NONE, only)
        assert not decision.planned[1:].any()
    assert not acting.act(observations(5), NONE, ALL).planned.any()  # each had one step of its plan left
    assert acting.act(observations(6), NONE, ALL).planned.all()


def test_what_a_decision_says_about_its_plan_is_the_plan() -> None:
    agent = make_agent()
    spy = spied(agent)
    active = np.array([True, False, True])
    decision = agent.begin(ENVS, "mode-2").act(observations(), ALL, active)
    answer = spy.answered[0]
    assert isinstance(answer.distribution, Categorical) and decision.course is not None
    assert np.array_equal(decision.plan[active], answer.distribution.probabilities[:, 0].numpy())
    assert not decision.plan[~active].any()
    assert np.array_equal(decision.course[active], answer.actions.numpy())
    assert np.array_equal(decision.action[active], answer.actions[:, 0].numpy())


# ---- what is carried from step to step


def test_the_search_starts_where_the_last_plan_left_off() -> None:
    for commit in (1, 2):
        agent = make_agent(replace(THINKING, commit=commit))
        spy = spied(agent)
        acting = agent.begin(ENVS, "mode-2")
        for step in range(1 + commit):
            acting.act(observations(step), ALL if step == 0 else NONE, ALL)
        moved_on = shift(spy.answered[0], commit, SEEK.action)
        assert isinstance(moved_on, Categorical)
        assert torch.allclose(spy.start(1), moved_on.probabilities)


def test_an_episode_that_restarts_plans_from_scratch_and_the_others_go_on() -> None:
    agent = make_agent()
    spy = spied(agent)
    acting = agent.begin(ENVS, "mode-2")
    for step in range(3):
        acting.act(observations(step), ALL if step == 0 else NONE, ALL)
    fresh = uninformed(SEEK.action, ENVS, THINKING.horizon, "cpu")
    assert isinstance(fresh, Categorical)
    assert torch.equal(spy.start(0), fresh.probabilities)
    agent.generator.manual_seed(5)
    restarted = acting.act(observations(3), np.array([False, True, False]), ALL)
    agent.generator.manual_seed(5)
    anew = agent.begin(ENVS, "mode-2").act(observations(3), ALL, ALL)
    assert restarted.course is not None and anew.course is not None
    assert np.array_equal(restarted.plan[1], anew.plan[1]) and np.array_equal(restarted.course[1], anew.course[1])
    assert torch.equal(spy.start(3)[1], fresh.probabilities[1])
    for index in (0, 2):
        assert not torch.allclose(spy.start(3)[index], fresh.probabilities[index])
        assert not np.array_equal(restarted.plan[index], anew.plan[index])


def test_plans_are_kept_apart_when_some_environments_rest() -> None:
    agent = make_agent()
    spy = spied(agent)
    acting = agent.begin(ENVS, "mode-2")
    acting.act(observations(0), ALL, ALL)
    acting.act(observations(1), NONE, np.array([False, False, True]))
    acting.act(observations(2), NONE, ALL)
    old, new = (shift(answer, 1, SEEK.action) for answer in spy.answered[:2])
    assert isinstance(old, Categorical) and isinstance(new, Categorical)
    expected = torch.stack([old.probabilities[0], old.probabilities[1], new.probabilities[0]])
    assert torch.allclose(spy.start(2), expected)


@pytest.mark.parametrize("mode", ["mode-1", "mode-2"])
def test_the_percepts_history_is_refilled_where_an_episode_begins(mode: Any) -> None:
    agent = make_agent(history=3)
    seen: list[torch.Tensor] = []
    encode = agent.modules.perception.encode

    def record(x: torch.Tensor, configuration: Any = None) -> State:
        seen.append(x.clone())
        return encode(x, configuration)

    agent.modules.perception.encode = record  # type: ignore[method-assign]
    acting = agent.begin(ENVS, mode)
    for step in range(5):
        acting.act(observations(step), ALL if step == 0 else np.array([False, step == 3, False]), ALL)
    x = [torch.from_numpy(observations(step)) for step in range(5)]
    assert torch.equal(seen[0], torch.stack([x[0]] * 3, 1))
    assert torch.equal(seen[1], torch.stack([x[0], x[0], x[1]], 1))
    goes_on, restarted = torch.stack(x[2:], 1), torch.stack([x[3], x[3], x[4]], 1)
    assert torch.equal(seen[4][[0, 2]], goes_on[[0, 2]]) and torch.equal(seen[4][1], restarted[1])


# ---- reproducible, changes nothing, and reads its goal


@pytest.mark.parametrize("mode", ["mode-1", "mode-2"])
def test_acting_changes_no_parameter_and_is_repeatable(mode: Any) -> None:
    agent = make_agent()
    before = fingerprints(agent)

    def run() -> list[Decision]:
        agent.generator.manual_seed(3)
        acting = agent.begin(ENVS, mode, sample=True)
        return [acting.act(observations(step), ALL if step == 0 else NONE, ALL) for step in range(4)]

    for one, other in zip(run(), run(), strict=True):
        assert np.array_equal(one.action, other.action) and np.array_equal(one.plan, other.plan)
    assert fingerprints(agent) == before
    assert all(p.grad is None for network in agent.networks().values() for p in network.parameters())


def test_each_environment_plans_from_its_own_state() -> None:
    """Energies in a batch are those of each state alone."""
    agent = make_agent()
    m = agent.modules
    configuration = m.configurator("mode-2")
    s = m.perception.encode(torch.from_numpy(observations())[:, None])
    actions = torch.randint(3, (ENVS, 8, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = Energy(m, s, configuration)(actions)
        alone = [Energy(m, State(s.latent[i : i + 1]), configuration)(actions[i : i + 1]) for i in range(ENVS)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert (together.std(1) > 1e-3).all()


def goal_agent(thinking: Thinking = THINKING) -> tuple[Agent, Spaces]:
    seen = Spaces((2,), False, True, spaces.Box(-1.0, 1.0, (2,), np.float32))
    config = settings(thinking=thinking)
    config = replace(
        config, task=replace(config.task, goals=True), world_model=replace(config.world_model, events=False)
    )
    return wake(Agent(config, seen)), seen


@pytest.mark.parametrize("mode", ["mode-1", "mode-2"])
def test_the_goal_of_each_environment_reaches_its_decision(mode: Any) -> None:
    agent, seen = goal_agent()
    spy = spied(agent)
    x = observations()

    def decide(goal: NDArray[np.float32]) -> Decision:
        agent.generator.manual_seed(0)
        return agent.begin(ENVS, mode).act({"observation": x, "desired_goal": goal}, ALL, ALL)

    goal = observations(1)
    other = goal.copy()
    other[1] = -other[1]
    one, two = decide(goal), decide(other)
    assert one.plan.shape == (ENVS, plan_width(seen)) == (ENVS, 4)
    assert np.allclose(one.action[[0, 2]], two.action[[0, 2]], atol=1e-5)
    if mode == "mode-1":
        assert not np.allclose(one.action[1], two.action[1], atol=1e-5)
    else:
        moved = (spy.answered[0].energy - spy.answered[1].energy).abs() > 1e-5
        assert moved.tolist() == [False, True, False]
    assert one.calls == (COST * ENVS if mode == "mode-2" else 0)
    assert (abs(one.action) <= 1).all()


def test_goal_energy_is_distance_to_the_goal_and_cost_to_go() -> None:
    agent, _ = goal_agent()
    m = agent.modules
    s, goal = (m.perception.encode(torch.from_numpy(observations(i))[:, None]) for i in (0, 1))
    configuration = m.configurator("mode-2", goal)
    actions = torch.rand(ENVS, 5, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        given = Energy(m, s, configuration)(actions)
        latent = m.world_model.rollout(s, actions).latent
        distance = (latent[:, :, 1:] - goal.latent[:, None, None]).square().mean(-1)
        pair = torch.cat([latent[:, :, -1], goal.latent[:, None].expand(-1, 5, -1)], -1)
        to_go = m.critic.cost_to_go(pair)[..., 3]
    discounts = 0.9 ** torch.arange(1, 5)
    assert torch.allclose(given, (discounts * (1 - (-distance / 0.5).exp())).sum(-1) + discounts[-1] * to_go, atol=1e-4)


def foresee(goals: bool, predictor: PredictorName, members: int, risk: float = 0.0) -> tuple[Agent, Energy, Tensor]:
    """An agent, its energy for three observations, and actions ``[B, 5, 4, ...]``."""
    agent = make_small(goals, predictor, members)
    if goals:
        agent.modules.world_model.config = replace(agent.config.world_model, events=True)  # endings count there as well
    m = agent.modules
    with torch.no_grad():
        m.world_model.ending.weight.mul_(0.1)  # so that what comes late matters, too
        m.world_model.ending.bias.fill_(-1.0)
    s, goal = (m.perception.encode(torch.from_numpy(observations(i))[:, None]) for i in (0, 1))
    configuration = replace(m.configurator("mode-2", goal if goals else None), risk=risk)
    actions = torch.randint(3, (ENVS, 5, 4), generator=torch.Generator().manual_seed(0))
    return agent, Energy(m, s, configuration), actions


@each_predictor
@pytest.mark.parametrize("goals", [False, True])
@pytest.mark.parametrize("together", [1, 2])
def test_many_environments_are_imagined_a_few_at_a_time(
    together: int, goals: bool, predictor: PredictorName, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, energy, actions = foresee(goals, predictor, members)
    rollout = Counted(agent.modules.world_model.rollout)
    monkeypatch.setattr(agent.modules.world_model, "rollout", rollout)
    with torch.no_grad():
        at_once = energy(actions)
        before = rollout.times
        monkeypatch.setattr("forethought.agent.modes._AT_ONCE", together * 5 * energy.s.latent.shape[-1])
        assert torch.allclose(energy(actions), at_once, atol=1e-5)
    assert rollout.times - before == math.ceil(ENVS / together)
    assert (at_once[0] - at_once[1]).abs().max() > 1e-3
    energy(actions)
    assert rollout.times - before == math.ceil(ENVS / together) + 1  # whoever wants gradients has all of them at once


@pytest.mark.parametrize("goals", [False, True])
@each_predictor
def test_an_energy_followed_step_by_step_is_the_energy_of_the_whole(
    predictor: PredictorName, members: int, goals: bool
) -> None:
    agent, energy, actions = foresee(goals, predictor, members)
    m = agent.modules
    with torch.no_grad():
        root = energy.root()
        assert all(part.shape[:2] == (ENVS, 1) for part in root)
        nodes = tuple(part.expand(-1, 5, *part.shape[2:]) for part in root)
        total, alive, before = torch.zeros(ENVS, 5), torch.ones(ENVS, 5), m.world_model.calls
        for t in range(4):
            nodes, cost, go_on = energy.step(nodes, actions[:, :, t])
            total, alive = total + energy.discount ** (t + 1) * alive * cost, alive * go_on
        assert m.world_model.calls - before == ENVS * 5 * 4 * members
        whole = energy(actions)
        assert torch.allclose(total + energy.discount**4 * alive * energy.leaf(nodes), whole, atol=1e-5)
        assert whole.std(1).min() > 1e-4 and 0.1 < alive.min() < alive.max() < 0.7
        prior = energy.prior(nodes)
        assert prior.shape == (ENVS, 5, 3) and torch.allclose(prior.sum(-1), torch.ones(ENVS, 5))
        assert torch.equal(prior.argmax(-1), m.actor(State(nodes[0].mean(3)[:, :, 0]), energy.configuration).mode())


def test_nodes_whose_episode_is_over_stay_numbers() -> None:
    """Where no member thinks that it goes on, nothing that follows counts, and nothing is NaN."""
    agent, energy, actions = foresee(False, "mlp", 3)
    with torch.no_grad():
        agent.modules.world_model.ending.weight.zero_()
        agent.modules.world_model.ending.bias.fill_(200.0)
        nodes = energy.root()
        for t in range(3):
            nodes, cost, go_on = energy.step(nodes, actions[:, :1, t])
            assert cost.isfinite().all() and not go_on.any()
        assert energy.leaf(nodes).isfinite().all()


@pytest.mark.parametrize("risk", [0.0, 0.7, -0.7])
@each_predictor
def test_energy_of_an_ensemble_is_mean_and_spread_over_its_members(
    predictor: PredictorName, members: int, risk: float
) -> None:
    """Against energies in worlds that each member foresees alone."""
    if members == 1:
        return
    together, energy, actions = foresee(False, predictor, members, risk)
    stacked, alone = together.modules.world_model.state_dict(), []
    for e in range(members):
        agent, own, _ = foresee(False, predictor, 1)
        names = {name: name.replace("predictor.member.", "predictor.") for name in stacked}
        weights = {short: stacked[name][e] if short != name else stacked[name] for name, short in names.items()}
        agent.modules.world_model.load_state_dict(weights)
        for name in ("perception", "critic"):
            agent.networks()[name].load_state_dict(together.networks()[name].state_dict())
        s = State(energy.s.latent)
        alone.append(Energy(agent.modules, s, own.configuration)(actions))
    each = torch.stack(alone).detach()
    mean = each.mean(0)
    spread = ((each - mean) ** 2).mean(0).sqrt()
    assert spread.min() > 1e-3
    assert torch.allclose(energy(actions), mean + risk * spread, atol=1e-4)


def test_risk_needs_an_ensemble_and_whole_sequences() -> None:
    _, energy, actions = foresee(False, "mlp", 1, risk=0.5)
    with pytest.raises(
        ValueError,
        match=r"risk is 0.5, and the world model is no ensemble and has no latent variable; set "
        r"world_model.members or world_model.codes",
    ):
        energy(actions)
    _, energy, _ = foresee(False, "mlp", 3, risk=0.5)
    with pytest.raises(
        ValueError, match=r"risk is 0.5, and a spread or a maximum of energies cannot be followed step by step"
    ):
        energy.root()
    config = settings(thinking=replace(THINKING, risk=0.5))
    with pytest.raises(ValueError, match=r"task.thinking.risk is 0.5, world_model.members 1 and world_model.codes 1"):
        check_settings(config)
    check_settings(replace(config, world_model=replace(config.world_model, members=2)))


def test_what_members_disagree_about_is_shunned_with_risk_and_taken_without() -> None:
    """Two courses of action: what the first leads to is uncertain and a little better on average (test U1)."""
    agent, energy, _ = foresee(False, "mlp", 3)
    safe, risky = 0.0, torch.tensor([-3.0, -0.5, 2.0])
    latent = torch.zeros(1, 2, 3, 2, 8)
    iota = torch.zeros(1, 2, 3, 1, len(INTEROCEPTION))
    iota[0, 0, :, 0, 0], iota[0, 1, :, 0, 0] = -risky, safe
    own = Trajectory(latent, iota, torch.zeros(1, 2, 3, 1))
    foreseen = Trajectory(latent.mean(2), iota.mean(2), torch.zeros(1, 2, 1), own)
    imagined = SimpleNamespace(rollout=lambda state, actions, goal, feel, chance: foreseen)
    m = replace(agent.modules, world_model=imagined)  # type: ignore[arg-type]
    chosen = []
    for risk in (0.0, 1.0):
        configuration = replace(energy.configuration, risk=risk)
        chosen.append(int(Energy(m, energy.s, configuration)(torch.zeros(1, 2, 1)).argmin()))
    assert chosen == [0, 1]


@each_predictor
def test_the_actor_proposes_along_what_the_world_model_foresees(predictor: PredictorName, members: int) -> None:
    agent, energy, _ = foresee(False, predictor, members)
    m, seen = agent.modules, []
    actor = m.actor

    def record(state: State, configuration: Any) -> Any:
        seen.append(state.latent)
        return actor(state, configuration)

    m = replace(m, actor=record)  # type: ignore[arg-type]
    with torch.no_grad():
        actions = propose(m, energy.s, replace(energy.configuration, proposals=5), torch.Generator().manual_seed(0))
        imagined = m.world_model.rollout(energy.s, actions).latent
    assert actions.shape == (ENVS, 5, 4)
    assert torch.allclose(torch.stack(seen, 2), imagined[:, :, :-1], atol=1e-5)


@pytest.mark.parametrize("proposals", [0, 2])
@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_thinks_with_the_agents_energy(name: str, proposals: int) -> None:
    """It finds less energy than the actor's own courses have, and pays for every call that it reports."""
    thinking = replace(THINKING, planner=name, proposals=proposals, hold=2)
    goals = name in {"cem", "icem", "mppi", "gradient"}
    agent = goal_agent(thinking)[0] if goals else make_agent(thinking)
    spy = spied(agent)
    x = {"observation": observations(), "desired_goal": observations(1)} if goals else observations()
    decision = agent.begin(ENVS, "mode-2").act(x, ALL, ALL)
    (plan,), m = spy.answered, agent.modules
    asked = agent.modules.world_model.calls
    assert decision.calls == asked == ENVS * (plan.calls + 4 * proposals)
    assert 0 < plan.calls <= 4 * 8 * 3 and (plan.calls > 70 or name == "beam")
    assert all(p.grad is None for network in agent.networks().values() for p in network.parameters())
    s, goal = (m.perception.encode(torch.from_numpy(observations(i))[:, None]) for i in (0, 1))
    configuration = m.configurator("mode-2", goal if goals else None)
    with torch.no_grad():
        energy = Energy(m, s, configuration)
        assert torch.allclose(energy(plan.actions.unsqueeze(1))[:, 0], plan.energy, atol=1e-5)
        own = energy(propose(m, s, replace(configuration, proposals=64), torch.Generator().manual_seed(1)))
    assert (plan.energy < own.mean(1)).all()


def test_a_decision_ends_with_its_time() -> None:
    agent = make_agent(replace(THINKING, iterations=50, milliseconds=1e-6, proposals=0))
    assert agent.begin(ENVS, "mode-2").act(observations(), ALL, ALL).calls == ENVS * 4 * 8
    agent = make_agent(replace(THINKING, milliseconds=60_000.0))
    assert agent.begin(ENVS, "mode-2").act(observations(), ALL, ALL).calls == ENVS * COST


def test_the_actors_proposals_take_part_in_the_search() -> None:
    agent = make_agent()
    spy = spied(agent)
    acting: Acting = agent.begin(ENVS, "mode-2")
    acting.act(observations(), ALL, ALL)
    proposed = spy.asked[0].actions
    assert proposed is not None and proposed.shape == (ENVS, 2, 4)
    m = agent.modules
    s = m.perception.encode(torch.from_numpy(observations())[:, None])
    with torch.no_grad():
        energies = Energy(m, s, m.configurator("mode-2"))(proposed)
    assert (spy.answered[0].energy <= energies.min(1).values + 1e-5).all()


def test_thinking_harder_never_ends_higher_for_the_same_draws() -> None:
    agent = make_agent(replace(THINKING, proposals=0))
    m = agent.modules
    s = m.perception.encode(torch.from_numpy(observations())[:, None])
    found = []
    for iterations in (1, 2, 4):
        configuration = replace(m.configurator("mode-2"), iterations=iterations)
        generator = torch.Generator().manual_seed(0)
        found.append(think(m, s, configuration, agent.planner, SEEK.action, None, generator).energy)
    assert (found[0] >= found[1] - 1e-5).all() and (found[1] >= found[2] - 1e-5).all()


@pytest.mark.parametrize("members", [1, 3])
def test_habit_is_the_actors_surprise_along_the_course(members: int) -> None:
    agent = wake(make_small(members=members, thinking=Thinking(horizon=3, candidates=8)))
    m, generator = agent.modules, torch.Generator().manual_seed(0)
    s = m.perception.encode(torch.randn(2, 1, 2, generator=generator))
    actions = torch.randint(3, (2, 5, 3), generator=generator)
    free = m.configurator("mode-2")
    told = replace(free, habit=0.5)
    with torch.no_grad():
        imagined = m.world_model.rollout(s, actions)
        expected = Energy(m, s, free)(actions)
        for course in range(5):
            alive, discount = torch.ones(2), 1.0
            for t in range(3):
                discount *= free.discount
                policy = m.actor(State(imagined.latent[:, course, t]), free)
                expected[:, course] -= 0.5 * discount * alive * policy.log_probability(actions[:, course, t])
                alive = alive * imagined.continuation[:, course, t]
        assert torch.allclose(Energy(m, s, told)(actions), expected, atol=1e-5)


def test_step_by_step_habit_costs_the_same() -> None:
    agent = wake(make_agent(thinking=Thinking(horizon=3, candidates=8)))
    m, generator = agent.modules, torch.Generator().manual_seed(0)
    s = m.perception.encode(torch.randn(2, 1, 2, generator=generator))
    actions = torch.randint(3, (2, 1, 3), generator=generator)
    energy = Energy(m, s, replace(m.configurator("mode-2"), habit=0.5))
    with torch.no_grad():
        nodes, total, alive, discount = energy.root(), torch.zeros(2, 1), torch.ones(2, 1), 1.0
        for t in range(3):
            nodes, cost, go = energy.step(nodes, actions[:, :, t])
            discount *= energy.discount
            total, alive = total + discount * alive * cost, alive * go
        assert torch.allclose(total + discount * alive * energy.leaf(nodes), energy(actions), atol=1e-5)


def test_with_all_habit_a_plan_is_what_mode_1_would_do() -> None:
    agent = wake(make_agent(thinking=Thinking(horizon=1, candidates=64, iterations=3)))
    m = agent.modules
    s = m.perception.encode(torch.randn(6, 1, 2, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        plans = {}
        for habit in (0.0, 1e4):
            told = replace(m.configurator("mode-2"), habit=habit)
            plan = think(m, s, told, agent.planner, SEEK.action, None, torch.Generator().manual_seed(0))
            plans[habit] = plan.actions[:, 0]
        usual = m.actor(s, m.configurator("mode-1")).mode()
    assert torch.equal(plans[1e4], usual) and not torch.equal(plans[0.0], usual)


def test_who_wanders_takes_up_to_so_many_random_steps_and_stops_before_an_ending() -> None:
    """In a world where every step adds one and the episode may end at 5."""

    def rollout(s: State, actions: Tensor, chance: object) -> Trajectory:
        steps = torch.arange(actions.shape[2] + 1)
        latent = s.latent[:, None, None] + steps[:, None]
        goes_on = torch.where(latent[:, :, 1:, 0] >= 5, 0.4, 0.99)
        return Trajectory(latent, torch.zeros(*goes_on.shape, len(INTEROCEPTION)), goes_on)

    agent = make_agent()
    world: Any = SimpleNamespace(rollout=rollout, chance=certain)
    modules = replace(agent.modules, world_model=world)
    start = torch.cat([torch.zeros(400), torch.full((400,), 3.0)]).unsqueeze(-1)
    reached = wander(modules, State(start), 3, agent.spaces.action, torch.Generator().manual_seed(0)).latent[:, 0]
    far, near = (part.long().bincount(minlength=7).tolist() for part in (reached[:400], reached[400:]))
    assert sum(far[:4]) == 400 and min(far[:4]) > 70
    assert near[3] + near[4] == 400 and near[3] < 140  # who would have gone on past 4 stays there
    none = wander(modules, State(start), 0, agent.spaces.action, torch.Generator())
    assert torch.equal(none.latent, start)


def test_wandering_draws_its_actions_from_the_whole_space() -> None:
    agent, taken = make_agent(), []
    rollout = agent.modules.world_model.rollout

    def spy(s: State, actions: Tensor, chance: object) -> Trajectory:
        taken.append(actions)
        return rollout(s, actions)

    modules = replace(agent.modules, world_model=SimpleNamespace(rollout=spy, chance=certain))  # type: ignore[arg-type]
    wander(modules, State(torch.zeros(100, agent.modules.perception.width)), 4, agent.spaces.action, agent.generator)
    assert taken[0].shape[:3] == (100, 1, 4)
    assert set(taken[0].flatten().tolist()) == set(range(3))
