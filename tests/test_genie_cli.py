"""`forethought genie …` from recording to the report card, on a world too small to learn anything."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.envs.genie import GenieVectorEnv, find_world
from forethought.modules.genie.files import PARTS
from gymnasium.utils.env_checker import check_env
from PIL import Image
from safetensors.torch import load_file

from forethought.cli import main
from forethought.genie import GenieProgress

from .agent.sprites import clips
from .modules.genie.films import cut, film
from .modules.genie.films import save as save_video
from .test_cli import points

RECORD = ("--steps=200", "--test-steps=100", "--num-envs=4", "--height=16", "--width=16", "--actions", "1", "4", "7")
TINY = (
    "--world.context=4", "--world.tokenizer.width=8", "--world.latent-action.width=8",
    "--world.latent-action.actions=3", "--world.dynamics.width=8", "--updates.tokenizer=4",
    "--updates.latent-action=6", "--updates.dynamics=4", "--updates.outcomes=4",
    "--updates.batch=4", "--threads=1", "--device=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set and a world."""
    folder = tmp_path_factory.mktemp("genie")
    data, world = folder / "data", folder / "world"
    assert main(["genie", "record", "procgen:maze", "--out", str(data), *RECORD]) == 0
    assert main(["genie", "train", str(data), "--run", str(world), *TINY]) == 0
    return data, world


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr with which these arguments are refused."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: [^\n]+\n", captured.err), captured.err
    return captured.err


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genie"]) == 0
    told = capsys.readouterr().out
    for command in ("record", "import", "train", "evaluate", "play", "plan", "transfer", "clone"):
        assert f"  {command} " in told
        assert main(["genie", command, "--help"]) == 0
    helped = capsys.readouterr().out
    options = ("--policy", "--test-share", "--world.latent-action.actions", "--prompt-frames", "--port", "--meaning")
    for option in (*options, "--twin", "--planners", "--data"):
        assert option in helped


def test_a_trained_world_is_whole_and_plays(trained: tuple[Path, Path]) -> None:
    _, folder = trained
    about = json.loads((folder / "world.json").read_text())["about"]
    assert about["command"].startswith("forethought genie train") and about["data"]["env"] == "procgen:maze"
    assert list((folder / "tensorboard").glob("events*"))
    env = GenieVectorEnv(folder, 2)
    assert env.learned and env.prompts.shape == (32, 2, 16, 16, 3)
    env.reset(seed=0)
    assert env.step(np.array([0, 2]))[0].shape == (2, 16, 16, 3)


def test_a_folder_of_videos_becomes_a_world_to_step_in(tmp_path: Path) -> None:
    """The way of who has videos and nothing else: no actions, rewards or environment."""
    videos, _ = clips(10, 12, 0)
    for number, video in enumerate(videos):
        save_video(tmp_path / "videos" / "below" / f"{number}{'.gif' if number % 2 else '.mp4'}", video)
    data, world = tmp_path / "data", tmp_path / "world"
    assert main(["genie", "import", str(tmp_path / "videos"), "--out", str(data)]) == 0
    assert main(["genie", "train", str(data), "--run", str(world), *TINY, "--updates.outcomes=0"]) == 0
    about = json.loads((world / "world.json").read_text())["about"]["data"]
    assert about["videos"] == str(tmp_path / "videos") and about["test"]["clips"] == 1 and "env" not in about
    env = gymnasium.make("forethought/Genie-v0", world=world, max_steps=3)
    check_env(env.unwrapped, skip_render_check=True)
    frame, _ = env.reset(seed=0, options={"prompt": str(tmp_path / "videos" / "below" / "1.gif")})
    for step in range(3):
        frame, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert frame.shape == (16, 16, 3) and reward == 0 and not terminated and truncated == (step == 2)


