"""Reward and ending of a step of a Genie world, learned from a few labelled episodes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..two_hot import TwoHot


@dataclass(frozen=True)
class OutcomesConfig:
    """Settings of the reward and ending heads."""

    layers: int = 2
    """3×3 convolutions over the frame's patches, of which the place that answers loudest is heard: what happens to a
    small figure is the same wherever it is. 0: the mean of all patches answers, in which it is hardly heard."""
    channels: int = 64
    """Channels of these."""


class Outcomes(nn.Module):
    """Reward and ending of a step, from the frame it leaves and its action.

    The frame a step leads to is not needed, because of an episode's last step there may be none (Procgen).

    Args:
        config: Settings.
        features: Width D of what the dynamics makes of a token.
        actions: Latent actions |A|.
        grid: Rows and columns of a frame's N tokens.
        hidden: Hidden units.
        bins: Of the reward's two-hot code.

    Raises:
        ValueError: Numbers out of range.
    """

    def __init__(
        self,
        config: OutcomesConfig,
        features: int,
        actions: int,
        grid: tuple[int, int],
        hidden: int = 128,
        bins: int = 41,
    ) -> None:
        super().__init__()
        if config.layers < 0 or config.channels < 1:
            raise ValueError(
                f"outcomes.layers is {config.layers} and channels {config.channels}; expected at least 0 and 1"
            )
        self.grid = grid
        self.action = nn.Embedding(actions, features)
        widths = [features, *[config.channels] * config.layers]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.heard = nn.Linear(features, config.channels) if config.layers else None
        self.trunk = nn.Sequential(nn.Linear(widths[-1] + features, hidden), nn.LayerNorm(hidden), nn.SiLU())
        self.two_hot = TwoHot(bins)
        self.reward, self.ending = nn.Linear(hidden, bins), nn.Linear(hidden, 1)
        nn.init.zeros_(self.reward.weight)
        nn.init.zeros_(self.ending.weight)

    def forward(self, patches: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the reward's bins ``[..., bins]`` and of the ending ``[...]``.

        Args:
            patches: What the dynamics makes of each token of the frame ``[..., N, D]``.
            action: Latent actions ``[...]``.
        """
        asked = self.action(action)
        if self.heard is None:
            told = patches.mean(-2)
        else:
            x = patches.reshape(-1, *self.grid, patches.shape[-1]).movedim(-1, 1)  # [n, D, rows, columns]
            for depth, layer in enumerate(self.layers):
                x = layer(x)
                if depth == 0:
                    x = x + self.heard(asked).flatten(0, -2)[..., None, None]
                x = F.silu(x)
            told = x.amax((-2, -1)).reshape(*asked.shape[:-1], x.shape[1])
        hidden = self.trunk(torch.cat([told, asked], -1))
        return self.reward(hidden), self.ending(hidden).squeeze(-1)

    def judge(self, patches: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward ``[...]`` and chance of an ending ``[...]``."""
        reward, ending = self(patches, action)
        return self.two_hot.mean(reward), ending.sigmoid()
