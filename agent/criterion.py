"""The training criterion of the JEPA: what perception and world model are trained on (LeCun 2022, p. 26)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules.memory import Window
from ..modules.networks import silent
from ..modules.perception import Perception
from ..modules.regularisers import hinge, info_nce, pair_energies, sigreg, vicreg
from ..modules.world_model import WorldModel
from .augmentation import random_colours, random_shift
from .config import WorldModelLoss
from .inference import Explained, explain

Metrics = dict[str, float]
Parts = dict[str, tuple[float, Tensor]]
"""Terms of a loss by name: weight and value."""


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``value`` where ``mask`` is 1 (0 where it is nowhere)."""
    return (value * mask).sum() / mask.sum().clamp(min=1)


def perceive(perception: Perception, window: Window) -> Tensor:
    """Latents ``[B, T+1, D]`` of a window: those it carries, else what perception sees and recalls."""
    if window.latent is not None:
        return window.latent
    if perception.recall is None:
        return perception(window.observation)  # type: ignore[no-any-return]
    percept, here = window.observation, torch.ones_like(window.planned, dtype=torch.bool)
    begins = F.pad(window.terminated + window.truncated, (1, 0)) > 0
    if window.past is not None and window.remembered is not None:  # what came before is gone through again
        percept = torch.cat([window.past, percept], dim=1)
        here = torch.cat([window.remembered > 0, here], dim=1)
        begins = F.pad(begins, (window.past.shape[1], 0))
    latent = perception(percept)
    brought = perception.recall(latent[..., : perception.config.latent], begins, here)
    state = torch.cat([latent, brought], dim=-1)
    return state[:, -window.observation.shape[1] :]


def carried(perception: Perception, window: Window) -> Window:
    """The same window with its latents and those of its goals, computed once for all who ask; without a gradient."""
    if window.latent is not None:
        return window
    with torch.no_grad():
        goal = None if window.goal is None else perception.encode(window.goal).latent
        return replace(window, latent=perceive(perception, window), goal=goal)


def return_head(latent: int, hidden: int, bins: int) -> nn.Module:
    """What tells from latents ``[..., D]`` the rewards and the ending that follow: logits ``[..., 2·bins]``.

    It is there for what perception learns by it, and belongs to learning alone: nobody acts on it.
    """
    return nn.Sequential(nn.Linear(latent, hidden), nn.LayerNorm(hidden), nn.SiLU(), silent(hidden, 2 * bins))


def world_model_loss(
    perception: Perception,
    world_model: WorldModel,
    window: Window,
    config: WorldModelLoss,
    prediction_weight: float,
    generator: torch.Generator,
    target_perception: Perception | None = None,
    returns: nn.Module | None = None,
) -> tuple[Tensor, Metrics]:
    """The training criterion of the JEPA (LeCun 2022, p. 26) with heads for interoception.

    Prediction error of a roll-out over T steps from the first latent, a term against collapse per time step, inverse
    dynamics, and cross-entropies of reward and ending and squared errors of the world's sensors, read on imagined
    transitions; and what came later, told from encoded and imagined states (a latent that is to tell it cannot leave
    out what will matter: 1911.08265 trains the representation by values as well). Members of an ensemble are each
    trained alone; their losses are averaged. Where the window carries latents, perception is at rest and not asked.

    Args:
        perception: Enc, in training mode.
        world_model: Pred, in training mode.
        window: From memory.
        config: Weights.
        prediction_weight: Weight of the prediction error at this update.
        generator: Draws SIGReg's directions and the augmentation.
        target_perception: The slow encoder whose latents are to be predicted, in training mode; None: Enc's own.
        returns: Tells what followed in memory (`return_head`), for windows that say it; None: nobody does.

    Returns:
        The loss, and its parts as numbers.

    Raises:
        ValueError: The regulariser is ema and there is no slow encoder.
    """
    if config.regulariser == "ema" and target_perception is None:
        raise ValueError("regulariser ema predicts a slow encoder's latents and got none; give target_perception")
    encoded = world_model.actions(window.action)
    steps, latent, target = _encoded(perception, window, config, generator, target_perception)
    reached = [step - 1 for step in steps[1:]]  # transitions whose outcome was encoded
    known = window.known[:, reached]
    came = _unrolled(world_model, steps, latent, target, window, config, generator, prediction_weight > 0)
    predicted = came.latent[:, :, steps[1:]]
    parts = {"prediction": (prediction_weight, masked_mean(came.error, known))}
    if came.z is not None:
        told = window.valid if world_model.config.events else window.known  # of its end, reward and ending tell
        parts["prior"] = (1.0, masked_mean(came.prior, _counted(window, config.correction) * told))
    seen = latent[..., : perception.config.latent]
    if (term := _against_collapse(seen, predicted, target, known, config, generator)) is not None:
        parts[config.regulariser] = (config.regulariser_weight, term)
    adjacent = [i for i in range(len(reached)) if steps[i + 1] == steps[i] + 1]
    if config.time_similarity:
        change = (latent[:, 1:] - latent[:, :-1]).square().mean(-1)[:, adjacent]
        parts["time_similarity"] = (config.time_similarity, masked_mean(change, known[:, adjacent]))
    if config.inverse:
        pairs = torch.cat([latent[:, :-1], latent[:, 1:]], dim=-1)[:, adjacent]
        between = [reached[i] for i in adjacent]
        inverse = _inverse_loss(world_model, pairs, encoded[:, between])
        parts["inverse"] = (config.inverse, masked_mean(inverse, known[:, adjacent]))
    if world_model.config.events:
        parts |= _felt(world_model, window, config, steps, latent, came)
    if returns is not None and window.returns is not None:
        told = _returns_loss(returns, world_model, window, steps, latent, came.latent)
        parts["returns"] = (config.returns, told)
    loss = torch.stack([weight * value for weight, value in parts.values()]).sum()
    metrics = {name: float(value.detach()) for name, (_, value) in parts.items()}
    with torch.no_grad():
        still = (latent[:, :1] - target).square().mean(-1)
        metrics["prediction_over_persistence"] = metrics["prediction"] / max(float(masked_mean(still, known)), 1e-9)
    return loss, metrics


