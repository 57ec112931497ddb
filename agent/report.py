"""Reports of comparisons: tables for the terminal, and files (CSV, JSON, charts, films, one HTML page)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from .aggregate import Array
from .charts import comparison_chart
from .curves import (
    compute_chart,
    gap_chart,
    gate_chart,
    kind_of,
    learning_chart,
    main_rows,
    overall_chart,
    profile_chart,
    scaling_chart,
)
from .evaluation import Result
from .files import explained, write_whole
from .film import film
from .page import READING, Section, html_page
from .scores import PublishedPoint
from .standings import Overall, Scale, Standing, chance_to_beat, overall, standings
from .statistics import Interval, iqm
from .style import colours_of, png, svg
from .tables import STATISTICS, Sheet, overall_sheet, rich_table, world_sheet


@dataclass(frozen=True)
class Report:
    """Where a report was written."""

    episodes: Path
    """CSV, a line per episode."""
    summary: Path
    """JSON: rows, comparisons and metadata."""
    page: Path
    """HTML with everything in it."""
    charts: tuple[Path, ...]
    """PNG; each has an SVG of the same name beside it."""
    videos: tuple[Path, ...]
    """MP4, for each world where a row has pictures."""


@dataclass(frozen=True)
class References:
    """What is known from elsewhere about the worlds of a comparison, by id."""

    scale: Scale | None = None
    """Normalisation of returns."""
    published: Mapping[str, Sequence[PublishedPoint]] = field(default_factory=dict)
    """PPO's published learning curves."""


@dataclass(frozen=True)
class _Picture:
    """A chart: its file's name without ending, what it shows, and the figure."""

    name: str
    shows: str
    figure: Figure


@dataclass(frozen=True)
class _Part:
    """What the report has about one world, or about all together."""

    heading: str
    sheet: Sheet
    pictures: tuple[_Picture, ...]
    film: str
    filmed: tuple[Result, ...]


