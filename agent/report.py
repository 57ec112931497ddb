"""Reports of comparisons: a table for the terminal, and files (CSV, JSON, chart, video) for a page or a paper."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import matplotlib
import numpy as np
from imageio.plugins.pyav import PyAVPlugin
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table
from rich.text import Text

from .evaluation import Result
from .statistics import Interval, iqm, mean_interval, probability_of_improvement, wilson

Picture = NDArray[np.uint8]

_COLOURS = {"mode-1": "#0072B2", "mode-2": "#D55E00", "random": "#7F7F7F", "oracle": "#009E73", "expert": "#AA4499"}
_OTHERS = ("#56B4E9", "#B8860B", "#882255", "#44AA99", "#332288")
_INK, _FAINT, _DARK = "#1F2328", "#656D76", (22, 24, 29)
_TILE, _BAR, _GAP = 256, 40, 8  # pixels: smallest side of a tile's picture, title bar, space around tiles


@dataclass(frozen=True)
class Report:
    """Where a report was written."""

    episodes: Path
    """CSV, a line per episode."""
    summary: Path
    """JSON: rows, comparisons and metadata."""
    chart: Path
    """PNG."""
    video: Path | None
    """MP4, where a row has pictures."""


@dataclass(frozen=True)
class _Summary:
    """A row and its statistics."""

    row: Result
    mean: Interval
    success: Interval | None
    decisions: float


def write_report(
    rows: Sequence[Result], title: str, folder: str | Path, metadata: Mapping[str, Any], fps: float = 15.0
) -> Report:
    """Write ``episodes.csv``, ``summary.json``, ``comparison.png`` and ``comparison.mp4`` into a folder.

    Each file is replaced at once or not at all. A video that an earlier report left in the folder is removed when no
    row has pictures now, since it would show other episodes than the numbers beside it.

    Args:
        rows: What is compared, in the order of the report; names must differ.
        title: Of chart and summary.
        folder: Made if it is missing.
        metadata: What is needed to repeat the comparison (command, seed, environment, git hash, versions, hardware,
            training budget); JSON types only.
        fps: Pictures per second of the video.

    Raises:
        ValueError: If there is nothing to report, a return is not finite, a picture is not uint8 ``[H, W, 3]``, the
            metadata are not JSON, or ``fps`` is not positive.
        OSError: If a file cannot be written; the message names it and says what to do.
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number of pictures per second.")
    summaries = _summarise(rows)
    document = _document(summaries, title, metadata)
    where = Path(folder)
    paths = where / "episodes.csv", where / "summary.json", where / "comparison.png", where / "comparison.mp4"
    with _explained(where):
        where.mkdir(parents=True, exist_ok=True)
    _write(paths[0], _csv(rows).encode())
    _write(paths[1], document.encode())
    colours = _colours(rows)
    _write(paths[2], _chart(summaries, title, colours))
    filmed = [row for row in rows if row.frames]
    if not filmed:
        with _explained(paths[3]):
            paths[3].unlink(missing_ok=True)
        return Report(*paths[:3], None)
    _write(paths[3], _film(filmed, fps, colours))
    return Report(*paths)


def table(rows: Sequence[Result], title: str) -> Table:
    """The comparison as a table for the terminal, rows in the order given.

    The column of successes is there only if an episode of any row succeeded.

    Raises:
        ValueError: If there is nothing to show, or a return is not finite.
    """
    summaries = _summarise(rows)
    digits, colours = _digits(summaries), _colours(rows)
    result = Table(title=Text(title), title_justify="left")
    result.add_column("behaviour", no_wrap=True)
    numbers = ["episodes", "mean return", "95 % interval", "success", "ms/decision", "predictor calls/decision"]
    shown = [name for name in numbers if name != "success" or summaries[0].success is not None]
    for name in shown:
        result.add_column(name, justify="right")
    result.add_column("note")
    for summary in summaries:
        row, mean = summary.row, summary.mean
        cells = {
            "episodes": str(len(row.episodes)),
            "mean return": f"{mean.mean:.{digits}f}",
            "95 % interval": f"{mean.low:.{digits}f} … {mean.high:.{digits}f}" if mean.known else "one episode: none",
            "success": _percent(summary.success),
            "ms/decision": _cost(row.milliseconds),
            "predictor calls/decision": _cost(row.calls),
        }
        head = Text(row.name, style=f"bold {colours[row.name]}")
        result.add_row(head, *(cells[name] for name in shown), Text(row.note))
    return result


