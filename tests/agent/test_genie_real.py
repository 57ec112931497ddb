"""What was learned or planned in dreams, in the true environment: the small world that comes along and its sprite."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.agent import Decision
from forethought.agent.checkpoint import load_agent
from forethought.agent.evaluation import Result
from forethought.agent.genie_cloning import CloneBehaviour, Cloning, clones, watch_expert
from forethought.agent.genie_contest import (
    Arena,
    Contestant,
    DreamPlanning,
    chance,
    contest,
    enter,
    expert,
    known_codes,
    planners_of,
)
from forethought.agent.genie_data import Recording, record
from forethought.agent.genie_play import PlayOptions, Session
from forethought.agent.genie_real import (
    ActionMap,
    Home,
    LatentBehaviour,
    TrueSide,
    Window,
    home_of,
    learn_map,
    need_home,
    play_labels,
)
from forethought.agent.interaction import interact
from forethought.agent.pretrained import pretrained
from forethought.envs.genie import PRETRAINED
from forethought.envs.sprite import MOVES, SpriteState, SpriteVectorEnv, draw
from forethought.modules.genie.decoding import ActionDictionary
from forethought.modules.genie.video import VideoDataset

from ..modules.genie.small import make, save
from .sprites import find

CPU = torch.device("cpu")
EPISODES = 24


@pytest.fixture(scope="module")
def arena() -> Arena:
    torch.set_num_threads(1)
    return enter(PRETRAINED, 64, "dictionary", 0, CPU)


def shuffled(arena: Arena) -> Arena:
    """Every code means what another one does."""
    assert arena.actions is not None
    wrong = ActionDictionary(arena.world.actions, len(MOVES))
    wrong.counts = arena.actions.dictionary.counts.roll(1, 0)
    return replace(arena, actions=ActionMap(wrong))


def success(row: Result) -> float:
    return float(row.successes.mean())


class Always:
    """Takes one code for ever."""

    def __init__(self, code: int) -> None:
        self.code = code

    def act(self, observation: np.ndarray, first: np.ndarray, active: np.ndarray) -> Decision:
        count = len(first)
        assert observation.shape == (count, 16, 16, 3)
        return Decision(np.full(count, self.code), np.zeros((count, 1), np.float32), None, first & False, 0)


def test_a_world_knows_where_it_comes_from(tmp_path: Path) -> None:
    home = Home("Sprite", Recording(height=16, width=16, actions=(0, 2)))
    told = {"data": {"env": "Sprite", "recording": {"height": 16, "width": 16, "actions": [0, 2]}}}
    assert home_of(told) == home
    assert home_of({"data": "noise"}) is None and home_of({"data": {"videos": "folder"}}) is None
    with pytest.raises(ValueError, match="does not say which environment it shows"):
        need_home({}, "some world")
    with pytest.raises(ValueError, match="settings that Recording does not know: speed"):
        home_of({"data": {"env": "Sprite", "recording": {"speed": 2}}})
    with pytest.raises(ValueError, match="mapped to Discrete ones only"):
        Home("TwoRoom", Recording()).build(1, "train", 0)
    with pytest.raises(ValueError, match="does not say which environment"):
        enter(save(make(), tmp_path), 8, "dictionary", 0, CPU)


@pytest.mark.parametrize("meaning", ["dictionary", "decoder"])
def test_codes_do_in_the_true_environment_what_they_do_in_the_dream(arena: Arena, meaning: str) -> None:
    known = play_labels(arena.world, arena.home, 64, 1, CPU)
    actions = learn_map(arena.world, known, meaning, 0)  # type: ignore[arg-type]
    session = Session(PRETRAINED, PlayOptions(beside=False))
    env = arena.home.build(1, "test", 0)
    places = np.array([[4, 4], [8, 4], [4, 8]])
    ways = set()
    for code in range(5):
        for place in places:
            env.reset(seed=0)
            env.unwrapped.set_state(replace(env.unwrapped.get_state(), places=place[None]))  # type: ignore[attr-defined]
            picture = draw(place[None])
            behaviour = LatentBehaviour(env, arena.world, Always(code), actions, CPU)
            decision = behaviour.act(picture, np.ones(1, np.bool_), np.ones(1, np.bool_))
            true = find(env.step(decision.action)[0])[0]
            session.env.begin_from(picture[:, None])
            assert np.array_equal(find(session.env.step(np.array([code]))[0])[0], true)
            ways.add(tuple((true - place).tolist()))
    assert ways == {tuple(move) for move in MOVES.tolist()}


def test_windows_begin_anew_with_episodes(arena: Arena) -> None:
    window = Window(2, arena.world)
    pictures = np.random.default_rng(0).integers(256, size=(4, 2, 16, 16, 3)).astype(np.uint8)
    window.see(pictures[0], np.array([True, True]))
    window.see(pictures[1], np.array([False, False]))
    seen = window.see(pictures[2], np.array([False, True]))
    assert np.array_equal(seen[0], pictures[:3, 0])
    assert np.array_equal(seen[1], pictures[[2, 2, 2], 1])


def test_the_true_side_ends_and_begins_again(arena: Arena) -> None:
    assert arena.actions is not None
    side = TrueSide(arena.world, arena.home, arena.actions, 0)
    side.reset()
    names = {}
    for code in range(5):
        side.step(code)
        names[side.taken] = code
    assert set(names) == {"stay", "left", "right", "up", "down"}
    side.reset()
    for code in [names["right"]] * 3 + [names["down"]] * 3:
        side.step(code)
    assert side.ended and side.total == 1
    assert np.array_equal(find(side.frame), [12, 12])
    side.step(names["left"])
    assert np.array_equal(find(side.frame), [12, 12])  # nothing happens any more
    clip = side.reset()
    assert not side.ended and side.total == 0 and clip.shape == (1, 1, 16, 16, 3)


def walk(one: Contestant, steps: int = 7) -> int:
    """How many of eight sprites, three moves from the corner, come there in time."""
    env = SpriteVectorEnv(8)
    env.reset(seed=0)
    places = np.array([(12, 0), (0, 12), (8, 4), (4, 8)] * 2)
    env.set_state(SpriteState(places, np.zeros(8, np.int64)))
    behaviour, observation = one.begin(env), draw(places)
    first, active, arrived = np.ones(8, np.bool_), np.ones(8, np.bool_), 0
    for _ in range(steps):
        decision = behaviour.act(observation, first, active)
        observation, reward, *_ = env.step(decision.action)
        arrived += int((reward * active).sum())
        active &= reward == 0
        first = ~active
        if not active.any():
            break
    return arrived


def test_codes_that_labelled_play_hardly_shows_are_not_planned_with(arena: Arena) -> None:
    assert arena.actions is not None and known_codes(arena) == list(range(arena.world.actions))
    rare = ActionDictionary(arena.world.actions, len(MOVES))
    rare.counts = arena.actions.dictionary.counts.clone() * 100
    rare.counts[2], rare.counts[3] = 0, torch.eye(len(MOVES), dtype=torch.long)[0]
    assert known_codes(replace(arena, actions=ActionMap(rare))) == [0, 1, 4]
    assert known_codes(replace(arena, actions=None)) == list(range(arena.world.actions))


def test_plans_made_in_the_dream_work_in_the_true_environment(arena: Arena) -> None:
    settings = DreamPlanning(("categorical_cem",), horizon=4, candidates=64, iterations=2)
    dream, simulator, random = planners_of(arena, settings, 0)
    assert [dream.name, simulator.name] == ["dream, categorical_cem", "simulator, categorical_cem"]
    both = planners_of(arena, replace(settings, planners=("beam", "categorical_cem")), 0)
    assert [one.name for one in both] == [
        "dream, beam", "dream, categorical_cem", "simulator, categorical_cem", "random"
    ]  # fmt: skip
    assert walk(both[0]) >= 6  # a tree finds the way, too
    assert walk(dream) >= 7 and walk(simulator) >= 7
    assert max(walk(random), walk(planners_of(shuffled(arena), settings, 0)[0])) <= 3


def test_an_expert_is_cloned_from_video(arena: Arena, tmp_path: Path) -> None:
    record("Sprite", Recording(1_500, 60, height=16, width=16, policy="expert"), tmp_path / "expert")
    config = Cloning(labels=(1, 32), updates=150, channels=8, latent=32, frames=2, shift=1)
    data = VideoDataset(tmp_path / "expert", "train")
    found = clones(arena.world, arena.home, data, config, 0, CPU)
    rows = {row.name: success(row) for row in contest(arena.home, found, EPISODES, 0)}
    assert rows["clone, 32 labels, dictionary"] >= 0.9 and rows["clone of true actions"] >= 0.9
    assert rows["expert"] == 1
    assert max(rows["random"], rows["clone, 1 labels, dictionary"]) <= 0.6  # one label names one action


def test_clones_see_as_many_frames_as_they_are_told(arena: Arena, tmp_path: Path) -> None:
    """What a policy learns from is what it sees at work: an episode's first frame stands for those before it."""
    record("Sprite", Recording(200, 60, height=16, width=16, policy="expert"), tmp_path / "expert")
    data = VideoDataset(tmp_path / "expert", "train")
    learned = watch_expert(arena.world, data, 150, 3, 0, CPU).frames
    starts = data.starts(2)
    pairs = data.read(starts, 2)
    assert learned.shape == (150, 3, 16, 16, 3)
    first = [not i or tuple(starts[i - 1]) != (chunk, place - 1) for i, (chunk, place) in enumerate(starts)]
    window = Window(1, arena.world, 3)
    seen = [window.see(pair[:1], np.array([begins]))[0] for pair, begins in zip(pairs, first, strict=True)]
    assert {frames.tobytes() for frames in learned} <= {frames.tobytes() for frames in seen}
    assert len({frames.tobytes() for frames in learned}) > 20
    shown: list[torch.Tensor] = []

    def policy(frames: torch.Tensor) -> torch.Tensor:
        shown.append(frames)
        return torch.zeros(len(frames), 2)

    clone_at_work = CloneBehaviour(policy, Window(1, arena.world, 3), CPU)  # type: ignore[arg-type]
    for pair, begins in zip(pairs[:9], first, strict=False):
        clone_at_work.act(pair[:1], np.array([begins]), np.ones(1, np.bool_))
    assert [frames.shape[:2] for frames in shown] == [(1, 3)] * 9
    assert all(np.array_equal(frames[0], one) for frames, one in zip(shown, seen, strict=False))


