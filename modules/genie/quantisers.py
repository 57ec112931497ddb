"""Quantisers: vectors to one of K codes, with a gradient that goes straight through.

FSQ (2309.15505) rounds a few bounded numbers and has nothing to collapse; VQ (1711.00937) looks up the nearest of K
learned vectors, here moved by exponential averages and reset when they fall out of use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantised:
    """What a quantiser makes of ``[..., d]``.

    Attributes:
        vectors: The codes' vectors ``[..., d]``; their gradient goes to the input unchanged.
        codes: Integers ``[...]`` in [0, K).
        commitment: Mean squared distance of the inputs from their codes (a scalar; 0 for FSQ).
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class FiniteScalarQuantiser(nn.Module):
    """Each of d numbers is bounded and rounded to one of its levels; K is their product.

    Raises:
        ValueError: Fewer than two levels.
    """

    reach: Tensor
    offset: Tensor
    shift: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ levels are {levels}; expected at least one number, each at least 2, such as 8 5 5 5")
        self.levels, self.size, self.dim = levels, math.prod(levels), len(levels)
        counts = torch.tensor(levels, dtype=torch.float32)
        half = (counts - 1) * (1 + 1e-3) / 2
        offset = torch.where(counts % 2 == 0, 0.5, 0.0)
        basis = torch.tensor([math.prod(levels[:index]) for index in range(len(levels))])
        for name, value in (("reach", half), ("offset", offset), ("shift", (offset / half).atanh()), ("basis", basis)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise ``[..., d]``; the generator is not needed."""
        bounded = (x.float() + self.shift).tanh() * self.reach - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        codes = ((rounded.detach().round() + self._lift()).long() * self.basis).sum(-1)
        return Quantised(rounded / self._lift().clamp(min=1), codes, x.new_zeros(()))

    def look_up(self, codes: Tensor) -> Tensor:
        """The vectors ``[..., d]`` of codes ``[...]``."""
        digits = codes.unsqueeze(-1) // self.basis % torch.tensor(self.levels, device=codes.device)
        return (digits - self._lift()) / self._lift().clamp(min=1)

    def _lift(self) -> Tensor:
        return torch.tensor([level // 2 for level in self.levels], device=self.reach.device)


class VectorQuantiser(nn.Module):
    """The nearest of K vectors; in training they follow the inputs, and unused ones are put where inputs are.

    Args:
        size: K.
        dim: d.
        decay: Share of the running averages that an update keeps.
        patience: Updates without use after which a code is reset to an input drawn at random.

    Raises:
        ValueError: Numbers out of range.
    """

    codebook: Tensor
    count: Tensor
    total: Tensor
    idle: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.97, patience: int = 50) -> None:
        super().__init__()
        if size < 1 or dim < 1 or not 0 <= decay < 1 or patience < 1:
            raise ValueError(
                f"codes {size}, dimensions {dim}, decay {decay}, patience {patience}: expected at least 1, 1, "
                "a share in [0, 1) and at least 1"
            )
        self.size, self.dim, self.decay, self.patience = size, dim, decay, patience
        codebook = torch.randn(size, dim) / dim**0.5
        self.register_buffer("codebook", codebook)
        self.register_buffer("total", codebook.clone())
        self.register_buffer("count", torch.ones(size))
        self.register_buffer("idle", torch.zeros(size, dtype=torch.long))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise ``[..., d]``.

        Args:
            x: Inputs.
            generator: Draws where unused codes are put; with one, and in training mode, the codebook learns.
        """
        flat = x.detach().float().reshape(-1, self.dim)
        codes = torch.cdist(flat, self.codebook).argmin(-1)
        if self.training and generator is not None:
            self._learn(flat, codes, generator)
        vectors = self.codebook[codes].reshape(x.shape)
        commitment = (x - vectors.detach()).square().mean()
        return Quantised(x + (vectors - x).detach(), codes.reshape(x.shape[:-1]), commitment)

    def look_up(self, codes: Tensor) -> Tensor:
        """The vectors ``[..., d]`` of codes ``[...]``."""
        return self.codebook[codes]

    @torch.no_grad()
    def place(self, x: Tensor, generator: torch.Generator, tries: int = 8, rounds: int = 30) -> None:
        """Put the codes where the inputs ``[n, d]`` gather: k-means from k-means++ seeds, the best of some tries."""
        x = x.detach().float().reshape(-1, self.dim)
        best = torch.inf
        for _ in range(tries):
            codebook = _seeds(x, self.size, generator)
            for _ in range(rounds):
                codes = torch.cdist(x, codebook).argmin(-1)
                hits = torch.bincount(codes, minlength=self.size).unsqueeze(-1)
                mean = torch.zeros_like(codebook).index_add_(0, codes, x) / hits.clamp(min=1)
                codebook = torch.where(hits > 0, mean, codebook)
            error = float(torch.cdist(x, codebook).amin(-1).square().mean())
            if error < best:
                best = error
                self.codebook.copy_(codebook)
        self.total.copy_(self.codebook)
        self.count.fill_(1.0)
        self.idle.zero_()

    @torch.no_grad()
    def _learn(self, x: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        hits = torch.bincount(codes, minlength=self.size).to(x.dtype)
        self.count.lerp_(hits, 1 - self.decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, codes, x), 1 - self.decay)
        self.codebook.copy_(self.total / self.count.clamp(min=1e-5).unsqueeze(-1))
        self.idle += 1
        self.idle[hits > 0] = 0
        dead = self.idle >= self.patience
        if dead.any():
            drawn = torch.randint(len(x), (int(dead.sum()),), generator=generator, device=generator.device)
            self.codebook[dead] = x[drawn.to(x.device)]
            self.total[dead], self.count[dead], self.idle[dead] = self.codebook[dead], 1.0, 0


def _seeds(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): inputs drawn with the square of their distance to those drawn."""
    at = generator.device
    seeds = x[torch.randint(len(x), (1,), generator=generator, device=at).to(x.device)]
    while len(seeds) < count:
        weight = torch.cdist(x, seeds).amin(-1).square().to(at) + 1e-9
        seeds = torch.cat([seeds, x[torch.multinomial(weight, 1, generator=generator).to(x.device)]])
    return seeds


def perplexity(codes: Tensor, size: int) -> tuple[float, float]:
    """How many of ``size`` codes are in use, as a share and as exp(entropy)."""
    shares = torch.bincount(codes.reshape(-1), minlength=size).double() / max(codes.numel(), 1)
    used = shares[shares > 0]
    return len(used) / size, float((-(used * used.log()).sum()).exp())
