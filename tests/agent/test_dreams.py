"""The actor's roll-outs in imagination: what critic and actor learn from them, in little worlds with known answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.behaviour import Dream
from forethought.agent.learning import Learner
from forethought.modules.actions import ActionEncoder
from forethought.modules.cost import interoception
from forethought.modules.memory import Window
from forethought.modules.types import State
from gymnasium import spaces
from torch import Tensor

from .small import SEEK, certain, fingerprints, settings, wake
from .test_learning import make_window

BOX = spaces.Box(np.float32([-2.0]), np.float32([1.0]))
BOXED = replace(SEEK, action=BOX, goals=True)


class World:
    """Latents stay where they are; each transition pays `pays` and goes on with the chance `goes_on`."""

    def __init__(self, actions: Any, pays: Any, goes_on: Any = None, moves: Any = None) -> None:
        self.actions, self.pays, self.goes_on, self.moves = ActionEncoder(actions), pays, goes_on, moves

    chance = staticmethod(certain)

    def begin(self, latent: Tensor) -> tuple[Tensor]:
        return (latent,)

    def advance(
        self,
        carry: tuple[Tensor],
        action: Tensor,
        goal: Tensor | None = None,
        feel: object = (),
        chance: object = None,
    ) -> tuple[tuple[Tensor], State]:
        x = carry[0]
        reward = self.pays(x, action)
        go = torch.ones_like(reward) if self.goes_on is None else self.goes_on(x)
        distance = torch.zeros_like(reward) if goal is None else (x - goal).square().mean(-1)
        after = x if self.moves is None else self.moves(x, action)
        iota = interoception(reward, 1 - go, 0 * reward, distance)
        return (after,), State(after.unsqueeze(-2), iota.unsqueeze(-2), go.unsqueeze(-1))


def dreamer(world: World, goals: bool = False, **behaviour: Any) -> Learner:
    config = settings()
    chosen = {"improvement": 1.0, "imitation": 0.0, "imagination": 3, "learning_rate": 1e-2, "dream_entropy": 0.0}
    config = replace(
        config,
        task=replace(config.task, goals=goals),
        behaviour=replace(config.behaviour, **(chosen | behaviour)),
        world_model=replace(config.world_model, events=not goals),
    )
    space: Any = spaces.Discrete(3) if world.actions.discrete else BOX
    learner = Learner(wake(Agent(config, replace(SEEK, action=space, goals=goals))), 1)
    learner.agent.modules = replace(learner.agent.modules, world_model=world)  # type: ignore[arg-type]
    return learner


def window_of(learner: Learner, seed: int, batch: int = 20) -> Window:
    window = make_window(seed % 5, batch)
    discrete = learner.agent.modules.world_model.actions.discrete
    return window if discrete else replace(window, action=window.action[..., None].float() - 1.5)


def learn(learner: Learner, updates: int) -> None:
    for seed in range(updates):
        window = window_of(learner, seed)
        dream = learner.behaviour.dream(window)
        assert dream is not None
        learner.behaviour.critic_update(replace(window, planned=torch.zeros_like(window.planned)), dream)
        learner.behaviour.actor_update(window, dream)


def states(learner: Learner) -> State:
    """Perceived states that no update has seen."""
    with torch.no_grad():
        return learner.agent.modules.perception.encode(make_window(9, batch=200).observation[:, 0])


def test_a_discrete_actor_comes_to_do_what_costs_least() -> None:
    wanted = lambda x: (x[..., 0] > 0).long() * 2  # noqa: E731
    learner = dreamer(World(spaces.Discrete(3), lambda x, action: (action == wanted(x)).float()))
    learn(learner, 150)
    m, s = learner.agent.modules, states(learner)
    assert (m.actor(s, m.configurator("mode-1")).mode() == wanted(s.latent)).float().mean() > 0.9


def test_a_box_actor_follows_the_gradient_to_what_costs_least() -> None:
    wanted = lambda x: 0.5 * x[..., :1].tanh() - 0.5  # noqa: E731
    learner = dreamer(World(BOX, lambda x, action: -(action - wanted(x)).square().sum(-1)))
    learn(learner, 200)
    m, s = learner.agent.modules, states(learner)
    assert (m.actor(s, m.configurator("mode-1")).mode() - wanted(s.latent)).abs().mean() < 0.1


def test_what_comes_after_the_end_teaches_nothing() -> None:
    """Everything ends in the first step; only the second would have paid for the last action."""
    learner = dreamer(
        World(
            spaces.Discrete(3),
            pays=lambda x, action: (action == 2).float() * (x[..., 0] > 50).float(),
            goes_on=lambda x: 0 * x[..., 0],
            moves=lambda x, action: x + 100,
        )
    )
    m = learner.agent.modules
    before = m.actor(State(states(learner).latent + 100), m.configurator("mode-1")).probabilities()[:, 2].mean()
    learn(learner, 60)
    after = m.actor(State(states(learner).latent + 100), m.configurator("mode-1")).probabilities()[:, 2].mean()
    assert after < before + 0.2
    dream = learner.behaviour.dream(make_window())
    assert dream is not None and dream.alive[0].tolist() == [1, 0, 0]


def test_a_goal_actor_walks_to_its_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    def moves(x: Tensor, action: Tensor) -> Tensor:
        return torch.cat([x[..., :1] + action, x[..., 1:]], dim=-1)

    monkeypatch.setattr("forethought.modules.cost.GOAL_SCALE", 10.0)  # untrained latents are all far apart
    learner = dreamer(World(BOX, lambda x, action: 0 * x[..., 0], moves=moves), goals=True, imagination=2)
    m = learner.agent.modules
    with torch.no_grad():
        for parameter in m.critic.parameters():
            parameter.zero_()
    for seed in range(250):
        window = window_of(learner, seed)
        learner.behaviour.actor_update(window, learner.behaviour.dream(window))
    here = states(learner)
    offset = torch.linspace(-1.5, 0.8, 200)
    there = torch.cat([here.latent[:, :1] + offset[:, None], here.latent[:, 1:]], dim=-1)
    action = m.actor(here, m.configurator("mode-1", State(there))).mode()[:, 0]
    assert torch.corrcoef(torch.stack([action, offset]))[0, 1] > 0.8


def test_the_critic_learns_from_the_dream_and_not_from_plans_beside_it() -> None:
    """Each imagined step pays 1, so the cost-to-go of pleasure is −γ/(1 − γ) = −9 everywhere."""
    learner = dreamer(World(spaces.Discrete(3), lambda x, action: torch.ones_like(x[..., 0])), real=0.0)
    learn(learner, 400)
    value = learner.agent.modules.critic.cost_to_go(states(learner).latent)[:, 0]
    assert value.mean().item() == pytest.approx(-9, abs=1.0)


def test_returns_are_those_of_the_dream() -> None:
    learner = dreamer(World(spaces.Discrete(3), lambda x, action: action.float()), imagination=4)
    dream: Dream | None = learner.behaviour.dream(make_window(batch=3))
    assert dream is not None and dream.action.shape == (12, 1, 4) and dream.latent.shape == (12, 4, 8)
    last = learner.behaviour.target_critic.cost_to_go(dream.latent[:, -1])[:, 0] / 0.9
    trace, expected = learner.agent.config.critic.trace, []
    for t in reversed(range(4)):  # latents never move here, so V is the same all along
        value = learner.behaviour.target_critic.cost_to_go(dream.latent[:, t])[:, 0] / 0.9
        last = -dream.action[:, 0, t].float() + 0.9 * ((1 - trace) * value + trace * last)
        expected.insert(0, 0.9 * last)
    assert torch.allclose(dream.target[..., 0], torch.stack(expected, 1), atol=1e-5)


@pytest.mark.parametrize("goals", [False, True])
@pytest.mark.parametrize("space", [spaces.Discrete(3), BOX], ids=["discrete", "box"])
def test_improving_in_a_dream_moves_the_actor_alone(space: Any, goals: bool) -> None:
    config = settings()
    config = replace(
        config,
        task=replace(config.task, goals=goals),
        behaviour=replace(config.behaviour, improvement=1.0, imitation=0.0),
    )
    agent = wake(Agent(config, replace(SEEK, action=space, goals=goals)))
    learner = Learner(agent, 1)
    window, before = make_window(), fingerprints(agent)
    dream = learner.behaviour.dream(window)
    assert dream is not None and fingerprints(agent) == before
    learner.behaviour.actor_update(window, dream)
    changed = {name for name, digest in fingerprints(agent).items() if digest != before[name]}
    assert changed == {"actor"}
    leaked = {n for n, network in agent.networks().items() if any(p.grad is not None for p in network.parameters())}
    assert leaked == {"actor"}


def test_no_dream_is_dreamt_where_none_is_wanted() -> None:
    learner = dreamer(World(spaces.Discrete(3), lambda x, action: x[..., 0]), improvement=0.0)
    assert learner.behaviour.dream(make_window()) is None


def test_in_a_goal_task_the_critic_takes_the_actors_dream_for_one_of_its_courses() -> None:
    learner = dreamer(World(BOX, lambda x, action: 0 * x[..., 0]), goals=True)
    learner.agent.modules = replace(
        learner.agent.modules, world_model=Agent(learner.agent.config, BOXED).modules.world_model
    )
    window = window_of(learner, 0)
    dream = learner.behaviour.dream(window)
    assert dream is not None
    free = replace(dream, energy=torch.full_like(dream.energy, -3.0))
    assert learner.behaviour.critic_update(window, free)["cost_to_go"] == pytest.approx(-3.0)
    dear = replace(dream, energy=torch.full_like(dream.energy, 1e3))
    assert learner.behaviour.critic_update(window, dear)["cost_to_go"] < 100