def _summarise(rows: Sequence[Result]) -> tuple[_Summary, ...]:
    """Check the rows and work out their statistics."""
    if not rows:
        raise ValueError("There are no rows; a report needs the results of at least one behaviour.")
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            raise ValueError(f"{names.count(row.name)} rows are called {row.name!r}; give each row its own name.")
        if not row.episodes:
            raise ValueError(f"Row {row.name!r} has no episodes; evaluate it for at least one, or leave it out.")
        bad = np.flatnonzero(~np.isfinite(row.returns))
        if len(bad):
            raise ValueError(
                f"Row {row.name!r}, episode {bad[0]}: the return is {row.returns[bad[0]]}, expected a finite number; "
                "look for the reward that made it."
            )
    tasks = any(row.successes.any() for row in rows)
    return tuple(
        _Summary(
            row,
            mean_interval(row.returns),
            wilson(int(row.successes.sum()), len(row.episodes)) if tasks else None,
            float(np.mean([episode.decisions for episode in row.episodes])),
        )
        for row in rows
    )


def _csv(rows: Sequence[Result]) -> str:
    """A line per episode; returns in full precision, success as 0 or 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "index", "return", "decisions", "success", "level"))
    for row in rows:
        for index, episode in enumerate(row.episodes):
            total = repr(float(episode.total))
            writer.writerow((row.name, index, total, episode.decisions, int(episode.success), episode.level))
    return text.getvalue()


def _document(summaries: Sequence[_Summary], title: str, metadata: Mapping[str, Any]) -> str:
    """The summary as JSON; what is unknown is null."""

    def bounds(interval: Interval) -> list[float] | None:
        return [interval.low, interval.high] if interval.known else None

    rows: list[dict[str, Any]] = []
    for summary in summaries:
        row, success = summary.row, summary.success
        entry: dict[str, Any] = {
            "name": row.name,
            "episodes": len(row.episodes),
            "mean": summary.mean.mean,
            "interval": bounds(summary.mean),
            "iqm": iqm(row.returns),
        }
        if success is not None:
            entry |= {"success": success.mean, "success_interval": bounds(success)}
        entry |= {
            "decisions": summary.decisions,
            "ms_per_decision": float(row.milliseconds),
            "calls_per_decision": float(row.calls),
            "note": row.note,
        }
        rows.append(entry)
    improvement = {
        ours.row.name: {
            other.row.name: probability_of_improvement(ours.row.returns, other.row.returns)
            for other in summaries
            if other is not ours
        }
        for ours in summaries
        if ours.row.name.lower().startswith("mode-2")
    }
    document = {
        "title": title,
        "rows": rows,
        "probability_of_improvement": improvement,
        "intervals": "95 %: percentile bootstrap of the mean over episodes (10,000 samples, seed 0); success: Wilson",
        "metadata": dict(metadata),
    }
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The summary cannot be written as JSON ({error}); metadata and costs must be finite numbers, text, "
            "booleans, None, or lists and dicts of these."
        ) from error


def _chart(summaries: Sequence[_Summary], title: str, colours: Mapping[str, str]) -> bytes:
    """A PNG 1800 pixels wide, to be shown at 900: episodes, means with intervals, and what each decision costs."""
    rows = [summary.row for summary in summaries]
    names, head = [textwrap.fill(row.name, 26) for row in rows], textwrap.wrap(title, 72)
    foot = ["Large dot and bar: mean return with 95 % bootstrap interval. Small dots: single episodes."]
    foot += [line for row in rows if row.note for line in textwrap.wrap(f"{row.name}: {row.note}", 130)]
    columns = _columns(summaries)
    longest = max(len(line) for name in names for line in name.split("\n"))
    # All lengths are inches, from the top left.
    width, lane, pitch, left, top = 9.0, 0.5, 0.82, 0.35 + 0.094 * longest, 0.57 + 0.25 * max(len(head), 1)
    inside, across = lane * len(rows), width - left - 0.15 - pitch * len(columns)
    height = top + inside + 0.75 + 0.17 * len(foot)
    figure = Figure(figsize=(width, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 1 - (top + inside) / height, across / width, inside / height))
    _style(axes, len(rows))

    def put(
        x: float, y: float, text: str, size: float, colour: str = _INK, align: str = "right", weight: str = "normal"
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
        put(width - 0.2 - pitch * (len(columns) - 1 - x), top - 0.14, heading, 8.5, _FAINT)
    for index, summary in enumerate(summaries):
        y, colour = top + lane * (index + 0.5), colours[summary.row.name]
        _lane(axes, index, summary, colour)
        put(left - 0.12, y, names[index], 10.5, colour, weight="bold")
        for x, (_, cells) in enumerate(columns):
            put(width - 0.2 - pitch * (len(columns) - 1 - x), y, cells[index], 10)
    for line, text in enumerate(foot):
        put(0.2, top + inside + 0.68 + 0.17 * line, text, 8, _FAINT, "left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def _style(axes: Axes, lanes: int) -> None:
    """Quiet axes: returns along the bottom, a lane for each row from top to bottom."""
    axes.set_ylim(lanes - 0.5, -0.5)
    axes.margins(x=0.03)
    axes.set_yticks([])
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color("#B8BEC5")
    axes.tick_params(axis="x", colors=_FAINT, labelsize=9.5, length=3)
    axes.set_xlabel("return per episode", color=_FAINT, fontsize=9.5)


def _lane(axes: Axes, y: int, summary: _Summary, colour: str) -> None:
    """Draw one row: every episode faintly, the interval and the mean."""
    returns, mean = summary.row.returns, summary.mean
    jitter = np.random.default_rng(y).uniform(-0.22, 0.22, len(returns))
    alpha = float(np.clip(12 / len(returns), 0.08, 0.35))
    axes.scatter(returns, y + jitter, s=16, color=colour, alpha=alpha, linewidths=0)
    if mean.known:
        axes.plot([mean.low, mean.high], [y, y], color=colour, linewidth=4, solid_capstyle="round", zorder=4)
    axes.scatter([mean.mean], [y], s=85, color=colour, edgecolors="white", linewidths=1.5, zorder=5)


def _columns(summaries: Sequence[_Summary]) -> list[tuple[str, list[str]]]:
    """Headings and cells to the right of the chart."""
    digits = _digits(summaries)
    columns = [("mean", [f"{summary.mean.mean:.{digits}f}" for summary in summaries])]
    if summaries[0].success is not None:
        columns.append(("success", [_percent(summary.success, bounds=False) for summary in summaries]))
    columns.append(("ms/decision", [_cost(summary.row.milliseconds) for summary in summaries]))
    columns.append(("episodes", [str(len(summary.row.episodes)) for summary in summaries]))
    return columns


def _film(rows: Sequence[Result], fps: float, colours: Mapping[str, str]) -> bytes:
    """An MP4 of the rows side by side; who has ended stays on its last picture, darkened."""
    for row in rows:
        for index, frame in enumerate(row.frames):
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape != row.frames[0].shape:
                raise ValueError(
                    f"Row {row.name!r}: frames[{index}] is {frame.dtype} {list(frame.shape)}, expected uint8 pictures "
                    "[H, W, 3] of one size; film an environment made with render_mode='rgb_array'."
                )
    count = max(len(row.frames) for row in rows)
    # The index goes first, into room kept for it, so that browsers can play what has not arrived in full.
    options = {"moov_size": str(8192 + 64 * count)}
    video = io.BytesIO()
    with iio.imopen(video, "w", plugin=PyAVPlugin, extension=".mp4", options=options) as writer:
        writer.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
        for step in range(count):
            writer.write_frame(_beside([_tile(row, step, colours[row.name]) for row in rows]))
    return video.getvalue()


def _tile(row: Result, step: int, colour: str) -> Picture:
    """One row's picture at a step, enlarged, under a bar with its name and step."""
    last = len(row.frames) - 1
    frame = row.frames[min(step, last)]
    scale = -(-_TILE // min(frame.shape[:2]))
    picture = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    if step > last:
        picture = (picture * 0.45).astype(np.uint8)
    bar = Image.new("RGB", (picture.shape[1], _BAR), _DARK)
    draw = ImageDraw.Draw(bar)
    draw.rectangle((0, _BAR - 3, bar.width, _BAR), fill=colour)
    name, middle = row.name, (_BAR - 3) / 2
    small, bold = _font("DejaVuSans", 15), _font("DejaVuSans-Bold", 17)
    draw.text((bar.width - 4, middle), f"step {min(step, last) + 1}", font=small, fill=(170, 176, 184), anchor="rm")
    room = bar.width - 20 - small.getlength(f"step {last + 1}")
    while bold.getlength(name) > room and len(name) > 1:
        name = name.rstrip("…")[:-1] + "…"
    draw.text((4, middle), name, font=bold, fill="white", anchor="lm")
    return np.concatenate((np.asarray(bar), picture))


def _beside(tiles: Sequence[Picture]) -> Picture:
    """Tiles in one picture ``[H, W, 3]`` with even sides, which H.264 wants."""
    height = max(tile.shape[0] for tile in tiles) + 2 * _GAP
    width = sum(tile.shape[1] + _GAP for tile in tiles) + _GAP
    canvas = np.full((height + height % 2, width + width % 2, 3), _DARK, np.uint8)
    x = _GAP
    for tile in tiles:
        canvas[_GAP : _GAP + tile.shape[0], x : x + tile.shape[1]] = tile
        x += tile.shape[1] + _GAP
    return canvas


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the fonts that come with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), size)


