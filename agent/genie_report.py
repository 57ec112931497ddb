"""The report card of a Genie world as a table, JSON, charts and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from .genie_decoding import LabelRow
from .genie_evaluation import Card
from .statistics import Interval

_SCALE = 96  # pixels of a frame's side in the pictures, about
_GAP = 4
_COLOURS = {"inferred actions": "C0", "random actions": "C1", "last frame copied": "C2", "twin with true actions": "C3"}


def card_tables(card: Card, title: str) -> list[Table]:
    """The roll-out by step: its PSNR and SSIM, each beside the copied frame's, and whether actions matter."""
    psnr = [("PSNR", card.rollout, 1), ("copied frame", card.copied, 1), ("gain", card.gain, 2)]
    ssim = [
        ("SSIM", card.similarity, 3),
        ("copied frame", card.copied_similarity, 3),
        ("gain", card.similarity_gain, 3),
    ]
    delta = [("PSNR", card.rollout, 1), ("random actions", card.random, 1), ("Δ PSNR", card.delta, 2)]
    if card.twin is not None:
        psnr += [("twin PSNR", card.twin.rollout, 1), ("twin gain", card.twin.gain, 2)]
        ssim += [("twin SSIM", card.twin.similarity, 3), ("twin gain", card.twin.similarity_gain, 3)]
        delta += [("twin Δ PSNR", card.twin.delta, 2)]
    tables = [_step_table(title, psnr), _step_table("the same frames by SSIM", ssim)]
    tables.append(_step_table("do actions matter?", delta))
    tables[-1].caption, tables[-1].caption_justify = summary(card), "left"
    return tables


def _step_table(title: str, columns: Sequence[tuple[str, Sequence[Interval], int]]) -> Table:
    """Named numbers by step, each with so many places."""
    table = Table(title=title)
    table.add_column("step", justify="right")
    for name, _, _ in columns:
        table.add_column(name, justify="right")
    for step in range(len(columns[0][1])):
        table.add_row(str(step + 1), *(_cell(cells[step], places) for _, cells, places in columns))
    return table


