"""What planners refuse, and what they say then."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.planners import (
    PLANNERS,
    ActionSpace,
    BeamSearch,
    Budget,
    Categorical,
    CategoricalCEM,
    Gaussian,
    GaussianCEM,
    Objective,
    Plan,
    Proposal,
    RandomShooting,
    TreeSearch,
    default_planner,
    make_planner,
    uniform,
    uninformed,
)
from forethought.planners.checks import SUPPORTED
from gymnasium import spaces
from torch import Tensor

from .problems import BOX, DISCRETE, MULTI, PAIRS, SAMPLING, SPACES, STEPWISE, Chain, Distance, generator, run, targets


def zero(actions: Tensor) -> Tensor:
    return torch.zeros(actions.shape[:2])


# ---- spaces


def test_every_planner_has_a_name_and_says_what_it_solves() -> None:
    assert list(PLANNERS) == ["random_shooting", "cem", "icem", "mppi", "gradient", "categorical_cem", "beam", "tree"]
    assert set(SUPPORTED) == set(PLANNERS)
    assert default_planner(BOX) == "cem" and default_planner(DISCRETE) == default_planner(MULTI) == "categorical_cem"
    for name, label in PAIRS:
        assert type(make_planner(name, SPACES[label])) is PLANNERS[name]


def test_errors_of_make_planner() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown planner 'ppo', expected one of 'random_shooting' \(Box, Discrete, MultiDiscrete\), 'cem' "
        r"\(Box\).*'tree' \(Discrete, MultiDiscrete\): for Box.* use 'cem'",
    ):
        make_planner("ppo", BOX)
    with pytest.raises(
        ValueError, match=r"'cem' expects a Box .* got Discrete\(5\): use 'random_shooting', 'cat.*', 'beam' or 'tree'"
    ):
        make_planner("cem", DISCRETE)
    with pytest.raises(
        ValueError,
        match=r"'tree' expects a Discrete or MultiDiscrete action space, got Box.*use.*'cem', 'icem', 'mppi' or 'grad",
    ):
        make_planner("tree", BOX)
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
        (spaces.MultiBinary(3), "expects a Box, Discrete or MultiDiscrete"),
    ],
)
def test_unsupported_spaces(space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(RandomShooting(), zero, space, Budget(2, 10, 1))


@pytest.mark.parametrize("name", PLANNERS)
def test_the_wrong_planner_for_a_space(name: str) -> None:
    for space in (BOX, DISCRETE, MULTI):
        if not isinstance(space, SUPPORTED[name]):
            with pytest.raises(ValueError, match=f"planner '{name}' expects a .*: use 'random_shooting', "):
                run(PLANNERS[name](), zero, space, Budget(2, 10, 1))


@pytest.mark.parametrize("name", STEPWISE)
def test_too_many_joint_actions(name: str) -> None:
    space = spaces.MultiDiscrete([5] * 4)
    objective = Distance(space, targets(space, 1, 2))
    with pytest.raises(ValueError, match=f"'{name}' tries every joint action and .* has 625 of them.*'categorical"):
        run(PLANNERS[name](), objective, space, Budget(2, 1000, 1))


# ---- budgets


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_budget_errors(name: str, label: str) -> None:
    planner, space = PLANNERS[name], SPACES[label]

    def refused(message: str, budget: Budget, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run(planner(**options), zero, space, budget)

    for option in ("horizon", "candidates", "iterations", "hold"):
        refused(f"{option}=0, expected {option} >= 1", replace(Budget(3, 10, 2), **{option: 0}))
        refused(f"{option}=2.5, expected a whole number", replace(Budget(3, 10, 2), **{option: 2.5}))
    for value in (0.0, -1.0, math.nan):
        refused(f"milliseconds={value}, expected more than 0", Budget(3, 10, 2, milliseconds=value))
    with pytest.raises(ValueError, match="batch=0"):
        run(planner(), zero, space, Budget(3, 10, 2), batch=0)
    if name != "tree":
        refused("elites=11 of candidates=10", Budget(3, 10, 2), elites=11)


def test_a_budget_that_does_not_pay_for_the_first_course() -> None:
    problem, space = Chain(0, horizon=5), spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"'beam' needs at least 15 predictor calls \(3 actions.* the budget has 10"):
        run(BeamSearch(), problem, space, Budget(5, 2, 1), batch=3)
    assert run(BeamSearch(), problem, space, Budget(5, 3, 1), batch=3).calls == 15
    with pytest.raises(ValueError, match=r"'tree' needs at least 6 predictor calls .* the budget has 5: raise"):
        run(TreeSearch(), problem, space, Budget(5, 1, 1), batch=3)
    with pytest.raises(ValueError, match=r"'tree' needs at least 12 predictor calls .* the budget has 10: raise"):
        proposal = Proposal(actions=torch.zeros(3, 1, 5).long())
        run(TreeSearch(), problem, space, Budget(5, 2, 1, hold=2), proposal=proposal, batch=3)
    assert run(TreeSearch(), problem, space, Budget(5, 2, 1), batch=3).calls == 10


# ---- objectives


@pytest.mark.parametrize(("name", "label"), SAMPLING)
def test_objective_errors(name: str, label: str) -> None:
    space, budget = SPACES[label], Budget(3, 10, 2)
    planner = make_planner(name, space)

    def ask(objective: Objective) -> Plan:
        return run(planner, objective, space, budget, batch=2)

    def at(value: float, *places: int) -> Objective:
        energies = torch.zeros(20).index_fill(0, torch.tensor(places), value).view(2, 10)
        return lambda actions: energies[:, : actions.shape[1]]

    with pytest.raises(ValueError, match=r"shape \[2, 10, 1\] for \[2, 10\]"):
        ask(lambda actions: torch.zeros(2, 10, 1))
    with pytest.raises(FloatingPointError, match=r"3 of 20 energies are not finite.*world model"):
        ask(at(math.nan, 1, 5, 19))
    with pytest.raises(FloatingPointError, match="1 of 20"):
        ask(at(-math.inf, 1))
    with pytest.raises(FloatingPointError, match="2 of 20"):
        ask(lambda actions: at(math.inf, 3)(actions) + at(-math.inf, 4, 14)(actions))
    with pytest.raises(FloatingPointError, match=r"all 10 candidates are forbidden.* in 1 of 2 environments"):
        ask(lambda actions: torch.tensor([[0.0], [math.inf]]).expand(2, actions.shape[1]))
    with pytest.raises(FloatingPointError, match="1 of 20"):
        ask(lambda actions: at(math.nan, 11)(actions) + torch.tensor([[math.inf], [0.0]]))
    assert ask(lambda actions: torch.ones(actions.shape[:2], dtype=torch.int64)).energy.tolist() == [1, 1]
    assert ask(lambda actions: torch.ones(actions.shape[:2], dtype=torch.float64)).energy.dtype == torch.float64
    large = torch.full((2, 10), 3e38)
    plan = ask(lambda actions: large[:, : actions.shape[1]])
    assert plan.energy.tolist() == large[:, 0].tolist(), "finite, though their sum is not"


@pytest.mark.parametrize("name", STEPWISE)
def test_a_plain_function_cannot_be_followed_step_by_step(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' follows its objective step by step and function has no discount,"):
        run(PLANNERS[name](), zero, DISCRETE, Budget(2, 10, 1))


def test_an_objective_without_a_prior_is_refused_unless_that_is_wanted() -> None:
    class NoActor(Chain):
        prior = property()  # type: ignore[assignment]

    problem, space, budget = NoActor(0), spaces.Discrete(3), Budget(4, 8, 1)
    with pytest.raises(ValueError, match=r"'tree' .* NoActor has no prior: give it a StepwiseObjective"):
        run(TreeSearch(), problem, space, budget, batch=3)
    assert run(TreeSearch(prior="uniform"), problem, space, budget, batch=3).calls == 32
    assert run(BeamSearch(), problem, space, budget, batch=3).calls <= 32


class Broken(Chain):
    """A chain that goes wrong in one of the environments, in its second step or state."""

    where = "costs"
    value = math.nan

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where == "values":
            self.values[1, 1:] = self.value
        else:
            getattr(self, self.where)[1, 1:] = self.value


@pytest.mark.parametrize("name", STEPWISE)
@pytest.mark.parametrize(("where", "value"), [("costs", math.nan), ("going", math.nan), ("values", -math.inf)])
def test_numbers_that_are_none_are_refused_step_by_step(name: str, where: str, value: float) -> None:
    problem = type("Broke", (Broken,), {"where": where, "value": value})(0)
    with pytest.raises(FloatingPointError, match=r"not (finite|a finite number).*world model"):
        run(PLANNERS[name](), problem, spaces.Discrete(3), Budget(4, 20, 1), batch=3)


def test_a_prior_that_is_none_is_refused() -> None:
    problem = type("Broke", (Broken,), {"where": "policy"})(0)
    with pytest.raises(FloatingPointError, match="prior of the objective is not a finite number"):
        run(TreeSearch(), problem, spaces.Discrete(3), Budget(4, 20, 1), batch=3)
    with pytest.raises(ValueError, match=r"prior has shape \[3, 1, 3\], expected \[3, 1, 4\]"):
        run(TreeSearch(), Chain(0), spaces.Discrete(4), Budget(4, 20, 1), batch=3)


@pytest.mark.parametrize("name", STEPWISE)
def test_steps_of_the_wrong_shape_are_refused(name: str) -> None:
    class Wide(Chain):
        def step(self, nodes: Any, actions: Tensor) -> Any:
            nodes, cost, going = super().step(nodes, actions)
            return nodes, cost.unsqueeze(-1), going

    with pytest.raises(ValueError, match=r"step returned costs of shape \[3, \d+, 1\] and chances of shape \[3, \d+\]"):
        run(PLANNERS[name](), Wide(0), spaces.Discrete(3), Budget(4, 20, 1), batch=3)


def test_a_beam_avoids_what_is_forbidden() -> None:
    class Walled(Chain):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.costs[:, :, 0] = math.inf

    plan = run(BeamSearch(), Walled(0), spaces.Discrete(3), Budget(4, 30, 1), batch=3)
    assert (plan.actions != 0).all() and plan.energy.isfinite().all()
    with pytest.raises(FloatingPointError, match="to forbid actions by \\+inf, use 'beam'"):
        run(TreeSearch(), Walled(0), spaces.Discrete(3), Budget(4, 30, 1), batch=3)


# ---- proposals


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_proposal_errors(name: str, label: str) -> None:
    space: ActionSpace = SPACES[label]
    planner, budget = make_planner(name, space), Budget(3, 10, 2)
    if name in STEPWISE:
        budget = Budget(3, 200, 1)
    objective = Distance(space, targets(space, 2, 3))
    messages: list[str] = []

    def propose(proposal: Proposal) -> None:
        with pytest.raises(ValueError, match="propos") as raised:
            run(planner, objective, space, budget, proposal=proposal, batch=2)
        messages.append(str(raised.value))

    propose(Proposal(actions=uniform(space, 2, 4, 5, generator())))
    propose(Proposal(actions=uniform(space, 3, 4, 3, generator())))
    propose(Proposal(actions=uniform(space, 2, 4, 3, generator())[:, 0]))
    assert all("expected [2, P, 3" in message for message in messages)
    propose(Proposal(actions=uniform(space, 2, budget.candidates, 3, generator())))
    assert "fewer proposals than candidates" in messages[-1]
    good = uniform(space, 2, 4, 3, generator())
    if isinstance(space, spaces.Box):
        propose(Proposal(actions=good * math.nan))
    else:
        propose(Proposal(actions=good + 5))
        propose(Proposal(actions=good.float()))
    if name == "beam":  # to which a distribution is of no use
        return
    propose(Proposal(uninformed(space, 2, 4, "cpu")))
    propose(Proposal(uninformed(space, 1, 3, "cpu")))
    assert all("expected [2, 3, " in message for message in messages[-2:])
    propose(Proposal(uninformed(DISCRETE if isinstance(space, spaces.Box) else BOX, 2, 3, "cpu")))
    assert "expected a " in messages[-1]
    start = uninformed(space, 2, 3, "cpu")
    if isinstance(start, Gaussian):
        propose(Proposal(Gaussian(start.mean, -start.std)))
        propose(Proposal(Gaussian(start.mean * math.nan, start.std)))
    else:
        assert isinstance(start, Categorical)
        propose(Proposal(Categorical(start.probabilities * 2)))
        propose(Proposal(Categorical(start.probabilities * 0)))
        propose(Proposal(Categorical(start.probabilities - 1)))


def test_planners_are_values() -> None:
    assert GaussianCEM() == GaussianCEM() and CategoricalCEM(elites=3) != CategoricalCEM()
