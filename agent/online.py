"""Learning while acting: the world model goes on learning from each percept that Mode-1 meets (LeCun 2022, p. 10).

Acting needs no world model, but what comes next is known one step later: min D(sg(Enc(x')), Pred(s, a)) over the
predictor alone. Perception, heads, critic and actor stay as they are. Off unless `OnlineActing` is asked for; it learns
in a copy of the predictor, so that the agent that was evaluated is the agent on disk.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.types import Mode
from ..modules.world_model import WorldModel
from .agent import Agent, Decision, plan_width
from .health import encode
from .interaction import Behaviour, Exploring, Observation, RandomBehaviour


@dataclass(frozen=True)
class OnlineLearning:
    """How the predictor learns while the agent acts."""

    learning_rate: float = 3e-4
    """Learning rate (Adam); 0: errors are measured and nothing is learned."""
    ring: int = 16
    """Latest steps of all environments that are learned from; what is older is forgotten."""
    updates: int = 1
    """Gradient steps per step of the environments."""

    def __post_init__(self) -> None:
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected a number from 0")
        if self.ring < 1 or self.updates < 1:
            raise ValueError(f"ring is {self.ring} and updates {self.updates}, expected at least 1 each")


def one_step_error(world_model: WorldModel, latent: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
    """D(Enc(x'), Pred(s, a)) ``[N]``: mean squared error of the next latent, mean over members; of the code of the
    latent variable that explains it best.

    Args:
        world_model: Pred.
        latent: s ``[N, D]``.
        action: a ``[N, ...]`` in the environment's units.
        outcome: Enc(x') ``[N, D]``.
    """
    carry, _ = world_model.outcomes(world_model.begin(latent), world_model.actions(action))
    return (carry[0] - outcome[..., None, None, :]).square().mean((-2, -1)).amin(-1)


class OnlineActing:
    """An agent at work whose predictor learns from every step it takes.

    Attributes:
        agent: The one that acts, with a world model of its own.
        errors: Mean one-step error of every step over the environments that went on, before anything was learned from
            it; NaN where none did.

    Args:
        agent: Left as it is.
        num_envs: Environments B.
        settings: How to learn.
        mode: In which it acts; Mode-2 plans with what is learned.
        sample: Mode-1 draws from its policy.
        exploration: Chance of a random action instead.
    """

    def __init__(
        self,
        agent: Agent,
        num_envs: int,
        settings: OnlineLearning,
        mode: Mode = "mode-1",
        sample: bool = False,
        exploration: float = 0.0,
    ) -> None:
        self.agent, self.settings = copy.copy(agent), settings
        self.agent.modules = replace(agent.modules, world_model=copy.deepcopy(agent.modules.world_model))
        self.acting = self.agent.begin(num_envs, mode, sample)
        random = RandomBehaviour(agent.spaces.action, num_envs, agent.config.seed, plan_width(agent.spaces))
        self.behaviour: Behaviour = Exploring(self.acting, random, exploration) if exploration else self.acting
        predictor = self.agent.modules.world_model.predictor
        self.optimiser = torch.optim.Adam(predictor.parameters(), settings.learning_rate or 1.0)
        self.ring: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=settings.ring)
        self.last: tuple[Tensor, Tensor, NDArray[np.bool_]] | None = None
        self.errors: list[float] = []

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide as the agent does, then learn from where the last action has led; see `Acting.act`.

        Raises:
            FloatingPointError: The error is not finite.
        """
        decision = self.behaviour.act(observation, first, active)
        device = self.agent.device
        s = encode(self.agent.modules.perception, torch.from_numpy(self.acting.frames).to(device))
        if self.last is not None:
            before, action, acted = self.last
            self._learn(before, action, s, torch.from_numpy(acted & ~first).to(device))
        self.last = s, torch.from_numpy(decision.action.copy()).to(device), active.copy()
        return decision

    def _learn(self, s: Tensor, action: Tensor, outcome: Tensor, known: Tensor) -> None:
        """Remember the transitions ``[B]`` that are known, and take the gradient steps."""
        world_model, settings = self.agent.modules.world_model, self.settings
        with torch.no_grad():
            error = one_step_error(world_model, s[known], action[known], outcome[known])
        self.errors.append(float(error.mean()))
        if not len(error) or not settings.learning_rate:
            return
        self.ring.append((s[known], action[known], outcome[known]))
        batch = [torch.cat(parts) for parts in zip(*self.ring, strict=True)]
        for _ in range(settings.updates):
            loss = one_step_error(world_model, *batch).mean()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the one-step error is {float(loss.detach())} while learning online; lower the learning rate"
                )
            parameters = list(world_model.predictor.parameters())
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            self.optimiser.step()
        self.optimiser.zero_grad()
