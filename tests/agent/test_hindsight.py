"""Short plans towards many goals: against every course and goal taken one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import BehaviourLoss
from forethought.agent.hindsight import (
    ShortPlans,
    expected_ends,
    imagine_courses,
    seeking_energy,
    short_plans,
    window_ends,
)
from forethought.agent.learning import Learner
from forethought.agent.run import check_settings
from forethought.modules.cost import interoception
from forethought.modules.types import Configuration, State, Trajectory, drive_weights
from forethought.planners import spread

from .small import make_agent, make_window

N, G, COURSES, STEPS = 5, 3, 7, 4


def planned(agent: Agent, seed: int = 3) -> tuple[ShortPlans, Configuration]:
    draws = torch.Generator().manual_seed(0)
    weights = drive_weights(goal=1.0, effort=0.1)
    goal = torch.randn(N, G, 8, generator=draws)
    configuration = Configuration(weights, weights, goal=goal, discount=0.9)
    state = State(torch.randn(N, 8, generator=draws))
    drawn = torch.Generator().manual_seed(seed)
    courses = imagine_courses(agent.modules, state, STEPS, COURSES, agent.spaces.action, drawn)
    return short_plans(agent.modules, agent.modules.critic, courses, configuration), configuration


def awake(members: int = 1) -> Agent:
    agent = make_agent(goals=True, members=members)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for network in agent.networks().values():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    return agent


@pytest.mark.parametrize("members", [1, 3])
def test_every_course_is_judged_by_every_goal_as_it_is_alone(members: int) -> None:
    agent = awake(members)
    plans, configuration = planned(agent)
    actions = spread(agent.spaces.action, N, COURSES, STEPS, torch.Generator().manual_seed(3))
    for g in range(G):
        one = replace(configuration, goal=plans.goal[:, g])
        with torch.no_grad():
            imagined = agent.modules.world_model.rollout(State(plans.state.latent[:, 0]), actions, one.goal)
            energy = seeking_energy(agent.modules, agent.modules.critic, imagined.members or imagined, one)
        energy = energy.mean(-1) if members > 1 else energy
        assert torch.allclose(plans.energy[:, g], energy.amin(1), atol=1e-4)
        assert torch.allclose(plans.gain[:, g], energy.mean(1) - energy.amin(1), atol=1e-4)
        best = actions[torch.arange(N), energy.argmin(1), 0]
        likeliest = plans.target[:, g].gather(1, best[:, None])[:, 0]
        assert (likeliest > 1 / plans.target.shape[-1]).all()
    assert torch.allclose(plans.target.sum(-1), torch.ones(N, G), atol=1e-5)
    assert plans.energy.std(1).min() > 1e-4  # goals differ


def test_many_goals_cost_as_many_predictor_calls_as_one() -> None:
    agent = awake()
    model = agent.modules.world_model
    before = model.calls
    planned(agent)
    assert model.calls - before == N * COURSES * STEPS


def test_an_update_learns_from_all_goals() -> None:
    """The critic's loss of several goals is the mean of theirs."""
    agent = awake()
    agent.config = replace(agent.config, behaviour=replace(agent.config.behaviour, hindsight=4))
    learner = Learner(agent, 1)
    window = make_window()
    plans = learner.behaviour.short_plans(window)
    assert plans is not None and plans.goal.shape[1] == 4
    whole, _ = learner.behaviour._goal_critic_loss(plans)
    parts = [
        learner.behaviour._goal_critic_loss(
            replace(plans, goal=plans.goal[:, g : g + 1], energy=plans.energy[:, g : g + 1])
        )[0]
        for g in range(4)
    ]
    assert torch.allclose(whole, torch.stack(parts).mean(), rtol=1e-5)


