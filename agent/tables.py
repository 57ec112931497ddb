"""Tables of comparisons, the same for terminal and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from .aggregate import average, interquartile_mean, optimality_gap
from .scores import Normalisation, PublishedPoint
from .standings import Overall, Standing
from .style import cost, digits, many, number, percent

STATISTICS = {"IQM": interquartile_mean, "mean": average, "optimality gap": optimality_gap}
"""Over all runs and worlds, of normalised scores."""


@dataclass(frozen=True)
class Line:
    """A row of a table: its name, its cells, and whether it was measured here or published by others."""

    name: str
    cells: tuple[str, ...]
    measured: bool = True


@dataclass(frozen=True)
class Sheet:
    """A table: headings of all columns but the first, and lines. The last column holds words, the others numbers."""

    headings: tuple[str, ...]
    lines: tuple[Line, ...]


def world_sheet(
    places: Sequence[Standing], published: Sequence[PublishedPoint] = (), norm: Normalisation | None = None
) -> Sheet:
    """One world's rows in the order given, and PPO's published results below them.

    Columns that would be empty are left out.
    """
    places_after_comma = digits([place.returns for place in places])
    rows = [_cells(place, places_after_comma) for place in places]
    lines = [Line(place.name, tuple(row.values())) for place, row in zip(places, rows, strict=True)]
    for point in published:
        cells = dict.fromkeys(rows[0], "") | {
            "mean return": f"{point.unseen:.{places_after_comma}f}",
            "train levels": f"{point.train:.{places_after_comma}f}",
            "gap": f"{point.train - point.unseen:.{places_after_comma}f}",
            "normalised": "" if norm is None else f"{(point.unseen - norm.low) / (norm.high - norm.low):.3f}",
            "note": "published",
        }
        lines.append(Line(f"PPO, {many(point.steps)} steps", tuple(cells.values()), measured=False))
    headings = tuple(rows[0])
    kept = [i for i, name in enumerate(headings) if name == "note" or any(line.cells[i] for line in lines)]
    if all(len(place.unseen) == 1 for place in places):
        kept.remove(headings.index("runs"))
    shown = tuple(Line(line.name, tuple(line.cells[i] for i in kept), line.measured) for line in lines)
    return Sheet(tuple(headings[i] for i in kept), shown)


def _cells(place: Standing, places: int) -> dict[str, str]:
    mean = place.mean
    return {
        "runs": str(len(place.unseen)),
        "episodes": str(len(place.episodes)),
        "mean return": f"{mean.mean:.{places}f}",
        "95 % interval": f"{mean.low:.{places}f} … {mean.high:.{places}f}" if mean.known else "one episode: none",
        "train levels": number(place.train_mean, places, bounds=False),
        "gap": number(place.gap, places),
        "normalised": number(place.score, 3),
        "success": percent(place.success),
        "ms/decision": cost(place.milliseconds),
        "predictor calls/decision": cost(place.calls),
        "note": place.note,
    }


def overall_sheet(rows: Sequence[Overall]) -> Sheet:
    """Statistics over all worlds, and the chance of Mode-2 (the first such row, with its own budget) to beat each."""
    planners = sorted((row for row in rows if "mode-2" in row.name.lower()), key=lambda row: "·" in row.name)
    rival = planners[0] if planners else None
    headings = [f"{name}, normalised" for name in STATISTICS]
    if rival is not None:
        headings.append(f"P({rival.name} is better)")
    lines = []
    for row in rows:
        cells = [number(row.summary(statistic), 3) for statistic in STATISTICS.values()]
        if rival is not None:
            cells.append("" if row is rival else number(rival.beats(row), 2))
        lines.append(Line(row.name, (*cells, "")))
    return Sheet((*headings, "note"), tuple(lines))


def rich_table(sheet: Sheet, title: str, colours: Mapping[str, str]) -> Table:
    """The sheet for the terminal; names and notes are shown as they are, never read as markup."""
    result = Table(title=Text(title), title_justify="left")
    result.add_column("behaviour", no_wrap=True)
    for heading in sheet.headings:
        result.add_column(heading, justify="left" if heading == "note" else "right")
    for line in sheet.lines:
        style = f"bold {colours[line.name]}" if line.measured else "dim"
        cells = [Text(cell, style="" if line.measured else "dim") for cell in line.cells]
        result.add_row(Text(line.name, style=style), *cells)
    return result
