"""Two-hot regression on symlog bins: scalars of any scale as a classification (Hafner et al. 2023, 2301.04104)."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def symlog(x: Tensor) -> Tensor:
    """sign(x)·ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class TwoHot(nn.Module):
    """Bins equally spaced in symlog space, symmetric about 0, and the loss and mean of logits over them.

    Args:
        bins: Number of bins, odd so that one sits at 0 exactly.
        limit: The largest magnitude in symlog units (5 ≈ ±147); values beyond it are clamped, with a warning.
    """

    centres: Tensor

    def __init__(self, bins: int = 41, limit: float = 5.0) -> None:
        super().__init__()
        self.bins = bins
        self.limit = limit
        self.register_buffer("centres", torch.linspace(-limit, limit, bins), persistent=False)

    def encode(self, value: Tensor) -> Tensor:
        """Weights of the two neighbouring bins ``[..., bins]`` for values ``[...]``.

        Raises:
            FloatingPointError: A value is NaN.
        """
        if value.isnan().any():
            raise FloatingPointError(
                f"{int(value.isnan().sum())} of {value.numel()} targets are NaN; look at the rewards"
            )
        largest = math.expm1(self.limit)
        if bool((value.abs() > 1.001 * largest).any()):
            warnings.warn(
                f"values of up to {float(value.abs().max()):.4g} are learned as ±{largest:.4g}, the most that a limit "
                f"of {self.limit:g} can tell; raise critic.limit and critic.bins (costs to go) or world_model.limit "
                "and world_model.bins (rewards), or scale the rewards",
                stacklevel=2,
            )
        position = (symlog(value).clamp(-self.limit, self.limit) + self.limit) * ((self.bins - 1) / (2 * self.limit))
        low = position.floor().clamp(max=self.bins - 2)
        weight = position - low
        index = low.long().unsqueeze(-1)
        target = torch.zeros(*value.shape, self.bins, device=value.device)
        target.scatter_(-1, index, (1 - weight).unsqueeze(-1))
        return target.scatter_(-1, index + 1, weight.unsqueeze(-1))

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` of logits ``[..., bins]`` against values ``[...]``."""
        return -(self.encode(value) * F.log_softmax(logits, dim=-1)).sum(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value ``[...]``, taken between the bins' real values so that a bimodal belief is averaged fairly."""
        return (logits.softmax(-1) * symexp(self.centres)).sum(-1)

    def variance(self, logits: Tensor) -> Tensor:
        """Variance ``[...]`` of that value under the belief."""
        centres = symexp(self.centres)
        return (logits.softmax(-1) * (centres - self.mean(logits).unsqueeze(-1)).square()).sum(-1)
