"""The updates: which parameters each may move, what it learns towards, and what it must not look at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import behaviour
from forethought.agent.criterion import Metrics
from forethought.agent.descent import learning_rate_factor
from forethought.agent.learning import Learner
from forethought.agent.modes import Energy, think
from forethought.agent.run import check_settings
from forethought.modules.configurator import Configurator
from forethought.modules.cost import interoception
from forethought.modules.critic import Critic
from forethought.modules.memory import Window
from forethought.modules.types import DRIVES, Configuration, State, Trajectory
from torch import Tensor

from .small import certain, fingerprint, fingerprints, make_agent, make_window, tiny

# ---- who may change what (design.md's table, G1)

UPDATES: dict[str, tuple[Callable[[Learner, Window], Metrics], set[str]]] = {
    "world model": (Learner.world_model_update, {"perception", "world_model"}),
    "critic": (lambda learner, window: learner.behaviour.critic_update(window), {"critic"}),
    "actor": (lambda learner, window: learner.behaviour.actor_update(window), {"actor"}),
}


@pytest.mark.parametrize("goals", [False, True], ids=["reward", "goals"])
@pytest.mark.parametrize("name", UPDATES)
def test_an_update_moves_its_own_parameters_and_no_others(name: str, goals: bool) -> None:
    update, may_change = UPDATES[name]
    agent = make_agent(goals)
    learner = Learner(agent, 100)
    before, target = fingerprints(agent), fingerprint(learner.behaviour.target_critic)
    assert update(learner, make_window())
    changed = {module for module, digest in fingerprints(agent).items() if digest != before[module]}
    assert changed == may_change
    assert (fingerprint(learner.behaviour.target_critic) != target) == (name == "critic")
    leaked = {
        module
        for module, network in agent.networks().items()
        for parameter in network.parameters()
        if parameter.grad is not None
    }
    assert leaked == may_change  # no gradient waits in a module for the next step of another optimiser
    assert all(parameter.grad is None for parameter in learner.behaviour.target_critic.parameters())
    assert not any(network.training for network in agent.networks().values())


def test_each_optimiser_holds_its_own_parameters_and_all_of_them() -> None:
    agent = make_agent()
    learner = Learner(agent, 1)
    m = agent.modules
    owners = {
        learner.model_optimiser: [*m.perception.parameters(), *m.world_model.parameters()],
        learner.behaviour.critic_optimiser: [*m.critic.parameters()],
        learner.behaviour.actor_optimiser: [*m.actor.parameters()],
    }
    for optimiser, expected in owners.items():
        held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        assert list(map(id, held)) == list(map(id, expected))


def test_the_intrinsic_cost_has_nothing_to_move() -> None:
    cost = make_agent().modules.intrinsic_cost
    assert not isinstance(cost, torch.nn.Module) and not hasattr(cost, "__dict__")
    with pytest.raises((AttributeError, TypeError)):
        cost.weight = torch.ones(1)  # type: ignore[attr-defined]


def test_the_world_model_update_reaches_every_part_of_perception_and_world_model() -> None:
    agent = make_agent()
    config = replace(agent.config, model_loss=replace(agent.config.model_loss, inverse=0.3))
    agent.config = config
    before = {
        name: tensor.clone() for network in agent.networks().values() for name, tensor in network.named_parameters()
    }
    Learner(agent, 100).world_model_update(make_window())
    for network in (agent.modules.perception, agent.modules.world_model):
        for name, parameter in network.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_the_target_critic_follows_slowly() -> None:
    agent = make_agent()
    learner = Learner(agent, 100)
    old = deepcopy(learner.behaviour.target_critic)
    learner.behaviour.critic_update(make_window())
    rate = agent.config.critic.target_rate
    rows = zip(
        old.parameters(), learner.behaviour.target_critic.parameters(), agent.modules.critic.parameters(), strict=True
    )
    for before, after, critic in rows:
        assert torch.allclose(after, before + rate * (critic - before), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", ["world model", "critic", "actor"])
def test_an_update_on_broken_numbers_raises_and_leaves_the_weights_whole(name: str) -> None:
    agent = make_agent()
    learner = Learner(agent, 100)
    window = make_window()
    broken = replace(window, observation=window.observation * torch.nan)
    before = {name: [p.clone() for p in network.parameters()] for name, network in agent.networks().items()}
    with pytest.raises(FloatingPointError, match=r"loss is nan|energies are not finite|targets are NaN"):
        UPDATES[name][0](learner, broken)
    for module, network in agent.networks().items():
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before[module], strict=True))


# ---- the critic learns what the planner's energy means


def test_with_a_perfect_critic_the_energy_is_the_same_for_every_horizon() -> None:
    """A chain x' = 0.8 x + 0.1 that goes on with chance 0.9: F over T steps + TC(s[T]) does not depend on T."""
    discount, go, ending = 0.9, 0.9, 2.0

    def cost(x: Tensor) -> Tensor:
        return -(x**2) + ending * (1 - go)

    class Chain:
        chance = staticmethod(certain)

        def rollout(
            self, state: State, actions: Tensor, goal: Tensor | None = None, feel: object = (), chance: object = None
        ) -> Trajectory:
            latents = [state.latent[:, None].expand(-1, actions.shape[1], -1)]
            for _ in range(actions.shape[2]):
                latents.append(0.8 * latents[-1] + 0.1)
            latent = torch.stack(latents, 2)
            x = latent[:, :, 1:, 0]
            iota = interoception(x**2, torch.full_like(x, 1 - go), 0 * x)
            return Trajectory(latent, iota, torch.full_like(x, go))

    def critic(state: State, configuration: Any) -> Tensor:
        x, total = state.latent[..., 0], torch.zeros(())
        for k in range(300):
            x = 0.8 * x + 0.1
            total = total + discount ** (k + 1) * go**k * cost(x)
        return torch.stack([total, *[0 * total] * (len(DRIVES) - 1)], -1)

    agent = make_agent(ending=ending, discount=discount)
    m: Any = replace(agent.modules, world_model=Chain(), critic=critic)  # type: ignore[arg-type]
    s = State(torch.tensor([[2.0], [-1.0], [0.3]], dtype=torch.float64))
    configuration = m.configurator("mode-2")
    energies = [
        Energy(m, s, configuration)(torch.zeros(3, 2, horizon, dtype=torch.int64)) for horizon in (1, 2, 3, 7, 20)
    ]
    for other in energies[1:]:
        assert torch.allclose(energies[0], other, atol=1e-6)
    assert torch.allclose(energies[0][:, 0], critic(s, None).sum(-1), atol=1e-6)


