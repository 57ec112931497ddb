"""What remembered walks teach the critic of a goal task, against every walk and goal taken one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from forethought.agent.config import BehaviourLoss
from forethought.agent.hindsight import Walks, walks
from forethought.agent.learning import Learner
from forethought.agent.run import check_settings
from forethought.modules.cost import goal_distance, interoception, seeking
from forethought.modules.memory import Window
from forethought.modules.types import DRIVES, Configuration, State, drive_weights

from .small import make_agent, make_window

B, G, STEPS, DISCOUNT = 6, 3, 4, 0.9
WEIGHTS = drive_weights(goal=1.0, effort=0.1)
CONFIGURATION = Configuration(WEIGHTS, WEIGHTS, goal=torch.zeros(1, 1, 8), discount=DISCOUNT)


def remembered(lengths: list[int]) -> Window:
    """Windows with latents and goals of their own, whose first episodes have so many known steps."""
    draws = torch.Generator().manual_seed(0)
    window = make_window(batch=len(lengths))
    known = (torch.arange(STEPS) < torch.tensor(lengths)[:, None]).float()
    latent = 0.4 * torch.randn(len(lengths), STEPS + 1, 8, generator=draws)
    return replace(window, latent=latent, goal=0.4 * torch.randn(len(lengths), G, 8, generator=draws), known=known)


def test_a_walk_costs_what_its_steps_cost_and_what_the_critic_expects_after_them() -> None:
    agent, lengths = make_agent(goals=True), [4, 3, 1, 0, 4, 2]
    m, window = agent.modules, remembered(lengths)
    assert window.latent is not None and window.goal is not None
    before = m.world_model.calls
    walked = walks(m, m.critic, window, G, CONFIGURATION, torch.Generator())
    assert m.world_model.calls == before  # nothing is imagined
    rows = [row for row, length in enumerate(lengths) if length]
    assert torch.equal(walked.state.latent, window.latent[rows, 0]) and torch.equal(walked.goal, window.goal[rows])
    for n, row in enumerate(rows):
        for g in range(G):
            goal, alive, energy = window.goal[row, g], torch.ones(()), torch.zeros(())
            for t in range(lengths[row]):
                distance = goal_distance(window.latent[row, t + 1], goal)
                effort = m.world_model.actions.effort(m.world_model.actions(window.action[row, t]))
                nothing = torch.zeros(())
                iota = interoception(nothing, nothing, effort, distance)
                energy = energy + DISCOUNT ** (t + 1) * alive * m.intrinsic_cost(iota, WEIGHTS).sum()
                alive = alive * seeking(distance)
            end = State(window.latent[row, lengths[row]][None])
            with torch.no_grad():
                after = m.critic(end, replace(CONFIGURATION, goal=goal[None])).sum()
            energy = energy + DISCOUNT ** lengths[row] * alive * after
            assert float(walked.energy[n, g]) == pytest.approx(float(energy), rel=1e-4), (row, g)
    assert walked.energy.std() > 0.01


def test_goals_are_drawn_where_windows_have_none() -> None:
    agent, window = make_agent(goals=True), replace(remembered([4] * B), goal=None)
    walked = walks(agent.modules, agent.modules.critic, window, 30, CONFIGURATION, torch.Generator().manual_seed(0))
    assert window.latent is not None and walked.goal.shape == (B, 30, 8)
    seen = {tuple(state.tolist()) for state in window.latent.flatten(0, 1)}
    assert {tuple(goal.tolist()) for goal in walked.goal.flatten(0, 1)} <= seen


@pytest.mark.parametrize(("expectile", "low", "high"), [(0.5, 4.5, 5.5), (0.95, 1.5, 3.2)])
def test_the_expectile_says_how_much_the_better_walks_count(expectile: float, low: float, high: float) -> None:
    """From one state half of the walks cost 2 and half cost 8."""
    agent = make_agent(goals=True)
    behaviour = replace(agent.config.behaviour, walks=1.0, expectile=expectile)
    agent.config = replace(agent.config, behaviour=behaviour)
    learner = Learner(agent, 1)
    state, goal = State(torch.ones(8, 8)), torch.zeros(8, 1, 8)
    energy = torch.tensor([2.0, 8.0] * 4)[:, None]
    walked, critic = Walks(state, goal, energy), agent.modules.critic
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        learner.behaviour._walk_loss(walked).backward()
        optimiser.step()
    said = float(critic.cost_to_go(state.latent, goal[:, 0]).detach()[0, DRIVES.index("goal")])
    assert low < said < high


def test_walks_move_the_critic_and_nothing_else() -> None:
    agent = make_agent(goals=True)
    agent.config = replace(agent.config, behaviour=replace(agent.config.behaviour, walks=1.0, hindsight=G))
    learner, window = Learner(agent, 1), remembered([4] * B)
    assert learner.behaviour.walks(window).goal.shape == (B, G, 8)
    before = {name: [p.clone() for p in net.parameters()] for name, net in agent.networks().items()}
    plans = learner.behaviour.short_plans(window)
    alone = learner.behaviour.critic_update(window, None, plans)
    assert "walks" not in alone and "walks" in learner.behaviour.critic_update(
        window, None, plans, learner.behaviour.walks(window)
    )
    for name, network in agent.networks().items():
        changed = any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True))
        assert changed == (name == "critic"), name


@pytest.mark.parametrize("goals", ["any", "episode"])
def test_the_goal_that_was_asked_for_counts_as_much_as_all_that_were_seen(goals: Literal["any", "episode"]) -> None:
    agent = make_agent(goals=True)
    agent.config = replace(agent.config, behaviour=BehaviourLoss(hindsight=G, goals=goals, expectile=0.5))
    learner, window = Learner(agent, 1), remembered([4] * B)
    plans, walked = learner.behaviour.short_plans(window), learner.behaviour.walks(window)
    assert plans is not None
    plans = replace(plans, gain=torch.ones_like(plans.gain))

    def losses(at: slice) -> list[float]:
        some = {name: getattr(plans, name)[:, at] for name in ("goal", "energy", "target", "gain")}
        walk = replace(walked, goal=walked.goal[:, at], energy=walked.energy[:, at])
        imitation = learner.behaviour._short_imitation(replace(plans, **some))[0][2]
        found = (
            learner.behaviour._goal_critic_loss(replace(plans, **some))[0],
            learner.behaviour._walk_loss(walk),
            imitation,
        )
        return [float(loss.detach()) for loss in found]

    alone = [losses(slice(g, g + 1)) for g in range(G)]
    share = [1 / G] * G if goals == "any" else [0.5, *[0.5 / (G - 1)] * (G - 1)]
    for together, *each in zip(losses(slice(None)), *alone, strict=True):
        assert together == pytest.approx(sum(s * e for s, e in zip(share, each, strict=True)), rel=1e-4)
        assert max(each) - min(each) > 1e-3


def test_windows_that_end_at_once_teach_nothing() -> None:
    agent = make_agent(goals=True)
    learner, window = Learner(agent, 1), remembered([0] * B)
    walked = learner.behaviour.walks(window)
    assert not len(walked.energy)
    assert "walks" not in learner.behaviour.critic_update(remembered([4] * B), None, None, walked)


@pytest.mark.parametrize(
    ("group", "name", "value", "said"),
    [
        ("behaviour", "walk_steps", 0, "behaviour.walk_steps is 0, expected at least 1"),
        ("behaviour", "expectile", 1.5, "behaviour.expectile is 1.5, expected a number from 0 to 1"),
        ("behaviour", "walk_steps", 5_000, "windows of 5000 steps"),
        ("schedule", "rest", -1, "schedule.rest is -1, expected a number of rounds from 0, or None"),
    ],
)
def test_walks_that_cannot_be_are_refused(group: str, name: str, value: float, said: str) -> None:
    config = make_agent(goals=True).config
    config = replace(config, behaviour=replace(config.behaviour, walks=0.5))
    with pytest.raises(ValueError, match=said):
        check_settings(replace(config, **{group: replace(getattr(config, group), **{name: value})}))
