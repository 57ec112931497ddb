"""Tree search: visits, prior, critic and calls, against a search written plainly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from forethought.planners import Budget, Categorical, Plan, Progress, TreeSearch
from gymnasium import spaces
from torch import Tensor

from .problems import MULTI, Chain, Distance, run, targets

THREE = spaces.Discrete(3)


def first(plan: Plan) -> Tensor:
    """How often each action of the root was tried, as a share ``[B, A]``."""
    assert isinstance(plan.distribution, Categorical)
    return plan.distribution.probabilities[:, 0]


class Node:
    """A node of the tree below, with the statistics of its actions."""

    def __init__(self, problem: Chain, index: int, state: int, exploration: float) -> None:
        self.state = state
        self.value = float(problem.values[index, state])
        self.prior = [(1 - exploration) * float(p) + exploration / 3 for p in problem.policy[index, state]]
        self.visits, self.totals = [0] * 3, [0.0] * 3
        self.children: list[Node | None] = [None] * 3

    def favourite(self) -> int:
        """The action most visited; of equals, the one of lower energy."""
        tried = [action for action in range(3) if self.visits[action]]
        return max(tried, key=lambda action: (self.visits[action], -self.totals[action] / self.visits[action]))


def plainly(problem: Chain, index: int, simulations: int, c1: float, c2: float, exploration: float) -> Node:
    """The same search for one environment, with objects and loops (Schrittwieser et al. 2020, appendix B)."""
    root = Node(problem, index, 0, exploration)
    low = high = root.value

    def score(node: Node, action: int) -> float:
        count = 1 + sum(node.visits)
        mean = (node.value + sum(node.totals)) / count
        energy = node.totals[action] / node.visits[action] if node.visits[action] else mean
        value = (high - energy) / max(high - low, 1e-9)
        explore = c1 + math.log((count + c2) / c2)
        return value + node.prior[action] * math.sqrt(count) / (1 + node.visits[action]) * explore

    for _ in range(simulations):
        node, walk = root, []
        while True:
            action = max(range(3), key=lambda a: score(node, a))
            walk.append((node, action))
            child = node.children[action]
            if child is None or len(walk) == problem.horizon:
                break
            node = child
        node, action = walk[-1]
        if node.children[action] is None:
            state = int(problem.following[index, node.state, action])
            node.children[action] = Node(problem, index, state, exploration)
        child = node.children[action]
        assert child is not None
        value = child.value
        for node, action in reversed(walk):
            place = (index, node.state, action)
            value = problem.discount * (float(problem.costs[place]) + float(problem.going[place]) * value)
            node.visits[action] += 1
            node.totals[action] += value
            low, high = min(low, value), max(high, value)
    return root


@pytest.mark.parametrize(("c1", "c2", "exploration"), [(1.25, 19652.0, 0.05), (0.4, 3.0, 0.5)])
def test_it_equals_a_tree_search_written_plainly(c1: float, c2: float, exploration: float) -> None:
    problem = Chain(5, batch=6, states=9, horizon=4)
    problem.values = 8 * problem.values - 2  # so that the extremes are at the leaves
    plan = run(TreeSearch(c1=c1, c2=c2, exploration=exploration), problem, THREE, Budget(4, 31, 1), batch=6)
    for index in range(6):
        root = plainly(problem, index, 120, c1, c2, exploration)
        assert (first(plan)[index] * 120).round().int().tolist() == root.visits
        node: Node | None = root
        assert isinstance(plan.distribution, Categorical)
        for probabilities in plan.distribution.probabilities[index]:
            if node is None or not sum(node.visits):
                break
            expected = torch.tensor(node.visits) / sum(node.visits)
            assert torch.allclose(probabilities, expected, atol=1e-5)
            node = node.children[node.favourite()]


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize("calls", [14, 30])
def test_visits_are_the_simulations_and_steps_are_the_calls(hold: int, calls: int) -> None:
    problem = Chain(0, horizon=7)
    seen: list[Progress] = []
    plan = run(TreeSearch(), problem, THREE, Budget(7, calls // 2, 2, hold), batch=3, watch=seen.append)
    budget = 7 * (calls // 2) * 2
    simulations = (budget - 7) // hold
    assert plan.calls == problem.steps == simulations * hold + 7 <= budget
    visits = first(plan) * simulations
    assert torch.allclose(visits, visits.round(), atol=1e-3)
    assert torch.allclose(visits.sum(1), torch.full((3,), float(simulations)))
    assert len(seen) == simulations + 1, "one for each simulation and one for the outcome"


def test_the_prior_leads_where_nothing_is_known() -> None:
    """Without costs and values every action is as good as any other, so visits follow the prior."""
    problem = Chain(0, batch=4)
    problem.costs, problem.values = problem.costs * 0, problem.values * 0
    plan = run(TreeSearch(exploration=0.0), problem, THREE, Budget(4, 51, 1), batch=4)
    assert torch.allclose(first(plan), problem.policy[:, 0], atol=0.03)
    even = run(TreeSearch(prior="uniform"), problem, THREE, Budget(4, 51, 1), batch=4)
    assert torch.allclose(first(even), torch.full((4, 3), 1 / 3), atol=0.02)
    mixed = run(TreeSearch(exploration=0.6), problem, THREE, Budget(4, 51, 1), batch=4)
    assert torch.allclose(first(mixed), 0.4 * problem.policy[:, 0] + 0.2, atol=0.03)


def test_the_critic_decides_at_the_leaves() -> None:
    """All roads cost the same; the critic loves one state, and dreads it when its sign is turned."""
    counts = []
    for sign in (-1.0, 1.0):
        problem = Chain(3, batch=8)
        problem.costs = problem.costs * 0
        problem.following = torch.arange(3).expand(8, 5, 3).clone()  # an action is the next state
        problem.values = torch.zeros(8, 5)
        problem.values[:, 1] = sign
        plan = run(TreeSearch(prior="uniform"), problem, THREE, Budget(1, 61, 1), batch=8)
        counts.append(float(first(plan)[:, 1].mean()))
        assert (plan.actions[:, 0] == 1).all() == (sign < 0)
    assert counts[0] > 0.7 and counts[1] < 0.25


def test_visits_gather_on_the_best_action() -> None:
    for seed in range(3):
        problem = Chain(seed, batch=8)
        every = torch.cartesian_prod(*[torch.arange(3)] * 4)
        best = every[problem(every.expand(8, -1, -1)).argmin(1)]
        few = run(TreeSearch(), problem, THREE, Budget(4, 8, 1), batch=8)
        many = run(TreeSearch(), problem, THREE, Budget(4, 80, 1), batch=8)
        shares = [float(first(plan).gather(1, best[:, :1]).mean()) for plan in (few, many)]
        assert shares[1] > shares[0] and shares[1] > 0.5


def test_the_course_beyond_the_tree_is_the_priors() -> None:
    """Two simulations and six steps to go: deeper ones are the actor's favourites, and all costs count."""
    problem = Chain(1, batch=5, horizon=6)
    problem.values = problem.values * 0 + 10.0  # nothing that ends early looks good
    plan = run(TreeSearch(), problem, THREE, Budget(6, 1, 1 + 1), batch=5)
    assert torch.allclose(problem(plan.actions.unsqueeze(1))[:, 0], plan.energy, atol=1e-5)
    state, rows = torch.zeros(5, dtype=torch.long), torch.arange(5)
    for time in range(6):
        if time >= 4:
            assert torch.equal(plan.actions[:, time], problem.policy[rows, state].argmax(1))
        state = problem.following[rows, state, plan.actions[:, time]]


