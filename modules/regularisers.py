"""Terms that keep a joint embedding from collapsing: SIGReg and VICReg."""

from __future__ import annotations

import torch
from torch import Tensor


def sigreg(latent: Tensor, generator: torch.Generator, directions: int = 256) -> Tensor:
    """SIGReg statistic with the factor N (LeJEPA, 2511.08544): distance of random projections from N(0, 1).

    T = N ∫_{−3}^{3} |φ̂(t) − φ(t)|² φ(t) dt, φ(t) = exp(−t²/2), trapezoid on 17 knots of [0, 3] doubled by symmetry.
    About 1 for a standard Gaussian batch at any N; 0.4·N when collapsed.

    Args:
        latent: ``[..., N, D]``; the statistic is computed for each leading index (time step) and averaged.
        generator: Draws the directions.
        directions: Random unit directions per call.
    """
    *_, count, width = latent.shape
    projections = torch.randn(width, directions, generator=generator, device=latent.device, dtype=latent.dtype)
    projections = projections / projections.norm(dim=0)
    knots = torch.linspace(0.0, 3.0, 17, device=latent.device, dtype=latent.dtype)
    weights = torch.full_like(knots, 3.0 / 16)
    weights[0] = weights[-1] = 1.5 / 16
    gaussian = torch.exp(-0.5 * knots.square())
    angles = (latent @ projections).unsqueeze(-1) * knots  # [..., N, directions, knots]
    real = angles.cos().mean(-3) - gaussian
    imaginary = angles.sin().mean(-3)
    statistic: Tensor = 2 * count * (weights * gaussian * (real.square() + imaginary.square())).sum(-1)
    return statistic.mean()


def vicreg(latent: Tensor) -> tuple[Tensor, Tensor]:
    """VICReg's variance and covariance terms (2105.04906): mean relu(1 − std) and Σ_{i≠j} C_ij²/D.

    Args:
        latent: ``[..., N, D]``; computed for each leading index and averaged.
    """
    centred = latent - latent.mean(-2, keepdim=True)
    std = (centred.square().sum(-2) / (latent.shape[-2] - 1) + 1e-4).sqrt()
    covariance = centred.transpose(-1, -2) @ centred / (latent.shape[-2] - 1)
    off_diagonal = covariance.square().sum((-1, -2)) - covariance.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return (1 - std).relu().mean(), (off_diagonal / latent.shape[-1]).mean()
