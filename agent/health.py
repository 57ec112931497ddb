"""Health of the representation and the world model: pure functions from latents and windows to numbers.

What collapse looks like here (docs/health.md has the runs). Perception ends in a BatchNorm, so within a training batch
every dimension has unit variance until the variance before it falls below the norm's ε, and training losses alone do
not show a collapse. Two things happen when too little works against it:

- the variance before the norm vanishes, and the latents are about the same whatever is seen (TwoRoom);
- all dimensions become copies of one or two, those that change most slowly. The prediction error is small, but the
  world model knows nothing about the actions (fruitbot, Acrobot).

Modules are expected in evaluation mode, in which they act.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..modules.memory import Window
from ..modules.perception import Perception
from ..modules.regularisers import sigreg
from ..modules.types import State
from ..modules.world_model import WorldModel
from .config import WorldModelLoss
from .errors import CollapseError
from .modes import Modules

STEPS = 10
"""How far ahead the world model is measured."""
WINDOWS = 64
"""Windows of a check during training."""
CHECK_EVERY = 200
"""World-model updates between checks during training; the first is the end of the warm-up."""
LEAST_STD, LEAST_USE, BLIND = 0.1, 0.25, 0.95
"""Thresholds of `collapse`: of the standard deviation, the use of the rank that is possible, and the error's ratio to
that under shuffled actions, from which on a model counts as blind to them. Runs and margins: docs/health.md."""
_CHUNK = 1_024  # percepts encoded at once
_PERCEPTS = 256  # percepts whose effective rank says how many dimensions there are to have
_DIRECTIONS = 256


@dataclass(frozen=True)
class Spread:
    """How much of the latent space is used.

    Attributes:
        std: Standard deviation per dimension: smallest, mean and largest; the BatchNorm makes 1 of a healthy one.
        rank: Effective rank of the latents, of at most D dimensions.
        possible: Effective rank that they could have: that of the percepts, of at most D dimensions.
        sigreg: SIGReg statistic per sample: 0.40 when collapsed to a point, 0.16 to 0.20 on a line, near 0 for a
            standard Gaussian.
        spectrum: Singular values of the latents, largest first, as shares of their sum ``[D]``.
    """

    std: tuple[float, float, float]
    rank: float
    possible: float
    sigreg: float
    spectrum: tuple[float, ...]

    @property
    def use(self) -> float:
        """How far the rank has come from a line, 0, towards what is possible, 1; 1 where only a line is possible."""
        return (self.rank - 1) / (self.possible - 1) if self.possible > 1 else 1.0


@dataclass(frozen=True)
class PredictionErrors:
    """Mean squared latent error after k = 1 … T steps; NaN where no episode lasts so long.

    Attributes:
        model: Of the world model under the actions that were taken.
        persistence: Of "nothing changes".
        shuffled: Of the world model under the actions of another window.
    """

    model: tuple[float, ...]
    persistence: tuple[float, ...]
    shuffled: tuple[float, ...]

    @property
    def over_persistence(self) -> tuple[float, ...]:
        """Below 1 the model knows more than that nothing changes."""
        return _ratios(self.model, self.persistence)

    @property
    def over_shuffled(self) -> tuple[float, ...]:
        """Below 1 the model's predictions depend on the actions, as they should."""
        return _ratios(self.model, self.shuffled)


@dataclass(frozen=True)
class Inverse:
    """How well the action between two latents is told.

    Attributes:
        kind: "top-1" accuracy for discrete actions, "R²" for a Box.
        score: The measure, averaged over the action's components.
        floor: What the best constant answer gets: the share of the commonest action, 0 for R².
    """

    kind: str
    score: float
    floor: float


@dataclass(frozen=True)
class Vitals:
    """What is cheap enough to be looked at while learning."""

    spread: Spread
    errors: PredictionErrors
    inverse: Inverse | None

    def numbers(self) -> dict[str, float]:
        """As named numbers, for curves."""
        named = dict(zip(("std_min", "std_mean", "std_max"), self.spread.std, strict=True))
        named |= {"effective_rank": self.spread.rank, "rank_use": self.spread.use, "sigreg": self.spread.sigreg}
        for step in {1, len(self.errors.model)}:
            named[f"error_over_persistence_{step}"] = self.errors.over_persistence[step - 1]
            named[f"error_over_shuffled_{step}"] = self.errors.over_shuffled[step - 1]
        if self.inverse is not None:
            named["inverse_dynamics"] = self.inverse.score
        return {name: value for name, value in named.items() if math.isfinite(value)}


