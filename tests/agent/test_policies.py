"""Policies that plans are distilled into, several side by side, and what they are worth to the planner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import BehaviourLoss
from forethought.agent.evaluation import evaluate
from forethought.agent.learning import Learner
from forethought.agent.policies import Lesson, distil, distilled, energy_curve, iterations_to, plan_for, with_policy
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.modules.configurator import Thinking
from forethought.modules.cost import interoception
from forethought.modules.recall import RecallConfig
from forethought.modules.types import State, Trajectory
from torch import Tensor

from .small import fingerprint, fingerprints, make_agent, make_window

EPISODES = 40


def states(agent: Agent, seed: int, count: int = 128) -> State:
    """Held-out states of `Point`, perceived."""
    places = np.random.default_rng(seed).uniform(-1.2, 1.2, (count, 1, 4)).astype(np.float32)
    with torch.no_grad():
        return agent.modules.perception.encode(torch.from_numpy(places))


def taught(trainer: Trainer, agent: Agent, shuffle: bool = False) -> None:
    """Distil Mode-2 of an agent into its own policy, or each plan into the state of another."""
    window = trainer.memory.sample(1_000, 0, np.random.default_rng(0))
    with torch.no_grad():
        state = agent.modules.perception.encode(window.observation[:, 0])
    draws = torch.Generator().manual_seed(0)
    lesson = plan_for(agent, state, None, draws)
    distil(
        Learner(agent, 1).behaviour, lesson.shuffled(draws) if shuffle else lesson, 250, 64, np.random.default_rng(0)
    )


def mean_return(agent: Agent) -> float:
    env = build_env(agent.config.env, EPISODES, seed=70, held_out=True)
    result = evaluate("mode-1", env, agent.begin(EPISODES, "mode-1"), seed=70)
    env.close()
    return float(result.returns.mean())


@pytest.mark.parametrize("shuffle", [False, True], ids=["plans", "shuffled plans"])
def test_the_actor_comes_nearer_to_plans_in_states_it_has_not_seen(point_trainer: Trainer, shuffle: bool) -> None:
    """K3, and its control: the plans of other states bring it to no more than what is common to all plans."""
    agent = with_policy(point_trainer.agent, point_trainer.agent.config.task, seed=5)
    lesson = plan_for(agent, states(agent, 8), None, torch.Generator().manual_seed(8))
    assert lesson.target.shape == (128, 4)
    before = lesson.divergence(agent)
    taught(point_trainer, agent, shuffle=shuffle)
    assert (lesson.divergence(agent) < before - 1.0) != shuffle


def test_two_policies_live_side_by_side_on_one_world_model(point_trainer: Trainer) -> None:
    """One goes to the middle, the other gets lost on purpose; neither notices when the other learns."""
    task = point_trainer.agent.config.task
    seeking = with_policy(point_trainer.agent, task, seed=1)
    fleeing = with_policy(point_trainer.agent, replace(task, pleasure=-1.0), seed=2)
    shared, first = fingerprints(point_trainer.agent), fingerprint(seeking.modules.actor)
    taught(point_trainer, fleeing)
    assert fingerprint(seeking.modules.actor) == first and fingerprints(point_trainer.agent) == shared
    second = fingerprint(fleeing.modules.actor)
    taught(point_trainer, seeking)
    assert fingerprint(fleeing.modules.actor) == second and fingerprints(point_trainer.agent) == shared
    for name in ("perception", "world_model", "critic"):
        assert getattr(seeking.modules, name) is getattr(fleeing.modules, name)
    assert mean_return(seeking) > 0.5
    assert mean_return(fleeing) < -0.5
    exchanged = replace(seeking.modules, actor=fleeing.modules.actor)
    seeking.modules = exchanged
    assert mean_return(seeking) < -0.5


def test_a_task_of_another_kind_is_refused() -> None:
    agent = make_agent()
    with pytest.raises(ValueError, match="goals=True and the agent False"):
        with_policy(agent, replace(agent.config.task, goals=True), seed=0)


def test_a_distilled_agent_reacts_as_the_other_plans(point_trainer: Trainer) -> None:
    """A policy that knows nothing learns Mode-2's plans where it leads itself; whose it was does not notice."""
    agent = with_policy(point_trainer.agent, point_trainer.agent.config.task, seed=6)
    before, told = fingerprints(agent), list[tuple[int, int]]()
    pupil = distilled(agent, 800, lambda done, total: told.append((done, total)))
    assert fingerprints(agent) == before and pupil.modules.world_model is agent.modules.world_model
    assert told == sorted(told) and told[-1] == (800, 800)
    assert mean_return(agent) < 0.2
    assert mean_return(pupil) > 0.5
    lesson = plan_for(agent, states(agent, 8), None, torch.Generator().manual_seed(8))
    assert lesson.divergence(pupil) < lesson.divergence(agent) - 1.0
    again = distilled(agent, 800)
    assert fingerprint(again.modules.actor) == fingerprint(pupil.modules.actor)
    with pytest.raises(ValueError, match="--distil is 3, expected 0 or at least 4 plans"):
        distilled(agent, 3)
    agent.config = replace(agent.config, perception=replace(agent.config.perception, recall=RecallConfig(slots=4)))
    with pytest.raises(ValueError, match="this agent recalls earlier ones; leave it out"):
        distilled(agent, 800)