@pytest.mark.parametrize("change", [{"shift": 16}, {"shift": -1}, {"frames": 0}])
def test_clones_refuse_what_leaves_nothing_to_be_seen(arena: Arena, tmp_path: Path, change: dict[str, int]) -> None:
    record("Sprite", Recording(60, 60, height=16, width=16, policy="expert"), tmp_path / "expert")
    with pytest.raises(ValueError, match=f"{next(iter(change))} is"):
        clones(arena.world, arena.home, VideoDataset(tmp_path / "expert", "train"), Cloning(**change), 0, CPU)  # type: ignore[arg-type]


def test_clones_do_what_is_likeliest_or_draw_from_their_policy(arena: Arena) -> None:
    def policy(frames: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.3, 0.7]).log().expand(len(frames), 2)

    frames, flags = np.zeros((2_000, 16, 16, 3), np.uint8), np.ones(2_000, np.bool_)
    shares = {
        name: CloneBehaviour(policy, Window(2_000, arena.world, 1), CPU, draws).act(frames, flags, flags).action.mean()  # type: ignore[arg-type]
        for name, draws in (("likeliest", None), ("drawn", np.random.default_rng(0)))
    }
    assert shares["likeliest"] == 1 and abs(shares["drawn"] - 0.7) < 0.04


