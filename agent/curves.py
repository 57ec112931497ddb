"""Curves of a comparison: what thinking buys, what compute buys, what is lost on unseen levels, how runs spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .aggregate import Array, performance_profile
from .scores import PublishedPoint
from .standings import Standing
from .statistics import Interval
from .style import FAINT, INK, LINE, WIDTH, many, new_figure, quiet

_LEVEL = ("random", "constant", "oracle", "expert", "no-op")  # drawn as levels, not as points of a curve
_PUBLISHED = "#8C6D1F"
_GATED = ("mode-1", "mode-2", "gated", "random-gate")


@dataclass(frozen=True)
class _Point:
    x: float
    place: Standing


def kind_of(name: str) -> str:
    """What a row is, without its setting: "mode-2" of "big: mode-2 · 256 calls"."""
    return name.lower().rsplit(": ", 1)[-1].split(" ")[0]


def setting_of(name: str) -> str:
    """The setting before a row's kind, empty where there is one alone."""
    return name.rsplit(": ", 1)[0] if ": " in name else ""


def scaling_chart(rows: Sequence[Standing], title: str, colours: Mapping[str, str]) -> Figure | None:
    """Return against predictor calls per decision, a line per setting; None where fewer than two budgets were played.

    Mode-1 is the point at 0. Random play and upper bounds are levels across the chart.
    """
    lines: dict[str, list[_Point]] = {}
    for row in rows:
        if kind_of(row.name) in {"mode-1", "mode-2"}:
            lines.setdefault(setting_of(row.name), []).append(_Point(row.calls, row))
    if max((len({point.x for point in line}) for line in lines.values()), default=0) < 3:
        return None
    figure = new_figure(4.6, title, "Mean return on unseen levels or starts with 95 % intervals; at 0 calls: Mode-1")
    axes = figure.add_axes((0.09, 0.125, 0.705, 0.7))
    quiet(axes)
    budgets = sorted({round(point.x) for line in lines.values() for point in line})
    smallest = min((budget for budget in budgets if budget > 0), default=1)
    axes.set_xscale("symlog", base=4, linthresh=smallest, linscale=0.6)
    for index, (setting, line) in enumerate(lines.items()):
        line.sort(key=lambda point: point.x)
        colour = _line_colour(line, colours) if len(lines) == 1 else f"C{index}"
        axes.plot([p.x for p in line], [p.place.mean.mean for p in line], color=colour, linewidth=1.8, zorder=3)
        for point in line:
            dot = colours[point.place.name] if len(lines) == 1 else colour
            _with_bar(axes, point.x, point.place.mean, dot)
        last = line[-1]
        _beside(axes, setting or "planning", last.place.mean.mean, colour)
    _levels(axes, rows, colours)
    apart = [b for i, b in enumerate(budgets) if i == len(budgets) - 1 or b * 1.6 < budgets[i + 1] or not b]
    axes.set_xticks(apart, [many(budget) for budget in apart], minor=False)
    axes.minorticks_off()
    axes.set_xlim(-0.25 * smallest, 1.5 * max(budgets))
    axes.set_xlabel("predictor calls per decision", fontsize=9.5)
    axes.set_ylabel("return per episode", fontsize=9.5)
    return figure


def gate_chart(rows: Sequence[Standing], title: str, colours: Mapping[str, str]) -> Figure | None:
    """Return against compute over the gate's thresholds; None without Mode-2 and at least two gates.

    From Mode-1 through the gates to Mode-2, whose predictor calls are 100 %; dashed: gates that only chance opens. The
    shaded corner is at least 90 % of Mode-2's return at no more than 30 % of its calls.
    """
    settings: dict[str, list[Standing]] = {}
    for row in rows:
        if kind_of(row.name) in _GATED and not (kind_of(row.name) == "mode-2" and "·" in row.name):
            settings.setdefault(setting_of(row.name), []).append(row)
    full = {name: next((r for r in line if kind_of(r.name) == "mode-2"), None) for name, line in settings.items()}
    shown = {
        name: (line, whole)
        for name, line in settings.items()
        if (whole := full[name]) is not None and sum(kind_of(row.name) == "gated" for row in line) > 1
    }
    if not shown:
        return None
    subtitle = "Mean return on unseen levels or starts with 95 % intervals; dashed: planning when chance has it"
    figure = new_figure(4.6, title, subtitle)
    axes = figure.add_axes((0.09, 0.125, 0.705, 0.7))
    quiet(axes)
    for setting, (line, whole) in shown.items():
        for kind, style in (("gated", "-"), ("random-gate", (0, (4, 2)))):
            ends = [row for row in line if kind_of(row.name) in {"mode-1", "mode-2"}]
            points = sorted((row for row in line if kind_of(row.name) == kind), key=lambda row: row.calls)
            if not points:
                continue
            path = sorted([*ends, *points], key=lambda row: row.calls)
            x = [100 * row.calls / whole.calls for row in path]
            colour = colours[points[0].name]
            axes.plot(x, [row.mean.mean for row in path], color=colour, linestyle=style, linewidth=1.8, zorder=3)
            for place, row in zip(x, path, strict=True):
                _with_bar(axes, place, row.mean, colours[row.name])
        if len(shown) == 1 and whole.mean.mean > 0:
            top = axes.get_ylim()[1]
            axes.fill_between(
                [0, 30], [0.9 * whole.mean.mean] * 2, [max(top, whole.mean.mean)] * 2, color=LINE, alpha=0.3
            )
        _beside(axes, setting or "mode-2", whole.mean.mean, colours[whole.name])
    _levels(axes, rows, colours)
    axes.set_xlabel("predictor calls, per cent of Mode-2's", fontsize=9.5)
    axes.set_ylabel("return per episode", fontsize=9.5)
    return figure


