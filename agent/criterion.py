"""The training criterion of the JEPA: what perception and world model are trained on (LeCun 2022, p. 26)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..modules.memory import Window
from ..modules.perception import Perception
from ..modules.regularisers import sigreg, vicreg
from ..modules.world_model import WorldModel
from .config import WorldModelLoss

Metrics = dict[str, float]


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``value`` where ``mask`` is 1 (0 where it is nowhere)."""
    return (value * mask).sum() / mask.sum().clamp(min=1)


def random_shift(percept: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each window ``[B, T+1, history, H, W, C]`` as a whole by up to ``pixels``, edges repeated (2107.09645)."""
    height, width = percept.shape[3:5]
    offsets = torch.randint(-pixels, pixels + 1, (percept.shape[0], 2), generator=generator, device=percept.device)
    rows = (torch.arange(height, device=percept.device) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=percept.device) + offsets[:, 1:]).clamp(0, width - 1)
    shifted = [window[:, :, r][:, :, :, c] for window, r, c in zip(percept, rows, columns, strict=True)]
    return torch.stack(shifted)


def world_model_loss(
    perception: Perception,
    world_model: WorldModel,
    window: Window,
    config: WorldModelLoss,
    prediction_weight: float,
    generator: torch.Generator,
) -> tuple[Tensor, Metrics]:
    """The training criterion of the JEPA (LeCun 2022, p. 26) with heads for interoception.

    Prediction error of a roll-out over T steps from the first latent, anti-collapse term per time step, inverse
    dynamics, and cross-entropies of reward and ending, read on imagined transitions.

    Args:
        perception: Enc, in training mode.
        world_model: Pred, in training mode.
        window: From memory.
        config: Weights.
        prediction_weight: Weight of the prediction error at this update.
        generator: Draws SIGReg's directions and the augmentation.

    Returns:
        The loss, and its parts as numbers.
    """
    percept = window.observation
    if config.shift:
        percept = random_shift(percept, config.shift, generator)
    encoded = world_model.actions(window.action)
    steps = _encoded_steps(encoded.shape[1], config.targets, generator)
    latent = perception(percept[:, steps])  # [B, len(steps), D]
    predicted, imagined, states = latent[:, 0], [], []
    for t in range(encoded.shape[1]):
        predicted, feature = world_model.transition(predicted, encoded[:, t])
        imagined.append(feature)
        states.append(predicted)
    feature = torch.stack(imagined, dim=1)
    reached = [step - 1 for step in steps[1:]]  # transitions whose outcome was encoded
    target = latent[:, 1:].detach() if config.detach_target else latent[:, 1:]
    error = (torch.stack(states, dim=1)[:, reached] - target).square().mean(-1)
    known = window.known[:, reached]
    parts = {"prediction": (prediction_weight, masked_mean(error, known))}
    if config.regulariser == "sigreg":
        parts["sigreg"] = (config.regulariser_weight, sigreg(latent.transpose(0, 1), generator, config.directions))
    else:
        variance, covariance = vicreg(latent.transpose(0, 1))
        parts["vicreg"] = (config.regulariser_weight, variance + 0.04 * covariance)
    if config.inverse:
        adjacent = [i for i in range(len(reached)) if steps[i + 1] == steps[i] + 1]
        pairs = torch.cat([latent[:, :-1], latent[:, 1:]], dim=-1)[:, adjacent]
        between = [reached[i] for i in adjacent]
        inverse = _inverse_loss(world_model, pairs, encoded[:, between])
        parts["inverse"] = (config.inverse, masked_mean(inverse, window.known[:, between]))
    if world_model.config.events:
        seen = steps[:-1] if steps[-1] == encoded.shape[1] else steps  # encoded states that a transition starts from
        _, direct = world_model.transition(latent[:, : len(seen)], encoded[:, seen])
        features = torch.cat([feature, direct], dim=1)  # the heads read imagined transitions and perceived ones
        where = [*range(encoded.shape[1]), *seen]
        reward = world_model.two_hot.loss(world_model.reward(features), window.reward[:, where])
        ending = F.binary_cross_entropy_with_logits(
            world_model.ending(features).squeeze(-1), window.terminated[:, where], reduction="none"
        )
        parts["reward"] = (config.reward, masked_mean(reward, window.valid[:, where]))
        parts["ending"] = (config.ending, masked_mean(ending, window.valid[:, where]))
    loss = torch.stack([weight * value for weight, value in parts.values()]).sum()
    metrics = {name: float(value.detach()) for name, (_, value) in parts.items()}
    with torch.no_grad():
        still = (latent[:, :1] - latent[:, 1:]).square().mean(-1)
        metrics["prediction_over_persistence"] = metrics["prediction"] / max(float(masked_mean(still, known)), 1e-9)
    return loss, metrics


def _encoded_steps(steps: int, targets: int, generator: torch.Generator) -> list[int]:
    """Which of x[0…T] are encoded in this update: all, or the first two and ``targets`` − 1 others by chance."""
    if not targets or targets >= steps:
        return list(range(steps + 1))
    others = torch.randperm(steps - 1, generator=generator, device=generator.device)[: targets - 1]
    return [0, 1, *sorted(int(k) + 2 for k in others)]


def _inverse_loss(world_model: WorldModel, pairs: Tensor, encoded: Tensor) -> Tensor:
    """Negative log-likelihood ``[B, T]`` (per action dimension for a Box) of the action between two latents."""
    output: Tensor = world_model.inverse(pairs)
    if not world_model.actions.discrete:
        return (output.chunk(2, dim=-1)[0] - encoded).square().mean(-1)
    sizes = list(world_model.actions.sizes)
    logs = torch.cat([part.log_softmax(-1) for part in torch.split(output, sizes, dim=-1)], dim=-1)
    return -(encoded * logs).sum(-1)
