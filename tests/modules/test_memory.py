"""Short-term memory: what is read is what was written, in time, and never across a boundary."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.modules.cost import IntrinsicCost, interoception
from forethought.modules.memory import MemoryShape, ShortTermMemory, Window
from forethought.modules.types import drive_weights
from numpy.typing import NDArray

SHAPE = MemoryShape(observation=(1,), pixels=False, action=(), discrete=True, plan=2, horizon=3)


def fill(memory: ShortTermMemory, steps: int, ends: dict[int, str] | None = None, first: int = 0) -> None:
    """Write time indices into every field: x[t] = a[t] = t and the reward r[t+1] = t + 1, stream e offset by 1000·e."""
    offset = 1000 * np.arange(memory.streams)
    for t in range(first, first + steps):
        kind = (ends or {}).get(t, "")
        memory.write(
            observation=(t + offset)[:, None].astype(np.float32),
            action=t + offset,
            reward=(t + 1 + offset).astype(np.float32),
            terminated=np.full(memory.streams, kind == "terminated"),
            truncated=np.full(memory.streams, kind == "truncated"),
        )


def read(memory: ShortTermMemory, steps: int, start: int, stream: int = 0) -> Window:
    return memory.read(np.array([stream]), np.array([start]), steps)


def every_window(memory: ShortTermMemory, steps: int) -> Window:
    count = memory.starts(steps)
    streams, starts = np.meshgrid(np.arange(memory.streams), np.arange(count), indexing="ij")
    return memory.read(streams.ravel(), starts.ravel(), steps)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- alignment


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("written", [7, 20, 33, 47])
@pytest.mark.parametrize("history", [1, 3])
def test_planted_series_is_recovered_in_time(steps: int, written: int, history: int) -> None:
    """x[t], a[t] and r[t+1] are exactly those of one stream and consecutive times, before and after the ring wraps."""
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40, history=history)
    fill(memory, written)
    window = every_window(memory, steps)
    now = window.observation[..., -1, 0]  # [B, T+1]
    assert torch.equal(now[:, 1:], now[:, :-1] + 1)
    assert torch.equal(window.action.float(), now[:, :-1])
    assert torch.equal(window.reward, now[:, :-1] + 1)
    # each entry is readable, up to the newest and down to the oldest whose history is still there
    oldest = max(0, written - 20) + (history - 1 if written >= 20 else 0)
    for stream in range(2):
        times = {int(t) - 1000 * stream for t in now.flatten() if t // 1000 == stream}
        assert times == set(range(oldest, written))
    for back in range(history):
        frame = window.observation[..., history - 1 - back, 0]
        assert torch.equal(frame, torch.maximum(now - back, now - now % 1000))


def test_sampled_windows_are_aligned_and_reach_every_entry() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40)
    fill(memory, 47)
    window = memory.sample(600, 3, rng())
    now = window.observation[..., 0, 0]
    assert torch.equal(window.reward, now[:, :-1] + 1)
    assert torch.equal(window.action.float(), now[:, :-1])
    assert sorted(now.flatten().unique().tolist()) == [*range(27, 47), *range(1027, 1047)]


def test_length_counts_entries_and_stops_at_capacity() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=41)
    assert len(memory) == 0
    fill(memory, 5)
    assert len(memory) == 10
    fill(memory, 50, first=5)
    assert len(memory) == 40


def test_types_and_shapes() -> None:
    shape = MemoryShape((4, 4, 3), pixels=True, action=(2,), discrete=False, plan=4, horizon=3)
    memory = ShortTermMemory(shape, streams=3, capacity=30, history=2)
    for _ in range(6):
        memory.write(
            np.zeros((3, 4, 4, 3), np.uint8),
            np.zeros((3, 2)),
            np.zeros(3),
            np.zeros(3, bool),
            np.zeros(3, bool),
        )
    window = memory.sample(5, 2, rng())
    assert window.observation.shape == (5, 3, 2, 4, 4, 3)
    assert window.observation.dtype == torch.uint8
    assert window.action.shape == (5, 2, 2)
    assert window.action.dtype == torch.float32
    assert window.plan.shape == (5, 3, 4)
    assert window.course.shape == (5, 3, 2)
    for part in (window.reward, window.terminated, window.truncated, window.valid, window.known):
        assert part.shape == (5, 2)
        assert part.dtype == torch.float32


# ---- the ends of episodes


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_masks_at_the_end_of_an_episode(kind: str) -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=40)
    fill(memory, 12, {5: kind})
    window = read(memory, 5, start=3)  # transitions 3 4 5 | 6 7
    assert window.valid.tolist() == [[1, 1, 1, 0, 0]]
    assert window.known.tolist() == [[1, 1, 0, 0, 0]]
    assert getattr(window, kind).tolist() == [[0, 0, 1, 0, 0]]
    other = window.truncated if kind == "terminated" else window.terminated
    assert not other.any()
    window = read(memory, 3, start=6)
    assert window.valid.tolist() == window.known.tolist() == [[1, 1, 1]]
    window = read(memory, 2, start=5)
    assert (window.valid.tolist(), window.known.tolist()) == ([[1, 0]], [[0, 0]])


def test_masks_stay_shut_after_a_second_ending() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=40)
    fill(memory, 12, {3: "terminated", 5: "truncated"})
    window = read(memory, 6, start=2)
    assert window.valid.tolist() == [[1, 1, 0, 0, 0, 0]]
    assert window.known.tolist() == [[1, 0, 0, 0, 0, 0]]


def test_episodes_of_streams_are_their_own() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40, history=2)
    for t in range(6):
        over = np.array([t == 2, t == 4])
        memory.write(np.full((2, 1), float(t)), np.zeros(2), np.zeros(2), over, np.zeros(2, bool))
    assert read(memory, 5, 0, stream=0).valid.tolist() == [[1, 1, 1, 0, 0]]
    assert read(memory, 5, 0, stream=1).valid.tolist() == [[1, 1, 1, 1, 1]]
    assert read(memory, 5, 0, stream=0).observation[0, :, 0, 0].tolist() == [0, 0, 1, 3, 3, 4]
    assert read(memory, 5, 0, stream=1).observation[0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 5]


def test_history_never_crosses_the_start_of_an_episode() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=60, history=3)
    fill(memory, 12, {4: "terminated", 6: "truncated"})
    percepts = read(memory, 11, 0).observation[0, :, :, 0].tolist()
    assert percepts == [
        [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4],
        [5, 5, 5], [5, 5, 6],
        [7, 7, 7], [7, 7, 8], [7, 8, 9], [8, 9, 10], [9, 10, 11],
    ]  # fmt: skip


@pytest.mark.parametrize("written", range(18, 45))
def test_history_is_never_read_from_overwritten_entries(written: int) -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=20, history=4)
    ends = {t: "terminated" for t in range(6, 60, 7)}
    fill(memory, written, ends)
    percepts = every_window(memory, 2).observation[..., 0].flatten(0, 1)
    starts = [0, *(t + 1 for t in ends)]
    for frames in percepts.tolist():
        begin = max(s for s in starts if s <= frames[-1])
        assert frames == [max(begin, frames[-1] - back) for back in (3, 2, 1, 0)]


def test_break_streams() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=40, history=2)
    memory.break_streams()  # nothing to break yet
    fill(memory, 4)
    memory.break_streams()
    fill(memory, 4, first=10)
    window = read(memory, 7, 0)
    assert window.truncated.tolist() == [[0, 0, 0, 1, 0, 0, 0]]
    assert window.valid.tolist() == [[1, 1, 1, 1, 0, 0, 0]]
    assert window.known.tolist() == [[1, 1, 1, 0, 0, 0, 0]]
    assert window.observation[0, 4].flatten().tolist() == [10, 10]


def test_break_streams_leaves_a_termination_as_it_was() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=40)
    fill(memory, 4, {3: "terminated"})
    memory.break_streams()
    fill(memory, 2, first=10)
    window = read(memory, 5, 0)
    assert window.terminated.tolist() == [[0, 0, 0, 1, 0]]
    assert not window.truncated.any()


def test_break_streams_after_the_ring_wrapped() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=8)
    fill(memory, 8)  # the cursor is back at 0, the last entry in slot 7
    memory.break_streams()
    fill(memory, 2, first=20)
    window = read(memory, 7, 0)
    assert window.observation[0, :, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 20, 21]
    assert window.truncated.tolist() == [[0, 0, 0, 0, 0, 1, 0]]


# ---- sampling


def rare(memory: ShortTermMemory, steps: int, at: set[int], terminated: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    for t in range(steps):
        reward = np.full(memory.streams, float(t in at))
        over = np.full(memory.streams, t in terminated)
        memory.write(
            np.full((memory.streams, 1), t), np.zeros(memory.streams), reward, over, np.zeros(memory.streams, bool)
        )


def share(window: Window) -> float:
    return float(((window.reward != 0) | (window.terminated > 0)).any(1).float().mean())


def test_balance_raises_the_share_of_windows_with_events() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=1000)
    rare(memory, 480, {100, 300}, {200})
    plain, half, full = (share(memory.sample(400, 4, rng(), balance)) for balance in (0.0, 0.5, 1.0))
    assert plain < 0.1
    assert 0.5 <= half < 0.6
    assert full == 1.0


def test_balance_knows_rewards_and_endings_and_puts_them_anywhere_in_the_window() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=500)
    rare(memory, 200, {50}, {120})
    window = memory.sample(300, 4, rng(), 1.0)
    assert 0.3 < float(window.terminated.any(1).float().mean()) < 0.7
    assert 0.3 < float((window.reward != 0).any(1).float().mean()) < 0.7
    where = (window.terminated + window.reward).argmax(1).bincount(minlength=4)
    assert (where > 40).all()


@pytest.mark.parametrize("written", [60, 100, 250])
@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_balance_finds_the_newest_event_that_a_window_can_hold(written: int, late: int) -> None:
    """Each window that is made to contain an event does, wherever the events are and however the ring is turned."""
    memory = ShortTermMemory(SHAPE, streams=1, capacity=100, history=3)
    rare(memory, written, {written - 30, written - 1 - late})
    assert share(memory.sample(200, 4, rng(), 1.0)) == 1.0


def test_without_events_balance_changes_nothing() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=100)
    rare(memory, 50, set())
    assert share(memory.sample(20, 4, rng(), 1.0)) == 0
    always = ShortTermMemory(SHAPE, streams=1, capacity=100)
    fill(always, 50)  # a reward in every step: nothing is an event
    plain, balanced = always.sample(20, 4, rng(), 0.0), always.sample(20, 4, rng(), 1.0)
    assert torch.equal(plain.observation, balanced.observation)


@pytest.mark.parametrize(("rarity", "expected"), [(0.0, 1 / 26), (0.5, 1 / 6), (1.0, 1 / 2)])
def test_rare_kinds_of_events_are_drawn_more_often(rarity: float, expected: float) -> None:
    """100 rewards of 1, 4 of -4: n to the power 1 - rarity of each kind."""
    memory = ShortTermMemory(SHAPE, streams=1, capacity=2000)
    for t in range(1_050):
        reward = np.full(1, (-4.0 if t % 260 == 250 else 1.0) if t % 10 == 0 and t < 1_040 else 0.0)
        memory.write(np.full((1, 1), t), np.zeros(1), reward, np.zeros(1, bool), np.zeros(1, bool))
    window = memory.sample(3_000, 1, rng(), 1.0, rarity=rarity)
    assert set(window.reward.unique().tolist()) == {1.0, -4.0}
    assert float((window.reward < 0).float().mean()) == pytest.approx(expected, abs=0.03)


def test_an_ending_is_a_kind_of_its_own() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=500)
    rare(memory, 400, set(range(0, 400, 4)), {200, 303})  # one with a reward, one without
    window = memory.sample(900, 1, rng(), 1.0, rarity=1.0)
    for reward, ending in ((1, 0), (1, 1), (0, 1)):
        share = ((window.reward == reward) & (window.terminated == ending)).float().mean()
        assert float(share) == pytest.approx(1 / 3, abs=0.06)


@pytest.mark.parametrize(("balance", "rarity"), [(0.5, 0.0), (0.75, 0.5), (0.25, 1.0)])
@pytest.mark.parametrize("steps", [1, 4])
def test_weighted_windows_are_those_of_the_whole_memory(steps: int, balance: float, rarity: float) -> None:
    """How often each window is drawn, times its weight, is the same for all; at both ends of the memory, too."""
    memory = ShortTermMemory(SHAPE, streams=1, capacity=100)
    rare(memory, 16, {0, 7, 8, 13}, {8})
    window = memory.sample(40_000, steps, rng(), balance, rarity=rarity)
    assert window.weight is not None
    count = memory.starts(steps)
    start = window.observation[:, 0, 0, 0].long()
    start -= start.min()
    drawn = torch.zeros(count).index_add(0, start, window.weight) * count / len(start)
    assert torch.allclose(drawn, torch.ones(count), atol=0.12), drawn
    assert float(window.weight.max()) == pytest.approx(1 / (1 - balance))
    assert float(window.weight.min()) < 0.9


def test_windows_that_are_all_alike_have_no_weight() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=100)
    rare(memory, 50, {20})
    assert memory.sample(20, 4, rng(), 0.0).weight is None
    assert memory.sample(20, 4, rng(), 0.01).weight is None  # not even one window


# ---- what came after


@pytest.mark.parametrize("written", [15, 20, 45])
@pytest.mark.parametrize("history", [1, 3])
def test_what_came_after_is_what_a_slow_sum_says(written: int, history: int) -> None:
    """Rewards and the ending of the same episode, discounted; open is what a time limit or the newest entry cut off."""
    memory, draws, discount = ShortTermMemory(SHAPE, streams=2, capacity=40, history=history), rng(4), 0.8
    rewards = draws.normal(size=(2, written)).astype(np.float32)
    ends = draws.choice(["", "", "", "", "terminated", "truncated"], size=(2, written))
    for t in range(written):
        x = np.array([[t], [t]], np.float32)
        memory.write(x, np.zeros(2), rewards[:, t], ends[:, t] == "terminated", ends[:, t] == "truncated")

    def slow(stream: int, time: int) -> list[float]:
        reward = ending = 0.0
        for k, t in enumerate(range(time, written)):
            reward += discount**k * float(rewards[stream, t])
            if ends[stream, t] == "terminated":
                return [reward, discount**k, 0.0]
            if ends[stream, t] == "truncated":
                return [reward, ending, discount ** (k + 1)]
        return [reward, ending, discount ** (written - time)]

    seen = set()
    for seed in range(40):
        window = memory.sample(8, 3, rng(seed), discount=discount)
        assert window.returns is not None and window.returns.shape == (8, 4, 3)
        for row, percepts in enumerate(window.observation[..., -1, 0].long().tolist()):
            streams = [s for s in range(2) if np.allclose(window.reward[row], rewards[s, percepts[:-1]])]
            assert len(streams) == 1
            for step, time in enumerate(percepts):
                assert window.returns[row, step].tolist() == pytest.approx(slow(streams[0], time), abs=1e-5)
                seen.add((streams[0], time))
    oldest = max(0, written - 20) + (history - 1 if written >= 20 else 0)
    assert {time for _, time in seen} == set(range(oldest, written))


def test_what_came_after_goes_on_with_what_is_written() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=60)
    fill(memory, 10)
    assert memory.sample(4, 2, rng()).returns is None
    other, before = (memory.sample(4, 2, rng(), discount=discount).returns for discount in (0.5, 0.9))
    fill(memory, 1, {10: "terminated"}, first=10)
    after = memory.sample(4, 2, rng(), discount=0.9).returns
    assert before is not None and other is not None and after is not None
    assert not torch.allclose(before, other) and (before[..., 2] > 0).all() and (after[..., 2] == 0).all()


def test_sampling_is_seeded() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=100)
    rare(memory, 50, {20})
    first, again, other = (memory.sample(20, 4, rng(seed), 0.5).observation for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("history", [1, 3])
def test_too_little_is_an_error_and_just_enough_is_not(history: int) -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=20, history=history)
    fill(memory, 4)
    with pytest.raises(ValueError, match="memory has 4 entries of each environment, a window needs 5"):
        memory.sample(2, 4, rng())
    fill(memory, 1, first=4)
    assert memory.sample(2, 4, rng()).observation[:, 0, -1, 0].tolist() == [0, 0]
    fill(memory, 40, first=5)
    with pytest.raises(ValueError, match="collect more first"):
        memory.sample(2, 21 - history, rng())
    memory.sample(2, 20 - history, rng())


@pytest.mark.parametrize(("streams", "capacity"), [(0, 10), (4, 7)])
def test_impossible_sizes_are_refused(streams: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="it needs at least 1 environment"):
        ShortTermMemory(SHAPE, streams, capacity)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number_names_its_environment(bad: float) -> None:
    memory = ShortTermMemory(SHAPE, streams=3, capacity=30)
    reward = np.array([0.0, 0.0, bad])
    with pytest.raises(FloatingPointError, match="reward of environment 2 is"):
        memory.write(np.zeros((3, 1)), np.zeros(3), reward, np.zeros(3, bool), np.zeros(3, bool))
    assert len(memory) == 0


# ---- what was planned


def planned(memory: ShortTermMemory, t: int, **plan: Any) -> None:
    none: NDArray[np.bool_] = np.zeros(memory.streams, bool)
    memory.write(
        np.full((memory.streams, 1), t), np.zeros(memory.streams), np.zeros(memory.streams), none, none, **plan
    )


def test_plans_come_back_with_the_percept_they_were_made_for() -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40)
    for t in range(12):
        base = 10 * t + np.arange(2)
        planned(
            memory, t,
            plan=np.stack([base, base + 0.5], axis=1), course=base[:, None] + np.arange(3), planned=base % 2 == t % 2,
        )  # fmt: skip
    window = every_window(memory, 2)
    base = 10 * window.observation[..., 0, 0] + torch.arange(2).repeat_interleave(10)[:, None]
    assert torch.equal(window.plan, torch.stack([base, base + 0.5], dim=-1))
    assert torch.equal(window.course, (base[:, :1] + torch.arange(3)).long())
    assert torch.equal(window.planned, (base % 2 == window.observation[..., 0, 0] % 2).float())
    assert 0 < window.planned.mean() < 1


def test_a_short_course_is_padded_with_zeros() -> None:
    memory = ShortTermMemory(SHAPE, streams=1, capacity=6)
    for t in range(9):
        course = np.full((1, 3 if t < 6 else 2), 7)
        planned(memory, t, plan=np.ones((1, 2)), course=course, planned=np.ones(1, bool))
    assert read(memory, 1, 0).course.tolist() == [[7, 7, 7]]
    assert read(memory, 1, 4).course.tolist() == [[7, 7, 0]]


def test_an_entry_without_a_plan_holds_no_older_plan() -> None:
    """Zeros where nothing was planned, also where the ring writes over an entry that had a plan."""
    memory = ShortTermMemory(SHAPE, streams=1, capacity=4)
    for t in range(4):
        planned(memory, t, plan=np.ones((1, 2)), course=np.ones((1, 3)), planned=np.ones(1, bool))
    for t in range(4, 8):
        planned(memory, t)
    window = read(memory, 3, 0)
    assert not window.planned.any()
    assert not window.plan.any()


# ---- latents of an encoder at rest


@pytest.mark.parametrize("written", [15, 33])
@pytest.mark.parametrize("history", [1, 3])
def test_kept_latents_are_those_of_the_percepts(written: int, history: int) -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40, history=history)
    fill(memory, written, {4: "terminated", 27: "truncated"})

    def encode(percepts: torch.Tensor) -> torch.Tensor:
        assert len(percepts) <= 7
        return percepts.flatten(1) ** 2

    fresh = every_window(memory, 4)
    memory.keep_latents(encode, rows=7)
    kept = every_window(memory, 4)
    assert fresh.latent is None and kept.latent is not None
    assert torch.equal(kept.latent, fresh.observation.flatten(2) ** 2)
    assert kept.observation.numel() == 0  # nobody pays for pictures that nobody looks at
    assert torch.equal(kept.action, fresh.action)
    fill(memory, 1, first=written)
    assert every_window(memory, 4).latent is None  # what was just written has none


def test_only_blocks_with_new_entries_are_encoded_again() -> None:
    """And the numbers are those of a memory that is encoded at once."""
    counts: list[int] = []

    def encode(percepts: torch.Tensor) -> torch.Tensor:
        counts.append(len(percepts))
        return percepts.flatten(1) ** 2

    memory = ShortTermMemory(SHAPE, streams=2, capacity=40, history=2)
    for first, more, encoded in ((0, 10, [8, 8, 4]), (10, 5, [8, 6]), (15, 0, []), (15, 9, [8, 8, 8])):
        counts.clear()
        fill(memory, more, first=first)
        memory.keep_latents(encode, rows=8)
        assert counts == encoded  # blocks of 4 slots of 2 streams; the last four steps overwrite the first four
        kept = every_window(memory, 4).latent
        assert kept is not None
        memory.forget_latents()
        assert memory.latents is None
        memory.keep_latents(encode, rows=8)
        again = every_window(memory, 4).latent
        assert again is not None and torch.equal(again, kept)


# ---- goals


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("written", [18, 47])
def test_goals_are_those_of_the_windows_first_episode(written: int, kept: bool) -> None:
    """Episodes of 6 steps; the goal of the one that begins at t is 5000 + t, what is seen in it t … t + 5."""
    memory = ShortTermMemory(replace(SHAPE, goals=True), streams=2, capacity=40, history=2)
    offset = 1000 * np.arange(2)
    for t in range(written):
        memory.write(
            (t + offset)[:, None].astype(np.float32), t + offset, np.zeros(2), np.zeros(2, bool),
            np.full(2, t % 6 == 5), goal=(5000 + t + offset)[:, None].astype(np.float32),
        )  # fmt: skip
    if kept:
        memory.keep_latents(lambda percepts: percepts[:, -1])
    draws, met = rng(), set()
    for _ in range(40):
        window = memory.sample(8, 3, draws, goals=3)
        assert window.goal is not None
        assert window.goal.shape[:2] == (8, 3)
        goal = window.goal.flatten(0, 1)
        seen = goal.flatten() if kept else goal[:, -1, 0]
        if not kept:
            assert ((goal[:, 0, 0] == seen) | (seen < 5000)).all()  # a goal has no past
        acted = window.action[:, 0].repeat_interleave(3)
        stream, now = acted // 1000, acted % 1000
        begin = now // 6 * 6
        asked_for = seen == 5000 + 1000 * stream + begin
        first = torch.arange(24) % 3 == 0
        assert not asked_for[~first].any()  # of three goals the first is the one
        assert asked_for[first].equal(begin[first] >= int(memory.data["observation"].min()))
        hindsight = (seen - 1000 * stream >= begin) & (seen - 1000 * stream < begin + 6)
        assert (asked_for | hindsight).all()
        met |= {(bool(a), int(s - 1000 * e - b)) for a, s, e, b in zip(asked_for, seen, stream, begin, strict=True)}
    assert {offset for asked_for, offset in met if not asked_for} >= {0, 1, 2, 3, 4, 5}
    assert any(asked_for for asked_for, _ in met)


def test_an_episode_whose_beginning_was_overwritten_has_only_hindsight() -> None:
    memory = ShortTermMemory(replace(SHAPE, goals=True), streams=1, capacity=10)
    for t in range(25):  # one long episode
        memory.write(
            np.full((1, 1), t, np.float32), np.zeros(1), np.zeros(1), np.zeros(1, bool), np.zeros(1, bool),
            goal=np.full((1, 1), 999.0),
        )  # fmt: skip
    for _ in range(2):
        window = memory.sample(200, 2, rng())
        assert window.goal is not None
        assert window.goal.min() >= 15 and window.goal.max() < 25
        memory.keep_latents(lambda percepts: percepts[:, -1])  # and once more with latents


def test_goals_of_episodes_are_computed_once_and_are_the_same_whenever() -> None:
    memory = ShortTermMemory(replace(SHAPE, goals=True), streams=2, capacity=48)
    asked, encoded = 5000.0, 0
    draws = rng()

    def encode(percepts: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += int((percepts >= asked).sum())
        return percepts[:, -1]

    for t in range(60):  # the ring of 24 steps goes round twice; an episode begins every 5 steps
        memory.write(
            np.full((2, 1), t, np.float32), np.full(2, t), np.zeros(2), np.zeros(2, bool), np.full(2, t % 5 == 4),
            goal=np.full((2, 1), asked + t),
        )  # fmt: skip
        if t in (19, 30, 41, 59):
            memory.keep_latents(encode, rows=8)
            window = memory.sample(64, 2, draws)
            begin = window.action[:, 0] // 5 * 5
            known = begin > t - 24
            assert window.goal is not None and known.any()
            assert torch.equal(window.goal[known, 0, 0], asked + begin[known])
    assert encoded < 2 * (4 + 4 + 4 + 4 + 4)  # each of 12 episodes of 2 streams once, but for the block that grew


def test_goals_are_given_to_a_memory_of_goals_and_to_no_other() -> None:
    nothing = (np.zeros((1, 1)), np.zeros(1), np.zeros(1), np.zeros(1, bool), np.zeros(1, bool))
    with pytest.raises(ValueError, match="a goal was not given to a memory of goals"):
        ShortTermMemory(replace(SHAPE, goals=True), 1, 10).write(*nothing)
    with pytest.raises(ValueError, match="a goal was given to no memory of goals"):
        ShortTermMemory(SHAPE, 1, 10).write(*nothing, goal=np.zeros((1, 1)))


# ---- the past of a window


@pytest.mark.parametrize("written", [17, 52])
@pytest.mark.parametrize("history", [1, 2])
def test_the_past_of_a_window_is_what_came_before_in_its_episode(written: int, history: int) -> None:
    memory = ShortTermMemory(SHAPE, streams=2, capacity=40, history=history)
    ends = {4: "terminated", 11: "truncated", 40: "terminated", 47: "truncated"}
    fill(memory, written, ends)
    count = memory.starts(1)
    stream, start = (part.ravel() for part in np.meshgrid(np.arange(2), np.arange(count), indexing="ij"))
    window = memory.read(stream, start, 1, past=6)
    assert window.past is not None and window.remembered is not None
    assert window.past.shape == (2 * count, 6, history, 1)
    begins = [0, *(t + 1 for t in ends)]
    oldest = int((window.observation[:, 0, -1, 0] % 1000).min())
    for row in range(2 * count):
        now = int(window.observation[row, 0, -1, 0])
        begin = max(b for b in begins if b <= now % 1000)
        before = [
            t for t in range(now - 6, now) if t % 1000 >= max(begin, oldest) and t >= 0 and t // 1000 == now // 1000
        ]
        there = window.past[row, window.remembered[row] > 0]
        assert there[:, -1, 0].tolist() == before
    assert window.remembered.any() and not window.remembered.all()
    assert memory.read(stream, start, 1).past is None


# ---- M5: what the critic is given is in time


def windows_of_a_planted_cost(delay: int, episodes: int = 40) -> Window:
    """Episodes of random length and percepts; the cost at t + δ is the percept at t."""
    memory, draws = ShortTermMemory(SHAPE, streams=2, capacity=2_000), rng(delay)
    seen = np.zeros((2, 1_000 + 8))
    for t in range(1_000):
        seen[:, t + 8] = draws.normal(size=2)
        over = draws.random(2) < 1 / 25
        cost = seen[:, t + 8 - (delay - 1)]  # felt in the transition into t + 1
        memory.write(seen[:, t + 8, None], np.zeros(2), -cost, over, np.zeros(2, bool))
    return memory.sample(800, 8, rng(1))


def correlations(window: Window) -> NDArray[np.float64]:
    """Of x[0] with the intrinsic cost felt on entering s[1 … 8], over the windows that are still in their episode."""
    iota = interoception(window.reward, window.terminated, torch.zeros_like(window.reward))
    cost = IntrinsicCost()(iota, drive_weights(pleasure=1.0)).sum(-1)
    start = window.observation[:, 0, -1, 0]
    found = []
    for k in range(8):
        rows = window.valid[:, k] > 0
        found.append(float(torch.corrcoef(torch.stack([start[rows], cost[rows, k]]))[0, 1]))
    return np.array(found)


@pytest.mark.parametrize("delay", [1, 2, 5, 8])
def test_a_planted_delay_is_recovered_from_the_critics_minibatches(delay: int) -> None:
    """M5: the cost is felt exactly δ steps after its cause, and time-shuffled costs show no delay."""
    window = windows_of_a_planted_cost(delay)
    found = correlations(window)
    assert found.argmax() == delay - 1 and found[delay - 1] > 0.99
    assert np.abs(np.delete(found, delay - 1)).max() < 0.2
    order = torch.from_numpy(rng(2).random(window.reward.shape)).argsort(1)
    shuffled = correlations(replace(window, reward=window.reward.gather(1, order)))
    assert shuffled.max() < 0.5


# ---- windows and the ends of episodes, whatever happens


@pytest.mark.parametrize("seed", range(12))
def test_no_window_crosses_the_end_of_an_episode(seed: int) -> None:
    """Episodes of random lengths, endings, breaks, sizes: what the masks keep is one episode, in time."""
    draws = rng(seed)
    streams, length, history = (int(n) for n in draws.integers([1, 12, 1], [4, 40, 4]))
    memory = ShortTermMemory(SHAPE, streams, streams * length, history)
    episode, time = np.arange(streams) * 1_000, np.zeros(streams, np.int64)
    for _ in range(int(draws.integers(length // 2 + 8, 3 * length))):
        if draws.random() < 0.05:
            memory.break_streams()
            episode, time = episode + 1, time * 0
        over, cut = draws.random(streams) < 0.15, draws.random(streams) < 0.1
        memory.write((100 * episode + time)[:, None].astype(np.float32), episode, time + 1.0, over, cut & ~over)
        episode, time = episode + (over | cut), np.where(over | cut, 0, time + 1)
    steps = int(draws.integers(1, 5))
    window = memory.sample(200, steps, draws, balance=float(draws.random()), past=4)
    assert window.past is not None and window.remembered is not None
    now = window.observation[:, :, -1, 0]
    number, clock = now.div(100, rounding_mode="floor"), now % 100
    valid, known = window.valid > 0, window.known > 0
    same = number[:, :1].expand(-1, steps)
    assert torch.equal(number[:, :-1][valid], same[valid])
    assert torch.equal(clock[:, :-1][valid], (clock[:, :1] + torch.arange(steps))[valid])
    assert torch.equal(window.reward[valid], clock[:, :-1][valid] + 1)
    assert torch.equal(number[:, 1:][known], same[known]) and not (known & ~valid).any()
    assert (window.terminated + window.truncated)[known].sum() == 0
    frames = window.observation[..., 0].div(100, rounding_mode="floor")
    assert torch.equal(frames, number.unsqueeze(-1).expand_as(frames))  # nor does a percept's history
    there = window.remembered > 0
    before = window.past[:, :, -1, 0]
    assert torch.equal(before[there], (now[:, :1] - torch.arange(4, 0, -1))[there])
    assert (valid.any() and not valid.all()) or steps == 1


# ---- M7: what was imagined is apart from what was lived


def test_imagined_courses_are_flagged_and_out_of_what_was_felt() -> None:
    """M7: beside the same life with plans and without, costs and percepts are the same; `planned` tells the plans."""
    lived, thought = (ShortTermMemory(SHAPE, streams=2, capacity=40) for _ in range(2))
    draws = rng(3)
    for t in range(30):
        x, reward = draws.normal(size=(2, 1)).astype(np.float32), draws.normal(size=2)
        common = (x, np.full(2, t), reward, np.full(2, t % 7 == 6), np.zeros(2, bool))
        lived.write(*common)
        made = np.array([t % 2 == 0, t % 3 == 0])
        thought.write(*common, plan=np.ones((2, 2)), course=np.full((2, 3), 99), planned=made)
    real, both = every_window(lived, 3), every_window(thought, 3)
    for name in ("observation", "action", "reward", "terminated", "valid", "known"):
        assert torch.equal(getattr(real, name), getattr(both, name)), name
    assert not real.planned.any()
    times = both.action[:, 0] if both.action.dim() == 2 else both.action
    stream = torch.arange(2).repeat_interleave(len(times) // 2)
    assert torch.equal(both.planned[:, 0] > 0, torch.where(stream == 0, times % 2 == 0, times % 3 == 0))
    assert (both.course == 99).all()


# ---- in a file


def test_a_large_memory_lives_in_a_file_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here = ShortTermMemory(SHAPE, streams=2, capacity=40, gib=1.0)
    there = ShortTermMemory(SHAPE, streams=2, capacity=40, gib=1e-6)
    assert there.mapped and not here.mapped
    assert all(isinstance(array, np.memmap) for array in there.data.values())
    for memory in (here, there):
        fill(memory, 33, {4: "terminated", 27: "truncated"})
    ours, theirs = (memory.sample(50, 4, rng(), 0.5, past=2) for memory in (here, there))
    for name, value in vars(ours).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(theirs, name)), name
    assert not list(tmp_path.iterdir())  # the file has no name: nothing is left behind


def test_a_disk_without_room_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OSError, match=r"GiB of short-term memory do not fit into .* \(.*No space left.*; let TMPDIR name"
    ):
        ShortTermMemory(SHAPE, streams=2, capacity=4_000, gib=0.0)
