"""Linear probes: what the latents say about the world, read by ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .health import r_squared

_RIDGE = 1e-4  # of the samples' number, on latents and facts of unit variance


@dataclass(frozen=True)
class Probe:
    """A linear map from latents to facts.

    Attributes:
        weight: ``[D, K]``.
        bias: ``[K]``.
        scores: R² of each fact on samples that it was not fitted on ``[K]``; NaN where a fact does not vary.
    """

    weight: Tensor
    bias: Tensor
    scores: tuple[float, ...]

    def __call__(self, latent: Tensor) -> Tensor:
        """Facts ``[..., K]`` read from latents ``[..., D]``."""
        return latent.cpu().double() @ self.weight + self.bias


def linear_probe(latent: Tensor, facts: Tensor, episode: Tensor, generator: torch.Generator) -> Probe:
    """Fit ridge regression on half of the episodes and score it on the other half, on the CPU.

    Args:
        latent: ``[N, D]``.
        facts: ``[N, K]``.
        episode: Number of the episode that a sample is from ``[N]``; episodes are never split.
        generator: On the CPU; draws the half.

    Raises:
        ValueError: There is one episode alone.
    """
    latent, facts, episode = latent.cpu().double(), facts.cpu().double(), episode.cpu()
    names = torch.unique(episode)
    if len(names) < 2:
        raise ValueError("a linear probe needs samples of at least 2 episodes: one half to fit, the other to score")
    fit = torch.isin(episode, names[torch.randperm(len(names), generator=generator)[: len(names) // 2]])
    x, y = latent[fit], facts[fit]
    centre, middle = x.mean(0), y.mean(0)
    width, height = x.std(0).clamp(min=1e-9), y.std(0).clamp(min=1e-9)
    x, y = (x - centre) / width, (y - middle) / height
    penalty = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    solution = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    weight = solution * height / width[:, None]
    bias = middle - centre @ weight
    told = latent[~fit] @ weight + bias
    return Probe(weight, bias, tuple(r_squared(told, facts[~fit])))
