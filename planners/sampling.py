"""Search distributions: where they start, drawing from them, fitting them to elites, and moving them on in time."""

from __future__ import annotations

from dataclasses import replace

import torch
from gymnasium import spaces
from torch import Tensor

from .actions import Components, block_mean, bounds, repeat
from .types import ActionSpace, Categorical, Distribution, Gaussian, Plan

Limits = tuple[Tensor, Tensor]
"""Lowest and highest action ``[A]`` of a Box."""

INITIAL_STD = 0.5
"""Standard deviation of an uninformed Gaussian, as a fraction of half the range of the Box."""


def uninformed(
    action_space: ActionSpace, batch: int, horizon: int, device: torch.device | str, std: float = INITIAL_STD
) -> Distribution:
    """The distribution of a plan about which nothing is known.

    Args:
        action_space: Space of one environment's actions.
        batch: Environments B.
        horizon: Steps T (or free actions F).
        device: Where its tensors live.
        std: Standard deviation in a Box, as a fraction of half its range.

    Returns:
        The middle of the Box and ``std`` (both ``[B, T, A]``), or uniform probabilities (``[B, T, N]``).
    """
    if isinstance(action_space, spaces.Box):
        low, high = bounds(action_space, device)
        half = (high - low) / 2
        return Gaussian((low + half).expand(batch, horizon, -1), (std * half).expand(batch, horizon, -1))
    return Categorical(Components.of(action_space, device).uniform.expand(batch, horizon, -1))


def hold_gaussian(gaussian: Gaussian, hold: int) -> Gaussian:
    """One normal distribution ``[B, F, A]`` per held action, with the moments of the mixture of its steps."""
    if hold == 1:
        return gaussian
    mean = block_mean(gaussian.mean, hold)
    spread = gaussian.mean - repeat(mean, hold, gaussian.mean.shape[1], dim=1)
    return Gaussian(mean, block_mean(gaussian.std.square() + spread.square(), hold).sqrt())


def draw_gaussian(
    gaussian: Gaussian, limits: Limits, candidates: int, generator: torch.Generator, mean: bool = False
) -> Tensor:
    """Draw ``[B, S, F, A]`` from normal distributions ``[B, F, A]``; with ``mean``, the last is their mean."""
    batch, free, width = gaussian.mean.shape
    noise = torch.randn(batch, candidates, free, width, generator=generator, device=generator.device)
    return place(noise, gaussian, limits, mean)


def place(noise: Tensor, gaussian: Gaussian, limits: Limits, mean: bool) -> Tensor:
    """Turn unit noise ``[B, S, F, A]`` into draws, with ``mean`` the last one the mean, clipped into the Box."""
    if mean:
        noise[:, -1].zero_()
    return torch.addcmul(gaussian.mean.unsqueeze(1), noise, gaussian.std.unsqueeze(1)).clamp_(*limits)


def fit_gaussian(elites: Tensor, weights: Tensor | None) -> Gaussian:
    """Weighted mean and population standard deviation of elites ``[B, E, T, A]``; weights ``[B, E]`` sum to 1.

    Without weights, all count the same. One elite has a standard deviation of 0, not NaN; a minimum is applied later.
    """
    if weights is None:
        std, mean = torch.std_mean(elites, dim=1, correction=0)
        return Gaussian(mean, std)
    values, shares = elites.flatten(2), weights.unsqueeze(1).to(elites.dtype)
    mean = shares @ values  # [B, 1, T * A]
    variance = shares @ (values - mean).square_()
    return Gaussian(mean.view_as(elites[:, 0]), variance.sqrt_().view_as(elites[:, 0]))


def draw_categorical(
    probabilities: Tensor, components: Components, candidates: int, generator: torch.Generator
) -> Tensor:
    """Draw ``[B, S, F, A]`` int64 from probabilities ``[B, F, N]`` by inverting the cumulative distribution.

    Each component sums to 1, so component k occupies the values k … k+1 of one cumulative sum over the whole vector,
    and a single binary search draws all components without padding them to one size.
    """
    batch, free, _ = probabilities.shape
    count = len(components.sizes)
    values = torch.rand(batch, free, candidates, count, generator=generator, device=generator.device)
    if count > 1:
        values.add_(torch.arange(count, device=generator.device))
    indices = torch.searchsorted(probabilities.cumsum(-1), values.flatten(2), right=True).view(values.shape)
    indices.sub_(components.offsets).clamp_(min=0)  # rounding may reach a neighbouring component
    return indices.minimum(components.sizes - 1).transpose(1, 2)