# ---- what a policy is worth to the planner (K2)


def test_with_the_actors_proposals_the_planner_needs_a_third_of_the_iterations(point_trainer: Trainer) -> None:
    """And with those of an actor that has learned nothing, it needs more."""
    agent = point_trainer.agent
    task = replace(agent.config.task, thinking=Thinking(horizon=8, candidates=16))
    taught_one = with_policy(agent, task, seed=0)
    naive = with_policy(agent, task, seed=0)
    taught_one.modules = replace(taught_one.modules, actor=agent.modules.actor)
    s, iterations = states(agent, 9, 64), 12
    cold = energy_curve(naive, s, None, iterations, 0, torch.Generator().manual_seed(1))
    needed = {}
    for name, other in (("taught", taught_one), ("naive", naive)):
        seeded = energy_curve(other, s, None, iterations, 8, torch.Generator().manual_seed(2))
        price = 8 / 16  # what the proposals cost, in iterations
        needed[name] = (price + iterations_to(cold[-1], seeded)) / iterations_to(cold[-1], cold)
    assert needed["taught"].median() <= 1 / 3 < needed["naive"].median()


def test_iterations_are_counted_until_the_level_is_reached() -> None:
    curve = torch.tensor([[5.0, 3.0, 9.0], [4.0, 3.0, 8.0], [1.0, 2.0, 8.0]])
    assert iterations_to(torch.tensor([4.0, 3.0, 7.0]), curve).tolist() == [2, 1, np.inf]


# ---- imitation weighted by advantage


class Pays:
    """A world that stays as it is and pays for the actions that are wanted in its states."""

    def __init__(self, agent: Agent) -> None:
        self.inside = agent.modules.world_model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)

    def _felt(self, latent: Tensor, action: Tensor) -> Tensor:
        right = (action == wanted(latent)).float()
        return interoception(right, 0 * right, 0 * right)

    def rollout(
        self, state: State, actions: Tensor, goal: Tensor | None = None, feel: object = (), chance: object = None
    ) -> Trajectory:
        latent = state.latent[:, None, None].expand(-1, actions.shape[1], actions.shape[2] + 1, -1)
        felt = self._felt(latent[:, :, 1:], actions)
        return Trajectory(latent, felt, torch.ones_like(felt[..., 0]))

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
        felt = self._felt(carry[0], action)
        return carry, State(carry[0].unsqueeze(-2), felt.unsqueeze(-2), torch.ones_like(felt[..., :1]))


def wanted(latent: Tensor) -> Tensor:
    return (latent[..., 0] > 0).long() * 2


@pytest.mark.parametrize("advantage", [True, False])
def test_plans_count_by_how_much_better_they_are_than_what_the_actor_does(advantage: bool) -> None:
    """Two thirds of the remembered plans have gone stale: they say the opposite of what is good."""
    agent = make_agent()
    behaviour = BehaviourLoss(imitation=1.0, advantage=advantage, learning_rate=1e-2)
    agent.config = replace(agent.config, behaviour=behaviour, schedule=replace(agent.config.schedule, reanalyse=0))
    agent.modules = replace(agent.modules, world_model=Pays(agent))  # type: ignore[arg-type]
    learner, m = Learner(agent, 1), agent.modules
    window = make_window(batch=90)
    with torch.no_grad():
        best = wanted(m.perception(window.observation))
    stale = (torch.arange(90) % 3 > 0)[:, None]
    said = torch.where(stale, 2 - best, best)
    target = torch.nn.functional.one_hot(said, 3).float()
    course = said[:, :1].expand(-1, 4)
    for _ in range(120):
        learner.behaviour.actor_update(replace(window, plan=target, course=course))
    policy = m.actor(m.perception.encode(window.observation[:, 0]), m.configurator("mode-1"))
    assert ((policy.mode() == best[:, 0]).float().mean() > 0.9) == advantage


def test_weights_of_advantage_are_those_of_energies() -> None:
    agent = make_agent()
    agent.modules = replace(agent.modules, world_model=Pays(agent))  # type: ignore[arg-type]
    m = agent.modules
    with torch.no_grad():
        m.actor.net[-1].weight.zero_()
        m.actor.net[-1].bias.copy_(torch.tensor([0.0, 50.0, 0.0]))  # always the middle one, which never pays
    latent = torch.tensor([[1.0], [1.0], [-1.0]]).expand(-1, 8)
    course = torch.tensor([[2, 2, 2, 2], [0, 0, 0, 0], [0, 1, 1, 1]])
    weight = Learner(agent, 1).behaviour._advantage(State(latent), None, course)
    gain = torch.tensor([sum(0.9**t for t in range(1, 5)), 0.0, 0.9])
    assert torch.allclose(weight, gain / gain.mean(), atol=1e-4)


def test_a_lesson_is_the_plan_of_each_state() -> None:
    agent = make_agent()
    s = State(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    before = agent.modules.world_model.calls
    lesson: Lesson = plan_for(agent, s, None, torch.Generator().manual_seed(0))
    assert agent.modules.world_model.calls - before == 5 * 4 * 32 * 2  # the actor's proposals are left out
    assert torch.allclose(lesson.target.sum(-1), torch.ones(5), atol=1e-5)
