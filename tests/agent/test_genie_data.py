"""Video data: what is recorded is what was seen, and mistakes are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.checkpoint import load_agent
from forethought.agent.config import EnvConfig
from forethought.agent.genie_data import Recording, StickyBehaviour, record
from forethought.agent.ppo import PPOConfig, save_ppo, train_ppo
from forethought.agent.pretrained import pretrained
from forethought.envs.make import make_env
from forethought.modules.genie.video import Clip, VideoDataset, VideoWriter, read_about, resize, write_about

SMALL = Recording(steps=240, test_steps=60, num_envs=3, hold=4, seed=2)


def test_procgen_is_recorded_as_it_was_played(tmp_path: Path) -> None:
    record("procgen:maze", SMALL, tmp_path / "maze")
    data = VideoDataset(tmp_path / "maze", "train")
    assert len(data) == 240 and (data.height, data.width) == (64, 64) and data.labelled
    # play the recorded actions again: the frames must be those that they were taken at
    env = make_env("procgen:maze", 3, seed=2)
    frames, _ = env.reset(seed=2)
    starts = data.starts(2)
    pairs, actions = data.read(starts, 2), data.read_label("actions", starts, 2)[:, 0]
    behaviour = StickyBehaviour(np.arange(15), 3, 2, 4)
    first, following = np.ones(3, np.bool_), None
    for _ in range(20):
        action = behaviour.act(frames, first, first).action
        following, _, terminated, truncated, _ = env.step(action)
        first = terminated | truncated
        for index in np.flatnonzero(~first):
            same = (pairs[:, 0] == frames[index]).all((1, 2, 3)) & (actions == action[index])
            assert (pairs[same][:, 1] == following[index]).all((1, 2, 3)).any()
        frames = following


def test_levels_of_the_splits_are_apart_and_frames_are_averaged_down(tmp_path: Path) -> None:
    settings = Recording(steps=40, test_steps=20, num_envs=2, height=32, width=32, policy="random", actions=(1, 7))
    record("procgen:coinrun", settings, tmp_path / "data")
    about = read_about(tmp_path / "data")
    assert about["train"]["levels"] == [0, 200] and about["test"]["levels"][0] >= 200
    assert about["recording"]["policy"] == "random" and about["action_meanings"][7] == "RIGHT"
    for split in ("train", "test"):
        data = VideoDataset(tmp_path / "data", split)  # type: ignore[arg-type]
        assert (data.height, data.width) == (32, 32)
        assert set(np.concatenate(data.labels["actions"]).tolist()) == {1, 7}


def test_worlds_without_pixels_are_drawn(tmp_path: Path) -> None:
    settings = Recording(steps=60, test_steps=6, num_envs=2, height=40, width=60)
    record("CartPole-v1", settings, tmp_path / "data")
    data = VideoDataset(tmp_path / "data", "train")
    starts = data.starts(2)
    clips = data.read(starts, 2)
    assert clips.std() > 5 and (clips[:, 0] != clips[:, 1]).any()
    assert np.concatenate(data.labels["ended"]).any()  # episodes of every length are kept, ends and all


def test_clips_never_join_two_episodes(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path, "train", chunk=10)
    for number, length in enumerate((3, 1, 5, 4, 2)):
        shade = np.full((length, 8, 8, 3), 10 * number + np.arange(length)[:, None, None, None])
        writer.write(Clip(shade.astype(np.uint8)))
    writer.flush()
    write_about(tmp_path, {})
    data = VideoDataset(tmp_path, "train")
    assert len(data) == 15 and not data.labelled
    windows = data.read(data.starts(3), 3)[:, :, 0, 0, 0].astype(int)
    assert sorted(windows[:, 0].tolist()) == [0, 20, 21, 22, 30, 31]
    assert (np.diff(windows) == 1).all()
    with pytest.raises(ValueError, match="no clip of 6 frames, the longest has 5"):
        data.starts(6)


def test_sticky_actions_are_held_and_come_from_the_list() -> None:
    behaviour = StickyBehaviour(np.array([2, 9]), 4, 0, 6)
    none = np.zeros(4, np.bool_)
    actions = np.stack([behaviour.act(None, none, none).action for _ in range(400)])
    assert set(actions.reshape(-1).tolist()) == {2, 9}
    changes = (np.diff(actions, axis=0) != 0).mean()
    assert 0.08 < changes < 0.2  # held for 3.5 steps in the mean, and half the draws repeat


def test_an_agent_with_a_few_buttons_presses_them_where_all_are_to_be_had(tmp_path: Path) -> None:
    fruitbot, played = pretrained("fruitbot"), {}
    settings = Recording(steps=1_600, test_steps=16, num_envs=16, action_repeat=3, distribution_mode="easy", width=16)
    for name, policy in (("agent", str(fruitbot)), ("chance", "random")):
        record("procgen:fruitbot", replace(settings, policy=policy), tmp_path / name)
        data = VideoDataset(tmp_path / name, "train")
        starts = data.starts(1)
        played[name] = data.read_label("rewards", starts, 1).sum(), set(data.read_label("actions", starts, 1).flatten())
    buttons = load_agent(fruitbot).config.env.actions
    assert len(buttons) > 2 and {0, 1, 2} - set(buttons)  # its own numbers are not the buttons'
    assert played["agent"][1] == set(buttons) and played["chance"][1] == set(range(15))
    assert played["agent"][0] > 40 and played["chance"][0] < 0
    with pytest.raises(ValueError, match="evaluate it there or train one"):
        record("Sprite", replace(SMALL, policy=str(fruitbot)), tmp_path / "sprite")


def leaning(id: str, folder: Path, logits: list[float], **env: Any) -> str:
    """The folder of a PPO policy that has hardly learned, with these logits wherever it is."""
    config = PPOConfig(
        EnvConfig(id, num_envs=2, **env), steps=8, rollout=4, epochs=1, minibatches=2, device="cpu", threads=1
    )
    trained = train_ppo(config, folder)
    with torch.no_grad():
        trained.policy.action_net.weight.zero_()
        trained.policy.action_net.bias.copy_(torch.tensor(logits))
    save_ppo(trained, folder, 8)
    return str(folder)


def test_a_ppo_run_is_recorded_as_its_policy_draws(tmp_path: Path) -> None:
    settings = Recording(steps=1_200, test_steps=60, num_envs=6, height=16, width=16)
    nine, one = float(np.log(0.9)), float(np.log(0.1))
    policy = leaning("Sprite", tmp_path / "ppo", [-99, one, -99, nine, -99])
    parts = {}
    for name, exploration in (("first", 0.0), ("again", 0.0), ("astray", 0.5)):
        record("Sprite", replace(settings, policy=policy, exploration=exploration), tmp_path / name)
        for split in ("train", "test"):
            data = VideoDataset(tmp_path / name, split)  # type: ignore[arg-type]
            actions = np.concatenate(data.labels["actions"])
            parts[name, split] = np.bincount(actions[actions >= 0], minlength=5) / (actions >= 0).sum(), actions
    share = parts["first", "train"][0]
    assert share[[1, 3]].sum() == 1 and share[3] == pytest.approx(0.9, abs=0.04)  # drawn, neither the likeliest alone
    assert parts["first", "test"][0][[1, 3]].sum() == 1
    assert np.array_equal(parts["first", "train"][1], parts["again", "train"][1])
    assert parts["astray", "train"][0][3] == pytest.approx(0.55, abs=0.08)
    assert read_about(tmp_path / "first")["recording"]["policy"] == policy


def test_ppo_sees_vectors_where_the_world_is_drawn_and_presses_its_own_buttons(tmp_path: Path) -> None:
    pole = leaning("CartPole-v1", tmp_path / "pole", [0.0, 50.0])
    settings = Recording(steps=40, test_steps=8, num_envs=2, height=16, width=24, policy=pole)
    record("CartPole-v1", settings, tmp_path / "drawn")
    data = VideoDataset(tmp_path / "drawn", "train")
    assert set(data.read_label("actions", data.starts(1), 1).flatten()) == {1}
    maze = leaning("procgen:maze", tmp_path / "maze", [0.0, 50.0, 0.0], actions=(1, 7, 5))
    record("procgen:maze", replace(settings, policy=maze), tmp_path / "data")
    data = VideoDataset(tmp_path / "data", "train")
    assert set(data.read_label("actions", data.starts(1), 1).flatten()) == {7}
    for policy, id, message in (
        (pole, "Sprite", r"pole was trained on CartPole-v1 for observations \(4,\) .*; Sprite gives \(16, 16, 3\)"),
        (maze, "Sprite", r"actions Discrete\(3\); Sprite gives \(16, 16, 3\) and takes Discrete\(5\)"),
        (pole, "Acrobot-v1", r"actions Discrete\(2\); Acrobot-v1 gives \(6,\) and takes Discrete\(3\)"),
        (pole, "TwoRoom", r"TwoRoom gives .* with goals and takes Box"),
        (str(tmp_path / "drawn"), "Sprite", "holds no trained agent"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            record(id, replace(settings, policy=policy), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_recording_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record("Sprite", SMALL, tmp_path / "new" / "data", {"test": stop})
    assert not list(tmp_path.iterdir())


def test_the_oracle_plans_with_the_recorded_buttons_and_is_worth_filming(tmp_path: Path) -> None:
    """In miner, from levels' starts: who plans among four buttons finds more diamonds than chance."""
    settings = Recording(
        steps=240, test_steps=8, num_envs=8, distribution_mode="easy", width=16, train_levels=8, actions=(1, 3, 5, 7)
    )
    found = {}
    for policy in ("oracle", "random"):
        record("procgen:miner", replace(settings, policy=policy), tmp_path / policy)
        data = VideoDataset(tmp_path / policy, "train")
        starts = data.starts(1)
        found[policy] = data.read_label("rewards", starts, 1).sum()
        assert set(data.read_label("actions", starts, 1).flatten()) == {1, 3, 5, 7}
    assert found["oracle"] >= found["random"] + 4, found