def test_the_baseline_is_what_the_first_simulation_found() -> None:
    problem = Chain(2)
    plan = run(TreeSearch(), problem, THREE, Budget(4, 30, 1), batch=3)
    rows, start = torch.arange(3), torch.zeros(3, dtype=torch.long)
    place = (rows, start, problem.policy[:, 0].argmax(1))
    expected = 0.9 * (problem.costs[place] + problem.going[place] * problem.values[rows, problem.following[place]])
    assert torch.allclose(plan.baseline, expected, atol=1e-6)


def test_joint_actions_and_their_marginals() -> None:
    """The prior of a joint action is the product of its components'; its visits add up to theirs."""
    weights = [torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.5, 0.2, 0.1, 0.1]), torch.tensor([0.3, 0.7])]

    class Partial(Distance):
        def prior(self, nodes: Any) -> Tensor:
            return torch.cat(weights).expand(*nodes[0].shape, -1)

        def step(self, nodes: Any, actions: Tensor) -> Any:
            after, cost, going = super().step(nodes, actions)
            return after, cost * 0, going

    objective = Partial(MULTI, targets(MULTI, batch=2, horizon=2))
    plan = run(TreeSearch(exploration=0), objective, MULTI, Budget(2, 151, 1), batch=2)
    assert torch.allclose(first(plan), torch.cat(weights).expand(2, -1), atol=0.05)


def test_what_a_watch_sees_while_the_tree_grows() -> None:
    problem, seen = Chain(6, batch=4), []
    plan = run(TreeSearch(), problem, THREE, Budget(4, 31, 1), batch=4, watch=seen.append)
    assert torch.equal(seen[0].energy, plan.baseline) and seen[0].effective.tolist() == [1] * 4
    last = seen[-2]
    assert torch.allclose(last.effective, 1 / first(plan).square().sum(1), atol=1e-4)
    assert torch.equal(last.actions[:, 0], first(plan).argmax(1))
    assert (last.spread > 0).all()
