"""What a decision may start from, checked: proposed candidates and the proposed search distribution."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from .actions import Components, block_mean, clip
from .sampling import Limits, hold_gaussian
from .types import ActionSpace, Budget, Categorical, Gaussian, Proposal


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
    proposal: Proposal, limits: Limits, budget: Budget, batch: int, minimum_std: float
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
