"""Every planner finds the known optimum of every space that it solves, and thinks better the more it may think."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forethought.planners import (
    PLANNERS,
    BeamSearch,
    Budget,
    CategoricalCEM,
    RandomShooting,
    TreeSearch,
    default_planner,
    make_planner,
)
from forethought.planners.actions import bounds
from gymnasium import spaces
from torch import Tensor

from .problems import (
    DISCRETE,
    MULTI,
    PAIRS,
    SAMPLING,
    SKEWED,
    SPACES,
    Chain,
    Distance,
    Watched,
    contained,
    generator,
    run,
    sizes,
    targets,
)

IMPROVING = [pair for pair in PAIRS if pair[0] != "random_shooting"]
BOXES = [pair for pair in PAIRS if isinstance(SPACES[pair[1]], spaces.Box)]
ENOUGH = {"icem": Budget(4, 256, 25), "gradient": Budget(4, 8, 60), "tree": Budget(2, 90, 2)}
CEMS = [(default_planner(space), label) for label, space in SPACES.items()]


@pytest.mark.parametrize(("name", "label"), IMPROVING)
def test_a_different_optimum_is_found_in_every_environment(name: str, label: str) -> None:
    space, budget = SPACES[label], ENOUGH.get(name, Budget(4, 256, 12))
    target = targets(space, batch=4, horizon=budget.horizon)
    plan = run(make_planner(name, space), Distance(space, target), space, budget, batch=4)
    assert contained(plan.actions, space)
    if isinstance(space, spaces.Box):
        assert (plan.energy < 2e-3).all()
        low, high = bounds(space, "cpu")
        assert ((plan.actions - target).abs() < 0.15 * (high - low) / 2).all()
    else:
        assert torch.equal(plan.actions, target)
        assert plan.energy.abs().max() < 1e-6


@pytest.mark.parametrize("label", SPACES)
def test_random_shooting_finds_the_optimum_of_one_step(label: str) -> None:
    space = SPACES[label]
    target = targets(space, batch=3, horizon=1)
    plan = run(RandomShooting(), Distance(space, target), space, Budget(1, 500, 4), batch=3)
    assert (plan.energy <= (0.02 if isinstance(space, spaces.Box) else 0)).all()
    assert contained(plan.actions, space)


@pytest.mark.parametrize(("name", "label"), BOXES)
@pytest.mark.parametrize("side", [-1, 1])
def test_an_optimum_in_the_corner_is_reached_from_inside(name: str, label: str, side: int) -> None:
    space = SPACES[label]
    low, high = bounds(space, "cpu")
    signs = side * (-1) ** torch.arange(len(low))  # one bound above, the next below
    corner = torch.where(signs > 0, high, low)
    objective = Watched(lambda actions: -(actions * signs / (high - low)).flatten(2).sum(-1))
    plan = run(make_planner(name, space), objective, space, Budget(1, 300, 25))
    near = 0.3 if name == "random_shooting" else 1e-6
    assert ((plan.actions - corner).abs() <= near * (high - low)).all()
    assert all(contained(asked, space) for asked in objective.asked[::5])


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[1] in ("discrete", "multi")])
@pytest.mark.parametrize("last", [False, True])
def test_first_and_last_actions_are_reachable(name: str, label: str, last: bool) -> None:
    space = SPACES[label]
    target = torch.tensor([[[n - 1 if last else 0 for n in sizes(space)]]])
    target = target[..., 0] if isinstance(space, spaces.Discrete) else target
    plan = run(make_planner(name, space), Distance(space, target), space, Budget(1, 200, 1))
    assert torch.equal(plan.actions, target)


@pytest.mark.parametrize(("name", "label"), SAMPLING)
def test_planners_follow_their_objective(name: str, label: str) -> None:
    """True energies are lower than those of a control that sees the same candidates with shuffled energies."""
    space = SPACES[label]
    true = Distance(space, targets(space, batch=8, horizon=4))
    mix = generator(3)

    def shuffled(actions: Tensor) -> Tensor:
        return true(actions)[:, torch.randperm(actions.shape[1], generator=mix)]

    planner, budget = make_planner(name, space), Budget(4, 64, 3)
    control = run(planner, shuffled, space, budget, batch=8)
    plan = run(planner, true, space, budget, batch=8)
    assert torch.equal(true(plan.actions.unsqueeze(1))[:, 0], plan.energy)
    assert plan.energy.mean() < 0.6 * true(control.actions.unsqueeze(1)).mean()
    assert (plan.energy < plan.baseline).all()


BRUTE: list[tuple[Any, Budget]] = [
    (CategoricalCEM(elites=0.2, momentum=0.5, smoothing=4.0), Budget(4, 40, 10)),
    (BeamSearch(), Budget(4, 30, 1)),
    (BeamSearch(guided=False), Budget(4, 30, 1)),
    (TreeSearch(), Budget(4, 125, 1)),
]


@pytest.mark.parametrize(("planner", "budget"), BRUTE)
def test_brute_force_finds_nothing_better_in_a_small_mdp(planner: Any, budget: Budget) -> None:
    for seed in range(3):
        problem = Chain(seed, batch=8)
        plan = run(planner, problem, spaces.Discrete(3), budget, batch=8, seed=seed)
        assert torch.allclose(plan.energy, problem.least(), atol=1e-5)
        assert torch.allclose(problem(plan.actions.unsqueeze(1))[:, 0], plan.energy, atol=1e-5)


def test_default_categorical_cem_closes_the_gap_to_brute_force() -> None:
    """The default options converge fast: they may miss the optimum of a rugged MDP, by little."""
    gaps, gains = [], []
    for seed in range(20):
        problem = Chain(seed)
        least = problem.least()
        plan = run(CategoricalCEM(), problem, spaces.Discrete(3), Budget(4, 40, 6), batch=3, seed=seed)
        assert (plan.energy >= least - 1e-6).all()
        gaps.append(plan.energy - least)
        gains.append(plan.baseline - least)
    assert torch.cat(gaps).mean() < 0.05 * torch.cat(gains).mean()
    assert (torch.cat(gaps) < 1e-6).float().mean() > 0.75


@pytest.mark.parametrize(("name", "label"), [pair for pair in IMPROVING if pair[0] != "tree"])
def test_planners_beat_random_shooting_at_no_more_calls(name: str, label: str) -> None:
    space = SPACES[label]
    objective = Distance(space, targets(space, batch=16, horizon=8))
    budget = Budget(8, 25, 32) if name == "gradient" else Budget(8, 100, 8)
    plan = run(make_planner(name, space), objective, space, budget, batch=16)
    floor = run(RandomShooting(), objective, space, Budget(8, 100, 8), batch=16)
    assert plan.calls <= floor.calls == budget.calls
    assert plan.energy.mean() < (0.6 if name == "mppi" else 0.4) * floor.energy.mean()


def mean_energy(name: str, label: str, budget: Budget) -> float:
    space = SPACES[label]
    objective = Distance(space, targets(space, batch=32, horizon=budget.horizon))
    return float(run(make_planner(name, space), objective, space, budget, batch=32).energy.mean())


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[0] not in ("beam", "tree")])
def test_energy_falls_with_the_budget(name: str, label: str) -> None:
    for budgets in ([(60, 1), (60, 3), (60, 9)], [(15, 3), (60, 3), (240, 3)]):
        energies = [mean_energy(name, label, Budget(5, *budget)) for budget in budgets]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] < 0.8 * energies[0]


@pytest.mark.parametrize("name", ["beam", "tree"])
def test_energy_falls_with_the_budget_in_rugged_mdps(name: str) -> None:
    planner: Any = PLANNERS[name]
    problems = [Chain(seed, batch=32, states=12, horizon=6) for seed in range(2)]
    gaps = []
    for candidates in (4, 12, 36):
        plans = [run(planner(), each, spaces.Discrete(3), Budget(6, candidates, 1), batch=32) for each in problems]
        gaps.append(float(torch.stack([p.energy - e.least() for p, e in zip(plans, problems, strict=True)]).mean()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.5 * gaps[0]


@pytest.mark.parametrize("space", [SKEWED, DISCRETE, MULTI], ids=["skewed", "discrete", "multi"])
def test_default_planners_solve_every_space(space: Any) -> None:
    target = targets(space, batch=2, horizon=2)
    plan = run(make_planner(default_planner(space), space), Distance(space, target), space, Budget(2, 100, 8), batch=2)
    assert (plan.energy < 2e-3).all()
