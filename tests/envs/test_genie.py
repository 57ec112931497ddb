"""The Gymnasium environment of a Genie world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.agent.config import EnvConfig
from forethought.agent.genie_motion import DIRECTIONS, directions, view_shifts
from forethought.agent.worlds import build_env
from forethought.envs.genie import PRETRAINED, GenieVectorEnv, find_world, make_single, pretrained_worlds, read_clips
from forethought.envs.make import make_env
from forethought.modules.genie.reading import read_video
from forethought.modules.genie.video import Clip, VideoDataset, VideoWriter, resize, write_about
from gymnasium.utils.env_checker import check_env
from PIL import Image
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from ..agent.sprites import MOVES, find
from ..modules.genie.films import cut, film
from ..modules.genie.small import ACTIONS, SIDE, make, save

STEPS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world without outcome heads."""
    return save(make(), tmp_path_factory.mktemp("world"), parts=("tokenizer", "latent_action", "dynamics"))


def test_it_passes_the_checks_of_gymnasium_and_stable_baselines(world: Path) -> None:
    check_env(make_single(world=world, max_steps=STEPS), skip_render_check=True)
    check_env_sb3(make_single(world=world, max_steps=STEPS))
    check_env(make_single(world=world, max_steps=STEPS, render_mode="rgb_array"))


def test_the_small_world_that_comes_along_can_be_played_at_once() -> None:
    env = gymnasium.make("forethought/Genie-v0")
    before, _ = env.reset(seed=1, options={"prompt": 0})
    start = find(before)
    ways = set()
    for code in range(5):
        env.reset(seed=1, options={"prompt": 0})
        after, *_ = env.step(code)
        ways.add(tuple((find(after) - start).tolist()))
    inside = {tuple(move) for move in MOVES.tolist() if ((start + move >= 0) & (start + move <= 12)).all()}
    assert ways >= inside and len(inside) >= 3  # each code moves the sprite its own way
    assert sum(file.stat().st_size for file in PRETRAINED.iterdir()) < 3e6


def test_worlds_that_come_along_are_made_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pretrained_worlds() == ["coinrun", "fruitbot", "sprite"]
    assert find_world(None) == find_world("sprite") == PRETRAINED
    env = make_env("genie:coinrun", 2)
    frames, _ = env.reset(seed=0)
    assert frames.shape == (2, 32, 32, 3) and env.single_action_space == gymnasium.spaces.Discrete(6)
    for name in ("coinrun", "fruitbot"):
        assert sum(file.stat().st_size for file in find_world(name).iterdir()) < 6e6
    monkeypatch.chdir(tmp_path)
    Path("coinrun").mkdir()  # a folder of one's own goes first
    assert find_world("coinrun") == Path("coinrun")


def test_the_codes_of_coinrun_move_the_view() -> None:
    """Left, right and up are among them, in dreams from the prompts that go with the world."""
    dreams, moved = GenieVectorEnv("coinrun", 16), {}
    for code in range(6):
        before, _ = dreams.reset(seed=0)
        steps = []
        for _ in range(4):
            after, *_ = dreams.step(np.full(16, code))
            shifts = view_shifts(torch.from_numpy(before).float() / 255, torch.from_numpy(after).float() / 255)
            steps.append(directions(shifts))
            before = after
        moved[code] = np.bincount(np.concatenate(steps), minlength=5) / 64
    for way in ("left", "right", "up"):
        shares = sorted(share[DIRECTIONS.index(way)] for share in moved.values())
        assert shares[-1] > 0.3 and shares[-1] > 2 * shares[-2], (way, moved)


def test_the_codes_of_fruitbot_move_the_robot() -> None:
    """It is the bright figure at the lower edge: one code takes it left, one right, and it does not fade."""
    dreams, moved = GenieVectorEnv("fruitbot", 24), []
    for code in range(dreams.single_action_space.n):
        frames, _ = dreams.reset(seed=0)
        before = robots(frames)
        for _ in range(3):
            frames, *_ = dreams.step(np.full(24, code))
        after = robots(frames)
        assert np.isfinite(before).all() and np.isfinite(after).sum() >= 20
        moved.append(float(np.nanmedian(after - before)))
    ways = sorted(moved)
    assert ways[0] < -5 and ways[-1] > 5 and max(map(abs, ways[1:-1])) < 3, moved