def test_the_agent_that_plays_in_a_video_is_its_expert(tmp_path: Path) -> None:
    recording = Recording(num_envs=2, action_repeat=3, distribution_mode="easy", policy=str(pretrained("fruitbot")))
    shown = Home("procgen:fruitbot", recording)
    env = shown.build(2, "test", 0)
    (found,) = expert(env, shown)
    agent = load_agent(pretrained("fruitbot"))
    buttons, twin = np.array(agent.config.env.actions), agent.begin(2, "mode-1", sample=True)
    assert found.name == "expert" and len(buttons) < 15, "it presses what it may, by the game's own numbers"
    first, pressed = np.ones(2, np.bool_), set()
    for step in islice(interact(env, found.begin(env), seed=0), 12):
        own = twin.act(step.observation, first, np.ones(2, np.bool_))
        assert np.array_equal(step.action, buttons[own.action])
        first, pressed = step.ended, pressed | set(step.action.tolist())
    assert len(pressed) > 1
    gone = Home("procgen:fruitbot", replace(recording, policy=str(tmp_path / "gone")))
    assert expert(env, gone) == expert(env) == []  # nobody is left to ask, and the game has no scripted one
    env.close()


def test_rows_need_rewards_episodes_and_a_known_world(arena: Arena, tmp_path: Path) -> None:
    bare = save(make(), tmp_path, parts=("tokenizer", "latent_action", "dynamics"))
    with pytest.raises(ValueError, match="has not learned rewards"):
        planners_of(replace(arena, folder=bare), DreamPlanning(), 0)
    for wrong in ({"horizon": 0}, {"planners": ()}, {"discount": 0.0}, {"sampling_steps": -1}):
        with pytest.raises(ValueError):
            planners_of(arena, DreamPlanning(**wrong), 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="episodes is 0"):
        contest(arena.home, [chance(arena.home, 0)], 0, 0)
    with pytest.raises(ValueError, match="labels is 0"):
        play_labels(arena.world, arena.home, 0, 0, CPU)
    assert isinstance(chance(arena.home, 0), Contestant)
