"""MaskGIT sampling of one frame (2202.04200): a few passes, each of which fills in a few more tokens.

Everything random comes from uniform numbers that are drawn beforehand, a fixed count per frame, from each row's own
generator. So a row's future does not depend on its neighbours in the batch, and a copy can dream the same dream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How frames are sampled.

    Attributes:
        steps: Passes per frame.
        temperature: Divides the logits; 0 takes the likeliest token.
        order: Which tokens are filled in first.
    """

    steps: int
    temperature: float
    order: Literal["random", "confidence"]


def draw_noise(generators: Sequence[torch.Generator], steps: int, tokens: int) -> Tensor:
    """Uniform numbers ``[B, steps + 1, N]`` for one frame, row i from generator i."""
    return torch.stack([torch.rand(steps + 1, tokens, generator=g, device=g.device) for g in generators])


def schedule(steps: int, tokens: int) -> list[int]:
    """How many of N tokens are filled in after each step: MaskGIT's cosine, at least one more each time."""
    done, counts = 0, []
    for step in range(1, steps + 1):
        left = math.cos(math.pi / 2 * step / steps)
        done = max(done + 1, min(tokens - (steps - step), tokens - math.floor(tokens * left)))
        counts.append(done)
    counts[-1] = tokens
    return counts


def fill_in(logits_of: Callable[[Tensor], Tensor], mask: int, noise: Tensor, sampling: Sampling) -> Tensor:
    """Tokens ``[B, N]`` of a new frame.

    Args:
        logits_of: Tokens filled in so far ``[B, N]`` (the others are ``mask``) to logits ``[B, N, V]``.
        mask: Stands for a token to be filled in.
        noise: From `draw_noise`.
        sampling: Steps, temperature and order.
    """
    batch, tokens = noise.shape[0], noise.shape[2]
    given = torch.full((batch, tokens), mask, dtype=torch.long, device=noise.device)
    for step, count in enumerate(schedule(sampling.steps, tokens)):
        logits = logits_of(given).float()
        drawn, chance = pick(logits, noise[:, step], sampling.temperature)
        score = noise[:, -1]
        if sampling.order == "confidence":  # with noise that fades, so that not only the still parts come first
            gumbel = -(-score.clamp(1e-6, 1 - 1e-6).log()).log()
            score = chance.log() + gumbel * sampling.temperature * (1 - (step + 1) / sampling.steps)
        known = given != mask
        score = score.masked_fill(known, torch.inf)
        chosen = torch.zeros_like(known).scatter(1, score.topk(count, dim=1).indices, True)
        given = torch.where(chosen & ~known, drawn, given)
    return given


def pick(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A token for each place ``[B, N]`` and its probability, from logits ``[B, N, V]`` and uniform noise ``[B, N]``."""
    if temperature == 0:
        best = logits.softmax(-1).max(-1)
        return best.indices, best.values
    chances = (logits / temperature).softmax(-1)
    total = chances.cumsum(-1)
    drawn = torch.searchsorted(total, noise.unsqueeze(-1) * total[..., -1:]).clamp(max=logits.shape[-1] - 1)
    return drawn.squeeze(-1), chances.gather(-1, drawn).squeeze(-1)
