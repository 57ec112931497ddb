"""Intrinsic cost: what the agent is made to feel. Fixed formulas of interoception without parameters (paper, p. 13)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .types import DRIVES, INTEROCEPTION

SAFETY = ("ending", "hazard")
"""Drives whose weights cannot be negative."""
GOAL_SCALE = 0.5
"""σ of the goal drive, in squared standard deviations of the latent."""
HAZARD_SCALE = 0.05
"""σ of the hazard drive, in widths of the world."""
FULL = 1.0
"""e* of the hunger drive: a full battery."""
_FLOOR = tuple(0.0 if name in SAFETY else -torch.inf for name in DRIVES)


@dataclass(frozen=True)
class IntrinsicCost:
    """IC(ι, u): energies of the drives, low is good. It has no parameters and cannot be assigned to.

    pleasure −reward; ending 1[the world ended the episode]; effort ‖a‖²; goal 1 − exp(−d/σ) of the latent distance
    d = ‖s − s_goal‖²/D. Latents far apart are all about equally far (d ≈ 2), so beyond σ the goal's energy is flat: no
    place is comfortable but the goal, and the way there is the critic's business.
    hunger (e* − e)² of the battery's charge e, least when it is full (homeostasis); hazard exp(−d/σ) of the distance d
    to the nearest hazard; novelty −(variance of the ensemble's predictions); agency −‖Pred(s, a) − Pred(s, no-op)‖²/D.
    The weights of *ending* and *hazard* cannot be negative: no configuration makes the agent seek its end or harm.
    """

    __slots__ = ()

    def __call__(self, interoception: Tensor, u: Tensor) -> Tensor:
        """Weighted energies ``[..., K]`` of interoception ``[..., I]`` under weights ``u [K]``; their sum is u·IC.

        Raises:
            ValueError: The last dimension is not the number of interoceptive channels, or u is not ``[K]``.
        """
        if interoception.shape[-1] != len(INTEROCEPTION):
            raise ValueError(
                f"interoception has {interoception.shape[-1]} channels, expected {len(INTEROCEPTION)}: "
                f"{', '.join(INTEROCEPTION)}"
            )
        if u.shape != (len(DRIVES),):
            raise ValueError(f"weights u have shape {tuple(u.shape)}, expected ({len(DRIVES)},): {', '.join(DRIVES)}")
        reward, ended, effort, distance, energy, hazard, disagreement, impact = interoception.unbind(-1)
        energies = (
            -reward, ended, effort, 1 - (-distance / GOAL_SCALE).exp(),
            (FULL - energy).square(), (-hazard / HAZARD_SCALE).exp(), -disagreement, -impact,
        )  # fmt: skip
        return floored(u) * torch.stack(energies, dim=-1)


def floored(weights: Tensor) -> Tensor:
    """Weights ``[K]`` that nothing can push below the safety floors: *ending* and *hazard* are never sought."""
    return weights.maximum(weights.new_tensor(_FLOOR))


def interoception(
    reward: Tensor,
    ended: Tensor,
    effort: Tensor,
    distance: Tensor | None = None,
    energy: Tensor | None = None,
    hazard_distance: Tensor | None = None,
    disagreement: Tensor | None = None,
    impact: Tensor | None = None,
) -> Tensor:
    """Assemble ι ``[..., I]`` from its sensors.

    Args:
        reward: Reward event ``[...]``.
        ended: 1 where the world ended the episode ``[...]``.
        effort: Squared norm of the action ``[...]``.
        distance: Mean squared latent distance to the goal ``[...]``, or None without a goal.
        energy: Charge of the battery ``[...]``, or None in a world without that sensor.
        hazard_distance: Distance to the nearest hazard ``[...]``, or None in a world without that sensor.
        disagreement: Variance of an ensemble's predictions ``[...]``, or None where it is not wanted.
        impact: ‖Pred(s, a) − Pred(s, no-op)‖²/D ``[...]``, or None where it is not wanted.
    """
    unknown = torch.zeros_like(reward)
    more = (distance, energy, hazard_distance, disagreement, impact)
    return torch.stack([reward, ended, effort, *[unknown if one is None else one for one in more]], dim=-1)


def seeking(distance: Tensor) -> Tensor:
    """Chance that the goal is not reached yet at a latent distance d: 1 − exp(−4·d/σ), 0 at the goal alone."""
    return 1 - (-4 * distance / GOAL_SCALE).exp()


def goal_distance(latent: Tensor, goal: Tensor) -> Tensor:
    """Mean squared distance ``[...]`` between latents ``[..., D]`` and a goal that broadcasts against them."""
    return (latent - goal).square().mean(-1)


def plan_energy(costs: Tensor, continuation: Tensor, terminal: Tensor, discount: float) -> Tensor:
    """F = Σ_{t=1..T} γ^t Π(continue) u·IC(ι[t]) + γ^T Π(continue) v·TC(s[T]) (LeCun 2022, pp. 10–13).

    A cost counts when the episode was still running *before* it, so the ending itself is felt and nothing after it.

    Args:
        costs: u·IC(ι[1…T]) ``[..., T]``.
        continuation: Chance to go on in ``s[1…T]``, ``[..., T]``.
        terminal: v·TC(s[T]) ``[...]``.
        discount: γ.
    """
    horizon = costs.shape[-1]
    steps = torch.arange(1, horizon + 1, device=costs.device, dtype=costs.dtype)
    alive = torch.cumprod(torch.cat([torch.ones_like(continuation[..., :1]), continuation], dim=-1), dim=-1)
    discounts = discount**steps
    return (discounts * alive[..., :-1] * costs).sum(-1) + discounts[-1] * alive[..., -1] * terminal
