"""Training loops of Genie worlds: the same seed gives the same world, and rewards and endings are learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.genie_settings import GenieTraining, Updates
from forethought.agent.genie_training import GenieTrainer, anneal
from forethought.agent.genie_windows import drawn_weights, step_weights, thin
from forethought.modules.genie.transformer import Block
from forethought.modules.genie.video import Clip, VideoDataset, VideoWriter, write_about

from ..modules.genie.small import ACTIONS, CONFIG, CONTEXT, SIDE, make

TINY = GenieTraining(
    CONFIG, Updates(tokenizer=3, latent_action=4, dynamics=3, batch=4, frames=3), device="cpu", threads=1
)


def noise(folder: Path, clips: int = 60, labels: bool = True) -> VideoDataset:
    draws = np.random.default_rng(0)
    writer = VideoWriter(folder, "train")
    for _ in range(clips):
        frames = draws.integers(256, size=(CONTEXT, SIDE, SIDE, 3)).astype(np.uint8)
        actions = draws.integers(ACTIONS, size=CONTEXT)
        writer.write(Clip(frames, actions if labels else None, np.zeros(CONTEXT, np.float32) if labels else None))
    writer.flush()
    write_about(folder, {})
    return VideoDataset(folder, "train")


def trainer(data: VideoDataset, folder: Path, config: GenieTraining = TINY) -> tuple[GenieTrainer, list[str]]:
    phases: list[str] = []

    def report(phase: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        if done == total:
            phases.append(phase)

    return GenieTrainer(config, data, folder, report), phases


def test_the_same_seed_gives_the_same_world(tmp_path: Path) -> None:
    data = noise(tmp_path / "data", 12)
    worlds = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        one, phases = trainer(data, tmp_path / name, replace(TINY, seed=seed))
        worlds.append(one.run({}).state_dict())
        assert phases == ["tokenizer", "latent actions", "tokens", "dynamics"]
    assert all(torch.equal(worlds[0][key], worlds[1][key]) for key in worlds[0])
    assert not all(torch.equal(worlds[0][key], worlds[2][key]) for key in worlds[0])


def test_blocks_are_compiled_while_they_learn_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = noise(tmp_path / "data", 12), []

    def compile(block: Block, dynamic: bool) -> None:
        seen.append(block)
        block._compiled_call_impl = block.forward  # type: ignore[assignment]

    monkeypatch.setattr(Block, "compile", compile)
    plain, _ = trainer(data, tmp_path / "plain")
    worlds = [plain.run({})]
    assert not seen
    one, _ = trainer(data, tmp_path / "compiled", replace(TINY, compile=True))
    worlds.append(one.run({}))
    blocks = [block for block in worlds[1].modules() if isinstance(block, Block)]
    assert {id(block) for block in blocks} == {id(block) for block in seen} and len(seen) == len(blocks)
    assert all(block._compiled_call_impl is None for block in blocks)  # each only while its own part learns
    first, second = (world.state_dict() for world in worlds)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_each_phase_moves_its_own_part_only(tmp_path: Path) -> None:
    one, _ = trainer(
        noise(tmp_path / "data", 12), tmp_path / "world", replace(TINY, updates=replace(TINY.updates, outcomes=2))
    )
    parts = {"tokenizer": one.learn_tokenizer, "latent_action": one.learn_latent_actions,
             "dynamics": one.learn_dynamics, "outcomes": one.learn_outcomes}  # fmt: skip
    for name, learn in parts.items():
        before = {key: value.clone() for key, value in one.world.state_dict().items()}
        learn()
        moved = {
            key.split(".")[0] for key, value in one.world.state_dict().items() if not torch.equal(value, before[key])
        }
        assert moved == {name}


def test_rewards_and_endings_are_learned_from_labels(tmp_path: Path) -> None:
    """Latent action 1 is rewarded and latent action 2 ends the episode."""
    updates = replace(TINY.updates, outcomes=250, batch=32, learning_rate=1e-2)
    one, _ = trainer(noise(tmp_path / "data"), tmp_path / "world", replace(TINY, updates=updates))
    one.world.load_state_dict(make().state_dict())
    codes = torch.from_numpy(one.data.read_label("actions", one.cached.starts, CONTEXT - 1))
    one.cached = replace(one.cached, actions=codes)  # an untrained model names few of them
    labels = one.data.labels
    for chunk, actions in enumerate(labels["actions"]):
        labels["rewards"][chunk][:], labels["ended"][chunk][:] = 3.0 * (actions == 1), actions == 2
    one.learn_outcomes()
    with torch.no_grad():
        _, dream = one.world.begin(one.cached.tokens, codes)
        judged = [one.world.outcomes.judge(dream.patches, torch.full((len(codes),), a)) for a in range(ACTIONS)]
    for action, (reward, ending) in enumerate(judged):
        assert abs(float(reward.mean()) - 3.0 * (action == 1)) < 0.5
        assert abs(float(ending.mean()) - (action == 2)) < 0.2


def test_rare_rewards_are_believed_in_as_often_as_they_come(tmp_path: Path) -> None:
    """One window in sixteen has a reward, about which nothing tells: half a batch shows one, the mean must not."""
    updates = replace(TINY.updates, outcomes=200, batch=32, learning_rate=1e-2)
    one, _ = trainer(noise(tmp_path / "data", 200), tmp_path / "world", replace(TINY, updates=updates))
    one.world.load_state_dict(make().state_dict())
    told = one.told()
    rewards, known = torch.zeros_like(told.rewards), told.codes >= 0
    rewards[::16, 1] = 5.0
    true = float((rewards * known).sum() / known.sum())
    one.told = lambda: replace(told, rewards=rewards, ended=torch.zeros_like(told.ended))  # type: ignore[method-assign]
    one.learn_outcomes()
    with torch.no_grad():
        codes = told.codes.clamp(min=0)
        _, hidden = one.world.dynamics.predict(told.tokens, told.tokens[:, 1:], codes[:, :-1])
        foreseen, _ = one.world.outcomes.judge(hidden, codes)
    assert 0.5 * true < float(foreseen[known].mean()) < 2 * true
    event = torch.tensor([True, False, False, False])
    torch.testing.assert_close(drawn_weights(event, 3, 4), torch.tensor([4 / 13, 4.0, 4.0, 4.0]))
    torch.testing.assert_close(drawn_weights(event, 0, 4), torch.ones(4))


def test_what_a_button_does_where_nothing_was_seen_to_happen_is_told_by_what_was_meant(tmp_path: Path) -> None:
    """A quarter of the presses has no effect, which the latent action model names 0; one button brings a reward."""
    updates = replace(TINY.updates, outcomes=250, batch=32, learning_rate=1e-2)
    data = noise(tmp_path / "data")
    one, _ = trainer(data, tmp_path / "world", replace(TINY, updates=updates))
    truth = torch.from_numpy(data.read_label("actions", one.cached.starts, CONTEXT))
    seen = (truth[:, :-1] + 1) % ACTIONS
    seen[::4] = 0
    one.cached = replace(one.cached, actions=seen)
    told = one.told()
    assert torch.equal(told.meant, (truth + 1) % ACTIONS)
    without = replace(told, codes=torch.zeros_like(told.codes), rewards=3.0 * (told.meant == 2))
    one.told = lambda: replace(without, ended=torch.zeros_like(told.ended))  # type: ignore[method-assign]
    one.learn_outcomes()
    with torch.no_grad():
        _, hidden = one.world.dynamics.predict(told.tokens, told.tokens[:, 1:], told.codes.clamp(min=0)[:, :-1])
        rewards = [
            float(one.world.outcomes.judge(hidden, torch.full(told.codes.shape, code))[0].mean())
            for code in range(ACTIONS)
        ]
    assert abs(rewards[2] - 3.0) < 0.6 and max(abs(rewards[1]), abs(rewards[3])) < 0.6


def test_steps_count_once_however_many_windows_hold_them() -> None:
    starts = np.array([[0, 0], [0, 2], [1, 0]])  # windows of three steps; steps of two chunks
    known = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    weights = step_weights(starts, known)
    once = torch.tensor([[1, 1, 0.5], [0.5, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(weights, once * 8 / once.sum())


def test_the_last_step_of_an_episode_is_told_although_no_frame_follows(tmp_path: Path) -> None:
    """Its code is the one that its true action has elsewhere: here the next number."""
    data = noise(tmp_path / "data", 12)
    one, _ = trainer(data, tmp_path / "world")
    truth = torch.from_numpy(data.read_label("actions", one.cached.starts, CONTEXT - 1))
    one.cached = replace(one.cached, actions=(truth + 1) % ACTIONS)
    before = one.told()
    assert len(before.codes) == len(one.cached.starts) and (before.codes[:, -1] == -1).all()
    final = data.starts(CONTEXT)[[0, -1]]  # the first and the last window end an episode
    for chunk, place in final:
        data.labels["ended"][chunk][place + CONTEXT - 1] = True
        data.labels["rewards"][chunk][place + CONTEXT - 1] = 7.0
    told = one.told()
    last = torch.from_numpy(data.read_label("actions", final, CONTEXT)[:, -1])
    assert torch.equal(told.codes[-2:, -1], (last + 1) % ACTIONS)
    assert told.rewards[-2:, -1].tolist() == [7, 7] and told.ended[-2:, -1].tolist() == [1, 1]
    assert torch.equal(told.tokens[-2:], one.encode(final).tokens)


def test_outcomes_are_learned_from_the_clips_that_are_labelled(tmp_path: Path) -> None:
    """Most of the video says nothing of rewards and actions; of what does, as many clips are read as one asks for."""
    config = replace(TINY, updates=replace(TINY.updates, outcomes=2))
    data = noise(tmp_path / "data", 12)
    for chunk, clips in enumerate(data.clip_of(data.starts(1)).reshape(1, -1)):
        data.labels["rewards"][chunk][clips >= 4] = np.nan
        data.labels["actions"][chunk][clips >= 4] = -1
        data.labels["ended"][chunk][clips >= 4] = False
    one, _ = trainer(data, tmp_path / "world", config)
    told = one.told()
    assert set(data.clip_of(told.starts)) == {0, 1, 2, 3} and len(told.tokens) == len(told.starts) == 4
    assert not told.rewards.isnan().any() and (told.meant >= 0).any()
    few, _ = trainer(data, tmp_path / "world", replace(config, updates=replace(config.updates, told_clips=2)))
    chosen = set(data.clip_of(few.told().starts))
    assert len(chosen) == 2 and chosen < {0, 1, 2, 3}
    few.learn_outcomes()
    with pytest.raises(ValueError, match=r"updates\.told_clips is -1"):
        trainer(data, tmp_path / "world", replace(config, updates=replace(config.updates, told_clips=-1)))


def test_true_actions_can_take_the_place_of_latent_ones(tmp_path: Path) -> None:
    data = noise(tmp_path / "data", 12)
    one, _ = trainer(data, tmp_path / "world", replace(TINY, true_actions=True))
    assert torch.equal(one.cached.actions, torch.from_numpy(data.read_label("actions", one.cached.starts, CONTEXT - 1)))
    latent, _ = trainer(data, tmp_path / "world")
    assert not torch.equal(one.cached.actions, latent.cached.actions)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    bare = noise(tmp_path / "bare", 12, labels=False)
    with pytest.raises(ValueError, match="true_actions needs data with actions"):
        trainer(bare, tmp_path / "world", replace(TINY, true_actions=True))
    with pytest.raises(ValueError, match="the data has no rewards"):
        one, _ = trainer(bare, tmp_path / "world", replace(TINY, updates=replace(TINY.updates, outcomes=2)))
        one.learn_outcomes()
    with pytest.raises(ValueError, match=r"updates\.frames is 9"):
        trainer(bare, tmp_path / "world", replace(TINY, updates=replace(TINY.updates, frames=9)))
    with pytest.raises(ValueError, match=r"updates\.batch is 1 and updates\.frames 2, one step in all"):
        trainer(bare, tmp_path / "world", replace(TINY, updates=replace(TINY.updates, batch=1, frames=2)))
    one, _ = trainer(bare, tmp_path / "world")
    with torch.no_grad():
        one.world.tokenizer.to_pixels.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="loss of the tokenizer is nan at update 0"):
        one.learn_tokenizer()


def test_schedule_and_thinning() -> None:
    assert anneal(0) == 1 and anneal(1) == pytest.approx(0.05) and anneal(0.3) > anneal(0.6)
    starts = np.array([(0, 0), (0, 1), (0, 2), (0, 3), (0, 7), (0, 8), (1, 9), (1, 10)])
    assert thin(starts, 2).tolist() == [[0, 0], [0, 2], [0, 7], [1, 9]]
    assert thin(starts, 1).tolist() == starts.tolist()
