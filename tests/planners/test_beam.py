"""Beam search: widths, calls, what it keeps and what it returns."""

from __future__ import annotations

import pytest
import torch
from forethought.planners import BeamSearch, Budget, Categorical, Progress
from gymnasium import spaces
from torch import Tensor

from .problems import MULTI, Chain, Distance, run, targets

THREE = spaces.Discrete(3)


@pytest.mark.parametrize(("calls", "expected"), [(12, 1), (20, 1), (24, 2), (36, 4), (48, 6), (116, 25), (200, 27)])
def test_the_beam_is_as_wide_as_the_calls_allow(calls: int, expected: int) -> None:
    """Four levels of 3 actions: 3 + 3·min(w, 3) + 3·min(w, 9) + 3·min(w, 27) calls."""
    problem = Chain(0)
    for budget in (Budget(4, calls // 4, 1), Budget(4, 1, calls // 4)):
        plan = run(BeamSearch(), problem, THREE, budget, batch=3)
        assert plan.calls == 3 + sum(3 * min(expected, 3**level) for level in (1, 2, 3)) <= calls
    assert problem.steps == 2 * plan.calls


def beams(problem: Chain, width: int, guided: bool) -> tuple[Tensor, Tensor]:
    """The same search written plainly, for one environment after the other: courses and energies of the last level."""
    courses, energies = [], []
    for index in range(problem.batch):
        kept: list[tuple[float, ...]] = [()]
        for level in range(problem.horizon):
            grown = [(*course, action) for course in kept for action in range(problem.actions)]
            scored = []
            for course in grown:
                state, energy, share = 0, 0.0, 1.0
                for time, action in enumerate(course, 1):
                    energy += problem.discount**time * share * float(problem.costs[index, state, int(action)])
                    share *= float(problem.going[index, state, int(action)])
                    state = int(problem.following[index, state, int(action)])
                leaf = problem.discount ** len(course) * share * float(problem.values[index, state])
                scored.append((energy + leaf, energy, course))
            scored.sort(key=lambda entry: entry[0] if guided else entry[1])
            kept = [course for _, _, course in scored[:width]]
            if level == problem.horizon - 1:
                best = min(scored)
        courses.append(best[2])
        energies.append(best[0])
    return torch.tensor(courses), torch.tensor(energies)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_it_equals_a_beam_search_written_plainly(width: int, guided: bool) -> None:
    problem = Chain(4, batch=12, states=9, horizon=5)
    calls = 3 + sum(3 * min(width, 3**level) for level in range(1, 5))
    plan = run(BeamSearch(guided=guided), problem, THREE, Budget(5, 1, -(-calls // 5)), batch=12)
    assert plan.calls == calls
    courses, energies = beams(problem, width, guided)
    assert torch.equal(plan.actions, courses) and torch.allclose(plan.energy, energies, atol=1e-5)


def test_the_critic_guides_the_beam() -> None:
    """A single course is enough with a critic that knows what is to come, and not without asking it on the way."""
    problem = Chain(0, batch=32)
    for _ in range(200):  # value iteration
        after = problem.values.gather(1, problem.following.flatten(1)).view_as(problem.costs)
        problem.values = (0.9 * (problem.costs + problem.going * after)).amin(2)
    guided, blind = (run(BeamSearch(guided=g), problem, THREE, Budget(4, 3, 1), batch=32) for g in (True, False))
    assert guided.calls == blind.calls == 12
    assert torch.allclose(guided.energy, problem.least(), atol=1e-5)
    assert (blind.energy > guided.energy + 0.01).float().mean() > 0.2


def test_held_actions_cost_each_of_their_steps() -> None:
    problem = Chain(1, horizon=7)
    plan = run(BeamSearch(), problem, THREE, Budget(7, 30, 1, hold=3), batch=3)
    assert plan.calls == problem.steps <= 210
    every = torch.cartesian_prod(*[torch.arange(3)] * 3).repeat_interleave(3, 1)[:, :7]
    assert plan.calls == 3 * 3 + 9 * 3 + 27 * 1, "wide enough for all"
    assert torch.allclose(plan.energy, problem(every.expand(3, -1, -1)).amin(1), atol=1e-5)


def test_the_baseline_is_the_mean_after_the_first_action() -> None:
    problem = Chain(2)
    plan = run(BeamSearch(), problem, THREE, Budget(4, 9, 1), batch=3)
    place = (torch.arange(3)[:, None], torch.zeros(3, 1, dtype=torch.long), torch.arange(3)[None])
    after = problem.values[place[0], problem.following[place]]
    expected = 0.9 * (problem.costs[place] + problem.going[place] * after)
    assert torch.allclose(plan.baseline, expected.mean(1), atol=1e-6)


def test_the_distribution_is_that_of_the_best_courses() -> None:
    problem = Chain(3)
    plan = run(BeamSearch(elites=5, smoothing=0.5), problem, THREE, Budget(4, 30, 1), batch=3)
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    best = every[problem(every.expand(3, -1, -1)).topk(5, largest=False).indices]
    counts = torch.nn.functional.one_hot(best, 3).float().sum(1)
    assert isinstance(plan.distribution, Categorical)
    assert torch.allclose(plan.distribution.probabilities, (counts + 0.5) / (5 + 1.5), atol=1e-5)
    assert torch.equal(plan.elites, best)


def test_joint_actions_of_several_components() -> None:
    target = targets(MULTI, batch=2, horizon=3)
    objective = Distance(MULTI, target)
    plan = run(BeamSearch(), objective, MULTI, Budget(3, 30, 1), batch=2)
    assert plan.calls == objective.steps == 90 and torch.equal(plan.actions, target)


def test_what_a_watch_sees_on_the_way() -> None:
    seen: list[Progress] = []
    target = targets(THREE, batch=2, horizon=3)
    run(BeamSearch(), Distance(THREE, target), THREE, Budget(3, 12, 1), batch=2, watch=seen.append)
    assert [progress.calls for progress in seen] == [3, 12, 12 + 3 * 8]
    for level, progress in enumerate(seen):
        assert torch.equal(progress.actions[:, : level + 1], target[:, : level + 1])
        assert (progress.actions[:, level:] == progress.actions[:, level : level + 1]).all(), "the last is repeated"
        assert progress.energy.abs().max() < 1e-6