@pytest.mark.parametrize("exploration", [0.0, 0.4, 1.0])
def test_an_agent_may_stray_so_that_the_video_shows_more_than_what_it_would_do(
    exploration: float, tmp_path: Path
) -> None:
    """To buttons that it does not have itself, as often as was asked for."""
    settings = Recording(
        steps=1_600, test_steps=16, num_envs=16, action_repeat=3, distribution_mode="easy", width=16, hold=2,
        policy=str(pretrained("fruitbot")), exploration=exploration, actions=(11, 12),
    )  # fmt: skip
    record("procgen:fruitbot", settings, tmp_path / "data")
    data = VideoDataset(tmp_path / "data", "train")
    actions = data.read_label("actions", data.starts(1), 1)
    assert np.isin(actions, [11, 12]).mean() == pytest.approx(exploration, abs=0.05)
    assert (actions == 11).mean() == pytest.approx(exploration / 2, abs=0.05)


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        ("procgen:maze", {"exploration": 1.5}, "exploration is 1.5, expected a chance from 0 to 1"),
        ("procgen:maze", {"exploration": 0.5}, "exploration is 0.5 and policy sticky, which plays at random anyway"),
        ("Sprite", {"policy": "expert", "exploration": 0.5, "actions": (9,)}, "actions are .9,.; Sprite has 0 to 4"),
        ("TwoRoom", {"policy": "expert", "exploration": 0.5}, "TwoRoom has no discrete actions to draw from"),
    ],
)
def test_exploration_that_cannot_be_is_refused(env: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        record(env, replace(SMALL, **changes), tmp_path / "data")


def test_areas_are_averaged() -> None:
    frames = np.random.default_rng(0).integers(256, size=(5, 8, 8, 3)).astype(np.uint8)
    mean = frames.reshape(5, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(resize(frames, 4, 4) - mean).max() <= 0.5
    assert resize(frames, 8, 8) is frames


def test_bad_input_gets_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        record("procgen:maze", SMALL, tmp_path)
    with pytest.raises(ValueError, match="steps is 0"):
        record("procgen:maze", Recording(steps=0), tmp_path / "new")
    with pytest.raises(ValueError, match=r"actions are \(15,\); procgen:maze has 0 to 14"):
        record("procgen:maze", Recording(actions=(15,)), tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="no complete data set"):
        VideoDataset(tmp_path / "nowhere", "train")


@pytest.mark.parametrize("name", ["frames-0000.npy", "clips-0000.npy", "labels/actions-0000.npy"])
def test_damaged_data_is_named(tmp_path: Path, name: str) -> None:
    writer = VideoWriter(tmp_path, "train")
    writer.write(Clip(np.zeros((4, 8, 8, 3), np.uint8)))
    writer.flush()
    write_about(tmp_path, {})
    path = tmp_path / "train" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{Path(name).name} is damaged"):
        VideoDataset(tmp_path, "train")
    np.save(path.open("wb"), np.array(["code"], object), allow_pickle=True)
    with pytest.raises(ValueError, match="is damaged"):
        VideoDataset(tmp_path, "train")
    if "frames" not in name:
        path.unlink()
        with pytest.raises(ValueError, match="is missing"):
            VideoDataset(tmp_path, "train")
