"""Actions as the networks see them, for every space that is supported, and the refusal of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from forethought.modules.actions import ActionEncoder
from gymnasium import spaces

SKEWED = spaces.Box(np.array([-0.4, 2.0, -9.0], np.float32), np.array([0.3, 2.5, -1.0], np.float32))


def test_discrete_is_one_hot() -> None:
    encoder = ActionEncoder(spaces.Discrete(4))
    assert (encoder.width, encoder.discrete, encoder.scalar) == (4, True, True)
    action = torch.tensor([[0, 3], [2, 1]])
    assert torch.equal(encoder(action), torch.eye(4)[action])
    assert encoder(action).dtype == torch.float32


def test_multi_discrete_is_one_hots_behind_one_another() -> None:
    encoder = ActionEncoder(spaces.MultiDiscrete([3, 2]))
    assert (encoder.width, encoder.discrete, encoder.scalar, encoder.sizes) == (5, True, False, (3, 2))
    encoded = encoder(torch.tensor([[2, 0], [0, 1]]))
    assert encoded.tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]


def test_every_discrete_action_gets_a_code_of_its_own() -> None:
    encoder = ActionEncoder(spaces.MultiDiscrete([3, 2, 4]))
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4))
    assert len(encoder(grid).unique(dim=0)) == 24
    single = ActionEncoder(spaces.MultiDiscrete([5]))
    assert torch.equal(single(torch.tensor([[3]])), torch.eye(5)[[3]])
    assert not single.scalar


def test_box_is_scaled_to_plus_minus_one() -> None:
    encoder = ActionEncoder(SKEWED)
    assert (encoder.width, encoder.discrete, encoder.scalar) == (3, False, False)
    low, high = torch.from_numpy(SKEWED.low), torch.from_numpy(SKEWED.high)
    assert torch.allclose(encoder(low), -torch.ones(3))
    assert torch.allclose(encoder(high), torch.ones(3), atol=1e-6)
    assert torch.allclose(encoder((low + high) / 2), torch.zeros(3), atol=1e-6)
    # each dimension by its own bounds
    assert torch.allclose(encoder(torch.tensor([0.125, 2.375, -3.0])), torch.tensor([0.5, 0.5, 0.5]), atol=1e-5)


def test_decode_undoes_forward() -> None:
    encoder = ActionEncoder(SKEWED)
    scaled = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(encoder(encoder.decode(scaled)), scaled, atol=1e-5)
    assert torch.allclose(encoder.decode(torch.zeros(3)), torch.tensor([-0.05, 2.25, -5.0]))


def test_integer_box_is_scaled_too() -> None:
    encoder = ActionEncoder(spaces.Box(0, 10, (1,), np.int64))
    assert encoder(torch.tensor([[0], [5], [10]])).flatten().tolist() == pytest.approx([-1, 0, 1])


def test_effort() -> None:
    encoder = ActionEncoder(SKEWED)
    assert float(encoder.effort(torch.tensor([1.0, -2.0, 0.5]))) == pytest.approx(5.25)
    discrete = ActionEncoder(spaces.Discrete(3))
    effort = discrete.effort(discrete(torch.tensor([[0, 1], [2, 2]])))
    assert torch.equal(effort, torch.zeros(2, 2))


def test_gradient_reaches_box_actions() -> None:
    action = torch.tensor([0.1, 2.1, -3.0], requires_grad=True)
    ActionEncoder(SKEWED)(action).sum().backward()
    assert action.grad is not None
    assert torch.allclose(action.grad, 2 / torch.from_numpy(SKEWED.high - SKEWED.low))


def test_no_parameters_and_nothing_saved() -> None:
    encoder = ActionEncoder(SKEWED)
    assert not list(encoder.parameters())
    assert not encoder.state_dict()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, 1.0])),
        spaces.Box(-1, 1, (2, 2)),
        spaces.Box(-1, 1, ()),
        spaces.MultiBinary(3),
        spaces.Tuple([spaces.Discrete(2)]),
    ],
    ids=repr,
)
def test_other_spaces_are_refused(space: Any) -> None:
    with pytest.raises(ValueError, match="not supported; use Discrete, MultiDiscrete or a bounded 1-D Box"):
        ActionEncoder(space)
