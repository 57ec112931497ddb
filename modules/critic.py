"""The trainable critic TC: discounted future intrinsic cost, one head per drive (LeCun 2022, p. 15)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cost import floored
from .networks import Reader, zero_headed_mlp
from .two_hot import TwoHot
from .types import DRIVES, Configuration, State, required_goal


@dataclass(frozen=True)
class CriticConfig:
    """Settings of the critic."""

    hidden: int = 256
    """Hidden units."""
    bins: int = 41
    """Bins of each head's two-hot distribution."""
    limit: float = 5.0
    """The largest cost that these can tell, in symlog units: 5 is 147, 10 is 22,025; it wants twice the bins."""
    target_rate: float = 0.02
    """Per update, how far the target network moves towards the trained one."""
    trace: float = 0.95
    """λ of the λ-returns."""


class Critic(nn.Module):
    """TC(s): expected future energy Σ_{k≥1} γ^k IC(s[k]) of every drive, for unit weights.

    That is the energy F of the plan that will be followed, so with a perfect critic F is the same for every horizon.

    Because there is a head for each drive, new weights v need no new training. With ``goals`` it is TC(s, goal).

    Args:
        config: Settings.
        latent: Width D of the latent.
        goals: Whether costs are those on the way to a goal.
        grid: Height and width of the map that a latent is, to look for things in; None where it is read whole.
        heads: How many drives have a head, the first of `DRIVES`; of the others nothing is expected.
    """

    def __init__(
        self,
        config: CriticConfig,
        latent: int,
        goals: bool = False,
        grid: tuple[int, int] | None = None,
        heads: int = len(DRIVES),
    ) -> None:
        super().__init__()
        self.config = config
        self.goals = goals
        self.heads = heads
        self.two_hot = TwoHot(config.bins, config.limit)
        self.read = Reader(latent, goals, grid)
        self.net = zero_headed_mlp(self.read.features, config.hidden, heads * config.bins)

    def logits(self, latent: Tensor, goal: Tensor | None = None) -> Tensor:
        """Two-hot logits ``[B, ..., heads, bins]`` of latents ``[B, ..., D]``, towards goals ``[B, (G,) D]``."""
        found = self.read(self.net[0], latent, goal)
        return self.net[1:](found).unflatten(-1, (self.heads, self.config.bins))  # type: ignore[no-any-return]

    def cost_to_go(self, latent: Tensor, goal: Tensor | None = None) -> Tensor:
        """Unweighted cost-to-go ``[B, ..., K]`` of latents ``[B, ..., D]``, towards goals if made for them."""
        return F.pad(self.two_hot.mean(self.logits(latent, goal)), (0, len(DRIVES) - self.heads))

    def forward(self, state: State, configuration: Configuration) -> Tensor:
        """v·TC(s), or v·TC(s, goal), per drive ``[..., K]``.

        Raises:
            ValueError: The critic was made for goals and the configuration has none.
        """
        goal = required_goal(configuration, "critic") if self.goals else None
        return floored(configuration.v) * self.cost_to_go(state.latent, goal)

    def spread(self, state: State, configuration: Configuration) -> Tensor:
        """Standard deviation ``[...]`` of v·TC(s) under the heads' distributions, as if they were independent.

        Raises:
            ValueError: The critic was made for goals and the configuration has none.
        """
        goal = required_goal(configuration, "critic") if self.goals else None
        variance = self.two_hot.variance(self.logits(state.latent, goal))
        return (floored(configuration.v)[: self.heads].square() * variance).sum(-1).sqrt()


def lambda_returns(costs: Tensor, continuation: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """λ-returns of costs: G[t] = c[t] + γ·go[t]·((1−λ)·V(s[t+1]) + λ·G[t+1]), G[T] = V(s[T]) (Sutton 1988).

    Args:
        costs: Energies felt on entering ``s[1…T]``, ``[..., T, K]``.
        continuation: Chance that the episode goes on in ``s[1…T]``, ``[..., T]``.
        values: V(s[1…T]) ``[..., T, K]``.
        discount: γ.
        trace: λ.

    Returns:
        G for ``s[0…T−1]``, ``[..., T, K]``.
    """
    following = values[..., -1, :]
    returns = []
    for t in reversed(range(costs.shape[-2])):
        mixed = (1 - trace) * values[..., t, :] + trace * following
        following = costs[..., t, :] + discount * continuation[..., t, None] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], dim=-2)
