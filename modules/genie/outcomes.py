"""Reward and ending of a step of a Genie world, learned from a few labelled episodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..two_hot import TwoHot


@dataclass(frozen=True)
class OutcomesConfig:
    """Settings of the reward and ending heads."""

    blocks: int = 2
    """Attention blocks in which the action asks the patches of the frame; 0: their mean answers, in which a small
    figure is hardly heard."""
    heads: int = 4
    """Attention heads."""


class Outcomes(nn.Module):
    """Reward and ending of a step, from the frame it leaves and its action.

    The frame a step leads to is not needed, because of an episode's last step there may be none (Procgen).

    Args:
        config: Settings.
        features: Width D of what the dynamics makes of a token.
        actions: Latent actions |A|.
        hidden: Hidden units.
        bins: Of the reward's two-hot code.

    Raises:
        ValueError: Numbers of blocks or heads that do not fit.
    """

    def __init__(self, config: OutcomesConfig, features: int, actions: int, hidden: int = 128, bins: int = 41) -> None:
        super().__init__()
        if config.blocks < 0 or config.heads < 1 or features % config.heads:
            raise ValueError(
                f"outcomes.blocks is {config.blocks} and heads {config.heads}; expected at least 0, and a divisor of "
                f"the width of the dynamics, {features}"
            )
        self.action = nn.Embedding(actions, features)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                features, config.heads, 2 * features, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.blocks)
        )
        self.trunk = nn.Sequential(nn.Linear(2 * features, hidden), nn.LayerNorm(hidden), nn.SiLU())
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
        if len(self.blocks):
            tokens = torch.cat([asked.unsqueeze(-2), patches], -2).flatten(0, -3)
            for block in self.blocks:
                tokens = block(tokens)
            told = tokens[:, 0].reshape(asked.shape)
        else:
            told = patches.mean(-2)
        hidden = self.trunk(torch.cat([told, asked], -1))
        return self.reward(hidden), self.ending(hidden).squeeze(-1)

    def judge(self, patches: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward ``[...]`` and chance of an ending ``[...]``."""
        reward, ending = self(patches, action)
        return self.two_hot.mean(reward), ending.sigmoid()
