"""Random augmentation of what is learned from: windows that are shifted, or seen in other colours.

Each window is changed as a whole, so that what happens in it stays what it was.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_shift(percept: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each window ``[B, T, history, H, W, C]`` as a whole by up to ``pixels``, edges repeated (2107.09645)."""
    height, width = percept.shape[3:5]
    offsets = torch.randint(-pixels, pixels + 1, (percept.shape[0], 2), generator=generator, device=percept.device)
    shifted = torch.empty_like(percept)
    for old, new, (down, right) in zip(percept, shifted, offsets.tolist(), strict=True):
        top, bottom = max(0, -down), height - max(0, down)  # rows and columns that come from inside the picture
        left, end = max(0, -right), width - max(0, right)
        inner = old[:, :, top + down : bottom + down, left + right : end + right]
        new[:, :, top:bottom, left:end] = inner
        new[:, :, top:bottom, :left] = inner[:, :, :, :1]
        new[:, :, top:bottom, end:] = inner[:, :, :, -1:]
        new[:, :, :top] = new[:, :, top : top + 1]
        new[:, :, bottom:] = new[:, :, bottom - 1 : bottom]
    return shifted


def check_shift(name: str, pixels: int, shape: tuple[int, ...]) -> None:
    """Refuse to shift observations of a shape by what leaves nothing of them.

    Raises:
        ValueError: Names the setting.
    """
    room = min(shape[:2]) if len(shape) == 3 else 1
    if not 0 <= pixels < room:
        raise ValueError(
            f"{name} is {pixels} and observations have the shape {shape}; expected "
            + (f"0 to {room - 1} pixels" if len(shape) == 3 else "0: vectors cannot be shifted")
        )


def random_colours(percept: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Show each window ``[B, T, history, H, W, 3]`` (uint8) as a whole in other colours.

    Red, green and blue are mixed by a random matrix around the identity, which is a random convolution
    (1910.05396) whose kernel is one pixel wide, and shifted: shapes and edges stay, and what has the same colour.

    Args:
        percept: Pictures.
        strength: Standard deviation of the matrix's entries, and of the shift in parts of the range of a byte.
        generator: Draws.
    """
    mix = torch.randn(len(percept), 3, 3, generator=generator, device=percept.device) * strength
    mix += torch.eye(3, device=percept.device)
    offset = torch.randn(len(percept), 1, 3, generator=generator, device=percept.device) * (255 * strength)
    pixels = torch.baddbmm(offset, percept.flatten(1, -2).float(), mix)
    return pixels.round_().clamp_(0, 255).to(torch.uint8).view(percept.shape)


def check_colour(name: str, strength: float, shape: tuple[int, ...], pixels: bool) -> None:
    """Refuse other colours for observations that have none.

    Raises:
        ValueError: Names the setting.
    """
    coloured = pixels and shape[-1] == 3
    if not 0 <= strength < math.inf or (strength and not coloured):
        raise ValueError(
            f"{name} is {strength} and observations have the shape {shape}; expected "
            + ("a number from 0" if coloured else "0: only pictures of red, green and blue have colours")
        )
