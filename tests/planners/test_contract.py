"""What every planner promises: shapes, calls, seeds, held actions, the clock, the watch and the early stop."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from forethought.planners import (
    ICEM,
    MPPI,
    PLANNERS,
    Budget,
    Categorical,
    CategoricalCEM,
    Gaussian,
    GaussianCEM,
    Plan,
    Progress,
    Proposal,
    make_planner,
    repeat,
    uninformed,
)
from forethought.planners.actions import bounds
from gymnasium import spaces
from torch import Tensor

from .problems import (
    BOX,
    DISCRETE,
    MULTI,
    PAIRS,
    SAMPLING,
    SPACES,
    STEPWISE,
    Distance,
    Watched,
    contained,
    run,
    same,
    sizes,
    targets,
)

ITERATING = [pair for pair in SAMPLING if pair[0] != "icem"]
"""The same candidates in every iteration."""


def centre(plan: Plan) -> Tensor:
    """Mean or probabilities of a plan's distribution."""
    return plan.distribution.mean if isinstance(plan.distribution, Gaussian) else plan.distribution.probabilities


def few(name: str, budget: Budget) -> Budget:
    """The same budget, and one iteration of it for tree search, whose simulations come one after the other."""
    return replace(budget, iterations=1) if name == "tree" else budget


def sums_to_one(probabilities: Tensor, space: Any) -> bool:
    sums = torch.stack([part.sum(-1) for part in torch.split(probabilities, sizes(space), -1)])
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_shapes_types_and_calls_of_a_plan(name: str, label: str, hold: int) -> None:
    space, budget = SPACES[label], few(name, Budget(horizon=7, candidates=40, iterations=6, hold=hold))
    objective = Distance(space, targets(space, batch=2, horizon=7))
    plan = run(make_planner(name, space), objective, space, budget, batch=2)
    tail = () if isinstance(space, spaces.Discrete) else space.shape
    dtype = torch.float32 if isinstance(space, spaces.Box) else torch.int64
    assert plan.actions.shape == (2, 7, *tail) and plan.actions.dtype == dtype and contained(plan.actions, space)
    assert plan.elites.shape == (2, plan.elites.shape[1], 7, *tail) and plan.elites.dtype == dtype
    assert plan.energy.shape == plan.baseline.shape == (2,)
    assert torch.allclose(objective(plan.actions.unsqueeze(1))[:, 0], plan.energy, atol=1e-6)
    assert 0 < plan.calls <= budget.calls and plan.milliseconds > 0
    fresh = uninformed(space, 2, 7, "cpu")
    if isinstance(fresh, Gaussian):
        assert isinstance(plan.distribution, Gaussian)
        assert plan.distribution.mean.shape == plan.distribution.std.shape == fresh.mean.shape
        assert (plan.distribution.std > 0).all()
        low, high = bounds(space, "cpu")  # type: ignore[arg-type]
        assert ((plan.distribution.mean >= low) & (plan.distribution.mean <= high)).all()
    else:
        assert isinstance(plan.distribution, Categorical)
        assert plan.distribution.probabilities.shape == fresh.probabilities.shape
        assert (plan.distribution.probabilities >= 0).all() and sums_to_one(plan.distribution.probabilities, space)


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[0] not in STEPWISE])
def test_the_objective_is_asked_once_for_each_iteration_and_as_often_as_reported(
    name: str, label: str, hold: int
) -> None:
    space, budget = SPACES[label], Budget(horizon=7, candidates=20, iterations=3, hold=hold)
    objective = Watched(Distance(space, targets(space, batch=2, horizon=7)))
    plan = run(make_planner(name, space), objective, space, budget, batch=2)
    tail = () if isinstance(space, spaces.Discrete) else space.shape
    dtype = torch.float32 if isinstance(space, spaces.Box) else torch.int64
    populations = [20, 16, 12] if name == "icem" else [20] * 3
    assert [asked.shape for asked in objective.asked] == [(2, n, 7, *tail) for n in populations]
    assert all(asked.dtype == dtype and asked.is_contiguous() for asked in objective.asked)
    assert plan.calls == 7 * sum(populations)
    assert name == "icem" or plan.calls == budget.calls


