"""An actor that is told the drive weights: one policy for tasks that it was not given while it learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import RunConfig
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.interaction import interact
from forethought.agent.learning import Learner
from forethought.agent.run import check_settings
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.modules.configurator import Configurator
from forethought.modules.types import DRIVES, State, drive_weights
from forethought.modules.world_model import WorldModelConfig

from .point import point_settings
from .small import SEEK, settings, wake
from .test_drives import FORAGER, forager

EPISODES = 40


def wanting(config: RunConfig, **behaviour: Any) -> RunConfig:
    chosen = {"weights": "any", "imitation": 0.0, "improvement": 1.0, "imagination": 6} | behaviour
    return replace(config, actor=replace(config.actor, weights=True), behaviour=replace(config.behaviour, **chosen))


def told(agent: Agent, **weights: float) -> Agent:
    """The same networks for another task."""
    nothing = {"pleasure": 0.0, "ending": 0.0, "effort": 0.0}
    task = replace(agent.config.task, **(nothing | weights))
    other = Agent(replace(agent.config, task=task), agent.spaces)
    for name, network in agent.networks().items():
        other.networks()[name].load_state_dict(network.state_dict())
    return other


def played(agent: Agent) -> tuple[Result, float]:
    """Mode-1 in `Point`, and the mean effort of its actions."""
    env = build_env(agent.config.env, EPISODES, seed=70, held_out=True)
    result = evaluate("mode-1", env, agent.begin(EPISODES, "mode-1"), seed=70)
    step = next(interact(env, agent.begin(EPISODES, "mode-1"), seed=70))
    env.close()
    return result, float(np.square(step.action).sum(-1).mean())


@pytest.fixture(scope="module")
def universal(point_trainer: Trainer) -> Agent:
    """An actor that dreamt of tasks of all kinds, on the world model of another life."""
    agent = Agent(
        wanting(replace(point_settings(), task=replace(point_settings().task, pleasure=0.0))),
        point_trainer.agent.spaces,
    )
    for name in ("perception", "world_model", "critic"):
        agent.networks()[name].load_state_dict(point_trainer.agent.networks()[name].state_dict())
    learner, draws = Learner(agent, 1), np.random.default_rng(0)
    for _ in range(300):
        window = point_trainer.memory.sample(24, 4, draws)
        dream = learner.behaviour.dream(window)
        learner.behaviour.critic_update(window, dream)
        learner.behaviour.actor_update(window, dream)
    return agent


def test_one_actor_serves_tasks_that_it_was_not_given(universal: Agent) -> None:
    arriving, spared = played(told(universal, pleasure=1.0)), played(told(universal, effort=1.0))
    staying = played(told(universal, ending=1.0))
    assert arriving[0].returns.mean() > 0.6
    assert spared[1] < 0.1 and arriving[1] > 0.3
    assert spared[0].returns.mean() < 0.5
    lengths = [np.mean([episode.decisions for episode in row.episodes]) for row in (arriving[0], staying[0])]
    assert lengths[1] > 2 * lengths[0]


def test_without_what_it_is_told_it_does_the_same_whatever_the_task(universal: Agent) -> None:
    rows = []
    for weights in ({"pleasure": 1.0}, {"effort": 1.0}):
        deaf = told(universal, **weights)
        assert deaf.modules.actor.modulation is not None
        with torch.no_grad():
            for parameter in deaf.modules.actor.modulation.parameters():
                parameter.zero_()
        rows.append(played(deaf))
    assert rows[0][1] == rows[1][1] and np.array_equal(rows[0][0].returns, rows[1][0].returns)


def test_weights_count_by_their_shares_and_not_below_the_floors(universal: Agent) -> None:
    state = State(torch.randn(6, universal.modules.perception.width, generator=torch.Generator().manual_seed(0)))

    def mean(**weights: float) -> torch.Tensor:
        configuration = Configurator(universal.config.task)("mode-1")
        u = drive_weights(**weights)
        with torch.no_grad():
            return universal.modules.actor(state, replace(configuration, u=u, v=u)).mode()

    assert torch.equal(mean(pleasure=1.0, effort=1.0), mean(pleasure=3.0, effort=3.0))
    assert not torch.allclose(mean(pleasure=1.0, effort=1.0), mean(pleasure=3.0, effort=1.0))
    assert torch.equal(mean(pleasure=1.0, ending=-2.0), mean(pleasure=1.0))
    assert mean().isfinite().all()


def test_an_actor_that_is_told_begins_as_one_that_is_not() -> None:
    plain, hearing = Agent(settings(), SEEK), Agent(wanting(settings()), SEEK)
    state, configuration = State(torch.randn(5, 8)), plain.modules.configurator("mode-1")
    plain.modules.actor.net.load_state_dict(wake(plain).modules.actor.net.state_dict())
    hearing.modules.actor.net.load_state_dict(plain.modules.actor.net.state_dict())
    both = [agent.modules.actor(state, configuration).probabilities() for agent in (plain, hearing)]  # type: ignore[union-attr]
    assert torch.equal(*both)


def test_weights_are_drawn_over_what_the_world_serves() -> None:
    for agent, served in (
        (Agent(wanting(forager()), FORAGER), {"pleasure", "ending", "effort", "hunger", "hazard"}),
        (Agent(wanting(settings()), SEEK), {"pleasure", "ending"}),  # choosing takes no effort
    ):
        learner, again = Learner(agent, 1), Learner(agent, 1)
        drawn = torch.stack([learner.behaviour.any_weights() for _ in range(300)])
        assert torch.equal(drawn[:3], torch.stack([again.behaviour.any_weights() for _ in range(3)]))
        assert torch.allclose(drawn.sum(-1), torch.ones(300)) and (drawn >= 0).all()
        reached = {name for name, most in zip(DRIVES, drawn.amax(0).tolist(), strict=True) if most > 0}
        assert reached == served
        alone = {DRIVES[int(row.argmax())] for row in drawn if row.max() == 1}
        assert alone == served  # each is sometimes all that counts


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"imitation": 1.0}, "imitation 1.0"),
        ({"improvement": 0.0}, "improvement 0.0"),
        ({}, "actor.weights False"),
    ],
)
def test_dreams_of_any_weights_are_refused_where_they_teach_nothing(changes: dict[str, float], given: str) -> None:
    config = wanting(settings(), **changes)
    if not changes:
        config = replace(config, actor=replace(config.actor, weights=False))
    with pytest.raises(ValueError, match=f"behaviour.weights any needs .*; given: .*{given}"):
        check_settings(config)
    goals = replace(wanting(settings()), world_model=WorldModelConfig(events=False))
    with pytest.raises(ValueError, match=r"task\.goals True"):
        check_settings(replace(goals, task=replace(goals.task, goals=True)))
    check_settings(wanting(settings()))