def label_table(rows: Sequence[LabelRow]) -> Table:
    """Accuracy of the maps from latent to real actions by the number of labels."""
    table = Table(title="real actions from latent ones, accuracy on test steps")
    for name in ("labels", "dictionary", "decoder"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(str(row.labels), _cell(row.dictionary, 2), _cell(row.decoder, 2))
    return table


def summary(card: Card) -> str:
    """What the table does not show, in a few lines."""
    picture, likeness = card.tokenizer
    lines = [
        f"beside the copied frame, clip by clip: PSNR {verdict(card.gain)}; SSIM {verdict(card.similarity_gain)}",
        f"tokenizer {_cell(picture, 1)} dB, SSIM {_cell(likeness, 3)}",
        f"codes used {100 * card.usage[0]:.0f} %, perplexity {card.usage[1]:.2f}",
        f"shuffled actions: error × {card.shuffle_ratio:.2f} in the latent action model, "
        f"{card.entropy[1] - card.entropy[0]:+.3f} nats per token in the dynamics (from {card.entropy[0]:.3f})",
    ]
    if card.milliseconds is not None:
        time = card.milliseconds
        lines.append(
            f"{time.median:.1f} ms per frame (quartiles {time.lower:.1f} and {time.upper:.1f} of {time.steps} steps; "
            f"{1000 / max(time.median, 1e-9):.0f} per second)"
        )
    if card.twin is not None:
        own, shuffled = card.twin.entropy
        lines.append(
            "twin beside the copied frame, clip by clip: "
            f"PSNR {verdict(card.twin.gain)}; SSIM {verdict(card.twin.similarity_gain)}"
        )
        lines.append(f"twin with true actions: shuffled {shuffled - own:+.3f} nats per token (from {own:.3f})")
    if card.agreement is not None:
        told = card.agreement
        lines.append(
            f"true actions: matching {told['matching']:.2f}, NMI {told['nmi']:.2f}, "
            f"dictionary {told['dictionary']:.2f} (commonest action {told['commonest']:.2f})"
        )
    moving = [motion for motion in card.motions if motion.direction != "still"]
    if moving:
        told_of = ", ".join(
            f"{motion.code} {motion.direction} {100 * motion.share:.0f} % "
            f"({100 * motion.dreamed:.0f} %, {100 * motion.otherwise:.0f} %)"
            for motion in card.motions
        )
        lines.append(f"codes by the view's motion in true steps (in dreams of the code, of others): {told_of}")
    return "\n".join(lines)


def verdict(gain: Sequence[Interval]) -> str:
    """At which steps a gain's whole interval is above 0, below it, or neither."""
    signs = [1 if cell.low > 0 else -1 if cell.high < 0 else 0 for cell in gain]
    told = []
    for name, sign in (("above", 1), ("not told apart", 0), ("below", -1)):
        steps = [step for step, one in enumerate(signs, 1) if one == sign]
        if len(steps) == len(signs):
            return f"{name} at every step to {len(signs)}"
        if steps:
            told.append(f"{name} at {', '.join(map(str, steps))}")
    return ", ".join(told)


def write_card(card: Card, folder: Path, metadata: dict[str, Any], labels: Sequence[LabelRow] = ()) -> list[Path]:
    """Write `card.json`, `rollout.png`, `codes.png` and `rollout.gif`.

    Args:
        card: What was measured.
        folder: Created if needed.
        metadata: Command, seed, machine and commit.
        labels: Rows of the latent-to-real maps, if they were tried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curve = [
        {"labels": row.labels, "dictionary": _json(row.dictionary), "decoder": _json(row.decoder)} for row in labels
    ]
    content = {"metadata": metadata, **numbers(card), "labels": curve}
    (folder / "card.json").write_text(json.dumps(content, indent=2))
    _chart(card, folder / "rollout.png")
    Image.fromarray(contact_sheet(card.grid)).save(folder / "codes.png")
    pictures = [Image.fromarray(contact_sheet(row[None])) for row in card.film.transpose(1, 0, 2, 3, 4)]
    pictures[0].save(folder / "rollout.gif", save_all=True, append_images=pictures[1:], duration=250, loop=0)
    return [folder / name for name in ("card.json", "rollout.png", "codes.png", "rollout.gif")]


def numbers(card: Card) -> dict[str, Any]:
    """A card as JSON, without its pictures."""
    return {
        "tokenizer": {"psnr": _json(card.tokenizer[0]), "ssim": _json(card.tokenizer[1])},
        "steps": [
            {
                "step": step + 1,
                "psnr": _json(card.rollout[step]),
                "ssim": _json(card.similarity[step]),
                "copied": _json(card.copied[step]),
                "copied_similarity": _json(card.copied_similarity[step]),
                "gain": _json(card.gain[step]),
                "similarity_gain": _json(card.similarity_gain[step]),
                "random": _json(card.random[step]),
                "delta": _json(card.delta[step]),
                "twin": None
                if card.twin is None
                else {
                    "psnr": _json(card.twin.rollout[step]),
                    "ssim": _json(card.twin.similarity[step]),
                    "gain": _json(card.twin.gain[step]),
                    "similarity_gain": _json(card.twin.similarity_gain[step]),
                    "delta": _json(card.twin.delta[step]),
                },
            }
            for step in range(len(card.rollout))
        ],
        "shuffle_ratio": card.shuffle_ratio,
        "entropy": {"inferred": card.entropy[0], "shuffled": card.entropy[1]},
        "twin_entropy": None if card.twin is None else {"true": card.twin.entropy[0], "shuffled": card.twin.entropy[1]},
        "codes": {"usage": card.usage[0], "perplexity": card.usage[1]},
        "agreement": card.agreement,
        "meanings": None if card.meanings is None else card.meanings.tolist(),
        "motions": [asdict(motion) for motion in card.motions],
        "milliseconds": None if card.milliseconds is None else asdict(card.milliseconds),
    }


def contact_sheet(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures ``[R, K, H, W, 3]`` side by side, enlarged without blur."""
    scale = max(1, round(_SCALE / rows.shape[2]))
    big = rows.repeat(scale, 2).repeat(scale, 3)
    r, k, h, w, _ = big.shape
    sheet = np.full((r * (h + _GAP) + _GAP, k * (w + _GAP) + _GAP, 3), 255, np.uint8)
    for row in range(r):
        for column in range(k):
            top, left = _GAP + row * (h + _GAP), _GAP + column * (w + _GAP)
            sheet[top : top + h, left : left + w] = big[row, column]
    return sheet


def _chart(card: Card, path: Path) -> None:
    """Pictures in the upper row, what is gained over the copied frame below them; at the right what actions do."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import)

    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplot_mosaic([["psnr", "ssim", "delta"], ["gain", "similarity gain", "delta"]])
    twin = card.twin
    psnr = [("inferred actions", card.rollout), ("random actions", card.random), ("last frame copied", card.copied)]
    ssim = [("inferred actions", card.similarity), ("last frame copied", card.copied_similarity)]
    gain, similarity_gain = [("inferred actions", card.gain)], [("inferred actions", card.similarity_gain)]
    delta = [("inferred actions", card.delta)]
    if twin is not None:
        for series, cells in (
            (psnr, twin.rollout),
            (ssim, twin.similarity),
            (gain, twin.gain),
            (similarity_gain, twin.similarity_gain),
            (delta, twin.delta),
        ):
            series.append(("twin with true actions", cells))
    for name, series, label in (
        ("psnr", psnr, "PSNR (dB)"),
        ("ssim", ssim, "SSIM"),
        ("gain", gain, "PSNR − copied frame's (dB)"),
        ("similarity gain", similarity_gain, "SSIM − copied frame's"),
        ("delta", delta, "Δ PSNR (dB): do actions matter?"),
    ):
        for kind, cells in series:
            steps = np.arange(1, len(cells) + 1)
            mean, low, high = ([getattr(cell, end) for cell in cells] for end in ("mean", "low", "high"))
            axes[name].plot(steps, mean, marker="o", color=_COLOURS[kind], label=kind)
            axes[name].fill_between(steps, low, high, color=_COLOURS[kind], alpha=0.2)
        if name in ("psnr", "ssim"):
            whole = card.tokenizer[name == "ssim"].mean
            axes[name].axhline(whole, color="grey", linestyle=":", label="tokenizer")
        else:
            axes[name].axhline(0, color="grey", linewidth=0.8)
        axes[name].set(xlabel="step", ylabel=label)
        axes[name].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _cell(value: Interval, digits: int) -> str:
    if math.isnan(value.low):
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} ({value.low:.{digits}f} … {value.high:.{digits}f})"


def _json(value: Interval) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low if value.known else None, "high": value.high if value.known else None}
