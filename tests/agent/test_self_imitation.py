"""The actor imitates its own past where that came out better than the critic expected (1806.05635)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forethought.agent.learning import Learner
from forethought.agent.run import check_settings
from forethought.modules.memory import Window
from torch import Tensor

from .small import fingerprint, make_agent, make_window, settings, wake


def learner_of(remembered: float = 1.0) -> Learner:
    agent = wake(make_agent())
    behaviour = replace(agent.config.behaviour, imitation=0.0, remembered=remembered, learning_rate=1e-2)
    agent.config = replace(agent.config, behaviour=behaviour)
    return Learner(agent, 1)


def wanted(window: Window) -> Tensor:
    """Right where the first number is positive, else left, in ``x[0…T−1]`` ``[B, T]``."""
    return (window.observation[:, :-1, 0, 0] > 0).long() * 2


def lived(seed: int, shuffled: bool = False) -> Window:
    """Episodes of one random step that pay 1 for what is wanted; or for nothing, as often."""
    window = make_window(seed, batch=40)
    reward = (window.action == wanted(window)).float()
    if shuffled:
        reward = reward.flatten()[torch.randperm(reward.numel(), generator=torch.Generator().manual_seed(seed))]
    return replace(window, reward=reward.view_as(window.reward), terminated=torch.ones_like(window.reward))


def does_what_is_wanted(learner: Learner) -> float:
    m, window = learner.agent.modules, make_window(99, batch=200)
    action = m.actor(m.perception.encode(window.observation[:, :-1]), m.configurator("mode-1")).mode()
    return float((action == wanted(window)).float().mean())


@pytest.mark.parametrize("shuffled", [False, True], ids=["as it was", "rewards shuffled"])
def test_the_actor_comes_to_do_what_was_remembered_to_be_better(shuffled: bool) -> None:
    learner = learner_of()
    for seed in range(150):
        window = lived(seed, shuffled)
        learner.behaviour.critic_update(replace(window, planned=torch.zeros_like(window.planned)))
        learner.behaviour.actor_update(window)
    right = does_what_is_wanted(learner)
    assert right < 0.6 if shuffled else right > 0.9, right


def expecting(learner: Learner, cost: float) -> Learner:
    """A critic that expects so much pleasure's cost everywhere."""

    def critic(state: Any, configuration: Any) -> Tensor:
        return torch.full((*state.latent.shape[:-1], 1), cost)

    learner.agent.modules = replace(learner.agent.modules, critic=critic)  # type: ignore[arg-type]
    return learner


@pytest.mark.parametrize(("cost", "moves"), [(-2.0, False), (0.0, True)], ids=["worse", "better"])
def test_only_what_was_better_than_expected_is_imitated(cost: float, moves: bool) -> None:
    learner = expecting(learner_of(), cost)
    before = fingerprint(learner.agent.modules.actor)
    learner.behaviour.actor_update(replace(lived(0), reward=torch.ones(40, 4)))
    assert (fingerprint(learner.agent.modules.actor) != before) == moves


def test_where_time_ran_out_nothing_is_known_to_be_better() -> None:
    learner = expecting(learner_of(), 100.0)
    window = replace(lived(0), terminated=torch.zeros(40, 4), truncated=torch.ones(40, 4))
    before = fingerprint(learner.agent.modules.actor)
    learner.behaviour.actor_update(window)
    assert fingerprint(learner.agent.modules.actor) == before


def test_what_counts_is_what_came_in_the_end() -> None:
    """The first step of a walk whose reward comes at its end is imitated as much as γ² of it makes it better."""
    learner = expecting(learner_of(), 0.0)
    agent = learner.agent
    learner.behaviour.target_critic = SimpleNamespace(  # type: ignore[assignment]
        cost_to_go=lambda latent, goal=None: torch.zeros(*latent.shape[:-1], len(learner.behaviour.unit))
    )
    agent.config = replace(agent.config, critic=replace(agent.config.critic, trace=1.0))
    end = torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(40, 4)
    window = replace(make_window(0, batch=40), reward=end, terminated=end)
    policy = agent.modules.actor(
        agent.modules.perception.encode(window.observation[:, :-1]), agent.modules.configurator("mode-1")
    )
    gamma = agent.config.task.discount
    weights = torch.tensor([gamma**3, gamma**2, gamma, 0.0])
    expected = (weights * -policy.log_probability(window.action)).mean()
    [(_, weight, loss), *_] = learner.behaviour._self_imitation(window)
    assert weight == 1 and torch.allclose(loss, expected, rtol=1e-4)


def test_where_nothing_came_out_well_entropy_alone_speaks() -> None:
    """An actor that has begun to prefer an action comes back to chance, in what is remembered."""
    learner = expecting(learner_of(), -2.0)
    agent, window = learner.agent, lived(0)
    with torch.no_grad():
        agent.modules.actor.net[-1].bias.add_(torch.tensor([2.0, 0.0, 0.0]))
    agent.config = replace(agent.config, behaviour=replace(agent.config.behaviour, entropy=0.1))

    def entropy() -> float:
        state = agent.modules.perception.encode(window.observation[:, :-1])
        return float(agent.modules.actor(state, agent.modules.configurator("mode-1")).entropy().mean().detach())

    assert entropy() < 0.75
    for _ in range(100):
        learner.behaviour.actor_update(window)
    assert entropy() > 1.0, entropy()  # ln 3 = 1.10


def test_a_goal_task_cannot_have_it() -> None:
    config = settings()
    task, behaviour = replace(config.task, goals=True), replace(config.behaviour, remembered=0.5)
    with pytest.raises(ValueError, match=r"behaviour\.remembered is 0\.5 and task\.goals is set.*set it to 0"):
        check_settings(replace(config, task=task, behaviour=behaviour))
