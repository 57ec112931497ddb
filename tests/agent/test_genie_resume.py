"""The training of a world that was stopped anywhere and resumed is the one that was never stopped, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import genie_resume
from forethought.agent.errors import OutOfMemoryError, Stopped
from forethought.agent.faults import locked
from forethought.agent.genie_resume import CHECKPOINT, GenieKeeper, train_world
from forethought.agent.genie_settings import GenieTraining
from forethought.agent.genie_training import GenieTrainer
from forethought.agent.storage import parse_tensors, tensor_bytes
from forethought.modules.genie.video import VideoDataset
from forethought.modules.genie.world import Genie

from .test_genie_training import TINY, noise

LONG = replace(TINY, updates=replace(TINY.updates, tokenizer=4, latent_action=6, dynamics=5, outcomes=3))
UPDATES = 18
VQ = replace(
    LONG, world=replace(LONG.world, tokenizer=replace(LONG.world.tokenizer, quantiser="vq", codes=16, code_dim=4))
)


TOLD = replace(
    LONG,
    world=replace(LONG.world, latent_action=replace(LONG.world.latent_action, labelled_actions=8)),
    updates=replace(LONG.updates, labels=5),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    return noise(tmp_path_factory.mktemp("data"), 12)


class Watch:
    """A report that remembers what it was told, over resumptions too, and may do something at an update."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, dict[str, float]]] = []
        self.at: dict[int, Callable[[], Any]] = {}

    def __call__(self, phase: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if phase == "tokens":  # computed anew in every process
            return
        self.told.append((phase, done, dict(metrics)))
        self.at.get(len(self.told), lambda: None)()

    def state(self) -> dict[str, Any]:
        return {"told": len(self.told)}

    def restore(self, state: dict[str, Any]) -> None:
        del self.told[state["told"] :]


def live(config: GenieTraining, data: VideoDataset, folder: Path, stops: tuple[int, ...] = ()) -> tuple[Genie, Watch]:
    """Train, stopped by a signal after so many updates and gone on with in a fresh trainer each time."""
    watch = Watch()
    for number, stop in enumerate(stops):
        watch.at = {stop: lambda: signal.raise_signal(signal.SIGTERM)}
        with pytest.raises(Stopped):
            train_world(config, (data, data), folder, watch, {}, resume=number > 0)
        torch.manual_seed(number)  # global generators do not matter
    watch.at = {}
    return train_world(config, (data, data), folder, watch, {}, resume=bool(stops)), watch


def content(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return {name: held for name, held in files.items() if name != ".lock"}


@pytest.mark.parametrize("config", [LONG, VQ, TOLD], ids=["fsq", "vq", "told"])
def test_stopping_anywhere_changes_nothing(config: GenieTraining, data: VideoDataset, tmp_path: Path) -> None:
    _, told = live(config, data, tmp_path / "whole")
    assert len(told.told) == UPDATES
    draws = np.random.default_rng(3)
    for attempt in range(2):
        stops = tuple(sorted(draws.choice(np.arange(1, UPDATES + 1), size=4, replace=False).tolist()))
        _, again = live(config, data, tmp_path / str(attempt), stops)
        assert repr(again.told) == repr(told.told)
        assert content(tmp_path / str(attempt)) == content(tmp_path / "whole")
    assert sorted(content(tmp_path / "whole")) == [
        "dynamics.safetensors", "latent_action.safetensors", "outcomes.safetensors", "prompts.npy",
        "tokenizer.safetensors", "world.json",
    ]  # fmt: skip


def test_a_training_of_the_first_format_goes_on_as_it_was(data: VideoDataset, tmp_path: Path) -> None:
    """It knew nothing of what was added since, and the resumed one has none of it, bit for bit."""
    world = LONG.world
    old = replace(LONG, world=replace(
        world, tokenizer=replace(world.tokenizer, changed=0.0),
        latent_action=replace(world.latent_action, pooling="all"), outcomes=replace(world.outcomes, layers=0),
    ))  # fmt: skip
    live(old, data, tmp_path / "whole")
    watch = Watch()
    watch.at = {7: lambda: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(Stopped):
        train_world(old, (data, data), tmp_path / "old", watch, {})
    path = tmp_path / "old" / CHECKPOINT
    tensors = parse_tensors(path.read_bytes())
    facts = json.loads(bytes(tensors["about"].tolist()))
    told = facts["training"]["world"]
    assert facts["format"] == 2
    facts["format"] = 1
    del told["tokenizer"]["changed"], told["latent_action"]["pooling"], told["outcomes"]
    about = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    path.write_bytes(tensor_bytes(tensors | {"about": about}))
    watch.at = {}
    train_world(old, (data, data), tmp_path / "old", watch, {}, resume=True)
    assert content(tmp_path / "old") == content(tmp_path / "whole")


def test_a_twin_that_was_stopped_keeps_the_tokenizer_of_its_world(data: VideoDataset, tmp_path: Path) -> None:
    """Stopped in its dynamics and in its outcomes, it is the twin that was not; it has no latent actions to learn."""
    live(LONG, data, tmp_path / "world")
    tokenizer = tmp_path / "world" / "tokenizer.safetensors"
    config, watches = replace(LONG, seed=5, true_actions=True), {}
    for name, stops in {"whole": (), "parts": (2, 7)}.items():
        watch = watches[name] = Watch()
        for number, stop in enumerate((*stops, None)):
            watch.at = {} if stop is None else {stop: lambda: signal.raise_signal(signal.SIGTERM)}
            begin = None if number else tokenizer
            with pytest.raises(Stopped) if stop is not None else nullcontext():
                train_world(config, (data, data), tmp_path / name, watch, {}, number > 0, begin)
    assert repr(watches["parts"].told) == repr(watches["whole"].told)
    assert {phase for phase, _, _ in watches["whole"].told} == {"dynamics", "outcomes"}
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert (tmp_path / "parts" / "tokenizer.safetensors").read_bytes() == tokenizer.read_bytes()
    assert not (tmp_path / "parts" / "latent_action.safetensors").exists()


@pytest.mark.parametrize("forgotten", ["numbers", "generator", "averages"])
def test_the_comparison_sees_what_is_forgotten(
    forgotten: str, data: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without one of the generators, or the running averages, the resumed world is another one."""
    restore = GenieTrainer.restore

    def forgetful(self: GenieTrainer, state: dict[str, torch.Tensor]) -> None:
        before = {"numbers": self.numbers, "generator": self.generator, "averages": {}}
        restore(self, {**state, "generator": before["generator"].get_state()} if forgotten == "generator" else state)
        if forgotten != "generator":
            setattr(self, forgotten, before[forgotten])

    live(LONG, data, tmp_path / "whole")
    monkeypatch.setattr(GenieTrainer, "restore", forgetful)
    live(LONG, data, tmp_path / "parts", (2, 12))
    assert content(tmp_path / "parts") != content(tmp_path / "whole")


def test_a_process_that_was_killed_goes_on_from_the_last_checkpoint(
    data: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time makes checkpoints due; what came after the last one is made again."""
    now = [0.0]
    monkeypatch.setattr(genie_resume.time, "monotonic", lambda: now[0])
    watch, saves, save = Watch(), [], GenieKeeper.save
    monkeypatch.setattr(GenieKeeper, "save", lambda self: (saves.append(len(watch.told)), save(self))[1])

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    def pass_time() -> None:
        now[0] += 60.0

    watch.at = {update: pass_time for update in range(1, UPDATES)} | {14: kill}
    config = replace(LONG, save_minutes=4.0)
    with pytest.raises(Killed):
        train_world(config, (data, data), tmp_path / "parts", watch, {})
    assert saves == [0, 4, 8, 12]
    watch.at = {}
    train_world(config, (data, data), tmp_path / "parts", watch, {}, resume=True)
    live(LONG, data, tmp_path / "whole")
    assert content(tmp_path / "parts") == content(tmp_path / "whole") and len(watch.told) == UPDATES


def test_a_loss_that_is_no_number_costs_nothing(
    data: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, watch = tmp_path / "world", Watch()
    optimise = GenieTrainer.optimise

    def poisoned(self: GenieTrainer, phase: str, part: Any, updates: int, loss_of: Any) -> None:
        def loss(step: int) -> Any:
            value, numbers = loss_of(step)
            return value * (torch.nan if (phase, step) == ("dynamics", 2) else 1.0), numbers

        optimise(self, phase, part, updates, loss)

    with monkeypatch.context() as patch:
        patch.setattr(GenieTrainer, "optimise", poisoned)
        with pytest.raises(
            FloatingPointError, match=r"loss of the dynamics is nan at update 2.*checkpoint is kept.*crash"
        ):
            train_world(LONG, (data, data), folder, watch, {})
    report = json.loads((folder / "crash" / "crash.json").read_text())
    assert report["at"] == {"part": "dynamics", "updates": 2} and report["not finite"] == {}
    train_world(LONG, (data, data), folder, watch, {}, resume=True)
    live(LONG, data, tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")


def test_too_little_memory_names_the_setting_to_lower(data: VideoDataset, tmp_path: Path) -> None:
    def give_out() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    watch = Watch()
    watch.at = {3: give_out}
    with pytest.raises(OutOfMemoryError, match=r"lower updates\.batch"):
        train_world(LONG, (data, data), tmp_path, watch, {})
    assert (tmp_path / CHECKPOINT).is_file()


def test_a_full_disk_costs_no_checkpoint(data: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While training it is told and tried again; the save of a stopped training fails loudly; the old one stays."""
    live(LONG, data, tmp_path / "whole")
    trouble, write = [True], genie_resume.save_tensors

    def full(path: Path, tensors: Any) -> None:
        if trouble[0] and watch.told:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, tensors)

    watch, folder = Watch(), tmp_path / "world"
    monkeypatch.setattr(genie_resume, "save_tensors", full)
    watch.at = {9: lambda: signal.raise_signal(signal.SIGINT)}
    with pytest.warns(UserWarning, match="No space left.*tries again"), pytest.raises(OSError, match="No space left"):
        train_world(replace(LONG, save_minutes=1e-9), (data, data), folder, watch, {})
    trouble[0], watch.at = False, {}
    train_world(LONG, (data, data), folder, watch, {}, resume=True)
    assert content(folder) == content(tmp_path / "whole")


def test_other_settings_other_data_and_a_second_writer_are_refused(data: VideoDataset, tmp_path: Path) -> None:
    folder, watch = tmp_path / "world", Watch()
    watch.at = {5: lambda: signal.raise_signal(signal.SIGINT)}
    with pytest.raises(Stopped) as stopped:
        train_world(LONG, (data, data), folder, watch, {})
    assert stopped.value.number == signal.SIGINT
    other = noise(tmp_path / "other", 12)
    other.about["data"] = "others"
    kept = content(folder)
    for config, given, what in (
        (replace(LONG, seed=1), data, "settings"),
        (replace(LONG, updates=replace(LONG.updates, batch=5)), data, "settings"),
        (LONG, other, "data"),
    ):
        with pytest.raises(ValueError, match=f"other {what}; resume with the same"):
            train_world(config, (given, given), folder, watch, {}, resume=True)
    with locked(folder), pytest.raises(BlockingIOError, match=f"process {os.getpid()}"):
        train_world(LONG, (data, data), folder, watch, {}, resume=True)
    assert content(folder)[CHECKPOINT] == kept[CHECKPOINT]


def test_other_versions_are_said_and_strange_averages_refused(data: VideoDataset, tmp_path: Path) -> None:
    watch = Watch()
    watch.at = {5: lambda: signal.raise_signal(signal.SIGINT)}
    with pytest.raises(Stopped):
        train_world(LONG, (data, data), tmp_path, watch, {})
    path = tmp_path / CHECKPOINT
    tensors = parse_tensors(path.read_bytes())
    facts = json.loads(bytes(tensors["about"].tolist()))
    for change, match in (
        ({"optimiser.0.exp_avg": torch.zeros(2, 3, 5)}, "averages of no parameters"),
        ({"optimiser.9999.exp_avg": tensors["optimiser.0.exp_avg"].clone()}, "cannot be resumed from"),
        ({"about": torch.zeros(3, dtype=torch.uint8)}, "cannot be resumed from"),
        ({"about": torch.zeros(())}, "what made it"),
        ({"generator": torch.zeros(3, dtype=torch.uint8)}, "does not fit"),
        ({"stage": torch.tensor(77)}, "77 parts"),
    ):
        path.write_bytes(tensor_bytes(tensors | change))
        with pytest.raises(ValueError, match=match) as refused:
            train_world(LONG, (data, data), tmp_path, watch, {}, resume=True)
        assert "\n" not in str(refused.value)
    facts["versions"]["torch"] = "1.0"
    old = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    path.write_bytes(tensor_bytes(tensors | {"about": old}))
    watch.at = {}
    with pytest.warns(UserWarning, match="was made with .*'torch': '1.0'"):
        train_world(LONG, (data, data), tmp_path, watch, {}, resume=True)
