"""Drawing of the room worlds in numpy: Gaussian dots for the observations, larger pictures for people.

The 64-pixel observation of a world of side `L` samples it at the centres of its own pixels: world coordinate `p` falls
on pixel `(p + ½)·64/L − ½`, where whole numbers are pixel centres in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]

IMAGE_SIZE = 64
VIEW_SIZE = 224
_DOT_RADIUS = 4.0
"""A dot is drawn out to this many standard deviations; exp(-8)·255 < ½ leaves no trace in a byte."""


@dataclass(frozen=True)
class Layout:
    """The measures of a world that the shared code needs, in the world's own pixels."""

    side: int
    """Width and height of the world."""
    low: float
    """Smallest coordinate at which a dot or a goal may be placed."""
    high: float
    """Largest such coordinate."""
    wall_half: float
    """Half the thickness of the vertical wall as drawn."""
    door_half: float
    """Half the height of the door as drawn."""
    border: tuple[float, float]
    """Where the left (and upper) border line begins and ends; the others mirror it."""
    dot_std: float
    """Standard deviation of the dot's Gaussian."""
    success_radius: float
    """A goal is reached at a distance strictly below this."""
    action_limit: float
    """The action space is Box(-limit, limit)²."""


def rescale(position: Floats, side: int, size: int) -> Floats:
    """Map world coordinates of a world of `side` pixels to those of an image of `size` pixels."""
    return (position + 0.5) * (size / side) - 0.5


def dot_patches(centre: Floats, std: float, size: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Compute Gaussian dots on small windows that hold everything of them that a byte can show.

    Args:
        centre: Centres [n,2] as (x, y) in image pixels.
        std: Standard deviation in image pixels.
        size: Width and height of the image.

    Returns:
        The dots' values [n,P,P] in [0,1], and where they go: indices [n,P,P] into an image flattened to
        [size·size].
    """
    half = int(np.ceil(_DOT_RADIUS * std))
    width = 2 * half + 1
    corner = np.clip(np.rint(centre).astype(np.intp) - half, 0, size - width)  # n,2
    grid = corner[:, :, None] + np.arange(width)  # n,2,P
    profile = np.exp((grid - centre[:, :, None]) ** 2 / (-2.0 * std * std)).astype(np.float32)  # n,2,P
    values = profile[:, 1, :, None] * profile[:, 0, None, :]
    return values, grid[:, 1, :, None] * size + grid[:, 0, None, :]


def solid_mask(layout: Layout, wall: Floats, door: Floats, size: int) -> NDArray[np.float64]:
    """Return how much of each pixel the border and the wall cover: [n,size,size] in {0, 1}, sampled at pixel centres.

    Args:
        layout: The world's measures.
        wall: The wall's x [n].
        door: The door's centre y [n].
        size: Width and height of the image.
    """
    axis = (np.arange(size) + 0.5) * (layout.side / size) - 0.5  # world coordinates of the pixel centres
    first, last = layout.border
    edge = np.minimum(axis, layout.side - 1 - axis)  # distance from the nearer side of the world
    inside, line = edge >= first, (edge >= first) & (edge <= last)
    border = (line[:, None] & inside[None, :]) | (inside[:, None] & line[None, :])
    across = np.abs(axis - wall[:, None]) <= layout.wall_half  # n,x
    along = (np.abs(axis - door[:, None]) > layout.door_half) & inside  # n,y
    return (border | (along[:, :, None] & across[:, None, :])).astype(np.float64)


def paint_view(layout: Layout, position: Floats, goal: Floats, wall: Floats, door: Floats) -> Images:
    """Draw worlds for people: white floor, black walls, red dot, and a green ring as wide as the success radius.

    Args:
        layout: The world's measures.
        position: Dots [n,2] in world pixels.
        goal: Goals [n,2] in world pixels.
        wall: The wall's x [n].
        door: The door's centre y [n].

    Returns:
        Pictures [n,224,224,3] uint8.
    """
    scale = VIEW_SIZE / layout.side
    axis = np.arange(VIEW_SIZE, dtype=np.float64)
    picture = np.repeat(255.0 * (1.0 - solid_mask(layout, wall, door, VIEW_SIZE))[..., None], 3, axis=-1)
    for place, colour, is_ring in ((goal, (0.0, 150.0, 60.0), True), (position, (255.0, 0.0, 0.0), False)):
        centre = rescale(place, layout.side, VIEW_SIZE)
        squared = ((axis - centre[:, 1:]) ** 2)[:, :, None] + ((axis - centre[:, :1]) ** 2)[:, None, :]
        if is_ring:
            alpha = np.clip(2.0 - np.abs(np.sqrt(squared) - scale * layout.success_radius), 0.0, 1.0)
        else:
            alpha = np.exp(squared / (-2.0 * (scale * layout.dot_std) ** 2))
        picture += alpha[..., None] * (np.array(colour) - picture)
    return np.rint(picture).astype(np.uint8)
