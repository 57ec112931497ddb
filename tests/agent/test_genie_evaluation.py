"""The report card of worlds whose roll-outs are known: a share of the way from the copied frame to the truth."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.genie_evaluation import Card, Examination, examine_world
from forethought.agent.genie_metrics import psnr, ssim
from forethought.agent.genie_report import card_tables, summary, verdict, write_card
from forethought.agent.genie_speed import measure_speed
from forethought.agent.statistics import Interval
from forethought.envs.genie import GenieVectorEnv
from forethought.modules.genie.patches import to_unit
from forethought.modules.genie.video import Clip, VideoDataset, VideoWriter, write_about
from forethought.modules.genie.world import Genie
from rich.console import Console
from torch import Tensor

from ..modules.genie.small import ACTIONS, CONFIG, SIDE, frames, make, save

PROMPT, STEPS, CLIPS = 2, 3, 12
SETTINGS = Examination(clips=CLIPS, prompt_frames=PROMPT, steps=STEPS, starts=2, grid_steps=1)
DOUBLED = 20 * math.log10(2)  # dB that are lost where the error doubles


class Known(Genie):
    """Dreams of the last true frame, changed by ``share`` of what separates it from the true frames that follow."""

    def __init__(self, share: float) -> None:
        super().__init__(CONFIG)
        self.share, self.shown = share, torch.zeros(0)
        encode = self.tokenizer.encode

        def remember(shown: Tensor) -> Tensor:
            self.shown = shown
            return encode(shown)

        self.tokenizer.encode = remember  # type: ignore[method-assign]

    def rollout(self, tokens: Tensor, actions: Tensor, steps: Tensor, *rest: Any) -> Tensor:
        last, truth = self.shown[:, tokens.shape[1] - 1 : tokens.shape[1]], self.shown[:, tokens.shape[1] :]
        if not truth.shape[1]:  # the codes' dreams are told of their prompts alone
            return last.expand(-1, steps.shape[1], -1, -1, -1)
        return last + self.share * (truth - last)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    """Noise that is weak in some clips and strong in others, so that copied frames are good here and bad there."""
    folder, draws = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    writer = VideoWriter(folder, "test")
    for strength in np.linspace(0.02, 0.3, CLIPS):
        noise = 255 * (0.5 + strength * (draws.random((PROMPT + STEPS, SIDE, SIDE, 3)) - 0.5))
        writer.write(Clip(noise.astype(np.uint8), draws.integers(ACTIONS, size=PROMPT + STEPS)))
    writer.flush()
    write_about(folder, {"data": "noise"})
    return VideoDataset(folder, "test")


def examine(data: VideoDataset, share: float, twin: float | None = None, folder: Path | None = None) -> Card:
    torch.manual_seed(0)
    other = None if twin is None else Known(twin).eval()
    return examine_world(Known(share).eval(), data, SETTINGS, torch.device("cpu"), None, other, folder)


def means(cells: Sequence[Interval]) -> list[float]:
    return [cell.mean for cell in cells]


def test_the_copied_frame_is_measured_by_both_measures(data: VideoDataset) -> None:
    card = examine(data, 0.5)
    shown = to_unit(torch.from_numpy(data.read(data.starts(PROMPT + STEPS), PROMPT + STEPS)))
    assert len(shown) == CLIPS
    for step in range(STEPS):
        last, truth = shown[:, PROMPT - 1], shown[:, PROMPT + step]
        assert card.copied[step].mean == pytest.approx(float(psnr(last, truth).mean()), abs=1e-4)
        assert card.copied_similarity[step].mean == pytest.approx(float(ssim(last, truth).mean()), abs=1e-5)
        assert card.copied[step].low < card.copied[step].mean < card.copied[step].high


def test_a_world_that_copies_gains_exactly_nothing(data: VideoDataset) -> None:
    card = examine(data, 0.0)
    for cell in (*card.gain, *card.similarity_gain, *card.delta):
        assert (cell.mean, cell.low, cell.high) == (0, 0, 0)
    assert card.rollout == card.copied and card.similarity == card.copied_similarity
    every = f"not told apart at every step to {STEPS}"
    assert f"PSNR {every}; SSIM {every}" in summary(card)


@pytest.mark.parametrize(("share", "gained"), [(0.5, DOUBLED), (-1.0, -DOUBLED)])
def test_the_gain_is_paired_and_has_a_sign(data: VideoDataset, share: float, gained: float) -> None:
    """Half the error in every clip, or twice the error: the same gain in clips whose own numbers are far apart."""
    card = examine(data, share)
    for step in range(STEPS):
        cell = card.gain[step]
        assert (cell.mean, cell.low, cell.high) == pytest.approx((gained,) * 3, abs=1e-3)
        assert min(one.high - one.low for one in (card.rollout[step], card.copied[step])) > 3  # what is not paired
        difference = card.similarity[step].mean - card.copied_similarity[step].mean
        assert card.similarity_gain[step].mean == pytest.approx(difference, abs=1e-9)
        assert (card.similarity_gain[step].low > 0.01) if gained > 0 else (card.similarity_gain[step].high < -0.01)
    side = "above" if gained > 0 else "below"
    assert f"PSNR {side} at every step to {STEPS}; SSIM {side} at every step to {STEPS}" in summary(card)


def test_the_twin_has_gains_of_its_own(data: VideoDataset, tmp_path: Path) -> None:
    card = examine(data, 0.0, twin=0.5)
    assert card.twin is not None
    assert means(card.gain) == [0] * STEPS
    assert means(card.twin.gain) == pytest.approx([DOUBLED] * STEPS, abs=1e-3)
    assert all(cell.low > 0.01 for cell in card.twin.similarity_gain)
    for step in range(STEPS):
        assert card.twin.similarity_gain[step].mean == pytest.approx(
            card.twin.similarity[step].mean - card.copied_similarity[step].mean
        )
    console = Console(width=200, record=True, file=io.StringIO())
    for table in card_tables(card, "noise"):
        console.print(table)
    told = console.export_text()
    assert told.count("copied frame ") >= 2 and told.count("twin gain") == 2 and f"{DOUBLED:.2f}" in told
    assert f"PSNR above at every step to {STEPS}" in told.replace("\n", " ")
    write_card(card, tmp_path, {})
    rows = json.loads((tmp_path / "card.json").read_text())["steps"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for step, row in enumerate(rows):
        for name, cells in (
            ("copied", card.copied),
            ("copied_similarity", card.copied_similarity),
            ("gain", card.gain),
            ("similarity_gain", card.similarity_gain),
        ):
            cell = cells[step]
            assert row[name] == {"mean": cell.mean, "low": cell.low, "high": cell.high}
        assert row["twin"]["gain"]["mean"] == card.twin.gain[step].mean
        assert row["twin"]["similarity_gain"]["mean"] == card.twin.similarity_gain[step].mean
    assert (tmp_path / "rollout.png").stat().st_size > 10_000


def test_the_verdict_names_the_steps() -> None:
    gain = [Interval(1, 0.5, 2), Interval(-1, -2, -0.5), Interval(0.1, -1, 1), Interval(3, 2, 4)]
    assert verdict(gain) == "above at 1, 4, not told apart at 3, below at 2"
    assert verdict(gain[:1]) == "above at every step to 1"
    assert verdict([Interval(5, math.nan, math.nan)]) == "not told apart at every step to 1"  # one clip cannot tell


def test_what_is_timed_is_a_step_of_the_environment(
    data: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(make(), tmp_path)
    assert examine(data, 0.0).milliseconds is None
    stepped, sampled = [], set()
    step = GenieVectorEnv.step

    def counting(self: GenieVectorEnv, actions: Any) -> Any:
        stepped.append(actions)
        sampled.add((self.num_envs, self.learned, self.sampling.steps, self.sampling.temperature))
        return step(self, actions)

    monkeypatch.setattr(GenieVectorEnv, "step", counting)
    card = examine(data, 0.0, folder=folder)
    speed = card.milliseconds
    assert speed is not None and 0 < speed.lower <= speed.median <= speed.upper
    assert len(stepped) == 5 + speed.steps and len(np.unique(stepped)) == ACTIONS
    assert sampled == {(1, True, CONFIG.dynamics.steps, CONFIG.dynamics.temperature)}  # with reward and ending
    assert f"{speed.median:.1f} ms per frame (quartiles" in summary(card)
    prompts = (255 * frames().numpy()).astype(np.uint8)
    few = measure_speed(folder, prompts, make().sampling_with(1, 0.0), torch.device("cpu"), steps=2)
    assert few.steps == 2 and (1, True, 1, 0.0) in sampled
    with pytest.raises(ValueError, match="steps is 0"):
        measure_speed(folder, prompts, make().sampling, torch.device("cpu"), steps=0)
