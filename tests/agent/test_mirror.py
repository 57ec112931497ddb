"""Windows in a mirror: pictures and buttons turn together, and what was never done can be learned from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.config import EnvConfig, Symmetry
from forethought.agent.mirror import Mirror, at_random, mirrored, mirrors
from forethought.agent.run import prepare, train
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.envs.procgen import ACTION_MEANINGS
from forethought.envs.sprite import MOVES, SIDE, SPRITE, draw
from forethought.modules.memory import Window
from forethought.modules.perception import PerceptionConfig
from forethought.modules.types import State

from .small import settings, tiny


def a_window() -> Window:
    """3 windows of 2 transitions of pictures of 2 × 4, history 2, and 3 actions: LEFT, NOOP, RIGHT."""
    numbers = torch.arange(3 * 3 * 2 * 2 * 4 * 3, dtype=torch.int64) % 251
    steps, seen = (3, 2), (3, 3)
    return Window(
        observation=numbers.to(torch.uint8).reshape(3, 3, 2, 2, 4, 3),
        action=torch.tensor([[0, 1], [2, 0], [2, 2]]),
        reward=torch.rand(steps), terminated=torch.zeros(steps), truncated=torch.zeros(steps),
        valid=torch.ones(steps), known=torch.ones(steps),
        plan=torch.rand(*seen, 3), course=torch.tensor([[0, 2, 1], [0, 0, 2], [1, 2, 2]]), planned=torch.ones(seen),
        past=torch.arange(3 * 2 * 4 * 3).to(torch.uint8).reshape(3, 1, 1, 2, 4, 3),
    )  # fmt: skip


SIDEWAYS = Mirror(-2, torch.tensor([2, 1, 0]))


# ---- what turns


def test_pictures_and_all_that_names_an_action_turn_where_it_is_chosen_and_nothing_else_does() -> None:
    window = a_window()
    turned = mirrored(window, SIDEWAYS, torch.tensor([True, False, True]))
    for name in ("observation", "action", "plan", "course", "past"):
        before, after = getattr(window, name), getattr(turned, name)
        assert torch.equal(after[1], before[1]) and not torch.equal(after[0], before[0]), name
    assert torch.equal(turned.observation[0], window.observation[0].flip(3))  # [T+1, history, H, W, C]
    assert turned.past is not None and window.past is not None
    assert torch.equal(turned.past[2], window.past[2].flip(3))
    assert turned.action.tolist() == [[2, 1], [2, 0], [0, 0]]
    assert turned.course.tolist() == [[2, 0, 1], [0, 0, 2], [1, 0, 0]]
    assert torch.equal(turned.plan[0, :, 0], window.plan[0, :, 2])
    for name in ("reward", "terminated", "truncated", "valid", "known", "planned"):
        assert getattr(turned, name) is getattr(window, name), name


def test_up_and_down_turn_along_the_other_axis() -> None:
    turned = mirrored(a_window(), Mirror(-3, torch.arange(3)), torch.ones(3, dtype=torch.bool))
    assert torch.equal(turned.observation, a_window().observation.flip(3))  # [B, T+1, history, H, W, C]


@pytest.mark.parametrize("mirror", [SIDEWAYS, Mirror(-3, torch.tensor([0, 1, 2]))])
def test_twice_in_a_mirror_is_as_before(mirror: Mirror) -> None:
    window, all_of_it = a_window(), torch.ones(3, dtype=torch.bool)
    again = mirrored(mirrored(window, mirror, all_of_it), mirror, all_of_it)
    for name in ("observation", "action", "plan", "course", "past"):
        assert torch.equal(getattr(again, name), getattr(window, name)), name


def test_half_of_the_windows_turn_and_the_same_generator_turns_the_same() -> None:
    window = a_window()
    draws = np.random.default_rng(0)
    turned = [not torch.equal(at_random(window, (SIDEWAYS,), draws).action[0], window.action[0]) for _ in range(400)]
    assert 150 < sum(turned) < 250
    one, other = (at_random(window, (SIDEWAYS,), np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one.observation, other.observation)


def test_latents_at_rest_are_of_what_was_seen_and_stay() -> None:
    window = replace(a_window(), latent=torch.zeros(3, 3, 4))
    assert at_random(window, (SIDEWAYS,), np.random.default_rng(0)) is window


# ---- which mirrors a world has


@pytest.mark.parametrize(
    ("symmetry", "pairs"),
    [
        ("horizontal", [("LEFT-DOWN", "RIGHT-DOWN"), ("LEFT", "RIGHT"), ("LEFT-UP", "RIGHT-UP"), ("UP", "UP")]),
        ("vertical", [("LEFT-DOWN", "LEFT-UP"), ("DOWN", "UP"), ("RIGHT-UP", "RIGHT-DOWN"), ("NOOP", "NOOP")]),
    ],
)
def test_buttons_of_procgen_turn_by_their_names(symmetry: Symmetry, pairs: list[tuple[str, str]]) -> None:
    env = build_env(EnvConfig("procgen:bigfish"), 1, seed=0, held_out=False)
    (mirror,) = mirrors(symmetry, env)
    for one, other in pairs:
        assert mirror.action[ACTION_MEANINGS.index(one)] == ACTION_MEANINGS.index(other)
        assert mirror.action[ACTION_MEANINGS.index(other)] == ACTION_MEANINGS.index(one)
    assert mirror.action[9:].tolist() == list(range(9, 15))
    assert len(mirrors("both", env)) == 2 and mirrors("none", env) == ()


def test_some_buttons_are_numbered_as_the_agent_knows_them() -> None:
    env = build_env(EnvConfig("procgen:fruitbot", actions=(0, 4, 6, 9)), 1, seed=0, held_out=False)
    (mirror,) = mirrors("horizontal", env)
    assert mirror.action.tolist() == [2, 1, 0, 3]
    with pytest.raises(ValueError, match="vertical: LEFT-DOWN looks like LEFT-UP there, which is none of the actions"):
        mirrors("vertical", env)


@pytest.mark.parametrize("id", ["TwoRoom", "CartPole-v1"])
def test_where_actions_have_no_names_or_nothing_is_seen_there_is_no_mirror(id: str, tmp_path: Path) -> None:
    config = tiny() if id == "CartPole-v1" else settings()
    config = replace(
        config, env=replace(config.env, id=id), model_loss=replace(config.model_loss, mirror="horizontal"),
        perception=config.perception if id == "CartPole-v1" else PerceptionConfig("cnn", latent=8, width=4),
    )  # fmt: skip
    with pytest.raises(ValueError, match="only pictures can be mirrored, and only actions with names"):
        train(config, tmp_path / "run", lambda *_: None)
    assert not (tmp_path / "run").exists()


# ---- what is learned in it

LEFT = 1


def taken_for(symmetry: Symmetry) -> float:
    """Share of the places of Sprite from which a world model foresees rightly where LEFT leads, after play in which it
    was never chosen."""
    config = settings()
    config = replace(
        config, env=replace(config.env, id="Sprite"), perception=PerceptionConfig("cnn", latent=16, width=8),
        model_loss=replace(
            config.model_loss, mirror=symmetry, reward=0.0, ending=0.0, inverse=1.0, regulariser_weight=0.1,
            learning_rate=2e-3,
        ),
    )  # fmt: skip
    agent, env = prepare(config)
    trainer, draws = Trainer(agent, env, lambda *_: None), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    for _ in range(100):
        action = draws.choice([0, 2, 3, 4], size=env.num_envs)
        following, *felt, _ = env.step(action)
        trainer.memory.write(observation, action, *felt)
        observation = following
    trainer.learn_model(0, 250)
    sides = np.arange(0, SIDE - SPRITE + 1, SPRITE)
    places = np.stack(np.meshgrid(sides, sides, indexing="ij"), -1).reshape(-1, 2)
    reached = (places + MOVES[LEFT]).clip(0, SIDE - SPRITE)
    with torch.no_grad():
        seen = agent.modules.perception(torch.from_numpy(draw(places)).unsqueeze(1))
        foreseen = agent.modules.world_model.predict(State(seen), torch.full((len(places),), LEFT)).latent
    nearest = places[torch.cdist(foreseen, seen).argmin(1).numpy()]
    return float((nearest == reached).all(1).mean())


def test_what_was_only_done_to_the_right_is_foreseen_to_the_left() -> None:
    assert taken_for("horizontal") > 0.8
    assert taken_for("none") < 0.5
