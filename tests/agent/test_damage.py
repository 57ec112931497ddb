"""Damaged and hostile files are refused in one clear line, quickly, and no code of theirs is run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import resume
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import load_agent, save_agent
from forethought.agent.config import RunConfig
from forethought.agent.resume import load_checkpoint
from forethought.agent.run import prepare, train
from forethought.agent.storage import array_bytes, parse_array, parse_tensors, tensor_bytes
from forethought.agent.training import Trainer

from .small import SEEK, fingerprints, tiny, wake
from .test_resume import Stop, ignore

pytestmark = pytest.mark.usefixtures("short_check_up")

SECONDS = 5.0


def interrupted(config: RunConfig, folder: Path) -> Path:
    """A checkpoint made while collecting, when there is most in it."""

    def report(phase: str, done: int, total: int, metrics: Any) -> None:
        if phase == "world model" and done == 6:
            trainers[0].pause = stop

    def stop() -> None:
        if trainers[0].taken == 3:
            raise Stop

    trainers: list[Trainer] = []
    made = Trainer.__init__

    def remember(self: Trainer, *arguments: Any) -> None:
        made(self, *arguments)
        trainers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", remember)
        with pytest.raises(Stop):
            train(config, folder, report)
    found = resume.newest(folder / "checkpoints")
    assert found is not None and trainers[0].taken == 3
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interrupted(tiny(), tmp_path_factory.mktemp("run"))


@pytest.fixture
def damaged(original: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to do harm to."""
    return Path(shutil.copytree(original, tmp_path / "000000034"))


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    agent, env = prepare(tiny())
    return Trainer(agent, env, ignore)


def content_of(trainer: Trainer) -> dict[str, bytes]:
    tensors = {f"learner.{name}": tensor for name, tensor in trainer.learner.state().items()}
    tensors |= {name: tensor for name, tensor in trainer.state().items() if not name.startswith("behaviour.")}
    arrays = {name: array.tobytes() for name, array in trainer.memory.data.items()}
    weights = {name: digest.encode() for name, digest in fingerprints(trainer.agent).items()}
    return arrays | weights | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def refusal(load: Callable[[], Any]) -> str | None:
    """With what message it is refused; None where it is not."""
    begun = time.monotonic()
    try:
        load()
        message = None
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert message and "\n" not in message, message
    assert time.monotonic() - begun < SECONDS
    return message


