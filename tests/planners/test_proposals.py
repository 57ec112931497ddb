"""Where planners may start: proposed actions, proposed distributions, and the last plan moved on in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forethought.planners import (
    ICEM,
    PLANNERS,
    BeamSearch,
    Budget,
    Categorical,
    Gaussian,
    GaussianCEM,
    GradientDescent,
    Proposal,
    RandomShooting,
    TreeSearch,
    default_planner,
    make_planner,
    shift,
    shift_actions,
    shift_elites,
    uniform,
    uninformed,
)
from forethought.planners.actions import block_mean, bounds
from gymnasium import spaces
from torch import Tensor

from .problems import (
    BOX,
    DISCRETE,
    DOUBLE,
    PAIRS,
    SAMPLING,
    SKEWED,
    SPACES,
    STEPWISE,
    Chain,
    Distance,
    Watched,
    contained,
    generator,
    run,
    same,
    sharp,
    targets,
)  # fmt: skip


@pytest.mark.parametrize("hold", [1, 2])
@pytest.mark.parametrize(("name", "label"), SAMPLING)
def test_proposed_actions_take_the_first_places_as_given(name: str, label: str, hold: int) -> None:
    space = SPACES[label]
    target = targets(space, batch=3, horizon=6)
    others = uniform(space, 3, 4, 6, generator(9))
    proposed = torch.cat((others, target.unsqueeze(1)), 1)
    objective, kept = Watched(Distance(space, target)), proposed.clone()
    budget = Budget(6, 20, 2, hold)
    plan = run(make_planner(name, space), objective, space, budget, proposal=Proposal(actions=proposed), batch=3)
    assert torch.equal(plan.actions, target)
    assert torch.equal(objective.asked[0][:, :5], proposed)
    assert not torch.equal(objective.asked[1][:, :5], proposed)
    assert torch.equal(proposed, kept)


@pytest.mark.parametrize("label", ["box", "skewed", "double"])
def test_gradients_start_from_proposed_actions(label: str) -> None:
    space = SPACES[label]
    target = targets(space, batch=3, horizon=6)
    proposed = torch.cat((uniform(space, 3, 2, 6, generator(9)), target.unsqueeze(1)), 1)
    objective = Watched(Distance(space, target))
    plan = run(GradientDescent(), objective, space, Budget(6, 8, 2), proposal=Proposal(actions=proposed), batch=3)
    assert torch.equal(objective.asked[0][:, :3], proposed)
    assert torch.equal(plan.actions, target) and (plan.energy == 0).all()


@pytest.mark.parametrize("hold", [1, 2])
@pytest.mark.parametrize("name", STEPWISE)
def test_the_plan_is_never_worse_than_what_was_proposed(name: str, hold: int) -> None:
    """So little is thought that the optimum is not found, and it is proposed; its calls are part of the budget."""
    problem, space, budget = Chain(0, batch=16, states=12, horizon=6), spaces.Discrete(3), Budget(6, 8, 1, hold)
    every = torch.cartesian_prod(*[torch.arange(3)] * 6).expand(16, -1, -1)
    best = every[:, None][torch.arange(16), 0, problem(every).argmin(1)]
    proposed = torch.stack((uniform(space, 16, 1, 6, generator(9))[:, 0], best), 1)
    asked = Watched(problem)

    class Asked(Chain):
        def __call__(self, sequences: Tensor) -> Tensor:
            return asked(sequences)

    alone = run(make_planner(name, space), problem, space, budget, batch=16)
    steps = Asked(0, batch=16, states=12, horizon=6)
    plan = run(make_planner(name, space), steps, space, budget, proposal=Proposal(actions=proposed), batch=16)
    assert (alone.energy > problem.least() + 0.01).any()
    assert torch.equal(plan.actions, best) and torch.allclose(plan.energy, problem.least(), atol=1e-6)
    assert len(asked.asked) == 1 and torch.equal(asked.asked[0], proposed)
    assert plan.calls == steps.steps + 2 * 6 <= budget.calls


def test_proposals_that_do_not_hold_start_a_gradient_as_their_means() -> None:
    objective = Watched(lambda actions: actions.flatten(2).sum(-1))
    proposed = torch.tensor([[-0.5, 0.5, 0.2, 0.4]]).view(1, 1, 4, 1)
    box = spaces.Box(-1, 1, (1,))
    run(GradientDescent(), objective, box, Budget(4, 3, 1, hold=2), proposal=Proposal(actions=proposed))
    assert torch.allclose(objective.asked[0][0, 0, :, 0], torch.tensor([0, 0, 0.3, 0.3]), atol=1e-6)


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[1] == "skewed"])
def test_proposed_actions_outside_the_box_are_clipped(name: str, label: str) -> None:
    objective, proposal = (
        Watched(lambda actions: actions.flatten(2).sum(-1)),
        Proposal(None, torch.full((1, 1, 2, 3), 50.0)),
    )
    run(make_planner(name, SKEWED), objective, SKEWED, Budget(2, 9, 1), proposal=proposal)
    assert torch.equal(objective.asked[0][0, 0], bounds(SKEWED, "cpu")[1].expand(2, 3))


@pytest.mark.parametrize(("name", "label"), SAMPLING)
def test_a_warm_start_beats_a_cold_one(name: str, label: str) -> None:
    """After two steps of a plan, its shifted distribution is a better start than none for one iteration."""
    space = SPACES[label]
    whole = targets(space, batch=32, horizon=8)
    planner = make_planner(name, space)
    long = run(planner, Distance(space, whole[:, :6]), space, Budget(6, 200, 8), batch=32)
    objective, budget = Distance(space, whole[:, 2:]), Budget(6, 30, 1)
    warm = run(planner, objective, space, budget, proposal=Proposal(shift(long, 2, space)), batch=32, seed=1)
    cold = run(planner, objective, space, budget, batch=32, seed=1)
    assert warm.energy.mean() < 0.9 * cold.energy.mean()
    assert warm.baseline.mean() < 0.9 * cold.baseline.mean()


@pytest.mark.parametrize(("name", "label"), [pair for pair in PAIRS if pair[0] not in ("beam", "tree")])
def test_a_proposed_distribution_steers_the_first_candidates(name: str, label: str) -> None:
    space = SPACES[label]
    target = targets(space, batch=2, horizon=4)
    objective, proposal = Distance(space, target), Proposal(sharp(space, target))
    planner, budget = make_planner(name, space), Budget(4, 200, 1)
    steered = Watched(objective)
    plan = run(planner, steered, space, budget, proposal=proposal, batch=2)
    less = 0.9 if name == "icem" else 0.25  # which begins every decision with its own standard deviation
    assert (plan.baseline < less * run(planner, objective, space, budget, batch=2).baseline).all()
    assert torch.unique(steered.asked[0].flatten(2), dim=1).shape[1] > 5, "a certain proposal must not stop the search"


def test_the_mean_of_a_proposed_distribution_is_tried_by_icem() -> None:
    target = targets(BOX, batch=2, horizon=4)
    asked = Watched(Distance(BOX, target))
    run(ICEM(), asked, BOX, Budget(4, 20, 1), proposal=Proposal(sharp(BOX, target)), batch=2)
    assert torch.equal(asked.asked[0][:, -1], target)
    assert 0.3 < (asked.asked[0][:, :-1] - target[:, None]).std() < 0.55


def test_a_proposed_distribution_is_part_of_the_trees_prior_at_the_root() -> None:
    """One simulation takes the prior's favourite, as nothing else is known."""
    problem, space = Chain(0, batch=3), spaces.Discrete(3)
    for favourite in range(3):
        proposal = Proposal(sharp(space, torch.full((3, 1), favourite)))
        for warm, expected in ((1.0, torch.full((3,), favourite)), (0.0, problem.policy[:, 0].argmax(1))):
            plan = run(TreeSearch(warm=warm), problem, space, Budget(1, 2, 1), proposal=proposal, batch=3)
            assert isinstance(plan.distribution, Categorical)
            assert torch.equal(plan.distribution.probabilities[:, 0].argmax(1), expected)