def robots(frames: np.ndarray) -> np.ndarray:
    """Columns of the robot in pictures ``[B, 32, 32, 3]``, NaN where nothing is bright."""
    bright = frames[:, 27:].min(-1) > 90
    count = bright.sum((1, 2))
    middle = (bright.sum(1) * np.arange(32)).sum(1) / np.maximum(count, 1)
    found: np.ndarray = np.where(count > 0, middle, np.nan)
    return found


def test_it_is_made_by_name(world: Path) -> None:
    single = gymnasium.make("forethought/Genie-v0", world=world)
    assert single.action_space == gymnasium.spaces.Discrete(ACTIONS)
    assert single.reset(seed=0)[0].shape == (SIDE, SIDE, 3)
    many = gymnasium.make_vec("forethought/Genie-v0", num_envs=3, world=world)
    assert many.reset(seed=0)[0].shape == (3, SIDE, SIDE, 3)
    named = make_env(f"genie:{world}", 2, max_steps=STEPS)
    assert isinstance(named, GenieVectorEnv) and named.max_steps == STEPS
    with pytest.raises(ValueError, match="does not have the options split='test'"):
        make_env(f"genie:{world}", 2, split="test")


def test_the_vector_dreams_what_single_environments_dream(world: Path) -> None:
    together = GenieVectorEnv(world, 3, max_steps=STEPS)
    alone = [GenieVectorEnv(world, 1, max_steps=STEPS) for _ in range(3)]
    frames, _ = together.reset(seed=5)
    singles = [env.reset(seed=5 + index)[0][0] for index, env in enumerate(alone)]
    assert np.array_equal(frames, singles)
    draws = np.random.default_rng(0)
    for _ in range(2 * STEPS + 1):  # over ends and the prompts drawn after them
        actions = draws.integers(ACTIONS, size=3)
        frames, *_, truncated, infos = together.step(actions)
        steps = [env.step(actions[index : index + 1]) for index, env in enumerate(alone)]
        assert np.array_equal(frames, [step[0][0] for step in steps])
        assert truncated.tolist() == [bool(step[3][0]) for step in steps]
        if truncated.any():
            assert np.array_equal(infos["final_obs"], [step[4]["final_obs"][0] for step in steps])


def test_seeds_actions_and_prompts_decide_the_dream(world: Path) -> None:
    env = GenieVectorEnv(world, 1)

    def play(seed: int, actions: list[int], prompt: int = 0) -> np.ndarray:
        env.reset(seed=seed, options={"prompt": prompt})
        return np.stack([env.step(np.array([action]))[0] for action in actions])

    base = play(0, [0, 1, 2])
    assert np.array_equal(base, play(0, [0, 1, 2]))
    assert not np.array_equal(base, play(1, [0, 1, 2]))
    assert not np.array_equal(base, play(0, [0, 1, 3]))
    assert np.array_equal(base[:2], play(0, [0, 1, 3])[:2])
    assert not np.array_equal(base, play(0, [0, 1, 2], prompt=1))


def test_time_truncates_and_the_next_episode_begins_at_once(world: Path) -> None:
    env = GenieVectorEnv(world, 2, max_steps=STEPS)
    env.reset(seed=0)
    env.step(np.zeros(2, np.int64))
    env.reset(options={"reset_mask": np.array([True, False])})  # now environment 1 is one step ahead
    for step in range(STEPS):
        frames, reward, terminated, truncated, infos = env.step(np.zeros(2, np.int64))
        assert truncated.tolist() == [step == STEPS - 1, step == STEPS - 2]
        assert not terminated.any() and not reward.any() and not infos["success"].any()
        if truncated.any():
            row = int(truncated.argmax())
            assert infos["_final_obs"].tolist() == truncated.tolist()
            assert not np.array_equal(infos["final_obs"][row], frames[row])


