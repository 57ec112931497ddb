"""The dynamics: tokens of the next frame from past tokens and latent actions (MaskGIT, 2202.04200; Genie, 2.1).

Training lays two streams side by side. The clean stream holds the tokens as they are (a few corrupted, against drift)
and each of its frames sees the clean past; the masked stream holds the frames to be filled in, each of which sees the
clean past and itself. This is what sampling does with its cache: finished frames are passed through once, clean, and
the new frame is filled in beside them. (The paper masks the past as well and has no such pass.)

``a[t]`` leads from frame t to frame t + 1 and is given to frame t + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .patches import Places
from .transformer import Past, SpaceTimeTransformer


@dataclass(frozen=True)
class DynamicsConfig:
    """Settings of the dynamics and its sampler."""

    width: int = 128
    """Width."""
    blocks: int = 3
    """ST blocks."""
    heads: int = 4
    """Attention heads."""
    injection: Literal["add", "prepend", "film"] = "add"
    """How a frame hears its action: added to its tokens, as one more token, or as scale and shift of every part."""
    corruption: float = 0.1
    """Share of past tokens replaced at random, drawn per clip from [0, this]."""
    steps: int = 4
    """Sampling steps per frame."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the likeliest token."""
    order: Literal["random", "confidence"] = "random"
    """Which tokens are filled in first; by confidence the picture tends to stand still."""


class Dynamics(nn.Module):
    """Predicts tokens ``[B, T, N]`` of a vocabulary V under latent actions ``[B, T-1]`` in [0, A).

    Args:
        config: Settings.
        vocabulary: V.
        actions: A.
        grid: Rows and columns of a frame's N tokens.
        context: Frames seen, including the new one.

    Raises:
        ValueError: Settings out of range.
    """

    def __init__(
        self, config: DynamicsConfig, vocabulary: int, actions: int, grid: tuple[int, int], context: int
    ) -> None:
        super().__init__()
        tokens = grid[0] * grid[1]
        check_sampling(config.steps, config.temperature, tokens)
        if not 0 <= config.corruption <= 1:
            raise ValueError(f"dynamics.corruption is {config.corruption}, expected a share from 0 to 1")
        self.config, self.vocabulary, self.tokens, self.actions = config, vocabulary, tokens, actions
        d = config.width
        self.extra = int(config.injection == "prepend")
        self.embed = nn.Embedding(vocabulary + 1, d)  # the last one stands for a token to be filled in
        self.action = nn.Embedding(actions + 1, d)  # the last one: nothing is known of what led here
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.action.weight, std=0.02)
        self.places = Places(tokens + self.extra, d)
        film = config.injection == "film"
        self.transformer = SpaceTimeTransformer(d, config.blocks, config.heads, context, grid, self.extra, film)
        self.head = nn.Linear(d, vocabulary)

    @property
    def mask(self) -> int:
        """The integer that stands for a token to be filled in."""
        return self.vocabulary

    def arrivals(self, actions: Tensor) -> Tensor:
        """The action that led to each frame ``[B, T]``, from ``[B, T-1]``; nothing is known of the first."""
        return F.pad(actions, (1, 0), value=self.actions)

    def loss(self, tokens: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cross-entropy of masked tokens of clips ``[B, T, N]`` under actions ``[B, T-1]``, and their accuracy.

        The share of masked tokens is drawn from U(0.5, 1) for each frame of each clip.
        """
        b, t, n = tokens.shape
        device = tokens.device
        rate = 0.5 + 0.5 * torch.rand(b, t - 1, 1, generator=generator, device=generator.device)
        hidden = (torch.rand(b, t - 1, n, generator=generator, device=generator.device) < rate).to(device)
        given = tokens[:, 1:].masked_fill(hidden, self.mask)
        logits, _ = self.predict(self.corrupt(tokens, generator), given, actions)
        chosen, targets = logits[hidden], tokens[:, 1:][hidden]
        return F.cross_entropy(chosen, targets), (chosen.argmax(-1) == targets).float().mean()

    def corrupt(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens ``[B, T, N]`` with a share of each clip replaced by random ones."""
        at = generator.device
        share = self.config.corruption * torch.rand(len(tokens), 1, 1, generator=generator, device=at)
        wrong = (torch.rand(tokens.shape, generator=generator, device=at) < share).to(tokens.device)
        other = torch.randint(self.vocabulary, tokens.shape, generator=generator, device=at).to(tokens.device)
        return torch.where(wrong, other, tokens)

    def predict(self, clean: Tensor, given: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of frames 1 … T-1, each from the clean past, its action and what of it is given.

        Args:
            clean: ``[B, T, N]``; frame T-1 has no influence on the logits.
            given: Frames 1 … T-1 with masked tokens ``[B, T-1, N]``.
            actions: ``[B, T-1]``.

        Returns:
            Logits ``[B, T-1, N, V]``, and the clean stream's hidden frames ``[B, T, N, D]``.
        """
        t = clean.shape[1]
        arrival = self.arrivals(actions)
        x, condition = self._inputs(torch.cat([clean, given], 1), torch.cat([arrival, arrival[:, 1:]], 1))
        frames = torch.arange(t, device=clean.device)
        time = torch.cat([frames, frames[1:]])
        is_clean = torch.arange(2 * t - 1, device=clean.device) < t
        before = (time[None] < time[:, None]) & is_clean[None]
        itself = torch.eye(2 * t - 1, dtype=torch.bool, device=clean.device)
        hidden = self.transformer.attend(x, time, before | itself, condition)[:, :, self.extra :]
        return self.head(hidden[:, t:]), hidden[:, :t]

    def begin(self, batch: int, device: torch.device) -> Past:
        """The past of streams that have seen nothing."""
        return self.transformer.begin(batch, device)

    def finish(self, tokens: Tensor, arrival: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Pass a finished frame through.

        Args:
            tokens: ``[B, N]``.
            arrival: The action that led to it ``[B]``; A where none is known.
            past: What came before.

        Returns:
            Hidden frame ``[B, N, D]`` and the past with it.
        """
        x, condition = self._inputs(tokens[:, None], arrival[:, None])
        hidden, keys, values = self.transformer.stream(x, past, condition)
        return hidden[:, 0, self.extra :], past.append(keys, values)

    def logits(self, given: Tensor, action: Tensor, past: Past) -> Tensor:
        """Logits ``[B, N, V]`` of the frame that ``action [B]`` leads to, of which ``given [B, N]`` is filled in."""
        x, condition = self._inputs(given[:, None], action[:, None])
        hidden, _, _ = self.transformer.stream(x, past, condition)
        predicted: Tensor = self.head(hidden[:, 0, self.extra :])
        return predicted

    def _inputs(self, tokens: Tensor, arrival: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embedded frames ``[B, T, N (+ 1), D]`` and FiLM's condition."""
        x, action = self.embed(tokens), self.action(arrival)
        if self.config.injection == "prepend":
            x = torch.cat([action.unsqueeze(2), x], 2)
        elif self.config.injection == "add":
            x = x + action.unsqueeze(2)
        return self.places(x), action if self.config.injection == "film" else None


def check_sampling(steps: int, temperature: float, tokens: int) -> None:
    """Refuse numbers that cannot be sampled with.

    Raises:
        ValueError: Says which.
    """
    if not 1 <= steps <= tokens:
        raise ValueError(f"{steps} sampling steps for {tokens} tokens of a frame; expected 1 to {tokens}")
    if not temperature >= 0 or math.isinf(temperature):
        raise ValueError(f"sampling temperature {temperature}; expected 0 (the likeliest token) or more, 1 as trained")
