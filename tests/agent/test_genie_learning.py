"""A whole world is learned from the video of a sprite: its actions are found, and a control that cannot be learned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.genie_evaluation import Card, Examination, examine_world
from forethought.agent.genie_metrics import best_matching, contingency
from forethought.agent.genie_settings import GenieTraining, Updates
from forethought.agent.genie_training import GenieTrainer, keep_prompts
from forethought.envs.genie import GenieVectorEnv
from forethought.modules.genie.dynamics import DynamicsConfig
from forethought.modules.genie.files import load_world
from forethought.modules.genie.latent_action import LatentActionConfig
from forethought.modules.genie.patches import to_unit
from forethought.modules.genie.tokenizer import TokenizerConfig
from forethought.modules.genie.video import Clip, VideoDataset, VideoWriter, write_about
from forethought.modules.genie.world import GenieConfig

from .sprites import MOVES, clips, find, write

CONFIG = GenieTraining(
    GenieConfig(
        16,
        16,
        4,
        TokenizerConfig(patch=4, width=32, encoder_blocks=1, decoder_blocks=1, levels=(4, 4)),
        LatentActionConfig(actions=5, patch=4, margin=4, width=32, blocks=1, code_dim=8),
        DynamicsConfig(width=48, blocks=2, steps=2, temperature=0.0),
    ),
    Updates(tokenizer=100, latent_action=500, dynamics=250, batch=32, frames=2, learning_rate=3e-3),
    device="cpu",
    threads=1,
)
QUICK = Examination(clips=48, prompt_frames=1, steps=6, starts=4, grid_steps=1)


def learn(data: Path, folder: Path, config: GenieTraining = CONFIG) -> Path:
    torch.set_num_threads(1)
    trainer = GenieTrainer(config, VideoDataset(data, "train"), folder, lambda *report: None)
    trainer.run({}, keep=True)
    keep_prompts(config, VideoDataset(data, "test"), folder)
    return folder


def examine(data: Path, folder: Path) -> Card:
    device = torch.device("cpu")
    return examine_world(load_world(folder, device), VideoDataset(data, "test"), QUICK, device)


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set, and the world that was learned from it."""
    folder = tmp_path_factory.mktemp("sprites")
    data = write(folder / "data")
    return data, learn(data, folder / "world")


@pytest.fixture(scope="module")
def card(sprites: tuple[Path, Path]) -> Card:
    return examine(*sprites)


def test_latent_actions_are_the_true_ones(card: Card) -> None:
    assert card.agreement is not None
    assert card.agreement["matching"] >= 0.95
    assert card.agreement["nmi"] >= 0.85
    assert card.agreement["dictionary"] >= 0.95 > 2 * card.agreement["commonest"]
    assert card.usage[0] == 1 and card.usage[1] > 4.5
    assert card.shuffle_ratio > 5


def test_the_dream_follows_its_actions(card: Card) -> None:
    assert card.tokenizer[0].mean > 30 and card.tokenizer[1].mean > 0.95
    assert card.delta[3].low > 5
    for step in range(QUICK.steps):
        assert card.rollout[step].low > card.copied[step].high
        assert card.gain[step].low > 0
    assert card.rollout[-1].mean > 25
    assert card.entropy[1] > card.entropy[0] + 0.1


def test_each_code_moves_the_sprite_its_own_way_from_everywhere(card: Card) -> None:
    """Read from the picture grid: start frames by codes."""
    start, after = find(card.grid[:, :1]), find(card.grid[:, 1:])  # starts, codes, 2
    assert card.meanings is not None
    meant = MOVES[card.meanings.argmax(1)]
    goal = start + meant
    inside = ((goal >= 0) & (goal <= 12)).all(-1)
    assert (after == goal).all(-1)[inside].mean() >= 0.9
    assert inside.sum() >= 10


def test_a_copy_that_learned_from_shuffled_frames_fails(sprites: tuple[Path, Path], card: Card, tmp_path: Path) -> None:
    data = write(tmp_path / "data", shuffle=True)
    folder = tmp_path / "world"
    folder.mkdir()
    shutil.copy(sprites[1] / "tokenizer.safetensors", folder)  # still pictures are the same
    control = examine(sprites[0], learn(data, folder))  # on the true video
    assert control.agreement is not None
    assert control.agreement["matching"] < 0.9
    assert control.delta[3].high < 2
    assert control.rollout[3].high < card.rollout[3].low - 5