LENGTH, GAMMA = 5, 0.9


def chain_value(position: int) -> Tensor:
    """TC of a chain 0, 1 … 5 that pays k on entering k and ends on entering 5: pleasure, ending, effort, goal."""
    pleasure = -sum(GAMMA ** (k - position) * k for k in range(position + 1, LENGTH + 1))
    return torch.tensor([pleasure, GAMMA ** (LENGTH - position), *[0.0] * (len(DRIVES) - 2)])


VALUES = torch.stack([chain_value(position) for position in range(LENGTH)])
PERFECT: Any = SimpleNamespace(cost_to_go=lambda latent, goal=None: VALUES[latent[..., 0].long()])


def chain_learner(trace: float) -> Learner:
    agent = make_agent(discount=GAMMA)
    agent.config = replace(agent.config, critic=replace(agent.config.critic, trace=trace))
    learner = Learner(agent, 1)
    learner.behaviour.target_critic = PERFECT
    return learner


@pytest.mark.parametrize("trace", [0.0, 0.5, 0.95, 1.0])
def test_returns_of_remembered_chains_are_what_a_perfect_critic_says(trace: float) -> None:
    """A stream with two endings by the world and one by a time limit (3 → 0)."""
    positions = torch.tensor([2, 3, 4, 0, 1, 2, 3, 0, 1])
    ends, cut = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0.0]), torch.tensor([0, 0, 0, 0, 0, 0, 1, 0.0])
    window = replace(
        make_window(batch=1, steps=8), reward=(positions[:-1] + 1.0)[None], terminated=ends[None], truncated=cut[None]
    )
    target, mask = chain_learner(trace).behaviour._real_returns(positions[None, :, None].float(), window)
    assert mask[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 1]
    assert torch.allclose(target[0][mask[0] > 0], VALUES[positions[:-1]][mask[0] > 0], atol=1e-5)


