"""Which outcome was it? The latent variable z of remembered transitions, inferred while the world model learns.

E(z) is how badly the code z explains what came: the prediction error of the latent, and what reward and ending cost in
nats. Codes are told apart by the Gibbs distribution r(z) ∝ P(z | s, a) exp(−E(z)), whose free energy learning lowers,
but for the weights of its parts (LeCun 2022, pp. 20–27 and 57–60): the prediction follows the codes by how well they
explain, and the prior follows r. With K codes there are K wells, so a code says ln K nats at most, and no regulariser
is needed besides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..modules.memory import Window
from ..modules.world_model import WorldModel, drawn_code
from .config import WorldModelLoss

_SHARED = 0.05
"""Of each transition, what all codes learn alike: one that explains nothing yet is drawn to where it may."""
_DOUBT = 0.1
"""Share of the prior that is spread over all codes alike while they are told apart: none is given up for good."""


@dataclass(frozen=True)
class Explained:
    """Remembered transitions, imagined along the codes that explain them.

    Attributes:
        latent: Every member's ``[B, E, T+1, D]``.
        features: Of its transitions, for the heads ``[B, E, T, H]``.
        error: Prediction error of each step, of which all codes answer for their share ``[B, T]``.
        z: The codes that were drawn from r ``[B, T, K]``; None without a latent variable.
        prior: Cross-entropy of the prior to r, in nats ``[B, T]``.
    """

    latent: Tensor
    features: Tensor
    error: Tensor
    z: Tensor | None
    prior: Tensor


def explain(
    world_model: WorldModel,
    latent: Tensor,
    target: Tensor,
    window: Window,
    config: WorldModelLoss,
    generator: torch.Generator,
    predicts: bool = True,
) -> Explained:
    """Follow a window's actions from its first latent on, in each step along a code that explains what came.

    Args:
        world_model: Pred, with a latent variable.
        latent: Where the roll-out begins ``[B, D]``.
        target: The T latents that were to come ``[B, T, D]``.
        window: Actions, rewards, endings, and what of it is known.
        config: How sharply codes are told apart, and the weights of reward and ending.
        generator: Draws codes.
        predicts: Whether the prediction learns yet; codes are all alike until it does.
    """
    encoded = world_model.actions(window.action)
    carry = world_model.begin(latent)
    latents, features, errors, codes, priors = [carry[0]], [], [], [], []
    for t in range(encoded.shape[1]):
        after, found = world_model.outcomes(carry, encoded[:, t])  # [B, K, E, *]
        error = (after[0] - target[:, t, None, None]).square().mean((-2, -1))  # [B, K]
        prior = world_model.log_prior(_still(carry), encoded[:, t])
        with torch.no_grad():
            share = torch.full_like(prior, 1 / prior.shape[1])
            if predicts:
                doubted = ((1 - _DOUBT) * prior.exp() + _DOUBT * share).log()
                share = (doubted - _badness(world_model, error, found, window, t, config)).softmax(-1)
            chosen = drawn_code(share, torch.rand(len(share), generator=generator, device=share.device))
        mixed = (1 - _SHARED) * share + _SHARED / share.shape[1]
        rows = torch.arange(len(chosen), device=chosen.device)
        carry = tuple(part[rows, chosen] for part in after)
        latents.append(carry[0])
        features.append(found[rows, chosen])
        errors.append((mixed * error).sum(-1))
        codes.append(F.one_hot(chosen, share.shape[1]).float())
        priors.append(-(share * prior).sum(-1))
    return Explained(
        torch.stack(latents, 2), torch.stack(features, 2), torch.stack(errors, 1), torch.stack(codes, 1),
        torch.stack(priors, 1),
    )  # fmt: skip


def _still(carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same without a gradient: the prior reads states and moves nothing else."""
    return tuple(part.detach() for part in carry)


def _badness(
    world_model: WorldModel, error: Tensor, features: Tensor, window: Window, t: int, config: WorldModelLoss
) -> Tensor:
    """E(z) of step t for each code ``[B, K]`` in nats, from errors ``[B, K]`` and features ``[B, K, E, H]``.

    Errors count in units of the mean over the batch of the least of them, so that sharpness means the same at any time
    and in any world.
    """
    known = window.known[:, t]
    scale = (error.amin(-1) * known).sum() / known.sum().clamp(min=1)
    badness = config.sharpness * error / scale.clamp(min=1e-8) * known.unsqueeze(-1)
    if not world_model.config.events:
        return badness
    logits = world_model.ending(features).squeeze(-1)
    ended = window.terminated[:, t, None, None].expand_as(logits)
    ending = F.binary_cross_entropy_with_logits(logits, ended, reduction="none")
    came = window.reward[:, t, None, None].expand_as(logits)
    reward = world_model.two_hot.loss(world_model.reward(features), came)
    felt = (config.reward * reward + config.ending * ending).mean(-1)
    return badness + felt * window.valid[:, t].unsqueeze(-1)
