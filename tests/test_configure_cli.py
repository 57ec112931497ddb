"""`forethought configure`, and gates and configurations as rows of `forethought compare`, end to end through main()."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import save_agent
from forethought.agent.configuring import load
from forethought.modules.configurator import Thinking

from forethought.cli import main

from .agent.small import SEEK, settings

FEW = ["--generations", "2", "--pairs", "1", "--episodes", "2", "--held-out", "2", "--longest", "4"]
KNOBS = ["--knobs", "thinking.candidates", "thinking.iterations"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def seek(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    save_agent(Agent(settings(thinking=Thinking(horizon=3, candidates=12, iterations=2)), SEEK), folder)
    return folder


def test_a_configuration_is_learned_shown_beside_the_script_and_compared(
    seek: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", str(seek), *FEW, *KNOBS]) == 0
    file = seek / "configure" / "level-3.json"
    told = capsys.readouterr().out
    assert "level 3 beside the script" in told and "scripted: cost" in told and "learned: cost" in told
    assert "held-out episode" in told and str(file) in told
    learned = load(file)
    assert learned.scripted.thinking.candidates == 12 and learned.evolution.generation == 2
    assert {"scripted", "learned", "saved"} == set(learned.measured)
    before = file.read_text()
    assert main(["configure", str(seek), *FEW, *KNOBS]) == 2
    assert "go on with it (--resume) or replace it (--overwrite)" in capsys.readouterr().err
    assert main(["configure", str(seek), "--resume"]) == 0 and json.loads(file.read_text()) == json.loads(before)
    rows = ["--behaviours", "mode-1", "mode-2", "--gates", "0.3", "0.6", "--configurations", str(file)]
    assert main(["compare", str(seek), *rows, "--episodes", "2", "--film", "0", "--out", "there"]) == 0
    told = capsys.readouterr().out
    for name in ("gated · 30 %", "random-gate · 30 %", "gated · 60 %", "configured · level-3"):
        assert name in told
    assert Path("there/gate.png").stat().st_size > 10_000


def test_a_table_repeats_the_script(seek: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configure", str(seek), "--level", "1", *KNOBS]) == 0
    assert "level 1 beside the script" in capsys.readouterr().out
    learned = load(seek / "configure" / "level-1.json")
    assert (seek / "configure" / "table.safetensors").is_file()
    assert learned.learned.thinking.candidates == pytest.approx(learned.scripted.thinking.candidates, abs=1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "configure needs a run folder first"),
        (["nowhere"], "there is no run folder nowhere"),
        (["run", "run"], "level 3 learns for one run, and 2 were given"),
        (["run", "--knobs", "speed"], "--knobs is speed"),
        (["run", "--resume", "--overwrite"], "give one of them"),
        (["run", "--resume"], "forethought configure RUN writes one"),
        (["run", "--price", "-1"], "--price is -1.0"),
    ],
)
def test_mistakes_are_told_in_one_line(
    seek: Path, arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", *arguments]) == 2
    told = capsys.readouterr().err
    assert match in told and told.count("\n") == 1
    assert not (seek / "configure").exists()


def test_a_gated_row_needs_a_gate(seek: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(seek), "--behaviours", "gated"]) == 2
    assert "has no gate; give shares to plan, --gates 0.1 0.3" in capsys.readouterr().err
