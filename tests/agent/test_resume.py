"""A run that was stopped anywhere and resumed is the run that was never stopped, bit for bit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.agent import keeper, resume, training
from forethought.agent.checkpoint import load_agent
from forethought.agent.config import RunConfig, Saving
from forethought.agent.presets import preset
from forethought.agent.run import prepare, train
from forethought.agent.training import Trainer
from forethought.modules.configurator import Thinking
from forethought.modules.memory import MemoryShape, ShortTermMemory
from numpy.typing import NDArray

from .small import fingerprints, tiny

pytestmark = pytest.mark.usefixtures("short_check_up")

SMALL_PIECE = 2_000  # bytes, so that even a tiny memory has several pieces


def ignore(*_: Any) -> None:
    """A report that nobody reads."""


class Stop(KeyboardInterrupt):
    """What a test stops a run with."""


def small(id: str) -> RunConfig:
    """A run of every phase in a world, as short as can be."""
    base, short = preset(id), tiny()
    schedule = replace(short.schedule, prefill=96, round_steps=24, mode_1_rounds=2, capacity=200)
    pixels = base.perception.encoder != "mlp"
    if id.startswith("procgen"):  # of a screen, with as many channels as there is room for
        base = replace(base, perception=replace(base.perception, latents="screen"))
        base = replace(base, world_model=replace(base.world_model, predictor="screen"))
    latent = 8 if base.perception.latents == "vector" else 64
    return replace(
        base,
        env=replace(base.env, num_envs=4, train_levels=20, train_steps=9 if id == "DotWall" else None),
        task=replace(base.task, thinking=Thinking(horizon=3, candidates=6, iterations=2, commit=2)),
        perception=replace(base.perception, latent=latent, width=8 if pixels else 4, history=2),
        world_model=replace(base.world_model, hidden=16),
        critic=replace(base.critic, hidden=16),
        actor=replace(base.actor, hidden=16),
        model_loss=replace(
            base.model_loss,
            steps=3,
            batch=4,
            targets=0,
            shift=2 if pixels else 0,
            colour=0.1 if id.startswith("procgen") else 0.0,
            mirror="horizontal" if id.startswith("procgen") else "none",
            prediction_delay=3,
            returns=0.5 * base.world_model.events,
        ),
        behaviour=replace(base.behaviour, batch=4, steps=3, courses=3, imagination=3, imitation=0.5, walk_steps=4),
        schedule=replace(schedule, reanalyse=2, rest=base.schedule.rest, prefill_behaviour=2, exploiting=0.5),
        saving=Saving(minutes=0, units=0, keep=2),
        device="cpu",
        threads=1,
    )


@dataclass
class Life:
    """A finished run: all that can be compared."""

    trainer: Trainer
    told: list[tuple[str, int, int, dict[str, float]]]

    def everything(self) -> dict[str, NDArray[Any]]:
        trainer = self.trainer
        tensors = {
            f"{name}.{key}": tensor
            for name, network in trainer.agent.networks().items()
            for key, tensor in network.state_dict().items()
        }
        tensors |= {f"learner.{key}": tensor for key, tensor in trainer.learner.state().items()}
        tensors |= {f"trainer.{key}": tensor for key, tensor in trainer.state().items()}
        arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        return arrays | {f"memory.{name}": array for name, array in trainer.memory.data.items()}


class Watch:
    """A report that remembers what it was told, over resumptions too."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int, dict[str, float]]] = []

    def __call__(self, phase: str, done: int, total: int, metrics: dict[str, float]) -> None:
        self.told.append((phase, done, total, dict(metrics)))

    def state(self) -> dict[str, Any]:
        return {"told": len(self.told)}

    def restore(self, state: dict[str, Any]) -> None:
        del self.told[state["told"] :]