def fit_categorical(elites: Tensor, weights: Tensor, components: Components, smoothing: float) -> Tensor:
    """Laplace-smoothed frequencies ``[B, T, N]`` of elites ``[B, E, T, A]``; weights ``[B, E]`` sum to 1.

    ``smoothing`` is added to the count of every action, where the counts of a component sum to its number of elites.
    """
    batch, count, horizon, width = elites.shape
    places = (elites + components.offsets).transpose(1, 2).flatten(2)  # [B, T, E*A]
    shares = (weights * count)[:, None, :, None].float().expand(batch, horizon, count, width).flatten(2)
    counts = shares.new_full((batch, horizon, len(components.owner)), smoothing)
    counts.scatter_add_(2, places, shares)  # equal shares, so that the order of additions does not matter
    return counts.div_(count + smoothing * components.sizes[components.owner])


def drawn(plan: Plan, action_space: ActionSpace, generator: torch.Generator) -> Plan:
    """The same plan with actions drawn from its distribution, each step by itself, in place of the best sequence."""
    old = plan.distribution
    if isinstance(old, Gaussian):
        assert isinstance(action_space, spaces.Box)
        actions = draw_gaussian(old, bounds(action_space, generator.device), 1, generator)[:, 0]
    else:
        assert not isinstance(action_space, spaces.Box)
        components = Components.of(action_space, generator.device)
        actions = draw_categorical(old.probabilities, components, 1, generator)[:, 0]
    return replace(plan, actions=actions.view_as(plan.actions))


def shift(plan: Plan, steps: int, action_space: ActionSpace) -> Distribution:
    """Where to start after ``steps`` actions of a plan were executed: its distribution, moved forward in time.

    The ``steps`` new steps at the end are uninformed.

    Args:
        plan: The last plan, with a distribution at full horizon T.
        steps: How many actions were executed (0 keeps the distribution; T or more forgets it).
        action_space: Space of one environment's actions.

    Returns:
        A distribution for ``Proposal.distribution``, with the shapes of the plan's.
    """
    if steps < 0:
        raise ValueError(f"steps={steps}, expected the number of executed actions, >= 0")
    old = plan.distribution
    tensor = old.mean if isinstance(old, Gaussian) else old.probabilities
    batch, horizon, _ = tensor.shape
    new = uninformed(action_space, batch, min(steps, horizon), tensor.device)
    if isinstance(old, Gaussian) and isinstance(new, Gaussian):
        return Gaussian(torch.cat((old.mean[:, steps:], new.mean), 1), torch.cat((old.std[:, steps:], new.std), 1))
    if isinstance(old, Categorical) and isinstance(new, Categorical):
        return Categorical(torch.cat((old.probabilities[:, steps:], new.probabilities), 1))
    raise ValueError(f"a plan with a {type(old).__name__} distribution does not belong to {action_space}")


def shift_actions(plan: Plan, steps: int) -> Tensor:
    """The best sequence of a plan moved forward by ``steps``, its last action repeated.

    Returns:
        One candidate ``[B, 1, T, ...]`` for ``Proposal.actions``.
    """
    return _moved_on(plan.actions.unsqueeze(1), steps)


def shift_elites(plan: Plan, steps: int, count: int) -> Tensor:
    """The ``count`` best elites of a plan moved forward by ``steps``, their last actions repeated (iCEM).

    Returns:
        Candidates ``[B, P, T, ...]`` for ``Proposal.actions``; P = ``count``, or all elites where there are fewer.
    """
    if count < 1:
        raise ValueError(f"count={count}, expected the number of elites to keep, >= 1")
    return _moved_on(plan.elites[:, :count], steps)


def _moved_on(actions: Tensor, steps: int) -> Tensor:
    if steps < 0:
        raise ValueError(f"steps={steps}, expected the number of executed actions, >= 0")
    horizon = actions.shape[2]
    return actions[:, :, torch.arange(horizon, device=actions.device).add_(steps).clamp_(max=horizon - 1)]