def _colours(rows: Sequence[Result]) -> dict[str, str]:
    """Each row's colour: the same in every report for known behaviours, by position for others."""
    others = {row.name: _OTHERS[index % len(_OTHERS)] for index, row in enumerate(rows)}
    return {
        name: next((colour for known, colour in _COLOURS.items() if name.lower().startswith(known)), other)
        for name, other in others.items()
    }


def _digits(summaries: Sequence[_Summary]) -> int:
    """Decimals that suit the returns."""
    largest = max(float(np.abs(summary.row.returns).max()) for summary in summaries)
    return 2 if largest < 10 else 1 if largest < 1000 else 0


def _percent(rate: Interval | None, bounds: bool = True) -> str:
    """A success rate in per cent, with its Wilson bounds if they are wanted."""
    if rate is None:
        return ""
    mean = f"{100 * rate.mean:.0f} %"
    return f"{mean} ({100 * rate.low:.0f} … {100 * rate.high:.0f})" if bounds else mean


def _cost(amount: float) -> str:
    """A cost with two or more significant digits, however small or large."""
    if amount == 0 or amount >= 10:
        return f"{amount:,.0f}"
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2f}" if amount >= 0.01 else "<0.01"


def _write(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder, which takes the place of ``path`` once it is complete."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with _explained(path):
            temporary.write_bytes(content)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say which file could not be written, and what to do."""
    advice = {
        errno.ENOSPC: "Free some space on this disk, or write to a folder on another.",
        errno.EDQUOT: "Your disk quota is used up: free some space, or write to a folder on another disk.",
        errno.EACCES: "Choose a folder that you may write to, or change its permissions.",
        errno.EPERM: "Choose a folder that you may write to, or change its permissions.",
        errno.EROFS: "This disk is read-only; choose a folder on another.",
        errno.EEXIST: "There is a file of this name; choose another folder.",
        errno.ENOTDIR: "A part of this path is a file; choose another folder.",
        errno.EISDIR: "There is a folder of this name; move it away, or choose another folder.",
    }
    try:
        yield
    except OSError as error:
        code = error.errno or errno.EIO
        fix = advice.get(code, "Check the disk, or choose another folder.")
        raise OSError(code, f"Could not write {path}: {error.strerror or error}. {fix}") from error
