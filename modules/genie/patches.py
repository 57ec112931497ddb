"""Frames as rows of patches and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def to_unit(frames: Tensor) -> Tensor:
    """uint8 frames as float32 in [0, 1]."""
    return frames.float() / 255


def to_bytes(frames: Tensor) -> Tensor:
    """Frames in [0, 1] as uint8, rounded; what lies outside is clipped."""
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def cut(frames: Tensor, patch: int) -> Tensor:
    """Frames ``[B, T, H, W, C]`` as patches ``[B, T, N, patch² · C]``, row by row."""
    b, t, h, w, c = frames.shape
    x = frames.reshape(b, t, h // patch, patch, w // patch, patch, c).transpose(3, 4)
    return x.reshape(b, t, (h // patch) * (w // patch), patch * patch * c)


def join(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `cut`."""
    b, t = patches.shape[:2]
    x = patches.reshape(b, t, height // patch, width // patch, patch, patch, -1).transpose(3, 4)
    return x.reshape(b, t, height, width, -1)


def cut_wide(frames: Tensor, patch: int, margin: int) -> Tensor:
    """Patches with ``margin`` pixels around each, ``[B, T, N, (patch + 2·margin)² · C]``; the border is repeated.

    What moves by less than the margin is then seen within one token.
    """
    b, t, h, w, _ = frames.shape
    x = F.pad(frames.permute(0, 1, 4, 2, 3).flatten(0, 1), (margin,) * 4, mode="replicate")
    side = patch + 2 * margin
    patches = x.unfold(2, side, patch).unfold(3, side, patch)  # B·T, C, rows, columns, side, side
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(b, t, (h // patch) * (w // patch), -1)


class Places(nn.Module):
    """A learned vector for each of the N places of a frame, added to its tokens."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, N, D]`` with places."""
        return x + self.vectors


def patch_grid(height: int, width: int, patch: int, who: str) -> tuple[int, int]:
    """Rows and columns of a frame's patches.

    Raises:
        ValueError: The patch does not divide the frame.
    """
    if patch < 1 or height % patch or width % patch:
        raise ValueError(
            f"frames of {height}×{width} cannot be cut into patches of {patch}×{patch} ({who}.patch); "
            "choose a patch that divides both sides"
        )
    return height // patch, width // patch