def _unrolled(
    world_model: WorldModel,
    steps: list[int],
    latent: Tensor,
    target: Tensor,
    window: Window,
    config: WorldModelLoss,
    generator: torch.Generator,
    predicts: bool,
) -> Explained:
    """The roll-out from the first of latents ``[B, n+1, D]``, and its errors ``[B, n]`` at the targets ``[B, n, D]``.

    Raises:
        ValueError: There is a latent variable, and outcomes that were not encoded could not say what it was.
    """
    if world_model.config.codes > 1:
        if target.shape[1] < window.action.shape[1]:
            raise ValueError(
                f"model_loss.targets is {config.targets} of {window.action.shape[1]} steps and world_model.codes "
                f"{world_model.config.codes}: a code is told by what came; set model_loss.targets to 0 (all)"
            )
        return explain(world_model, latent[:, 0], target, window, config, generator, predicts)
    imagined, features = world_model.unroll(latent[:, 0], world_model.actions(window.action))
    error = (imagined[:, :, steps[1:]] - target.unsqueeze(1)).square().mean(-1).mean(1)
    return Explained(imagined, features, error, None, torch.zeros_like(error))


def _encoded(
    perception: Perception,
    window: Window,
    config: WorldModelLoss,
    generator: torch.Generator,
    target_perception: Perception | None,
) -> tuple[list[int], Tensor, Tensor]:
    """Which n + 1 steps of the window are seen, their latents ``[B, n+1, D]``, and what is to be predicted of them
    ``[B, n, D]``."""
    length = window.action.shape[1]
    if window.latent is not None:
        return list(range(length + 1)), window.latent, window.latent[:, 1:]
    if perception.recall is not None:
        latent = perceive(perception, window)
        learns = 0 if config.detach_target else perception.config.latent
        return list(range(length + 1)), latent, _foreseen(latent[:, 1:], learns)
    steps = _encoded_steps(length, config.targets, generator)
    percept = window.observation[:, steps]
    percept = random_shift(percept, config.shift, generator) if config.shift else percept
    percept = random_colours(percept, config.colour, generator) if config.colour else percept
    latent = perception(percept)
    return steps, latent, _target(latent, percept[:, 1:], target_perception, config.detach_target)