@pytest.mark.parametrize(("name", "label"), ITERATING)
def test_best_ever_is_returned_and_the_baseline_is_the_first_mean(name: str, label: str) -> None:
    """Energies rise from iteration to iteration, so the best candidate is one of the first iteration."""
    space = SPACES[label]
    objective = Watched(lambda actions: torch.arange(30.0).roll(11).repeat(2, 1) + 100 * len(objective.asked))
    plan = run(make_planner(name, space), objective, space, Budget(3, 30, 4), batch=2)
    assert torch.equal(plan.actions, objective.asked[0][:, 11])
    assert plan.energy.tolist() == [100, 100]
    assert plan.baseline.tolist() == [114.5, 114.5]


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_same_seed_same_plan(name: str, label: str) -> None:
    space = SPACES[label]
    objective = Distance(space, targets(space, batch=2, horizon=4))
    planner, budget = make_planner(name, space), few(name, Budget(4, 40, 3))
    before = torch.get_rng_state()
    plan = run(planner, objective, space, budget, batch=2, seed=5)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    torch.rand(3)
    assert same(plan, run(planner, objective, space, budget, batch=2, seed=5))
    drawn = name not in STEPWISE
    assert same(plan, run(planner, objective, space, budget, batch=2, seed=6)) != drawn


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_a_plan_does_not_depend_on_the_other_environments(name: str, label: str) -> None:
    """The other environment wants something else, and its plan is another, but this one's stays as it is."""
    space, budget = SPACES[label], few(name, Budget(4, 30, 3))
    planner, one = make_planner(name, space), targets(space, batch=2, horizon=4)
    other = torch.stack([one[0], targets(space, batch=2, horizon=4, seed=8)[1]])
    plans = [run(planner, Distance(space, goal), space, budget, batch=2) for goal in (one, other)]
    assert torch.equal(plans[0].actions[0], plans[1].actions[0]) and plans[0].energy[0] == plans[1].energy[0]
    assert not torch.equal(plans[0].actions[1], plans[1].actions[1])
    one, other = (centre(plan) for plan in plans)
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[0] not in STEPWISE])
def test_a_plan_carries_no_gradient(name: str, label: str) -> None:
    space, weight = SPACES[label], torch.ones((), requires_grad=True)
    base = Distance(space, targets(space, batch=1, horizon=2))
    plan = run(make_planner(name, space), lambda actions: base(actions) * weight, space, Budget(2, 20, 2))
    assert not plan.energy.requires_grad and not plan.actions.requires_grad and not plan.baseline.requires_grad
    assert weight.grad is None


@pytest.mark.parametrize("horizon", [6, 7])
@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_hold_keeps_each_action(name: str, label: str, horizon: int) -> None:
    space = SPACES[label]
    target = repeat(targets(space, batch=2, horizon=3), 3, horizon, dim=1)
    distance = Distance(space, target)
    objective = Watched(distance)
    budget = Budget(horizon, 100, {"tree": 2, "gradient": 25}.get(name, 5), hold=3)
    plan = run(make_planner(name, space), distance if name in STEPWISE else objective, space, budget, batch=2)
    for actions in [asked.transpose(1, 2) for asked in objective.asked] + [plan.actions]:
        for start in range(0, horizon, 3):
            block = actions[:, start : start + 3]
            assert torch.equal(block, block[:, :1].expand_as(block))
    assert not torch.equal(plan.actions[:, 0], plan.actions[:, 3])
    assert torch.equal(centre(plan)[:, 0], centre(plan)[:, 2])
    if name != "random_shooting":
        assert (plan.energy < (0.05 if isinstance(space, spaces.Box) else 1e-6)).all()


