"""The film of a comparison: the rows play side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio.v3 as iio
import matplotlib
import numpy as np
from imageio.plugins.pyav import PyAVPlugin
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .evaluation import Result

Picture = NDArray[np.uint8]

_DARK = (22, 24, 29)
_TILE, _BAR, _GAP = 256, 40, 8  # pixels: smallest side of a tile's picture, title bar, space around tiles


def film(rows: Sequence[Result], fps: float, colours: Mapping[str, str]) -> bytes:
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
