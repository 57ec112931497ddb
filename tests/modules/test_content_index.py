"""Short-term memory read by content: the nearest entries are the nearest, and stale latents are encoded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forethought.modules.content import Match
from forethought.modules.content_index import ContentIndex
from forethought.modules.memory import MemoryShape, ShortTermMemory
from torch import Tensor

WIDTH = 12
SHAPE = MemoryShape(observation=(WIDTH,), pixels=False, action=(), discrete=True, plan=2, horizon=3)


def remember(memory: ShortTermMemory, steps: int, seed: int = 0) -> None:
    """Random percepts; the action is the time, the reward the first number seen."""
    draws = np.random.default_rng(seed)
    nothing = np.zeros(memory.streams, bool)
    for t in range(steps):
        x = draws.normal(size=(memory.streams, WIDTH)).astype(np.float32)
        memory.write(x, np.full(memory.streams, t), x[:, 0], draws.random(memory.streams) < 0.1, nothing)


def linear(seed: int, history: int = 1) -> Tensor:
    return torch.randn(history * WIDTH, 8, generator=torch.Generator().manual_seed(seed))


def encoder(weight: Tensor, counts: list[int] | None = None):  # type: ignore[no-untyped-def]
    def encode(percepts: Tensor) -> Tensor:
        if counts is not None:
            counts.append(len(percepts))
        return percepts.flatten(1) @ weight

    return encode


@pytest.mark.parametrize("written", [15, 47])
@pytest.mark.parametrize("history", [1, 3])
def test_neighbours_are_those_of_a_search_by_hand(written: int, history: int) -> None:
    memory = ShortTermMemory(SHAPE, streams=3, capacity=60, history=history)
    remember(memory, written)
    encode = encoder(linear(0, history))
    index = ContentIndex(memory, rows=7)
    index.refresh(encode, version=0)
    query = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    found = index.nearest(query, count=3, steps=2)
    count = memory.starts(2)
    stream, start = (part.ravel() for part in np.meshgrid(np.arange(3), np.arange(count), indexing="ij"))
    latents = encode(memory.read(stream, start, 0).observation[:, 0])
    cosine = torch.nn.functional.cosine_similarity(query[:, None], latents[None], dim=-1)
    best = cosine.argsort(-1, descending=True)[:, :3].numpy()
    assert np.array_equal(found.stream, stream[best]) and np.array_equal(found.start, start[best])
    torch.testing.assert_close(found.latent, latents[best])
    window = index.read(found, 2)  # and what followed them can be read
    torch.testing.assert_close(encode(window.observation[:, 0]).reshape(5, 3, 8), latents[best])
    assert torch.equal(window.action[:, 1], window.action[:, 0] + 1)


def test_scores_and_interpolation_are_those_of_the_equation() -> None:
    """Halfway between two stored states the reward read is between theirs; far from all of them nothing is known."""
    memory = ShortTermMemory(SHAPE, streams=1, capacity=20)
    nothing = np.zeros(1, bool)
    for t, row in enumerate(np.eye(4, WIDTH, dtype=np.float32)):
        memory.write(row[None], np.zeros(1), np.array([float(t)]), nothing, nothing)
    index = ContentIndex(memory, Match(20.0, 10.0))
    index.refresh(encoder(torch.eye(WIDTH)), 0)
    query = torch.zeros(3, WIDTH)
    query[0, 0] = query[1, 0] = query[1, 1] = query[2, 9] = 1.0
    found = index.nearest(query, count=2)
    cosine = torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5], [0.0, 0.0]]).double()
    expected = (20 * cosine).exp() / (np.exp(10.0) + (20 * cosine).exp().sum(-1, keepdim=True))
    torch.testing.assert_close(found.scores.double(), expected, atol=1e-5, rtol=1e-4)
    reward = index.read(found).reward[:, 0].reshape(3, 2)
    felt = found.interpolate(reward)
    assert felt[:2].tolist() == pytest.approx([0.0, 0.5], abs=1e-3)
    assert found.novelty.tolist() == pytest.approx([0.0, 0.01, 1.0], abs=0.01)
    latent = found.interpolate(found.latent)
    assert latent[1, :3].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)


def test_only_what_is_stale_is_encoded_again() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=24)
    remember(memory, 9)
    counts: list[int] = []
    index = ContentIndex(memory, rows=5)
    assert index.refresh(encoder(linear(0), counts), 0) == sum(counts) == 18 and max(counts) == 5
    assert index.refresh(encoder(linear(0), counts), 0) == 0
    remember(memory, 5, seed=1)  # two of the oldest are overwritten
    assert index.refresh(encoder(linear(0), counts), 0) == 10
    assert index.refresh(encoder(linear(1), counts), 1) == 24 and sum(counts) == 52
    fresh = ContentIndex(memory)
    fresh.refresh(encoder(linear(1)), 7)
    assert index.latents is not None and fresh.latents is not None
    torch.testing.assert_close(index.latents, fresh.latents)


def test_an_overwritten_entry_is_not_found() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=6)
    remember(memory, 6)
    old = torch.from_numpy(memory.data["observation"][0, :1].copy())
    index = ContentIndex(memory)
    index.refresh(encoder(torch.eye(WIDTH)), 0)
    assert float(index.nearest(old, 1, steps=0).scores) > 0.99
    remember(memory, 1, seed=5)
    index.refresh(encoder(torch.eye(WIDTH)), 0)
    assert float(index.nearest(old, 1, steps=0).scores) < 0.99


def test_latents_of_perception_at_rest_are_taken_over() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=24)
    remember(memory, 9)
    memory.keep_latents(encoder(linear(0)))
    counts: list[int] = []
    index = ContentIndex(memory)
    assert index.refresh(encoder(linear(3), counts), 0) == 18 and not counts
    assert index.latents is not None
    torch.testing.assert_close(index.latents[:, :9], memory.latents)


def test_what_was_never_encoded_cannot_be_found() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=24)
    remember(memory, 4)
    index = ContentIndex(memory)
    with pytest.raises(ValueError, match="2 neighbours were asked for and 0 entries are encoded; write more and call"):
        index.nearest(torch.ones(1, 8), 2)
    index.refresh(encoder(linear(0)), 0)
    with pytest.raises(ValueError, match="4 neighbours were asked for and 3 entries"):
        index.nearest(torch.ones(1, 8), 4)
