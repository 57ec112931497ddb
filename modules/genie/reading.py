"""Pictures and videos from files of any kind."""

from __future__ import annotations

import struct
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .containers import check_whole
from .video import resize

SUFFIXES = (".mp4", ".gif", ".webm", ".mkv", ".avi", ".mov")


def read_video(path: Path, every: int = 1, most: int | None = None) -> NDArray[np.uint8]:
    """The frames of a video ``[n, H, W, 3]``, every so many of them.

    Args:
        path: Of the file.
        every: Keep one of so many.
        most: Read on until so many are kept; all when None.

    Raises:
        ValueError: It cannot be read, was cut short, or shows nothing.
    """
    import av  # noqa: PLC0415  (only where videos are read)

    try:
        check_whole(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); remove it or let it be read") from error
    try:
        with av.open(str(path)) as container:
            kept = islice(container.decode(video=0), 0, None, every)
            frames = [frame.to_ndarray(format="rgb24") for frame in islice(kept, most)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a video ({error}); remove it or convert it to MP4") from error
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path} has {'frames of different sizes' if frames else 'no frames'}; remove or convert it")
    return np.stack(frames)


def read_prompt(path: Path, height: int, width: int, frames: int) -> NDArray[np.uint8]:
    """A picture, or the first frames of a video, as a clip to begin a dream with ``[F, height, width, 3]``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture or video {path}; name a file such as a PNG or an MP4")
    if path.suffix.lower() in SUFFIXES:
        return resize(read_video(path, most=frames), height, width)
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:  # Pillow's own
        raise ValueError(f"{path} cannot be read as a picture ({error}); convert it to PNG, or give an MP4") from error
    return resize(pixels[None], height, width)
