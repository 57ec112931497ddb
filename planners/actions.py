"""Action sequences in a space: bounds, categorical components, joint actions, holding and clipping.

Internally every action sequence is ``[B, S, T, A]``, also for Discrete (A = 1). F = ceil(T / hold) is the number of
actions that are free when each is kept for ``hold`` steps; search distributions live at F, plans at T. The
distributions of MultiDiscrete lie one behind the other in a vector of N = sum(nvec) probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .types import ActionSpace

JOINT_ACTIONS = 256
"""Most joint actions J of a MultiDiscrete that planners try one by one."""


def bounds(action_space: spaces.Box, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Lowest and highest action ``[A]`` in float32, rounded inwards so that float64 bounds hold exactly."""
    with np.errstate(over="ignore"):
        low, high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)
        low = np.where(low < action_space.low, np.nextafter(low, np.float32(np.inf)), low)
        high = np.where(high > action_space.high, np.nextafter(high, np.float32(-np.inf)), high)
        span = high - low
    if not np.isfinite(span).all():
        raise ValueError(f"expected a bounded Box, got {action_space}: rescale actions to finite bounds with a wrapper")
    if (span < 0).any():
        raise ValueError(f"no float32 number lies inside every dimension of {action_space}: widen its bounds")
    return torch.from_numpy(low).to(device), torch.from_numpy(high).to(device)


@dataclass(frozen=True)
class Components:
    """The categorical components of a Discrete or MultiDiscrete space, N = sum(sizes) probabilities in one vector.

    Attributes:
        sizes: Number of actions of each component ``[A]``.
        offsets: Where each component starts in the vector ``[A]``.
        owner: To which component each probability belongs ``[N]``.
        uniform: The uniform probabilities ``[N]``.
    """

    sizes: Tensor
    offsets: Tensor
    owner: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, action_space: spaces.Discrete | spaces.MultiDiscrete, device: torch.device | str) -> Components:
        """The components of an action space, with tensors on the device."""
        sizes = np.atleast_1d(action_space.n if isinstance(action_space, spaces.Discrete) else action_space.nvec)
        sizes = sizes.astype(np.int64)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        uniform = (1.0 / sizes)[owner].astype(np.float32)
        arrays = (sizes, np.cumsum(sizes) - sizes, owner, uniform)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def normalise(self, weights: Tensor) -> Tensor:
        """Weights ``[..., N]`` divided by the sum of their component."""
        parts = torch.split(weights, self.sizes.tolist(), -1)
        return torch.cat([part / part.sum(-1, keepdim=True) for part in parts], -1)


def clip(actions: Tensor, action_space: ActionSpace) -> Tensor:
    """Actions ``[..., A]`` (Discrete: ``[...]``) moved to the nearest action inside the space."""
    if isinstance(action_space, spaces.Box):
        low, high = bounds(action_space, actions.device)
        return actions.to(low.dtype).clamp(low, high)
    if isinstance(action_space, spaces.Discrete):
        return actions.clamp(0, int(action_space.n) - 1)
    return actions.clamp(min=0).minimum(Components.of(action_space, actions.device).sizes - 1)


def uniform(
    action_space: ActionSpace,
    batch: int,
    candidates: int,
    horizon: int,
    generator: torch.Generator,
    *,
    hold: int = 1,
) -> Tensor:
    """Action sequences drawn uniformly from the space, each action kept for ``hold`` steps.

    Returns:
        ``[B, S, T]`` int64 (Discrete), ``[B, S, T, A]`` float32 (Box) or ``[B, S, T, A]`` int64 (MultiDiscrete).
    """
    shape, device = (batch, candidates, math.ceil(horizon / hold)), generator.device
    if isinstance(action_space, spaces.Discrete):
        actions = torch.randint(int(action_space.n), shape, generator=generator, device=device)
    elif isinstance(action_space, spaces.Box):
        low, high = bounds(action_space, device)
        actions = torch.rand(*shape, len(low), generator=generator, device=device)
        actions.mul_(high - low).add_(low).clamp_(low, high)
    else:
        sizes = Components.of(action_space, device).sizes
        draws = torch.rand(*shape, len(sizes), generator=generator, device=device)
        actions = draws.mul_(sizes).long().minimum(sizes - 1)  # the product may round up to the size
    return repeat(actions, hold, horizon, dim=2)


def spread(action_space: ActionSpace, batch: int, candidates: int, horizon: int, generator: torch.Generator) -> Tensor:
    """Courses that keep one action each, drawn so that together they cover every component's range evenly.

    Box: a Latin hypercube (McKay et al. 1979), one draw in each of S equal parts of every component. Discrete and
    MultiDiscrete: every value of a component as often as any other, give or take one.

    Returns:
        As `uniform`, constant along T.
    """
    device = generator.device

    def ranks(width: int) -> Tensor:
        """Random orders of 0 … S − 1 ``[B, S, width]``."""
        return torch.rand(batch, candidates, width, generator=generator, device=device).argsort(dim=1)

    if isinstance(action_space, spaces.Box):
        low, high = bounds(action_space, device)
        within = torch.rand(batch, candidates, len(low), generator=generator, device=device)
        share = (ranks(len(low)) + within) / candidates
        actions = share.mul_(high - low).add_(low).clamp_(low, high)
    else:
        scalar = isinstance(action_space, spaces.Discrete)
        sizes = Components.of(action_space, device).sizes
        first = torch.rand(batch, 1, len(sizes), generator=generator, device=device).mul(sizes).long()
        actions = (ranks(len(sizes)) + first) % sizes
        actions = actions.squeeze(-1) if scalar else actions
    return actions.unsqueeze(2).expand(batch, candidates, horizon, *actions.shape[2:]).contiguous()


def repeat(values: Tensor, hold: int, horizon: int, dim: int) -> Tensor:
    """F values along ``dim``, each repeated ``hold`` times and cut to the horizon, contiguous."""
    if hold > 1:
        values = values.repeat_interleave(hold, dim).narrow(dim, 0, horizon)
    return values.contiguous()


def block_mean(values: Tensor, hold: int) -> Tensor:
    """Mean ``[B, F, A]`` of every ``hold`` consecutive steps of ``[B, T, A]``; the last block may be shorter."""
    if hold == 1:
        return values
    batch, horizon, width = values.shape
    missing = -horizon % hold
    padded = torch.nn.functional.pad(values, (0, 0, 0, missing))
    means = padded.view(batch, -1, hold, width).mean(2)
    means[:, -1] *= hold / (hold - missing)
    return means


def joint_actions(planner: str, action_space: ActionSpace, components: Components) -> Tensor:
    """Every action of a Discrete or MultiDiscrete space, for planners that try them one by one.

    Returns:
        ``[J, A]`` int64 (A = 1 for Discrete), the last component counting fastest.

    Raises:
        ValueError: There are more than `JOINT_ACTIONS`.
    """
    sizes = components.sizes.tolist()
    if math.prod(sizes) > JOINT_ACTIONS:
        raise ValueError(
            f"planner {planner!r} tries every joint action and {action_space} has {math.prod(sizes)} of them, expected "
            f"at most {JOINT_ACTIONS}: use 'categorical_cem', which treats the components apart"
        )
    every = [torch.arange(size, device=components.sizes.device) for size in sizes]
    return torch.cartesian_prod(*every).view(-1, len(sizes))
