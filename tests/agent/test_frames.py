"""Every frame of a hold begins a decision: what is remembered is what happened, frame by frame, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forethought.agent.config import RunConfig
from forethought.agent.presets import preset
from forethought.agent.run import prepare
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.envs.action_repeat import ActionRepeat
from forethought.envs.procgen import GAMES
from numpy.typing import NDArray

from .small import tiny
from .test_resume import assert_same, live, small

B, R = 4, 3


def ignore(*_: Any) -> None:
    """A report that nobody reads."""


def framed(id: str = "procgen:coinrun", repeat: int = R) -> RunConfig:
    config = small(id)
    schedule = replace(config.schedule, every_frame=True, mode="mode-1", mode_1_rounds=0, reanalyse=0)
    return replace(config, env=replace(config.env, action_repeat=repeat), schedule=schedule)


class Frames:
    """The frames that an environment without action repeat shows, where each action is given R times."""

    def __init__(self, config: RunConfig, actions: NDArray[np.int64]) -> None:
        env = build_env(config.env, B, seed=config.seed, held_out=False, action_repeat=1)
        noop = getattr(env.unwrapped, "noop", None)
        observation, _ = env.reset(seed=config.seed)
        seen, felt, ends, cuts = [observation], [], [], []
        for action in actions:
            over = np.zeros(B, np.bool_)
            for _ in range(config.env.action_repeat):
                given = action if noop is None else np.where(over, noop, action)
                observation, reward, terminated, truncated, _ = env.step(given)
                over |= terminated | truncated
                seen.append(np.array(observation))
                felt.append(np.array(reward))
                ends.append(np.array(terminated))
                cuts.append(np.array(truncated))
        env.close()
        self.seen, self.felt, self.ends, self.cuts = map(np.stack, (seen, felt, ends, cuts))


@pytest.fixture(scope="module", params=[("procgen:coinrun", 3), ("procgen:bigfish", 2), ("procgen:starpilot", 4)])
def played(request: pytest.FixtureRequest) -> tuple[RunConfig, Trainer, NDArray[np.int64], Frames]:
    """A trainer that has collected at random, what it did, and the same frame by frame."""
    config = framed(*request.param)
    agent, env = prepare(config)
    trainer = Trainer(agent, env, ignore)
    done: list[NDArray[np.int64]] = []
    step = env.step
    env.step = lambda action: (done.append(np.array(action)), step(action))[1]  # type: ignore[method-assign]
    trainer.collect(trainer.random, 45 * B)
    env.close()
    actions = np.stack(done)
    return config, trainer, actions, Frames(config, actions)


def test_streams_hold_the_frames_of_their_offset(
    played: tuple[RunConfig, Trainer, NDArray[np.int64], Frames],
) -> None:
    config, trainer, actions, frames = played
    repeat, memory = config.env.action_repeat, trainer.memory
    assert memory.streams == repeat * B and memory.filled == len(actions) - 1
    for offset in range(repeat):
        rows = slice(offset * B, (offset + 1) * B)
        remembered = memory.data["observation"][rows, : memory.filled]
        assert np.array_equal(remembered, frames.seen[offset:-repeat:repeat].swapaxes(0, 1)[:, : memory.filled])
        told = memory.data["action"][rows, : memory.filled].T
        assert np.array_equal(told, actions[:-1] if offset <= repeat - offset else actions[1:])
    different = {memory.data["observation"][e::B, 5].tobytes() for e in range(B)}
    assert len(different) == B


def test_outcomes_are_those_of_as_many_frames_up_to_an_end(
    played: tuple[RunConfig, Trainer, NDArray[np.int64], Frames],
) -> None:
    config, trainer, _, frames = played
    repeat, data = config.env.action_repeat, trainer.memory.data
    ends = 0
    for t in range(trainer.memory.filled):
        for offset in range(1, repeat):
            for e in range(B):
                reward, terminated, truncated = 0.0, False, False
                for frame in range(repeat * t + offset, repeat * (t + 1) + offset):
                    if terminated or truncated:
                        break
                    reward += float(frames.felt[frame, e])
                    terminated, truncated = bool(frames.ends[frame, e]), bool(frames.cuts[frame, e])
                row = offset * B + e
                assert data["reward"][row, t] == pytest.approx(reward)
                assert (data["terminated"][row, t], data["truncated"][row, t]) == (terminated, truncated)
                ends += terminated
    assert ends or config.env.id != "procgen:bigfish"
    held, simple = trainer.env, replace(config, schedule=replace(config.schedule, every_frame=False))
    assert isinstance(held, ActionRepeat)
    plain = Trainer(*prepare(simple), ignore)
    plain.collect(plain.random, 45 * B)
    plain.env.close()
    for name in ("observation", "action", "reward", "terminated", "truncated"):  # the first offset: nothing is changed
        assert np.array_equal(
            plain.memory.data[name][:, : trainer.memory.filled], data[name][:B, : trainer.memory.filled]
        )


def test_ends_are_met_at_every_offset() -> None:
    """Whole random episodes of a game that ends soon: each offset sees the same ends, within a decision."""
    config = framed("procgen:bigfish")
    config = replace(config, schedule=replace(config.schedule, capacity=4_000))
    trainer = Trainer(*prepare(config), ignore)
    trainer.collect(trainer.random, 400 * B)
    trainer.env.close()
    data, filled = trainer.memory.data, trainer.memory.filled
    ends = [[np.flatnonzero(data["terminated"][p * B + e, :filled]) for p in range(R)] for e in range(B)]
    assert sum(len(each[0]) for each in ends) > 20
    for each in ends:
        for other in each[1:]:
            near = [min(abs(each[0] - end), default=99) <= 1 for end in other]
            assert all(near) and abs(len(other) - len(each[0])) <= 1
    rewards = [float(data["reward"][p * B : (p + 1) * B, :filled].sum()) for p in range(R)]
    assert min(rewards) > 0.8 * max(rewards) > 0


def test_stopping_anywhere_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = framed()
    config = replace(config, schedule=replace(config.schedule, round_reset=False))
    whole = live(config, tmp_path / "whole", monkeypatch)
    assert_same(whole, live(config, tmp_path / "parts", monkeypatch, tuple(range(3, whole.trainer.units, 7))))
    assert whole.trainer.memory.filled == whole.trainer.decisions // B - 1


def test_a_new_stream_does_not_go_on_from_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rounds begin with new episodes, the decision that waited is dropped and the one before it cut off."""
    trainer = live(framed(), tmp_path / "run", monkeypatch).trainer
    data = trainer.memory.data
    assert trainer.memory.filled == 24 - 1 + 2 * (6 - 1)
    for last in (22, 27):
        assert (data["terminated"] | data["truncated"])[:, last].all() and (data["age"][:, last + 1] == 0).all()


