"""The chart of a comparison in one world: every episode, means with intervals, and what each decision costs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .standings import Standing
from .style import FAINT, INK, WIDTH, cost, digits, percent, quiet


def comparison_chart(rows: Sequence[Standing], title: str, colours: Mapping[str, str]) -> Figure:
    """Rows of one world from top to bottom: episodes, means with intervals, and what each decision costs."""
    names, head = [textwrap.fill(row.name, 26) for row in rows], textwrap.wrap(title, 72)
    foot = ["Large dot and bar: mean return with 95 % bootstrap interval. Small dots: single episodes."]
    foot += [line for row in rows if row.note for line in textwrap.wrap(f"{row.name}: {row.note}", 130)]
    columns = _columns(rows)
    longest = max(len(line) for name in names for line in name.split("\n"))
    # All lengths are inches, from the top left.
    width, lane, pitch, left, top = WIDTH, 0.5, 0.82, 0.35 + 0.094 * longest, 0.57 + 0.25 * max(len(head), 1)
    inside, across = lane * len(rows), width - left - 0.15 - pitch * len(columns)
    height = top + inside + 0.75 + 0.17 * len(foot)
    figure = Figure(figsize=(width, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 1 - (top + inside) / height, across / width, inside / height))
    _style(axes, len(rows))

    def put(
        x: float, y: float, text: str, size: float, colour: str = INK, align: str = "right", weight: str = "normal"
    ) -> None:
        figure.text(
            x / width,
            1 - y / height,
            text,
            fontsize=size,
            color=colour,
            ha=align,
            va="center",
            weight=weight,
            parse_math=False,
        )

    for line, text in enumerate(head):
        put(0.2, 0.27 + 0.25 * line, text, 13, align="left", weight="bold")
    for x, (heading, _) in enumerate(columns):
        put(width - 0.2 - pitch * (len(columns) - 1 - x), top - 0.14, heading, 8.5, FAINT)
    for index, row in enumerate(rows):
        y, colour = top + lane * (index + 0.5), colours[row.name]
        _lane(axes, index, row, colour)
        put(left - 0.12, y, names[index], 10.5, colour, weight="bold")
        for x, (_, cells) in enumerate(columns):
            put(width - 0.2 - pitch * (len(columns) - 1 - x), y, cells[index], 10)
    for line, text in enumerate(foot):
        put(0.2, top + inside + 0.68 + 0.17 * line, text, 8, FAINT, "left")
    return figure


def _style(axes: Axes, lanes: int) -> None:
    """Quiet axes: returns along the bottom, a lane for each row from top to bottom."""
    axes.set_ylim(lanes - 0.5, -0.5)
    axes.margins(x=0.03)
    axes.set_yticks([])
    quiet(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("return per episode", color=FAINT, fontsize=9.5)


def _lane(axes: Axes, y: int, row: Standing, colour: str) -> None:
    """Draw one row: every episode faintly, the interval and the mean."""
    returns, mean = row.returns, row.mean
    jitter = np.random.default_rng(y).uniform(-0.22, 0.22, len(returns))
    alpha = float(np.clip(12 / len(returns), 0.08, 0.35))
    axes.scatter(returns, y + jitter, s=16, color=colour, alpha=alpha, linewidths=0)
    if mean.known:
        axes.plot([mean.low, mean.high], [y, y], color=colour, linewidth=4, solid_capstyle="round", zorder=4)
    axes.scatter([mean.mean], [y], s=85, color=colour, edgecolors="white", linewidths=1.5, zorder=5)


def _columns(rows: Sequence[Standing]) -> list[tuple[str, list[str]]]:
    """Headings and cells to the right of the chart."""
    places = digits([row.returns for row in rows])
    columns = [("mean", [f"{row.mean.mean:.{places}f}" for row in rows])]
    if rows[0].success is not None:
        columns.append(("success", [percent(row.success, bounds=False) for row in rows]))
    columns.append(("ms/decision", [cost(row.milliseconds) for row in rows]))
    columns.append(("episodes", [str(len(row.episodes)) for row in rows]))
    return columns