def compute_chart(rows: Sequence[Standing], title: str, colours: Mapping[str, str]) -> Figure | None:
    """Return against milliseconds per decision, a point per row; None for fewer than two rows."""
    if len(rows) < 2:
        return None
    figure = new_figure(4.6, title, "Mean return on unseen levels or starts with 95 % intervals, against thinking time")
    axes = figure.add_axes((0.09, 0.125, 0.875, 0.7))
    quiet(axes)
    axes.set_xscale("log")
    for index, row in enumerate(sorted(rows, key=lambda row: row.milliseconds)):
        x = max(row.milliseconds, 1e-3)
        _with_bar(axes, x, row.mean, colours[row.name])
        _label(axes, row.name.replace("mode-2 · ", ""), x, row.mean.mean, colours[row.name], up=index % 2 == 0)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.16)  # room for the last name
    axes.set_xlabel("milliseconds per decision", fontsize=9.5)
    axes.set_ylabel("return per episode", fontsize=9.5)
    return figure


def gap_chart(rows: Sequence[Standing], title: str, colours: Mapping[str, str]) -> Figure | None:
    """Return on training levels and on unseen ones, joined by their gap; None where no training levels were played."""
    shown = [row for row in rows if row.train_mean is not None]
    if not shown:
        return None
    height = 1.45 + 0.42 * len(shown)
    figure = new_figure(height, title, "Open: the levels of training. Filled: unseen levels. Bars: 95 % intervals")
    left = 0.35 + 0.088 * max(len(row.name) for row in shown)
    axes = figure.add_axes((left / WIDTH, 0.6 / height, (WIDTH - left - 2.0) / WIDTH, 0.42 * len(shown) / height))
    quiet(axes, "x")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [row.name for row in shown], parse_math=False)
    for index, (row, label) in enumerate(zip(shown, axes.get_yticklabels(), strict=True)):
        colour, train, unseen = colours[row.name], row.train_mean, row.mean
        assert train is not None and row.gap is not None
        label.set(color=colour, weight="bold", fontsize=10)
        axes.plot([train.mean, unseen.mean], [index, index], color=colour, linewidth=1.2, alpha=0.6)
        for place, interval, face in ((index - 0.13, train, "white"), (index + 0.13, unseen, colour)):
            if interval.known:
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2, alpha=0.45)
            axes.scatter([interval.mean], [index], s=62, facecolors=face, edgecolors=colour, linewidths=1.6, zorder=4)
        bounds = f" ({row.gap.low:+.2g} … {row.gap.high:+.2g})" if row.gap.known else ""
        text = f"gap {row.gap.mean:+.2g}{bounds}"
        axes.annotate(text, (1.01, index), xycoords=("axes fraction", "data"), fontsize=8, color=FAINT, va="center")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("return per episode", fontsize=9.5)
    return figure