@pytest.mark.parametrize("count", [1, 1.0, 0.001])
@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[0] != "tree"])
def test_one_elite_and_all_elites(name: str, label: str, count: float) -> None:
    space, planner = SPACES[label], PLANNERS[name]
    plan = run(planner(elites=count), Distance(space, targets(space, 2, 3)), space, Budget(3, 50, 4), batch=2)  # type: ignore[call-arg]
    assert plan.energy.isfinite().all()
    assert (plan.elites.shape[1] == 1) == (not isinstance(count, float) or count < 1)
    if isinstance(plan.distribution, Gaussian):
        assert plan.distribution.mean.isfinite().all()
        low, high = bounds(space, "cpu")  # type: ignore[arg-type]
        assert (plan.distribution.std >= 0.05 * (high - low) / 2 * (1 - 1e-6)).all()
    else:
        assert plan.distribution.probabilities.isfinite().all()


@pytest.mark.parametrize(("name", "label"), SAMPLING)
def test_one_candidate_one_iteration_one_step(name: str, label: str) -> None:
    space = SPACES[label]
    plan = run(make_planner(name, space), lambda actions: torch.zeros(1, 1), space, Budget(1, 1, 1))
    assert contained(plan.actions, space)
    assert torch.equal(plan.energy, plan.baseline)


def test_elites_come_best_first() -> None:
    objective = Distance(BOX, targets(BOX, batch=3, horizon=2))
    for planner in (GaussianCEM(), ICEM(), MPPI(elites=5)):
        plan = run(planner, objective, BOX, Budget(2, 50, 4), batch=3)
        energies = objective(plan.elites)
        assert torch.equal(energies, energies.sort(1).values) and plan.elites.shape[1] == 5


def test_a_dimension_without_room_stays_where_it_is() -> None:
    space = spaces.Box(torch.tensor([0.25, -1]).numpy(), torch.tensor([0.25, 1]).numpy())
    for name in ("cem", "icem", "mppi", "gradient"):
        plan = run(make_planner(name, space), lambda actions: actions.flatten(2).sum(-1), space, Budget(2, 50, 25))
        assert (plan.actions[..., 0] == 0.25).all() and (plan.actions[..., 1] == -1).all()
    agreed = run(GaussianCEM(agreement=0.9), lambda actions: actions.flatten(2).sum(-1), space, Budget(2, 50, 25))
    assert agreed.calls < 2 * 50 * 25


@pytest.mark.parametrize(("name", "label"), ITERATING)
def test_forbidden_candidates_are_avoided_and_do_not_shape_the_elites(name: str, label: str) -> None:
    """Only 3 of 30 candidates are allowed, fewer than the 10 elites."""
    space, allowed = SPACES[label], torch.tensor([4, 9, 20])
    objective = Watched(lambda actions: torch.full((1, 30), math.inf).index_fill(1, allowed, 2.0))
    options = {} if name == "random_shooting" else {"momentum": 0.0}
    planner: Any = PLANNERS[name]
    plan = run(planner(elites=10, **options), objective, space, Budget(2, 30, 1))
    chosen = objective.asked[0][0, allowed]
    assert any(torch.equal(plan.actions[0], candidate) for candidate in chosen)
    assert plan.baseline.item() == 2
    if isinstance(plan.distribution, Gaussian):
        assert torch.allclose(plan.distribution.mean[0], chosen.mean(0), atol=1e-5)
    else:
        parts = chosen.unsqueeze(-1) if isinstance(space, spaces.Discrete) else chosen
        counts = torch.cat(
            [torch.nn.functional.one_hot(p, n) for p, n in zip(parts.unbind(-1), sizes(space), strict=True)], -1
        )
        sums = torch.tensor([10 + 0.1 * n for n in sizes(space) for _ in range(n)])
        expected = (counts.float().mean(0) * 10 + 0.1) / sums
        assert torch.allclose(plan.distribution.probabilities[0], expected, atol=1e-5)


