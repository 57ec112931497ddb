"""Reading short-term memory by content: which remembered states are like this one, and what came of them.

Short-term memory keeps observations, so a latent can be computed anew whenever the encoder has changed. The index keeps
the latents it computed with the version of the encoder that made them; stale ones are encoded again when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .content import Match, gated
from .memory import ShortTermMemory, Window

Encode = Callable[[Tensor], Tensor]
"""Percepts ``[N, history, *shape]`` to latents ``[N, D]``."""


@dataclass(frozen=True)
class Neighbours:
    """The k remembered states most like each of B queries, best first.

    Attributes:
        stream: Whose they are ``[B, k]``.
        start: Where they are, as `ShortTermMemory.read` counts ``[B, k]``; good until the next write.
        scores: c = exp(β·cos)/(γ + Σ exp(β·cos)) among the k ``[B, k]``.
        latent: ``[B, k, D]``.
    """

    stream: NDArray[np.int64]
    start: NDArray[np.int64]
    scores: Tensor
    latent: Tensor

    @property
    def novelty(self) -> Tensor:
        """1 − Σ c ``[B]``: near 1 where nothing like the query is remembered."""
        return 1 - self.scores.sum(-1)

    def interpolate(self, values: Tensor) -> Tensor:
        """Σ c·v / Σ c ``[B, ...]`` of anything that is known of the neighbours ``[B, k, ...]``."""
        weights = self.scores / self.scores.sum(-1, keepdim=True).clamp(min=torch.finfo(self.scores.dtype).tiny)
        return (weights.reshape(*weights.shape, *[1] * (values.dim() - 2)) * values).sum(1)


class ContentIndex:
    """Latents of a short-term memory's entries, to find those that are like another.

    Args:
        memory: Whose entries are found.
        match: β and γ of the scores.
        rows: How many percepts are encoded at a time.
    """

    def __init__(self, memory: ShortTermMemory, match: Match | None = None, rows: int = 2_000) -> None:
        self.memory, self.match, self.rows = memory, match or Match(), rows
        self.latents: Tensor | None = None  # [E, length, D]
        self.versions = np.full(memory.length, -1, np.int64)  # of the encoder that made them, slot by slot
        self.changes = np.full(memory.length, -1, np.int64)  # the slot's last change when it did

    def refresh(self, encode: Encode, version: int) -> int:
        """Encode what was written since, or was encoded by another version; returns how many percepts that were.

        Args:
            encode: The present encoder, without gradient.
            version: Its number, such as the count of its updates.
        """
        memory = self.memory
        position = np.arange(memory.starts(0), dtype=np.int64)
        slots = memory.slots(position)
        stale = (self.versions[slots] != version) | (self.changes[slots] != memory.changed[slots])
        stream, start = (
            index.ravel() for index in np.meshgrid(np.arange(memory.streams), position[stale], indexing="ij")
        )
        for at in range(0, len(stream), self.rows):
            rows = slice(at, at + self.rows)
            window = memory.read(stream[rows], start[rows], 0)
            latent = encode(window.observation[:, 0]) if window.latent is None else window.latent[:, 0]
            if self.latents is None:
                self.latents = latent.new_zeros(memory.streams, memory.length, latent.shape[-1])
            here = torch.from_numpy(memory.slots(start[rows])).to(latent.device)
            self.latents[torch.from_numpy(stream[rows]).to(latent.device), here] = latent
        self.versions[slots[stale]] = version
        self.changes[slots[stale]] = memory.changed[slots[stale]]
        return len(stream)

    def nearest(self, query: Tensor, count: int = 4, steps: int = 1) -> Neighbours:
        """The ``count`` entries most like each query by cosine, of those that ``steps`` transitions follow.

        Latents are compared as they are; `refresh` first.

        Args:
            query: Latents ``[B, D]``.
            count: k.
            steps: Transitions that can be read from each neighbour on.

        Raises:
            ValueError: There are fewer entries than k, or they were never encoded.
        """
        memory = self.memory
        starts = memory.starts(steps)
        if self.latents is None or starts * memory.streams < count:
            known = 0 if self.latents is None else max(starts, 0) * memory.streams
            raise ValueError(
                f"{count} neighbours were asked for and {known} entries are encoded; write more and call refresh first"
            )
        slots = torch.from_numpy(memory.slots(np.arange(starts, dtype=np.int64))).to(query.device)
        latents = self.latents[:, slots].flatten(0, 1)  # [E·L, D]
        cosine, index = (F.normalize(query, dim=-1) @ F.normalize(latents, dim=-1).T).topk(count, dim=-1)
        stream, start = np.divmod(index.cpu().numpy(), starts)
        return Neighbours(stream, start, gated(cosine, self.match), latents[index])

    def read(self, neighbours: Neighbours, steps: int = 1) -> Window:
        """Windows from the neighbours on ``[B·k, ...]``, query by query."""
        return self.memory.read(neighbours.stream.ravel(), neighbours.start.ravel(), steps)
