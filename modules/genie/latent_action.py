"""The latent action model: which of |A| things happened between two frames? Learned from pixels alone (Genie, 2.1).

``a[t]`` leads from ``x[t]`` to ``x[t+1]``. The encoder sees ``x[0] … x[t+1]`` and names ``a[t]``; the decoder sees
``x[0] … x[t]`` and ``a[0] … a[t]`` and draws ``x[t+1]``. Between them passes one of |A| codes, so that they must agree
on the changes that the past does not foretell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .patches import Places, cut_wide, join, patch_grid
from .quantisers import Quantised, VectorQuantiser
from .transformer import SpaceTimeTransformer

_STILL = 0.01  # summed over patches: less change than this is none, and all such steps are alike


@dataclass(frozen=True)
class LatentActionConfig:
    """Settings of the latent action model."""

    actions: int = 8
    """Latent actions |A|."""
    patch: int = 8
    """Side of a patch in pixels."""
    margin: int = 4
    """Pixels around a patch that its token sees as well; less than this is seen to move within one token."""
    width: int = 64
    """Width of encoder and decoder."""
    blocks: int = 2
    """ST blocks of the encoder, and of the decoder."""
    heads: int = 4
    """Attention heads."""
    code_dim: int = 16
    """Width of an action's code."""
    commitment: float = 0.25
    """Weight of the commitment loss."""
    warmup: float = 0.5
    """Share of the updates before there are codes: latents pass with noise only, then codes are put where they gather
    (k-means). Codes that must be right from the first update seldom become so."""
    noise: float = 0.3
    """Standard deviation of that noise; latents have unit variance."""
    patience: int = 50
    """Updates without use after which an action's code is reset."""
    history: float = 0.5
    """Chance that the decoder sees a frame before the last one, so that it cannot do without the action."""
    changed: float = 4.0
    """Extra weight of pixels that change between two frames."""
    pooling: Literal["changed", "all"] = "changed"
    """Which patches tell what happened. changed: as much as each changes, so that a small figure is heard in a picture
    that stands still; all: all alike."""
    labelled_actions: int = 0
    """True actions that a few labelled steps name (updates.labels); 0: nobody tells any."""


@dataclass(frozen=True)
class LatentActionLoss:
    """What an update of the latent action model tells.

    Attributes:
        loss: To minimise.
        error: Mean squared error of the drawn frames.
        codes: Actions ``[B, T-1]``.
        drawn: ``x[1] … x[T-1]`` as drawn ``[B, T-1, H, W, 3]``.
    """

    loss: Tensor
    error: Tensor
    codes: Tensor
    drawn: Tensor