def _felt(
    world_model: WorldModel,
    window: Window,
    config: WorldModelLoss,
    steps: list[int],
    latent: Tensor,
    came: Explained,
) -> Parts:
    """What heads of reward, ending and sensors are wrong about, on imagined transitions (their features) and perceived
    ones, which start from the encoded states."""
    encoded = world_model.actions(window.action)
    seen = steps[:-1] if steps[-1] == encoded.shape[1] else steps  # encoded states that a transition starts from
    z = None if came.z is None else came.z[:, seen]
    _, direct = world_model.step(world_model.begin(latent[:, : len(seen)]), encoded[:, seen], z)
    features = torch.cat([came.features, direct.transpose(1, 2)], dim=2)
    where = [*range(encoded.shape[1]), *seen]
    reward, ending = _event_losses(world_model, features, window, where, config.correction)
    parts = {"reward": (config.reward, reward), "ending": (config.ending, ending)}
    if window.sensors is not None and world_model.sensors:
        error = (world_model.measure(features) - window.sensors[:, None, where]).square().mean(-1).mean(1)
        parts["sensors"] = (config.sensors, masked_mean(error, window.valid[:, where]))
    return parts


def _returns_loss(
    head: nn.Module, world_model: WorldModel, window: Window, steps: list[int], latent: Tensor, imagined: Tensor
) -> Tensor:
    """Cross-entropies of the rewards and the ending that followed, told from encoded ``[B, n+1, D]`` and imagined
    latents ``[B, E, T+1, D]``; what is open counts less."""
    assert window.returns is not None
    members = imagined.shape[1]
    states = torch.cat([latent.unsqueeze(1).expand(-1, members, -1, -1), imagined[:, :, 1:]], dim=2)
    where = [*steps, *range(1, imagined.shape[2])]
    followed = window.returns[:, where]
    logits = head(states).unflatten(-1, (2, -1))
    loss = world_model.two_hot.loss(logits, followed[:, None, :, :2].expand(logits.shape[:-1])).sum(-1).mean(1)
    here = F.pad(window.known, (1, 0), value=1.0)[:, where]  # x[t] is of the window's first episode
    return masked_mean(loss, here * (1 - followed[..., 2]))


def _target(latent: Tensor, reached: Tensor, target_perception: Perception | None, detach: bool) -> Tensor:
    """Latents ``[B, n, D]`` to be predicted: Enc's own, held still where asked, or the slow encoder's."""
    if target_perception is None:
        return latent[:, 1:].detach() if detach else latent[:, 1:]
    with torch.no_grad():
        slow: Tensor = target_perception(reached)
    return slow


def _foreseen(state: Tensor, width: int) -> Tensor:
    """States ``[B, T, D+V]`` to be predicted, of which only the first ``width`` numbers learn from it.

    What will be recalled is held still: recalling nothing would be the easiest to foresee.
    """
    return torch.cat([state[..., :width], state[..., width:].detach()], dim=-1)


def _against_collapse(
    latent: Tensor,
    predicted: Tensor,
    target: Tensor,
    known: Tensor,
    config: WorldModelLoss,
    generator: torch.Generator,
) -> Tensor | None:
    """The term against collapse of latents ``[B, n+1, D]``, predictions ``[B, E, n, D]`` and targets ``[B, n, D]``."""
    match config.regulariser:
        case "sigreg":
            return sigreg(latent.transpose(0, 1), generator, config.directions)
        case "vicreg":
            variance, covariance = vicreg(latent.transpose(0, 1))
            return variance + config.covariance * covariance
        case "infonce" | "hinge" as name:
            energies = pair_energies(predicted.permute(1, 2, 0, 3), target.transpose(0, 1))  # [E, n, B, B]
            contrast = info_nce if name == "infonce" else hinge
            return contrast(energies, known.T.expand(energies.shape[:-1]))
        case "ema" | "none":
            return None


def _event_losses(
    world_model: WorldModel, features: Tensor, window: Window, where: list[int], correction: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropies of reward and ending, read from features ``[B, E, n, H]`` of the transitions ``where``."""
    valid = window.valid[:, where] * _counted(window, correction)
    reward = world_model.two_hot.loss(world_model.reward(features), window.reward[:, None, where])
    logits = world_model.ending(features).squeeze(-1)
    ended = window.terminated[:, None, where].expand_as(logits)
    ending = F.binary_cross_entropy_with_logits(logits, ended, reduction="none")
    return masked_mean(reward.mean(1), valid), masked_mean(ending.mean(1), valid)


def _counted(window: Window, correction: float) -> Tensor:
    """What windows count ``[B, 1]`` where some are drawn because of an event, or 1."""
    if not correction or window.weight is None:
        return torch.ones_like(window.valid[:, :1])
    return window.weight.unsqueeze(-1) ** correction


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
