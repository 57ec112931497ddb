"""What perception recalls: a memory by content that is read and written in every step of an episode.

The state is then what is seen and, beside it, what that brings to mind: ``[s; m]`` with m = Mem(q(s)). What was seen is
written after it was read: key k(s), value v(s). Queries, keys and values are learned with the world model, which has to
foresee rewards and endings from [s; m]; actor and critic read the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .content import ContentMemory, Match, empty_memory, forget, recall, used, write


@dataclass(frozen=True)
class RecallConfig:
    """Settings of what perception recalls."""

    slots: int = 0
    """Slots of a memory by content that perception reads and writes in every step of an episode; 0: it has none."""
    keys: int = 16
    """Width of its keys and queries."""
    values: int = 16
    """Width of what is recalled, beside the latent."""
    sharpness: float = 10.0
    """β of the match β·cos(key, query): 10 interpolates, 50 looks up."""
    accept: float = 0.8
    """Cosine from which on two keys are one thing: what is written then changes that slot instead of taking another."""
    past: int = 32
    """Percepts of the same episode before a training window that are gone through again, so that they can be recalled;
    longer ago is out of reach while learning."""

    @property
    def reach(self) -> int:
        """Percepts that a window needs of its past."""
        return self.past if self.slots else 0


class Recall(nn.Module):
    """Queries, keys and values of latents ``[..., D]``, and the memory they belong to.

    Queries start out equal to keys: what looks alike comes to mind.

    Attributes:
        disturb: What is done to a memory before it is read, for ablations; nothing by default.

    Args:
        config: Settings, with at least one slot.
        latent: Width D of what is seen.
    """

    def __init__(self, config: RecallConfig, latent: int) -> None:
        super().__init__()
        self.config = config
        self.key = nn.Linear(latent, config.keys, bias=False)
        self.query = nn.Linear(latent, config.keys, bias=False)
        self.value = nn.Linear(latent, config.values, bias=False)
        nn.init.orthogonal_(self.value.weight)  # what is recalled is as large as what was seen
        with torch.no_grad():
            self.query.weight.copy_(nn.init.orthogonal_(self.key.weight))
        self.disturb: Callable[[ContentMemory], ContentMemory] | None = None
        self.reading = Match(config.sharpness, acceptance=0.0)  # an open gate: what to leave alone can be learned
        self.writing = Match(config.sharpness, acceptance=config.sharpness * config.accept)

    def begin(self, batch: int, device: torch.device | None = None) -> ContentMemory:
        """The memories of B episodes that begin."""
        return empty_memory(batch, self.config.slots, self.config.keys, self.config.values, device)

    def step(self, memory: ContentMemory, latent: Tensor, where: Tensor) -> tuple[Tensor, ContentMemory]:
        """What latents ``[B, D]`` bring to mind ``[B, V]``, and the memories with them in it where told ``[B]``."""
        return self._step(memory, self.query(latent), self.key(latent), self.value(latent), where)

    def _step(
        self, memory: ContentMemory, query: Tensor, key: Tensor, value: Tensor, where: Tensor
    ) -> tuple[Tensor, ContentMemory]:
        read = memory if self.disturb is None else self.disturb(memory)
        found = recall(read, query.unsqueeze(1), self.reading)
        memory = used(memory, found.scores * where[:, None, None])
        return found.value.squeeze(1), write(memory, key, value, self.writing, where)

    def forward(self, latent: Tensor, begins: Tensor, where: Tensor) -> Tensor:
        """What each of T latents in a row brings to mind ``[B, T, V]``, from those before it in its episode.

        Args:
            latent: ``[B, T, D]``.
            begins: Where an episode begins ``[B, T]``, besides at the first.
            where: Where there is something to remember ``[B, T]``.
        """
        memory = self.begin(len(latent), latent.device)
        brought = []
        query, key, value = self.query(latent), self.key(latent), self.value(latent)
        for t in range(latent.shape[1]):
            memory = forget(memory, begins[:, t])
            read, memory = self._step(memory, query[:, t], key[:, t], value[:, t], where[:, t])
            brought.append(read)
        return torch.stack(brought, dim=1)