class LatentActionModel(nn.Module):
    """Clips ``[B, T, H, W, 3]`` in [0, 1] to latent actions ``[B, T-1]``.

    Args:
        config: Settings.
        height: H.
        width: W.
        context: Frames that encoder and decoder see.

    Raises:
        ValueError: Settings that do not fit each other or the frames.
    """

    def __init__(self, config: LatentActionConfig, height: int, width: int, context: int) -> None:
        super().__init__()
        if not 0 <= config.history <= 1 or config.changed < 0:
            raise ValueError(
                f"latent_action.history is {config.history} and changed {config.changed}; expected a chance "
                "from 0 to 1 and a weight of at least 0"
            )
        self.config, self.height, self.frame_width = config, height, width
        grid = patch_grid(height, width, config.patch, "latent_action")
        pixels, seen, d = 3 * config.patch**2, 3 * (config.patch + 2 * config.margin) ** 2, config.width
        self.embed = nn.Sequential(nn.Linear(2 * seen, 2 * d), nn.GELU(), nn.Linear(2 * d, d))  # without places
        self.encoder = SpaceTimeTransformer(d, config.blocks, config.heads, context, grid)
        self.to_code = nn.Linear(d, config.code_dim)
        self.standard = nn.BatchNorm1d(config.code_dim, affine=False)  # what differs between steps, however little
        self.quantiser = VectorQuantiser(config.actions, config.code_dim, patience=config.patience)
        self.to_label = nn.Linear(config.code_dim, config.labelled_actions) if config.labelled_actions else None
        self.from_code = nn.Linear(config.code_dim, d)
        self.embed_past = nn.Sequential(nn.Linear(seen, d), Places(grid[0] * grid[1], d))
        self.decoder = SpaceTimeTransformer(d, config.blocks, config.heads, context, grid)
        self.to_pixels = nn.Linear(d, pixels)
        nn.init.zeros_(self.to_pixels.weight)  # at first nothing changes
        nn.init.zeros_(self.to_pixels.bias)

    def vectors(self, frames: Tensor) -> Tensor:
        """What the encoder says of each step before it is quantised, ``[B, T-1, code_dim]``."""
        patches = self._cut(frames)
        change = patches[:, 1:] - patches[:, :-1]
        steps = torch.cat([change, patches[:, 1:]], -1)  # step t holds x[t] and x[t+1]
        told = self.encoder(self.embed(steps))
        if self.config.pooling == "changed":
            weight = change.abs().mean(-1, keepdim=True)  # [B, T-1, N, 1]
            pooled = (weight * told).sum(2) / (weight.sum(2) + _STILL)
        else:
            pooled = told.mean(2)
        coded: Tensor = self.to_code(pooled)
        standard: Tensor = self.standard(coded.flatten(0, 1))
        return standard.reshape(coded.shape)

    def encode(self, frames: Tensor) -> Tensor:
        """Latent actions ``[B, T-1]`` of clips ``[B, T, H, W, 3]`` in [0, 1]."""
        codes: Tensor = self.quantiser(self.vectors(frames)).codes
        return codes

    def draw(self, frames: Tensor, actions: Tensor, seen: Tensor | None = None) -> Tensor:
        """``x[1] … x[T]`` from ``x[0] … x[T-1]`` and the actions' vectors.

        Args:
            frames: ``[B, T, H, W, 3]``, without the frame that is drawn last.
            actions: ``[B, T, code_dim]``.
            seen: What frame t sees of frame s, bool ``[B, T, T]``; None: all of the past.
        """
        x = self.embed_past(self._cut(frames)) + self.from_code(actions).unsqueeze(2)
        change = join(self.to_pixels(self.decoder(x, seen)), self.config.patch, self.height, self.frame_width)
        return frames + change

    def loss(self, frames: Tensor, generator: torch.Generator | None = None, quantise: bool = True) -> LatentActionLoss:
        """Loss of clips.

        Args:
            frames: ``[B, T, H, W, 3]``.
            generator: Hides history, and lets the codebook learn (in training mode).
            quantise: Pass codes; else, in the warm-up, the latents themselves with noise (needs a generator).
        """
        before, after = frames[:, :-1], frames[:, 1:]
        latents = self.vectors(frames)
        quantised = self.quantiser(latents, generator if quantise else None)
        if not quantise:
            assert generator is not None
            noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
            quantised = Quantised(latents + self.config.noise * noise, quantised.codes, latents.new_zeros(()))
        seen = None if generator is None else self._hide(len(frames), before.shape[1], generator, frames.device)
        drawn = self.draw(before, quantised.vectors, seen)
        square = (drawn - after).square()
        weight = 1 + self.config.changed * ((after - before).abs().amax(-1, keepdim=True) > 0.05)
        loss = (weight * square).sum() / (weight.expand_as(square).sum())
        return LatentActionLoss(
            loss + self.config.commitment * quantised.commitment, square.mean(), quantised.codes, drawn
        )

    def naming_loss(self, frames: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy of the true actions ``[B]``, named from what the encoder says of single steps.

        A few labels say which of all that happens is the agent's doing (2502.00379).

        Args:
            frames: Two each ``[B, 2, H, W, 3]``.
            truth: What led from the first to the second ``[B]``.

        Raises:
            ValueError: The model was made to be told nothing.
        """
        if self.to_label is None:
            raise ValueError(
                "latent_action.labelled_actions is 0; a model that is told true actions needs their number"
            )
        return F.cross_entropy(self.to_label(self.vectors(frames)[:, 0]), truth)

    def _cut(self, frames: Tensor) -> Tensor:
        return cut_wide(frames - 0.5, self.config.patch, self.config.margin)

    def _hide(self, batch: int, steps: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """What is seen ``[B, T, T]``: the last frame always, each older one with the chance ``history``."""
        draws = torch.rand(batch, steps, steps, generator=generator, device=generator.device).to(device)
        return (draws < self.config.history) | torch.eye(steps, dtype=torch.bool, device=device)


def shuffled_loss(model: LatentActionModel, frames: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """Error with the inferred actions and with the same ones in another order; equal where the decoder ignores them."""
    codes = model.encode(frames)
    order = torch.randperm(codes.numel(), generator=generator, device=generator.device).to(codes.device)
    errors = []
    for chosen in (codes, codes.reshape(-1)[order].reshape(codes.shape)):
        drawn = model.draw(frames[:, :-1], model.quantiser.look_up(chosen))
        errors.append(float(F.mse_loss(drawn, frames[:, 1:])))
    return errors[0], errors[1]
