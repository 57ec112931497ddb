"""A whole world is learned from the video of a sprite: its actions are found, and a control that cannot be learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.genie_evaluation import Card, Examination, examine_world
from forethought.agent.genie_training import GenieTrainer, GenieTraining, Updates, keep_prompts
from forethought.envs.genie import GenieVectorEnv
from forethought.modules.genie.dynamics import DynamicsConfig
from forethought.modules.genie.files import load_world
from forethought.modules.genie.latent_action import LatentActionConfig
from forethought.modules.genie.tokenizer import TokenizerConfig
from forethought.modules.genie.video import VideoDataset
from forethought.modules.genie.world import GenieConfig

from .sprites import MOVES, find, write

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
    assert control.agreement["matching"] < 0.95
    assert control.delta[3].low < 2
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
