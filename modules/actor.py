"""The actor's reactive half: A(s), a policy that acts without thinking ahead (Mode-1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .actions import ActionEncoder
from .cost import floored
from .networks import Reader, silent, zero_headed_mlp
from .types import DRIVES, Configuration, State, required_goal

_EDGE = 1e-4  # squashed actions are kept this far from ±1, where the density is infinite


@dataclass(frozen=True)
class ActorConfig:
    """Settings of the actor."""

    hidden: int = 256
    """Hidden units."""
    weights: bool = False
    """The configuration's drive weights modulate the policy (FiLM): one actor for all tasks that they can set."""


@dataclass(frozen=True)
class CategoricalPolicy:
    """Independent categorical choices; logits ``[..., A]`` hold the components one behind the other."""

    logits: Tensor
    encoder: ActionEncoder

    def _components(self) -> list[Tensor]:
        return [part.log_softmax(-1) for part in torch.split(self.logits, list(self.encoder.sizes), dim=-1)]

    def _join(self, parts: list[Tensor]) -> Tensor:
        single = len(parts) == 1 and self.encoder.scalar
        return parts[0] if single else torch.stack(parts, dim=-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions ``[...]`` (Discrete) or ``[..., components]`` (MultiDiscrete), by the Gumbel-max trick."""
        parts = []
        for log_probability in self._components():
            uniform = torch.rand(log_probability.shape, generator=generator, device=log_probability.device)
            parts.append((log_probability - (-uniform.clamp(min=1e-20).log()).log()).argmax(-1))
        return self._join(parts)

    def mode(self) -> Tensor:
        """The likeliest actions."""
        return self._join([part.argmax(-1) for part in self._components()])

    def probabilities(self) -> Tensor:
        """Probabilities ``[..., A]``, the components one behind the other."""
        return torch.cat(self._components(), dim=-1).exp()

    def entropy(self) -> Tensor:
        """Entropy ``[...]`` in nats, summed over components."""
        return torch.stack([-(part.exp() * part).sum(-1) for part in self._components()]).sum(0)

    def log_probability(self, action: Tensor) -> Tensor:
        """Log-probability ``[...]`` of actions ``[...]`` (Discrete) or ``[..., components]``."""
        components = action.unsqueeze(-1) if self.encoder.scalar else action
        parts = zip(self._components(), components.unbind(-1), strict=True)
        return torch.stack([part.gather(-1, index.unsqueeze(-1)).squeeze(-1) for part, index in parts]).sum(0)

    def imitation_loss(self, target: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` against target probabilities ``[..., A]``."""
        return -(target * torch.cat(self._components(), dim=-1)).sum(-1)


@dataclass(frozen=True)
class SquashedGaussianPolicy:
    """tanh of a normal, scaled to the bounds of the Box; ``mean`` and ``log_std`` are before the tanh ``[..., A]``."""

    mean: Tensor
    log_std: Tensor
    encoder: ActionEncoder

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions ``[..., A]`` in the environment's units."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.encoder.decode((self.mean + self.log_std.exp() * noise).tanh())

    def mode(self) -> Tensor:
        """The squashed mean."""
        return self.encoder.decode(self.mean.tanh())

    def entropy(self) -> Tensor:
        """Entropy ``[...]`` of the normal before the tanh, in nats."""
        return (self.log_std + 1.4189385).sum(-1)

    def log_probability(self, action: Tensor) -> Tensor:
        """Log-density ``[...]``, before the tanh, of actions ``[..., A]`` in the environment's units."""
        raw = self.encoder(action).clamp(-1 + _EDGE, 1 - _EDGE).atanh()
        loss: Tensor = -0.5 * ((raw - self.mean) / self.log_std.exp()).square() - self.log_std - 0.9189385
        return loss.sum(-1)

    def imitation_loss(self, target: Tensor) -> Tensor:
        """Negative log-likelihood ``[...]`` (before the tanh) of a plan's elites.

        Args:
            target: ``[..., 2A]``: mean and standard deviation of the plan's first action, in the environment's units.
        """
        mean, std = target.chunk(2, dim=-1)
        scaled = self.encoder(mean).clamp(-1 + _EDGE, 1 - _EDGE)
        spread = std * (2 / (self.encoder.high - self.encoder.low))
        # E over the elites of (mean_policy − atanh(a))², to first order in the spread
        slope = 1 / (1 - scaled.square().clamp(max=0.98))
        distance = (self.mean - scaled.atanh()).square() + (slope * spread).square().clamp(max=1.0)
        loss: Tensor = 0.5 * distance * (-2 * self.log_std).exp() + self.log_std
        return loss.sum(-1)


Policy = CategoricalPolicy | SquashedGaussianPolicy


class Actor(nn.Module):
    """A(s): categorical for discrete actions, squashed Gaussian for Box.

    With ``config.weights`` it is A(s, u): the configuration's drive weights, by their shares, scale and shift what the
    first hidden layer finds (FiLM, 1709.07871). That starts as no change.
    """

    def __init__(
        self,
        config: ActorConfig,
        latent: int,
        actions: ActionEncoder,
        goals: bool = False,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.actions = actions
        self.goals = goals
        outputs = actions.width if actions.discrete else 2 * actions.width
        self.read = Reader(latent, goals, grid)
        self.net = zero_headed_mlp(self.read.features, config.hidden, outputs)
        self.modulation: nn.Linear | None = None
        if config.weights:
            self.modulation = silent(len(DRIVES), 2 * config.hidden)

    def forward(self, state: State, configuration: Configuration) -> Policy:
        """The policy in a state ``[..., D]``, towards the configuration's goal where the actor was made for goals.

        Raises:
            ValueError: The actor was made for goals and the configuration has none.
        """
        goal = required_goal(configuration, "actor") if self.goals else None
        found = self.net[1:3](self.read(self.net[0], state.latent, goal))
        if self.modulation is not None:
            u = floored(configuration.u)
            scale, shift = self.modulation(u / u.abs().sum().clamp(min=1e-6)).chunk(2)
            found = found * (1 + scale) + shift
        outputs = self.net[3:](found)
        if self.actions.discrete:
            return CategoricalPolicy(outputs, self.actions)
        mean, log_std = outputs.chunk(2, dim=-1)
        return SquashedGaussianPolicy(mean, -3.0 + 3.5 * F.sigmoid(log_std + 2.0), self.actions)
