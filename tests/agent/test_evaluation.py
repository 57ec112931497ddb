"""Evaluation counts fairly, and the simplest behaviours do what they say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.agent import evaluation
from forethought.agent.agent import Agent, Decision
from forethought.agent.comparison import CompareConfig, check_behaviours, compare
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.interaction import Exploring, RandomBehaviour, interact
from forethought.agent.oracle import ExpertBehaviour
from forethought.agent.presets import rooms
from forethought.agent.protocols import evaluate_protocol, find_protocol
from forethought.agent.spaces import read_spaces
from forethought.agent.worlds import build_env
from forethought.envs.rooms import TWO_ROOM_CROSS_100
from forethought.modules.configurator import Thinking
from gymnasium import spaces
from numpy.typing import NDArray

from .small import SEEK, settings, tiny

Flags = NDArray[np.bool_]


class Script:
    """A vector environment whose episodes in environment i last i + 1 steps; every step pays 10 i + its number."""

    render_mode = None

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.age, self.episode = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.given: list[NDArray[Any]] = []

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], dict[str, Any]]:
        self.asked = (seed, options)
        return self._observe(), {}

    def _observe(self) -> NDArray[Any]:
        return np.stack([np.arange(self.num_envs), self.episode, self.age], 1).astype(np.float32)

    def step(self, action: NDArray[Any]) -> tuple[Any, ...]:
        self.given.append(action.copy())
        self.age += 1
        reward = 10.0 * np.arange(self.num_envs) + self.age
        ended = self.age > np.arange(self.num_envs)
        terminated = ended & (np.arange(self.num_envs) % 2 == 0)
        infos = {"success": ended & (self.episode == 1), "prev_level_seed": 100 * self.episode + 7}
        self.episode += ended
        self.age[ended] = 0
        return self._observe(), reward, terminated, ended & ~terminated, infos


@dataclass
class Recorder:
    """A behaviour that remembers what it was shown, and says that a decision takes 10 calls."""

    num_envs: int

    def __post_init__(self) -> None:
        self.seen: list[tuple[NDArray[Any], Flags, Flags]] = []

    def act(self, observation: Any, first: Flags, active: Flags) -> Decision:
        self.seen.append((np.array(observation), first.copy(), active.copy()))
        nothing = np.zeros(self.num_envs, np.bool_)
        calls = 10 * int(active.sum())
        return Decision(np.ones(self.num_envs, np.int64), np.zeros((self.num_envs, 1)), None, nothing, calls)


def run_script(per_env: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Result, Recorder]:
    clock = iter(np.arange(0, 10_000, 0.5))
    monkeypatch.setattr(evaluation, "perf_counter", lambda: float(next(clock)))
    recorder = Recorder(4)
    return evaluate("script", Script(4), recorder, per_env, seed=3, note="noted"), recorder  # type: ignore[arg-type]


@pytest.mark.parametrize("per_env", [1, 2, 3])
def test_every_environment_plays_the_same_number_of_episodes(per_env: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result, recorder = run_script(per_env, monkeypatch)
    lengths = sorted(episode.decisions for episode in result.episodes)
    assert lengths == sorted([1, 2, 3, 4] * per_env)
    for episode in result.episodes:
        n = episode.decisions
        assert episode.total == 10 * (n - 1) * n + n * (n + 1) / 2
    active = np.array([flags for _, _, flags in recorder.seen])
    assert active.sum(0).tolist() == [per_env, 2 * per_env, 3 * per_env, 4 * per_env]
    assert len(recorder.seen) == 4 * per_env  # no step more than the longest needs


def test_episodes_are_left_after_so_many_steps_and_count_as_they_stand() -> None:
    env, behaviour = Script(4), RandomBehaviour(spaces.Discrete(2), 4, 0, 1, 1)
    result = evaluate("left", env, behaviour, steps=2)  # type: ignore[arg-type]
    assert sorted(episode.decisions for episode in result.episodes) == [1, 2, 2, 2]
    assert sorted(episode.total for episode in result.episodes) == [1.0, 23.0, 43.0, 63.0]
    assert len(env.given) == 2
    for steps, per_env in ((0, 1), (2, 2)):
        with pytest.raises(ValueError, match=f"steps is {steps} and per_env {per_env}"):
            evaluate("left", env, behaviour, per_env, steps=steps)  # type: ignore[arg-type]


def test_success_and_level_belong_to_the_episode_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run_script(3, monkeypatch)
    for n in (1, 2, 3, 4):
        rows = [episode for episode in result.episodes if episode.decisions == n]
        assert [episode.success for episode in rows] == [False, True, False]
        assert [episode.level for episode in rows] == [7, 107, 207]
    assert result.successes.sum() == 4 and result.returns.shape == (12,)


def test_time_and_calls_are_counted_over_active_environments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run_script(1, monkeypatch)
    assert result.calls == 10  # 4 + 3 + 2 + 1 decisions
    assert result.milliseconds == pytest.approx(1000 * 4 * 0.5 / 10)  # 4 steps of half a second each
    assert (result.name, result.note) == ("script", "noted")


def test_the_behaviour_is_told_where_episodes_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    _, recorder = run_script(2, monkeypatch)
    for x, first, _ in recorder.seen:
        assert np.array_equal(first, x[:, 2] == 0)


def test_progress_seed_options_and_film() -> None:
    script, told = Script(2), []
    result = evaluate(
        "x", script, Recorder(2), 2, seed=5, options={"a": 1}, progress=lambda *numbers: told.append(numbers)
    )  # type: ignore[arg-type]
    assert script.asked == (5, {"a": 1}) and result.frames == ()
    assert told == [(1, 4), (3, 4), (3, 4), (4, 4)]


def test_film_keeps_pictures_of_environment_0_while_it_plays() -> None:
    env = build_env(replace(rooms("TwoRoom").env, num_envs=2), 2, seed=0, held_out=True)
    chance = RandomBehaviour(env.single_action_space, 2, 0, 1)
    pictures = evaluate("x", env, chance, seed=0, film=3).frames
    assert len(pictures) == 3 and pictures[0].shape == (64, 64, 3) and pictures[0].dtype == np.uint8
    assert not np.array_equal(pictures[0], pictures[2])


def test_the_same_seed_shows_every_behaviour_the_same_levels() -> None:
    shown = []
    for behaviour in (RandomBehaviour(SEEK.action, 5, 0, 1), RandomBehaviour(SEEK.action, 5, 9, 1)):
        env = build_env(settings().env, 5, seed=77, held_out=True)
        starts: list[NDArray[Any]] = []
        for count, step in enumerate(interact(env, behaviour, seed=4)):
            if count == 0:
                starts.append(step.observation.copy())
            if count > 12:
                break
        shown.append(starts[0])
    assert np.array_equal(*shown)


def test_procgen_levels_are_the_same_for_every_row_and_unseen() -> None:
    levels = []
    for seed in (0, 1):
        env = build_env(replace(settings().env, id="procgen:bigfish"), 6, seed=3, held_out=True)
        result = evaluate("random", env, RandomBehaviour(env.single_action_space, 6, seed, 1), seed=3)
        levels.append(sorted(episode.level for episode in result.episodes))
        assert len(result.episodes) == 6
        env.close()
    train = build_env(replace(settings().env, id="procgen:bigfish"), 6, seed=3, held_out=False)
    _, infos = train.reset(seed=3)
    assert levels[0] == levels[1] and not set(levels[0]) & set(infos["level_seed"].tolist())
    assert len(set(levels[0])) == 6
    train.close()


# ---- rows of a comparison


def test_compare_runs_both_modes_and_chance_on_the_same_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(tiny(), SEEK)
    seen: dict[str, NDArray[Any]] = {}
    whole = evaluation.Stopwatch.act

    def act(self: Any, observation: Any, first: Flags, active: Flags) -> Any:
        seen.setdefault(type(self.behaviour).__name__ + getattr(self.behaviour, "mode", ""), np.array(observation))
        return whole(self, observation, first, active)

    monkeypatch.setattr(evaluation.Stopwatch, "act", act)
    rows = compare(agent, CompareConfig(behaviours=("mode-1", "mode-2", "random"), episodes=5, film=0))
    assert [row.name for row in rows] == ["mode-1", "mode-2", "random"]
    assert [row.calls for row in rows] == [0, 3 * 6 * 2, 0] and all(len(row.episodes) == 5 for row in rows)
    assert len(seen) == 3 and all(np.array_equal(x, seen["RandomBehaviour"]) for x in seen.values())


@pytest.mark.parametrize(
    ("name", "id", "match"),
    [
        ("mode-3", "procgen:coinrun", "unknown behaviour"),
        ("oracle", "CartPole-v1", "no oracle"),
        ("expert", "procgen:coinrun", "no expert"),
    ],
)
def test_behaviours_that_a_world_does_not_have_are_refused(name: str, id: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_behaviours([name], id, SEEK)


# ---- chance and exploration

SPACES: list[spaces.Space[Any]] = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([2, 5, 3]),
    spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)),
]
NAMES = ["Discrete", "MultiDiscrete", "Box"]


def draws(behaviour: Any, steps: int, first: Flags | None = None) -> NDArray[Any]:
    count = behaviour.num_envs
    rows = [behaviour.act(None, np.ones(count, np.bool_), np.ones(count, np.bool_)).action]
    for _ in range(steps - 1):
        begins = np.zeros(count, np.bool_) if first is None else first
        rows.append(behaviour.act(None, begins, np.ones(count, np.bool_)).action)
    return np.stack(rows)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_random_actions_fill_the_space_and_stay_inside(space: spaces.Space[Any]) -> None:
    actions = draws(RandomBehaviour(space, 4, 0, 1), 200)
    flat = actions.reshape(-1, *(space.shape or ()))
    assert all(space.contains(action) for action in flat)
    if isinstance(space, spaces.Box):
        assert (flat.min(0) < space.low + 0.05 * (space.high - space.low)).all()
        assert (flat.max(0) > space.high - 0.05 * (space.high - space.low)).all()
    else:
        sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.tolist()  # type: ignore[attr-defined]
        for column, size in zip(flat.reshape(len(flat), -1).T, sizes, strict=True):
            assert np.bincount(column, minlength=size).min() > 0.7 * len(flat) / size
    assert not np.array_equal(actions[:, 0], actions[:, 1])  # environments do not share draws


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_random_actions_are_seeded(space: spaces.Space[Any]) -> None:
    one, same, other = (draws(RandomBehaviour(space, 4, seed, 1), 20) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_sticky_actions_are_held_and_renewed_where_an_episode_begins(space: spaces.Space[Any]) -> None:
    behaviour = RandomBehaviour(space, 40, 0, 2, sticky=3)
    held = draws(behaviour, 9)
    for block in (held[:3], held[3:6], held[6:]):
        assert (block == block[0]).all()
    assert not np.array_equal(held[2], held[3]) and not np.array_equal(held[5], held[6])
    active = np.ones(40, np.bool_)
    first = np.arange(40) < 20
    before = behaviour.act(None, np.ones(40, np.bool_), active).action
    rows = [behaviour.act(None, first & (step == 0), active) for step in range(4)]
    assert rows[0].plan.shape == (40, 2) and rows[0].calls == 0 and not rows[0].planned.any()
    assert np.array_equal(rows[0].action[20:], before[20:]) and not np.array_equal(rows[0].action[:20], before[:20])
    assert np.array_equal(rows[2].action[:20], rows[0].action[:20])  # held for three steps from the restart on
    assert not np.array_equal(rows[2].action[20:], before[20:])
    assert not np.array_equal(rows[3].action[:20], rows[0].action[:20])


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_exploration_replaces_actions_with_its_chance(space: spaces.Space[Any], chance: float) -> None:
    count = 400
    own = RandomBehaviour(space, count, 5, 1).action
    thought = Decision(own, np.full((count, 1), 0.3), np.zeros((count, 2)), np.ones(count, np.bool_), 12)
    random, noise = RandomBehaviour(space, count, 0, 1), RandomBehaviour(space, count, 0, 1)
    ones = np.ones(count, np.bool_)
    inside: Any = SimpleNamespace(act=lambda *_: thought)
    given = Exploring(inside, random, chance).act(None, ones, ones)
    drawn = noise.act(None, ones, ones).action
    same = (given.action == own).reshape(count, -1).all(1)
    replaced = (given.action == drawn).reshape(count, -1).all(1)
    assert (same | replaced).all()
    assert space.contains(given.action[0])
    assert {0.0: same.all(), 0.5: 100 < (~same).sum() < 300, 1.0: replaced.all()}[chance]
    assert given.plan is thought.plan and given.course is thought.course and given.calls == 12


def test_a_loop_tells_what_happened_step_by_step() -> None:
    script, recorder = Script(2), Recorder(2)
    for count, step in enumerate(interact(script, recorder, seed=1)):  # type: ignore[arg-type]
        assert np.array_equal(step.observation, recorder.seen[count][0])
        assert step.observation[:, 2].tolist() == [0, count % 2]
        assert step.reward.tolist() == [1, 11 + count % 2] and step.reward.dtype == np.float32
        assert step.ended.tolist() == [True, count % 2 == 1] == (step.terminated | step.truncated).tolist()
        if count == 3:
            break


# ---- room protocols


@pytest.fixture(scope="module")
def room_agent() -> Agent:
    config = rooms("TwoRoom")
    thinking = Thinking(horizon=4, candidates=4, iterations=1, hold=2, commit=4)
    config = replace(config, task=replace(config.task, thinking=thinking), device="cpu", threads=1)
    config = replace(config, perception=replace(config.perception, latent=8, width=4))
    env = build_env(config.env, 1, seed=0, held_out=True)
    return Agent(config, read_spaces(env.single_observation_space, env.single_action_space))


def test_the_expert_always_crosses_and_chance_does_not(room_agent: Agent) -> None:
    rows = evaluate_protocol(room_agent, TWO_ROOM_CROSS_100, ("expert", "random", "no-op"), pairs=20, seed=0)
    success = {row.name: float(row.successes.mean()) for row in rows}
    assert success["expert"] == 1 and success["random"] <= 0.15 and success["no-op"] == 0
    assert all(len(row.episodes) == 20 for row in rows)
    assert max(episode.decisions for row in rows for episode in row.episodes) <= 100
    assert all(episode.decisions == 100 for episode in rows[2].episodes)


def test_both_modes_can_be_judged_by_a_protocol(room_agent: Agent) -> None:
    short = replace(TWO_ROOM_CROSS_100, budget_steps=8)
    rows = evaluate_protocol(room_agent, short, ("mode-1", "mode-2"), pairs=3, film=2)
    assert [row.calls for row in rows] == [0, 4 * 4 / 4] and len(rows[1].frames) == 2  # one plan every four steps


def test_protocols_refuse_what_they_cannot_measure(room_agent: Agent) -> None:
    with pytest.raises(ValueError, match="choose from"):
        evaluate_protocol(room_agent, TWO_ROOM_CROSS_100, ("oracle",), pairs=2)
    repeat = Agent(replace(room_agent.config, env=replace(room_agent.config.env, action_repeat=2)), room_agent.spaces)
    with pytest.raises(ValueError, match="action_repeat"):
        evaluate_protocol(repeat, TWO_ROOM_CROSS_100, ("no-op",), pairs=2)
    with pytest.raises(ValueError, match="trained on"):
        evaluate_protocol(Agent(tiny(), SEEK), TWO_ROOM_CROSS_100, ("no-op",), pairs=2)
    assert find_protocol(None, "TwoRoom") is TWO_ROOM_CROSS_100 and find_protocol(None, "CartPole-v1") is None
    assert find_protocol("two_room-cross-room-100", "TwoRoom") is TWO_ROOM_CROSS_100
    with pytest.raises(ValueError, match="dot_wall-cross-room-200"):
        find_protocol("two_room-cross-room-100", "DotWall")
    with pytest.raises(ValueError, match="no protocols"):
        find_protocol("two_room-cross-room-100", "CartPole-v1")


def test_the_expert_belongs_to_the_rooms() -> None:
    with pytest.raises(ValueError, match="no expert"):
        ExpertBehaviour(gymnasium.make_vec("CartPole-v1", 2))
