"""A small world whose best action depends on the state, and small agents for it that train in seconds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import BehaviourLoss, EnvConfig, RunConfig, Schedule, WorldModelLoss
from forethought.agent.spaces import Spaces
from forethought.modules.actor import ActorConfig
from forethought.modules.configurator import Task, Thinking
from forethought.modules.critic import CriticConfig
from forethought.modules.memory import Window
from forethought.modules.perception import PerceptionConfig
from forethought.modules.world_model import PredictorName, WorldModelConfig
from gymnasium import spaces
from numpy.typing import NDArray

STRIDE, STEPS, EDGE = 0.25, 12, 1.6


class Seek(gymnasium.Env[NDArray[np.float32], int]):
    """A point on a line and a target beside it: left, stay or right; reward 1 − |distance|; falls off at ±1.6."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-3.0, 3.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.position, self.target, self.steps = 0.0, 0.0, 0

    def _observe(self) -> NDArray[np.float32]:
        return np.array([self.position, self.target], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.target = (float(number) for number in self.np_random.uniform(-1, 1, 2))
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.position += STRIDE * (int(action) - 1)
        self.steps += 1
        fell = abs(self.position) > EDGE
        return self._observe(), 1 - abs(self.position - self.target), fell, self.steps >= STEPS and not fell, {}


def best_return(start: NDArray[np.float32]) -> float:
    """Return of the best policy from the first observation: walk to the target and stay."""
    position, target = (float(number) for number in start)
    total = 0.0
    for _ in range(STEPS):
        position = min((position + STRIDE * move for move in (-1, 0, 1)), key=lambda there: abs(there - target))
        total += 1 - abs(position - target)
    return total


if "ForethoughtSeek-v0" not in gymnasium.registry:
    gymnasium.register("ForethoughtSeek-v0", entry_point=Seek)

SEEK = Spaces((2,), False, False, spaces.Discrete(3))
PREDICTORS: list[tuple[PredictorName, int]] = [
    ("mlp", 1),
    ("gru", 1),
    ("transformer", 1),
    ("mlp", 3),
    ("transformer", 2),
]
"""Predictors and members of their ensembles, to try everything with."""


def settings(seed: int = 0, id: str = "ForethoughtSeek-v0", thinking: Thinking | None = None) -> RunConfig:
    """Settings that learn `Seek` in about five seconds."""
    return RunConfig(
        env=EnvConfig(id, num_envs=8),
        task=Task(discount=0.9, thinking=thinking or Thinking(horizon=4, candidates=32, iterations=2)),
        perception=PerceptionConfig("mlp", latent=8, width=8),
        world_model=WorldModelConfig(hidden=48),
        critic=CriticConfig(hidden=32),
        actor=ActorConfig(hidden=32),
        model_loss=WorldModelLoss(steps=3, batch=48, regulariser_weight=0.01, directions=16, learning_rate=3e-3),
        behaviour=BehaviourLoss(batch=32, steps=6, learning_rate=3e-3),
        schedule=Schedule(prefill=1_200, prefill_updates=300, reanalyse=32, final_behaviour_updates=200),
        seed=seed,
        device="cpu",
        threads=1,
    )


def tiny(seed: int = 0) -> RunConfig:
    """Settings that run through every phase in a fraction of a second and learn nothing."""
    config = settings(seed, thinking=Thinking(horizon=3, candidates=6, iterations=2))
    schedule = Schedule(
        prefill=100, prefill_updates=6, rounds=2, round_steps=60, round_updates=4, reanalyse=3, capacity=400,
        predictor_updates=3, predictor_batch=8, final_behaviour_updates=5,
    )  # fmt: skip
    return replace(
        config,
        env=replace(config.env, num_envs=4),
        model_loss=replace(config.model_loss, batch=8),
        behaviour=replace(config.behaviour, batch=8, final_rate=0.3),
        schedule=schedule,
    )


def wake(agent: Agent, seed: int = 0) -> Agent:
    """Move every parameter at random, so that no head is silent and everything depends on everything."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for network in agent.networks().values():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    return agent


def make_agent(goals: bool = False, predictor: PredictorName = "mlp", members: int = 1, **task: Any) -> Agent:
    """An agent for `Seek`, or for goals in a world that looks like it, in which no head is silent."""
    config = settings()
    world_model = replace(config.world_model, events=not goals, predictor=predictor, members=members)
    config = replace(config, task=replace(config.task, goals=goals, **task), world_model=world_model)
    return wake(Agent(config, replace(SEEK, goals=goals)))


def make_window(seed: int = 0, batch: int = 6, steps: int = 4) -> Window:
    """Random transitions without an end, with a plan everywhere."""
    draws = torch.Generator().manual_seed(seed)
    return Window(
        observation=torch.randn(batch, steps + 1, 1, 2, generator=draws),
        action=torch.randint(3, (batch, steps), generator=draws),
        reward=torch.randn(batch, steps, generator=draws),
        terminated=torch.zeros(batch, steps),
        truncated=torch.zeros(batch, steps),
        valid=torch.ones(batch, steps),
        known=torch.ones(batch, steps),
        plan=torch.rand(batch, steps + 1, 3, generator=draws).softmax(-1),
        course=torch.randint(3, (batch, 4), generator=draws),
        planned=torch.ones(batch, steps + 1),
    )


def certain(*_: object) -> None:
    """In the place of `WorldModel.chance`: there is one outcome, and nothing to draw."""


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fingerprints(agent: Agent) -> dict[str, str]:
    """SHA-256 of each module."""
    return {name: fingerprint(network) for name, network in agent.networks().items()}