def test_beam_search_leaves_a_proposed_distribution_alone() -> None:
    problem, space = Chain(0, batch=3), spaces.Discrete(3)
    proposal = Proposal(sharp(space, torch.ones(3, 4, dtype=torch.long)))
    plans = [run(BeamSearch(), problem, space, Budget(4, 8, 1), proposal=p, batch=3) for p in (proposal, Proposal())]
    assert same(*plans)


def test_a_proposal_of_float64_on_the_edge_of_a_box() -> None:
    proposal = Proposal(Gaussian(torch.full((1, 2, 2), 9.0).double(), torch.full((1, 2, 2), 0.1).double()))
    for name in ("random_shooting", "cem", "icem", "mppi", "gradient"):
        plan = run(
            make_planner(name, DOUBLE), lambda a: a.flatten(2).sum(-1), DOUBLE, Budget(2, 50, 2), proposal=proposal
        )
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


@pytest.mark.parametrize("name", ["random_shooting", "categorical_cem", "beam"])
def test_an_elite_that_does_not_hold_shapes_the_held_distribution_as_its_mean(name: str) -> None:
    options: dict[str, Any] = {"elites": 1, "smoothing": 0.0}
    if name == "categorical_cem":
        options["momentum"] = 0.0
    target = torch.tensor([[0, 1, 2, 3]])
    proposal = Proposal(actions=target.unsqueeze(1))
    planner: Any = PLANNERS[name]
    plan = run(planner(**options), Distance(DISCRETE, target), DISCRETE, Budget(4, 9, 1, hold=2), proposal=proposal)
    assert isinstance(plan.distribution, Categorical)
    expected = [[0.5, 0.5, 0, 0, 0]] * 2 + [[0, 0, 0.5, 0.5, 0]] * 2
    assert plan.distribution.probabilities[0].tolist() == expected