def plans(config: RunConfig) -> RunConfig:
    return replace(config, schedule=replace(config.schedule, mode="mode-2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, env=replace(c.env, action_repeat=1)), "every_frame is set and env.action_repeat is 1"),
        (plans, "plans and what sensors measure are remembered of decisions only"),
        (lambda c: framed("TwoRoom"), "goals, plans and what sensors measure"),
        (lambda c: replace(framed("CartPole-v1")), "the state of CartPole-v1 cannot be saved"),
    ],
)
def test_what_cannot_be_is_refused(change: Callable[[RunConfig], RunConfig], message: str) -> None:
    agent, env = prepare(change(framed()))
    with pytest.raises(ValueError, match=message):
        Trainer(agent, env, ignore)
    env.close()


def test_it_is_off_unless_asked_for() -> None:
    assert not tiny().schedule.every_frame
    assert [game for game in GAMES if preset(f"procgen:{game}").schedule.every_frame] == ["coinrun"]


def test_every_game_has_as_many_frames_however_long_actions_are_held() -> None:
    found = {game: preset(f"procgen:{game}") for game in GAMES}
    held = {game: usual.env.action_repeat for game, usual in found.items() if usual.env.action_repeat != 3}
    assert held == {"maze": 2, "heist": 4, "bigfish": 8}
    for game, usual in found.items():
        plan = usual.schedule
        frames = (plan.prefill + plan.rounds * plan.round_steps) * usual.env.action_repeat
        assert frames == (195_456 if game == "bigfish" else 198_528) and plan.round_steps % usual.env.num_envs == 0