def seal(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest and give it a proper checksum, as somebody with bad intentions would."""
    manifest = json.loads((path / "manifest.json").read_text())["manifest"]
    change(manifest)
    (path / "manifest.json").write_bytes(resume._sealed(manifest))


def plant(path: Path, name: str, content: bytes, **more: Any) -> None:
    """Exchange a file and list it properly."""
    (path / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} | more
    seal(path, lambda manifest: manifest["files"][name].update(entry))


# ---- chance: flipped bytes and ends that are missing


def flips(length: int, draws: np.random.Generator) -> Callable[[bytes], bytes]:
    """A few bytes flipped, or the end cut off, or something added."""
    kind, at = int(draws.integers(6)), int(draws.integers(length))
    if kind == 0:
        return lambda content: content[:at]
    if kind == 1:
        return lambda content: content + draws.bytes(at % 50 + 1)
    places, bits = draws.integers(length, size=kind - 1), draws.integers(1, 256, size=kind - 1)

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for place, bit in zip(places, bits, strict=True):
            changed[place] ^= int(bit)
        return bytes(changed)

    return flip


def test_no_damage_gets_in(original: Path, damaged: Path, trainer: Trainer) -> None:
    """240 checkpoints with one damaged file each: refused by its name, or there is no difference."""
    load_checkpoint(trainer, original)
    whole, draws = content_of(trainer), np.random.default_rng(0)
    files = sorted(path.name for path in original.iterdir())
    assert len(files) == 14
    refused = 0
    for case in range(240):
        name = files[case % len(files)]
        content = (original / name).read_bytes()
        harm = flips(len(content), draws)(content)
        (damaged / name).write_bytes(harm)
        message = refusal(lambda: load_checkpoint(trainer, damaged))
        if message is None:
            assert harm == content or name == "manifest.json"  # its white space means nothing
            assert content_of(trainer) == whole, (case, name)
        else:
            assert name in message or "manifest.json" in message, (case, name, message)
            refused += 1
        (damaged / name).write_bytes(content)
    assert refused > 230


def test_no_damage_to_a_saved_agent_gets_in(tmp_path: Path) -> None:
    """120 run folders: refused, or a whole agent with legal settings; weights that changed are never accepted."""
    save_agent(wake(Agent(tiny(), SEEK)), tmp_path)
    whole, draws = fingerprints(load_agent(tmp_path)), np.random.default_rng(1)
    refused = {"config.json": 0, "weights.safetensors": 0}
    for case in range(120):
        name = ("config.json", "weights.safetensors")[case % 2]
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(flips(len(content), draws)(content))
        loaded: list[Agent] = []
        message = refusal(lambda: loaded.append(load_agent(tmp_path)))  # noqa: B023
        (tmp_path / name).write_bytes(content)
        refused[name] += message is not None
        assert message is not None or fingerprints(loaded[0]) == whole, (case, name)
    assert refused["weights.safetensors"] == 60 and refused["config.json"] > 40


# ---- intention


def oversized_header(path: Path) -> None:
    plant(path, "learner.safetensors", struct.pack("<Q", 2**62) + b"{}" * 500)


def long_header(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}).encode()
    plant(path, "weights.safetensors", struct.pack("<Q", len(header)) + header + b"0000")


def deep_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"[" * 100_000)


def huge_manifest(path: Path) -> None:
    with (path / "manifest.json").open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room


def linked(path: Path) -> None:
    moved = path.with_name("elsewhere.safetensors")
    (path / "weights.safetensors").rename(moved)
    (path / "weights.safetensors").symlink_to(moved)


def piped(path: Path) -> None:
    (path / "trainer.safetensors").unlink()
    os.mkfifo(path / "trainer.safetensors")


def endless(path: Path) -> None:
    (path / "memory-age-00000.npy").unlink()
    (path / "memory-age-00000.npy").symlink_to("/dev/zero")


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = header.encode()
        plant(path, "memory-reward-00000.npy", b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data)

    return write


def listed(name: str) -> Callable[[Path], None]:
    return lambda path: seal(path, lambda m: m["files"].update({name: {"bytes": 1, "sha256": ""}}))


def weights_of_another_size(path: Path) -> None:
    plant(path, "weights.safetensors", tensor_bytes({"actor.net.0.weight": torch.zeros(3)}))


def averages_of_another_size(path: Path) -> None:
    state = parse_tensors((path / "learner.safetensors").read_bytes())
    state["model.0.exp_avg"] = torch.zeros(2)
    plant(path, "learner.safetensors", tensor_bytes(state), shapes={k: list(t.shape) for k, t in state.items()})


def changed_state(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        state = parse_tensors((path / "trainer.safetensors").read_bytes()) | {name: value}
        shapes = {key: list(tensor.shape) for key, tensor in state.items()}
        plant(path, "trainer.safetensors", tensor_bytes(state), shapes=shapes)

    return change


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, %d), }"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a header longer than the file": (oversized_header, "learner.safetensors.*header claims"),
    "a tensor that fits no machine": (long_header, "weights.safetensors.*shapes"),
    "brackets without end": (deep_manifest, "manifest.json.*nested too deeply"),
    "a manifest that fits no machine": (huge_manifest, "manifest.json.*expected at most"),
    "a link": (linked, "weights.safetensors is a link"),
    "a pipe": (piped, "trainer.safetensors is no regular file"),
    "a device behind a link": (endless, "memory-age-00000.npy is a link"),
    "an array that fits no machine": (npy(F4 % 10**15), "memory-reward.*cannot|cannot.*10+"),
    "an array cut short": (npy(F4 % 28, b"0" * 30), "30 bytes of data"),
    "an array of another format": (npy(F4 % 28, b"0" * 448, b"\x02\x00"), "version 1.0"),
    "an array with code in its header": (npy("__import__('os').mkdir('sprung')"), "cannot be resumed from"),
    "an array with a header of brackets": (npy("(" * 5_000), "cannot be resumed from"),
    "an array of objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 28), }"), "object"),
    "a way out": (listed("../../../etc/passwd"), "no file of a checkpoint"),
    "an absolute way out": (listed("/etc/passwd"), "no file of a checkpoint"),
    "a stranger": (listed("memory-secret-00000.npy"), "missing"),
    "a file less": (lambda path: seal(path, lambda m: m["files"].pop("memory-age-00000.npy")), "is not listed"),
    "weights less": (lambda path: seal(path, lambda m: m["files"].pop("weights.safetensors")), "does not list"),
    "another format": (lambda path: seal(path, lambda m: m.update(format=2)), "format 2, this version reads 1"),
    "no format": (lambda path: seal(path, lambda m: m.pop("format")), "format None"),
    "no files": (lambda path: seal(path, lambda m: m.update(files=[])), "no list of files"),
    "no pieces": (lambda path: seal(path, lambda m: m.update(slots={})), "cannot be resumed from"),
    "pieces of nothing": (lambda path: seal(path, lambda m: m["slots"].update(age=0)), "pieces"),
    "shapes that are not the file's": (
        lambda path: seal(path, lambda m: m["files"]["weights.safetensors"]["shapes"].update(x=[3])), "other shapes",
    ),
    "weights of another size": (weights_of_another_size, "other shapes"),
    "averages of another size": (averages_of_another_size, r"model.0.exp_avg is \[2\]"),
    "no generator": (changed_state("generator", torch.zeros(3, dtype=torch.int64)), "cannot be resumed from"),
    "a cursor outside the memory": (changed_state("memory.cursor", torch.tensor(10**6)), "cursor"),
    "another number of streams": (changed_state("memory.ended", torch.zeros(9, dtype=torch.bool)), "streams"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_intentions_are_refused(name: str, damaged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    harm, match = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    harm(damaged)
    agent, env = prepare(tiny())
    message = refusal(lambda: load_checkpoint(Trainer(agent, env, ignore), damaged))
    assert message is not None and re.search(match, message), message
    assert not (tmp_path / "sprung").exists()
    env.close()


class Trap:
    """Unpickling this would leave a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["memory-reward-00000.npy", "trainer.safetensors", "manifest.json"])