def live(config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...] = ()) -> Life:
    """Train, stopping after these units of work and going on each time in a fresh trainer."""
    watch, lives = Watch(), []
    made = training.Trainer.__init__

    def remember(self: Trainer, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        lives.append(self)

    monkeypatch.setattr(training.Trainer, "__init__", remember)
    monkeypatch.setattr(resume, "PIECE", SMALL_PIECE)
    pause = keeper.Keeper.pause
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, stop in enumerate((*stops, None)):

            def maybe(self: keeper.Keeper, stop: int | None = stop) -> None:
                pause(self)
                if self.trainer.units == stop:
                    raise Stop

            monkeypatch.setattr(keeper.Keeper, "pause", maybe)
            torch.manual_seed(number)  # global generators do not matter
            np.random.seed(number)  # noqa: NPY002
            if stop is None:
                train(config, folder, watch, resume=number > 0)
            else:
                with pytest.raises(Stop):
                    train(config, folder, watch, resume=number > 0)
    monkeypatch.undo()
    return Life(lives[-1], watch.told)


def assert_same(one: Life, other: Life) -> None:
    first, second = one.everything(), other.everything()
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype and np.array_equal(array, second[name]), name
    assert [entry[:3] for entry in one.told] == [entry[:3] for entry in other.told]
    assert repr(one.told) == repr(other.told)


WORLDS = ["CartPole-v1", "TwoRoom", "procgen:coinrun"]


@pytest.mark.parametrize("id", WORLDS)
def test_stopping_anywhere_changes_nothing(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(id)
    whole = live(config, tmp_path / "whole", monkeypatch)
    units = whole.trainer.units
    draws = np.random.default_rng([2, WORLDS.index(id)])
    for attempt in range(3):
        stops = tuple(sorted(draws.choice(np.arange(1, units), size=2 + 2 * attempt, replace=False).tolist()))
        parts = live(config, tmp_path / str(attempt), monkeypatch, stops)
        assert_same(whole, parts)


@pytest.mark.parametrize("id", ["Pendulum-v1", "DotWall"])
def test_other_worlds_go_on_as_well(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Box actions, replayed; goals of episodes, restored; while collecting and while learning."""
    config = small(id)
    whole = live(config, tmp_path / "whole", monkeypatch)
    assert_same(whole, live(config, tmp_path / "parts", monkeypatch, (7, 28, 35, 53)))


@pytest.mark.parametrize("reset", [True, False])
def test_rounds_go_on_with_the_episodes_under_way_where_asked_for(
    reset: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("procgen:coinrun")
    config = replace(config, schedule=replace(config.schedule, round_reset=reset))
    whole = live(config, tmp_path / "whole", monkeypatch)
    trainer, data = whole.trainer, whole.trainer.memory.data
    assert trainer.resets == (3 if reset else 1)
    for begin in (24, 30):  # of the two rounds
        ended = (data["terminated"] | data["truncated"])[:, begin - 1]
        assert np.array_equal(data["age"][:, begin] == 0, ended)
        assert ended.all() == reset
    if not reset:
        stops = tuple(range(23, whole.trainer.units, 5))
        assert_same(whole, live(config, tmp_path / "parts", monkeypatch, stops))


def test_only_a_world_that_can_be_saved_goes_on_through_rounds() -> None:
    config = replace(tiny(), schedule=replace(tiny().schedule, round_reset=False))
    agent, env = prepare(config)
    with pytest.raises(ValueError, match=r"round_reset is off and the state of .* cannot be saved"):
        Trainer(agent, env, ignore)
    env.close()


def test_the_comparison_sees_what_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without the state of the random behaviour the resumed run is another one."""
    config = small("CartPole-v1")
    whole = live(config, tmp_path / "whole", monkeypatch)
    monkeypatch.setattr("forethought.agent.interaction.RandomBehaviour.restore", lambda self, state: None)
    parts = live(config, tmp_path / "parts", monkeypatch, (10,))
    with pytest.raises(AssertionError):
        assert_same(whole, parts)


def test_a_suspicion_of_collapse_is_remembered() -> None:
    agent, env = prepare(tiny())
    one, other = Trainer(agent, env, ignore), Trainer(agent, env, ignore)
    one.suspicion = "the latents ≈ one point"
    other.restore(one.state())
    assert other.suspicion == one.suspicion
    one.suspicion = None
    other.restore(one.state())
    assert other.suspicion is None
    env.close()


class Moody(gymnasium.Env[NDArray[np.float32], int]):
    """A world that no seed decides."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.draws = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return self.draws.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        return self.draws.uniform(-1, 1, 2).astype(np.float32), 1.0, False, False, {}


def test_a_world_that_cannot_be_brought_back_begins_new_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        gymnasium.registry, "Moody-v0", gymnasium.envs.registration.EnvSpec("Moody-v0", entry_point=Moody)
    )
    config = replace(tiny(), env=replace(tiny().env, id="Moody-v0"))
    broken_at = 10
    stop_after(config, tmp_path, broken_at, monkeypatch)
    with pytest.warns(UserWarning, match="Moody-v0 did not come back"):
        again = stop_after(config, tmp_path, 20, monkeypatch, resume=True)
    cut = again.memory.data["truncated"][:, :20]
    assert cut[:, broken_at - 1].all() and cut.sum() == 4  # what follows is not joined to what was before
    with pytest.warns(UserWarning, match="did not come back"):
        train(config, tmp_path, ignore, resume=True)
    assert json.loads((tmp_path / "progress.json").read_text())["decisions"] == 220


# ---- checkpoints


def stop_after(
    config: RunConfig, folder: Path, units: int, monkeypatch: pytest.MonkeyPatch, resume: bool = False
) -> Trainer:
    """Train until so many units of work are done; returns the trainer as it was left."""
    left: list[Trainer] = []
    pause = keeper.Keeper.pause

    def stopping(self: keeper.Keeper) -> None:
        pause(self)
        if self.trainer.units == units:
            left.append(self.trainer)
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(keeper.Keeper, "pause", stopping)
        with pytest.raises(Stop):
            train(config, folder, ignore, resume)
    return left[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def every(units: int, keep: int = 2) -> RunConfig:
    return replace(tiny(), saving=Saving(minutes=0, units=units, keep=keep))


def test_checkpoints_are_written_when_due_and_the_latest_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(every(5, keep=3), tmp_path, 23, monkeypatch)
    assert names(tmp_path) == ["000000015", "000000020", "000000023"]
    (tmp_path / "checkpoints" / ".partial-000000024").mkdir()  # of a run that was killed
    stop_after(every(7, keep=1), tmp_path, 38, monkeypatch, resume=True)  # saving may change on the way
    assert names(tmp_path) == ["000000038"]
    agent = load_agent(tmp_path / "checkpoints" / "000000038")
    assert fingerprints(agent) == fingerprints(load_agent(tmp_path))
    train(every(0), tmp_path, ignore, resume=True)
    assert not (tmp_path / "checkpoints").exists()


def test_time_makes_checkpoints_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    pause = keeper.Keeper.pause

    def passing(self: keeper.Keeper) -> None:
        now[0] += 10.0
        pause(self)

    monkeypatch.setattr(keeper.Keeper, "pause", passing)
    stop_after(replace(tiny(), saving=Saving(minutes=1, keep=9)), tmp_path, 20, monkeypatch)
    assert names(tmp_path) == ["000000000", "000000006", "000000012", "000000018", "000000020"]


def test_the_manifest_says_what_made_it_and_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(tiny(), tmp_path, 30, monkeypatch)
    path = tmp_path / "checkpoints" / "000000030"
    document = json.loads((path / "manifest.json").read_text())["manifest"]
    assert document["format"] == 1 and document["command"].startswith("forethought")
    assert document["versions"]["torch"] == version("torch") and document["commit"] and document["python"]
    assert document["config"]["schedule"]["prefill"] == 100 and document["progress"]["units"] == 30
    files = document["files"]
    assert files.keys() | {"manifest.json"} == {file.name for file in path.iterdir()}
    for name, entry in files.items():
        content = (path / name).read_bytes()
        assert entry["bytes"] == len(content) and entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert files["memory-observation-00000.npy"] | {"sha256": "", "bytes": 0} == {
        "shape": [4, 25, 2], "dtype": "<f4", "sha256": "", "bytes": 0,
    }  # fmt: skip
    assert files["weights.safetensors"]["shapes"]["perception.normalise.running_mean"] == [8]


def test_only_pieces_of_the_memory_that_changed_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "PIECE", 4 * 8 * 10)  # ten slots of observations
    config = replace(tiny(), saving=Saving(minutes=0, units=1, keep=100))
    stop_after(config, tmp_path, 36, monkeypatch)
    folders = [tmp_path / "checkpoints" / f"{units:09d}" for units in (25, 31, 32, 36)]
    inodes = [{file.name: file.stat().st_ino for file in folder.glob("memory-observation-*")} for folder in folders]
    filled, learned, collects, later = inodes
    assert len(filled) == 3 and filled == learned  # learning changes nothing
    changed = [name for name in collects if collects[name] != filled.get(name)]
    assert changed == ["memory-observation-00002.npy"]  # slots 20 to 29; the collecting begins at 25
    assert [name for name in later if later[name] != collects.get(name)] == changed
    first = (folders[0] / changed[0]).read_bytes()
    assert len(first) < len((folders[3] / changed[0]).read_bytes())  # and what was saved before is not touched


def test_a_cut_of_the_stream_changes_the_piece_before() -> None:
    memory = ShortTermMemory(MemoryShape((2,), False, (), True, 3, 4), 1, 8)
    for _ in range(4):
        memory.write(*(np.zeros((1, *shape), kind) for shape, kind in ENTRY))  # type: ignore[arg-type]
    before = memory.changes
    memory.break_streams()
    assert (memory.changed > before).tolist() == [False, False, False, True, *[False] * 4]


ENTRY: list[tuple[tuple[int, ...], Any]] = [
    ((2,), np.float32), ((), np.int64), ((), np.float32), ((), np.bool_), ((), np.bool_),
]  # fmt: skip


# ---- saving that fails


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("files", range(0, 14, 2))
def test_a_full_disk_costs_no_checkpoint(files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = stop_after(tiny(), tmp_path, 31, monkeypatch)
    before = (tmp_path / "checkpoints", snapshot(tmp_path))
    written = 0
    write = resume.write_new

    def failing(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written > files:
            path.write_bytes(content[: len(content) // 2])
            full()
        write(path, content)

    left.units += 1
    left.memory.changed[:] = left.memory.changes = left.memory.changes + 1
    with monkeypatch.context() as patch:
        patch.setattr(resume, "write_new", failing)
        with pytest.raises(OSError, match=r"000000032 \(No space left on device\); 000000031 is kept; free some space"):
            resume.save_checkpoint(left, before[0], {}, None)
    assert snapshot(tmp_path) == before[1]
    train(tiny(), tmp_path, ignore, resume=True)


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", ["rename", "mkdir"])
def test_a_folder_that_cannot_be_written_costs_no_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = stop_after(tiny(), tmp_path, 31, monkeypatch)
    before = snapshot(tmp_path)
    left.units += 1

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, refuse)
        with pytest.raises(OSError, match=r"Permission denied.*000000031 is kept.*permissions"):
            resume.save_checkpoint(left, tmp_path / "checkpoints", {}, None)
    assert snapshot(tmp_path) == before


def test_training_goes_on_while_the_disk_is_full_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tiny(), tmp_path / "whole", ignore)
    write, calls = resume.write_new, [0]

    def failing(path: Path, content: bytes) -> None:
        calls[0] += 1
        if 30 < calls[0] < 34:  # three times in a row
            full()
        write(path, content)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="is kept; free.*tries again later"):
        patch.setattr(resume, "write_new", failing)
        agent = train(every(10), tmp_path / "full", ignore)
    assert calls[0] > 50 and fingerprints(agent) == fingerprints(whole)


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(every(2), tmp_path / "linked", ignore)
    refused: list[Any] = []

    def no_links(*arguments: Any, **options: Any) -> None:
        refused.append(arguments)
        full(*arguments, **options)

    monkeypatch.setattr(os, "link", no_links)
    folder = tmp_path / "copied"
    stop_after(every(2), folder, 31, monkeypatch)  # learning, which leaves the memory as it was
    pieces = list(folder.glob("checkpoints/*/memory-*.npy"))
    assert refused and pieces and all(piece.stat().st_nlink == 1 for piece in pieces)
    assert fingerprints(train(every(2), folder, ignore, resume=True)) == fingerprints(whole)


# ---- the best agent


def test_the_best_agent_is_the_one_that_collected_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tiny(), schedule=replace(tiny().schedule, rounds=4))
    watch, seen = Watch(), []

    def look(phase: str, *rest: Any) -> None:
        watch(phase, *rest)
        if phase.startswith("round"):
            seen.append(fingerprints(left[0].agent))

    left: list[Trainer] = []
    made = training.Trainer.__init__
    monkeypatch.setattr(training.Trainer, "__init__", lambda self, *a, **k: (made(self, *a, **k), left.append(self))[0])
    train(config, tmp_path, look)
    returns = [metrics["return"] for phase, _, _, metrics in watch.told if phase.startswith("round")]
    best = int(np.argmax(returns))
    score = json.loads((tmp_path / "best" / "score.json").read_text())
    assert len(set(returns)) == 4 and score["return"] == returns[best] and score["round"] == best + 1
    assert fingerprints(load_agent(tmp_path / "best")) == seen[best] != fingerprints(load_agent(tmp_path))