def encode(perception: Perception, percepts: Tensor) -> Tensor:
    """Latents ``[..., D]`` of percepts ``[..., history, *shape]``, a chunk at a time on perception's device."""
    trailing = 1 + len(perception.shape)
    flat = percepts.reshape(-1, *percepts.shape[-trailing:])
    device = next(perception.parameters()).device
    with torch.no_grad():
        starts = range(0, len(flat), _CHUNK)
        latents = torch.cat([perception.encode(flat[at : at + _CHUNK].to(device)).latent for at in starts])
    return latents.reshape(*percepts.shape[:-trailing], -1)


def vitals(m: Modules, window: Window, latent: Tensor, loss: WorldModelLoss, generator: torch.Generator) -> Vitals:
    """Look at perception and world model through a window of memory or of a recording.

    Args:
        m: The modules, in evaluation mode.
        window: Windows drawn at random, on the modules' device.
        latent: What `encode` makes of its percepts ``[B, T+1, D]``.
        loss: What they were trained on; says whether there is an inverse-dynamics head to look at.
        generator: Draws SIGReg's directions.
    """
    with torch.no_grad():
        return Vitals(
            spread(latent.flatten(0, 1), window.observation.flatten(0, 1), generator),
            prediction_errors(m.world_model, latent, window.action, window.known),
            inverse_dynamics(m.world_model, latent, window.action, window.known) if loss.inverse else None,
        )