def profile_chart(
    rows: Mapping[str, Sequence[Sequence[Array]]], title: str, colours: Mapping[str, str], axis: str
) -> Figure:
    """Which share of runs (of single runs: episodes) gets more than τ, for every row, with 95 % bands.

    Args:
        rows: By name, scores as tasks × runs × episodes.
        title: Heading.
        colours: By name.
        axis: What τ is.
    """
    pooled = np.concatenate([run for tasks in rows.values() for runs in tasks for run in runs])
    low, high = float(pooled.min()), float(pooled.max())
    room = 0.5 if low == high else 0.0  # where all scores are one, the fall is to be seen all the same
    tau = np.linspace(low - room, high + room, 161)
    figure = new_figure(4.6, title, "Performance profile with 95 % bootstrap bands; a curve further right is better")
    axes = figure.add_axes((0.075, 0.125, 0.66, 0.7))
    quiet(axes)
    for name, tasks in rows.items():
        profile = performance_profile(tasks, tau, repetitions=500)
        colour = colours[name]
        axes.fill_between(tau, profile.low, profile.high, step="post", color=colour, alpha=0.13, linewidth=0)
        axes.step(tau, profile.share, where="post", color=colour, linewidth=1.8, label=name)
    axes.set_ylim(-0.02, 1.03)
    axes.set_xlabel(f"{axis} τ", fontsize=9.5)
    axes.set_ylabel("share above τ", fontsize=9.5)
    legend = axes.legend(
        frameon=False, fontsize=9, labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def learning_chart(
    rows: Sequence[Standing], published: Sequence[PublishedPoint], title: str, colours: Mapping[str, str]
) -> Figure | None:
    """Return on unseen levels against environment steps of training, beside PPO's published curve; None without one."""
    trained = [row for row in main_rows(rows) if row.steps]
    if not published or not trained:
        return None
    figure = new_figure(4.6, title, "Unseen levels; line: PPO's published curve (200 easy levels, mean of 3 runs)")
    axes = figure.add_axes((0.09, 0.125, 0.875, 0.7))
    quiet(axes)
    axes.set_xscale("log")
    steps = [point.steps for point in published]
    axes.plot(steps, [point.unseen for point in published], color=_PUBLISHED, linewidth=1.8, marker="o", markersize=4)
    axes.annotate(
        "PPO, published",
        (steps[-1], published[-1].unseen),
        xytext=(0, 8),
        textcoords="offset points",
        fontsize=8.5,
        color=_PUBLISHED,
        weight="bold",
        ha="right",
    )
    for index, row in enumerate(sorted(trained, key=lambda row: -row.mean.mean)):  # the better one's name above
        _with_bar(axes, row.steps, row.mean, colours[row.name])
        _label(axes, row.name, row.steps, row.mean.mean, colours[row.name], up=index % 2 == 0)
    _levels(axes, [row for row in rows if not row.steps], colours)
    axes.set_xlabel("environment steps of training", fontsize=9.5)
    axes.set_ylabel("return per episode", fontsize=9.5)
    return figure


def overall_chart(panels: Mapping[str, Mapping[str, Interval]], title: str, colours: Mapping[str, str]) -> Figure:
    """Statistics over all worlds, a panel for each: rows from top to bottom, points with 95 % intervals.

    Args:
        panels: Statistics by panel and row.
        title: Heading.
        colours: Of the rows.
    """
    names = list(next(iter(panels.values())))
    height = 1.45 + 0.36 * len(names)
    figure = new_figure(height, title, "Over all runs and worlds, 95 % stratified-bootstrap intervals")
    left = 0.35 + 0.088 * max(len(name) for name in names)
    width = (WIDTH - left - 0.2) / len(panels)
    for index, (panel, rows) in enumerate(panels.items()):
        place = ((left + index * width) / WIDTH, 0.45 / height, (width - 0.3) / WIDTH, 0.36 * len(names) / height)
        axes = figure.add_axes(place)
        quiet(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(panel, fontsize=10, color=INK, loc="left", pad=5)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names), parse_math=False)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set(color=colours[name], weight="bold", fontsize=10)
        for y, (name, interval) in enumerate(rows.items()):
            if interval.known:
                axes.plot([interval.low, interval.high], [y, y], color=colours[name], linewidth=4, alpha=0.5)
            axes.scatter([interval.mean], [y], s=55, color=colours[name], zorder=4)
    return figure


def _label(axes: Axes, text: str, x: float, y: float, colour: str, up: bool) -> None:
    """A name at the upper or the lower right of its point."""
    axes.annotate(
        text,
        (x, y),
        xytext=(6, 5 if up else -11),
        textcoords="offset points",
        fontsize=8.5,
        color=colour,
        weight="bold",
        parse_math=False,
    )


def main_rows(rows: Sequence[Standing]) -> list[Standing]:
    """Rows without the budgets of a planning-scaling curve, where Mode-2 is there with its own budget."""
    full = any(kind_of(row.name) == "mode-2" and "·" not in row.name for row in rows)
    return [row for row in rows if not (full and "·" in row.name)]


def _line_colour(line: Sequence[_Point], colours: Mapping[str, str]) -> str:
    names = [point.place.name for point in line if kind_of(point.place.name) == "mode-2"]
    return colours[next((name for name in names if "·" not in name), (names or [line[0].place.name])[0])]


def _with_bar(axes: Axes, x: float, interval: Interval, colour: str) -> None:
    if interval.known:
        axes.plot([x, x], [interval.low, interval.high], color=colour, linewidth=2.5, alpha=0.45, zorder=3)
    axes.scatter([x], [interval.mean], s=52, color=colour, edgecolors="white", linewidths=1.2, zorder=5)


def _beside(axes: Axes, text: str, y: float, colour: str) -> None:
    axes.annotate(
        text,
        (1.01, y),
        xycoords=("axes fraction", "data"),
        fontsize=9,
        color=colour,
        weight="bold",
        va="center",
        parse_math=False,
    )


def _levels(axes: Axes, rows: Sequence[Standing], colours: Mapping[str, str]) -> None:
    for row in rows:
        if kind_of(row.name) in _LEVEL:
            axes.axhline(row.mean.mean, color=colours[row.name], linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
            axes.annotate(
                row.name,
                (0.995, row.mean.mean),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                fontsize=8.5,
                color=colours[row.name],
                ha="right",
                parse_math=False,
            )