def write_report(
    rows: Sequence[Result],
    title: str,
    folder: str | Path,
    metadata: Mapping[str, Any],
    fps: float = 15.0,
    references: References | None = None,
) -> Report:
    """Write ``episodes.csv``, ``summary.json``, ``report.html``, charts (PNG and SVG) and films (MP4) into a folder.

    Each file is replaced at once or not at all. Charts and films that an earlier report left in the folder and this one
    does not have are removed, since they would show other episodes than the numbers beside them.

    Args:
        rows: What is compared, in the order of the report: one result per row, world, run and split.
        title: Of charts, summary and page.
        folder: Made if it is missing.
        metadata: What is needed to repeat the comparison (command, seed, environment, git hash, versions, hardware,
            training budget); JSON types only.
        fps: Pictures per second of the films.
        references: Normalisation and published results to show beside the rows.

    Raises:
        ValueError: If there is nothing to report, a return is not finite, a picture is not uint8 ``[H, W, 3]``, the
            metadata are not JSON, or ``fps`` is not positive.
        OSError: If a file cannot be written; the message names it and says what to do.
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number of pictures per second.")
    known = references or References()
    places = standings(rows, known.scale)
    colours = colours_of([place.name for place in places])
    parts = _parts(places, title, known, colours)
    films = [f"{part.film}.mp4" for part in parts if part.filmed]
    names = [picture.name for part in parts for picture in part.pictures]
    files = [f"{name}.{kind}" for name in names for kind in ("png", "svg")] + films
    document = _document(places, title, metadata, files, known)
    where = Path(folder)
    with explained(where):
        where.mkdir(parents=True, exist_ok=True)
    left_over = _files_of(where / "summary.json") - set(files)
    write_whole(where / "episodes.csv", _csv(rows).encode())
    write_whole(where / "summary.json", document.encode())
    sections = [_write_part(part, where, fps, colours) for part in parts]
    write_whole(where / "report.html", html_page(title, sections, metadata).encode())
    for name in left_over:
        with explained(where / name):
            (where / name).unlink(missing_ok=True)
    charts, videos = (tuple(where / name for name in group) for group in ([f"{name}.png" for name in names], films))
    return Report(where / "episodes.csv", where / "summary.json", where / "report.html", charts, videos)


def tables(rows: Sequence[Result], title: str, references: References | None = None) -> list[Table]:
    """The comparison as tables for the terminal: one for each world, and one over all where they can be compared.

    Columns that would be empty are left out: successes where no episode succeeded, gaps where no training levels were
    played, scores where no normalisation is known.

    Raises:
        ValueError: If there is nothing to show, or a return is not finite.
    """
    known = references or References()
    places = standings(rows, known.scale)
    colours = colours_of([place.name for place in places])
    found = []
    for world, mine in _by_world(places):
        heading = f"{title}: {world}" if _several(places) else title
        found.append(rich_table(_sheet(world, mine, known), heading, colours))
    if whole := _overall(places, known):
        found.append(rich_table(overall_sheet(whole), f"{title}: all worlds", colours))
    return found


def _parts(places: Sequence[Standing], title: str, known: References, colours: Mapping[str, str]) -> list[_Part]:
    """All that is shown, with the charts drawn."""
    parts = []
    if whole := _overall(places, known):
        panels = {name: {row.name: row.summary(f) for row in whole} for name, f in STATISTICS.items()}
        pictures = [_Picture("overall", "Normalised scores over all worlds", overall_chart(panels, title, colours))]
        profiles = _profiles(whole)
        pictures.append(
            _Picture(
                "overall-profile",
                "Performance profile over all worlds",
                profile_chart(profiles, f"{title}: all worlds", colours, "normalised score"),
            )
        )
        parts.append(_Part("All worlds", overall_sheet(whole), tuple(pictures), "", ()))
    for world, mine in _by_world(places):
        suffix = "-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", world) if _several(places) else ""
        heading = f"{title}: {world}" if suffix else title
        pictures = _charts(mine, heading, suffix, known.published.get(world, ()), colours)
        filmed = tuple(place.unseen[0] for place in mine if place.unseen[0].frames)
        sheet = _sheet(world, mine, known)
        parts.append(_Part(world or "Results", sheet, tuple(pictures), f"comparison{suffix}", filmed))
    return parts


def _profiles(whole: Sequence[Overall]) -> dict[str, Sequence[Sequence[Array]]]:
    """What profiles over all worlds count: runs where every row has several in every world, else all their episodes."""
    rows = [row for row in whole if "·" not in row.name] or list(whole)
    if min(len(runs) for row in rows for runs in row.tasks) > 1:
        return {row.name: row.tasks for row in rows}
    return {row.name: [[np.concatenate(runs)] for runs in row.tasks] for row in rows}


def _charts(
    places: Sequence[Standing],
    title: str,
    suffix: str,
    published: Sequence[PublishedPoint],
    colours: Mapping[str, str],
) -> list[_Picture]:
    """The charts of one world that its results allow."""
    profiles = {place.name: [[place.returns]] for place in main_rows(places)}  # over episodes
    drawn = (
        ("comparison", "Returns and costs", comparison_chart(places, title, colours)),
        ("scaling", "Return against predictor calls", scaling_chart(places, title, colours)),
        ("gate", "Return against planning", gate_chart(places, title, colours)),
        ("compute", "Return against thinking time", compute_chart(places, title, colours)),
        ("gap", "Training levels and unseen ones", gap_chart(places, title, colours)),
        ("learning", "Return against training steps", learning_chart(places, published, title, colours)),
        ("profile", "Performance profile", profile_chart(profiles, title, colours, "return of an episode")),
    )
    return [_Picture(f"{name}{suffix}", shows, figure) for name, shows, figure in drawn if figure is not None]


def _write_part(part: _Part, where: Path, fps: float, colours: Mapping[str, str]) -> Section:
    shown = []
    for picture in part.pictures:
        write_whole(where / f"{picture.name}.png", png(picture.figure))
        shown.append((picture.shows, svg(picture.figure)))
        write_whole(where / f"{picture.name}.svg", shown[-1][1])
    video = film(part.filmed, fps, colours) if part.filmed else None
    if video is not None:
        write_whole(where / f"{part.film}.mp4", video)
    return Section(part.heading, part.sheet, colours, shown, video)


def _sheet(world: str, places: Sequence[Standing], known: References) -> Sheet:
    norm = known.scale(world) if known.scale is not None else None
    return world_sheet(places, known.published.get(world, ()), norm)


def _overall(places: Sequence[Standing], known: References) -> tuple[Overall, ...]:
    return overall(places, known.scale) if known.scale is not None and _several(places) else ()


def _by_world(places: Sequence[Standing]) -> Iterator[tuple[str, list[Standing]]]:
    for world in dict.fromkeys(place.world for place in places):
        yield world, [place for place in places if place.world == world]


def _several(places: Sequence[Standing]) -> bool:
    return len({place.world for place in places}) > 1


def _csv(rows: Sequence[Result]) -> str:
    """A line per episode; returns in full precision, success as 0 or 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("world", "row", "run", "split", "index", "return", "decisions", "success", "level"))
    for row in rows:
        for index, episode in enumerate(row.episodes):
            total = repr(float(episode.total))
            numbers = (index, total, episode.decisions, int(episode.success), episode.level)
            writer.writerow((row.world, row.name, row.run, row.split, *numbers))
    return text.getvalue()