def test_a_planted_pickle_is_refused_and_never_run(name: str, damaged: Path, trainer: Trainer, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    if name == "manifest.json":
        (damaged / name).write_bytes(pickle.dumps(Trap(trap)))
    else:
        plant(damaged, name, pickle.dumps(Trap(trap)))
    assert refusal(lambda: load_checkpoint(trainer, damaged)) is not None
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # the trap works


def test_a_linked_checkpoint_is_refused(original: Path, tmp_path: Path, trainer: Trainer) -> None:
    (tmp_path / "000000034").symlink_to(original)
    assert "is a link" in (refusal(lambda: load_checkpoint(trainer, tmp_path / "000000034")) or "")


def test_a_run_with_a_damaged_checkpoint_says_how_to_go_on(original: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(original.parent.parent, tmp_path / "run"))
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert len(checkpoints) == 2  # the one of the beginning is still there
    (checkpoints[1] / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"remove {checkpoints[1]} to go on from {checkpoints[0].name}$"):
        train(tiny(), run, ignore, resume=True)
    shutil.rmtree(checkpoints[1])
    train(tiny(), run, ignore, resume=True)


def test_other_versions_are_said(original: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(original.parent.parent, tmp_path / "run"))
    seal(run / "checkpoints" / original.name, lambda manifest: manifest["versions"].update(torch="1.0"))
    with pytest.warns(UserWarning, match="was made with .*'torch': '1.0'.* may become another"):
        train(tiny(), run, ignore, resume=True)


def test_a_run_of_other_settings_is_not_resumed(original: Path, tmp_path: Path) -> None:
    run = original.parent.parent
    for other in (tiny(seed=1), replace(tiny(), behaviour=replace(tiny().behaviour, learning_rate=0.1))):
        with pytest.raises(ValueError, match="other settings"):
            train(other, run, ignore, resume=True)


def test_a_run_that_an_older_version_left_is_not_resumed(tmp_path: Path) -> None:
    save_agent(Agent(tiny(), SEEK), tmp_path)
    (tmp_path / "progress.json").write_text('{"finished": false, "updates": 3}')
    with pytest.raises(FileNotFoundError, match="no interrupted run that this version can go on with"):
        train(tiny(), tmp_path, ignore, resume=True)


def test_manifests_are_migrated(damaged: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["format"], manifest["parts"] = 0, manifest.pop("files")

    seal(damaged, older)
    assert "format 0" in (refusal(lambda: load_checkpoint(trainer, damaged)) or "")
    monkeypatch.setattr(resume, "MIGRATIONS", {0: lambda m: {**m, "format": 1, "files": m["parts"]}})
    load_checkpoint(trainer, damaged)


# ---- the formats


@pytest.mark.parametrize("kind", ["?", "|u1", "<i4", "<i8", "<f4", "<f8"])
def test_arrays_survive(kind: str) -> None:
    array = (np.random.default_rng(0).normal(size=(2, 6, 3)) * 100).astype(kind)
    content = array_bytes(array[:, 1:5])
    assert np.array_equal(parse_array(content, (2, 4, 3), array.dtype), array[:, 1:5])
    for shape, dtype in (((2, 4), kind), ((4, 2, 3), kind), ((2, 4, 3), "<f2")):
        with pytest.raises(ValueError, match="expected"):
            parse_array(content, shape, np.dtype(dtype))


def test_tensors_survive() -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.tensor(0.5, dtype=torch.float64), "c": torch.zeros(0)}
    tensors |= {"d": torch.tensor([True, False]), "e": torch.arange(3, dtype=torch.uint8), "f": torch.randn(4, 4).T}
    read = parse_tensors(tensor_bytes(tensors))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
