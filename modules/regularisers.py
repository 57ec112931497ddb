"""What keeps a joint embedding from collapsing: SIGReg, VICReg, contrast with other samples, a slow target encoder.

All terms are for one time step; leading dimensions (time steps) are averaged over.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def pair_energies(predicted: Tensor, target: Tensor) -> Tensor:
    """F(i, j) = ‖s̃_i − s_j‖²/D ``[..., N, N]`` of every prediction with every sample's target, both ``[..., N, D]``."""
    squares = predicted.square().sum(-1).unsqueeze(-1) + target.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * predicted @ target.transpose(-1, -2)) / target.shape[-1]


def info_nce(energies: Tensor, known: Tensor, temperature: float = 0.2) -> Tensor:
    """InfoNCE: F(i, i) + ln Σ_j exp(−F(i, j)), with F over the temperature (LeCun 2022, p. 22; CPC, 1807.03748).

    Where all latents have length √D the default is SimCLR's temperature of 0.1 for their cosines (2002.05709).

    Args:
        energies: From `pair_energies` ``[..., N, N]``.
        known: 1 for samples to be told apart, 0 for those left out ``[..., N]``.
        temperature: Energies much smaller than this count as none.
    """
    scaled = energies.masked_fill(_not_compared(known), torch.inf) / temperature
    lost = -F.log_softmax(-scaled, dim=-1).diagonal(dim1=-2, dim2=-1)
    return (lost * known).sum() / known.sum().clamp(min=1)


def hinge(energies: Tensor, known: Tensor, margin: float = 1.0) -> Tensor:
    """Pairwise hinge: mean over j ≠ i of max(0, F(i, i) − F(i, j) + margin) (LeCun 2022, p. 22).

    Args:
        energies: From `pair_energies` ``[..., N, N]``.
        known: 1 for samples to be told apart, 0 for those left out ``[..., N]``.
        margin: What others' energies shall be higher by; 2 is the mean square distance of standard Gaussians.
    """
    right = energies.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    others = ~_not_compared(known) & ~torch.eye(known.shape[-1], dtype=torch.bool, device=known.device)
    compared = others * known.unsqueeze(-1)
    return ((right - energies + margin).relu() * compared).sum() / compared.sum().clamp(min=1)


def _not_compared(known: Tensor) -> Tensor:
    """True at ``[..., i, j]`` where sample j is left out; a sample is always compared with itself."""
    itself = torch.eye(known.shape[-1], dtype=torch.bool, device=known.device)
    return (known.unsqueeze(-2) == 0) & ~itself


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Move ``slow`` towards ``fast`` by a share ``rate`` of the way (an exponential moving average); copy its buffers.

    With rate 1 − momentum this is the target encoder of BYOL (2006.07733) and I-JEPA (2301.08243).
    """
    for parameter, new in zip(slow.parameters(), fast.parameters(), strict=True):
        parameter.lerp_(new, rate)
    for buffer, latest in zip(slow.buffers(), fast.buffers(), strict=True):
        buffer.copy_(latest)
