"""Gradient steps: learning rates, limits, and errors that name what is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .criterion import Metrics


def learning_rate_factor(done: int, updates: int) -> float:
    """Factor on the learning rate: 2 % warm-up, then cosine to a tenth."""
    warm = min(1.0, (done + 1) / (0.02 * updates + 1))
    return warm * (0.55 + 0.45 * math.cos(math.pi * min(done / updates, 1.0)))


def named(name: str, network: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters with the names that a message about them needs."""
    return [(f"{name}.{key}", parameter) for key, parameter in network.named_parameters()]


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, limit: float = 5.0) -> None:
    """One gradient step, the gradient's norm clipped at ``limit``; no other parameter receives a gradient.

    Raises:
        FloatingPointError: A gradient is not finite; no parameter was changed.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    if not torch.isfinite(norm):
        names = [name for group in optimiser.param_groups for name in group["param_names"]]
        bad = [n for n, g in zip(names, gradients, strict=True) if g is not None and not torch.isfinite(g).all()]
        raise FloatingPointError(
            f"the gradient of {', '.join(bad[:3]) or 'all parameters together'}{' …' * (len(bad) > 3)} is not finite; "
            "lower the learning rate or look at the environment's observations and rewards"
        )
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    optimiser.step()


def check_finite(what: str, loss: Tensor, metrics: Metrics) -> None:
    """Refuse to learn from a loss that is not finite.

    Raises:
        FloatingPointError: Names it and the metrics that are not finite either.
    """
    if not torch.isfinite(loss):
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        raise FloatingPointError(
            f"{what} is {float(loss.detach())} (not finite: {', '.join(bad) or 'the sum'}); lower the learning rate or "
            "look at the environment's observations and rewards"
        )
