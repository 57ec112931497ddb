"""The command line, end to end through main(), with tiny settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.agent import entrants
from forethought.agent.faults import Stopped

from forethought import Levels, LevelSplit, __version__
from forethought.cli import in_short, main
from forethought.options import given, in_one_line

SMALL = {
    "threads": 1,
    "env.num-envs": 4,
    "model-loss.batch": 8,
    "behaviour.batch": 8,
    "task.thinking.horizon": 4,
    "task.thinking.candidates": 8,
    "task.thinking.iterations": 2,
    "task.thinking.hold": 1,
    "task.thinking.commit": 1,
    "task.thinking.proposals": 0,
    "schedule.prefill": 200,
    "schedule.prefill-updates": 10,
    "schedule.rounds": 1,
    "schedule.round-steps": 80,
    "schedule.round-updates": 4,
    "schedule.reanalyse": 4,
    "schedule.predictor-updates": 3,
    "schedule.final-behaviour-updates": 5,
}
TINY = [f"--{name}={value}" for name, value in SMALL.items()]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORETHOUGHT_TRACEBACK", raising=False)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cartpole") / "run"
    assert main(["train", "CartPole-v1", "--run", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room") / "run"
    assert main(["train", "TwoRoom", "--run", str(folder), *TINY]) == 0
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr with which these arguments are refused."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err), captured.err
    return captured.err


def names(output: str) -> list[str]:
    """First column of a rich table."""
    return [line.split("│")[1].strip() for line in output.splitlines() if line.startswith("│")]


def scalars(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return set(events.Tags()["scalars"])


class NaNReward(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(3, np.float32), float("nan"), False, False, {}


# Explanations


def test_without_arguments_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone
    for command in ("train ENV", "evaluate RUN", "compare RUN", "ppo ENV", "envs", "doctor"):
        assert command in alone


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"forethought {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], ["procgen:fruitbot", "--schedule.prefill INT", "--resume", "Decisions collected at random"]),
        (["train", "Pendulum-v1"], ["default: Pendulum-v1", "--task.thinking.planner", "--seed INT"]),
        (["evaluate"], ["--mode", "--protocol", "two_room-cross-room-100", "--candidates"]),
        (["compare"], ["--behaviours", "--oracle-episodes", "--out FOLDER", "--budgets", "--train-levels"]),
        (["ppo"], ["--rollout INT", "default: 256", "--network", "--overwrite"]),
        (["doctor"], ["Exit code"]),
        (["envs"], ["--gymnasium TEXT"]),
    ],
)
def test_help_of_each_command(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]) -> None:
    assert main([*arguments, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in expected:
        assert text in out


def test_help_shows_the_defaults_of_its_environment(capsys: pytest.CaptureFixture[str]) -> None:
    from forethought import preset

    assert main(["train", "TwoRoom", "--help"]) == 0
    assert f"default: {preset('TwoRoom').env.pairs}" in capsys.readouterr().out


def test_help_of_compare_shows_what_suits_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for name in ("fruitbot", "TwoRoom", None, "nowhere"):
        which = [name] if name == "nowhere" else ["--pretrained", name] if name else []
        assert main(["compare", *which, "--help"]) == 0
        told[name] = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "show the gap. (default: True)" in told["fruitbot"]
    assert all("show the gap. (default: False)" in told[name] for name in ("TwoRoom", None, "nowhere"))
    assert "random no-op expert)" in told["TwoRoom"] and "random no-op expert)" not in told["fruitbot"]


def test_settings_that_training_refuses_leave_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "TwoRoom", "--model-loss.shift", "99"]) == 2
    assert "model_loss.shift is 99" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_envs_lists_games_and_rooms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs"]) == 0
    out = capsys.readouterr().out
    assert out.count("procgen:") == 16
    assert "TwoRoom" in out and "DotWall" in out and "Any Gymnasium id" in out
    assert main(["envs", "--gymnasium", "cartpole"]) == 0
    assert "CartPole-v1" in capsys.readouterr().out.split()


def test_doctor_tries_what_it_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "torch", "device", "threads", "Procgen", "video (H.264)", "disk", "runs/"):
        assert re.search(rf"^{re.escape(name)} +ok", out, re.MULTILINE), out
    assert "took 10 steps" in out and "training will work" in out
    assert not Path("runs").exists()


def test_doctor_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from forethought import doctor

    def broken() -> str:
        raise RuntimeError("no simulator")

    monkeypatch.setattr(doctor, "_procgen", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^Procgen +missing +reinstall: pip install .*no simulator", out, re.MULTILINE), out
    assert "will not work before this is mended: Procgen" in out


# Round trips


def test_train_leaves_agent_provenance_and_curves(cartpole: Path) -> None:
    for name in ("config.json", "weights.safetensors", "provenance.json", "progress.json"):
        assert (cartpole / name).is_file()
    assert json.loads((cartpole / "progress.json").read_text())["finished"]
    tags = scalars(cartpole)
    assert "collect/return" in tags and "behaviour/critic" in tags
    assert any(tag.startswith("world_model/") for tag in tags)
    assert {"health/effective_rank", "health/auroc_teleported", "health/probe"} < tags


def test_training_ends_with_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", "--seed", "3", *TINY]) == 0
    out = capsys.readouterr().out
    assert "forethought compare runs/CartPole-v1/seed3" in out
    assert Path("runs/CartPole-v1/seed3/config.json").is_file()
    assert "behaviour 8/8" in out and "round 1/1" in out  # without a terminal: lines, and all of the schedule counted
    assert "\x1b" not in out


def test_evaluate_measures_both_modes(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["evaluate", str(cartpole), "--no-health"]
    assert main([*few, "--episodes", "3", "--candidates", "6", "--horizon", "3"]) == 0
    out = capsys.readouterr().out
    assert names(out) == ["mode-1", "mode-2"]
    assert "95 % interval" in out and "6×2 plans of 3 steps" in out
    assert main([*few, "--episodes", "2", "--mode", "mode-1", "--sample", "True"]) == 0
    assert names(capsys.readouterr().out) == ["mode-1"]
    assert not (cartpole / "evaluate").exists()


def test_evaluate_examines_representation_and_world_model(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(cartpole), "--episodes", "1", "--mode", "mode-1", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    for part in ("random play: 128/128 steps", "health: 4/4 steps", "imagination: 5/5 steps", "AUROC", "verdict"):
        assert part in out, out
    for name in ("health.json", "health.png", "imagination.png"):
        assert str(cartpole / "evaluate" / name) in out
        assert (cartpole / "evaluate" / name).stat().st_size > 0
    document = json.loads((cartpole / "evaluate" / "health.json").read_text())
    assert document["metadata"]["command"] == f"forethought evaluate {cartpole} --episodes 1 --mode mode-1 --seed 7"
    assert document["metadata"]["seed"] == 7 and document["decisions"] == 4096
    assert main(["evaluate", str(cartpole), "--episodes", "1", "--mode", "mode-1", "--out", "there"]) == 0
    assert json.loads(Path("there/health.json").read_text())["metadata"]["seed"] == 1_000
    shutil.rmtree(cartpole / "evaluate")


def test_evaluate_refuses_a_folder_that_it_cannot_write(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    assert "taken" in refusal(capsys, "evaluate", str(cartpole), "--out", "taken")


def test_compare_writes_a_report(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(cartpole), "--episodes", "3", "--film", "4"]) == 0
    out = capsys.readouterr().out
    assert names(out) == ["mode-1", "mode-2", "random"]
    for name in ("report.html", "comparison.png", "comparison.mp4", "summary.json", "episodes.csv"):
        assert str(cartpole / "compare" / name) in out
        assert (cartpole / "compare" / name).stat().st_size > 0
    summary = json.loads((cartpole / "compare" / "summary.json").read_text())
    assert summary["metadata"]["command"].startswith("forethought compare ")
    [about] = summary["metadata"]["runs"]
    assert about["env"]["id"] == "CartPole-v1" and about["training"]["decisions"] == 280
    assert about["run"] == str(cartpole)


def test_rows_that_were_played_are_reported_when_a_comparison_is_stopped(
    cartpole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[str] = []
    play = entrants.play

    def impatient(player: Any, *given: Any) -> Any:
        if len(played) == patience:
            raise Stopped(signal.SIGTERM)
        played.append(player.name)
        return play(player, *given)

    monkeypatch.setattr(entrants, "play", impatient)
    for patience, told in ((0, "stopped; nothing was written"), (2, "stopped after 2 of 3 rows; these are in")):
        played.clear()
        assert main(["compare", str(cartpole), "--episodes", "2", "--film", "0", "--out", "part"]) == 143
        shown = capsys.readouterr()
        assert told in shown.out + shown.err and Path("part/episodes.csv").exists() == bool(patience)
    assert "stopped after 2 of 3 rows" in Path("part/report.html").read_text()
    lines = Path("part/episodes.csv").read_text().splitlines()[1:]
    assert {line.split(",")[1] for line in lines} == {"mode-1", "mode-2"} and len(lines) == 4


def test_compare_takes_several_runs_budgets_and_ppo(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(cartpole, "again", ignore=shutil.ignore_patterns("compare"))
    text = Path("again/config.json").read_text()
    Path("again/config.json").write_text(text.replace('"seed": 0', '"seed": 7'))
    few = ["--steps=120", "--env.num-envs=8", "--rollout=16", "--minibatches=2", "--threads=1"]
    assert main(["ppo", "CartPole-v1", "--run", "ppo", *few]) == 0
    said = capsys.readouterr().out
    assert "--steps 120 becomes 128: whole rollouts of 16 decisions in each of 8" in said and "128/128" in said
    assert "reward" not in scalars(Path("ppo"))
    assert {tag.split("/")[0] for tag in scalars(Path("ppo"))} >= {"train", "rollout"}
    said = refusal(capsys, "ppo", "CartPole-v1", "--run", "ppo", *few)
    assert "--overwrite" in said
    assert "agent's run" in refusal(capsys, "ppo", "CartPole-v1", "--run", "again", "--overwrite", *few)
    runs = [str(cartpole), "again", "ppo"]
    assert main(["compare", *runs, "--episodes", "2", "--film", "0", "--budgets", "0", "32", "--out", "x"]) == 0
    out = capsys.readouterr().out
    assert names(out) == ["mode-1", "mode-2", "mode-2 · 32 calls", "ppo", "random"]
    summary = json.loads(Path("x/summary.json").read_text())
    assert [len(row["runs"]) for row in summary["rows"]] == [2, 2, 2, 1, 1]
    assert [row["calls_per_decision"] for row in summary["rows"]] == [0, 4 * 8 * 2, 32, 0, 0]
    assert [row["training_steps"] for row in summary["rows"]] == [280, 280, 280, 128, 0]
    assert len(Path("x/episodes.csv").read_text().splitlines()) == 1 + 2 * (3 * 2 + 1 + 1)
    assert Path("x/scaling.png").is_file() and Path("x/report.html").is_file()
    named = [f"big={cartpole}", "small=again", "--behaviours", "mode-1", "--episodes", "2", "--film", "0", "--out", "y"]
    assert main(["compare", *named]) == 0
    assert names(capsys.readouterr().out) == ["big: mode-1", "small: mode-1"]


def test_rooms_are_measured_by_protocol(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(room), "--episodes", "3", "--film", "3", "--out", "here", "--distil", "8"]) == 0
    out = capsys.readouterr().out
    assert "two_room cross-room/100" in out
    assert names(out) == ["mode-1", "mode-1 · distilled", "mode-2", "random", "no-op", "expert"]
    assert re.search(r"distilling, .*: 8/8 plans", out)
    assert "100 %" in next(line for line in out.splitlines() if "expert" in line and line.startswith("│"))
    metadata = json.loads(Path("here/summary.json").read_text())["metadata"]
    assert metadata["protocols"] == {"TwoRoom": "two_room cross-room/100"}
    assert (
        main(
            [
                "evaluate",
                str(room),
                "--episodes",
                "2",
                "--mode",
                "mode-2",
                "--protocol",
                "two_room-25-50",
                "--no-health",
            ]
        )
        == 0
    )
    assert "two_room 25/50" in capsys.readouterr().out


def test_protocol_rows_share_their_held_out_pairs(room: Path) -> None:
    from forethought.envs.rooms import TWO_ROOM_25_50

    from forethought import evaluate_protocol, load_agent

    agent = load_agent(room)
    first, again = (evaluate_protocol(agent, TWO_ROOM_25_50, ("random", "expert"), 6, seed=5) for _ in range(2))
    assert [row.episodes for row in first] == [row.episodes for row in again]
    assert first[1].successes.all() and first[0].calls == first[1].calls == 0


def test_a_second_run_does_not_replace_the_first(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (cartpole / "weights.safetensors").read_bytes()
    said = refusal(capsys, "train", "CartPole-v1", "--run", str(cartpole), *TINY)
    assert "--resume" in said and "--overwrite" in said and "--run" in said
    refusal(capsys, "train", "CartPole-v1", "--run", str(cartpole), "--overwrite", "--task.thinking.planner", "cem")
    assert (cartpole / "weights.safetensors").read_bytes() == before


def test_a_run_begins_with_the_networks_of_another(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = ["--schedule.rounds", "0", "--schedule.predictor-updates", "0", "--schedule.final-behaviour-updates", "0"]
    shutil.copytree(cartpole, "was")
    settings = json.loads(Path("was/config.json").read_text())
    # its networks began anew on the way; those that are given do not
    settings["config"]["schedule"] |= {"renewal": 1, "prefill_behaviour": 5}
    Path("was/config.json").write_text(json.dumps(settings))
    assert main(["train", "CartPole-v1", "--from", "was", "--run", "more", *still]) == 0
    assert Path("more/weights.safetensors").read_bytes() == (cartpole / "weights.safetensors").read_bytes()
    told = json.loads(Path("more/config.json").read_text())["config"]
    was = json.loads((cartpole / "config.json").read_text())["config"]
    assert told["seed"] == was["seed"] + 1 and told["perception"] == was["perception"]
    assert told["schedule"]["prefill_updates"] == 0 and told["schedule"]["prefill"] == was["schedule"]["prefill"]
    assert told["schedule"]["renewal"] is None and told["schedule"]["prefill_behaviour"] == 0
    saved = Path("more/weights.safetensors").read_bytes()
    shutil.copytree(cartpole, "more/best")
    for arguments, expected in (
        (["--from", "more", "--run", "more", "--overwrite"], "--from more lies in more; name another folder"),
        (["--from", "more/best", "--run", "more", "--overwrite"], "--from more/best lies in more; name another folder"),
        (["--from", str(cartpole), "--run", "more", "--overwrite", "--actor.hidden", "5"], "trained with actor {'hid"),
        (["--from", str(cartpole), "--run", "more", "--resume"], "--resume goes on with the run"),
        (["--from", "nowhere", "--run", "new"], "nowhere"),
        (["--from", "fruitbot", "--run", "new"], "is of 'procgen:fruitbot' and ENV is 'CartPole-v1'"),
    ):
        assert expected in refusal(capsys, "train", "CartPole-v1", *arguments)
    assert Path("more/weights.safetensors").read_bytes() == saved and not Path("new").exists()


def test_there_are_settings_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    """They are those of the laptop but larger, and they train; a small piece of it, so that it can be tried here."""
    few = [
        "--model-loss.batch=4", "--behaviour.batch=2", "--behaviour.steps=4", "--schedule.prefill=640", "--device=cpu",
        "--schedule.prefill-updates=2", "--schedule.rounds=1", "--schedule.round-steps=64", "--perception.width=4",
        "--schedule.round-updates=2", "--schedule.final-behaviour-updates=1", "--schedule.capacity=1000", "--run=gpu",
        "--schedule.renewal=None", "--schedule.prefill-behaviour=2",
    ]  # fmt: skip
    assert main(["train", "procgen:coinrun", "--gpu", *few]) == 0
    told = json.loads(Path("gpu/config.json").read_text())["config"]
    assert (told["perception"]["encoder"], told["perception"]["latent"], told["world_model"]["hidden"]) == (
        "impala", 512, 512,
    )  # fmt: skip
    for world, arguments, expected in (
        ("TwoRoom", ["--gpu"], "TwoRoom has no settings for a GPU, only Procgen has"),
        ("procgen:coinrun", ["--gpu", "--resume", "--run", "gpu"], "--gpu chooses the settings of a new run"),
        ("procgen:coinrun", ["--gpu", "--from", "coinrun"], "--gpu chooses the settings of a new run"),
    ):
        assert expected in refusal(capsys, "train", world, *arguments)


def test_overwrite_starts_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", "--run", "r", *TINY]) == 0
    Path("r/compare").mkdir()
    Path("r/evaluate").mkdir()
    assert main(["train", "CartPole-v1", "--run", "r", "--overwrite", "--task.ending", "0.5", *TINY]) == 0
    assert json.loads(Path("r/config.json").read_text())["config"]["task"]["ending"] == 0.5
    assert len(list(Path("r/tensorboard").iterdir())) == 1 and not Path("r/compare").exists()
    assert not Path("r/evaluate").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_saved_and_goes_on(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*TINY, "--schedule.prefill-updates", "400"]
    with subprocess.Popen(
        [sys.executable, "-m", "forethought", "train", "CartPole-v1", "--run", "r", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training on CartPole-v1")
        process.stdout.readline()  # the first report: work has begun
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "saved in r" in out and "forethought train CartPole-v1 --run r --resume" in out
    assert "Traceback" not in err
    assert not json.loads(Path("r/progress.json").read_text())["finished"]
    if number == signal.SIGINT:
        assert "--resume" in refusal(capsys, "train", "CartPole-v1", "--run", "r")
        assert "same environment" in refusal(capsys, "train", "Acrobot-v1", "--run", "r", "--resume")
        assert main(["train", "CartPole-v1", "--run", "r", "--resume"]) == 0
        progress = json.loads(Path("r/progress.json").read_text())
        assert progress["finished"] and progress["updates"] == 404
        assert "nothing to resume" in refusal(capsys, "train", "CartPole-v1", "--run", "r", "--resume")


def test_a_stop_in_the_check_up_says_that_the_training_is_finished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forethought.agent import run

    def stop(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run, "examine", stop)
    assert main(["train", "CartPole-v1", "--run", "r", *TINY]) == 143
    told = capsys.readouterr().out
    assert "the training is finished and saved in r" in told and "--resume" not in told
    assert json.loads(Path("r/progress.json").read_text())["finished"] and Path("r/weights.safetensors").is_file()


def test_a_second_writer_is_told_in_one_line(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from forethought.agent.faults import locked

    before = (cartpole / "weights.safetensors").read_bytes()
    with locked(cartpole):
        for more in ([], ["--overwrite"]):
            said = refusal(capsys, "train", "CartPole-v1", "--run", str(cartpole), *more, *TINY)
            assert ("--overwrite" if not more else f"process {os.getpid()}") in said
        assert main(["evaluate", str(cartpole), "--episodes", "1", "--mode", "mode-1", "--no-health"]) == 0  # may read
    assert (cartpole / "weights.safetensors").read_bytes() == before


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point of every curve but those of wall time: step and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_of_a_broken_run_have_neither_gaps_nor_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped once, then broken off where nothing could be saved: points after the last checkpoint are made again."""
    from forethought.agent.behaviour import BehaviourLearner
    from forethought.agent.errors import Stopped
    from forethought.agent.keeper import Keeper

    saving = ["--saving.minutes", "0", "--saving.units", "9"]
    assert main(["train", "CartPole-v1", "--run", "whole", *TINY]) == 0
    pause, update, calls = Keeper.pause, BehaviourLearner.critic_update, [0]

    def stopping(self: Keeper) -> None:
        pause(self)
        if self.trainer.units == 31:
            raise Stopped(signal.SIGTERM)

    def broken(self: BehaviourLearner, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise FloatingPointError("the loss is nan")
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "pause", stopping)
        assert main(["train", "CartPole-v1", "--run", "r", *TINY, *saving]) == 143
    with monkeypatch.context() as patch:
        patch.setattr(BehaviourLearner, "critic_update", broken)
        assert main(["train", "CartPole-v1", "--run", "r", "--resume"]) == 2
    assert main(["train", "CartPole-v1", "--run", "r", "--resume"]) == 0
    whole, parts = points(Path("whole")), points(Path("r"))
    assert parts == whole
    assert [step for step, _ in whole["behaviour/critic"]] == list(range(1, 9))
    assert (Path("r") / "weights.safetensors").read_bytes() == Path("whole/weights.safetensors").read_bytes()