def singular_values(samples: Tensor) -> Tensor:
    """Singular values of centred samples ``[N, F]``, largest first, in double precision on the CPU."""
    centred = samples.cpu().double()
    centred = centred - centred.mean(0)
    if centred.shape[1] <= centred.shape[0]:
        values: Tensor = torch.linalg.svdvals(centred)
    else:  # far cheaper for pixels
        values = torch.linalg.eigvalsh(centred @ centred.T).flip(0).clamp(min=0).sqrt()
    return values


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the singular values' shares (Roy & Vetterli, EUSIPCO 2007, definition 1).

    Args:
        values: Singular values, not all of them 0 unless the samples are all alike.

    Returns:
        1 for samples on a line, F for F equal directions; 0 for samples that are all alike.
    """
    largest = float(values.max())
    if largest == 0:
        return 0.0
    shares = values[values > 1e-9 * largest]
    shares = shares / shares.sum()
    return float((-(shares * shares.log()).sum()).exp())


def spread(latent: Tensor, percepts: Tensor, generator: torch.Generator) -> Spread:
    """How much of the latent space the latents ``[N, D]`` of percepts ``[N, ...]`` use.

    Raises:
        FloatingPointError: A latent is not finite.
    """
    if not latent.isfinite().all():
        raise FloatingPointError("perception gives latents that are not finite; lower the learning rate")
    std = latent.std(0)
    values = singular_values(latent)
    seen = percepts[:: -(-len(percepts) // _PERCEPTS)].flatten(1).float()
    if percepts.dtype != torch.uint8:  # the entries of a vector have units of their own
        seen = seen / seen.std(0).clamp(min=1e-6)
    return Spread(
        std=(float(std.min()), float(std.mean()), float(std.max())),
        rank=effective_rank(values),
        possible=min(float(latent.shape[1]), effective_rank(singular_values(seen))),
        sigreg=float(sigreg(latent, generator, _DIRECTIONS)) / len(latent),
        spectrum=tuple((values / values.sum().clamp(min=1e-300)).tolist()),
    )


def prediction_errors(world_model: WorldModel, latent: Tensor, action: Tensor, known: Tensor) -> PredictionErrors:
    """Latent error after 1 … T steps from the first latent of each window (test W1 of the architecture).

    Args:
        world_model: Pred.
        latent: Of what was perceived ``[B, T+1, D]``; windows in random order, B ≥ 2.
        action: ``[B, T, ...]``.
        known: 1 where the outcome was seen within the same episode ``[B, T]``.

    Raises:
        ValueError: There is one window alone, and so no other actions to exchange its own for.
    """
    if len(latent) < 2:
        raise ValueError("prediction errors of 1 window; at least 2 are needed, to exchange their actions")
    courses = torch.stack([action, action.roll(1, 0)], dim=1)
    imagined = world_model.rollout(State(latent[:, 0]), courses).latent[:, :, 1:]  # [B, 2, T, D]
    outcome = latent[:, 1:]

    def mean(predicted: Tensor) -> tuple[float, ...]:
        error = (predicted - outcome).square().mean(-1)
        return tuple(((error * known).sum(0) / known.sum(0)).tolist())

    return PredictionErrors(mean(imagined[:, 0]), mean(latent[:, :1]), mean(imagined[:, 1]))


def inverse_dynamics(world_model: WorldModel, latent: Tensor, action: Tensor, known: Tensor) -> Inverse | None:
    """How well the inverse-dynamics head tells which action lies between two latents.

    Args:
        world_model: With a trained head.
        latent: ``[B, T+1, D]``.
        action: ``[B, T, ...]``.
        known: 1 where both latents belong to the same episode ``[B, T]``.

    Returns:
        The measure, or None where no transition is known.
    """
    here = known > 0
    if not here.any():
        return None
    output = world_model.inverse(torch.cat([latent[:, :-1], latent[:, 1:]], dim=-1)[here])
    encoder = world_model.actions
    taken = encoder(action)[here]
    if not encoder.discrete:
        return Inverse("R²", _mean(r_squared(output.chunk(2, dim=-1)[0], taken)), 0.0)
    sizes = list(encoder.sizes)
    parts = list(zip(output.split(sizes, dim=-1), taken.split(sizes, dim=-1), strict=True))
    hits = [float((told.argmax(-1) == done.argmax(-1)).float().mean()) for told, done in parts]
    floors = [float(done.mean(0).max()) for _, done in parts]
    return Inverse("top-1", _mean(hits), _mean(floors))


def r_squared(predicted: Tensor, target: Tensor) -> list[float]:
    """Share of the variance of each column of ``target [N, K]`` that is explained; NaN where it does not vary."""
    left = (predicted - target).square().sum(0)
    whole = (target - target.mean(0)).square().sum(0)
    return [float(score) for score in torch.where(whole > 1e-9 * len(target), 1 - left / whole, math.nan)]


def collapse(found: Vitals, predicts: bool = True) -> str | None:
    """What is wrong with a collapsed representation in one clause, or None for one that is not.

    A small rank alone is no collapse: a world of two dimensions needs no more, so it is compared with that of the
    percepts, and only latents in which actions make no difference are given up. Whether they do is not known of a world
    model that does not learn to predict yet.

    Args:
        found: What was measured.
        predicts: Whether the world model has been learning to predict.
    """
    std, rank = found.spread.std[1], found.spread.rank
    if std < LEAST_STD:
        return (
            f"the latents' standard deviation is {std:.2g}, below {LEAST_STD:g} (healthy: about 1): they are the same "
            "whatever is seen"
        )
    ratios = [ratio for ratio in found.errors.over_shuffled if math.isfinite(ratio)]
    if predicts and found.spread.use < LEAST_USE and ratios and min(ratios) >= BLIND:
        least = 1 + LEAST_USE * (found.spread.possible - 1)
        return (
            f"the latents' effective rank is {rank:.1f}, below {least:.1f} (percepts offer {found.spread.possible:.1f})"
            ", and the world model predicts no better from the actions than from others"
        )
    return None


def stop_if_collapsed(before: str | None, now: str | None, updates: int, loss: WorldModelLoss) -> None:
    """End training when two checks in a row have found a collapse; one may be a passing stage of early learning.

    Raises:
        CollapseError: Says which measure, its value and threshold, and what to do.
    """
    if before is None or now is None:
        return
    inverse = "" if loss.inverse else ", give inverse dynamics a weight (model_loss.inverse)"
    raise CollapseError(
        f"the representation has collapsed: after {updates} updates {now}. Raise model_loss.regulariser_weight (now "
        f"{loss.regulariser_weight:g}, {loss.regulariser}), lower model_loss.learning_rate (now "
        f"{loss.learning_rate:g}){inverse}, and train again"
    )


def _ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    return tuple(a / b if b > 0 else math.nan for a, b in zip(above, below, strict=True))


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
