"""How numbers and charts of comparisons look."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .statistics import Interval

INK, FAINT, LINE, GRID = "#1F2328", "#656D76", "#B8BEC5", "#E6E8EB"
WIDTH = 9.0
"""Inches; pictures are 1800 pixels wide, to be shown at 900."""
_COLOURS = {
    "mode-1": "#0072B2",
    "mode-2": "#D55E00",
    "gated": "#CC79A7",
    "random": "#7F7F7F",
    "constant": "#444444",
    "oracle": "#009E73",
    "expert": "#AA4499",
    "ppo": "#8C6D1F",
}
_OTHERS = ("#56B4E9", "#B8860B", "#882255", "#44AA99", "#332288")


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Each row's colour: the same in every report for known behaviours, by position for others.

    A second row of one behaviour (another budget, another setting) gets a lighter shade of its colour; a row without a
    budget in its name keeps the full colour.
    """
    chosen: dict[str, str] = {}
    used: list[str] = []
    for index, name in sorted(enumerate(dict.fromkeys(names)), key=lambda row: ("·" in row[1], row[0])):
        plain = name.lower().rsplit(": ", 1)[-1]
        known = next((colour for start, colour in _COLOURS.items() if plain.startswith(start)), None)
        chosen[name] = _lighter(known, used.count(known)) if known else _OTHERS[index % len(_OTHERS)]
        used.append(known or "")
    return chosen


def _lighter(colour: str, times: int) -> str:
    """The colour moved towards white, more with every repetition but never pale."""
    share = 1 - 0.84**times
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(part + min(share, 0.55) * (255 - part)):02X}" for part in parts)


def digits(values: Sequence[NDArray[np.float64]]) -> int:
    """Decimals that suit returns of this size."""
    largest = max((float(np.abs(part).max()) for part in values if len(part)), default=0.0)
    return 2 if largest < 10 else 1 if largest < 1000 else 0


def percent(rate: Interval | None, bounds: bool = True) -> str:
    """A success rate in per cent, with its Wilson bounds if they are wanted."""
    if rate is None:
        return ""
    mean = f"{100 * rate.mean:.0f} %"
    return f"{mean} ({100 * rate.low:.0f} … {100 * rate.high:.0f})" if bounds else mean


def cost(amount: float) -> str:
    """A cost with two or more significant digits, however small or large."""
    if amount == 0 or amount >= 10:
        return f"{amount:,.0f}"
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2f}" if amount >= 0.01 else "<0.01"


def number(interval: Interval | None, places: int, bounds: bool = True) -> str:
    """A mean, with its interval where there is one and it is wanted."""
    if interval is None:
        return ""
    mean = f"{interval.mean:.{places}f}"
    known = bounds and interval.known
    return f"{mean} ({interval.low:.{places}f} … {interval.high:.{places}f})" if known else mean


def many(steps: float) -> str:
    """A number of steps or calls in short: 64, 200k, 1.5M."""
    if steps >= 1e6:
        return f"{steps / 1e6:.3g}M"
    return f"{steps / 1e3:.3g}k" if steps >= 10_000 else f"{steps:,.0f}"


def new_figure(height: float, title: str, subtitle: str = "") -> Figure:
    """A white figure with a heading, ``WIDTH`` wide and ``height`` inches high."""
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    shown = textwrap.shorten(title, 86, placeholder=" …")
    figure.text(0.022, 1 - 0.27 / height, shown, fontsize=13, weight="bold", color=INK, va="center", parse_math=False)
    for line, text in enumerate(textwrap.wrap(subtitle, 128)):
        y = 1 - (0.52 + 0.17 * line) / height
        figure.text(0.022, y, text, fontsize=8.5, color=FAINT, va="center", parse_math=False)
    return figure


def quiet(axes: Axes, grid: str = "both") -> None:
    """Axes that do not shout."""
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.xaxis.label.set_color(FAINT)
    axes.yaxis.label.set_color(FAINT)


def png(figure: Figure) -> bytes:
    """The figure as PNG, 200 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG; letters are drawn as paths, so it looks the same everywhere, and nothing in it is random."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "forethought", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
