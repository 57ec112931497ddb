"""Properties that hold whatever happens, tried on many random cases against slow and plain references."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.statistics import auroc, iqm, mean_interval, probability_of_improvement, wilson
from forethought.envs.make import make_env
from forethought.modules.critic import lambda_returns
from forethought.modules.memory import MemoryShape, ShortTermMemory

# ---- memory: windows never go across an episode's end


@dataclass
class Stream:
    """What one stream has lived through, written down plainly: episodes, and how each step ended."""

    episode: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    current: int = 0

    def live(self, kind: str) -> None:
        self.episode.append(self.current)
        self.ended.append(kind)
        self.current += bool(kind)

    def cut(self) -> None:
        """The environments were reset."""
        if self.ended and not self.ended[-1]:
            self.ended[-1] = "truncated"
            self.current += 1


def random_life(draws: np.random.Generator) -> tuple[ShortTermMemory, list[Stream]]:
    """A memory and what was written to it: observations (stream, time, episode), action = time, reward = −time."""
    streams, length, history = int(draws.integers(1, 4)), int(draws.integers(6, 20)), int(draws.integers(1, 4))
    shape = MemoryShape((3,), False, (), True, 2, 2, goals=bool(draws.integers(2)))
    memory = ShortTermMemory(shape, streams, streams * length, history)
    lives = [Stream() for _ in range(streams)]
    rate = draws.choice([0.0, 0.1, 0.4])
    for time in range(int(draws.integers(length // 2 + 6, 3 * length))):
        if draws.random() < 0.05:
            memory.break_streams()
            for life in lives:
                life.cut()
        kinds = [str(draws.choice(["terminated", "truncated"])) if draws.random() < rate else "" for _ in lives]
        seen = np.array([[number, time, life.current] for number, life in enumerate(lives)], np.float32)
        memory.write(
            seen,
            np.full(streams, time),
            np.full(streams, -time, np.float32),
            np.array([kind == "terminated" for kind in kinds]),
            np.array([kind == "truncated" for kind in kinds]),
            goal=seen + 1_000 if shape.goals else None,
        )
        for life, kind in zip(lives, kinds, strict=True):
            life.live(kind)
    return memory, lives


@pytest.mark.parametrize("block", range(10))
def test_windows_never_go_across_the_end_of_an_episode(block: int) -> None:
    """300 random lives: what the masks call one episode is one, and the history of its percepts as well."""
    draws = np.random.default_rng([7, block])
    for _ in range(30):
        memory, lives = random_life(draws)
        steps = int(draws.integers(1, 5))
        if memory._starts(steps) < 1:
            continue
        window = memory.sample(6, steps, draws, balance=float(draws.choice([0.0, 0.5, 1.0])), goals=2)
        for row in range(6):
            stream, begin = (int(number) for number in window.observation[row, 0, -1, :2])
            life, going = lives[stream], True
            for step in range(steps):
                time, kind = begin + step, life.ended[begin + step]
                assert int(window.action[row, step]) == time and float(window.reward[row, step]) == -time
                assert (window.terminated[row, step] > 0, window.truncated[row, step] > 0) == (
                    kind == "terminated",
                    kind == "truncated",
                )
                assert bool(window.valid[row, step]) == going
                going = going and not kind
                assert bool(window.known[row, step]) == going
            for step in range(steps + 1):
                frames = window.observation[row, step]
                time = begin + step
                assert (frames[:, 0] == stream).all() and (frames[:, 2] == life.episode[time]).all()
                first = time - life.episode[: time + 1][::-1].index(life.episode[time] - 1) + 1 \
                    if life.episode[time] - 1 in life.episode[: time + 1] else 0  # fmt: skip
                wanted = [max(time - back, first) for back in range(memory.history - 1, -1, -1)]
                assert frames[:, 1].tolist() == wanted
            if window.goal is not None:
                for goal in window.goal[row, :, -1].tolist():
                    assert goal[2] % 1_000 == life.episode[begin] and goal[0] % 1_000 == stream


# ---- λ-returns


def slow_returns(c: Any, go: Any, v: Any, discount: float, trace: float) -> Any:
    """Σ_n (1−λ) λ^(n−1) G^(n) + λ^(N−1) G^(N), with the n-step returns G^(n) written out (Sutton 1988)."""
    horizon = len(c)
    found = np.zeros_like(c)
    for start in range(horizon):
        last = horizon - start
        steps = []
        for n in range(1, last + 1):
            alive, total = 1.0, np.zeros_like(c[0])
            for k in range(n):
                total = total + discount**k * alive * c[start + k]
                alive *= go[start + k]
            steps.append(total + discount**n * alive * v[start + n - 1])
        weights = [(1 - trace) * trace ** (n - 1) for n in range(1, last)] + [trace ** (last - 1)]
        found[start] = sum(weight * value for weight, value in zip(weights, steps, strict=True))
    return found


def test_lambda_returns_are_the_weighted_sum_of_all_n_step_returns() -> None:
    draws = np.random.default_rng(8)
    for _ in range(200):
        horizon, drives = int(draws.integers(1, 8)), int(draws.integers(1, 4))
        costs, values = draws.normal(size=(2, horizon, drives))
        go = draws.choice([0.0, 1.0, draws.random()], size=horizon)
        discount, trace = float(draws.choice([0.0, 0.5, 0.99, 1.0])), float(draws.choice([0.0, 0.3, 0.95, 1.0]))
        tensors = (torch.from_numpy(array)[None] for array in (costs, go, values))
        given = lambda_returns(*tensors, discount, trace)[0].numpy()
        np.testing.assert_allclose(given, slow_returns(costs, go, values, discount, trace), atol=1e-9)


# ---- vector environments against single ones


def look(seen: Any, row: int) -> list[Any]:
    return [np.asarray(part[row]) for _, part in sorted(seen.items())] if isinstance(seen, dict) else [seen[row]]


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "TwoRoom", "DotWall"])
def test_an_environment_in_a_batch_lives_as_it_would_alone(id: str) -> None:
    """Random seeds, sizes and actions, over the ends of episodes."""
    draws = np.random.default_rng([9, len(id)])
    for _ in range(4):
        seed, count, limit = (int(draws.integers(*span)) for span in ((0, 10_000), (2, 4), (3, 15)))
        batch = make_env(id, count, max_steps=limit)
        row = int(draws.integers(count))
        together = [(batch.reset(seed=seed)[0], 0.0, False, False)]
        space = batch.single_action_space
        space.seed(seed)
        actions = [np.stack([space.sample() for _ in range(count)]) for _ in range(25)]
        for action in actions:
            together.append(batch.step(action)[:4])
        single = make_env(id, 1, max_steps=limit)
        alone = [(single.reset(seed=seed + row)[0], 0.0, False, False)]
        for action in actions:
            alone.append(single.step(action[row : row + 1])[:4])
        for one, many in zip(alone, together, strict=True):
            for left, right in zip(look(one[0], 0), look(many[0], row), strict=True):
                np.testing.assert_array_equal(left, right)
            for left, right in zip(one[1:], many[1:], strict=True):
                assert np.ravel(left)[0] == np.ravel(right)[row if np.ndim(right) else 0]
        batch.close()
        single.close()


# ---- statistics


def test_wilson_is_where_the_score_test_stops_to_refuse() -> None:
    """Both bounds by bisection of |p̂ − p| = z·√(p(1−p)/n)."""
    draws = np.random.default_rng(10)
    z = 1.959963984540054
    for _ in range(300):
        count = int(draws.integers(1, 200))
        successes = int(draws.integers(0, count + 1))
        rate = successes / count

        def refused(p: float, rate: float = rate, count: int = count) -> bool:
            return (rate - p) ** 2 > z**2 * p * (1 - p) / count

        bounds = []
        for outside in (0.0, 1.0):
            inside, out = rate, outside
            for _ in range(60):
                middle = (inside + out) / 2
                inside, out = (inside, middle) if refused(middle) else (middle, out)
            bounds.append(inside)
        interval = wilson(successes, count)
        assert (interval.low, interval.high) == pytest.approx(bounds, abs=1e-7)


def test_the_bootstrap_stops_where_all_resamples_say() -> None:
    """Of up to five values all nⁿ resamples can be written down: their quantiles bracket the interval."""
    draws = np.random.default_rng(11)
    for case in range(20):
        values = draws.normal(size=int(draws.integers(2, 6)))
        confidence = float(draws.choice([0.5, 0.8, 0.95]))
        means = np.sort([np.mean(picked) for picked in product(values, repeat=len(values))])
        interval = mean_interval(values, seed=case, confidence=confidence)
        tail, slack = (1 - confidence) / 2, 0.015
        for bound, share in ((interval.low, tail), (interval.high, 1 - tail)):
            assert (means < bound - 1e-9).mean() <= share + slack and (means <= bound + 1e-9).mean() >= share - slack


def test_means_and_chances_are_those_of_plain_loops() -> None:
    draws = np.random.default_rng(12)
    for _ in range(200):
        x = draws.integers(0, 6, size=int(draws.integers(1, 12))).astype(float)
        y = draws.integers(0, 6, size=int(draws.integers(1, 12))).astype(float)
        chance = sum((a > b) + 0.5 * (a == b) for a in x for b in y) / (len(x) * len(y))
        assert probability_of_improvement(x, y) == pytest.approx(chance)
        assert auroc(x, y) == pytest.approx(1 - auroc(y, x)) == pytest.approx(chance)
        cut = math.floor(len(x) / 4)
        middle = sorted(x)[cut : len(x) - cut]
        assert iqm(x) == pytest.approx(sum(middle) / len(middle))
