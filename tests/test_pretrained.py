"""The agents that come along: small, with their origin, and able to do what they were trained for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.comparison import CompareConfig, compare
from forethought.agent.pretrained import FOLDER, pretrained, pretrained_names
from forethought.agent.protocols import evaluate_protocol
from forethought.envs.rooms import DOT_WALL_200, TWO_ROOM_CROSS_100, Protocol

import forethought
from forethought.cli import main
from forethought.options import given_all

each = pytest.mark.parametrize("name", pretrained_names())


@each
def test_each_is_small_says_where_it_is_from_and_loads(name: str) -> None:
    folder = forethought.pretrained(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 7e6
    told = json.loads((folder / "provenance.json").read_text())
    assert told["command"].startswith("forethought train ") and len(told["commit"]) == 7 and told["versions"]["torch"]
    assert json.loads((folder / "progress.json").read_text())["finished"]
    for path in folder.glob("*.json"):
        assert not any(private in path.read_text() for private in ("/tmp", "/home", "/root", "/work"))
    agent = forethought.load_agent(folder, device="cpu", threads=1)
    assert told["command"].split()[2] in (agent.config.env.id, agent.config.env.id.removeprefix("forethought/"))


def shuffled(agent: Agent) -> Agent:
    """The same agent with the weights of its actor in another order."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in agent.modules.actor.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return agent


@pytest.mark.parametrize(
    ("name", "protocol", "modes"),
    [("TwoRoom", TWO_ROOM_CROSS_100, ("mode-1", "mode-2")), ("DotWall", DOT_WALL_200, ("mode-1",))],
)
def test_rooms_are_crossed(name: str, protocol: Protocol, modes: tuple[str, ...]) -> None:
    agent = forethought.load_agent(pretrained(name), device="cpu", threads=1)
    rows = evaluate_protocol(agent, protocol, modes, pairs=24, seed=5)
    assert all(row.successes.mean() > 0.85 for row in rows)
    (lost,) = evaluate_protocol(shuffled(agent), protocol, ("mode-1",), pairs=24, seed=5)
    assert lost.successes.mean() < 0.3


@pytest.mark.parametrize(
    ("name", "episodes"), [("starpilot", 24), ("fruitbot", 48), ("fruitbot-screen", 48), ("coinrun", 64)]
)
def test_games_are_played_better_than_at_random(name: str, episodes: int) -> None:
    agent = forethought.load_agent(pretrained(name), device="cpu", threads=1)
    config = CompareConfig(("mode-1", "random"), episodes=episodes, seed=6)
    scores = {row.name: row.returns for row in compare(agent, config)}
    (lost,) = compare(shuffled(agent), replace(config, behaviours=("mode-1",)))
    error = np.sqrt(sum(scores[row].var(ddof=1) / episodes for row in scores))
    assert scores["mode-1"].mean() - scores["random"].mean() > 3 * error
    assert scores["mode-1"].mean() - lost.returns.mean() > 2 * error


def test_compare_takes_them_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["--episodes", "3", "--behaviours", "mode-1", "no-op", "--film", "0"]
    assert main(["compare", "--pretrained", "TwoRoom", *quick]) == 0
    summary = json.loads(Path("runs/pretrained/TwoRoom/compare/summary.json").read_text())
    assert {row["name"] for row in summary["rows"]} == {"mode-1", "no-op"}
    assert not (FOLDER / "TwoRoom" / "compare").exists()
    shutil.copytree(FOLDER / "TwoRoom", "mine")
    assert main(["compare", "mine", *quick, "--pretrained=TwoRoom"]) == 0
    assert Path("mine/compare/report.html").is_file()
    capsys.readouterr()
    assert main(["compare", "--pretrained", "chess"]) == 2
    assert "no agent 'chess' comes along; there are" in capsys.readouterr().err


def test_names_are_read_up_to_the_next_option() -> None:
    typed = ["--pretrained", "a", "b", "--episodes", "3", "--pretrained=c", "--film", "0"]
    assert given_all("--pretrained", typed) == ["a", "b", "c"]
    assert given_all("--pretrained", ["--film", "a"]) == [] and given_all("--pretrained", ["--pretrained"]) == []