def _document(
    places: Sequence[Standing], title: str, metadata: Mapping[str, Any], files: Sequence[str], known: References
) -> str:
    """The summary as JSON; what is unknown is null."""
    document = {
        "title": title,
        "rows": [_entry(place) for place in places],
        "over_all_worlds": {
            row.name: {name: _interval(row.summary(f)) for name, f in STATISTICS.items()}
            for row in _overall(places, known)
        },
        "probability_of_improvement": [
            {"world": ours.world, "row": ours.name, "over": other.name} | _interval(chance_to_beat(ours, other))
            for ours in places
            for other in places
            if ours.world == other.world and ours is not other and kind_of(ours.name) == "mode-2"
        ],
        "published": {
            world: [{"steps": p.steps, "train": p.train, "unseen": p.unseen} for p in points]
            for world, points in known.published.items()
        },
        "reading": READING,
        "metadata": dict(metadata),
        "files": list(files),
    }
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The summary cannot be written as JSON ({error}); metadata and costs must be finite numbers, text, "
            "booleans, None, or lists and dicts of these."
        ) from error


def _entry(place: Standing) -> dict[str, Any]:
    """A row of one world."""
    optional = {"train": place.train_mean, "gap": place.gap, "score": place.score}
    entry: dict[str, Any] = {
        "name": place.name,
        "world": place.world,
        "runs": [result.run for result in place.unseen],
        "episodes": len(place.episodes),
        "mean": place.mean.mean,
        "interval": _bounds(place.mean),
        "iqm": iqm(place.returns),
    }
    entry |= {name: _interval(value) for name, value in optional.items() if value is not None}
    if place.success is not None:
        entry |= {"success": place.success.mean, "success_interval": _bounds(place.success)}
    return entry | {
        "decisions": place.decisions,
        "ms_per_decision": place.milliseconds,
        "calls_per_decision": place.calls,
        "training_steps": place.steps,
        "note": place.note,
    }


def _bounds(interval: Interval) -> list[float] | None:
    return [interval.low, interval.high] if interval.known else None


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": interval.mean, "interval": _bounds(interval)}


def _files_of(summary: Path) -> set[str]:
    """Charts and films of the report that this summary belongs to; none where there is no readable one."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        names = json.loads(summary.read_text(encoding="utf-8"))["files"]
        return {name for name in names if Path(name).name == name and Path(name).suffix in {".png", ".svg", ".mp4"}}
    return set()