def test_a_collapsed_run_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forethought.agent import training

    monkeypatch.setattr(training, "CHECK_EVERY", 2)  # so early the running statistics of perception look like one
    assert main(["train", "CartPole-v1", "--run", "r", *TINY]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: the representation has collapsed: after 4 updates [^\n]+ train again\n", err), err
    assert Path("r/weights.safetensors").is_file()


# Bad input: one line, exit code 2, and nothing left behind


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("trian CartPole-v1", ["'trian'", "did you mean train"]),
        ("train", ["environment first"]),
        ("train CartPol-v1", ["'CartPol-v1'", "CartPole-v1"]),
        ("train procgen:frutbot", ["'procgen:frutbot'", "procgen:fruitbot"]),
        ("train CartPole-v1 --env.num-env 3", ["--env.num-env,", "perhaps you meant --env.num-envs"]),
        ("train CartPole-v1 --seed x", ["--seed", "'x'"]),
        ("train CartPole-v1 --seed -1", ["-1", "non-negative"]),
        ("train CartPole-v1 --schedule.mode mode-3", ["'mode-3'", "'mode-2'"]),
        ("train CartPole-v1 --env.id Acrobot-v1", ["Acrobot-v1", "CartPole-v1"]),
        ("train CartPole-v1 --env.distribution-mode easy", ["distribution_mode"]),
        ("train CartPole-v1 --device gpuu", ["'gpuu'", "cpu"]),
        ("train CartPole-v1 --task.thinking.planner cemm", ["'cemm'", "'categorical_cem'"]),
        ("train CartPole-v1 --task.thinking.planner cem", ["'cem'", "Discrete(2)", "'categorical_cem'"]),
        ("train procgen:fruitbot --task.thinking.planner cem", ["'cem'", "Discrete(15)"]),
        ("train procgen:fruitbot --env.distribution-mode silly", ["'silly'", "easy"]),
        ("train CartPole-v1 --env.num-envs 0", ["num_envs is 0", "at least 1"]),
        ("train procgen:fruitbot --env.num-envs 0", ["num_envs is 0", "at least 1"]),
        ("train TwoRoom --env.num-envs 0", ["num_envs is 0", "at least 1"]),
        ("train CartPole-v1 --resume", ["runs/CartPole-v1/seed0"]),
        ("train CartPole-v1 --resume --overwrite", ["runs/CartPole-v1/seed0"]),
        ("evaluate", ["run folder first"]),
        ("evaluate nowhere", ["nowhere", "forethought train"]),
        ("evaluate .", ["holds no trained agent", "forethought train"]),
        ("compare .", ["holds no trained agent", "forethought train"]),
        ("compare", ["run folder first"]),
        ("compare nowhere elsewhere", ["nowhere", "forethought train"]),
        ("ppo", ["environment first"]),
        ("ppo CartPol-v1", ["'CartPol-v1'", "CartPole-v1"]),
        ("ppo CartPole-v1 --minibatches 7", ["does not divide"]),
        ("ppo CartPole-v1 --network impala", ["'impala'", "choose mlp"]),
        ("doctor now", ["'now'"]),
        ("envs --all", ["'--all'"]),
        ("envs --gymnasium zzz", ["'zzz'"]),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: str, expected: list[str]
) -> None:
    said = refusal(capsys, *arguments.split())
    for text in expected:
        assert text in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("compare RUN --behaviours oracle", ["no oracle"]),
        ("compare RUN --behaviours mode-9", ["'mode-9'", "mode-2"]),
        ("compare RUN --behaviours mode-1 mode-1", ["mode-1 mode-1"]),
        ("compare RUN --episodes 0", ["--episodes is 0", "at least 1"]),
        ("compare RUN --budgets 3", ["3 predictor calls is too small", "which need 8"]),
        ("compare RUN --budgets 64 64", ["--budgets is 64 64"]),
        ("compare RUN RUN", ["given twice"]),
        ("compare RUN --episodes 1 --out RUN/config.json", ["config.json"]),
        ("evaluate RUN --protocol two_room-25-50", ["has no protocols"]),
        ("evaluate RUN --planner cem", ["'cem'", "Discrete(2)"]),
        ("evaluate RUN --candidates 0", ["candidates is 0"]),
        ("evaluate RUN --mode mode-3", ["'mode-3'"]),
        ("evaluate RUN --seed -1", ["-1"]),
    ],
)
def test_mistakes_about_a_run_are_told_in_one_line(
    cartpole: Path, capsys: pytest.CaptureFixture[str], arguments: str, expected: list[str]
) -> None:
    said = refusal(capsys, *arguments.replace("RUN", str(cartpole)).split())
    for text in expected:
        assert text in said


