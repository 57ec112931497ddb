"""Trainings that begin with the networks of another one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forethought.agent.checkpoint import adopt, load_agent
from forethought.agent.config import RunConfig
from forethought.agent.run import prepare, train
from forethought.agent.training import Trainer

from .small import fingerprint, fingerprints, settings, tiny
from .test_checkpoint import ignore, interrupt_at, progress


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    train(tiny(), folder, ignore)
    return folder


def nothing_learned(seed: int = 1) -> RunConfig:
    schedule = replace(tiny().schedule, rounds=0, prefill_updates=0, predictor_updates=0, final_behaviour_updates=0)
    return replace(tiny(seed), schedule=schedule)


def test_the_networks_are_those_of_the_other_run(before: Path, tmp_path: Path) -> None:
    same = train(nothing_learned(), tmp_path / "from", ignore, origin=before)
    assert fingerprints(same) == fingerprints(load_agent(before)) == fingerprints(load_agent(tmp_path / "from"))
    assert fingerprints(train(nothing_learned(), tmp_path / "anew", ignore)) != fingerprints(same)


def test_inputs_are_not_measured_again(before: Path, tmp_path: Path) -> None:
    same = train(nothing_learned(), tmp_path, ignore, origin=before).modules.perception
    known = load_agent(before).modules.perception
    assert torch.equal(same.mean, known.mean) and torch.equal(same.scale, known.scale)
    assert known.mean.any() and not torch.allclose(known.scale, torch.ones(()))


def test_slow_copies_begin_as_what_they_follow(before: Path) -> None:
    config = replace(tiny(1), model_loss=replace(tiny().model_loss, regulariser="ema"))
    agent, env = prepare(config)
    adopt(agent, before)
    targets = Trainer(agent, env, ignore).learner.targets()
    env.close()
    networks = load_agent(before).networks()
    assert len(targets) == 2
    assert fingerprint(targets["target"]) == fingerprint(networks["critic"])
    assert fingerprint(targets["target_perception"]) == fingerprint(networks["perception"])


def test_decisions_count_on(before: Path, tmp_path: Path) -> None:
    train(tiny(1), tmp_path, ignore, origin=before)
    assert progress(before)["decisions"] == 220 and progress(tmp_path)["decisions"] == 440
    (other := tmp_path / "unknown").mkdir()
    for name in ("config.json", "weights.safetensors"):
        shutil.copy(before / name, other)
    agent, env = prepare(tiny(1))
    env.close()
    assert adopt(agent, other) == 0


@pytest.mark.parametrize(("phase", "times"), [("collect", 1), ("world model", 2), ("behaviour", 2)])
def test_it_resumes_without_the_other_run(before: Path, phase: str, times: int, tmp_path: Path) -> None:
    config = tiny(1)
    whole = train(config, tmp_path / "whole", ignore, origin=before)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "half", interrupt_at(phase, times), origin=before)
    resumed = train(config, tmp_path / "half", ignore, resume=True)
    assert fingerprints(resumed) == fingerprints(whole)
    assert progress(tmp_path / "half") == progress(tmp_path / "whole")


def other(**changes: Any) -> RunConfig:
    return replace(tiny(), **changes)


REFUSED = {
    "networks": (other(actor=replace(tiny().actor, hidden=7)), r"was trained with actor {'hidden': \d+} and not {'hid"),
    "a predictor": (other(world_model=replace(tiny().world_model, predictor="gru")), "with world_model {'predictor'"),
    "a world": (other(env=replace(tiny().env, id="CartPole-v1")), "env {'id': 'ForethoughtSeek-v0'} and not {'id': 'C"),
    "a repeat": (other(env=replace(tiny().env, action_repeat=2)), "env {'action_repeat': 1} and not"),
}


@pytest.mark.parametrize(("config", "told"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_not_fit_is_refused(before: Path, config: RunConfig, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        train(config, tmp_path / "new", ignore, origin=before)
    assert not (tmp_path / "new").exists()


def test_other_settings_may_change(before: Path, tmp_path: Path) -> None:
    config = settings(5)
    config = replace(tiny(), task=replace(config.task, discount=0.5), env=replace(tiny().env, num_envs=6), seed=9)
    assert progress(before)["finished"]
    train(config, tmp_path, ignore, origin=before)
    assert load_agent(tmp_path).config.task.discount == 0.5


def test_a_folder_without_an_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no trained agent"):
        train(tiny(), tmp_path / "new", ignore, origin=tmp_path)
