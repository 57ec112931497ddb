"""Memory by content: keys and values that are read softly, written softly and allocated when something is new.

LeCun 2022, section 4.7 (pp. 35–36), with batches of B memories of N slots:

    c[j] = exp(β·cos(k[j], q)) / (γ + Σ_k exp(β·cos(k[k], q)))      scores; what is missing to 1 is novelty
    Mem(q) = Σ_j c[j]·v[j]                                          read
    v[j] ← c[j]·r + (1 − c[j])·v[j]                                 write r at q, where q is known
    k[j*] = q, v[j*] = r                                            allocate a slot, where q is new

A memory is a frozen value: writing returns another one, so that it can be undone, branched and differentiated in
queries, keys and values. The match is a similarity; the paper calls it a dissimilarity but uses it as this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

_FADE = 0.99
"""What is left of a slot's usage with each write."""
_LEAST = 1e-30
"""Usage of a slot that was filled long ago: it is not empty."""


@dataclass(frozen=True)
class Match:
    """When something is known.

    Attributes:
        sharpness: β, from 10 (interpolates) to 50 (looks up).
        acceptance: ln γ. A key alone counts as known from cos = ln γ / β on, where its score is ½.
        novelty: A write allocates a slot where 1 − Σ c is above this.
    """

    sharpness: float = 20.0
    acceptance: float = 10.0
    novelty: float = 0.5


@dataclass(frozen=True)
class ContentMemory:
    """Keys and values of B memories with N slots each.

    Attributes:
        keys: ``[B, N, D]``, of length 1.
        values: ``[B, N, V]``.
        usage: How much a slot was written or used of late ``[B, N]``; 0: it is empty.
    """

    keys: Tensor
    values: Tensor
    usage: Tensor


@dataclass(frozen=True)
class Recalled:
    """What Q questions to each memory brought back.

    Attributes:
        value: Mem(q) ``[B, Q, V]``.
        scores: c ``[B, Q, N]``.
    """

    value: Tensor
    scores: Tensor

    @property
    def mass(self) -> Tensor:
        """Σ c ``[B, Q]``: near 1 where the query is known, near 0 where it is new."""
        return self.scores.sum(-1)

    @property
    def novelty(self) -> Tensor:
        """1 − Σ c ``[B, Q]``."""
        return 1 - self.mass


def empty_memory(batch: int, slots: int, keys: int, values: int, device: torch.device | None = None) -> ContentMemory:
    """B memories without content, of ``slots`` slots, keys of width D and values of width V.

    Raises:
        ValueError: A size below 1.
    """
    if min(batch, slots, keys, values) < 1:
        raise ValueError(
            f"{batch} memories of {slots} slots with keys of {keys} and values of {values} numbers; "
            "each must be at least 1"
        )
    return ContentMemory(
        torch.zeros(batch, slots, keys, device=device),
        torch.zeros(batch, slots, values, device=device),
        torch.zeros(batch, slots, device=device),
    )


def gated(similarity: Tensor, match: Match) -> Tensor:
    """Scores c ``[..., N]`` of cosines ``[..., N]``; cosines of −∞ get none.

    γ is one more candidate of a softmax, which nothing overflows.
    """
    logits = match.sharpness * similarity
    gate = torch.full_like(logits[..., :1], match.acceptance)
    return torch.cat([logits, gate], dim=-1).softmax(-1)[..., :-1]


def recall(memory: ContentMemory, query: Tensor, match: Match) -> Recalled:
    """Read memories by content.

    Args:
        memory: B memories.
        query: Q questions to each ``[B, Q, D]``.
        match: β and γ.

    Raises:
        ValueError: The queries do not fit the keys.
    """
    batch, _, width = memory.keys.shape
    if query.dim() != 3 or query.shape[0] != batch or query.shape[-1] != width:
        raise ValueError(f"queries {list(query.shape)} to {batch} memories with keys of {width}; expected [B, Q, D]")
    scores = _scores(memory, F.normalize(query, dim=-1), match)
    return Recalled(scores @ memory.values, scores)


def _scores(memory: ContentMemory, query: Tensor, match: Match) -> Tensor:
    """c ``[B, Q, N]`` of queries ``[B, Q, D]`` of length 1."""
    cosine = query @ memory.keys.transpose(1, 2)
    return gated(cosine.masked_fill((memory.usage == 0).unsqueeze(1), -torch.inf), match)


def write(
    memory: ContentMemory, query: Tensor, value: Tensor, match: Match, where: Tensor | None = None
) -> ContentMemory:
    """Write one value to each memory: into the slots that know the query, else into a slot of its own.

    The slot is an empty one; if there is none, that of least usage is overwritten. Usage is the sum of the scores a
    slot had in writes (and in reads, see `used`), each faded by 1 % with every later write: what is old and what
    nobody asks for goes first. It is not differentiated, nor is the decision to allocate.

    Args:
        memory: B memories.
        query: ``[B, D]``, not zero.
        value: ``[B, V]``.
        match: β, γ and from which novelty on a slot is allocated.
        where: Which of the memories are written to ``[B]``; all by default.
    """
    query = F.normalize(query, dim=-1).unsqueeze(1)
    found = _scores(memory, query, match).squeeze(1)
    new = 1 - found.sum(-1) > match.novelty  # [B]
    place = F.one_hot(memory.usage.argmin(-1), memory.usage.shape[-1]).to(value.dtype)  # [B, N]
    scores = torch.where(new.unsqueeze(-1), place, found)
    fade = torch.full_like(scores[:, :1], _FADE)
    if where is not None:
        new, scores, fade = new & where, scores * where.unsqueeze(-1), fade.where(where.unsqueeze(-1), 1.0)
    taken = (place * new.unsqueeze(-1)).unsqueeze(-1) > 0
    share = scores.unsqueeze(-1)
    faded = (fade * memory.usage).clamp(min=_LEAST).masked_fill((memory.usage == 0) | taken.squeeze(-1), 0.0)
    return ContentMemory(
        keys=torch.where(taken, query, memory.keys),
        values=share * value.unsqueeze(1) + (1 - share) * memory.values,
        usage=(faded + scores).detach(),
    )


def used(memory: ContentMemory, scores: Tensor) -> ContentMemory:
    """The same memory, whose slots know that they were read with scores ``[B, Q, N]``."""
    return replace(memory, usage=(memory.usage + scores.sum(1)).detach())


def scrambled(memory: ContentMemory, generator: torch.Generator) -> ContentMemory:
    """The same memory, where each filled slot has the key of another: the control of whether content matters.

    The filled slots stand in a ring in random order, and each takes the key of the next; the key of a slot that is the
    only one stays.
    """
    filled = (memory.usage > 0).to(memory.keys.dtype)
    draws = torch.rand(filled.shape, generator=generator, device=filled.device)
    ring = torch.argsort(filled * (1 + draws), dim=-1, descending=True, stable=True)  # filled ones first
    here = torch.arange(ring.shape[-1], device=ring.device).expand_as(ring)
    count = filled.sum(-1, keepdim=True)
    following = torch.where(here + 1 < count, here + 1, torch.where(here < count, 0, here))
    places, others = (slot.unsqueeze(-1).expand_as(memory.keys) for slot in (ring, ring.gather(-1, following)))
    return replace(memory, keys=memory.keys.scatter(1, places, memory.keys.gather(1, others)))


def forget(memory: ContentMemory, where: Tensor) -> ContentMemory:
    """The same memory, without content in those of the B memories that are told ``[B]``."""
    return replace(memory, usage=memory.usage.masked_fill(where.unsqueeze(-1), 0.0))