def test_the_actor_imitates_short_plans() -> None:
    agent = awake()
    behaviour = BehaviourLoss(steps=3, courses=16, hindsight=2, imitation=1.0, improvement=0.0)
    agent.config = replace(agent.config, behaviour=behaviour, schedule=replace(agent.config.schedule, reanalyse=0))
    learner = Learner(agent, 1)
    window = make_window(batch=16)
    plans = learner.behaviour.short_plans(window)
    losses = [learner.behaviour.actor_update(window, None, plans)["imitation"] for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    shuffled = replace(plans, target=plans.target.roll(1, 0)) if plans is not None else None
    assert learner.behaviour.actor_update(window, None, shuffled)["imitation"] > losses[-1]


def test_a_window_ends_with_its_first_episode_and_has_its_goals() -> None:
    agent, window = awake(), make_window(batch=6)
    steps = window.action.shape[1]
    marks = torch.arange(6.0)[:, None, None].expand(6, steps + 1, 8) + torch.arange(steps + 1.0)[:, None] / 10
    known = torch.ones(6, steps)
    known[:3, 1:] = 0  # these end with s[1]; then comes the next episode
    goal = torch.arange(6.0)[:, None, None].expand(6, G, 8)
    window = replace(window, latent=marks, goal=goal, known=known)
    perception, draws = agent.modules.perception, torch.Generator().manual_seed(0)
    ends = window_ends(perception, window, G, draws)
    assert torch.equal(ends.goal, goal) and torch.equal(ends.step, torch.tensor([1] * 3 + [steps] * 3))
    assert torch.equal(ends.state.latent, torch.stack([*marks[:3, 1], *marks[3:, steps]]))
    expected = expected_ends(agent.modules, window, ends)
    imagined = agent.modules.world_model.rollout(State(marks[:, 0]), window.action[:, None]).latent[:, 0]
    assert torch.equal(expected.latent, torch.stack([*imagined[:3, 1], *imagined[3:, steps]]))
    some = window_ends(perception, window, G, draws, 40)
    assert torch.equal(some.goal[:, 0, 0], some.state.latent[:, 0].floor()) and len(set(some.row.tolist())) == 6
    free = window_ends(perception, replace(window, goal=None), 50, draws)
    assert free.goal.shape == (6, 50, 8) and len(free.goal[..., 0].unique()) > 4 * steps


def test_an_expected_state_is_judged_as_the_true_one() -> None:
    """Where the world model is wrong (here by far), the critic reads from what it says what is really so."""
    agent = awake()
    agent.config = replace(agent.config, behaviour=replace(agent.config.behaviour, hindsight=2))
    learner, window = Learner(agent, 1), make_window(batch=8)
    plans = learner.behaviour.short_plans(window)
    assert plans is not None
    ends = window_ends(agent.modules.perception, window, 2, learner.generator)
    with torch.no_grad():
        expected = expected_ends(agent.modules, window, ends)
    assert torch.equal(plans.state.latent, torch.stack([ends.state.latent, expected.latent], dim=1))
    wrong = replace(plans, state=State(torch.stack([ends.state.latent, 3 - expected.latent], dim=1)))
    target = torch.linspace(1, 8, 8)[:, None].expand(8, 2)
    wrong = replace(wrong, energy=target)
    for _ in range(300):
        learner.behaviour.critic_update(window, None, wrong)
    said = agent.modules.critic.cost_to_go(wrong.state.latent[:, 1], wrong.goal)[..., 3]
    assert (said - target).abs().mean() < 0.5


def test_a_reward_task_makes_no_short_plans() -> None:
    assert Learner(make_agent(), 1).behaviour.short_plans(make_window()) is None


def test_a_goal_that_is_passed_is_reached() -> None:
    """What comes after it costs nothing, however far it leads away; what comes before costs as much as it lasts."""
    agent = awake()
    latent = torch.zeros(1, 2, 4, 8)
    latent[:, 0, 2:] = 9.0  # at the goal in s[1], then far from it
    latent[:, 1, 1:] = 9.0  # never there
    distance = latent[:, :, 1:].square().mean(-1)
    nothing = torch.zeros_like(distance)
    imagined = Trajectory(latent, interoception(nothing, nothing, nothing, distance), torch.ones_like(distance))
    weights = drive_weights(goal=1.0)
    configuration = Configuration(weights, weights, goal=torch.zeros(1, 8), discount=0.9)
    with torch.no_grad():
        energy = seeking_energy(agent.modules, agent.modules.critic, imagined, configuration)[0]
        end = agent.modules.critic(State(latent[:, 1, -1]), configuration).sum(-1)
    assert float(energy[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(energy[1]) == pytest.approx(0.9 + 0.81 + 0.729 + 0.729 * float(end), rel=1e-4)


def test_one_course_alone_is_followed() -> None:
    agent = awake()
    state, goal = State(torch.randn(N, 8)), torch.randn(N, G, 8)
    weights = drive_weights(goal=1.0)
    configuration = Configuration(weights, weights, goal=goal)
    draws = torch.Generator().manual_seed(0)
    courses = imagine_courses(agent.modules, state, STEPS, 1, agent.spaces.action, draws)
    plans = short_plans(agent.modules, agent.modules.critic, courses, configuration)
    assert set(plans.target.unique().tolist()) == {0.0, 1.0} and not plans.gain.any()


@pytest.mark.parametrize("name", ["batch", "steps", "courses", "hindsight"])
def test_nothing_to_learn_from_is_refused(name: str) -> None:
    config = make_agent(goals=True).config
    wrong = replace(config, behaviour=replace(config.behaviour, **{name: 0}))
    with pytest.raises(ValueError, match=f"behaviour.{name} is 0, expected at least 1"):
        check_settings(wrong)
