"""Planners on analytic costs with known optima, a brute-forced MDP, and every option and error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.planners import (
    PLANNERS,
    ActionSpace,
    Budget,
    Categorical,
    CategoricalCEM,
    Gaussian,
    GaussianCEM,
    Objective,
    Plan,
    Planner,
    Proposal,
    RandomShooting,
    clip,
    default_planner,
    make_planner,
    repeat,
    shift,
    shift_actions,
    uniform,
    uninformed,
)
from forethought.planners.actions import Components, block_mean, bounds
from forethought.planners.sampling import draw_categorical, fit_categorical
from gymnasium import spaces
from torch import Tensor

BOX = spaces.Box(-1, 1, (2,))
SKEWED = spaces.Box(np.array([-0.4, 2.0, -9.0], np.float32), np.array([0.3, 2.5, -1.0], np.float32))
DOUBLE = spaces.Box(np.array([-0.1, 0.3]), np.array([0.7, 0.9]), dtype=np.float64)
DISCRETE = spaces.Discrete(5)
MULTI = spaces.MultiDiscrete([3, 5, 2])
SPACES: dict[str, ActionSpace] = {"box": BOX, "skewed": SKEWED, "double": DOUBLE, "discrete": DISCRETE, "multi": MULTI}
PAIRS = [
    pytest.param(name, space, id=f"{name}-{label}")
    for label, space in SPACES.items()
    for name in ("random_shooting", default_planner(space))
]
CEMS = [pytest.param(default_planner(space), space, id=label) for label, space in SPACES.items()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(
    planner: Planner,
    objective: Objective,
    space: ActionSpace,
    budget: Budget,
    *,
    proposal: Proposal | None = None,
    batch: int = 1,
    seed: int = 0,
) -> Plan:
    return planner.plan(objective, space, proposal or Proposal(), budget, batch, generator(seed))


def targets(space: ActionSpace, batch: int, horizon: int, seed: int = 7) -> Tensor:
    """A different optimum ``[B, T, ...]`` inside the bounds for every environment and step."""
    return uniform(space, batch, 1, horizon, generator(seed))[:, 0]


def distance(space: ActionSpace, target: Tensor) -> Objective:
    """0 at the target: mean squared distance in half ranges (Box), share of wrong actions (else)."""

    def objective(actions: Tensor) -> Tensor:
        goal = target.unsqueeze(1)
        if isinstance(space, spaces.Box):
            low, high = bounds(space, "cpu")
            return ((actions - goal) / ((high - low) / 2)).square().flatten(2).mean(-1)
        return (actions != goal).float().flatten(2).mean(-1)

    return objective


@dataclass
class Watched:
    """An objective that remembers what it was asked."""

    objective: Objective
    asked: list[Tensor] = field(default_factory=list)

    def __call__(self, actions: Tensor) -> Tensor:
        self.asked.append(actions.clone())
        return self.objective(actions)


def contained(actions: Tensor, space: ActionSpace) -> bool:
    flat = actions.flatten() if isinstance(space, spaces.Discrete) else actions.flatten(0, -2)
    return all(space.contains(action) for action in flat.numpy())


def same(one: Plan, other: Plan) -> bool:
    a, b = one.distribution, other.distribution
    equal = torch.equal(one.actions, other.actions) and torch.equal(one.energy, other.energy)
    if isinstance(a, Gaussian) and isinstance(b, Gaussian):
        return equal and torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    assert isinstance(a, Categorical) and isinstance(b, Categorical)
    return equal and torch.equal(a.probabilities, b.probabilities)


# ---------------------------------------------------------------------------------------- finding the optimum


@pytest.mark.parametrize(("name", "space"), CEMS)
def test_cem_finds_a_different_optimum_in_every_environment(name: str, space: ActionSpace) -> None:
    target = targets(space, batch=4, horizon=4)
    objective = Watched(distance(space, target))
    plan = run(make_planner(name, space), objective, space, Budget(4, 256, 12), batch=4)
    if isinstance(space, spaces.Box):
        assert (plan.energy < 2e-3).all()
        low, high = bounds(space, "cpu")
        assert ((plan.actions - target).abs() < 0.15 * (high - low) / 2).all()
    else:
        assert torch.equal(plan.actions, target)
        assert (plan.energy == 0).all()
    assert all(contained(asked, space) for asked in objective.asked[::4])


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_random_shooting_finds_the_optimum_of_one_step(space: ActionSpace) -> None:
    target = targets(space, batch=3, horizon=1)
    plan = run(RandomShooting(), distance(space, target), space, Budget(1, 500, 4), batch=3)
    assert (plan.energy <= (0.02 if isinstance(space, spaces.Box) else 0)).all()
    assert contained(plan.actions, space)


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_every_planner_follows_its_objective(name: str, space: ActionSpace) -> None:
    """True energies are lower than those of a control that sees the same candidates with shuffled energies."""
    true = distance(space, targets(space, batch=8, horizon=4))
    mix = generator(3)

    def shuffled(actions: Tensor) -> Tensor:
        return true(actions)[:, torch.randperm(actions.shape[1], generator=mix)]

    planner, budget = make_planner(name, space), Budget(4, 64, 3)
    control = run(planner, shuffled, space, budget, batch=8)
    plan = run(planner, true, space, budget, batch=8)
    assert torch.equal(true(plan.actions.unsqueeze(1))[:, 0], plan.energy)
    assert plan.energy.mean() < 0.5 * true(control.actions.unsqueeze(1)).mean()
    assert (plan.energy < plan.baseline).all()


@pytest.mark.parametrize("name", ["random_shooting", "cem"])
@pytest.mark.parametrize("side", [-1, 1])
def test_optimum_at_the_bound_is_reached_from_inside(name: str, side: int) -> None:
    objective = Watched(lambda actions: -side * actions.flatten(2).sum(-1))
    plan = run(make_planner(name, SKEWED), objective, SKEWED, Budget(1, 300, 8))
    low, high = bounds(SKEWED, "cpu")
    bound, near = (high, 0.3) if side > 0 else (low, 0.3)
    tolerance = 1e-6 if name == "cem" else near
    assert ((plan.actions - bound).abs() <= tolerance * (high - low)).all()
    assert all(contained(asked, SKEWED) for asked in objective.asked)


@pytest.mark.parametrize("name", ["random_shooting", "categorical_cem"])
@pytest.mark.parametrize("space", [DISCRETE, MULTI], ids=["discrete", "multi"])
@pytest.mark.parametrize("last", [False, True])
def test_first_and_last_actions_are_reachable(name: str, space: ActionSpace, last: bool) -> None:
    sizes = Components.of(space, "cpu").sizes  # type: ignore[arg-type]
    target = (sizes - 1 if last else sizes * 0).expand(1, 1, -1)
    target = target[..., 0] if isinstance(space, spaces.Discrete) else target
    plan = run(make_planner(name, space), distance(space, target), space, Budget(1, 200, 3))
    assert torch.equal(plan.actions, target)


def chain(seed: int = 0, states: int = 5, actions: int = 3, horizon: int = 4) -> tuple[Objective, Tensor]:
    """A random deterministic MDP per environment (3 of them), and the least energy found by exhausting it."""
    source = generator(seed)
    following = torch.randint(states, (3, states, actions), generator=source)
    costs = torch.rand(3, states, actions, generator=source)

    def objective(sequences: Tensor) -> Tensor:
        batch, candidates, _ = sequences.shape
        env, state = torch.arange(batch)[:, None], torch.zeros(batch, candidates, dtype=torch.long)
        energy = torch.zeros(batch, candidates)
        for action in sequences.unbind(2):
            energy = energy + costs[env, state, action]
            state = following[env, state, action]
        return energy

    every = torch.tensor(list(itertools.product(range(actions), repeat=horizon)))
    return objective, objective(every.expand(3, -1, -1)).min(1).values


@pytest.mark.parametrize("seed", range(5))
def test_categorical_cem_equals_brute_force_on_a_small_mdp(seed: int) -> None:
    objective, least = chain(seed)
    planner = CategoricalCEM(elites=0.2, momentum=0.5, smoothing=4.0)  # 0 misses in 300 such MDPs
    plan = run(planner, objective, spaces.Discrete(3), Budget(4, 40, 10), batch=3, seed=seed)
    assert torch.allclose(plan.energy, least)


def test_default_categorical_cem_closes_the_gap_to_brute_force() -> None:
    """The default options converge fast: they may miss the optimum of a rugged MDP, by little."""
    gaps, gains = [], []
    for seed in range(20):
        objective, least = chain(seed)
        plan = run(CategoricalCEM(), objective, spaces.Discrete(3), Budget(4, 40, 6), batch=3, seed=seed)
        assert (plan.energy >= least - 1e-6).all()
        gaps.append(plan.energy - least)
        gains.append(plan.baseline - least)
    assert torch.cat(gaps).mean() < 0.05 * torch.cat(gains).mean()
    assert (torch.cat(gaps) < 1e-6).float().mean() > 0.75


@pytest.mark.parametrize(("name", "space"), CEMS)
def test_cem_beats_random_shooting_at_equal_calls(name: str, space: ActionSpace) -> None:
    objective = distance(space, targets(space, batch=16, horizon=8))
    budget = Budget(8, 100, 8)
    plan = run(make_planner(name, space), objective, space, budget, batch=16)
    floor = run(RandomShooting(), objective, space, budget, batch=16)
    assert plan.calls == floor.calls == budget.calls
    assert plan.energy.mean() < 0.4 * floor.energy.mean()


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_energy_falls_with_the_budget(name: str, space: ActionSpace) -> None:
    objective = distance(space, targets(space, batch=32, horizon=5))
    planner = make_planner(name, space)

    def energy(candidates: int, iterations: int) -> float:
        return float(run(planner, objective, space, Budget(5, candidates, iterations), batch=32).energy.mean())

    for budgets in ([(60, 1), (60, 3), (60, 9)], [(15, 3), (60, 3), (240, 3)]):
        energies = [energy(*budget) for budget in budgets]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] < 0.8 * energies[0]


# ---------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_counts_shapes_and_types(name: str, space: ActionSpace, hold: int) -> None:
    budget = Budget(horizon=7, candidates=20, iterations=3, hold=hold)
    objective = Watched(distance(space, targets(space, batch=2, horizon=7)))
    plan = run(make_planner(name, space), objective, space, budget, batch=2)
    tail = () if isinstance(space, spaces.Discrete) else space.shape
    dtype = torch.float32 if isinstance(space, spaces.Box) else torch.int64
    assert [asked.shape for asked in objective.asked] == [(2, 20, 7, *tail)] * 3
    assert all(asked.dtype == dtype and asked.is_contiguous() for asked in objective.asked)
    assert sum(asked.shape[0] * asked.shape[1] * asked.shape[2] for asked in objective.asked) == 2 * budget.calls
    assert plan.calls == budget.calls
    assert plan.actions.shape == (2, 7, *tail) and plan.actions.dtype == dtype
    assert plan.energy.shape == plan.baseline.shape == (2,)
    assert plan.milliseconds > 0
    fresh = uninformed(space, 2, 7, "cpu")
    if isinstance(fresh, Gaussian):
        assert isinstance(plan.distribution, Gaussian)
        assert plan.distribution.mean.shape == plan.distribution.std.shape == fresh.mean.shape
        assert (plan.distribution.std > 0).all()
    else:
        assert isinstance(plan.distribution, Categorical)
        probabilities = plan.distribution.probabilities
        assert probabilities.shape == fresh.probabilities.shape
        assert (probabilities > 0).all()
        sizes = Components.of(space, "cpu").sizes  # type: ignore[arg-type]
        sums = torch.stack([part.sum(-1) for part in torch.split(probabilities, sizes.tolist(), -1)])
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_best_ever_is_returned_and_the_baseline_is_the_first_mean(name: str, space: ActionSpace) -> None:
    """Energies rise from iteration to iteration, so the best candidate is one of the first iteration."""
    objective = Watched(lambda actions: torch.arange(30.0).roll(11).repeat(2, 1) + 100 * len(objective.asked))
    plan = run(make_planner(name, space), objective, space, Budget(3, 30, 4), batch=2)
    assert torch.equal(plan.actions, objective.asked[0][:, 11])
    assert plan.energy.tolist() == [100, 100]
    assert plan.baseline.tolist() == [114.5, 114.5]


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_same_seed_same_plan(name: str, space: ActionSpace) -> None:
    objective = distance(space, targets(space, batch=2, horizon=4))
    planner, budget = make_planner(name, space), Budget(4, 40, 3)
    before = torch.get_rng_state()
    plan = run(planner, objective, space, budget, batch=2, seed=5)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    torch.rand(3)
    assert same(plan, run(planner, objective, space, budget, batch=2, seed=5))
    assert not same(plan, run(planner, objective, space, budget, batch=2, seed=6))


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_nothing_is_differentiated(name: str, space: ActionSpace) -> None:
    weight = torch.ones((), requires_grad=True)
    base = distance(space, targets(space, batch=1, horizon=2))
    plan = run(make_planner(name, space), lambda actions: base(actions) * weight, space, Budget(2, 20, 2))
    assert not plan.energy.requires_grad


@pytest.mark.parametrize(("name", "space"), PAIRS)
@pytest.mark.parametrize("horizon", [6, 7])
def test_hold_keeps_each_action(name: str, space: ActionSpace, horizon: int) -> None:
    target = repeat(targets(space, batch=2, horizon=3), 3, horizon, dim=1)
    objective = Watched(distance(space, target)) if horizon == 6 else Watched(lambda a: a.float().flatten(2).sum(-1))
    plan = run(make_planner(name, space), objective, space, Budget(horizon, 100, 5, hold=3), batch=2)
    for actions in [asked.transpose(1, 2) for asked in objective.asked] + [plan.actions]:
        for start in range(0, horizon, 3):
            block = actions[:, start : start + 3]
            assert torch.equal(block, block[:, :1].expand_as(block))
    assert not torch.equal(plan.actions[:, 0], plan.actions[:, 3]) or horizon == 7
    spread = plan.distribution.mean if isinstance(plan.distribution, Gaussian) else plan.distribution.probabilities
    assert torch.equal(spread[:, 0], spread[:, 2])
    if horizon == 6:
        free = run(make_planner(name, space), objective, space, Budget(6, 100, 5), batch=2)
        assert plan.energy.mean() <= free.energy.mean(), "three free actions are easier than six"


# ---------------------------------------------------------------------------------------- degenerate cases


@pytest.mark.parametrize("count", [1, 1.0, 0.001])
@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_one_elite_and_all_elites(name: str, space: ActionSpace, count: float) -> None:
    planner: Any = PLANNERS[name]
    plan = run(planner(elites=count), distance(space, targets(space, 2, 3)), space, Budget(3, 50, 4), batch=2)
    assert plan.energy.isfinite().all()
    if isinstance(plan.distribution, Gaussian):
        assert plan.distribution.mean.isfinite().all()
        low, high = bounds(space, "cpu")  # type: ignore[arg-type]
        assert (plan.distribution.std >= 0.05 * (high - low) / 2 * (1 - 1e-6)).all()
    else:
        assert plan.distribution.probabilities.isfinite().all()


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_one_candidate_one_iteration_one_step(name: str, space: ActionSpace) -> None:
    plan = run(make_planner(name, space), lambda actions: torch.zeros(1, 1), space, Budget(1, 1, 1))
    assert contained(plan.actions, space)
    assert torch.equal(plan.energy, plan.baseline)


def test_float64_bounds_hold_exactly_in_float32() -> None:
    low, high = bounds(DOUBLE, "cpu")
    assert (low.double().numpy() >= DOUBLE.low).all() and (high.double().numpy() <= DOUBLE.high).all()
    assert np.float32(-0.1) < -0.1, "this bound would be left by plain rounding"
    assert DOUBLE.contains(low.numpy()) and DOUBLE.contains(high.numpy())


def test_a_dimension_without_room_stays_where_it_is() -> None:
    space = spaces.Box(np.array([0.25, -1], np.float32), np.array([0.25, 1], np.float32))
    plan = run(GaussianCEM(), lambda actions: actions.flatten(2).sum(-1), space, Budget(2, 50, 5))
    assert (plan.actions[..., 0] == 0.25).all() and (plan.actions[..., 1] == -1).all()


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_forbidden_candidates_are_avoided_and_do_not_shape_the_elites(name: str, space: ActionSpace) -> None:
    """Only 3 of 30 candidates are allowed, fewer than the 10 elites."""
    allowed = torch.tensor([4, 9, 20])
    objective = Watched(lambda actions: torch.full((1, 30), math.inf).index_fill(1, allowed, 2.0))
    planner: Any = PLANNERS[name]
    options = {} if name == "random_shooting" else {"momentum": 0.0}
    plan = run(planner(elites=10, **options), objective, space, Budget(2, 30, 1))
    chosen = objective.asked[0][0, allowed]
    assert any(torch.equal(plan.actions[0], candidate) for candidate in chosen)
    assert plan.baseline.item() == 2
    if isinstance(plan.distribution, Gaussian):
        assert torch.allclose(plan.distribution.mean[0], chosen.mean(0), atol=1e-5)
    else:
        sizes = Components.of(space, "cpu").sizes.tolist()  # type: ignore[arg-type]
        parts = chosen.unsqueeze(-1) if isinstance(space, spaces.Discrete) else chosen
        counts = torch.cat(
            [torch.nn.functional.one_hot(p, n) for p, n in zip(parts.unbind(-1), sizes, strict=True)], -1
        )
        sums = torch.tensor([10 + 0.1 * n for n in sizes for _ in range(n)])
        expected = (counts.float().mean(0) * 10 + 0.1) / sums
        assert torch.allclose(plan.distribution.probabilities[0], expected, atol=1e-5)


# ---------------------------------------------------------------------------------------- proposals


@pytest.mark.parametrize("hold", [1, 2])
@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_proposed_optimum_is_returned(name: str, space: ActionSpace, hold: int) -> None:
    target = targets(space, batch=3, horizon=6)
    others = uniform(space, 3, 4, 6, generator(9))
    proposed = torch.cat((others, target.unsqueeze(1)), 1)
    objective = Watched(distance(space, target))
    proposal = Proposal(actions=proposed)
    kept = proposed.clone()
    plan = run(make_planner(name, space), objective, space, Budget(6, 20, 2, hold), proposal=proposal, batch=3)
    assert torch.equal(plan.actions, target)
    assert torch.equal(objective.asked[0][:, :5], proposed), "proposals take the first places as given"
    assert not torch.equal(objective.asked[1][:, :5], proposed)
    assert torch.equal(proposed, kept)


@pytest.mark.parametrize("name", ["random_shooting", "cem"])
def test_proposed_actions_outside_the_box_are_clipped(name: str) -> None:
    objective = Watched(lambda actions: actions.flatten(2).sum(-1))
    run(
        make_planner(name, SKEWED),
        objective,
        SKEWED,
        Budget(2, 9, 1),
        proposal=Proposal(None, torch.full((1, 1, 2, 3), 50.0)),
    )
    assert torch.equal(objective.asked[0][0, 0], bounds(SKEWED, "cpu")[1].expand(2, 3))


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_warm_start_beats_cold_start(name: str, space: ActionSpace) -> None:
    """After two steps of a plan, its shifted distribution is a better start than none for one iteration."""
    whole = targets(space, batch=32, horizon=8)
    planner = make_planner(name, space)
    long = run(planner, distance(space, whole[:, :6]), space, Budget(6, 200, 8), batch=32)
    objective, budget = distance(space, whole[:, 2:]), Budget(6, 30, 1)
    warm = run(planner, objective, space, budget, proposal=Proposal(shift(long, 2, space)), batch=32, seed=1)
    cold = run(planner, objective, space, budget, batch=32, seed=1)
    assert warm.energy.mean() < 0.9 * cold.energy.mean()
    assert warm.baseline.mean() < 0.9 * cold.baseline.mean()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_shift_moves_the_plan_and_forgets_its_end(space: ActionSpace) -> None:
    planner = make_planner(default_planner(space), space)
    plan = run(planner, distance(space, targets(space, 2, 5)), space, Budget(5, 40, 3), batch=2)

    def tensors(distribution: Gaussian | Categorical) -> list[Tensor]:
        gaussian = isinstance(distribution, Gaussian)
        return [distribution.mean, distribution.std] if gaussian else [distribution.probabilities]  # type: ignore[union-attr]

    fresh, old = tensors(uninformed(space, 2, 5, "cpu")), tensors(plan.distribution)
    for steps in (0, 2, 5, 99):
        for new, was, end in zip(tensors(shift(plan, steps, space)), old, fresh, strict=True):
            assert torch.equal(new, torch.cat((was[:, steps:], end[:, : min(steps, 5)]), 1))
        moved = shift_actions(plan, steps)[:, 0]
        assert torch.equal(moved[:, : max(5 - steps, 0)], plan.actions[:, steps:])
        assert torch.equal(moved[:, -1], plan.actions[:, -1])


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_proposed_distribution_steers_the_first_candidates(name: str, space: ActionSpace) -> None:
    target = targets(space, batch=2, horizon=4)
    objective = distance(space, target)
    if isinstance(space, spaces.Box):
        proposal = Proposal(Gaussian(target, torch.zeros_like(target)))
    else:
        parts = target.unsqueeze(-1) if isinstance(space, spaces.Discrete) else target
        sizes = Components.of(space, "cpu").sizes.tolist()
        hot = [torch.nn.functional.one_hot(p, n) for p, n in zip(parts.unbind(-1), sizes, strict=True)]
        proposal = Proposal(Categorical(torch.cat(hot, -1).float()))
    planner, budget = make_planner(name, space), Budget(4, 200, 1)
    steered = Watched(objective)
    plan = run(planner, steered, space, budget, proposal=proposal, batch=2)
    assert (plan.baseline < 0.25 * run(planner, objective, space, budget, batch=2).baseline).all()
    assert torch.unique(steered.asked[0].flatten(2), dim=1).shape[1] > 5, "a certain proposal must not stop the search"


def test_proposal_of_float64_on_the_edge_of_a_box() -> None:
    proposal = Proposal(Gaussian(torch.full((1, 2, 2), 9.0).double(), torch.full((1, 2, 2), 0.1).double()))
    plan = run(GaussianCEM(), lambda actions: actions.flatten(2).sum(-1), DOUBLE, Budget(2, 50, 2), proposal=proposal)
    assert contained(plan.actions, DOUBLE)


def test_held_proposals_are_averaged() -> None:
    values = torch.arange(5.0).view(1, 5, 1)
    assert block_mean(values, 2).flatten().tolist() == [0.5, 2.5, 4.0]
    assert block_mean(values, 1) is values
    seen = Watched(lambda actions: actions.flatten(2).sum(-1))
    mean = torch.tensor([-0.5, 0.5, 0.8, 0.8]).view(1, 4, 1)
    box = spaces.Box(-1, 1, (1,))
    start = Gaussian(mean, torch.zeros_like(mean))
    run(GaussianCEM(minimum_std=0), seen, box, Budget(4, 4000, 1, hold=2), proposal=Proposal(start))
    first = seen.asked[0][0, :, :, 0]
    assert first[:, 0].mean().abs() < 0.05 and 0.35 < first[:, 0].std() < 0.55, "moments of the two steps' mixture"
    assert torch.allclose(first[:, 2:], torch.tensor(0.8))


@pytest.mark.parametrize("name", ["random_shooting", "categorical_cem"])
def test_an_elite_that_does_not_hold_shapes_the_held_distribution_as_its_mean(name: str) -> None:
    options: dict[str, Any] = {"elites": 1, "smoothing": 0.0} | ({} if name == "random_shooting" else {"momentum": 0.0})
    target = torch.tensor([[0, 1, 2, 3]])
    proposal = Proposal(actions=target.unsqueeze(1))
    planner: Any = PLANNERS[name]
    plan = run(planner(**options), distance(DISCRETE, target), DISCRETE, Budget(4, 9, 1, hold=2), proposal=proposal)
    assert isinstance(plan.distribution, Categorical)
    expected = [[0.5, 0.5, 0, 0, 0]] * 2 + [[0, 0, 0.5, 0.5, 0]] * 2
    assert plan.distribution.probabilities[0].tolist() == expected


def test_elites_of_random_shooting_are_the_best_of_all_iterations() -> None:
    objective = Watched(distance(BOX, targets(BOX, batch=2, horizon=3)))
    plan = run(RandomShooting(elites=4), objective, BOX, Budget(3, 30, 5), batch=2)
    every = torch.cat(objective.asked, 1)
    best = objective.objective(every).topk(4, largest=False).indices
    elites = every[torch.arange(2)[:, None], best]
    assert isinstance(plan.distribution, Gaussian)
    assert torch.allclose(plan.distribution.mean, elites.mean(1), atol=1e-5)
    assert torch.allclose(plan.distribution.std, elites.std(1, correction=0).clamp(min=0.05), atol=1e-5)


# ---------------------------------------------------------------------------------------- sampling


def test_categorical_draws_follow_their_probabilities() -> None:
    components = Components.of(MULTI, "cpu")
    probabilities = components.normalise(torch.rand(2, 3, 10, generator=generator(1)) * torch.tensor([1, 0, *[1] * 8]))
    actions = draw_categorical(probabilities, components, 40_000, generator(2))
    weights = torch.full((2, 40_000), 1 / 40_000)
    assert torch.allclose(fit_categorical(actions, weights, components, 0), probabilities, atol=0.01)
    assert not (actions[..., 0] == 1).any(), "an action of probability 0 was drawn"


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_uniform_covers_the_space(space: ActionSpace) -> None:
    actions = uniform(space, 2, 3000, 3, generator(), hold=1)
    assert contained(actions[:, :100], space)
    if isinstance(space, spaces.Box):
        low, high = bounds(space, "cpu")
        assert torch.allclose(actions.mean((0, 1, 2)), (low + high) / 2, atol=0.05 * float((high - low).max()))
        assert torch.allclose(actions.amin((0, 1, 2)), low, atol=0.01 * float((high - low).max()))
    else:
        sizes = Components.of(space, "cpu").sizes.tolist()
        parts = actions.unsqueeze(-1) if isinstance(space, spaces.Discrete) else actions
        for part, size in zip(parts.flatten(0, -2).unbind(-1), sizes, strict=True):
            assert torch.allclose(part.bincount().float() / len(part), torch.full((size,), 1 / size), atol=0.02)


def test_clip() -> None:
    assert clip(torch.tensor([-9, 3, 9]), DISCRETE).tolist() == [0, 3, 4]
    assert clip(torch.tensor([-9, 4, 9]), MULTI).tolist() == [0, 4, 1]
    assert torch.allclose(clip(torch.tensor([-9, 2.2, 9]), SKEWED), torch.tensor([-0.4, 2.2, -1]))


# ---------------------------------------------------------------------------------------- options


OPTIONS: list[tuple[type[Planner], ActionSpace, dict[str, Any], dict[str, Any]]] = [
    (RandomShooting, BOX, {"elites": 3}, {"elites": 0.5}),
    (RandomShooting, BOX, {"elites": 2, "minimum_std": 0.0}, {"elites": 2, "minimum_std": 0.9}),
    (RandomShooting, MULTI, {"smoothing": 0.0}, {"smoothing": 2.0}),
    (RandomShooting, MULTI, {"exploration": 0.0}, {"exploration": 0.9}),
    (GaussianCEM, BOX, {"elites": 3}, {"elites": 0.5}),
    (GaussianCEM, BOX, {"momentum": 0.0}, {"momentum": 0.5}),
    (GaussianCEM, BOX, {"initial_std": 0.2}, {"initial_std": 1.0}),
    (GaussianCEM, BOX, {"minimum_std": 0.0}, {"minimum_std": 0.4}),
    (GaussianCEM, BOX, {"try_mean": False}, {"try_mean": True}),
    (CategoricalCEM, DISCRETE, {"elites": 3}, {"elites": 0.5}),
    (CategoricalCEM, DISCRETE, {"momentum": 0.0}, {"momentum": 0.5}),
    (CategoricalCEM, DISCRETE, {"smoothing": 0.0}, {"smoothing": 2.0}),
    (CategoricalCEM, DISCRETE, {"exploration": 0.0}, {"exploration": 0.9}),
]


@pytest.mark.parametrize(("kind", "space", "one", "other"), OPTIONS)
def test_every_option_changes_the_outcome(
    kind: Callable[..., Planner], space: ActionSpace, one: dict[str, Any], other: dict[str, Any]
) -> None:
    objective = distance(space, targets(space, batch=2, horizon=5))
    peaked = (
        Components.of(space, "cpu").normalise(
            torch.rand(2, 5, 10 if space is MULTI else 5, generator=generator(4)) ** 6
        )
        if not isinstance(space, spaces.Box)
        else None
    )
    proposal = Proposal(Categorical(peaked)) if "exploration" in one and peaked is not None else Proposal()
    plans = [
        run(kind(**options), objective, space, Budget(5, 30, 3), proposal=proposal, batch=2) for options in (one, other)
    ]
    assert not same(*plans)


def test_all_options_are_covered() -> None:
    for kind in PLANNERS.values():
        covered = {option for known, _, one, _ in OPTIONS if known is kind for option in one}
        assert covered == set(kind.__dataclass_fields__)  # type: ignore[attr-defined]


def test_options_do_what_they_say() -> None:
    """minimum_std, initial_std and momentum, each against its formula."""
    box = spaces.Box(-2, 6, (1,))
    flat: Objective = lambda actions: actions[..., 0].sum(-1)  # noqa: E731
    tight = run(GaussianCEM(elites=1, momentum=0.0, minimum_std=0.1), flat, box, Budget(2, 20, 1))
    assert isinstance(tight.distribution, Gaussian)
    assert torch.allclose(tight.distribution.std, torch.tensor(0.4))
    seen = Watched(flat)
    plain = run(GaussianCEM(elites=1, momentum=0.0, initial_std=0.1), seen, box, Budget(1, 5000, 1))
    assert abs(seen.asked[0].mean() - 2) < 0.05 and abs(seen.asked[0].std() - 0.4) < 0.02
    slow = run(GaussianCEM(elites=1, momentum=0.75, initial_std=0.1), flat, box, Budget(1, 5000, 1))
    assert isinstance(plain.distribution, Gaussian) and isinstance(slow.distribution, Gaussian)
    assert torch.allclose(slow.distribution.mean - 2, 0.25 * (plain.distribution.mean - 2))
    best = run(
        CategoricalCEM(elites=1, momentum=0.5, smoothing=1.0),
        distance(DISCRETE, torch.tensor([[3]])),
        DISCRETE,
        Budget(1, 99, 1),
    )
    assert isinstance(best.distribution, Categorical)
    assert torch.allclose(best.distribution.probabilities[0, 0], 0.5 * torch.tensor([1, 1, 1, 2, 1]) / 6 + 0.1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kind, {option: value})
        for kind in PLANNERS.values()
        for option, values in {
            "elites": [0, -3, 0.0, 1.5, math.nan, True],
            "momentum": [-0.1, 1.0, math.nan],
            "smoothing": [-1.0, math.inf],
            "exploration": [-0.1, 1.1],
            "minimum_std": [-0.1, 1.1],
            "initial_std": [0.0, -1.0, 0.01, math.inf],
        }.items()
        for value in values
        if option in kind.__dataclass_fields__  # type: ignore[attr-defined]
    ],
)
def test_options_are_validated(kind: Callable[..., Planner], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


@pytest.mark.parametrize("kind", PLANNERS.values())
def test_unknown_options_raise(kind: Callable[..., Planner]) -> None:
    with pytest.raises(TypeError, match="temperature"):
        kind(temperature=1.0)


# ---------------------------------------------------------------------------------------- errors


def test_make_planner_and_its_errors() -> None:
    assert list(PLANNERS) == ["random_shooting", "cem", "categorical_cem"]
    assert default_planner(BOX) == "cem" and default_planner(DISCRETE) == default_planner(MULTI) == "categorical_cem"
    assert isinstance(make_planner("cem", BOX), GaussianCEM)
    with pytest.raises(
        ValueError, match=r"unknown planner 'mppi', expected one of 'random_shooting', 'cem'.*use 'cem'"
    ):
        make_planner("mppi", BOX)
    with pytest.raises(ValueError, match=r"'cem' expects a Box .* got Discrete\(5\): use 'random_shooting' or 'cat"):
        make_planner("cem", DISCRETE)
    with pytest.raises(ValueError, match=r"'categorical_cem' expects a Discrete or MultiDiscrete .*or 'cem'"):
        make_planner("categorical_cem", BOX)
    with pytest.raises(ValueError, match="flatten it"):
        default_planner(spaces.Dict(a=BOX))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "bounded"),
        (spaces.Box(np.array([0, 0], np.float32), np.array([1, np.inf], np.float32)), "bounded"),
        (spaces.Box(-3e38, 3e38, (2,)), "bounded"),
        (spaces.Box(-1, 1, (2, 2)), r"shape \(A,\)"),
        (spaces.Box(0, 255, (2,), np.uint8), "MultiDiscrete"),
        (spaces.Box(np.array([0.1]), np.array([0.1]), dtype=np.float64), "no float32"),
        (spaces.Discrete(3, start=1), "count from 0"),
        (spaces.MultiDiscrete([3, 2], start=[0, 1]), "count from 0"),
        (spaces.MultiDiscrete(np.array([[3, 2], [2, 2]])), r"shape \(A,\)"),
        (spaces.MultiBinary(3), "expects a Box or Discrete or MultiDiscrete"),
    ],
)
def test_unsupported_spaces(space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(RandomShooting(), lambda actions: actions.flatten(2).sum(-1), space, Budget(2, 10, 1))


@pytest.mark.parametrize(("name", "space"), CEMS)
def test_the_wrong_planner_for_a_space(name: str, space: ActionSpace) -> None:
    wrong = CategoricalCEM() if name == "cem" else GaussianCEM()
    with pytest.raises(ValueError, match="use 'random_shooting' or"):
        run(wrong, lambda actions: torch.zeros(1, 10), space, Budget(2, 10, 1))


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_budget_errors(name: str, space: ActionSpace) -> None:
    planner: Any = PLANNERS[name]
    zero: Objective = lambda actions: torch.zeros(actions.shape[:2])  # noqa: E731
    for option in ("horizon", "candidates", "iterations", "hold"):
        with pytest.raises(ValueError, match=f"{option}=0, expected {option} >= 1"):
            run(planner(), zero, space, replace(Budget(3, 10, 2), **{option: 0}))
    with pytest.raises(ValueError, match="batch=0"):
        run(planner(), zero, space, Budget(3, 10, 2), batch=0)
    with pytest.raises(ValueError, match="elites=11 of candidates=10"):
        run(planner(elites=11), zero, space, Budget(3, 10, 2))


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_objective_errors(name: str, space: ActionSpace) -> None:
    planner, budget = make_planner(name, space), Budget(3, 10, 2)

    def ask(objective: Objective) -> Plan:
        return run(planner, objective, space, budget, batch=2)

    with pytest.raises(ValueError, match=r"shape \[2, 10, 1\] for \[2, 10\]"):
        ask(lambda actions: torch.zeros(2, 10, 1))
    with pytest.raises(FloatingPointError, match=r"3 of 20 energies are not finite.*world model"):
        ask(lambda actions: torch.zeros(20).index_fill(0, torch.tensor([1, 5, 19]), math.nan).view(2, 10))
    with pytest.raises(FloatingPointError, match="1 of 20"):
        ask(lambda actions: torch.zeros(20).index_fill(0, torch.tensor([1]), -math.inf).view(2, 10))
    with pytest.raises(FloatingPointError, match=r"all 10 candidates are forbidden.* in 1 of 2 environments"):
        ask(lambda actions: torch.tensor([[0.0], [math.inf]]).expand(2, 10))
    assert ask(lambda actions: torch.ones(2, 10, dtype=torch.int64)).energy.tolist() == [1, 1]
    assert ask(lambda actions: torch.ones(2, 10, dtype=torch.float64)).energy.dtype == torch.float64


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_proposal_errors(name: str, space: ActionSpace) -> None:
    planner, budget = make_planner(name, space), Budget(3, 10, 2)

    def propose(proposal: Proposal) -> None:
        with pytest.raises(ValueError, match="propos") as raised:
            run(planner, lambda actions: torch.zeros(2, 10), space, budget, proposal=proposal, batch=2)
        messages.append(str(raised.value))

    messages: list[str] = []
    propose(Proposal(actions=uniform(space, 2, 4, 5, generator())))
    propose(Proposal(actions=uniform(space, 3, 4, 3, generator())))
    propose(Proposal(actions=uniform(space, 2, 4, 3, generator())[:, 0]))
    assert all("expected [2, P, 3" in message for message in messages)
    propose(Proposal(actions=uniform(space, 2, 10, 3, generator())))
    assert "fewer proposals than candidates" in messages[-1]
    propose(Proposal(uninformed(space, 2, 4, "cpu")))
    propose(Proposal(uninformed(space, 1, 3, "cpu")))
    assert all("expected [2, 3, " in message for message in messages[-2:])
    propose(Proposal(uninformed(DISCRETE if isinstance(space, spaces.Box) else BOX, 2, 3, "cpu")))
    assert "expected a " in messages[-1]
    good = uniform(space, 2, 4, 3, generator())
    if isinstance(space, spaces.Box):
        propose(Proposal(actions=good * math.nan))
        start = uninformed(space, 2, 3, "cpu")
        assert isinstance(start, Gaussian)
        propose(Proposal(Gaussian(start.mean, -start.std)))
        propose(Proposal(Gaussian(start.mean * math.nan, start.std)))
    else:
        propose(Proposal(actions=good + 5))
        propose(Proposal(actions=good.float()))
        start = uninformed(space, 2, 3, "cpu")
        assert isinstance(start, Categorical)
        propose(Proposal(Categorical(start.probabilities * 2)))
        propose(Proposal(Categorical(start.probabilities * 0)))
        propose(Proposal(Categorical(start.probabilities - 1)))


def test_shift_errors() -> None:
    plan = run(GaussianCEM(), lambda actions: actions.flatten(2).sum(-1), BOX, Budget(3, 20, 1))
    for moved in (lambda: shift(plan, -1, BOX), lambda: shift_actions(plan, -1)):
        with pytest.raises(ValueError, match="steps=-1"):
            moved()
    with pytest.raises(ValueError, match="Gaussian distribution does not belong"):
        shift(plan, 1, DISCRETE)
