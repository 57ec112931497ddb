"""Drawing from distributions, fitting them, and the noise of iCEM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from forethought.planners import Categorical, Plan, clip, drawn, spread, uniform
from forethought.planners.actions import Components, block_mean, bounds, joint_actions
from forethought.planners.icem import coloured_noise, spectrum
from forethought.planners.sampling import Gaussian, draw_categorical, draw_gaussian, fit_categorical, fit_gaussian
from gymnasium import spaces

from .problems import DISCRETE, DOUBLE, MULTI, SKEWED, SPACES, contained, generator, sizes

CPU = torch.device("cpu")


def test_categorical_draws_follow_their_probabilities() -> None:
    components = Components.of(MULTI, "cpu")
    probabilities = components.normalise(torch.rand(2, 3, 10, generator=generator(1)) * torch.tensor([1, 0, *[1] * 8]))
    actions = draw_categorical(probabilities, components, 40_000, generator(2))
    weights = torch.full((2, 40_000), 1 / 40_000)
    assert torch.allclose(fit_categorical(actions, weights, components, 0), probabilities, atol=0.01)
    assert not (actions[..., 0] == 1).any(), "an action of probability 0 was drawn"


def test_gaussian_draws_and_their_means() -> None:
    limits = bounds(spaces.Box(-5, 5, (2,)), "cpu")
    mean, std = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.2, 0.7]]])
    actions = draw_gaussian(Gaussian(mean, std), limits, 20_000, generator(1), mean=True)
    assert torch.allclose(actions.mean(1), mean[0], atol=0.02) and torch.allclose(actions.std(1), std[0], atol=0.02)
    assert torch.equal(actions[:, -1], mean) and not torch.equal(actions[:, -2], mean)


@pytest.mark.parametrize("label", SPACES)
def test_drawn_actions_come_as_often_as_the_plan_says(label: str) -> None:
    space, batch, horizon = SPACES[label], 20_000, 2
    best = uniform(space, 1, 1, horizon, generator(0))[0].expand(batch, -1, *[-1] * (space.shape != ()))
    nothing = torch.zeros(batch)
    if isinstance(space, spaces.Box):
        low, high = bounds(space, "cpu")
        mean, std = (low + 0.4 * (high - low)).expand(batch, horizon, -1), (0.05 * (high - low)).expand(batch, 2, -1)
        plan = Plan(best, Gaussian(mean, std), nothing, nothing, 1, 0.0, best.unsqueeze(1))
        actions = drawn(plan, space, generator(1)).actions
        assert contained(actions, space) and actions.shape == best.shape
        assert (((actions - mean) / (high - low)).mean(0).abs() < 0.005).all()
        assert ((actions.std(0) / std[0] - 1).abs() < 0.05).all()
        return
    components = Components.of(space, "cpu")
    count = len(components.owner)
    share = components.normalise(torch.rand(1, horizon, count, generator=generator(3)) ** 2)
    plan = Plan(best, Categorical(share.expand(batch, -1, -1)), nothing, nothing, 1, 0.0, best.unsqueeze(1))
    actions = drawn(plan, space, generator(1)).actions
    assert contained(actions, space) and actions.shape == best.shape and actions.dtype == best.dtype
    each = actions.view(1, batch, horizon, -1)
    seen = fit_categorical(each, torch.full((1, batch), 1 / batch), components, 0.0)
    assert torch.allclose(seen, share, atol=0.02)


def test_weights_of_elites() -> None:
    elites = torch.randn(2, 5, 3, 2, generator=generator(1))
    weights = torch.tensor([[0.5, 0.5, 0, 0, 0], [0.2] * 5])
    fitted = fit_gaussian(elites, weights)
    assert torch.allclose(fitted.mean[0], elites[0, :2].mean(0), atol=1e-6)
    assert torch.allclose(fitted.std[0], elites[0, :2].std(0, correction=0), atol=1e-6)
    even = fit_gaussian(elites, None)
    assert torch.allclose(fitted.mean[1], even.mean[1], atol=1e-6)
    assert torch.allclose(fitted.std[1], even.std[1], atol=1e-6)
    assert torch.equal(fit_gaussian(elites[:, :1], None).std, torch.zeros(2, 3, 2))


@pytest.mark.parametrize("label", SPACES)
def test_spread_actions_cover_every_component_evenly(label: str) -> None:
    space, count = SPACES[label], 12
    actions = spread(space, 50, count, 3, generator())
    assert actions.shape[:3] == (50, count, 3) and contained(actions, space)
    assert torch.equal(actions, actions[:, :, :1].expand_as(actions)), "a course keeps its action"
    first = actions[:, :, 0].unsqueeze(-1) if isinstance(space, spaces.Discrete) else actions[:, :, 0]
    if isinstance(space, spaces.Box):
        low, high = bounds(space, "cpu")
        parts = ((first - low) / (high - low) * count).long().clamp(max=count - 1)
        ends = torch.arange(count).expand(50, count)
        assert all(torch.equal(part.sort(1).values, ends) for part in parts.unbind(-1)), "one in each of equal parts"
        within = (first - low) / (high - low) * count % 1
        assert 0.45 < float(within.mean()) < 0.55 and float(within.std()) > 0.25
    else:
        for part, size in zip(first.unbind(-1), sizes(space), strict=True):
            often = torch.nn.functional.one_hot(part, size).sum(1)
            assert often.sum(1).eq(count).all() and (often.amax(1) - often.amin(1)).max() <= 1
            assert often.float().mean(0).std(correction=0) < 0.1, "what is left over falls to any"
    assert not torch.equal(actions[0], actions[1]) and not torch.equal(first[0].sort(0).values, first[0])


@pytest.mark.parametrize("label", SPACES)
def test_uniform_covers_the_space(label: str) -> None:
    space = SPACES[label]
    actions = uniform(space, 2, 3000, 3, generator(), hold=1)
    assert contained(actions[:, :100], space)
    if isinstance(space, spaces.Box):
        low, high = bounds(space, "cpu")
        assert torch.allclose(actions.mean((0, 1, 2)), (low + high) / 2, atol=0.05 * float((high - low).max()))
        assert torch.allclose(actions.amin((0, 1, 2)), low, atol=0.01 * float((high - low).max()))
    else:
        parts = actions.unsqueeze(-1) if isinstance(space, spaces.Discrete) else actions
        for part, size in zip(parts.flatten(0, -2).unbind(-1), sizes(space), strict=True):
            assert torch.allclose(part.bincount().float() / len(part), torch.full((size,), 1 / size), atol=0.02)


def test_float64_bounds_hold_exactly_in_float32() -> None:
    low, high = bounds(DOUBLE, "cpu")
    assert (low.double().numpy() >= DOUBLE.low).all() and (high.double().numpy() <= DOUBLE.high).all()
    assert np.float32(-0.1) < -0.1, "this bound would be left by plain rounding"
    assert DOUBLE.contains(low.numpy()) and DOUBLE.contains(high.numpy())


def test_clip() -> None:
    assert clip(torch.tensor([-9, 3, 9]), DISCRETE).tolist() == [0, 3, 4]
    assert clip(torch.tensor([-9, 4, 9]), MULTI).tolist() == [0, 4, 1]
    assert torch.allclose(clip(torch.tensor([-9, 2.2, 9]), SKEWED), torch.tensor([-0.4, 2.2, -1]))


def test_joint_actions_are_all_actions() -> None:
    ways = joint_actions("tree", MULTI, Components.of(MULTI, "cpu"))
    assert len(ways) == len({tuple(way) for way in ways.tolist()}) == 30 and contained(ways, MULTI)
    assert joint_actions("tree", DISCRETE, Components.of(DISCRETE, "cpu")).tolist() == [[0], [1], [2], [3], [4]]


def test_a_block_mean_at_the_end_is_of_what_is_there() -> None:
    assert block_mean(torch.tensor([1.0, 3.0, 8.0]).view(1, 3, 1), 2).flatten().tolist() == [2, 8]


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 31])
@pytest.mark.parametrize("colour", [0.0, 1.0, 3.0])
def test_coloured_noise_is_normal_with_unit_variance_at_every_step(steps: int, colour: float) -> None:
    scale = spectrum(steps, colour, CPU)
    assert scale[1, 0] == 0 and (steps % 2 == 1 or scale[1, -1] == 0), "these have no imaginary part"
    noise = coloured_noise((2, 8000, steps, 2), scale, generator(1))
    assert noise.shape == (2, 8000, steps, 2)
    assert torch.allclose(noise.mean((0, 1)), torch.zeros(steps, 2), atol=0.03)
    assert torch.allclose(noise.std((0, 1)), torch.ones(steps, 2), atol=0.03)
    assert noise[:, :, 0, 0].flatten().pow(4).mean() == pytest.approx(3, abs=0.25)
    assert abs((noise[..., 0] * noise[..., 1]).mean()) < 0.02, "components are independent"


@pytest.mark.parametrize("colour", [0.5, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_as_a_power_of_the_frequency(colour: float) -> None:
    noise = coloured_noise((1, 4000, 64, 1), spectrum(64, colour, CPU), generator(1))[0, :, :, 0]
    power = torch.fft.rfft(noise, dim=1).abs().square().mean(0)
    slope = (power[16] / power[2]).log() / math.log(16 / 2)
    assert float(slope) == pytest.approx(-colour, abs=0.06)
    assert float(power[0] / power[1]) == pytest.approx(1, abs=0.1)
    assert float(power[-1] / power[-2]) == pytest.approx((31 / 32) ** colour, abs=0.1)


def test_white_noise_is_independent_from_step_to_step_and_red_noise_is_not() -> None:
    for colour, lowest, highest in ((0.0, -0.03, 0.03), (1.0, 0.3, 0.6), (3.0, 0.8, 1.0)):
        noise = coloured_noise((1, 8000, 12, 1), spectrum(12, colour, CPU), generator(1))[0, :, :, 0]
        assert lowest < float((noise[:, 3] * noise[:, 4]).mean()) < highest
