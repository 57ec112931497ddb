"""A world that has learned nothing, in which everything depends on everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from forethought.modules.genie.dynamics import DynamicsConfig
from forethought.modules.genie.files import PARTS, save_part, save_prompts, save_settings
from forethought.modules.genie.latent_action import LatentActionConfig
from forethought.modules.genie.tokenizer import TokenizerConfig
from forethought.modules.genie.world import Genie, GenieConfig

SIDE, CONTEXT, ACTIONS = 16, 5, 4
CONFIG = GenieConfig(
    SIDE,
    SIDE,
    CONTEXT,
    TokenizerConfig(patch=4, width=16, encoder_blocks=1, decoder_blocks=2, heads=2, levels=(4, 4)),
    LatentActionConfig(actions=ACTIONS, patch=8, margin=2, width=16, blocks=1, heads=2, code_dim=4),
    DynamicsConfig(width=16, blocks=2, heads=2, steps=3),
)


def make(seed: int = 0, injection: Literal["add", "prepend", "film"] = "add", **dynamics: Any) -> Genie:
    """A world whose parameters are all at random."""
    torch.manual_seed(seed)
    world = Genie(replace(CONFIG, dynamics=replace(CONFIG.dynamics, injection=injection, **dynamics)))
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    return world.eval()


def frames(batch: int = 2, steps: int = CONTEXT, seed: int = 0) -> torch.Tensor:
    """Noise ``[batch, steps, 16, 16, 3]`` in [0, 1]."""
    return torch.rand(batch, steps, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(seed))


def tokens(batch: int = 2, steps: int = CONTEXT, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens ``[batch, steps, 16]`` and latent actions ``[batch, steps - 1]``."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(16, (batch, steps, 16), generator=draws), torch.randint(
        ACTIONS, (batch, steps - 1), generator=draws
    )


def save(world: Genie, folder: Path, parts: tuple[str, ...] = PARTS, prompts: int = 3) -> Path:
    """A world's folder with prompts of noise."""
    save_settings(folder, world.config, {"data": "noise"})
    for name in parts:
        save_part(folder, name, getattr(world, name))
    noise = np.random.default_rng(0).integers(256, size=(prompts, 2, SIDE, SIDE, 3))
    save_prompts(folder, noise.astype(np.uint8))
    return folder
