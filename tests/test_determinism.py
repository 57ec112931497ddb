"""The same seed gives the same numbers: every command twice, in every family of worlds, with every planner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forethought.agent.config import EnvConfig, RunConfig, Saving
from forethought.agent.run import train
from forethought.envs.genie import PRETRAINED
from forethought.planners import PLANNERS
from numpy.typing import NDArray

from forethought.cli import main

from .agent.small import tiny
from .agent.test_resume import Watch, live, small
from .test_cli import TINY, points

TIMES = {"metadata", "milliseconds", "ms_per_decision", "seconds", "fps", "files", "command", "run"}
"""Entries of JSON files that tell of the clock, or of where the files are."""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path) -> Iterator[None]:
    """And the check-up at the end of a training is kept short; both for as long as a test lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for module in ("agent.run", "commands"):
            patch.setattr(f"forethought.{module}.DECISIONS", 128)
        yield


def timeless(value: Any) -> Any:
    """JSON without what the clock decides."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def results(folder: Path) -> dict[str, Any]:
    """Every number that a command left in a folder: weights, arrays, tables, JSON, and the points of the curves."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and path.name not in {"provenance.json", "timing.json"}:
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix in {".safetensors", ".npy"}:
            found[name] = path.read_bytes()
        elif path.suffix == ".csv":
            found[name] = path.read_text()
    if (folder / "tensorboard").is_dir():
        found["curves"] = {tag: told for tag, told in points(folder).items() if not tag.startswith("time/")}
    return found


def assert_repeatable(*arguments: str, out: str) -> dict[str, Any]:
    """A command into two folders, named by the option ``out``: the same numbers; returns them."""
    told = []
    for name in ("first", "second"):
        folder = Path(f"{arguments[0]}-{name}")
        assert main([*arguments, out, str(folder)]) == 0
        told.append(results(folder))
    assert told[0].keys() == told[1].keys() and len(told[0]) >= 1
    for name in told[0]:
        assert told[0][name] == told[1][name], name
    return told[0]


def numbers(value: Any) -> list[float]:
    """All numbers in JSON."""
    if isinstance(value, dict | list):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_commands_about_agents() -> None:
    first = assert_repeatable("train", "CartPole-v1", *TINY, out="--run")
    assert {"weights.safetensors", "config.json", "progress.json", "curves"} <= first.keys()
    assert main(["train", "CartPole-v1", *TINY, "--seed", "1", "--run", "other"]) == 0
    other = results(Path("other"))
    assert all(first[name] != other[name] for name in ("weights.safetensors", "curves"))  # control
    run = "train-first"
    health = assert_repeatable("evaluate", run, "--episodes", "2", out="--out")
    assert len(numbers(health)) > 20
    few = ("--episodes", "2", "--film", "0", "--budgets", "0", "16", "--oracle-episodes", "1")
    compared = assert_repeatable("compare", run, *few, out="--out")
    assert "summary.json" in compared and any(name.endswith(".csv") for name in compared)
    few = ("--steps=64", "--env.num-envs=4", "--rollout=16", "--minibatches=2", "--threads=1")
    assert "policy.safetensors" in assert_repeatable("ppo", "CartPole-v1", *few, out="--run")


def test_commands_about_genie_worlds() -> None:
    record = ("--steps=80", "--test-steps=40", "--num-envs=2", "--height=16", "--width=16", "--actions", "1", "7")
    sizes = (
        "--world.context=3", "--world.tokenizer.width=8", "--world.latent-action.width=8", "--updates.frames=2",
        "--world.latent-action.actions=3", "--world.dynamics.width=8", "--updates.tokenizer=3",
        "--updates.latent-action=4", "--updates.dynamics=3", "--updates.outcomes=2", "--updates.batch=4",
        "--threads=1", "--device=cpu",
    )  # fmt: skip
    told = {}
    for name in ("first", "second"):
        assert main(["genie", "record", "procgen:maze", "--out", f"{name}/data", *record]) == 0
        assert main(["genie", "train", f"{name}/data", "--run", f"{name}/world", *sizes]) == 0
        assert main(["genie", "evaluate", f"{name}/world", "--data", f"{name}/data", "--out", f"{name}/card",
                     "--clips=2", "--steps=2", "--threads=1", "--labels", "8"]) == 0  # fmt: skip
        told[name] = results(Path(name)) | {"curves": points(Path(name) / "world")}
    for name, first in told["first"].items():
        if name != "world/world.json":  # which tells the command and the folder
            assert first == told["second"][name], name
    assert {"data/train/frames-0000.npy", "world/dynamics.safetensors", "card/card.json"} <= told["first"].keys()
    assert told["first"]["curves"] and len(numbers(told["first"]["card/card.json"])) > 10


GENIE = f"genie:{PRETRAINED}"
FAMILIES = ["CartPole-v1", "TwoRoom", "DotWall", "procgen:coinrun", GENIE]


def in_family(id: str) -> RunConfig:
    """A short run whose rounds collect in both modes."""
    config = small("procgen:coinrun" if id == GENIE else id)
    if id == GENIE:
        loss = replace(config.model_loss, mirror="none")  # codes have no names that could be exchanged
        config = replace(config, env=EnvConfig(id, num_envs=4), model_loss=loss)
    schedule = replace(config.schedule, prefill_updates=2, round_updates=2, predictor_updates=1, mode_1_rounds=2)
    return replace(config, schedule=replace(schedule, final_behaviour_updates=1), saving=Saving(minutes=0))


@pytest.mark.parametrize("id", FAMILIES, ids=["CartPole", "TwoRoom", "DotWall", "coinrun", "Genie"])
def test_training_in_every_family_and_both_modes(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives = [live(in_family(id), tmp_path / name, monkeypatch) for name in ("first", "second")]
    first, second = (life.everything() for life in lives)
    assert first.keys() == second.keys()
    assert all(same(first[name], second[name]) for name in first)
    assert repr(lives[0].told) == repr(lives[1].told)
    assert {phase for phase, *_ in lives[0].told} >= {"round (mode-1)", "round (mode-2)", "world model", "behaviour"}


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", PLANNERS)
def test_training_with_every_planner(name: str, tmp_path: Path) -> None:
    told = []
    for seed in (0, 0, 1):
        config = tiny(seed)
        if name in {"cem", "icem", "mppi", "gradient"}:
            config = replace(config, env=replace(config.env, id="Pendulum-v1"))
        thinking = replace(config.task.thinking, planner=name, candidates=6)
        schedule = replace(config.schedule, prefill_updates=2, rounds=1, round_steps=8, round_updates=2,
                           predictor_updates=1, final_behaviour_updates=1)  # fmt: skip
        watch = Watch()
        config = replace(config, task=replace(config.task, thinking=thinking), schedule=schedule)
        train(config, tmp_path / str(len(told)), watch)
        told.append(repr(watch.told))
    assert told[0] == told[1] != told[2]
