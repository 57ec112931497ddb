"""Gradients: through the model to the actions, into no parameter, and never out of the Box."""

from __future__ import annotations

import pytest
import torch
from forethought.planners import Budget, Gaussian, GradientDescent, Proposal
from gymnasium import spaces
from torch import Tensor, nn

from .problems import BOX, Distance, Watched, contained, run, same, targets

LINE = spaces.Box(-1, 1, (1,))


def test_no_parameter_of_the_model_gets_a_gradient() -> None:
    """Also under no_grad, where agents act."""
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    before = [parameter.clone() for parameter in model.parameters()]
    plans = []
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            objective = lambda actions: model(actions).squeeze(-1).mean(-1)  # noqa: E731
            plans.append(run(GradientDescent(), objective, BOX, Budget(3, 10, 30), batch=2))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert same(*plans) and (plans[0].energy < plans[0].baseline).all()
    assert not plans[1].energy.requires_grad and not plans[1].actions.requires_grad


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_every_iteration_is_a_step_of_adam(scale: float) -> None:
    """The same path as torch's optimiser takes over actions in half ranges, down to its ε."""
    box = spaces.Box(-3, 5, (1,))
    start = torch.tensor([[[[-2.0], [4.0]], [[0.0], [1.0]]]])
    asked = Watched(lambda a: scale * (((a - 0.7) ** 2).flatten(2).sum(-1) + a.flatten(2).sum(-1).sin()))
    proposal = Proposal(actions=start)
    run(GradientDescent(learning_rate=0.2), asked, box, Budget(2, 3, 12), proposal=proposal)
    scaled = (start.clone() / 4).requires_grad_()
    optimiser = torch.optim.Adam([scaled], lr=0.2)
    for actions in asked.asked:
        assert torch.allclose(actions[:, :2], 4 * scaled, atol=1e-4)
        optimiser.zero_grad()
        asked.objective(4 * scaled).sum().backward()
        optimiser.step()
        with torch.no_grad():
            scaled.clamp_(-0.75, 1.25)


def test_actions_stay_in_the_box_and_leave_its_bounds_again() -> None:
    """Pushed out for some steps and then pulled in, where the energy turns after ten evaluations."""
    asked: list[Tensor] = []

    def objective(actions: Tensor) -> Tensor:
        asked.append(actions.detach().clone())
        return (-1 if len(asked) < 10 else 1) * actions.flatten(2).sum(-1)

    run(GradientDescent(learning_rate=0.5), objective, LINE, Budget(1, 8, 40))
    assert all(contained(actions, LINE) for actions in asked)
    assert (asked[9] == 1).all() and (asked[-1] == -1).all()


def test_noise_is_added_inside_the_box() -> None:
    flat = Watched(lambda actions: actions.flatten(2).sum(-1) * 0)
    run(GradientDescent(noise=0.1), flat, spaces.Box(-20, 20, (1,)), Budget(4, 500, 3))
    moved = flat.asked[1] - flat.asked[0]
    inside = flat.asked[0].abs() < 10
    assert moved[inside].std() == pytest.approx(2.0, rel=0.1) and contained(flat.asked[2], spaces.Box(-20, 20, (1,)))
    still = Watched(flat.objective)
    run(GradientDescent(), still, LINE, Budget(4, 50, 3))
    assert torch.equal(still.asked[0], still.asked[2])


def test_many_starts_find_the_deepest_valley() -> None:
    """From the middle, downhill leads to the shallow valley at -0.5; the deep one is at 0.8."""

    def objective(actions: Tensor) -> Tensor:
        x = actions[..., 0].sum(-1)
        return -torch.exp(-((x + 0.5) ** 2) / 0.1) - 2 * torch.exp(-((x - 0.8) ** 2) / 0.005)

    alone = Proposal(Gaussian(torch.full((1, 1, 1), -0.1), torch.zeros(1, 1, 1)))
    trapped = run(GradientDescent(minimum_std=0), objective, LINE, Budget(1, 4, 40), proposal=alone)
    free = run(GradientDescent(), objective, LINE, Budget(1, 100, 40))
    assert trapped.actions.item() == pytest.approx(-0.5, abs=0.05)
    assert free.actions.item() == pytest.approx(0.8, abs=0.02)


def test_held_actions_have_the_gradient_of_all_their_steps() -> None:
    target = torch.tensor([[[0.2], [0.4], [-0.6]]])
    plan = run(GradientDescent(), Distance(LINE, target), LINE, Budget(3, 8, 80, hold=2))
    assert torch.allclose(plan.actions, torch.tensor([[[0.3], [0.3], [-0.6]]]), atol=0.01)


def test_forbidden_starts_rest_and_the_others_go_on() -> None:
    """Beyond 0.5 the energy and its gradient are infinite."""
    asked: list[Tensor] = []

    def objective(actions: Tensor) -> Tensor:
        asked.append(actions.detach().clone())
        x = actions[..., 0].sum(-1)
        return (x / (x <= 0.5).float() - 0.4).square()

    plan = run(GradientDescent(), objective, LINE, Budget(1, 20, 30))
    beyond = asked[0] > 0.5
    assert beyond.any() and torch.equal(asked[0][beyond], asked[-1][beyond])
    assert plan.actions.item() == pytest.approx(0.4, abs=0.01)


def test_objectives_that_cannot_be_differentiated_are_refused() -> None:
    weight = torch.ones((), requires_grad=True)
    for objective in (lambda a: a.detach().flatten(2).sum(-1), lambda a: a.detach().flatten(2).sum(-1) * weight):
        with pytest.raises(ValueError, match=r"not a differentiable function of them: give it one, or use 'cem'"):
            run(GradientDescent(), objective, LINE, Budget(2, 5, 2))
    with pytest.raises(FloatingPointError, match=r"5 of 10 numbers of the energy's gradient are not finite"):
        run(GradientDescent(), lambda a: (a[:, :, 0, 0] * 0).sqrt() + a[:, :, 1, 0], LINE, Budget(2, 5, 2))


def test_the_distribution_is_that_of_the_best_starts() -> None:
    asked = Watched(Distance(BOX, targets(BOX, batch=2, horizon=2)))
    plan = run(GradientDescent(elites=4), asked, BOX, Budget(2, 20, 5), batch=2)
    last = asked.asked[-1]
    best = last[torch.arange(2)[:, None], asked.objective(last).topk(4, largest=False).indices]
    assert isinstance(plan.distribution, Gaussian)
    assert torch.allclose(plan.distribution.mean, best.mean(1), atol=1e-5)
    assert torch.allclose(plan.distribution.std, best.std(1, correction=0).clamp(min=0.05), atol=1e-5)
