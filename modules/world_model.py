"""The JEPA world model: predicts the next latent, the interoception and the chance to go on. No pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .actions import ActionEncoder
from .cost import goal_distance, interoception
from .two_hot import TwoHot
from .types import State, Trajectory


@dataclass(frozen=True)
class WorldModelConfig:
    """Settings of the world model."""

    hidden: int = 256
    """Hidden units of the predictor."""
    bins: int = 41
    """Bins of the reward's two-hot distribution."""
    events: bool = True
    """Predict reward and ending. Off for goal tasks, where both belong to the goal and not to the world."""


class WorldModel(nn.Module):
    """Pred(s, a): one engine for training, evaluation and planning.

    The predictor is residual (s' = s + Δ) so that "nothing happens" is where it starts from. Every single-state
    prediction is counted in `calls`: that is the price of thinking.
    """

    def __init__(self, config: WorldModelConfig, latent: int, actions: ActionEncoder) -> None:
        super().__init__()
        self.config = config
        self.actions = actions
        self.calls = 0
        hidden = config.hidden
        self.trunk = nn.Sequential(
            nn.Linear(latent + actions.width, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
        )
        self.delta = nn.Linear(hidden, latent)
        self.two_hot = TwoHot(config.bins)
        self.reward = _head(hidden, config.bins)
        self.ending = _head(hidden, 1)
        output = 2 * actions.width if not actions.discrete else actions.width
        self.inverse = nn.Sequential(nn.Linear(2 * latent, hidden), nn.SiLU(), nn.Linear(hidden, output))
        with torch.no_grad():
            self.delta.weight.mul_(0.1)

    def transition(self, latent: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Next latents ``[..., D]`` and the features ``[..., hidden]`` of the transition that the heads read."""
        self.calls += latent[..., 0].numel()
        features = self.trunk(torch.cat([latent, encoded], dim=-1))
        return latent + self.delta(features), features

    def sense(self, features: Tensor, encoded: Tensor, latent: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predicted ι ``[..., I]`` and continuation ``[...]`` of a transition into ``latent``."""
        if self.config.events:
            reward = self.two_hot.mean(self.reward(features))
            ended = self.ending(features).squeeze(-1).sigmoid()
        else:
            reward = ended = torch.zeros_like(latent[..., 0])
        distance = None if goal is None else goal_distance(latent, goal)
        effort = self.actions.effort(encoded)
        return interoception(reward, ended, effort, distance), 1 - ended

    def predict(self, state: State, action: Tensor, goal: Tensor | None = None) -> State:
        """One step: the state that ``action [...]`` leads to from ``state`` with latents ``[..., D]``."""
        encoded = self.actions(action)
        latent, features = self.transition(state.latent, encoded)
        iota, continuation = self.sense(features, encoded, latent, goal)
        return State(latent, iota, continuation)

    def rollout(self, state: State, actions: Tensor, goal: Tensor | None = None) -> Trajectory:
        """Imagine S courses of action for each of B states.

        Args:
            state: Latents ``[B, D]``.
            actions: ``[B, S, T]`` or ``[B, S, T, A]``, in the environment's units.
            goal: Latent goals ``[B, D]``, or None.

        Raises:
            ValueError: The batches of state and actions differ.
        """
        batch, candidates, horizon = actions.shape[:3]
        if state.latent.shape[0] != batch:
            raise ValueError(f"{state.latent.shape[0]} states but actions for {batch}; give one set of plans per state")
        encoded = self.actions(actions)
        latents = [state.latent.unsqueeze(1).expand(-1, candidates, -1)]
        features = []
        for t in range(horizon):
            latent, feature = self.transition(latents[-1], encoded[:, :, t])
            latents.append(latent)
            features.append(feature)
        trajectory = torch.stack(latents, dim=2)
        goals = None if goal is None else goal[:, None, None]
        iota, continuation = self.sense(torch.stack(features, dim=2), encoded, trajectory[:, :, 1:], goals)
        return Trajectory(trajectory, iota, continuation)


def _head(hidden: int, outputs: int) -> nn.Linear:
    """A head that starts at zero, so that an untrained model promises nothing."""
    head = nn.Linear(hidden, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