def test_once_forbidden_candidates_were_seen_later_iterations_weigh_right() -> None:
    """The first iteration forbids all but two of eight elites; iCEM keeps forbidden ones beside good new ones."""
    space = spaces.Box(-1, 1, (1,))
    asked: list[Tensor] = []

    def objective(actions: Tensor) -> Tensor:
        asked.append(actions.clone())
        energies = torch.arange(actions.shape[1]).float()[None] + len(asked)
        return energies.index_fill(1, torch.arange(2, actions.shape[1]), math.inf) if len(asked) == 1 else energies

    plan = run(ICEM(elites=8, keep=1.0, momentum=0.0), objective, space, Budget(1, 16, 2))
    assert isinstance(plan.distribution, Gaussian)
    assert torch.equal(plan.actions, asked[0][:, 0])
    expected = torch.cat((asked[0][:, :2], asked[1][:, :6]), 1).mean(1)
    assert torch.allclose(plan.distribution.mean, expected, atol=1e-6)


# ---- the clock


def slow(distance: Distance, seconds: float) -> Distance:
    """The same objective, in no hurry."""

    class Slow(Distance):
        def __call__(self, actions: Tensor) -> Tensor:
            time.sleep(seconds)
            return super().__call__(actions)

        def step(self, nodes: Any, actions: Tensor) -> Any:
            time.sleep(seconds)
            return super().step(nodes, actions)

    return Slow(distance.space, distance.target)


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[1] in ("box", "discrete")])
def test_a_decision_ends_when_its_time_is_spent(name: str, label: str) -> None:
    space = SPACES[label]
    objective = slow(Distance(space, targets(space, batch=2, horizon=3)), 0.01)
    plan = run(make_planner(name, space), objective, space, Budget(3, 20, 100, milliseconds=15), batch=2)
    if name == "beam":  # what remains is walked by the best course alone
        assert plan.calls in (5 + 5 + 5, 5 + 25 + 5)
    else:
        assert plan.milliseconds >= 15
        assert plan.calls <= (2 + 3 if name == "tree" else 2 * 3 * 20)


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[1] in ("box", "discrete")])
def test_without_time_one_iteration_is_made(name: str, label: str) -> None:
    space = SPACES[label]
    objective = Distance(space, targets(space, batch=2, horizon=3))
    plan = run(make_planner(name, space), objective, space, Budget(3, 20, 50, milliseconds=1e-6), batch=2)
    assert plan.calls == {"beam": 5 + 5 + 5, "tree": 1 + 3}.get(name, 3 * 20)
    assert torch.allclose(objective(plan.actions.unsqueeze(1))[:, 0], plan.energy, atol=1e-6)
    assert contained(plan.actions, space)


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_time_enough_changes_nothing(name: str, label: str) -> None:
    space, budget = SPACES[label], few(name, Budget(3, 30, 3))
    objective = Distance(space, targets(space, batch=2, horizon=3))
    plans = [
        run(make_planner(name, space), objective, space, each, batch=2)
        for each in (budget, replace(budget, milliseconds=60_000.0))
    ]
    assert same(*plans) and plans[0].calls == plans[1].calls


# ---- agreement


AGREEING: list[tuple[Any, Any]] = [
    (GaussianCEM, BOX), (ICEM, BOX), (MPPI, BOX), (CategoricalCEM, DISCRETE), (CategoricalCEM, MULTI),
]  # fmt: skip


@pytest.mark.parametrize(("planner", "space"), AGREEING)
def test_planning_stops_when_the_elites_agree(planner: Any, space: Any) -> None:
    objective, budget = Distance(space, targets(space, batch=3, horizon=3)), Budget(3, 60, 40)
    seen: list[Progress] = []
    full = run(planner(), objective, space, budget, batch=3)
    plans = [run(planner(agreement=a), objective, space, budget, batch=3) for a in (0.05, 0.15, 0.4)]
    assert full.calls > plans[0].calls > plans[1].calls > plans[2].calls
    assert plans[0].energy.mean() < 0.25 * plans[0].baseline.mean()
    watched = run(planner(agreement=0.15), objective, space, budget, batch=3, watch=seen.append)
    assert watched.calls == plans[1].calls == seen[-1].calls


