"""What limits planning: the truth about courses is what the simulator does, and who knows it all judges them so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.limits import JUDGES, Judged, judge_courses, play_out
from forethought.agent.presets import preset
from forethought.agent.spaces import read_spaces
from forethought.agent.worlds import build_env
from forethought.modules.types import DRIVES

from .small import wake

COPIES, STEPS = 12, 8


def world(agent_config: Any, num_envs: int, repeat: int | None = None) -> Any:
    return build_env(agent_config.env, num_envs, seed=3, held_out=True, action_repeat=repeat)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return made(sample=False)


def made(sample: bool) -> Agent:
    config = preset("procgen:fruitbot")
    config = replace(
        config,
        task=replace(config.task, thinking=replace(config.task.thinking, sample=sample)),
        perception=replace(config.perception, latent=64, width=4),
        world_model=replace(config.world_model, hidden=16),
        critic=replace(config.critic, hidden=16),
        actor=replace(config.actor, hidden=16),
        device="cpu",
        threads=1,
    )
    env = world(config, 1)
    seen = read_spaces(env.single_observation_space, env.single_action_space)
    env.close()
    return wake(Agent(config, seen))


def judged(agent: Agent, after: int = 0, states: int = 6) -> Judged:
    env, copies = world(agent.config, 2), world(agent.config, COPIES, 1)
    found = judge_courses(agent, env, copies, horizons=(1, STEPS), states=states, every=5, after=after, seed=3)
    env.close()
    copies.close()
    return found


def test_a_course_costs_what_it_costs_when_it_is_played_by_itself(agent: Agent) -> None:
    env, copies, alone = world(agent.config, 1), world(agent.config, COPIES, 1), world(agent.config, 1)
    task = agent.config.task
    frame, _ = env.reset(seed=3)
    alone.reset(seed=3)
    actions = np.random.default_rng(0).integers(15, size=(COPIES, 60))
    percept = np.repeat(frame, 2, 0)
    start = env.unwrapped.get_state()
    course = play_out(agent, copies.unwrapped, start.repeat(0, COPIES), percept, actions, 0)
    ended_early = int((~course.going).any(1).argmax())
    assert not course.going[ended_early, -2] and course.going[:, 0].all()
    for index in (ended_early, 7):
        alone.unwrapped.set_state(start)
        cost, seen = 0.0, [percept]
        for t, action in enumerate(actions[index]):
            x, reward, terminated, truncated, _ = alone.step(np.array([action]))
            ended = bool(terminated[0] or truncated[0])
            cost += task.discount ** (t + 1) * (task.ending * ended - float(reward[0]))
            assert course.going[index, t] == (not ended) and course.reward[index, t] == reward[0]
            if ended:
                break
            seen.append(np.stack([seen[-1][-1], x[0]]))
        assert course.cost[index] == pytest.approx(cost, abs=1e-5)
        assert np.array_equal(course.percepts[index, : len(seen)], np.stack(seen))
        assert (course.percepts[index, len(seen) :] == seen[-1]).all()  # never the next episode
    assert len(set(course.cost.round(4))) > 1
    for each in (env, copies, alone):
        each.close()


def test_who_knows_the_truth_captures_all_of_it_and_the_world_is_left_alone(agent: Agent) -> None:
    found = judged(agent)
    assert set(found.energy) == {(judge, horizon) for judge in JUDGES for horizon in (1, STEPS)}
    assert found.cost.shape == (6, COPIES) and (found.cost.std(1) > 0).any()
    np.testing.assert_allclose(found.energy["true events, no critic", STEPS], found.cost, atol=1e-4)
    gain, best = found.captured("true events, no critic", STEPS)
    assert np.allclose(gain, best) and (best >= 0).all() and best.sum() > 0
    gain, best = found.captured("imagined", STEPS)
    assert (gain <= best + 1e-9).all() and gain.sum() < best.sum()
    again = judged(agent)
    assert np.array_equal(again.cost, found.cost)
    assert not np.allclose(judged(agent, after=6).cost, found.cost)


@pytest.mark.parametrize("sample", [False, True])
def test_mode_1_goes_on_after_a_course_as_it_plays(sample: bool) -> None:
    agent, env = made(sample), world(preset("procgen:fruitbot"), 1)
    copies = world(agent.config, COPIES, 1)
    frame, _ = env.reset(seed=3)
    start, percept = env.unwrapped.get_state().repeat(0, COPIES), np.repeat(frame, 2, 0)
    once = np.zeros((COPIES, 1), np.int64)
    costs = []
    for seed in range(2):
        agent.generator.manual_seed(seed)
        costs.append(play_out(agent, copies.unwrapped, start, percept, once, 30).cost)
    assert np.array_equal(*costs) != sample
    assert (len(set(costs[0].round(4))) > 1) == sample  # who draws does not do the same in each copy
    env.close()
    copies.close()


def test_each_judge_is_told_its_own_part_of_the_truth(agent: Agent) -> None:
    """Judges that know dynamics do not hear of events, and the other way round; only those with a critic ask it."""
    before = judged(agent)
    reward, critic = agent.modules.world_model.reward.bias, agent.modules.critic
    with torch.no_grad():
        kept = reward.clone()
        reward.copy_(torch.linspace(-4, 4, len(kept)))
    events = judged(agent)
    with torch.no_grad():
        reward.copy_(kept)
    assert DRIVES[0] == "pleasure"
    last = critic.net[-1].bias
    with torch.no_grad():
        kept = last.clone()
        last.add_(torch.linspace(0, 3, len(kept)))
    valued = judged(agent)
    with torch.no_grad():
        last.copy_(kept)
    for judge in JUDGES:
        moved = [not np.allclose(x.energy[judge, STEPS], before.energy[judge, STEPS]) for x in (events, valued)]
        assert moved == ["events" not in judge, "no critic" not in judge], judge
