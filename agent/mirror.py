"""The game in a mirror: many worlds are their own mirror image, and what was seen once can be learned from twice.

In such a world a picture and what is done in it, both mirrored, are as likely as they were. So windows are mirrored at
random as they are read from memory, like flipped photographs where pictures are told apart, with LEFT and RIGHT (or UP
and DOWN) exchanged. Whether a world is symmetric nobody checks: whoever sets it says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..modules.memory import Window
from .config import Symmetry
from .interaction import VectorEnv

_OPPOSITE = {"horizontal": ("LEFT", "RIGHT"), "vertical": ("UP", "DOWN")}
_AXIS = {"horizontal": -2, "vertical": -3}  # of pictures [..., H, W, C]


@dataclass(frozen=True)
class Mirror:
    """One mirror: the axis of pictures ``[..., H, W, C]`` that it turns round, and what each action looks like in it
    ``[A]``."""

    axis: int
    action: Tensor


def mirrors(symmetry: Symmetry, env: VectorEnv) -> tuple[Mirror, ...]:
    """The mirrors of a world, by what its actions are called.

    Args:
        symmetry: horizontal: left and right may be exchanged; vertical: up and down; both: each, or one of them.
        env: Shows pictures; its base has ``action_meanings``, such as LEFT-UP.

    Raises:
        ValueError: There is a symmetry, and observations are no pictures, actions have no names, or one has no
            counterpart.
    """
    if symmetry == "none":
        return ()
    shape = env.single_observation_space.shape
    meanings = getattr(env.unwrapped, "action_meanings", None)
    if meanings is None or shape is None or len(shape) != 3:
        raise ValueError(
            f"model_loss.mirror is {symmetry}: only pictures can be mirrored, and only actions with names (Procgen, "
            "Sprite); set it to none"
        )
    axes = ("horizontal", "vertical") if symmetry == "both" else (symmetry,)
    names = tuple(str(meaning).upper() for meaning in meanings)
    return tuple(Mirror(_AXIS[axis], _counterparts(names, axis)) for axis in axes)


def _counterparts(meanings: tuple[str, ...], axis: str) -> Tensor:
    """Which action each one looks like ``[A]``.

    Raises:
        ValueError: One that is not among them.
    """
    one, other = _OPPOSITE[axis]
    swap = {one: other, other: one}
    found = ["-".join(swap.get(word, word) for word in meaning.split("-")) for meaning in meanings]
    for meaning, wanted in zip(meanings, found, strict=True):
        if wanted not in meanings:
            raise ValueError(
                f"model_loss.mirror is {axis}: {meaning} looks like {wanted} there, which is none of the actions "
                f"{', '.join(meanings)}; add it to env.actions or set model_loss.mirror to none"
            )
    return torch.tensor([meanings.index(meaning) for meaning in found])


def mirrored(window: Window, mirror: Mirror, chosen: Tensor) -> Window:
    """A window whose ``chosen`` streams ``[B]`` (bool) are seen in a mirror, plans and the past included.

    Args:
        window: Of pictures and discrete actions, without latents.
        mirror: Which.
        chosen: Where.
    """

    def pictures(seen: Tensor) -> Tensor:
        turned = seen.clone()
        turned[chosen] = seen[chosen].flip(mirror.axis)
        return turned

    def actions(taken: Tensor) -> Tensor:
        turned = taken.clone()
        turned[chosen] = mirror.action[taken[chosen]]
        return turned

    plan = window.plan.clone()
    plan[chosen] = window.plan[chosen][..., mirror.action]
    return replace(
        window,
        observation=pictures(window.observation),
        action=actions(window.action),
        plan=plan,
        course=actions(window.course),
        past=None if window.past is None else pictures(window.past),
    )


def at_random(window: Window, seen_in: tuple[Mirror, ...], generator: np.random.Generator) -> Window:
    """Each stream in each of the mirrors or not, as a coin falls; latents at rest are of what was seen, and stay."""
    if window.latent is not None:
        return window
    for mirror in seen_in:
        chosen = torch.from_numpy(generator.random(len(window.action)) < 0.5)
        window = mirrored(window, mirror, chosen)
    return window