def test_elites_agree_only_where_those_of_every_environment_do() -> None:
    """In the second environment nothing is better than anything else."""
    base = Distance(BOX, targets(BOX, batch=2, horizon=2))
    both, one = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [0.0]])
    plans = [
        run(GaussianCEM(agreement=0.1, momentum=0), lambda a, w=w: base(a) * w, BOX, Budget(2, 100, 15), batch=2)  # type: ignore[misc]
        for w in (both, one)
    ]
    assert plans[0].calls < plans[1].calls == 2 * 100 * 15


def test_agreement_is_measured_over_the_elites_alone() -> None:
    """Two elites half a range apart in one of two components: a mean deviation of 0.125 half ranges."""
    corner = torch.tensor([[[[0.0, 0.5]], [[0.0, 0.0]]]])

    def objective(actions: Tensor) -> Tensor:
        return (actions.unsqueeze(2) - corner.unsqueeze(1)).abs().flatten(3).sum(-1).amin(2)

    for agreement, calls in ((0.12, 2), (0.13, 1)):
        planner = GaussianCEM(elites=2, agreement=agreement, initial_std=1e-6, minimum_std=0)
        plan = run(planner, objective, BOX, Budget(1, 10, 2), proposal=Proposal(actions=corner))
        assert plan.calls == 10 * calls


# ---- the watch


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_a_watch_sees_every_iteration_and_changes_nothing(name: str, label: str) -> None:
    space, budget = SPACES[label], few(name, Budget(4, 30, 3, hold=2))
    objective = Distance(space, targets(space, batch=2, horizon=4))
    seen: list[Progress] = []
    plan: Plan = run(make_planner(name, space), objective, space, budget, batch=2, watch=seen.append)
    assert same(plan, run(make_planner(name, space), objective, space, budget, batch=2))
    iterations = {"beam": 2, "tree": 1 + (budget.calls - 4) // 2}.get(name, 3)
    assert [progress.iteration for progress in seen] == list(range(iterations))
    calls = [progress.calls for progress in seen]
    assert calls == sorted(calls) and calls[-1] == plan.calls
    for progress in seen:
        assert progress.energy.shape == progress.spread.shape == progress.effective.shape == (2,)
        assert progress.actions.shape == plan.actions.shape and contained(progress.actions, space)
        assert (progress.spread >= 0).all() and (progress.effective >= 1 - 1e-5).all()
    assert torch.equal(seen[-1].energy, plan.energy) and torch.equal(seen[-1].actions, plan.actions)
    if name not in STEPWISE:
        energies = torch.stack([progress.energy for progress in seen])
        assert torch.equal(energies, energies.cummin(0).values)
        assert all(torch.equal(objective(p.actions.unsqueeze(1))[:, 0], p.energy) for p in seen)


def test_what_a_watch_is_told_of_the_elites() -> None:
    energies = torch.tensor([[3.0, 1.0, 2.0, 7.0, math.inf], [5.0, 5.0, 5.0, 5.0, 5.0]])
    seen: list[Progress] = []
    run(GaussianCEM(elites=3), lambda actions: energies, BOX, Budget(1, 5, 1), batch=2, watch=seen.append)
    assert torch.allclose(seen[0].spread, torch.tensor([(2 / 3) ** 0.5, 0]))
    assert torch.allclose(seen[0].effective, torch.tensor([3.0, 3.0]))
    forbidden = energies.index_fill(1, torch.tensor([0, 2, 3]), math.inf)
    run(GaussianCEM(elites=3), lambda actions: forbidden, BOX, Budget(1, 5, 1), batch=2, watch=seen.append)
    assert torch.allclose(seen[1].effective, torch.tensor([1.0, 2.0])) and seen[1].spread.tolist() == [0, 0]