def test_a_mask_leaves_the_others_as_they_are(world: Path) -> None:
    env, other = (GenieVectorEnv(world, 2) for _ in range(2))
    for one in (env, other):
        one.reset(seed=0)
        one.step(np.array([1, 2]))
    env.reset(options={"reset_mask": np.array([True, False])})
    after, untouched = env.step(np.array([0, 3]))[0], other.step(np.array([0, 3]))[0]
    assert np.array_equal(after[1], untouched[1]) and not np.array_equal(after[0], untouched[0])


def test_dreams_go_on_from_clips_of_a_live_environment(world: Path) -> None:
    env = GenieVectorEnv(world, 2)
    clips = np.random.default_rng(1).integers(256, size=(2, 3, SIDE, SIDE, 3)).astype(np.uint8)
    first = env.begin_from(clips)
    one = GenieVectorEnv(world, 1)
    assert np.array_equal(one.reset(options={"prompt": clips[1]})[0][0], first[1])
    assert not np.array_equal(first[0], first[1])
    own = GenieVectorEnv(world, 1, prompts=clips[:1])
    assert np.array_equal(own.reset(seed=3)[0][0], first[0])


def test_a_picture_or_video_of_ones_own_begins_a_dream(world: Path, tmp_path: Path) -> None:
    draws = np.random.default_rng(2).integers(256, size=(SIDE, SIDE, 3)).astype(np.uint8)
    Image.fromarray(draws).save(tmp_path / "picture.png")
    env, single = GenieVectorEnv(world, 2), gymnasium.make("forethought/Genie-v0", world=world)
    expected, _ = env.reset(seed=0, options={"prompt": draws[None]})
    for path in (tmp_path / "picture.png", str(tmp_path / "picture.png")):
        assert np.array_equal(env.reset(seed=0, options={"prompt": path})[0], expected)
        assert np.array_equal(single.reset(seed=0, options={"prompt": path})[0], expected[0])
    assert not np.array_equal(env.reset(seed=0)[0], expected)
    frames = read_video(film(tmp_path / "video.gif", height=2 * SIDE, width=3 * SIDE))[:5]  # as the world sees
    expected, _ = env.reset(seed=0, options={"prompt": resize(frames, SIDE, SIDE)})
    assert np.array_equal(env.reset(seed=0, options={"prompt": tmp_path / "video.gif"})[0], expected)
    with pytest.raises(FileNotFoundError, match=r"there is no picture or video nowhere\.png"):
        env.reset(options={"prompt": "nowhere.png"})
    cut(tmp_path / "picture.png", tmp_path / "half.png", 0.5)
    with pytest.raises(ValueError, match=r"half\.png cannot be read as a picture [^\n]+\Z"):
        env.reset(options={"prompt": tmp_path / "half.png"})


def test_dreams_begin_with_clips_of_a_data_set(world: Path, tmp_path: Path) -> None:
    """Training episodes of a run begin with its training video, held-out ones with the clips of the world."""
    data, draws = tmp_path / "data", np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        writer = VideoWriter(data, split)  # type: ignore[arg-type]
        for length in (4, 3, 5)[:count]:
            writer.write(Clip(draws.integers(256, size=(length, SIDE, SIDE, 3)).astype(np.uint8)))
        writer.flush()
    write_about(data, {"data": "noise"})
    video = VideoDataset(data, "train")
    env = GenieVectorEnv(world, 4, prompts=str(data))
    assert np.array_equal(env.prompts, video.read(video.starts(2), 2)) and len(env.prompts) == 3 + 2 + 4
    few = read_clips(data, env.world.config, most=3)
    assert np.array_equal(few, env.prompts[[0, 4, 8]])
    config = EnvConfig(f"genie:{world}", prompts=str(data))
    training, held_out = (build_env(config, 2, seed=0, held_out=held).unwrapped for held in (False, True))
    assert np.array_equal(training.prompts, env.prompts)  # type: ignore[attr-defined]
    assert np.array_equal(held_out.prompts, GenieVectorEnv(world).prompts)  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError, match="holds no complete data set"):
        GenieVectorEnv(world, prompts=tmp_path / "nothing")
    with pytest.raises(ValueError, match="frames of 16×16 and the world sees 32×32"):
        GenieVectorEnv("coinrun", prompts=data)
    with pytest.raises(ValueError, match="does not have the options prompts"):
        make_env("TwoRoom", 1, prompts=str(data))