def test_the_environment_plays_the_learned_world(sprites: tuple[Path, Path]) -> None:
    env = GenieVectorEnv(sprites[1], 4, max_steps=3)
    frames, _ = env.reset(seed=0)
    before = find(frames)
    assert (np.abs(frames.astype(int).max((1, 2, 3)) - 250) < 40).all()  # there is a sprite
    ways = set()
    for code in range(5):
        env.reset(seed=0)
        after, *_ = env.step(np.full(4, code))
        ways |= {tuple(way) for way in (find(after) - before).tolist()}
    assert ways >= {tuple(move) for move in MOVES.tolist()}


# ---- a few labels


def crowded(folder: Path) -> Path:
    """The sprite, and another of another colour that goes its own way through the same pictures."""
    for split, count, seed in (("train", 500, 0), ("test", 100, 1)):
        writer = VideoWriter(folder, split)  # type: ignore[arg-type]
        mine, actions = clips(count, 8, seed)
        other, _ = clips(count, 8, seed + 100)
        for frames, beside, taken in zip(mine, other, actions, strict=True):
            writer.write(Clip(np.maximum(frames, np.roll(beside, 1, axis=-1)), np.append(taken, 0)))
        writer.flush()
    write_about(folder, {"data": "crowded", "actions": len(MOVES)})
    return folder


def test_a_few_labels_say_which_of_all_that_moves_is_the_agent(tmp_path: Path) -> None:
    """Two sprites move alike: codes are about either, until sixty-four steps of thousands have a label."""
    data = VideoDataset(crowded(tmp_path / "data"), "train")
    held_out = VideoDataset(tmp_path / "data", "test")
    starts = held_out.starts(2)
    frames = to_unit(torch.from_numpy(held_out.read(starts, 2)))
    truth = held_out.read_label("actions", starts, 2)[:, 0]
    told = {}
    for labels in (0, 64):
        world = replace(CONFIG.world, latent_action=replace(CONFIG.world.latent_action, labelled_actions=len(MOVES)))
        config = replace(CONFIG, world=world, updates=replace(CONFIG.updates, labels=labels, latent_action=300))
        torch.set_num_threads(1)
        trainer = GenieTrainer(config, data, tmp_path / f"{labels}", lambda *report: None)
        trainer.learn_latent_actions()
        with torch.no_grad():
            codes = trainer.world.latent_action.encode(frames)[:, 0].numpy()
        told[labels] = best_matching(contingency(codes, truth))
    assert told[64] > 0.8, told
    assert told[0] < 0.75, told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labelled_actions": 4},
            "labelled_actions 4 and the data has 5 actions; set world.latent_action.labelled_actions to 5",
        ),
        ({"labels": -1}, "updates.labels is -1, expected at least 0"),
    ],
)
def test_labels_that_could_not_be_told_are_refused(
    sprites: tuple[Path, Path], tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    action = replace(CONFIG.world.latent_action, labelled_actions=changes.get("labelled_actions", 5))
    updates = replace(CONFIG.updates, labels=changes.get("labels", 8))
    config = replace(CONFIG, world=replace(CONFIG.world, latent_action=action), updates=updates)
    with pytest.raises(ValueError, match=message):
        GenieTrainer(config, VideoDataset(sprites[0], "train"), tmp_path, lambda *report: None)


def test_video_alone_has_no_labels_to_tell(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "data", "train")
    for frames in clips(8, 8, 0)[0]:
        writer.write(Clip(frames))
    writer.flush()
    write_about(tmp_path / "data", {"data": "silent"})
    config = replace(CONFIG, updates=replace(CONFIG.updates, labels=8))
    with pytest.raises(ValueError, match=r"updates\.labels needs data with true actions"):
        GenieTrainer(config, VideoDataset(tmp_path / "data", "train"), tmp_path, lambda *report: None)
    model = GenieTrainer(
        CONFIG, VideoDataset(tmp_path / "data", "train"), tmp_path, lambda *r: None
    ).world.latent_action
    with pytest.raises(ValueError, match=r"latent_action\.labelled_actions is 0"):
        model.naming_loss(torch.zeros(2, 2, 16, 16, 3), torch.zeros(2, dtype=torch.long))