@pytest.mark.parametrize(
    ("other", "expected"),
    [("Acrobot-v1", ["(4,)", "(6,)"]), ("MountainCar-v0", ["Discrete(2)", "Discrete(3)"]), ("Nope-v1", ["'Nope-v1'"])],
)
def test_a_checkpoint_of_another_world_is_refused(
    cartpole: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, other: str, expected: list[str]
) -> None:
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((cartpole / name).read_bytes().replace(b'"CartPole-v1"', f'"{other}"'.encode()))
    for command in ("evaluate", "compare"):
        said = refusal(capsys, command, str(tmp_path), "--episodes", "2")
        for text in expected:
            assert text in said


def test_rooms_refuse_protocols_and_rows_that_are_not_theirs(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "evaluate", str(room), "--protocol", "dot_wall-cross-room-200")
    assert "two_room-25-50" in said
    assert "no-op" in refusal(capsys, "compare", str(room), "--behaviours", "oracle")


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_reward_that_is_not_a_number_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    gymnasium.register("NaNReward-v0", entry_point=NaNReward)
    try:
        said = refusal(capsys, "train", "NaNReward-v0", "--schedule.prefill-updates", "1000000")
    finally:
        del gymnasium.registry["NaNReward-v0"]
    assert "nan" in said.lower() and "reward" in said.lower()


