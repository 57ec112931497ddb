"""The check-up for people: a table for the terminal, and files (JSON, charts) for a page or a paper."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from .checkup import Health
from .health import BLIND, LEAST_STD, LEAST_USE, collapse
from .imagination import Imagination, Points
from .storage import write_atomically

_INK, _FAINT, _LINE = "#1F2328", "#656D76", "#B8BEC5"
_MODEL, _OTHER, _STILL = "#0072B2", "#D55E00", "#7F7F7F"
_REAL, _IMAGINED = "#0072B2", "#D55E00"
_COLUMNS = 3  # of the picture of courses
_SHOWN = (1, 5, 10)  # steps ahead in the table


def write_health(
    health: Health, imagination: Imagination, title: str, folder: Path, metadata: Mapping[str, Any]
) -> tuple[Path, Path, Path]:
    """Write ``health.json``, ``health.png`` and ``imagination.png`` into a folder, which is made if it is missing.

    Args:
        health: From `examine`.
        imagination: From `imagine`.
        title: What was examined.
        folder: Where to.
        metadata: What is needed to repeat the measurement; JSON types only.

    Raises:
        OSError: A file cannot be written.
    """
    paths = folder / "health.json", folder / "health.png", folder / "imagination.png"
    folder.mkdir(parents=True, exist_ok=True)
    document = (
        {"title": f"{title}: health of representation and world model"} | as_json(health) | {"metadata": dict(metadata)}
    )
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(paths[0], f"{text}\n".encode())
    write_atomically(paths[1], health_chart(health, document["title"]))
    write_atomically(paths[2], imagination_chart(imagination, f"{title}: imagined and real"))
    return paths


def as_json(health: Health) -> dict[str, Any]:
    """All measures as JSON types; what is unknown is null."""
    spread, errors = health.vitals.spread, health.vitals.errors
    inverse, probe = health.vitals.inverse, health.probe
    document = {
        "collapsed": collapse(health.vitals),
        "latents": {
            "std": dict(zip(("min", "mean", "max"), spread.std, strict=True)),
            "effective_rank": spread.rank,
            "effective_rank_possible": spread.possible,
            "rank_use": spread.use,
            "sigreg_per_sample": spread.sigreg,
            "singular_values": list(spread.spectrum),
        },
        "prediction_error": {
            "model": list(errors.model),
            "persistence": list(errors.persistence),
            "shuffled_actions": list(errors.shuffled),
            "over_persistence": list(errors.over_persistence),
            "over_shuffled_actions": list(errors.over_shuffled),
        },
        "inverse_dynamics": None if inverse is None else dataclasses.asdict(inverse),
        "linear_probe_r2": None if probe is None else dict(zip(health.facts, probe.scores, strict=True)),
        "violation_auroc": dataclasses.asdict(health.violations),
        "thresholds": {"std": LEAST_STD, "rank_use": LEAST_USE, "over_shuffled_actions": BLIND},
        "decisions": health.decisions,
        "episodes": health.episodes,
    }
    return _finite(document)  # type: ignore[no-any-return]


def health_table(health: Health, title: str) -> Table:
    """The check-up as a table for the terminal: each measure with what to compare it with."""
    spread, errors, inverse = health.vitals.spread, health.vitals.errors, health.vitals.inverse
    result = Table(title=Text(title), title_justify="left")
    for name in ("measure", "value", "compare with"):
        result.add_column(name, no_wrap=name == "measure")
    wrong = collapse(health.vitals)
    low, mean, high = spread.std
    steps = [step for step in _SHOWN if step <= len(errors.model)]
    after = f"after {', '.join(map(str, steps))} steps"
    rows = [
        ("standard deviation of the latents", f"{mean:.2f} ({low:.2f} … {high:.2f})", "healthy: about 1"),
        ("effective rank of the latents", f"{spread.rank:.1f} of {len(spread.spectrum)}",
         f"percepts offer {spread.possible:.1f}"),
        ("SIGReg per sample", f"{spread.sigreg:.3f}", "Gaussian 0, on a line 0.18, in a point 0.40"),
        ("error / persistence", _steps(errors.over_persistence, steps), f"{after}; below 1 it knows more"),
        ("error / shuffled actions", _steps(errors.over_shuffled, steps), f"{after}; 1: blind to actions"),
    ]  # fmt: skip
    if inverse is not None:
        rows.append((f"inverse dynamics, {inverse.kind}", _number(inverse.score), f"a guess: {inverse.floor:.2f}"))
    if health.probe is not None:
        rows.append(("linear probe, R²", _probe(health), "on other episodes; 1: all of it is in the latents"))
    for name, value in dataclasses.asdict(health.violations).items():
        rows.append((f"AUROC, {_plain(name)}", _number(value), "0.5: surprised by nothing"))
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    verdict = Text(f"collapsed: {wrong}", style="bold red") if wrong else Text("not collapsed", style="bold green")
    result.add_row(Text("verdict"), verdict, Text(f"{health.decisions:,} random decisions, {health.episodes} episodes"))
    return result


def health_chart(health: Health, title: str) -> bytes:
    """A PNG 1800 pixels wide: prediction errors over steps, and how evenly the latents use their dimensions."""
    figure = Figure(figsize=(9, 4.4), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    _head(figure, title, _subtitle(health))
    errors, spectrum = figure.add_axes((0.07, 0.13, 0.39, 0.59)), figure.add_axes((0.57, 0.13, 0.4, 0.59))
    _draw_errors(errors, health)
    _draw_spectrum(spectrum, health)
    return _png(figure)


def imagination_chart(imagination: Imagination, title: str) -> bytes:
    """A PNG 1800 pixels wide: the courses of first plans, imagined and real, an episode in each panel."""
    count = len(imagination.imagined)
    columns, rows = min(_COLUMNS, count), -(-count // _COLUMNS)
    side, top, foot = 2.7, 0.95, 0.15 if imagination.room else 0.5
    height = top + rows * (side + 0.35) + foot
    figure = Figure(figsize=(9, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    horizon = imagination.imagined.shape[1] - 1
    where = (
        "read from the latents by a linear probe" if imagination.room else "in the plane of two principal components"
    )
    _head(figure, title, [f"Mode-2's first plan of {horizon} steps, carried out to its end; {where}"])
    _legend(figure, imagination, 1 - 0.74 / height)
    for index in range(count):
        column, row = index % _COLUMNS, index // _COLUMNS
        left = (9 - columns * (side + 0.2) + 0.2) / 2 + column * (side + 0.2)
        bottom = height - top - (row + 1) * (side + 0.35) + 0.1
        axes = figure.add_axes((left / 9, bottom / height, side / 9, side / height))
        _draw_course(axes, imagination, index)
        if not imagination.room and row == rows - 1 and column == 0:
            axes.set_xlabel(imagination.shown[0], color=_FAINT, fontsize=8)
            axes.set_ylabel(imagination.shown[1], color=_FAINT, fontsize=8)
    return _png(figure)


def _draw_errors(axes: Axes, health: Health) -> None:
    """Mean squared error against steps ahead."""
    errors = health.vitals.errors
    steps = np.arange(1, len(errors.model) + 1)
    curves = (
        ("nothing changes", errors.persistence, _STILL, "--"),
        ("shuffled actions", errors.shuffled, _OTHER, "-"),
        ("world model", errors.model, _MODEL, "-"),
    )
    _quiet(axes)
    axes.set_title("prediction error of the latent", color=_INK, fontsize=10.5, loc="left", pad=8)
    for name, values, colour, style in curves:
        axes.plot(steps, values, style, color=colour, linewidth=2, marker="o", markersize=3.5, label=name)
    axes.set_xlabel("steps ahead", color=_FAINT, fontsize=9.5)
    axes.set_xticks(steps)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, labelcolor="linecolor", handlelength=1.6, loc="upper left")
    finite = [value for _, values, _, _ in curves for value in values if math.isfinite(value)]
    if finite:
        axes.set_ylim(0, 1.35 * max(finite))  # the legend's room


def _draw_spectrum(axes: Axes, health: Health) -> None:
    """Singular values against their number, the largest as 1, and the effective rank."""
    spread = health.vitals.spread
    values = np.array(spread.spectrum)
    shares = values / max(values.max(), 1e-300)
    index = np.arange(1, len(shares) + 1)
    _quiet(axes)
    axes.set_title("singular values of the latents", color=_INK, fontsize=10.5, loc="left", pad=8)
    axes.fill_between(index, shares, step="mid", color=_MODEL, alpha=0.18, linewidth=0)
    axes.step(index, shares, where="mid", color=_MODEL, linewidth=1.8)
    axes.axvline(spread.rank, color=_OTHER, linewidth=1.6, linestyle="--")
    right = spread.rank > 0.55 * len(shares)
    axes.annotate(
        f"effective rank {spread.rank:.1f} of {len(shares)}",
        (spread.rank, 1.06),
        xytext=(-6 if right else 6, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=_OTHER,
        fontsize=9.5,
    )
    axes.set_xlim(0.5, len(shares) + 0.5)
    axes.set_ylim(0, 1.13)
    axes.set_xlabel("number, largest first", color=_FAINT, fontsize=9.5)


def _draw_course(axes: Axes, imagination: Imagination, index: int) -> None:
    """One episode: where the plan was to lead, and where it led."""
    known = imagination.known[index]
    points = {_IMAGINED: imagination.imagined[index], _REAL: imagination.real[index][known]}
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(_LINE)
    room = imagination.room
    if room is not None:
        side = room.side
        picture = 255 - (255 - room.pictures[index].astype(np.float64)) * 0.45  # pale, behind the courses
        axes.imshow(picture.astype(np.uint8), extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="bilinear")
        axes.set_xlim(-0.5, side - 0.5)
        axes.set_ylim(side - 0.5, -0.5)
        if imagination.true is not None:
            axes.plot(*imagination.true[index][known].T, color=_INK, linewidth=4.5, alpha=0.25, solid_capstyle="round")
    else:
        axes.scatter(imagination.cloud[:, 0], imagination.cloud[:, 1], s=2, color="#D8DBDF", linewidths=0)
        (left, low), (right, high), half = _view(imagination, index)
        axes.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    for colour, course in reversed(points.items()):
        axes.plot(*course.T, color=colour, linewidth=1.5, marker="o", markersize=2.6, zorder=4)
    x, y = imagination.real[index][0]
    axes.scatter([x], [y], s=42, facecolors="white", edgecolors=_INK, linewidths=1.4, zorder=5)
    steps = int(known.sum()) - 1
    unit = " px" if room is not None else ""
    error = imagination.errors[index][steps]
    ended = "" if known.all() else ", at the end"
    axes.set_title(
        f"off by {error:.2g}{unit} after {steps} steps{ended}", fontsize=8.5, color=_FAINT, loc="left", pad=4
    )


def _view(imagination: Imagination, index: int) -> tuple[Points, Points, float]:
    """Lower and upper corner of what one panel must show, and half the side that shows any panel's."""
    corners = [
        (np.minimum(there.min(0), real[known].min(0)), np.maximum(there.max(0), real[known].max(0)))
        for there, real, known in zip(imagination.imagined, imagination.real, imagination.known, strict=True)
    ]
    half = 0.6 * max(float((high - low).max()) for low, high in corners)
    return *corners[index], max(half, 1e-6)