@pytest.mark.parametrize("trace", [0.0, 0.95, 1.0])
def test_returns_of_imagined_chains_are_what_a_perfect_critic_says(trace: float) -> None:
    learner = chain_learner(trace)
    asked: list[Tensor] = []

    class Chain:
        chance = staticmethod(certain)

        def rollout(self, state: State, actions: Tensor, chance: object = None) -> Trajectory:
            asked.append(actions)
            position = state.latent[:, None]
            latents = [position]
            for _ in range(actions.shape[2]):
                latents.append((latents[-1] + 1) % LENGTH)
            latent = torch.stack(latents, 2)
            entered = latent[:, :, :-1, 0] + 1
            ended = (entered == LENGTH).float()
            iota = interoception(entered, ended, 0 * ended)
            return Trajectory(latent, iota, 1 - ended)

    agent = learner.agent
    agent.modules = replace(agent.modules, world_model=Chain())  # type: ignore[arg-type]
    window = make_window(batch=3)
    window = replace(window, planned=torch.tensor([1.0, 0.0, 1.0])[:, None].expand(-1, 5))
    latent, target, mask = learner.behaviour._along_plans(torch.tensor([[0.0], [2.0], [3.0]]), window)
    assert torch.equal(asked[0][:, 0], window.course)
    assert latent[:, :, 0].tolist() == [[0, 1, 2, 3], [2, 3, 4, 0], [3, 4, 0, 1]]
    assert torch.allclose(target, VALUES[latent[..., 0].long()], atol=1e-5)
    assert mask.tolist() == [[1.0] * 4, [0.0] * 4, [1.0] * 4]


def test_the_critic_learns_the_chain_by_its_own_updates() -> None:
    """End to end: remembered transitions only, cost-to-go in the planner's convention."""
    agent = make_agent(discount=0.8)
    learner = Learner(agent, 1)
    positions = torch.arange(LENGTH).repeat(3)[:13]
    window = make_window(batch=1, steps=12)
    window = replace(
        window,
        observation=positions[None, :, None, None].expand(-1, -1, -1, 2) / 2.0 - 1,
        reward=(positions[:-1] + 1.0)[None] / LENGTH,
        terminated=(positions[:-1] == LENGTH - 1).float()[None],
        planned=torch.zeros_like(window.planned),
    )
    for _ in range(400):
        learner.behaviour.critic_update(window)
    with torch.no_grad():
        latent = agent.modules.perception(window.observation[0, :LENGTH])
        given = agent.modules.critic.cost_to_go(latent)
    truth = [-sum(0.8 ** (k - p) * k / LENGTH for k in range(p + 1, LENGTH + 1)) for p in range(LENGTH)]
    assert torch.allclose(given[:, 0], torch.tensor(truth), atol=0.15)
    assert torch.allclose(given[:, 1], 0.8 ** (LENGTH - torch.arange(LENGTH)), atol=0.15)