def test_overlapping_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap") as error:
        LevelSplit(Levels(0, 200), Levels(100, 200))
    assert "\n" not in str(error.value)


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["evaluate", "nowhere"])


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from forethought import doctor

    monkeypatch.setattr(doctor, "examine", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_stop_outside_training_says_that_nothing_was_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forethought import doctor

    monkeypatch.setattr(doctor, "examine", lambda: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["doctor"]) == 143
    assert capsys.readouterr().err == "stopped; nothing was written\n"
    assert signal.getsignal(signal.SIGTERM) is before


# Parts


def test_boxes_become_lines() -> None:
    box = "╭─ Error ───╮\n│ No good:  │\n│ --seed x. │\n│ ───────── │\n│ more      │\n╰───────────╯"
    assert in_one_line(box) == "No good: --seed x"
    plain = " Error\n -------\n  No good: \n  --seed x.\n  -----\n  Perhaps you meant:\n    --speed INT\n"
    assert in_one_line(plain) == "No good: --seed x; perhaps you meant --speed"


def test_options_are_found_in_both_spellings() -> None:
    assert given("--run", ["--x", "1", "--run", "a"]) == given("--run", ["--run=a"]) == "a"
    assert given("--run", ["--run"]) is None


def test_errors_of_the_system_name_the_file() -> None:
    assert in_short(FileNotFoundError(2, "No such file", "x")).startswith("x: No such file; ")
    assert in_short(OSError(28, "Could not write x: full. Free some.")) == "Could not write x: full. Free some."
    assert in_short(ValueError("a\n  b")) == "a b"


def test_a_row_that_takes_long_is_told_of_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from forethought import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with progress.RowProgress(("fast", "slow"), Console(file=out, width=200)) as tell:
        for now[0], done in ((0.0, 0), (59.0, 1), (60.0, 1), (100.0, 3), (150.0, 6), (200.0, 8), (300.0, 8)):
            tell["slow"](done, 8)
        for now[0], done in ((400.0, 0), (410.0, 4)):
            tell["fast"](done, 4)
    assert out.getvalue().splitlines() == [
        "slow: 1/8 episodes, decision 3, 1:00", "slow: 6/8 episodes, decision 5, 2:30, 0:50 left",
        "slow: 8/8 episodes, decision 6, 3:20", "fast: 4/4 episodes, decision 2, 0:10",
    ]  # fmt: skip


def test_progress_counts_phases_over_the_whole_schedule() -> None:
    from forethought.progress import Phase, clock

    phase = Phase(30)
    for stretch in (10, 1, 1, 18):
        for done in range(1, stretch + 1):
            phase.advance(done, stretch)
    assert phase.done == phase.total == 30 and phase.left == 0
    half = Phase(40)
    half.base = half.done = half.began = 20
    half.seconds = 10.0
    assert half.left is None
    half.advance(10, 20)
    assert half.done == 30 and half.left == pytest.approx(10.0)
    slow = Phase(100)
    for done, seconds in ((1, 1_000.0), (2, 1.0), (3, 1.0)):  # much is prepared before the first unit, and once
        slow.advance(done, 50)
        slow.spend(seconds, done)
    assert slow.left == pytest.approx(97.0)
    slow.advance(1, 50)  # the next stretch
    slow.spend(500.0, 1)
    assert slow.left is not None and slow.left < 100
    assert [clock(s) for s in (0, 61.4, 3661)] == ["0:00", "1:01", "1:01:01"]
