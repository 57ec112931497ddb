"""Memory by content: the reference's calibration, recall after one write, novelty, entities, gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forethought.agent.statistics import auroc
from forethought.modules.content import (
    ContentMemory,
    Match,
    empty_memory,
    forget,
    gated,
    recall,
    scrambled,
    used,
    write,
)
from torch import Tensor

MATCH = Match(sharpness=20.0, acceptance=10.0)


def units(*shape: int, seed: int = 0) -> Tensor:
    """Random directions ``[*shape]``."""
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def stored(keys: Tensor, values: Tensor) -> ContentMemory:
    return ContentMemory(keys, values, torch.ones(keys.shape[:-1], dtype=keys.dtype))


def written(keys: Tensor, values: Tensor, slots: int, match: Match = MATCH) -> ContentMemory:
    """Keys ``[T, D]`` and values ``[T, V]`` written one after another."""
    memory = empty_memory(1, slots, keys.shape[-1], values.shape[-1])
    for key, value in zip(keys.float(), values.float(), strict=True):
        memory = write(memory, key[None], value[None], match)
    return memory


# ---- the reference's calibration


@pytest.mark.parametrize(
    ("width", "slots", "expected"),
    [(16, 64, (0.04, 1.00, 1.00)), (16, 1024, (0.00, 0.82, 1.00)), (64, 64, (0.05, 1.00, 1.00)),
     (64, 1024, (0.00, 0.99, 1.00)), (256, 64, (0.05, 1.00, 1.00)), (256, 1024, (0.00, 1.00, 1.00))],
)  # fmt: skip
def test_calibration_of_the_sharpness(width: int, slots: int, expected: tuple[float, ...]) -> None:
    """R² of one-shot values read back at their own keys with β = 1, 10 and 50, ungated (γ = e⁻²⁰)."""
    keys, values = units(1, slots, width), units(1, slots, 8, seed=1) * 8**0.5
    for sharpness, table in zip((1.0, 10.0, 50.0), expected, strict=True):
        read = recall(stored(keys, values), keys, Match(sharpness, -20.0)).value
        residual = (read - values).square().sum() / (values - values.mean(1, keepdim=True)).square().sum()
        assert float(1 - residual) == pytest.approx(table, abs=0.03)


@pytest.mark.parametrize(
    ("gate", "known", "novel"), [(5, 1.00, 0.97), (10, 1.00, 0.18), (13, 1.00, 0.01), (15, 0.99, 0.00)]
)
def test_calibration_of_the_gate(gate: int, known: float, novel: float) -> None:
    """Read mass on stored and on new keys: d = 64, 256 slots, β = 20, γ = e⁵ … e¹⁵."""
    keys, match = units(8, 256, 64), Match(20.0, float(gate))
    memory = stored(keys, torch.zeros(8, 256, 1, dtype=keys.dtype))
    assert float(recall(memory, keys, match).mass.mean()) == pytest.approx(known, abs=0.011)
    assert float(recall(memory, units(8, 256, 64, seed=2), match).mass.mean()) == pytest.approx(novel, abs=0.02)


@pytest.mark.parametrize("sharpness", [10.0, 50.0, 500.0])
@pytest.mark.parametrize("gate", [-80.0, 15.0, 400.0])
def test_nothing_overflows(sharpness: float, gate: float) -> None:
    """Float32 scores are those of float64 computed by the formula in logarithms, far beyond where exp overflows."""
    cosine = torch.linspace(-1, 1, 9)
    logits = sharpness * cosine.double()
    expected = (logits - torch.logsumexp(torch.cat([logits, torch.tensor([gate]).double()]), 0)).exp()
    torch.testing.assert_close(gated(cosine, Match(sharpness, gate)).double(), expected, atol=1e-5, rtol=1e-4)


# ---- M1: one write is enough


@pytest.mark.parametrize("gate", [10.0, 15.0])
def test_what_was_written_once_is_read_back(gate: float) -> None:
    """M1: recall error ≤ 1e-2 after one write each, 32 slots."""
    keys, values = units(32, 64), units(32, 8, seed=1) * 8**0.5
    match = Match(20.0, gate)
    memory = written(keys, values, 32, match)
    read = recall(memory, keys.float()[None], match).value[0]
    error = (read - values).norm(dim=-1) / values.norm(dim=-1)
    assert float(error.max()) <= 1e-2
    assert float((read - values.roll(1, 0)).norm(dim=-1).min()) > 0.5  # and it is not the neighbour's


def test_between_two_keys_the_value_lies_between() -> None:
    """M1: along the arc between two keys the read value moves monotonically from the one's to the other's."""
    one, other = torch.zeros(2, 8).scatter(1, torch.tensor([[0], [1]]), 1.0)
    memory = written(torch.stack([one, other]), torch.tensor([[1.0], [3.0]]), 4)
    share = torch.linspace(0, 1, 21)[:, None]
    read = recall(memory, (one + share * (other - one))[None], Match(10.0, -5.0)).value.flatten()
    assert read[0] == pytest.approx(1.0, abs=1e-2) and read[-1] == pytest.approx(3.0, abs=1e-2)
    assert read[10] == pytest.approx(2.0, abs=1e-2)
    assert (read.diff() > 0).all()


def test_writing_where_something_is_known_moves_the_value_by_its_score() -> None:
    """v ← c·r + (1 − c)·v, and the key stays."""
    keys = units(4, 16).float()
    memory = written(keys, torch.arange(4.0)[:, None], 4)
    query = (keys[1] + 0.3 * units(16, seed=3).float())[None]
    scores = recall(memory, query[None], MATCH).scores[0]
    after = write(memory, query, torch.tensor([[9.0]]), MATCH)
    expected = scores[..., None] * 9.0 + (1 - scores[..., None]) * memory.values
    assert float(scores.max()) > 0.9
    torch.testing.assert_close(after.values, expected)
    assert torch.equal(after.keys, memory.keys)


# ---- M2: novelty


def test_novelty_tells_stored_from_new() -> None:
    """M2: AUROC ≥ 0.95 for queries within about 0.5 of a stored key (cos ≈ 0.9), and none for scrambled labels."""
    keys = units(32, 64).float()
    memory = written(keys, torch.zeros(32, 1), 32)
    near = keys + 0.5 * units(32, 64, seed=4).float()
    new = units(64, 64, seed=5).float()
    known, unknown = (recall(memory, q[None], MATCH).novelty.flatten().numpy() for q in (near, new))
    assert auroc(unknown, known) >= 0.95
    everything = np.random.default_rng(0).permutation(np.concatenate([known, unknown]))
    assert auroc(everything[:64], everything[64:]) < 0.7


# ---- allocation and eviction


def test_new_keys_take_empty_slots_first_and_then_the_least_used() -> None:
    keys = units(6, 32).float()
    memory = written(keys[:4], torch.arange(4.0)[:, None], 4)
    assert sorted(memory.values.flatten().tolist()) == [0, 1, 2, 3]
    scores = recall(memory, keys[None, :1], MATCH).scores
    memory = used(memory, scores)  # the oldest is asked for: now the second is of least usage
    memory = write(memory, keys[4:5], torch.tensor([[4.0]]), MATCH)
    assert sorted(memory.values.flatten().tolist()) == [0, 2, 3, 4]
    memory = write(memory, keys[5:], torch.tensor([[5.0]]), MATCH)
    assert sorted(memory.values.flatten().tolist()) == [0, 3, 4, 5]
    assert float(recall(memory, keys[None, 1:2], MATCH).mass) < 0.01  # evicted: new again


def test_what_is_known_takes_no_new_slot() -> None:
    keys = units(2, 32).float()
    memory = written(keys[[0, 1, 0, 0, 1]], torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]), 4)
    assert int((memory.usage > 0).sum()) == 2
    assert recall(memory, keys[None], MATCH).value.flatten().tolist() == pytest.approx([4.0, 5.0], abs=1e-2)


def test_a_slot_that_was_filled_long_ago_is_not_empty() -> None:
    keys = units(2, 32).float()
    memory = written(keys, torch.tensor([[1.0], [2.0]]), 3)
    old = replace(memory, usage=memory.usage * torch.tensor([1e-30, 1.0, 1.0]))
    for _ in range(3):
        old = write(old, keys[1:], torch.tensor([[2.0]]), MATCH)
    assert (old.usage[0] > 0).tolist() == [True, True, False]
    assert float(recall(old, keys[None, :1], MATCH).mass) > 0.99


def test_memories_of_a_batch_are_their_own() -> None:
    keys = units(3, 16).float()
    memory = write(empty_memory(3, 4, 16, 1), keys, torch.ones(3, 1), MATCH, where=torch.tensor([True, False, True]))
    assert recall(memory, keys[:, None], MATCH).mass.flatten().round().tolist() == [1, 0, 1]
    untouched = write(memory, units(3, 16, seed=8).float(), torch.ones(3, 1), MATCH, where=torch.zeros(3) > 0)
    assert all(map(torch.equal, vars(untouched).values(), vars(memory).values()))
    memory = forget(memory, torch.tensor([True, False, False]))
    assert recall(memory, keys[:, None], MATCH).mass.flatten().round().tolist() == [0, 0, 1]
    assert float(recall(memory, keys[None, :1].expand(3, 1, 16), MATCH).mass[2]) < 0.1


def test_scrambling_exchanges_the_keys_of_filled_slots_only() -> None:
    usage = torch.tensor([[1.0, 0, 2, 3, 0], [0, 1, 0, 0, 0]])
    memory = ContentMemory(torch.arange(5.0)[None, :, None].expand(2, 5, 1), torch.ones(2, 5, 1), usage)
    orders = set()
    for seed in range(40):
        keys = scrambled(memory, torch.Generator().manual_seed(seed)).keys[..., 0].tolist()
        assert sorted(keys[0]) == keys[1] == [0, 1, 2, 3, 4]
        assert {keys[0][slot] for slot in (0, 2, 3)} == {0, 2, 3}
        assert not any(keys[0][slot] == slot for slot in (0, 2, 3))  # none keeps its own
        orders.add(tuple(keys[0]))
    assert len(orders) == 2


# ---- M3, W7: entities


NAMES = ("bottle", "kitchen", "dining room", "cup", "table", "garden")


def test_the_bottle_is_moved_and_only_three_slots_change() -> None:
    """M3, W7: "the bottle was moved from the kitchen to the dining room" (LeCun 2022, p. 36): 32 entity slots."""
    index = dict(zip(NAMES, units(len(NAMES), 64).float(), strict=True))
    held = {"bottle": [1.0, 0, 0], "kitchen": [0, 1.0, 0], "cup": [1.0, 0, 1.0]}
    memory = empty_memory(1, 32, 64, 3)
    for name, key in index.items():
        memory = write(memory, key[None], torch.tensor([held.get(name, [0.0, 0, 0])]), MATCH)
    after = memory
    event = {"bottle": [0.0, 0, 1.0], "kitchen": [0.0, 0, 0], "dining room": [0.0, 1.0, 0]}
    for name, state in event.items():
        after = write(after, index[name][None], torch.tensor([state]), MATCH)
    changed = (after.values - memory.values).abs().amax(-1)[0]
    slots = [int(recall(memory, key[None, None], MATCH).scores.argmax()) for key in index.values()]
    assert {NAMES[slots.index(int(slot))] for slot in (changed > 0.01).nonzero()} == set(event)
    assert float(changed.sort(descending=True).values[3]) < 1e-3
    for name, state in event.items():
        assert recall(after, index[name][None, None], MATCH).value.flatten().tolist() == pytest.approx(state, abs=0.01)
    assert torch.equal(after.keys, memory.keys)


# ---- M4: gradients


def test_gradients_reach_queries_keys_and_values() -> None:
    """M4: against central differences, through a read, a soft write and an allocation."""
    keys, values = 0.7 * units(1, 3, 5), units(1, 3, 2, seed=1)
    match = Match(4.0, 1.5)

    def story(query: Tensor, key: Tensor, value: Tensor, after: Tensor) -> Tensor:
        memory = empty_memory(1, 3, 5, 2)
        memory = replace(memory, keys=memory.keys.double(), values=memory.values.double(), usage=memory.usage.double())
        memory = write(memory, key[:, 0], value[:, 0], match)  # allocates
        memory = write(memory, key[:, 1], value[:, 1], replace(match, novelty=1.0))  # into what is there
        memory = write(memory, key[:, 2], value[:, 2], match)
        return recall(memory, query + 0.1 * after, match).value

    inputs = (keys[:, :1] + 0.3, keys, values, units(1, 1, 5, seed=6))
    inputs = tuple(part.clone().requires_grad_() for part in inputs)
    assert torch.autograd.gradcheck(story, inputs)
    gradients = torch.autograd.grad(story(*inputs).square().sum(), inputs)
    assert all(float(gradient.abs().sum()) > 1e-4 for gradient in gradients)
    assert all(float(part.abs().sum()) > 1e-6 for part in gradients[1][0])  # each key
    assert all(float(part.abs().sum()) > 1e-6 for part in gradients[2][0])  # each value


def test_an_empty_memory_recalls_nothing_and_has_finite_gradients() -> None:
    query = units(2, 1, 8).float().requires_grad_()
    read = recall(empty_memory(2, 4, 8, 3), query, MATCH)
    assert not read.value.any() and not read.mass.any()
    (gradient,) = torch.autograd.grad(read.value.sum() + read.mass.sum(), query)
    assert torch.equal(gradient, torch.zeros_like(query))


def test_writing_leaves_the_memory_as_it_was() -> None:
    memory = written(units(2, 8), torch.ones(2, 1), 4)
    before = [part.clone() for part in (memory.keys, memory.values, memory.usage)]
    write(memory, units(1, 8, seed=9).float(), torch.ones(1, 1), MATCH)
    assert all(map(torch.equal, before, (memory.keys, memory.values, memory.usage)))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="each must be at least 1"):
        empty_memory(1, 0, 4, 4)
    with pytest.raises(ValueError, match=r"queries \[2, 4\] to 2 memories with keys of 4; expected \[B, Q, D\]"):
        recall(empty_memory(2, 3, 4, 1), torch.ones(2, 4), MATCH)
