"""Learning while acting: controls are inverted in the middle of a run, and the prediction error falls again."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.interaction import interact
from forethought.agent.online import OnlineActing, OnlineLearning, one_step_error
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.envs.inverted import Inverted
from forethought.envs.make import make_env
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from .small import fingerprints, make_agent, wake

ENVS, BEFORE, AFTER, WITHIN = 8, 40, 110, 80
"""Environments; steps before the controls are inverted and after; steps within which the error has to fall."""


@pytest.fixture(scope="module")
def agent(point_trainer: Trainer) -> Agent:
    return point_trainer.agent


def errors(agent: Agent, learning: OnlineLearning, after: int = BEFORE) -> NDArray[np.float64]:
    """One-step error of every step of a run whose controls are inverted after so many."""
    env = Inverted(build_env(agent.config.env, ENVS, seed=7, held_out=True), after)
    agent.generator.manual_seed(3)
    acting = OnlineActing(agent, ENVS, learning, sample=True)
    for _ in islice(interact(env, acting, seed=7), BEFORE + AFTER + 1):
        pass
    env.close()
    found = np.array(acting.errors)
    assert np.isfinite(found).all()
    return found


def test_after_inverted_controls_the_error_rises_and_falls_with_learning_alone(agent: Agent) -> None:
    learned, still = (errors(agent, OnlineLearning(rate)) for rate in (3e-3, 0.0))
    calm = still[:BEFORE].mean()
    for run in (learned, still):
        assert run[BEFORE : BEFORE + 3].mean() > 5 * calm  # nobody can know yet
    assert learned[BEFORE + WITHIN :].mean() < 0.25 * learned[BEFORE : BEFORE + 3].mean()
    assert still[BEFORE + WITHIN :].mean() > 0.7 * still[BEFORE : BEFORE + 3].mean()


def test_while_nothing_changes_learning_does_not_make_it_worse(agent: Agent) -> None:
    learned, still = (errors(agent, OnlineLearning(rate), after=10_000) for rate in (3e-3, 0.0))
    assert learned[BEFORE:].mean() < 1.2 * still[BEFORE:].mean()


def test_only_a_copy_of_the_predictor_learns_and_acting_calls_no_world_model() -> None:
    agent = make_agent()
    before = fingerprints(agent)
    acting = OnlineActing(agent, 4, OnlineLearning(1e-2))
    mine = {name: tensor.clone() for name, tensor in acting.agent.modules.world_model.state_dict().items()}
    first, every = np.array([True] * 4), np.ones(4, np.bool_)
    for step in range(4):
        x = np.random.default_rng(step).uniform(-1, 1, (4, 2)).astype(np.float32)
        assert acting.act(x, first, every).calls == 0
        first = np.zeros(4, np.bool_)
    assert fingerprints(agent) == before
    changed = {n for n, tensor in acting.agent.modules.world_model.state_dict().items() if not tensor.equal(mine[n])}
    assert changed and all(name.startswith("predictor.") for name in changed)
    assert all(p.grad is None for network in acting.agent.networks().values() for p in network.parameters())


def test_mode_2_plans_with_what_was_learned() -> None:
    agent = make_agent()
    acting = OnlineActing(agent, 2, OnlineLearning(), "mode-2")
    assert acting.acting.agent.modules.world_model is acting.agent.modules.world_model is not agent.modules.world_model
    decision = acting.act(np.zeros((2, 2), np.float32), np.ones(2, np.bool_), np.ones(2, np.bool_))
    assert decision.calls > 0 and decision.planned.all()


def test_it_learns_from_what_was_done_and_not_from_what_was_decided() -> None:
    """A share of actions is replaced by random ones; what is remembered is the action that was taken."""
    acting = OnlineActing(make_agent(), 50, OnlineLearning(), exploration=0.5)
    x, every = np.ones((50, 2), np.float32), np.ones(50, np.bool_)
    taken = acting.act(x, every, every).action
    assert acting.last is not None and np.array_equal(acting.last[1].numpy(), taken)
    assert 0.15 < (taken != acting.acting.course[:, 0]).mean() < 0.55  # of 3 actions the random one is often the same
    acting.act(x, ~every, every)
    assert np.array_equal(acting.ring[0][1].numpy(), taken)


def test_an_episodes_end_and_an_idle_environment_are_no_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent()
    seen: list[int] = []

    def count(world_model: Any, latent: Any, *rest: Any) -> Any:
        seen.append(len(latent))
        return one_step_error(world_model, latent, *rest)

    monkeypatch.setattr("forethought.agent.online.one_step_error", count)
    acting = OnlineActing(agent, 3, OnlineLearning(0.0))
    x = np.zeros((3, 2), np.float32)
    every, nobody = np.ones(3, np.bool_), np.zeros(3, np.bool_)
    acting.act(x, every, every)
    acting.act(x, np.array([False, True, False]), np.array([True, True, False]))
    acting.act(x, nobody, every)
    acting.act(x, every, every)
    assert seen == [2, 2, 0] and np.isnan(acting.errors[-1])


@pytest.mark.parametrize("members", [1, 3])
def test_the_error_is_that_of_each_members_next_latent(members: int) -> None:
    world_model = make_agent(members=members).modules.world_model
    draws = torch.Generator().manual_seed(0)
    s, outcome = torch.randn(2, 5, 8, generator=draws)
    action = torch.arange(5) % 3
    with torch.no_grad():
        _, after = world_model.advance(world_model.begin(s), action)
        expected = ((after.latent - outcome[:, None]) ** 2).mean((1, 2))
        assert torch.allclose(one_step_error(world_model, s, action, outcome), expected)


def test_a_learning_rate_that_destroys_the_predictor_is_named() -> None:
    acting = OnlineActing(wake(make_agent()), 2, OnlineLearning(1e20, updates=5))
    x, every = np.ones((2, 2), np.float32), np.ones(2, np.bool_)
    with pytest.raises(FloatingPointError, match="while learning online; lower the learning rate"):
        for _ in range(5):
            acting.act(x, ~every, every)


@pytest.mark.parametrize("wrong", [{"learning_rate": -1.0}, {"learning_rate": np.inf}, {"ring": 0}, {"updates": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected (a number from 0|at least 1)"):
        OnlineLearning(**wrong)


# ---- controls that turn round


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_inverted_controls_are_the_opposite_ones_from_their_step_on(id: str) -> None:
    plain: VectorEnv[Any, Any, Any] = make_env(id, 3, seed=1)
    inverted = Inverted(make_env(id, 3, seed=1), after=2)
    space = plain.single_action_space
    plain.reset(seed=1)
    inverted.reset(seed=1)
    draws = np.random.default_rng(0)
    for step in range(5):
        if isinstance(space, spaces.Discrete):
            action = draws.integers(2, size=3)
            other = 1 - action
        else:
            action = draws.uniform(-2, 2, (3, 1)).astype(np.float32)
            other = -action
        assert inverted.inverted == (step >= 2)
        seen = inverted.step(action)[0]
        assert np.array_equal(seen, plain.step(other if step >= 2 else action)[0])
    plain.close()
    inverted.close()


def test_opposites_are_mirrored_at_the_middle_of_the_space() -> None:
    env = make_env("Pendulum-v1", 1, seed=0)
    wrapper = Inverted(env, 0)
    for space, given, expected in (
        (spaces.Discrete(3, start=4), [4, 5, 6], [6, 5, 4]),
        (spaces.MultiDiscrete([2, 5]), [[0, 1], [1, 4]], [[1, 3], [0, 0]]),
        (spaces.Box(np.float32([-1, 0]), np.float32([1, 3])), [[0.5, 1.0]], [[-0.5, 2.0]]),
    ):
        env.single_action_space = space  # type: ignore[assignment]
        assert np.allclose(wrapper.opposite(np.array(given)), expected)
    with pytest.raises(ValueError, match="after is -1"):
        Inverted(env, -1)
    env.single_action_space = spaces.MultiBinary(2)
    with pytest.raises(ValueError, match="cannot be inverted"):
        Inverted(env, 0)
    env.close()
