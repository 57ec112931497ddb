"""Violation of expectation: is what cannot happen more surprising than what did? (LeCun 2022, p. 45; tests E1, W4)

The energy of a transition is the prediction error of its latent. It is compared with the energies of transitions that
were tampered with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor

from ..modules.actions import ActionEncoder
from ..modules.world_model import WorldModel
from .statistics import auroc

SHIFT = 3
"""Steps by which the outcome of a time-shifted transition is late."""


@dataclass(frozen=True)
class Violations:
    """AUROC with which the energy tells real transitions from impossible ones; None where there were none to compare.

    Attributes:
        teleported: The outcome is that of another window: another time, episode or place.
        shifted: The outcome is from `SHIFT` steps later in the same episode.
        other_action: The outcome is the real one, but another action is said to have led there.
    """

    teleported: float | None
    shifted: float | None
    other_action: float | None


def transition_energy(world_model: WorldModel, latent: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
    """Mean squared error ``[...]`` of the predicted latent: low is expected, high is surprising.

    With a latent variable, that of the code which explains the outcome best: E(x, y) = min_z E(x, y, z).

    Args:
        world_model: Pred.
        latent: ``[..., D]`` before.
        action: ``[...]`` in the environment's units.
        outcome: ``[..., D]`` after.
    """
    with torch.no_grad():
        carry, _ = world_model.outcomes(world_model.begin(latent), world_model.actions(action))
        return (carry[0].mean(-2) - outcome.unsqueeze(-2)).square().mean(-1).amin(-1)


def other_actions(action: Tensor, encoder: ActionEncoder, generator: torch.Generator) -> Tensor:
    """Actions drawn at random that differ from ``action [N, ...]``: in each component where actions are discrete."""
    if not encoder.discrete:
        box = encoder.space
        assert isinstance(box, spaces.Box)
        draw = torch.rand(action.shape, generator=generator, device=action.device)
        return encoder.low + (encoder.high - encoder.low) * draw
    sizes = torch.tensor(encoder.sizes, device=action.device)
    choices = sizes[0] if encoder.scalar else sizes
    draw = torch.rand(action.shape, generator=generator, device=action.device)
    step = 1 + (draw * (choices - 1)).long()
    return (action + step.minimum((choices - 1).expand_as(step))) % choices


def violations(
    world_model: WorldModel, latent: Tensor, action: Tensor, known: Tensor, generator: torch.Generator
) -> Violations:
    """Compare the energies of real transitions with those of impossible ones.

    Args:
        world_model: In evaluation mode.
        latent: Of what was perceived ``[B, T+1, D]``; windows in random order, B ≥ 2.
        action: ``[B, T, ...]``.
        known: 1 where the outcome was seen within the same episode ``[B, T]``.
        generator: Draws the other actions.
    """
    before, after, seen = latent[:, :-1], latent[:, 1:], known > 0
    false = other_actions(action, world_model.actions, generator)
    real = transition_energy(world_model, before, action, after)
    teleported = transition_energy(world_model, before, action, after.roll(1, 0))
    wrong = transition_energy(world_model, before, false, after)
    late = transition_energy(world_model, before[:, :-SHIFT], action[:, :-SHIFT], after[:, SHIFT:])
    return Violations(
        _tells(teleported[seen], real[seen]),
        _tells(late[seen[:, SHIFT:]], real[:, : late.shape[1]][seen[:, SHIFT:]]),
        _tells(wrong[seen], real[seen]),
    )


def _tells(impossible: Tensor, real: Tensor) -> float | None:
    return auroc(impossible.cpu().numpy(), real.cpu().numpy()) if len(real) else None