def test_elites_of_random_shooting_are_the_best_of_all_iterations() -> None:
    objective = Watched(Distance(BOX, targets(BOX, batch=2, horizon=3)))
    plan = run(RandomShooting(elites=4), objective, BOX, Budget(3, 30, 5), batch=2)
    every = torch.cat(objective.asked, 1)
    best = objective.objective(every).topk(4, largest=False).indices
    elites = every[torch.arange(2)[:, None], best]
    assert torch.equal(plan.elites, elites)
    assert isinstance(plan.distribution, Gaussian)
    assert torch.allclose(plan.distribution.mean, elites.mean(1), atol=1e-5)
    assert torch.allclose(plan.distribution.std, elites.std(1, correction=0).clamp(min=0.05), atol=1e-5)


# ---- moving on in time


@pytest.mark.parametrize("label", SPACES)
def test_shift_moves_the_plan_and_forgets_its_end(label: str) -> None:
    space = SPACES[label]
    planner = make_planner(default_planner(space), space)
    plan = run(planner, Distance(space, targets(space, 2, 5)), space, Budget(5, 40, 3), batch=2)

    def tensors(distribution: Gaussian | Categorical) -> list[Tensor]:
        return list(vars(distribution).values())

    fresh, old = tensors(uninformed(space, 2, 5, "cpu")), tensors(plan.distribution)
    for steps in (0, 2, 5, 99):
        for new, was, end in zip(tensors(shift(plan, steps, space)), old, fresh, strict=True):
            assert torch.equal(new, torch.cat((was[:, steps:], end[:, : min(steps, 5)]), 1))
        best, elites = plan.actions[:, None], plan.elites[:, :3]
        for courses, moved in ((best, shift_actions(plan, steps)), (elites, shift_elites(plan, steps, 3))):
            assert torch.equal(moved[:, :, : max(5 - steps, 0)], courses[:, :, steps:])
            assert torch.equal(moved[:, :, -1], courses[:, :, -1])


def test_shifted_elites_help_icem_from_decision_to_decision() -> None:
    """With so few candidates that one decision alone finds little."""
    whole = targets(BOX, batch=64, horizon=12)
    budget, planner, energies = Budget(6, 12, 2), ICEM(elites=4), {}
    for count in (0, 1, 3):
        proposal, found = Proposal(), []
        for step in range(6):
            objective = Distance(BOX, whole[:, step : step + 6])
            plan = run(planner, objective, BOX, budget, proposal=proposal, batch=64, seed=step)
            proposal = Proposal(actions=shift_elites(plan, 1, count) if count else None)
            found.append(plan.energy.mean())
        energies[count] = float(torch.stack(found[1:]).mean())
    assert energies[3] < energies[1] < 0.9 * energies[0]


def test_shift_errors() -> None:
    plan = run(GaussianCEM(), lambda actions: actions.flatten(2).sum(-1), BOX, Budget(3, 20, 1))
    for moved in (lambda: shift(plan, -1, BOX), lambda: shift_actions(plan, -1), lambda: shift_elites(plan, -1, 2)):
        with pytest.raises(ValueError, match="steps=-1"):
            moved()
    with pytest.raises(ValueError, match="count=0, expected the number of elites"):
        shift_elites(plan, 1, 0)
    with pytest.raises(ValueError, match="Gaussian distribution does not belong"):
        shift(plan, 1, DISCRETE)
