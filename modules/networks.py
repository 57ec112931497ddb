"""The networks that the actor and the critic share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GLANCES, _WIDTH = 8, 8


class MapReader(nn.Module):
    """Reads latents that are maps by looking at a few places each: where they are, and what is there.

    Attention with a learned query for each glance; the coordinates are those of a spatial softmax (1504.00702). What
    an actor or critic learns of one place so holds in all.

    Args:
        latent: D = C·h·w, channels first.
        grid: Height and width h, w.
    """

    places: Tensor

    def __init__(self, latent: int, grid: tuple[int, int]) -> None:
        super().__init__()
        height, width = grid
        self.shape = (latent // (height * width), height, width)
        self.features = _GLANCES * (_WIDTH + 2)
        self.look = nn.Conv2d(self.shape[0], 2 * _WIDTH, 3, padding=1)
        self.score = nn.Conv2d(2 * _WIDTH, _GLANCES, 1)
        self.value = nn.Conv2d(2 * _WIDTH, _WIDTH, 1)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("places", torch.stack([columns.flatten(), rows.flatten()]), persistent=False)
        self.look.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor) -> Tensor:
        """Features ``[..., R]`` of latents ``[..., D]``."""
        maps = latent.reshape(-1, *self.shape).contiguous(memory_format=torch.channels_last)
        seen = F.silu(self.look(maps)).flatten(2).transpose(1, 2)  # [N, h·w, channels]
        # Score and value are 1×1 convolutions: as one matrix product they are several times faster to differentiate.
        kernel = torch.cat([self.score.weight, self.value.weight]).flatten(1)
        found = F.linear(seen, kernel, torch.cat([self.score.bias, self.value.bias])).transpose(1, 2)  # type: ignore[list-item]
        weights = found[:, :_GLANCES].softmax(-1)  # [N, glances, h·w]
        read = torch.cat([weights @ found[:, _GLANCES:].transpose(1, 2), weights @ (2 * self.places.T)], dim=-1)
        return read.reshape(*latent.shape[:-1], self.features)


class Reader(nn.Module):
    """What actor and critic see of a latent, and of the goal beside it: the latent itself, or what a map shows.

    Args:
        latent: Width D of the latent.
        goals: Whether there is a goal to be seen beside it.
        grid: Height and width of the map that a latent is, to look for things in; None where it is read whole.
    """

    def __init__(self, latent: int, goals: bool, grid: tuple[int, int] | None) -> None:
        super().__init__()
        looker = None if grid is None else MapReader(latent, grid)
        self.look: nn.Module = looker or nn.Identity()
        self.features: int = (looker.features if looker else latent) * (2 if goals else 1)

    def forward(self, layer: nn.Module, latent: Tensor, goal: Tensor | None = None) -> Tensor:
        """What a first layer makes of the features of latents ``[B, ..., D]`` beside those of their goals ``[B, D]``.

        With G goals each, ``[B, G, D]``, every latent is beside every goal: ``[B, G, ..., H]``. Latents and goals then
        go through the layer once each, however many pairs they make.
        """
        seen: Tensor = self.look(latent)
        if goal is None:
            return layer(seen)  # type: ignore[no-any-return]
        wanted = self.look(goal)
        several = goal.dim() == 3
        wanted = wanted.reshape(*goal.shape[:-1], *[1] * (seen.dim() + several - goal.dim()), wanted.shape[-1])
        if not several or goal.shape[1] == 1:  # as many pairs as latents: one product is cheaper than two
            seen = seen.unsqueeze(1) if several else seen
            return layer(torch.cat([seen, wanted.expand_as(seen)], dim=-1))  # type: ignore[no-any-return]
        assert isinstance(layer, nn.Linear)
        width, weight = seen.shape[-1], layer.weight
        mine, others = F.linear(seen, weight[:, :width], layer.bias), F.linear(wanted, weight[:, width:])
        return mine.unsqueeze(1) + others


def silent(inputs: int, outputs: int) -> nn.Linear:
    """A layer that starts at zero: it claims and modulates nothing before learning."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero_headed_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two normalised hidden layers and an output that starts at zero."""
    output = silent(hidden, outputs)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        output,
    )