def test_the_goal_critic_learns_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on pairs of remembered states, it finds a state nearer to itself than to another one."""
    monkeypatch.setattr(
        "forethought.modules.cost.GOAL_SCALE", 10.0
    )  # latents of an untrained encoder are all far apart
    agent = make_agent(goals=True)
    learner = Learner(agent, 1)
    losses = [learner.behaviour.critic_update(make_window(seed % 4))["critic"] for seed in range(500)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    m = agent.modules
    draws = torch.Generator().manual_seed(9)
    s = m.perception.encode(torch.randn(64, 1, 2, generator=draws))
    far = m.perception.encode(torch.randn(64, 1, 2, generator=draws))
    with torch.no_grad():
        here = m.critic(s, m.configurator("mode-2", s)).sum(-1)
        there = m.critic(s, m.configurator("mode-2", far)).sum(-1)
    assert here.mean() < there.mean()


def test_the_goal_critic_learns_what_is_expected_and_not_what_is_feared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The risk of a plan is weighed once, when acting, and not again in every step that the critic looks ahead."""
    agent = make_agent(goals=True, members=2)
    task = agent.config.task
    configurator = Configurator(replace(task, thinking=replace(task.thinking, risk=0.5)))
    agent.modules = replace(agent.modules, configurator=configurator)
    asked: list[float] = []

    def record(m: Any, s: State, configuration: Configuration, *rest: Any) -> Any:
        asked.append(configuration.risk)
        return think(m, s, configuration, *rest)

    monkeypatch.setattr(behaviour, "think", record)
    learner = Learner(agent, 1)
    learner.behaviour.critic_update(make_window())
    assert asked == []
    learner.behaviour.actor_update(make_window())
    assert asked == [0.5]


# ---- the actor imitates plans


def test_the_actor_takes_each_plan_for_the_state_it_was_made_in() -> None:
    agent = make_agent()
    agent.config = replace(agent.config, schedule=replace(agent.config.schedule, reanalyse=0))
    learner = Learner(agent, 1)
    window = make_window(batch=60)
    best = (window.observation[..., 0, 0] > 0).long() * 2  # right where x is positive, else left
    planned = (torch.rand(window.planned.shape, generator=torch.Generator().manual_seed(1)) < 0.7).float()
    target = torch.nn.functional.one_hot(best, 3).float() * planned[..., None]
    for _ in range(150):
        metrics = learner.behaviour.actor_update(replace(window, plan=target, planned=planned))
    assert metrics["imitation"] < 0.1
    m = agent.modules
    given = m.actor(m.perception.encode(window.observation), m.configurator("mode-1")).mode()
    assert (given == best)[planned > 0].float().mean() > 0.97


def test_without_a_plan_there_is_nothing_to_imitate() -> None:
    agent = make_agent()
    agent.config = replace(agent.config, schedule=replace(agent.config.schedule, reanalyse=0))
    before = fingerprints(agent)
    window = make_window()
    assert Learner(agent, 1).behaviour.actor_update(replace(window, planned=torch.zeros_like(window.planned))) == {}
    assert fingerprints(agent) == before


# ---- how fast the world model learns, and what


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [learning_rate_factor(done, 200) for done in range(201)]
    peak = int(np.argmax(rates))
    assert 2 <= peak <= 8 and rates[0] < 0.5 and max(rates) > 0.97
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[200] == pytest.approx(0.1, abs=1e-6) and learning_rate_factor(300, 200) == pytest.approx(0.1, abs=1e-6)


def test_both_stages_of_the_world_model_follow_the_learning_rate() -> None:
    learner = Learner(make_agent(), 20)
    window = make_window()
    with torch.no_grad():
        rested = replace(window, latent=learner.agent.modules.perception(window.observation))
    peak = learner.agent.config.model_loss.learning_rate
    learner.done = 7
    learner.world_model_update(window)
    assert learner.model_optimiser.param_groups[0]["lr"] == pytest.approx(peak * learning_rate_factor(7, 20))
    learner.predictor_update(rested, 30, 40)
    assert learner.model_optimiser.param_groups[0]["lr"] == pytest.approx(peak * learning_rate_factor(30, 40))
    assert learner.done == 8


