"""Every option of every planner is used, does what it says, and is refused when it is out of range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from forethought.planners import (
    ICEM,
    MPPI,
    PLANNERS,
    ActionSpace,
    BeamSearch,
    Budget,
    Categorical,
    CategoricalCEM,
    Gaussian,
    GaussianCEM,
    GradientDescent,
    Planner,
    Proposal,
    RandomShooting,
    TreeSearch,
)
from forethought.planners.actions import Components
from gymnasium import spaces

from .problems import BOX, DISCRETE, MULTI, Chain, Distance, Watched, generator, run, same, targets

Option = tuple[type[Planner], ActionSpace, dict[str, Any], dict[str, Any]]
THREE = spaces.Discrete(3)
GAUSSIAN: list[Option] = [
    (kind, BOX, one, other)
    for kind in (GaussianCEM, ICEM, MPPI)
    for one, other in (
        ({"elites": 3}, {"elites": 0.5}),
        ({"momentum": 0.0}, {"momentum": 0.5}),
        ({"initial_std": 0.2}, {"initial_std": 1.0}),
        ({"minimum_std": 0.0}, {"minimum_std": 0.4}),
        ({"try_mean": False}, {"try_mean": True}),
        ({"agreement": 0.0}, {"agreement": 0.7}),
    )
]
OPTIONS: list[Option] = [
    *GAUSSIAN,
    (RandomShooting, BOX, {"elites": 3}, {"elites": 0.5}),
    (RandomShooting, BOX, {"elites": 2, "minimum_std": 0.0}, {"elites": 2, "minimum_std": 0.9}),
    (RandomShooting, MULTI, {"smoothing": 0.0}, {"smoothing": 2.0}),
    (RandomShooting, MULTI, {"exploration": 0.0}, {"exploration": 0.9}),
    (ICEM, BOX, {"colour": 0.0}, {"colour": 2.0}),
    (ICEM, BOX, {"decay": 1.0}, {"decay": 1.5}),
    (ICEM, BOX, {"keep": 0.0, "elites": 6}, {"keep": 0.5, "elites": 6}),
    (MPPI, BOX, {"temperature": 0.1}, {"temperature": 1.0}),
    (MPPI, BOX, {"normalise": False}, {"normalise": True}),
    (GradientDescent, BOX, {"learning_rate": 0.01}, {"learning_rate": 0.3}),
    (GradientDescent, BOX, {"noise": 0.0}, {"noise": 0.3}),
    (GradientDescent, BOX, {"elites": 3}, {"elites": 0.5}),
    (GradientDescent, BOX, {"minimum_std": 0.0}, {"minimum_std": 0.9}),
    (CategoricalCEM, DISCRETE, {"elites": 3}, {"elites": 0.5}),
    (CategoricalCEM, DISCRETE, {"momentum": 0.0}, {"momentum": 0.5}),
    (CategoricalCEM, DISCRETE, {"smoothing": 0.0}, {"smoothing": 2.0}),
    (CategoricalCEM, DISCRETE, {"exploration": 0.0}, {"exploration": 0.9}),
    (CategoricalCEM, DISCRETE, {"agreement": 0.0}, {"agreement": 0.7}),
    (BeamSearch, THREE, {"guided": True, "elites": 8}, {"guided": False, "elites": 8}),
    (BeamSearch, THREE, {"elites": 1}, {"elites": 5}),
    (BeamSearch, THREE, {"smoothing": 0.0}, {"smoothing": 2.0}),
    (TreeSearch, THREE, {"prior": "actor"}, {"prior": "uniform"}),
    (TreeSearch, THREE, {"exploration": 0.0}, {"exploration": 0.9}),
    (TreeSearch, THREE, {"warm": 0.0}, {"warm": 1.0}),
    (TreeSearch, THREE, {"c1": 0.3}, {"c1": 5.0}),
    (TreeSearch, THREE, {"c2": 1.0}, {"c2": 1e6}),
]


def peaked(space: ActionSpace) -> Categorical:
    components = Components.of(space, "cpu")  # type: ignore[arg-type]
    return Categorical(components.normalise(torch.rand(2, 5, len(components.owner), generator=generator(4)) ** 6))


@pytest.mark.parametrize(("kind", "space", "one", "other"), OPTIONS)
def test_every_option_changes_the_outcome(
    kind: Callable[..., Planner], space: ActionSpace, one: dict[str, Any], other: dict[str, Any]
) -> None:
    objective = Chain(0, batch=2, horizon=5) if space is THREE else Distance(space, targets(space, batch=2, horizon=5))
    proposal = Proposal(peaked(space)) if {"exploration", "warm"} & set(one) else Proposal()
    budget = Budget(5, 12, 1) if kind in (BeamSearch, TreeSearch) else Budget(5, 30, 3)
    plans = [run(kind(**options), objective, space, budget, proposal=proposal, batch=2) for options in (one, other)]
    assert not same(*plans)


def test_all_options_are_covered() -> None:
    for kind in PLANNERS.values():
        covered = {option for known, _, one, _ in OPTIONS if known is kind for option in one}
        assert covered == {option.name for option in fields(kind)}  # type: ignore[arg-type]


def test_options_of_gaussians_do_what_they_say() -> None:
    """minimum_std, initial_std and momentum, each against its formula."""
    box = spaces.Box(-2, 6, (1,))
    flat = lambda actions: actions[..., 0].sum(-1)  # noqa: E731
    for kind in (GaussianCEM, ICEM, MPPI):
        tight = run(kind(elites=1, momentum=0.0, minimum_std=0.1), flat, box, Budget(2, 20, 1))
        assert isinstance(tight.distribution, Gaussian)
        assert torch.allclose(tight.distribution.std, torch.tensor(0.4))
        seen = Watched(flat)
        plain = run(kind(elites=1, momentum=0.0, initial_std=0.1), seen, box, Budget(1, 5000, 1))
        assert abs(seen.asked[0].mean() - 2) < 0.05 and abs(seen.asked[0].std() - 0.4) < 0.02
        slow = run(kind(elites=1, momentum=0.75, initial_std=0.1), flat, box, Budget(1, 5000, 1))
        assert isinstance(plain.distribution, Gaussian) and isinstance(slow.distribution, Gaussian)
        assert torch.allclose(slow.distribution.mean - 2, 0.25 * (plain.distribution.mean - 2))
        assert torch.allclose(slow.distribution.std, torch.tensor(0.75 * 0.4))


def test_when_the_mean_is_tried() -> None:
    """By CEM and MPPI from the second iteration on, by iCEM in the last one."""
    for kind, tried in ((GaussianCEM, [False, True, True]), (MPPI, [False, True, True]), (ICEM, [False, False, True])):
        seen = Watched(Distance(BOX, targets(BOX, batch=1, horizon=2)))
        means = [torch.zeros(1, 2, 2)]
        for iterations in (1, 2):  # what the mean is after so many
            plan = run(kind(try_mean=False), seen.objective, BOX, Budget(2, 40, iterations))
            assert isinstance(plan.distribution, Gaussian)
            means.append(plan.distribution.mean)
        run(kind(), seen, BOX, Budget(2, 40, 3))
        for iteration, expected in enumerate(tried):
            close = torch.allclose(seen.asked[iteration][:, -1], means[iteration], atol=1e-6)
            assert close == expected or (kind is not ICEM and iteration == 2)  # whose second mean was tried before
        untried = Watched(seen.objective)
        run(kind(try_mean=False), untried, BOX, Budget(2, 40, 3))
        assert not torch.allclose(untried.asked[1][:, -1], means[1], atol=1e-3)


def test_smoothing_and_momentum_of_the_categorical_cem() -> None:
    planner = CategoricalCEM(elites=1, momentum=0.5, smoothing=1.0)
    best = run(planner, Distance(DISCRETE, torch.tensor([[3]])), DISCRETE, Budget(1, 99, 1))
    assert isinstance(best.distribution, Categorical)
    assert torch.allclose(best.distribution.probabilities[0, 0], 0.5 * torch.tensor([1, 1, 1, 2, 1]) / 6 + 0.1)


WRONG: dict[str, list[Any]] = {
    "elites": [0, -3, 0.0, 1.5, math.nan, True],
    "momentum": [-0.1, 1.0, math.nan],
    "smoothing": [-1.0, math.inf],
    "exploration": [-0.1, 1.1],
    "minimum_std": [-0.1, 1.1],
    "initial_std": [0.0, -1.0, 0.01, math.inf],
    "agreement": [-0.1, 1.0, math.nan],
    "temperature": [0.0, -1.0, math.inf, math.nan],
    "colour": [-1.0, 11.0, math.nan],
    "decay": [0.9, math.inf, math.nan],
    "keep": [-0.1, 1.1],
    "learning_rate": [0.0, -0.1, 3.0, math.nan],
    "noise": [-0.1, 3.0],
    "prior": ["critic", None],
    "warm": [-0.1, 1.1],
    "c1": [-1.0, math.inf],
    "c2": [0.0, math.inf],
}


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (kind, option, value)
        for kind in PLANNERS.values()
        for option, values in WRONG.items()
        for value in values
        if option in {each.name for each in fields(kind)}  # type: ignore[arg-type]
    ],
)
def test_options_are_validated(kind: Callable[..., Planner], option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        kind(**{option: value})


@pytest.mark.parametrize("kind", [GaussianCEM, ICEM, MPPI, CategoricalCEM])
def test_one_elite_cannot_agree(kind: Callable[..., Planner]) -> None:
    with pytest.raises(ValueError, match=r"agreement=0\.1 with elites=1, expected elites >= 2"):
        kind(elites=1, agreement=0.1)


@pytest.mark.parametrize("kind", PLANNERS.values())
def test_unknown_options_raise(kind: Callable[..., Planner]) -> None:
    with pytest.raises(TypeError, match="inertia"):
        kind(inertia=1.0)
