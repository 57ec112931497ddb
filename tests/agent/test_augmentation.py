"""What is learned from is shifted and coloured at random, each window as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forethought.agent.augmentation import check_colour, check_shift, random_colours, random_shift
from forethought.agent.learning import Learner

from .small import make_agent


def test_random_shift_moves_whole_windows() -> None:
    draws = torch.Generator().manual_seed(0)
    percept = torch.randint(0, 256, (12, 3, 2, 9, 7, 3), generator=draws, dtype=torch.uint8)
    shifted = random_shift(percept, 2, torch.Generator().manual_seed(1))
    assert shifted.shape == percept.shape and shifted.dtype == percept.dtype
    found = set()
    for window, moved in zip(percept.numpy(), shifted.numpy(), strict=True):
        padded = np.pad(window, [(0, 0), (0, 0), (2, 2), (2, 2), (0, 0)], mode="edge")
        fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[:, :, y : y + 9, x : x + 7], moved)]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 5
    assert torch.equal(random_shift(percept, 0, draws), percept)


@pytest.mark.parametrize(("shift", "shape"), [(1, (4,)), (-1, (16, 20, 3)), (16, (16, 20, 3))])
def test_a_shift_that_leaves_nothing_of_an_observation_is_refused(shift: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"model_loss\.shift is {shift}"):
        check_shift("model_loss.shift", shift, shape)
    agent = make_agent()
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, shift=99))
    with pytest.raises(ValueError, match=r"model_loss\.shift is 99"):
        Learner(agent, 1)


def test_colours_are_mixed_alike_in_all_of_a_window_and_otherwise_in_the_next() -> None:
    draws = torch.Generator().manual_seed(0)
    percept = torch.randint(90, 160, (12, 3, 2, 9, 7, 3), generator=draws, dtype=torch.uint8)
    coloured = random_colours(percept, 0.1, torch.Generator().manual_seed(1))
    assert coloured.shape == percept.shape and coloured.dtype == percept.dtype
    mixes = []
    for window, shown in zip(percept.numpy(), coloured.numpy(), strict=True):
        pixels = np.concatenate([window.reshape(-1, 3), np.ones((window.size // 3, 1))], 1)
        inside = ((shown > 0) & (shown < 255)).reshape(-1, 3).all(1)  # what was cut off tells nothing
        mix, *_ = np.linalg.lstsq(pixels[inside], shown.reshape(-1, 3)[inside], rcond=None)
        assert np.abs(pixels @ mix - shown.reshape(-1, 3))[inside].max() < 1  # they are whole numbers
        mixes.append(mix)
    spread = np.std(mixes, axis=0)
    assert (spread[:3] > 0.05).all() and (spread[3] > 10).all()
    assert np.abs(np.mean(mixes, axis=0)[:3] - np.eye(3)).max() < 0.15
    assert torch.equal(random_colours(percept, 0.1, torch.Generator().manual_seed(1)), coloured)
    assert torch.equal(random_colours(percept, 0.0, draws), percept)


@pytest.mark.parametrize(
    ("strength", "shape", "pixels"),
    [(0.1, (4,), False), (0.1, (8, 8, 4), True), (-0.1, (8, 8, 3), True), (float("nan"), (8, 8, 3), True)],
)
def test_colours_are_refused_where_there_are_none(strength: float, shape: tuple[int, ...], pixels: bool) -> None:
    with pytest.raises(ValueError, match=rf"model_loss\.colour is {strength}"):
        check_colour("model_loss.colour", strength, shape, pixels)
    check_colour("model_loss.colour", 0.0, shape, pixels)
    agent = make_agent()
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, colour=0.1))
    with pytest.raises(ValueError, match=r"model_loss\.colour is 0.1 and observations have the shape .* have colours"):
        Learner(agent, 1)