def _legend(figure: Figure, imagination: Imagination, y: float) -> None:
    """Names of the courses in their colours, in a line under the subtitle."""
    names = [("imagined", _IMAGINED), ("real, as perceived", _REAL)]
    if imagination.true is not None:
        names.append(("where it really was", "#C4C6C8"))
    x = 0.022
    for name, colour in names:
        figure.text(x, y, "●", fontsize=9, color=colour, va="center")
        text = figure.text(x + 0.017, y, name, fontsize=9, color=_INK, va="center")
        x = text.get_window_extent().x1 / figure.bbox.width + 0.025


def _head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """Title and what is to be said about it at the top left, where every report has them."""
    height = float(figure.get_figheight())
    figure.text(0.022, 1 - 0.27 / height, title, fontsize=13, color=_INK, weight="bold", va="center", parse_math=False)
    for index, line in enumerate(lines):
        y = 1 - (0.53 + 0.18 * index) / height
        figure.text(0.022, y, line, fontsize=8.5, color=_FAINT, va="center", parse_math=False)


def _quiet(axes: Axes) -> None:
    axes.grid(axis="y", color="#E6E8EB", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_FAINT, labelsize=9, length=3)
    axes.tick_params(axis="y", length=0)


def _subtitle(health: Health) -> list[str]:
    """Two lines, none wider than the picture: of what, and what the curves do not show."""
    low, mean, high = health.vitals.spread.std
    parts = [f"{health.decisions:,} random decisions in {health.episodes} held-out episodes"]
    parts.append(f"standard deviation of the latents {mean:.2f} ({low:.2f} … {high:.2f})")
    if health.probe is not None:
        parts.append(f"linear probe R² {_number(health.probe_score)}")
    violations = dataclasses.asdict(health.violations).items()
    return ["; ".join(parts), "; ".join(f"AUROC, {_plain(name)} {_number(value)}" for name, value in violations)]


def _probe(health: Health) -> str:
    """The scores by name where they are few, else how far they reach."""
    assert health.probe is not None
    named = [(name, score) for name, score in zip(health.facts, health.probe.scores, strict=True)]
    named = [(name, score) for name, score in named if math.isfinite(score)]
    if not named:
        return "nothing varies"
    if len(named) <= 4:
        return ", ".join(f"{name} {score:.2f}" for name, score in named).replace("observation ", "#")
    scores = [score for _, score in named]
    return f"{health.probe_score:.2f} ({min(scores):.2f} … {max(scores):.2f}) over {len(scores)} entries"


def _steps(values: Sequence[float], steps: Sequence[int]) -> str:
    return ", ".join(_number(values[step - 1]) for step in steps)


def _number(value: float | None) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _plain(name: str) -> str:
    return {"shifted": "shifted in time"}.get(name, name.replace("_", " "))


def _finite(value: Any) -> Any:
    """The same JSON value with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