def test_with_perception_at_rest_the_predictor_learns_alone_from_the_latents() -> None:
    agent = make_agent()
    learner, window = Learner(agent, 1), make_window(batch=30)
    with torch.no_grad():
        latent = agent.modules.perception(window.observation)
    rested = replace(window, latent=latent, observation=torch.empty(*latent.shape[:2], 0))
    before = fingerprints(agent)
    losses = [learner.predictor_update(rested, done, 60)["prediction"] for done in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert {name for name, digest in fingerprints(agent).items() if digest != before[name]} == {"world_model"}


def test_kept_latents_serve_every_update_as_perception_does() -> None:
    """Critic, dream and actor see the same from kept latents as from percepts."""
    one, two = (Learner(make_agent(), 1) for _ in range(2))
    for learner in (one, two):
        learner.agent.config = replace(
            learner.agent.config, behaviour=replace(learner.agent.config.behaviour, improvement=1.0)
        )
    window = make_window()
    with torch.no_grad():
        latent = two.agent.modules.perception(window.observation)
    rested = replace(window, latent=latent, observation=torch.empty(*latent.shape[:2], 0))
    for learner, seen in ((one, window), (two, rested)):
        dream = learner.behaviour.dream(seen)
        learner.behaviour.critic_update(seen, dream)
        learner.behaviour.actor_update(seen, dream)
    assert fingerprints(one.agent) == fingerprints(two.agent)


def test_prediction_can_wait_until_actions_are_visible() -> None:
    agent = make_agent()
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, prediction_delay=10))
    learner = Learner(agent, 200)
    weights = []
    for done in (0, 10, 15, 20, 50):
        learner.done = done
        weights.append(learner._prediction_weight())
    assert weights == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("returns", [0.0, 0.5])
def test_a_learner_goes_on_with_its_own_draws(returns: float) -> None:
    """Saved after some updates and put into a fresh one, it makes the same next update, dream and all."""
    agents = [make_agent(), make_agent()]
    for agent in agents:
        agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, returns=returns))
    learners = [Learner(agent, 4) for agent in agents]
    window = make_window()
    window = replace(window, returns=torch.rand(*window.planned.shape, 3))
    for learner in learners:
        learner.world_model_update(window)
        learner.behaviour.actor_update(window, learner.behaviour.dream(window))
    learners[1].behaviour.dream(window)  # draws of its own
    fresh = Learner(agents[1], 4)
    fresh.restore(learners[0].state())
    for learner in (learners[0], fresh):
        learner.world_model_update(window)
        learner.behaviour.actor_update(window, learner.behaviour.dream(window))
    assert fingerprints(agents[0]) == fingerprints(agents[1])
    for name, network in learners[0].networks().items():
        assert fingerprint(network) == fingerprint(fresh.networks()[name]), name
    assert ("returns" in fresh.networks()) == (returns > 0)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("critic", {"bins": 40}, "critic.bins is 40, expected an odd number from 3"),
        ("world_model", {"bins": 1}, "world_model.bins is 1, expected an odd number from 3"),
        ("critic", {"limit": 0.0}, "critic.limit is 0.0, expected a number above 0"),
        ("world_model", {"limit": math.nan}, "world_model.limit is nan, expected a number above 0"),
        ("critic", {"limit": 41.0}, "critic.limit is 41.0, expected a number above 0 and up to 40"),
    ],
)
def test_bins_that_can_tell_nothing_are_refused(part: str, change: dict[str, float], message: str) -> None:
    config: Any = tiny()
    with pytest.raises(ValueError, match=message):
        check_settings(replace(config, **{part: replace(getattr(config, part), **change)}))


@pytest.mark.parametrize(("limit", "told"), [(5.0, 147.0), (10.0, 400.0)])
def test_a_critic_tells_costs_up_to_its_limit(limit: float, told: float) -> None:
    """A cost to go of 400 is 147 to bins that end there."""
    agent = make_agent()
    critic = Critic(replace(agent.config.critic, bins=81, limit=limit), agent.modules.perception.width)
    latent = torch.zeros(1, agent.modules.perception.width)
    optimiser = torch.optim.Adam(critic.parameters(), 0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            loss = critic.two_hot.loss(critic.logits(latent), torch.full((1, critic.heads), 400.0)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert float(critic.cost_to_go(latent)[0, 0].detach()) == pytest.approx(told, rel=0.02)
