"""Where the view moves, and what that says of a code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forethought.agent.genie_motion import DIRECTIONS, directions, motions, view_shifts


def pictures(offsets: list[tuple[int, int]]) -> torch.Tensor:
    """Views of one large random picture whose upper left corners are at (right, down) of its middle."""
    world = torch.rand(96, 96, 3, generator=torch.Generator().manual_seed(0))
    return torch.stack([world[32 + down : 64 + down, 32 + right : 64 + right] for right, down in offsets])


@pytest.mark.parametrize("way", [(0, 0), (3, 0), (-2, 0), (0, 4), (0, -5), (2, -3)])
def test_a_moved_view_is_found(way: tuple[int, int]) -> None:
    before, after = pictures([(0, 0), (1, 1)]), pictures([way, (1 + way[0], 1 + way[1])])
    noise = 0.02 * torch.randn(after.shape, generator=torch.Generator().manual_seed(1))
    assert view_shifts(before, after + noise).tolist() == [list(way)] * 2


def test_what_does_not_change_stands_still() -> None:
    flat = torch.full((3, 16, 16, 3), 0.4)
    assert view_shifts(flat, flat).tolist() == [[0, 0]] * 3


def test_the_longer_side_gives_the_direction() -> None:
    shifts = np.array([[0, 0], [-2, 1], [3, -3], [1, -2], [0, 5]])
    assert [DIRECTIONS[index] for index in directions(shifts)] == ["still", "left", "right", "up", "down"]


def test_codes_are_told_by_their_motions_and_shuffled_ones_are_not() -> None:
    codes = np.arange(4).repeat(50)
    ways = np.array([[0, 0], [-2, 0], [2, 0], [0, -3]])
    dreamed = ways[:, None].repeat(10, 1)
    dreamed[1, :5] = 0  # half of the dreams of code 1 stand still
    rows = motions(ways[codes], codes, dreamed, 4)
    assert [row.direction for row in rows] == ["still", "left", "right", "up"]
    assert [row.share for row in rows] == [1.0] * 4 and [row.steps for row in rows] == [50] * 4
    assert [row.dreamed for row in rows] == [1.0, 0.5, 1.0, 1.0]
    assert rows[0].otherwise == pytest.approx(5 / 30) and rows[3].otherwise == 0.0
    assert rows[3].shift == (0.0, -3.0)
    shuffled = motions(ways[np.random.default_rng(0).permutation(codes)], codes, dreamed, 4)
    assert max(row.share for row in shuffled) < 0.5


def test_a_code_without_steps_has_no_row() -> None:
    rows = motions(np.zeros((3, 2), np.int64), np.array([0, 2, 2]), np.zeros((3, 2, 2), np.int64), 3)
    assert [row.code for row in rows] == [0, 2]
