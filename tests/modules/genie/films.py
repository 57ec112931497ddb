"""Small video files."""

from __future__ import annotations

from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np

CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}


def film(path: Path, frames: int = 12, height: int = 32, width: int = 48, shade: int = 0) -> Path:
    """A video whose brightness grows from frame to frame."""
    levels = (shade + 10 * np.arange(frames)).astype(np.uint8)
    return save(path, np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)))


def noise(path: Path, frames: int = 10, **options: str) -> Path:
    """A video that no codec makes small, so that every part of the file holds pictures; options of the container."""
    return save(path, np.random.default_rng(0).integers(256, size=(frames, 32, 48, 3)).astype(np.uint8), **options)


def save(path: Path, video: np.ndarray, **options: str) -> Path:
    """Write frames uint8 ``[n, H, W, 3]`` in the way that the file's name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        iio.imwrite(path, video, loop=0)
        return path
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=10)
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The beginning of a file."""
    content = source.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