def test_rewards_come_from_a_function_or_from_learned_heads(world: Path, tmp_path: Path) -> None:
    told: list[tuple[np.ndarray, ...]] = []

    def reward(before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
        told.append((before, actions, after))
        return actions.astype(np.float32)

    env = GenieVectorEnv(world, 2, reward=reward)
    start, _ = env.reset(seed=0)
    frames, rewards, *_ = env.step(np.array([2, 3]))
    assert rewards.tolist() == [2, 3]
    assert np.array_equal(told[0][0], start) and np.array_equal(told[0][2], frames)
    eventful = make()
    with torch.no_grad():
        eventful.outcomes.ending.bias.fill_(50.0)
    judged = GenieVectorEnv(save(eventful, tmp_path / "judged"), 2)
    judged.reset(seed=0)
    _, rewards, terminated, truncated, _ = judged.step(np.array([0, 1]))
    assert terminated.all() and not truncated.any()
    assert rewards[0] != rewards[1]


def test_episodes_end_where_a_function_says_so(world: Path) -> None:
    def ending(before: Any, actions: Any, after: Any) -> Any:
        assert before.shape == after.shape and not np.array_equal(before, after)
        return actions == 2

    env = GenieVectorEnv(world, 3, ending=ending, max_steps=2)
    env.reset(seed=0)
    _, _, terminated, truncated, infos = env.step(np.array([1, 2, 0]))
    assert terminated.tolist() == [False, True, False] and not truncated.any()
    assert infos["_final_obs"].tolist() == [False, True, False]
    _, _, terminated, truncated, _ = env.step(np.array([2, 0, 1]))  # an ending at the time limit is an ending
    assert terminated.tolist() == [True, False, False] and truncated.tolist() == [False, False, True]
    for name, told, message in (
        ("ending", [True], r"the ending function returned shape \(1,\), expected \(3,\)"),
        ("reward", [0.0, np.nan, 1.0], "the reward function returned .*nan.*, expected finite numbers"),
        ("ending", ["no", "yes", "no"], "the ending function returned .*, expected finite numbers"),
    ):
        wrong = GenieVectorEnv(world, 3, **{name: lambda *_, told=told: np.array(told)})  # type: ignore[arg-type]
        wrong.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            wrong.step(np.zeros(3, np.int64))


def test_bad_input_gets_one_clear_line(world: Path, tmp_path: Path) -> None:
    env = GenieVectorEnv(world, 2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="step before the first reset"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset_mask before"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"actions\[1\] = {ACTIONS}: expected 0 to {ACTIONS - 1}"):
        env.step(np.array([0, ACTIONS]))
    with pytest.raises(ValueError, match="prompt is 3; expected 0 to 2"):
        env.reset(options={"prompt": 3})
    with pytest.raises(ValueError, match=r"options\['prompt'\]: prompts have shape \(1, 1, 8, 8, 3\)"):
        env.reset(options={"prompt": np.zeros((1, 8, 8, 3), np.uint8)})
    with pytest.raises(ValueError, match="9 frames in a prompt; this world sees 5"):
        env.reset(options={"prompt": np.zeros((9, SIDE, SIDE, 3), np.uint8)})
    with pytest.raises(ValueError, match="unknown options"):
        env.reset(options={"level": 3})
    with pytest.raises(ValueError, match="for 2 environments"):
        env.begin_from(np.zeros((1, 2, SIDE, SIDE, 3), np.uint8))
    with pytest.raises(ValueError, match="17 sampling steps"):
        GenieVectorEnv(world, sampling_steps=17)
    with pytest.raises(ValueError, match="num_envs=0"):
        GenieVectorEnv(world, 0)
    with pytest.raises(FileNotFoundError, match="no Genie world"):
        GenieVectorEnv(tmp_path)
