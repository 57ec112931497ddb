"""The comparison as one HTML page: tables, charts and films are inside it, and nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .tables import Sheet

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2328;background:#fff;max-width:960px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #d8dbdf;padding-bottom:.2em}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.82em;margin:1em 0}
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #e6e8eb;white-space:nowrap;vertical-align:top}
th{color:#656d76;font-weight:600;white-space:normal;vertical-align:bottom}
th:first-child,td:first-child,th.words,td.words{text-align:left}td.words{white-space:normal;min-width:14em}
tr.published td{color:#656d76}img,video{display:block;max-width:100%;margin:1.2em 0}
pre{background:#f6f8fa;padding:1em;overflow-x:auto;font-size:.8em}p.note{color:#656d76;font-size:.9em}
"""
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

READING = (
    "Returns are undiscounted sums of reward. One run: the 95 % interval is a percentile bootstrap of the mean over "
    "episodes, and says how well this run was measured. Several runs: it is over runs, resampled within each world. "
    "Over worlds: IQM is the mean of the middle half of all run scores; the optimality gap is what is missing to a "
    "score of 1; P(better) counts pairs of runs (of single runs: episodes), ties as half. Gap: training levels less "
    "unseen ones. Success: Wilson's interval."
)
"""How the numbers are to be read."""


@dataclass(frozen=True)
class Section:
    """A part of the page: one world, or all together."""

    heading: str
    sheet: Sheet
    colours: Mapping[str, str]
    charts: Sequence[tuple[str, bytes]]
    """What each picture shows, and the picture as SVG."""
    film: bytes | None = None
    """MP4."""


def html_page(title: str, sections: Sequence[Section], metadata: Mapping[str, Any]) -> str:
    """The page as text. Everything that comes from outside is escaped, and a policy forbids to fetch or run anything.

    Args:
        title: Heading.
        sections: From top to bottom.
        metadata: Shown at the end.
    """
    body = "\n".join(_section(section) for section in sections)
    facts = escape(json.dumps(dict(metadata), indent=2, ensure_ascii=False))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
<h2>How to read this</h2>
<p class="note">{escape(READING)}</p>
<h2>How it was made</h2>
<pre>{facts}</pre>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>", _table(section.sheet, section.colours)]
    parts += [
        f'<img alt="{escape(name)}" src="{_inline("image/svg+xml", picture)}">' for name, picture in section.charts
    ]
    if section.film is not None:
        parts.append(f'<video controls loop muted playsinline src="{_inline("video/mp4", section.film)}"></video>')
    return "\n".join(parts)


def _table(sheet: Sheet, colours: Mapping[str, str]) -> str:
    kinds = ["words" if heading == "note" else "" for heading in sheet.headings]
    head = "".join(f'<th class="{kind}">{escape(h)}</th>' for h, kind in zip(sheet.headings, kinds, strict=True))
    lines = []
    for line in sheet.lines:
        cells = "".join(f'<td class="{kind}">{escape(c)}</td>' for c, kind in zip(line.cells, kinds, strict=True))
        colour = f' style="color:{colours[line.name]};font-weight:600"' if line.measured else ""
        kind = "" if line.measured else ' class="published"'
        lines.append(f"<tr{kind}><td{colour}>{escape(line.name)}</td>{cells}</tr>")
    return f'<div class="wide"><table>\n<tr><th>behaviour</th>{head}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def _inline(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
