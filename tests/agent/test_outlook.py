"""What the critic foresaw beside what was felt: it orders held-out states, perceived and imagined; controls fail."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.learning import Learner
from forethought.agent.outlook import HandOver, Played, felt, foreseen, outlook, play, realised
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.modules.critic import Critic
from forethought.modules.types import State
from numpy.typing import NDArray
from torch import Tensor

from .small import make_agent

ENVS, STEPS = 32, 90


def watched(agent: Agent, late: int = 12, seed: int = 50) -> Played:
    """Held-out episodes that begin with up to ``late`` steps at random."""
    env = build_env(agent.config.env, ENVS, seed=seed, held_out=True)
    random = RandomBehaviour(agent.spaces.action, ENVS, seed, 1, sticky=2)
    handed = HandOver(agent.begin(ENVS, "mode-1"), random, np.random.default_rng(seed).integers(late + 1, size=ENVS))
    played = play(agent, env, handed, STEPS, seed)
    env.close()
    return played


@dataclass
class Life:
    trainer: Trainer
    agent: Agent
    played: Played


@pytest.fixture(scope="module")
def life(point_trainer: Trainer) -> Life:
    return Life(point_trainer, point_trainer.agent, watched(point_trainer.agent))


@pytest.mark.parametrize("ahead", [0, 1, 3, 6])
def test_the_critic_orders_held_out_states_by_what_was_then_felt(life: Life, ahead: int) -> None:
    found = outlook(life.agent, life.played, ahead)
    assert found.states > 300
    assert found.critic > 0.7
    assert abs(found.shuffled) < 0.15
    assert found.critic > found.present
    assert found.critic < found.best <= 1


def other_critic(life: Life, shuffle: bool, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """The same agent with a critic learned anew from what is remembered, its targets in another order of time."""
    agent = copy.copy(life.agent)
    config = agent.config
    agent.config = replace(config, behaviour=replace(config.behaviour, imagined=0.0))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        agent.modules = replace(agent.modules, critic=Critic(config.critic, config.perception.latent).eval())
    learner, draws = Learner(agent, 1), np.random.default_rng(4)
    real = learner.behaviour._real_returns

    def mixed(latent: Tensor, window: Any) -> tuple[Tensor, Tensor]:
        target, mask = real(latent, window)
        order = torch.from_numpy(draws.permutation(target.shape[0] * target.shape[1]))
        return target.flatten(0, 1)[order].reshape(target.shape), mask

    if shuffle:
        monkeypatch.setattr(learner.behaviour, "_real_returns", mixed)
    for _ in range(150):
        learner.behaviour.critic_update(life.trainer.memory.sample(32, 6, draws))
    return agent


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_critic_learned_from_other_times_orders_nothing(
    life: Life, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = other_critic(life, shuffle, monkeypatch)
    for ahead in (0, 3):
        assert (outlook(agent, life.played, ahead).critic > 0.6) != shuffle


def test_what_was_imagined_under_other_actions_says_less(life: Life) -> None:
    draws = np.random.default_rng(0)
    order = draws.permutation(ENVS)
    other = replace(life.played, action=life.played.action[order])
    value, asked = foreseen(life.agent, other, 6)
    truth, _ = foreseen(life.agent, life.played)
    own, _ = foreseen(life.agent, life.played, 6)
    assert np.abs(own - truth)[asked].mean() < 0.7 * np.abs(value - truth)[asked].mean()


# ---- the pieces, against slow ones


def test_realised_costs_are_those_of_a_slow_sum() -> None:
    draws = np.random.default_rng(0)
    cost = draws.normal(size=(6, 60))
    terminated, truncated = draws.random((6, 60)) < 0.04, draws.random((6, 60)) < 0.04
    truncated &= ~terminated
    total, known = realised(cost, terminated, truncated, 0.8)
    horizon = 14  # 0.8 ** 14 < 0.05 < 0.8 ** 13
    assert 0.2 < known.mean() < 0.9
    for e in range(6):
        for t in range(60):
            value, sure = 0.0, True
            for k in range(horizon):
                if t + k >= 60 or truncated[e, t + k]:
                    sure = False
                    break
                value += 0.8 ** (k + 1) * cost[e, t + k]
                if terminated[e, t + k]:
                    break
            assert known[e, t] == sure
            assert not sure or total[e, t] == pytest.approx(value)


def test_what_is_felt_is_the_intrinsic_cost_of_each_transition() -> None:
    agent = make_agent(ending=2.0, effort=0.5)
    reward, ended = torch.tensor([[1.0, -3.0, 0.5]]), np.array([[False, False, True]])
    played = played_of(torch.zeros(1, 3, 8), reward, ended)
    assert felt(agent, played)[0] == pytest.approx([-1, 3, -0.5 + 2])


def test_in_a_goal_task_distance_is_felt_until_the_goal_is_reached() -> None:
    agent = make_agent(goals=True)
    latent = torch.tensor([3.0, 0.5, 0.25])[None, :, None].expand(1, 3, 8)
    played = replace(played_of(latent, torch.ones(1, 3), np.array([[False, False, True]])), goal=torch.zeros(1, 3, 8))
    assert felt(agent, played)[0] == pytest.approx([1 - np.exp(-0.25 / 0.5), 1 - np.exp(-0.0625 / 0.5), 0], abs=1e-6)


def played_of(latent: Tensor, reward: Tensor, terminated: NDArray[np.bool_]) -> Played:
    nothing = np.zeros_like(terminated)
    since = np.broadcast_to(np.arange(latent.shape[1]), terminated.shape)
    return Played(latent, None, torch.zeros(reward.shape, dtype=torch.int64), reward, terminated, nothing, since)


def test_imagined_latents_come_from_k_steps_before_in_the_same_episode() -> None:
    agent = make_agent()
    draws = torch.Generator().manual_seed(0)
    latent, action = torch.randn(2, 6, 8, generator=draws), torch.randint(3, (2, 6), generator=draws)
    ended = np.zeros((2, 6), np.bool_)
    ended[1, 2] = True
    played = replace(played_of(latent, torch.zeros(2, 6), ended), action=action)
    value, asked = foreseen(agent, played, 2)
    assert asked.astype(int).tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1]]
    m = agent.modules
    with torch.no_grad():
        s = State(latent[:1, 1])
        for t in (1, 2):
            s = m.world_model.predict(s, action[:1, t])
        assert value[0, 3] == pytest.approx(float(m.critic(s, m.configurator("mode-1")).sum()), abs=1e-4)


def test_too_short_a_recording_is_refused() -> None:
    agent = make_agent()
    played = played_of(torch.zeros(1, 3, 8), torch.zeros(1, 3), np.zeros((1, 3), np.bool_))
    with pytest.raises(ValueError, match="0 states whose costs are known to the end; play longer"):
        outlook(agent, played)


def test_the_agent_takes_over_after_its_steps_of_each_episode() -> None:
    agent = make_agent()
    handed = HandOver(agent.begin(2, "mode-1"), RandomBehaviour(agent.spaces.action, 2, 0, 3), np.array([0, 2]))
    firsts = [[True, True], [False, False], [False, False], [False, True], [False, False]]
    since, reacted = [], []
    every = np.ones(2, np.bool_)
    for first in firsts:
        x = np.random.default_rng(len(since)).uniform(-1, 1, (2, 2)).astype(np.float32)
        decision = handed.act(x, np.array(first), every)
        s = agent.modules.perception.encode(torch.from_numpy(x)[:, None])
        policy = agent.modules.actor(s, agent.modules.configurator("mode-1")).mode().numpy()
        since.append((handed.age - handed.steps).tolist())
        reacted.append((decision.action == policy).tolist())
    assert since == [[0, -2], [1, -1], [2, 0], [3, -2], [4, -1]]
    assert all(row[0] for row in reacted) and reacted[2][1]