@pytest.mark.parametrize("mistake", ["cut", "mixed", "one frame"])
def test_videos_that_cannot_be_imported_get_one_line_and_leave_nothing(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        film(Path(f"videos/{number}.gif"), frames=1 if mistake == "one frame" else 10, height=16, width=16)
    if mistake == "cut":
        cut(Path("videos/1.gif"), Path("videos/1.gif"), 0.5)
    if mistake == "mixed":
        film(Path("videos/1.gif"), height=32, width=16)
    line = {
        "cut": "1.gif was cut short", "mixed": "choose one size with --height and --width",
        "one frame": "expected at least 2 frames",
    }[mistake]  # fmt: skip
    assert line in refusal(capsys, "genie", "import", "videos")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
    film(Path("videos/1.gif"), height=16, width=16)
    film(Path("videos/0.gif"), height=16, width=16)
    assert main(["genie", "import", "videos"]) == 0


def test_the_report_card_is_written(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = trained
    arguments = [
        "--data",
        str(data),
        "--out",
        str(tmp_path),
        "--clips=3",
        "--steps=3",
        "--threads=1",
        "--labels",
        "8",
        "32",
    ]
    assert main(["genie", "evaluate", str(folder), *arguments]) == 0
    told = capsys.readouterr().out
    for text in ("copied frame", "tokenizer", "perplexity", "per frame", "dictionary"):
        assert text in told
    card = json.loads((tmp_path / "card.json").read_text())
    assert [row["step"] for row in card["steps"]] == [1, 2, 3]
    assert [row["labels"] for row in card["labels"]] == [8, 32]
    assert card["metadata"]["command"].startswith("forethought genie evaluate") and card["agreement"]["nmi"] >= 0
    for row in card["steps"]:
        assert row["delta"]["mean"] == pytest.approx(row["psnr"]["mean"] - row["random"]["mean"], abs=1e-4)
    grid = np.asarray(Image.open(tmp_path / "codes.png"))
    assert grid.shape == (3 * 100 + 4, 4 * 100 + 4, 3)
    assert Image.open(tmp_path / "rollout.gif").n_frames == 3  # type: ignore[attr-defined]


def test_a_twin_with_true_actions_stands_beside_its_world(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = trained
    twin = tmp_path / "twin"
    assert main(["genie", "train", str(data), "--run", str(twin), "--twin-of", str(folder)]) == 0
    told = json.loads((twin / "world.json").read_text())
    assert told["config"]["latent_action"]["actions"] == 8 and told["about"]["training"]["true_actions"]
    assert told["about"]["training"]["updates"]["dynamics"] == 4  # the world's own budget
    assert (twin / "tokenizer.safetensors").read_bytes() == (folder / "tokenizer.safetensors").read_bytes()
    assert not (twin / "latent_action.safetensors").exists()
    few = ["--updates.dynamics", "1", "--updates.outcomes", "0"]
    assert main(["genie", "train", str(data), "--run", str(tmp_path / "named"), "--twin-of", "sprite", *few]) == 0
    mine, its = (load_file(home / "tokenizer.safetensors") for home in (tmp_path / "named", find_world("sprite")))
    assert mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in its)
    arguments = ["--data", str(data), "--clips=3", "--steps=2", "--threads=1", "--labels", "8"]
    assert (
        main(["genie", "evaluate", str(folder), *arguments, "--out", str(tmp_path / "one"), "--twin", str(twin)]) == 0
    )
    assert "twin PSNR" in capsys.readouterr().out
    assert main(["genie", "evaluate", str(folder), *arguments, "--out", str(tmp_path / "two")]) == 0
    both, alone = (json.loads((tmp_path / name / "card.json").read_text()) for name in ("one", "two"))
    for row, bare in zip(both["steps"], alone["steps"], strict=True):
        assert bare["twin"] is None and row["psnr"] == bare["psnr"]  # the twin changes nothing else
        assert row["twin"]["psnr"]["mean"] != row["psnr"]["mean"]
    assert both["twin_entropy"]["true"] > 0
    assert "is the world itself" in refusal(
        capsys, "genie", "train", str(data), "--run", str(folder), "--overwrite", "--twin-of", str(folder)
    )
    kept = (twin / "dynamics.safetensors").read_bytes()
    (twin / "dynamics.safetensors").unlink()
    again = ("genie", "train", str(data), "--run", str(twin), "--resume")
    assert "leave --twin-of away" in refusal(capsys, *again, "--twin-of", str(folder))
    assert main(list(again)) == 0  # it knows that it is a twin
    assert (twin / "dynamics.safetensors").read_bytes() == kept and not (twin / "latent_action.safetensors").exists()
    assert json.loads((twin / "world.json").read_text())["about"]["before"] == told["about"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_is_saved_and_goes_on(
    number: signal.Signals,
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The settings come from the folder; weights and curves are those of the training that was not stopped."""
    data, whole = trained
    folder, told = tmp_path / "world", []
    tell = GenieProgress.__call__

    def stopping(self: GenieProgress, phase: str, *rest: Any) -> None:
        tell(self, phase, *rest)
        told.append(phase)
        if len(told) == 9:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(GenieProgress, "__call__", stopping)
        assert main(["genie", "train", str(data), "--run", str(folder), *TINY]) == 128 + number
    out = capsys.readouterr().out
    assert f"saved in {folder}" in out and f"genie train {data} --run {folder} --resume" in out
    assert not (folder / "dynamics.safetensors").exists()
    assert main(["genie", "train", str(data), "--run", str(folder), "--resume"]) == 0
    for part in PARTS:
        assert (folder / f"{part}.safetensors").read_bytes() == (whole / f"{part}.safetensors").read_bytes()
    assert points(folder) == points(whole) and not (folder / "checkpoint.safetensors").exists()


def test_training_goes_on_and_old_worlds_are_kept(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = trained[0], Path(shutil.copytree(trained[1], tmp_path / "world"))
    assert "already holds a world" in refusal(capsys, "genie", "train", str(data), "--run", str(folder), *TINY)
    kept = (folder / "tokenizer.safetensors").read_bytes()
    before = (folder / "dynamics.safetensors").read_bytes()
    (folder / "dynamics.safetensors").unlink()
    assert "no dynamics yet" in refusal(capsys, "genie", "evaluate", str(folder), "--data", str(data))
    assert main(["genie", "train", str(data), "--run", str(folder), "--resume", *TINY]) == 0
    assert (folder / "tokenizer.safetensors").read_bytes() == kept
    assert (folder / "dynamics.safetensors").is_file() and len(before) == (
        folder / "dynamics.safetensors"
    ).stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("genie", "walk"), "genie has no command 'walk'"),
        (("genie", "record"), "record needs an environment first"),
        (("genie", "record", "procgen:nothing"), "procgen:nothing"),
        (("genie", "train", "nowhere"), "no complete data set"),
        (("genie", "import", "nowhere"), "holds no videos"),
        (("genie", "evaluate", "nowhere"), "needs test video"),
        (("genie", "evaluate", "nowhere", "--data", "nowhere"), "no Genie world"),
        (("genie", "play", "nowhere"), "no Genie world"),
        (("genie", "train", "{data}", "--world.height=32"), "frames of 16×16 and the world of 32×16"),
        (("genie", "train", "{data}", "--world.context=200"), "no clip of 200 frames"),
        (("genie", "train", "{data}", "--updates.batch=0"), "updates.batch is 0"),
        (("genie", "train", "{data}", "--wolrd.height=3"), "--world.height"),
    ],
)
def test_bad_input_gets_one_line(
    trained: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *(part.replace("{data}", str(trained[0])) for part in arguments))
