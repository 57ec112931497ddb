"""What the planners share: drawing, holding, clipping and shifting action sequences, checks, and the best so far.

Internally every action sequence is ``[B, S, T, A]``, also for Discrete (A = 1). F = ceil(T / hold) is the number of
actions that are free when each is kept for ``hold`` steps; search distributions live at F, plans at T. The
distributions of MultiDiscrete lie one behind the other in a vector of N = sum(nvec) probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .types import ActionSpace, Budget, Categorical, Distribution, Gaussian, Objective, Plan, Proposal

INITIAL_STD = 0.5
"""Standard deviation of an uninformed Gaussian, as a fraction of half the range of the Box."""

SUPPORTED: dict[str, tuple[type[spaces.Space[Any]], ...]] = {
    "random_shooting": (spaces.Box, spaces.Discrete, spaces.MultiDiscrete),
    "cem": (spaces.Box,),
    "categorical_cem": (spaces.Discrete, spaces.MultiDiscrete),
}
"""Which planner fits which action spaces."""


# ------------------------------------------------------------------------------------------------- checks


def check_space(planner: str, action_space: spaces.Space[Any]) -> None:
    """Raise ValueError unless the planner of this name can search this action space."""
    if not isinstance(action_space, SUPPORTED[planner]):
        fitting = [name for name, kinds in SUPPORTED.items() if isinstance(action_space, kinds)]
        expected = " or ".join(kind.__name__ for kind in SUPPORTED[planner])
        advice = f"use {' or '.join(map(repr, fitting))}" if fitting else "flatten it into one of these with a wrapper"
        raise ValueError(f"planner {planner!r} expects a {expected} action space, got {action_space}: {advice}")
    if len(action_space.shape or ()) > 1 or (isinstance(action_space, spaces.Box) and action_space.shape == ()):
        raise ValueError(f"expected an action space of shape (A,), got {action_space}: flatten it with a wrapper")
    if isinstance(action_space, spaces.Box):
        if not np.issubdtype(action_space.dtype, np.floating):
            raise ValueError(f"expected a Box of floats, got {action_space}: integer actions are a MultiDiscrete")
    elif np.any(action_space.start):  # type: ignore[attr-defined]
        raise ValueError(f"expected actions that count from 0, got {action_space}: shift them with a wrapper")


def check_number(option: str, value: float, lowest: float, highest: float, *, exclusive: bool = False) -> None:
    """Raise ValueError unless ``lowest <= value <= highest`` (``< highest`` if exclusive)."""
    if not (lowest <= value < highest if exclusive else lowest <= value <= highest):
        raise ValueError(f"{option}={value}, expected {lowest} <= {option} {'<' if exclusive else '<='} {highest}")


def check_elites(elites: int | float) -> None:
    """Raise ValueError unless ``elites`` is a count >= 1 (int) or a fraction in (0, 1] (float)."""
    if isinstance(elites, bool) or not (elites >= 1 if isinstance(elites, int) else 0 < elites <= 1):
        raise ValueError(f"elites={elites}, expected a count >= 1 (int) or a fraction of the candidates in (0, 1]")


def elite_count(elites: int | float, candidates: int) -> int:
    """How many of the candidates are elites; a fraction is rounded, to at least one."""
    count = elites if isinstance(elites, int) else max(1, round(elites * candidates))
    if count > candidates:
        raise ValueError(
            f"elites={elites} of candidates={candidates}, expected elites <= candidates: "
            "raise the budget's candidates or give elites as a fraction"
        )
    return count


def check_budget(budget: Budget, batch: int) -> None:
    """Raise ValueError unless every number of the budget, and the batch, is at least 1."""
    numbers = {
        "horizon": budget.horizon,
        "candidates": budget.candidates,
        "iterations": budget.iterations,
        "hold": budget.hold,
        "batch": batch,
    }
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value}, expected {name} >= 1: to act without planning, use Mode-1")


# ------------------------------------------------------------------------------------------------- action spaces


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


# ------------------------------------------------------------------------------------------------- distributions


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


def draw_gaussian(gaussian: Gaussian, low: Tensor, high: Tensor, candidates: int, generator: torch.Generator) -> Tensor:
    """Draw ``[B, S, F, A]`` from normal distributions ``[B, F, A]``, clipped into the Box (Pinneri 2020)."""
    batch, free, width = gaussian.mean.shape
    noise = torch.randn(batch, candidates, free, width, generator=generator, device=generator.device)
    return noise.mul_(gaussian.std.unsqueeze(1)).add_(gaussian.mean.unsqueeze(1)).clamp_(low, high)


def fit_gaussian(elites: Tensor, weights: Tensor) -> Gaussian:
    """Weighted mean and population standard deviation of elites ``[B, E, T, A]``; weights ``[B, E]`` sum to 1.

    One elite has a standard deviation of 0, not NaN; the planner's minimum is applied afterwards.
    """
    shares = weights[:, :, None, None].to(elites.dtype)
    mean = (elites * shares).sum(1)
    return Gaussian(mean, ((elites - mean.unsqueeze(1)).square_() * shares).sum(1).sqrt_())


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
    if steps < 0:
        raise ValueError(f"steps={steps}, expected the number of executed actions, >= 0")
    horizon = plan.actions.shape[1]
    times = torch.arange(horizon, device=plan.actions.device).add_(steps).clamp_(max=horizon - 1)
    return plan.actions[:, times].unsqueeze(1)


# ------------------------------------------------------------------------------------------------- proposals


def _shape_error(what: str, given: Tensor, expected: str) -> ValueError:
    advice = "build the proposal with this planner's horizon and batch"
    return ValueError(f"{what} has shape {list(given.shape)}, expected {expected}: {advice}")


def proposed_actions(
    proposal: Proposal, action_space: ActionSpace, budget: Budget, batch: int, device: torch.device
) -> Tensor | None:
    """The proposed candidates, checked, clipped into a Box and as ``[B, P, T, A]``; None where there are none."""
    actions = proposal.actions
    if actions is None:
        return None
    actions = actions.to(device)
    tail = () if isinstance(action_space, spaces.Discrete) else action_space.shape
    expected = (batch, budget.horizon, *tail)
    if actions.dim() != len(expected) + 1 or (actions.shape[0], *actions.shape[2:]) != expected:
        wanted = ", ".join(map(str, (batch, "P", budget.horizon, *tail)))
        raise _shape_error("proposal.actions", actions, f"[{wanted}]")
    if actions.shape[1] >= budget.candidates:
        raise ValueError(
            f"{actions.shape[1]} proposed sequences for candidates={budget.candidates}, expected fewer proposals than "
            "candidates: propose fewer or raise the budget's candidates"
        )
    if isinstance(action_space, spaces.Box):
        if not bool(actions.isfinite().all()):
            raise ValueError("proposal.actions has values that are not finite: check the actor that proposed them")
        return clip(actions, action_space)
    if actions.is_floating_point() or not torch.equal(clip(actions, action_space), actions):
        given = f"{actions.dtype} from {actions.min().item()} to {actions.max().item()}"
        raise ValueError(f"proposal.actions holds {given}, expected integer actions of {action_space}")
    return actions.long().view(*actions.shape[:3], -1)


def proposed_gaussian(
    proposal: Proposal, limits: tuple[Tensor, Tensor], budget: Budget, batch: int, minimum_std: float
) -> Gaussian | None:
    """The proposed Gaussian ``[B, F, A]``, checked: mean inside the limits, ``std >= minimum_std`` half ranges."""
    given = proposal.distribution
    low, high = limits
    if given is None:
        return None
    if not isinstance(given, Gaussian):
        raise ValueError(f"proposal.distribution is a {type(given).__name__}, expected a Gaussian for a Box")
    expected = [batch, budget.horizon, len(low)]
    for name, values in (("mean", given.mean), ("std", given.std)):
        if list(values.shape) != expected:
            raise _shape_error(f"proposal.distribution.{name}", values, str(expected))
        if not bool(values.isfinite().all()) or (name == "std" and bool((values < 0).any())):
            raise ValueError(f"proposal.distribution.{name} must be finite, and std >= 0: check what proposed it")
    mean, std = given.mean.to(low), given.std.to(low)
    held = hold_gaussian(Gaussian(mean.clamp(low, high), std), budget.hold)
    return Gaussian(held.mean, held.std.maximum(minimum_std * (high - low) / 2))


def proposed_categorical(
    proposal: Proposal, components: Components, budget: Budget, batch: int, exploration: float
) -> Tensor | None:
    """The proposed probabilities ``[B, F, N]``, checked, with a share ``exploration`` of uniform mixed in."""
    given = proposal.distribution
    if given is None:
        return None
    if not isinstance(given, Categorical):
        raise ValueError(f"proposal.distribution is a {type(given).__name__}, expected a Categorical")
    expected = [batch, budget.horizon, len(components.owner)]
    if list(given.probabilities.shape) != expected:
        raise _shape_error("proposal.distribution.probabilities", given.probabilities, str(expected))
    weights = given.probabilities.to(components.uniform)
    probabilities = components.normalise(weights)
    if not bool(((weights >= 0) & torch.isclose(weights, probabilities, rtol=1e-3, atol=1e-4)).all()):
        raise ValueError(
            "proposal.distribution.probabilities must be >= 0 and sum to 1 in every component: normalise them"
        )
    return block_mean(torch.lerp(probabilities, components.uniform, exploration), budget.hold)


# ------------------------------------------------------------------------------------------------- the search


@dataclass
class Search:
    """The bookkeeping of one decision: asks the objective, selects elites, remembers the best and the baseline.

    Attributes:
        objective: Energies of action sequences.
        action_space: Space of one environment's actions.
        proposals: Candidates ``[B, P, T, A]`` for the first places of the first iteration, or None.
        count: Number of elites E.
        started: Clock at the start, in seconds.
        iterations: Iterations done so far.
        actions: Best sequence so far ``[B, T, A]``.
        energy: Its energy ``[B]``.
        baseline: Mean energy ``[B]`` of the first iteration's candidates that are not forbidden.
    """

    objective: Objective
    action_space: ActionSpace
    proposals: Tensor | None
    count: int
    started: float = field(default_factory=perf_counter)
    iterations: int = 0
    actions: Tensor = field(default_factory=lambda: torch.empty(0))
    energy: Tensor = field(default_factory=lambda: torch.empty(0))
    baseline: Tensor = field(default_factory=lambda: torch.empty(0))

    def evaluate(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Try candidates ``[B, S, T, A]`` and keep the best ever seen.

        Returns:
            The elites ``[B, E, T, A]``, best first, and their energies ``[B, E]``.
        """
        if self.iterations == 0 and self.proposals is not None:
            candidates[:, : self.proposals.shape[1]] = self.proposals
        discrete = isinstance(self.action_space, spaces.Discrete)
        energies = self._checked(self.objective(candidates.squeeze(3) if discrete else candidates), candidates)
        best, indices = energies.topk(self.count, dim=1, largest=False)
        elites = candidates[torch.arange(len(candidates), device=candidates.device)[:, None], indices]
        if bool((best[:, 0] == math.inf).any()):
            raise FloatingPointError(
                f"all {energies.shape[1]} candidates are forbidden (energy +inf) in "
                f"{int((best[:, 0] == math.inf).sum())} of {len(best)} environments, expected at least one that is "
                "not: raise the budget's candidates or loosen the hard constraints"
            )
        if self.iterations == 0:
            self.actions, self.energy = elites[:, 0], best[:, 0]
            allowed = energies != math.inf
            self.baseline = energies.where(allowed, 0).sum(1) / allowed.sum(1)
        else:
            better = best[:, 0] < self.energy
            self.actions = torch.where(better[:, None, None], elites[:, 0], self.actions)
            self.energy = torch.where(better, best[:, 0], self.energy)
        self.iterations += 1
        return elites, best

    def plan(self, distribution: Distribution, budget: Budget) -> Plan:
        """The outcome, with the distribution at full horizon T."""
        discrete = isinstance(self.action_space, spaces.Discrete)
        return Plan(
            actions=self.actions.squeeze(2) if discrete else self.actions,
            distribution=distribution,
            energy=self.energy,
            baseline=self.baseline,
            calls=self.iterations * budget.candidates * budget.horizon,
            milliseconds=1000 * (perf_counter() - self.started),
        )

    @staticmethod
    def _checked(energies: Tensor, candidates: Tensor) -> Tensor:
        """Energies in float32 or float64, after the checks that no result of a planner can do without."""
        if energies.shape != candidates.shape[:2]:
            raise ValueError(
                f"the objective returned energies of shape {list(energies.shape)} for {list(candidates.shape[:2])} "
                "[environments, candidates]: return one energy per candidate"
            )
        if energies.dtype not in (torch.float32, torch.float64):
            energies = energies.float()
        valid = energies > -math.inf  # neither NaN nor -inf
        if not bool(valid.all()):
            raise FloatingPointError(
                f"{int((~valid).sum())} of {valid.numel()} energies are not finite (NaN or -inf), expected numbers, or "
                "+inf for forbidden candidates: the world model or a cost head diverged; check its outputs and weights"
            )
        return energies


def elite_weights(energies: Tensor) -> Tensor:
    """Equal weights ``[B, E]`` that sum to 1 over the elites that are not forbidden (energy below +inf)."""
    allowed = (energies != math.inf).float()
    return allowed / allowed.sum(1, keepdim=True)
