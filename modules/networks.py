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

    def forward(self, latent: Tensor) -> Tensor:
        """Features ``[..., R]`` of latents ``[..., D]``."""
        maps = latent.reshape(-1, *self.shape)
        seen = F.silu(self.look(maps))
        weights = self.score(seen).flatten(2).softmax(-1)  # [N, glances, h·w]
        values = self.value(seen).flatten(2)  # [N, width, h·w]
        what = torch.cat([values, 2 * self.places.expand(len(maps), -1, -1)], dim=1)
        read: Tensor = (weights @ what.transpose(1, 2)).reshape(*latent.shape[:-1], self.features)
        return read


class Reader(nn.Module):
    """What actor and critic see of a latent, and of the goal beside it: the latent itself, or what a map shows.

    Args:
        latent: Width D of the latent.
        goals: Whether there is a goal to be seen beside it.
        grid: Height and width of the map that a latent is; None where it is a vector.
    """

    def __init__(self, latent: int, goals: bool, grid: tuple[int, int] | None) -> None:
        super().__init__()
        looker = None if grid is None else MapReader(latent, grid)
        self.look: nn.Module = looker or nn.Identity()
        self.features: int = (looker.features if looker else latent) * (2 if goals else 1)

    def forward(self, latent: Tensor, goal: Tensor | None = None) -> Tensor:
        """Features ``[B, ..., F]`` of latents ``[B, ..., D]`` beside their goals ``[B, D]``.

        With G goals each, ``[B, G, D]``, every latent beside every goal: ``[B, G, ..., F]``.
        """
        seen: Tensor = self.look(latent)
        if goal is None:
            return seen
        wanted = self.look(goal)  # once, however many latents there are for each
        if goal.dim() == 3:
            seen = seen.unsqueeze(1).expand(-1, goal.shape[1], *seen.shape[1:])
        wanted = wanted.reshape(*goal.shape[:-1], *[1] * (seen.dim() - goal.dim()), wanted.shape[-1])
        return torch.cat([seen, wanted.expand_as(seen)], dim=-1)


def zero_headed_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two normalised hidden layers and an output that starts at zero, so that nothing is claimed before learning."""
    output = nn.Linear(hidden, outputs)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        output,
    )
