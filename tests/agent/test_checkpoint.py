"""Saving, loading, interrupting and going on; and refusing whatever was damaged or belongs elsewhere."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import checkpoint
from forethought.agent.agent import Agent, pick_device
from forethought.agent.checkpoint import (
    check_same_world,
    from_json,
    load_agent,
    save_agent,
    to_json,
)
from forethought.agent.config import Regulariser, RunConfig, Saving
from forethought.agent.faults import StopRequest
from forethought.agent.keeper import Keeper
from forethought.agent.presets import preset
from forethought.agent.run import build_env, prepare, train
from forethought.agent.spaces import Spaces
from forethought.agent.storage import read_tensors, save_tensors, write_atomically
from forethought.agent.training import Trainer
from forethought.modules import storage
from forethought.modules.configurator import Thinking
from forethought.modules.types import Mode
from forethought.modules.world_model import PredictorName
from gymnasium import spaces

from .small import PREDICTORS, SEEK, fingerprint, fingerprints, tiny, wake

Report = Callable[[str, int, int, Any], None]


def ignore(*_: Any) -> None:
    """A report that nobody reads."""


def interrupt_at(phase: str, times: int, kind: type[BaseException] = KeyboardInterrupt) -> Report:
    """A report that interrupts when this phase is told of for the so-many-th time."""
    seen = 0

    def report(name: str, *_: Any) -> None:
        nonlocal seen
        seen += name == phase
        if name == phase and seen == times:
            raise kind("stop")

    return report


def progress(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "progress.json").read_text())  # type: ignore[no-any-return]


def interrupted(folder: Path, phase: str = "world model", times: int = 3) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), folder, interrupt_at(phase, times))


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    interrupted(folder)
    return folder


@pytest.fixture
def half(broken_off: Path, tmp_path: Path) -> Path:
    """A copy of a run that was interrupted, to do harm to."""
    return Path(shutil.copytree(broken_off, tmp_path / "half"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_agent(wake(Agent(tiny(), SEEK)), tmp_path / "saved")
    return tmp_path / "saved"


# ---- interrupting and going on

# what had happened when it was interrupted: finished rounds, world-model updates, decisions
MOMENTS = [
    pytest.param("collect", 1, False, 0, 0, 100, id="prefill"),
    pytest.param("world model", 3, True, 0, 3, 100, id="first updates"),
    pytest.param("collect", 3, True, 1, 10, 220, id="second round collects"),
    pytest.param("world model", 12, True, 1, 12, 220, id="second round's model"),
    pytest.param("behaviour", 6, True, 1, 14, 220, id="second round's behaviour"),
    pytest.param("predictor", 2, True, 2, 14, 220, id="predictor alone"),
    pytest.param("behaviour", 10, True, 2, 14, 220, id="final updates"),
]


@pytest.mark.parametrize(("phase", "times", "filled", "rounds", "updates", "decisions"), MOMENTS)
def test_an_interrupted_run_is_saved_and_can_be_finished(
    phase: str, times: int, filled: bool, rounds: int, updates: int, decisions: int, tmp_path: Path
) -> None:
    interrupted(tmp_path, phase, times)
    tuned = {"predictor": 2, "behaviour": 3}.get(phase, 0) if rounds == 2 else 0
    expected = {"finished": False, "filled": filled, "rounds": rounds, "tuned": tuned}
    found = progress(tmp_path)
    assert found == found | expected | {"updates": updates, "decisions": decisions}
    assert not list(tmp_path.rglob("*.part*"))
    told: list[str] = []
    agent = train(tiny(), tmp_path, lambda name, *_: told.append(name), resume=True)
    done = progress(tmp_path)
    assert {key: done[key] for key in ("finished", "filled", "rounds", "tuned", "behaved")} == {
        "finished": True, "filled": True, "rounds": 2, "tuned": 3, "behaved": 5,
    }  # fmt: skip
    assert done["updates"] == 6 + 2 * 4 and done["decisions"] == 220 and done["resets"] == 3  # nothing is repeated
    assert told.count("round (mode-2)") == 2 - rounds - found["gathered"]  # what was told is not told again
    assert fingerprints(load_agent(tmp_path)) == fingerprints(agent)
    assert sorted(os.listdir(tmp_path)) == [
        ".lock", "best", "config.json", "progress.json", "provenance.json", "timing.json", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("predictor", "members", "regulariser"),
    [("mlp", 1, "sigreg"), ("mlp", 3, "ema"), ("gru", 1, "vicreg"), ("transformer", 2, "none")],
)
def test_a_run_goes_on_with_the_weights_averages_and_memory_it_had(
    predictor: PredictorName, members: int, regulariser: Regulariser, tmp_path: Path
) -> None:
    config = tiny()
    config = replace(
        config,
        world_model=replace(config.world_model, predictor=predictor, members=members),
        model_loss=replace(config.model_loss, regulariser=regulariser),
    )
    agent, env = prepare(config)
    first = Trainer(agent, env, interrupt_at("behaviour", 6))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    Keeper(first, tmp_path, StopRequest(), {}).save()
    other, _ = prepare(config)
    second = Trainer(other, env, ignore)
    assert fingerprints(other) != fingerprints(agent)
    fresh = {name: fingerprint(slow) for name, slow in second.learner.targets().items()}
    Keeper(second, tmp_path, StopRequest(), {}).resume()
    assert fingerprints(other) == fingerprints(agent)
    assert len(first.learner.targets()) == 1 + (regulariser == "ema")
    for name, slow in first.learner.targets().items():
        assert fresh[name] != fingerprint(second.learner.targets()[name]) == fingerprint(slow)
    assert second.progress() == first.progress() and second.learner.done == first.learner.done == 14
    assert (second.memory.cursor, second.memory.filled) == (first.memory.cursor, first.memory.filled)
    for name, array in first.memory.data.items():
        assert np.array_equal(array, second.memory.data[name]), name
    assert list(first.learner.optimisers()) == ["model", "critic", "actor"]
    for name in first.learner.optimisers():
        one, two = (trainer.learner.optimisers()[name].state_dict()["state"] for trainer in (first, second))
        assert one.keys() == two.keys() and len(one) > 0
        for index, part in one.items():
            assert all(torch.equal(value, two[index][key]) for key, value in part.items())
    windows = [trainer.memory.sample(8, 3, np.random.default_rng(0)) for trainer in (first, second)]
    for trainer, window in zip((first, second), windows, strict=True):
        trainer.learner.generator.manual_seed(7)
        trainer.learner.world_model_update(window)
    assert fingerprints(other) == fingerprints(agent)  # the next step is the same step
    env.close()


def test_a_run_that_overflowed_its_memory_goes_on(tmp_path: Path) -> None:
    config = replace(tiny(), schedule=replace(tiny().schedule, capacity=120))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, interrupt_at("world model", 12))
    train(config, tmp_path, ignore, resume=True)
    assert progress(tmp_path)["finished"]


@pytest.mark.parametrize("kind", [FloatingPointError, OSError])
def test_other_misfortunes_are_saved_too(kind: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(kind):
        train(tiny(), tmp_path, interrupt_at("world model", 3, kind))
    assert progress(tmp_path)["updates"] == 3
    train(tiny(), tmp_path, ignore, resume=True)


def test_an_interruption_while_going_on_is_saved_again(half: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), half, interrupt_at("world model", 2), resume=True)
    assert progress(half)["updates"] == 5
    train(tiny(), half, ignore, resume=True)
    assert progress(half)["updates"] == 14


def test_what_cannot_be_resumed_is_refused(half: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no interrupted run"):
        train(tiny(), tmp_path / "nothing", ignore, resume=True)
    for other in (tiny(seed=1), replace(tiny(), behaviour=replace(tiny().behaviour, learning_rate=0.1))):
        with pytest.raises(ValueError, match="other settings"):
            train(other, half, ignore, resume=True)
    train(tiny(), half, ignore, resume=True)
    with pytest.raises(ValueError, match="finished"):
        train(tiny(), half, ignore, resume=True)


# ---- saving and loading


@pytest.mark.parametrize(
    ("mode", "predictor", "members"), [("mode-1", "mlp", 1), *[("mode-2", *kind) for kind in PREDICTORS]]
)
def test_a_loaded_agent_decides_as_the_saved_one(
    mode: Mode, predictor: PredictorName, members: int, tmp_path: Path
) -> None:
    config = replace(tiny(), world_model=replace(tiny().world_model, predictor=predictor, members=members))
    agent = wake(Agent(config, SEEK))
    agent.modules.perception.normalise.running_mean += 0.3  # a buffer, too
    save_agent(agent, tmp_path)
    loaded = load_agent(tmp_path)
    assert loaded.config == agent.config and loaded.spaces == agent.spaces
    assert fingerprints(loaded) == fingerprints(agent)
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    on, off = np.ones(5, np.bool_), np.zeros(5, np.bool_)
    rows = []
    for one in (agent, loaded):
        one.generator.manual_seed(11)
        acting = one.begin(5, mode, sample=True)
        rows.append([acting.act(x[step], on if step == 0 else off, on) for step in range(4)])
    for a, b in zip(*rows, strict=True):
        assert np.array_equal(a.action, b.action) and np.array_equal(a.plan, b.plan)


@pytest.mark.parametrize(
    "action",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([3, 2]),
        spaces.Box(np.array([-2.0, 0.1], np.float32), np.array([2.0, 0.7], np.float32)),
    ],
    ids=["Discrete", "MultiDiscrete", "Box"],
)
def test_spaces_survive(action: Any, tmp_path: Path) -> None:
    seen = Spaces((3,), False, False, action)
    save_agent(Agent(tiny(), seen), tmp_path)
    loaded = load_agent(tmp_path)
    assert loaded.spaces == seen
    check_same_world(loaded, seen, "the same")


@pytest.mark.parametrize("id", ["procgen:fruitbot", "TwoRoom", "Pendulum-v1", "CartPole-v1"])
def test_every_preset_survives_json(id: str) -> None:
    config = preset(id)
    assert from_json(RunConfig, json.loads(json.dumps(to_json(config)))) == config


def test_a_torch_built_for_what_is_not_here_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def built_for_cuda(check_available: bool = False) -> torch.device | None:  # what PyPI has for Linux, and no driver
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built_for_cuda)
    assert pick_device("auto") == torch.device("cpu") == pick_device("cpu")
    with pytest.raises(ValueError, match="'cuda' was asked for and no such device is here; use auto or cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")


def test_settings_can_be_replaced_while_loading(saved: Path) -> None:
    assert load_agent(saved, threads=2).config.threads == 2
    with pytest.raises(ValueError, match="device"):
        load_agent(saved, device="mps")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trained agent"):
        load_agent(tmp_path)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(changed if isinstance(changed, list) else content))


BAD_SETTINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "unknown field": (lambda c: c["config"].update(colour=3), "colour"),
    "text for a number": (lambda c: c["config"].update(seed="0"), "config.seed"),
    "truth for a number": (lambda c: c["config"].update(seed=True), "config.seed"),
    "number for truth": (lambda c: c["config"]["task"].update(goals=1), "config.task.goals"),
    "a fraction of a step": (lambda c: c["config"]["model_loss"].update(steps=2.5), "config.model_loss.steps"),
    "no such choice": (lambda c: c["config"]["perception"].update(encoder="vit"), "config.perception.encoder"),
    "list for settings": (lambda c: c["config"].update(env=[]), "config.env"),
    "nothing for text": (lambda c: c["config"].update(device=None), "config.device"),
    "another format": (lambda c: c.update(format=2), "format 2"),
    "no format": (lambda c: c.pop("format"), "format None"),
    "no spaces": (lambda c: c.pop("spaces"), "damaged"),
    "no settings": (lambda c: c.pop("config"), "damaged"),
    "a list": (lambda c: [c], "damaged"),
    "no shape": (lambda c: c["spaces"].update(shape=[-2]), "shape"),
    "members without end": (lambda c: c["config"]["world_model"].update(members=10**9), "members"),
    "a width for no machine": (lambda c: c["config"]["world_model"].update(hidden=10**9), "does not fit"),
    "a width for no number": (lambda c: c["config"]["world_model"].update(hidden=10**30), "cannot be built"),
    "a negative width": (lambda c: c["config"]["world_model"].update(hidden=-4), "cannot be built"),
    "no such space": (lambda c: c["spaces"]["action"].update(kind="Tuple"), "unknown action space"),
    "shape of nothing": (lambda c: c["spaces"].update(shape=None), "damaged"),
    "other actions": (lambda c: c["spaces"]["action"].update(n=4), "does not fit"),
    "other observations": (lambda c: c["spaces"].update(shape=[3]), "does not fit"),
    "other width": (lambda c: c["config"]["perception"].update(latent=9), "does not fit"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_wrong_settings_are_refused_by_name(name: str, saved: Path) -> None:
    change, match = BAD_SETTINGS[name]
    edit(saved / "config.json", change)
    with pytest.raises(ValueError, match=match):
        load_agent(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff\xfe\x00", b"[]", b'{"format": 1}'])
def test_damaged_settings_are_refused(content: bytes, saved: Path) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_agent(saved)


def test_settings_that_came_later_get_their_defaults(saved: Path) -> None:
    config = load_agent(saved).config
    assert config.task.thinking.iterations != Thinking().iterations

    def forget(content: Any) -> None:
        content["config"]["task"]["thinking"].pop("iterations")
        content["config"].pop("saving")

    edit(saved / "config.json", forget)
    thinking = replace(config.task.thinking, iterations=Thinking().iterations)
    assert load_agent(saved).config == replace(config, task=replace(config.task, thinking=thinking), saving=Saving())


def test_formats_are_migrated_one_after_the_other(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(content: dict[str, Any]) -> dict[str, Any]:
        settings = dict(content["config"])
        return content | {"format": -1, "config": settings | {"seed": settings.pop("sed")}}

    edit(saved / "config.json", lambda c: c.update(format=-2) or c["config"].update(sed=c["config"].pop("seed") + 5))
    with pytest.raises(ValueError, match="format -2, this version reads 1"):
        load_agent(saved)
    steps = {-2: rename, -1: lambda c: c | {"format": 0}, 0: lambda c: c | {"format": 1}}
    monkeypatch.setattr(checkpoint, "MIGRATIONS", steps)
    assert load_agent(saved).config.seed == 5


def test_a_setting_that_only_numbers_can_be_reads_whole_numbers_as_well(saved: Path) -> None:
    edit(saved / "config.json", lambda c: c["config"]["task"].update(ending=2))
    assert load_agent(saved).config.task.ending == 2


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "header of no JSON": lambda content: content[:8] + b"X" + content[9:],
    "header too long": lambda content: b"\xff" * 8 + content[8:],
    "flipped weight": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "flipped type": lambda content: content.replace(b'"F32"', b'"F99"', 1),
    "flipped name": lambda content: content.replace(b"actor.net", b"actor.nft", 1),
    "pickle": lambda content: pickle.dumps({"a": 1}),
    "torch file": lambda content: b"PK\x03\x04" + content,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights_are_refused(name: str, saved: Path) -> None:
    path = saved / "weights.safetensors"
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        load_agent(saved)


def test_missing_weights_are_refused(saved: Path) -> None:
    (saved / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="not saved completely"):
        load_agent(saved)


# ---- the wrong world


@pytest.mark.parametrize(
    ("seen", "match"),
    [
        (replace(SEEK, shape=(3,)), "observations"),
        (replace(SEEK, shape=(64, 64, 3), pixels=True), "observations"),
        (replace(SEEK, pixels=True), "observations"),
        (replace(SEEK, action=spaces.Discrete(4)), "actions"),
        (replace(SEEK, action=spaces.MultiDiscrete([3])), "actions"),
        (replace(SEEK, action=spaces.Box(-1, 1, (3,), np.float32)), "actions"),
    ],
)
def test_another_world_is_refused(seen: Spaces, match: str) -> None:
    agent = Agent(tiny(), SEEK)
    check_same_world(agent, SEEK, "here")
    with pytest.raises(ValueError, match=rf"ForethoughtSeek-v0 for {match}.*there"):
        check_same_world(agent, seen, "there")


def test_a_world_without_goals_is_refused_by_an_agent_that_needs_them() -> None:
    config = replace(tiny(), task=replace(tiny().task, goals=True))
    with pytest.raises(ValueError, match="goal"):
        check_same_world(Agent(config, replace(SEEK, goals=True)), SEEK, "there")


# ---- a full disk


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_a_file(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])
    full()


def test_settings_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"config\.json.*No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize("failure", [full, half_a_file])
def test_weights_survive_a_full_disk(
    failure: Any, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = fingerprints(load_agent(saved))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_new", failure)
        with pytest.raises(OSError, match=r"weights\.safetensors.*space"):
            save_agent(wake(Agent(tiny(), SEEK), seed=1), saved)
    assert sorted(os.listdir(saved)) == ["config.json", "weights.safetensors"]
    assert fingerprints(load_agent(saved)) == before
    save_tensors(tmp_path / "t.safetensors", {"a": torch.arange(3)})
    assert torch.equal(read_tensors(tmp_path / "t.safetensors")["a"], torch.arange(3))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        train(tiny(), tmp_path / "file", ignore)


def test_the_training_world_is_built_from_the_saved_settings(saved: Path) -> None:
    agent = load_agent(saved)
    env = build_env(agent.config.env, 3, seed=0, held_out=True)
    assert env.num_envs == 3 and env.single_observation_space.shape == agent.spaces.shape
    env.close()
