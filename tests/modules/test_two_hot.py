"""Two-hot regression: values survive the round trip, the loss has its minimum at the right place."""

from __future__ import annotations

import warnings

import pytest
import torch
from forethought.modules.two_hot import TwoHot, symexp, symlog

GRID = torch.tensor([-100.0, -10.0, -3.7, -1.0, -0.5, -0.01, 0.0, 0.01, 0.3, 1.0, 2.0, 7.0, 42.0, 140.0])


def test_symlog_and_its_inverse() -> None:
    assert torch.allclose(symexp(symlog(GRID)), GRID, rtol=1e-5, atol=1e-6)
    assert float(symlog(torch.tensor(-(torch.e - 1)))) == pytest.approx(-1)
    assert (symlog(GRID).diff() > 0).all()


def test_weights_are_two_neighbours_that_sum_to_one() -> None:
    target = TwoHot().encode(GRID)
    assert torch.allclose(target.sum(-1), torch.ones(len(GRID)))
    assert (target >= 0).all()
    for row in target:
        hot = row.nonzero().flatten()
        assert len(hot) in {1, 2}
        assert int(hot[-1] - hot[0]) <= 1


@pytest.mark.parametrize(("bins", "limit"), [(41, 5.0), (11, 2.0), (255, 20.0)])
def test_encode_is_exact_in_symlog_space(bins: int, limit: float) -> None:
    two_hot = TwoHot(bins, limit)
    values = symexp(torch.linspace(-limit, limit, 97))
    recovered = (two_hot.encode(values) * two_hot.centres).sum(-1)
    assert torch.allclose(recovered, symlog(values), atol=2e-5 * limit)


def test_mean_of_a_bin_is_its_value() -> None:
    two_hot = TwoHot()
    values = symexp(two_hot.centres)
    assert torch.allclose(two_hot.mean(two_hot.encode(values).clamp(min=1e-30).log()), values, rtol=1e-4, atol=1e-4)


def test_round_trip_between_bins_is_close_and_ordered() -> None:
    """The mean is taken between real values, so between two bins it is a little above the value in magnitude."""
    two_hot = TwoHot()
    values = torch.linspace(-140, 140, 801)
    recovered = two_hot.mean(two_hot.encode(values).clamp(min=1e-30).log())
    assert (recovered.diff() > 0).all()
    assert ((recovered - values).abs() <= 0.01 * (1 + values.abs())).all()
    assert torch.allclose(recovered, -recovered.flip(0), atol=1e-3)


@pytest.mark.parametrize(("value", "index"), [(1e6, -1), (-1e6, 0)])
def test_values_beyond_the_limit_are_clamped_and_it_is_said(value: float, index: int) -> None:
    two_hot = TwoHot(11, 2.0)
    with pytest.warns(UserWarning, match=r"up to 1e\+06 are learned as ±6.389.*raise critic.limit"):
        assert float(two_hot.encode(torch.tensor([0.0, value]))[1, index]) == pytest.approx(1, abs=1e-5)


def test_values_up_to_the_limit_are_told_without_a_warning() -> None:
    edge = symexp(torch.tensor(2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(TwoHot(11, 2.0).encode(edge)[-1]) == pytest.approx(1, abs=1e-5)


def test_loss_is_least_at_the_right_value() -> None:
    two_hot = TwoHot()
    targets = symexp(two_hot.centres[1:-1] + 0.03)
    logits = two_hot.encode(targets).clamp(min=1e-6).log()
    loss = two_hot.loss(logits[:, None], targets[None])  # [beliefs, values]
    assert torch.equal(loss.argmin(1), torch.arange(len(targets)))
    assert torch.equal(loss.argmin(0), torch.arange(len(targets)))
    best = -(two_hot.encode(targets) * two_hot.encode(targets).clamp(min=1e-30).log()).sum(-1)
    assert torch.allclose(loss.diagonal(), best, atol=1e-3)  # the entropy of the target, no less is possible


def test_descent_on_the_loss_finds_the_expected_value_of_two_outcomes() -> None:
    """A coin between −1 and 20: the mean of the belief is the mean of the outcomes, not of their logarithms."""
    two_hot = TwoHot()
    logits = torch.zeros(two_hot.bins, requires_grad=True)
    outcomes = torch.tensor([-1.0, -1.0, -1.0, 20.0])
    optimiser = torch.optim.Adam([logits], 0.3)
    for _ in range(200):
        optimiser.zero_grad()
        two_hot.loss(logits.expand(4, -1), outcomes).mean().backward()
        optimiser.step()
    assert float(two_hot.mean(logits.detach())) == pytest.approx(float(outcomes.mean()), rel=0.02)
    assert int((logits.detach().softmax(-1) > 0.1).sum()) >= 2


def test_an_untrained_belief_expects_nothing() -> None:
    assert float(TwoHot().mean(torch.zeros(41))) == pytest.approx(0, abs=1e-4)


def test_shapes_and_no_parameters() -> None:
    two_hot = TwoHot(21)
    values = torch.zeros(2, 3)
    assert two_hot.encode(values).shape == (2, 3, 21)
    assert two_hot.loss(torch.zeros(2, 3, 21), values).shape == (2, 3)
    assert two_hot.mean(torch.zeros(2, 3, 21)).shape == (2, 3)
    assert not list(two_hot.parameters())
