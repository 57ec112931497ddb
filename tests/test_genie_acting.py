"""`forethought genie plan, transfer and clone`, and training in dreams, by command.

In the small world that comes along. What is trained here learns nothing, it is too short; that dreams teach is measured
in docs/genie.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forethought.agent import genie_contest
from forethought.agent.evaluation import Result, evaluate
from forethought.envs.genie import PRETRAINED

from forethought.cli import main
from forethought.genie_acting import beside, split_world
from forethought.options import UsageError

from .test_genie_cli import refusal

FEW = ("--episodes=4", "--threads=1", "--device=cpu")
AGENT = (
    "--env.num-envs=4", "--schedule.prefill=64", "--schedule.prefill-updates=2", "--schedule.rounds=1",
    "--schedule.round-steps=16", "--schedule.round-updates=2", "--schedule.final-behaviour-updates=2",
    "--task.thinking.candidates=4", "--task.thinking.horizon=2", "--model-loss.batch=4", "--behaviour.batch=4",
    "--device=cpu",
)  # fmt: skip


def test_agents_and_ppo_are_carried_over_from_a_dream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppo, agent = tmp_path / "reactive", tmp_path / "agent"
    options = ("--steps=32", "--rollout=16", "--env.num-envs=2", "--minibatches=2", "--threads=1", "--device=cpu")
    assert main(["ppo", "forethought/Genie-v0", "--run", str(ppo), "--env.train-steps=8", *options]) == 0
    assert main(["train", "forethought/Genie-v0", "--run", str(agent), *AGENT]) == 0
    out = tmp_path / "rows"
    assert main(["genie", "transfer", str(ppo), str(agent), "--labels=32", "--out", str(out), *FEW]) == 0
    told = json.loads((out / "rows.json").read_text())
    names = ["reactive: ppo", "agent: mode-1", "agent: mode-2", "expert", "random"]
    assert [row["name"] for row in told["rows"]] == names and told["metadata"]["env"] == "Sprite"
    assert told["rows"][3]["return"][0] == 1 and all(len(row["returns"]) == 4 for row in told["rows"])
    shown = capsys.readouterr().out
    for name in names:
        assert name in shown
    alone = ("--labels=32", "--out", str(out), "--modes", "mode-1", *FEW)
    assert main(["genie", "transfer", str(agent), *alone]) == 0
    told = json.loads((out / "rows.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["agent: mode-1", "expert", "random"]
    assert "modes" in refusal(capsys, "genie", "transfer", str(agent), *alone[:4], *FEW)


def test_planning_by_command(tmp_path: Path) -> None:
    few = ("--planners", "random_shooting", "--horizon=2", "--candidates=4", "--iterations=1", "--labels=32")
    assert main(["genie", "plan", "--out", str(tmp_path), *few, *FEW]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["dream, random_shooting", "simulator, random_shooting", "random"]
    assert [row["calls"] for row in rows] == [8, 8, 0]


def test_rows_that_were_played_are_kept_when_it_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--planners", "random_shooting", "--horizon=2", "--candidates=4", "--iterations=1", "--labels=32")
    played: list[str] = []

    def impatient(name: str, *given: Any, **options: Any) -> Result:
        if len(played) == patience:
            raise KeyboardInterrupt
        played.append(name)
        return evaluate(name, *given, **options)

    monkeypatch.setattr(genie_contest, "evaluate", impatient)
    for patience, told in ((0, "stopped; nothing was written"), (2, f"stopped; 2 of 3 rows are in {tmp_path}")):
        played.clear()
        assert main(["genie", "plan", "--out", str(tmp_path), *few, *FEW]) == 130
        shown = capsys.readouterr()
        assert told in shown.out + shown.err and (tmp_path / "rows.json").exists() == bool(patience)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["dream, random_shooting", "simulator, random_shooting"]


def test_cloning_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "expert"
    record = ("--steps=64", "--test-steps=16", "--num-envs=4", "--height=16", "--width=16", "--policy=expert")
    assert main(["genie", "record", "Sprite", "--out", str(data), *record]) == 0
    options = (
        "--labels",
        "2",
        "8",
        "--meanings",
        "dictionary",
        "decoder",
        "--updates=2",
        "--channels=8",
        "--latent=16",
    )
    assert main(["genie", "clone", "--data", str(data), "--out", str(tmp_path), *options, *FEW]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        *(f"clone, {count} labels, {meaning}" for meaning in ("dictionary", "decoder") for count in (2, 8)),
        "clone of true actions", "expert", "random",
    ]  # fmt: skip
    assert "needs an expert's video" in refusal(capsys, "genie", "clone")
    assert "labels are [0]" in refusal(capsys, "genie", "clone", "--data", str(data), "--labels", "0")


def test_bad_input_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs run folders first" in refusal(capsys, "genie", "transfer")
    assert "there is no run folder nowhere" in refusal(capsys, "genie", "transfer", "nowhere")
    assert "no Genie world" in refusal(capsys, "genie", "plan", "nowhere")
    assert "unknown planner 'guess'" in refusal(capsys, "genie", "plan", "--planners", "guess", "--labels=8")
    assert "no complete data set" in refusal(capsys, "genie", "clone", "--data", "nowhere")
    large = ("--steps=16", "--test-steps=16", "--num-envs=2", "--height=32", "--width=32", "--policy=expert")
    assert main(["genie", "record", "Sprite", "--out", str(tmp_path / "large"), *large]) == 0
    for command in (("clone", "--labels=2"), ("evaluate", "sprite", "--clips=2", "--steps=1", "--prompt-frames=1")):
        out = ("--out", str(tmp_path / command[0]))
        line = refusal(capsys, "genie", *command, "--data", str(tmp_path / "large"), *out)
        assert "has frames of 32×32 and the world sees 16×16; record them with --height 16 --width 16" in line
    options = ("--steps=32", "--rollout=16", "--env.num-envs=2", "--minibatches=2", "--threads=1", "--device=cpu")
    assert main(["ppo", "Sprite", "--run", str(tmp_path / "true"), *options]) == 0
    assert "was trained in Sprite, not in a dream" in refusal(capsys, "genie", "transfer", str(tmp_path / "true"))


@pytest.mark.parametrize(
    ("arguments", "folder", "rest"),
    [
        ([], PRETRAINED, []),
        (["--seed", "3"], PRETRAINED, ["--seed", "3"]),
        (["--pretrained"], PRETRAINED, []),
        (["--pretrained", "--seed", "3"], PRETRAINED, ["--seed", "3"]),
        (["--pretrained", "coinrun", "--seed", "3"], PRETRAINED.parent / "coinrun", ["--seed", "3"]),
        (["coinrun"], PRETRAINED.parent / "coinrun", []),
        (["runs/mine", "--seed", "3"], Path("runs/mine"), ["--seed", "3"]),
    ],
)
def test_the_world_is_named_first_or_comes_along(arguments: list[str], folder: Path, rest: list[str]) -> None:
    assert split_world(arguments) == (folder, rest)


def test_what_does_not_come_along_is_refused_and_a_folder_of_that_name_does_not_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no world 'runs/mine' comes along; there are coinrun, fruitbot, sprite"):
        split_world(["--pretrained", "runs/mine"])
    monkeypatch.chdir(tmp_path)
    Path("coinrun").mkdir()
    assert split_world(["coinrun"])[0] == Path("coinrun")
    assert split_world(["--pretrained", "coinrun"])[0] == PRETRAINED.parent / "coinrun"
    assert beside(PRETRAINED) == Path("runs/genie/pretrained/sprite") and beside(Path("w")) == Path("w")
