"""Bridges to Stable-Baselines3 (SB3).

Our environments as its `VecEnv`, its policies as behaviours in our harness and as actors under our planner, and our
perception as the features of its policies.

Importing this module imports SB3. Nothing here uses SB3's own files, which run code when they are loaded; `ppo.py`
saves weights and settings instead.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

with redirect_stderr(io.StringIO()), warnings.catch_warnings():  # an old gym may be beside it, and advertises
    warnings.simplefilter("ignore")
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.distributions import (
        CategoricalDistribution,
        DiagGaussianDistribution,
        Distribution,
        MultiCategoricalDistribution,
    )
    from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
    from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from ..modules.actions import ActionEncoder
from ..modules.actor import Actor, CategoricalPolicy
from ..modules.perception import Perception, PerceptionConfig
from ..modules.types import Configuration, State
from .agent import Agent, Decision
from .budgets import rethink
from .interaction import Observation, VectorEnv

__all__ = [
    "PPO",
    "BaseCallback",
    "ImpalaFeatures",
    "Logger",
    "PerceptionFeatures",
    "PolicyActor",
    "PolicyBehaviour",
    "Sb3VecEnv",
    "TensorBoardOutputFormat",
    "VecMonitor",
    "VecNormalize",
    "draw",
    "with_policy",
]
IMPALA_FEATURES = 256
POLICIES: dict[str, type[ActorCriticPolicy]] = {"CnnPolicy": ActorCriticCnnPolicy, "MlpPolicy": ActorCriticPolicy}
"""SB3's actor-critic policies by the names that its algorithms take."""


class Sb3VecEnv(VecEnv):
    """One of our vector environments, as SB3 wants to see it.

    Infos of ended episodes carry `terminal_observation` where the environment keeps it (Procgen does not), and
    `TimeLimit.truncated` where time ran out; SB3 then bootstraps from that observation.

    Args:
        env: With same-step autoreset, from `make_env`.
        seed: Of the first reset; None: the environment's own.
    """

    def __init__(self, env: VectorEnv, seed: int | None = None) -> None:
        self.env, self._seed = env, seed
        self.metadata = {key: value for key, value in env.metadata.items() if key != "autoreset_mode"}
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin new episodes in all environments."""
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None
        self._reset_seeds()
        self._reset_options()
        return observation

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset."""
        self._seed = seed
        return [None if seed is None else seed + index for index in range(self.num_envs)]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions until `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Take one action in every environment: observations, rewards ``[B]``, ends ``[B]``, and B infos."""
        assert self._actions is not None, "step_wait before step_async"
        observation, reward, terminated, truncated, infos = self.env.step(self._actions)
        ended = terminated | truncated
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        final = infos.get("final_obs")
        for index in np.flatnonzero(ended):
            told[index] = {
                "TimeLimit.truncated": bool(truncated[index]),
                "is_success": bool(infos.get("success", ended & False)[index]),
            }
            if final is not None and final[index] is not None:
                told[index]["terminal_observation"] = final[index]
        return observation, np.asarray(reward, np.float32), ended, told

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A picture of every environment."""
        pictures = self.env.render()
        return [None] * self.num_envs if pictures is None else [np.asarray(picture) for picture in pictures]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector environment's attribute, once for each index."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible: the environments are stepped together.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{attr_name} cannot be set in single environments; they are stepped together")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not possible: the environments are stepped together.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{method_name} cannot be called in single environments; they are stepped together")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> Any:
        """False for each index: no environment has a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]


class PolicyBehaviour:
    """An SB3 policy that decides in our harness, as Mode-1 does: no planning, no predictor calls.

    Args:
        policy: Of any SB3 algorithm.
        space: Actions of one environment.
        seed: Of the draws.
        sample: Draw from the policy; else take its mode. Only actor-critic policies can be drawn from here.
    """

    def __init__(self, policy: BasePolicy, space: spaces.Space[Any], seed: int, sample: bool = True) -> None:
        self.policy, self.space, self.sample = policy, space, sample
        self.generator = torch.Generator(device=policy.device).manual_seed(seed)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide for all environments at once."""
        nothing = np.zeros(len(first), np.bool_)
        return Decision(self._actions(observation), np.zeros((len(first), 1), np.float32), None, nothing, 0)

    def _actions(self, observation: Observation) -> NDArray[Any]:
        if not (self.sample and isinstance(self.policy, ActorCriticPolicy)):
            return np.asarray(self.policy.predict(observation, deterministic=True)[0])
        with torch.no_grad():
            self.policy.set_training_mode(False)
            seen, _ = self.policy.obs_to_tensor(observation)
            action = draw(self.policy.get_distribution(seen), self.generator).cpu().numpy()
        if isinstance(self.space, spaces.Box):
            return np.clip(action, self.space.low, self.space.high)
        return action


def draw(distribution: Distribution, generator: torch.Generator) -> Tensor:
    """A sample ``[B, ...]`` from an SB3 distribution, by a generator of our own (SB3 draws from the global one).

    Raises:
        ValueError: A kind of distribution that is not known here.
    """
    if isinstance(distribution, CategoricalDistribution):
        return torch.multinomial(distribution.distribution.probs, 1, generator=generator)[:, 0]
    if isinstance(distribution, MultiCategoricalDistribution):
        parts = [torch.multinomial(part.probs, 1, generator=generator) for part in distribution.distribution]
        return torch.cat(parts, dim=1)
    if isinstance(distribution, DiagGaussianDistribution):
        mean, std = distribution.distribution.mean, distribution.distribution.stddev
        return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
    raise ValueError(f"cannot draw from a {type(distribution).__name__}; let the policy act by its mode (sample off)")


class PerceptionFeatures(BaseFeaturesExtractor):
    """Our perception as the features of an SB3 policy: what the policy sees is the latent state.

    Args:
        observation_space: Pixels ``[C, H, W]`` as SB3 turns them, which its policies scale to [0, 1], or vectors.
        perception: A trained one (of an agent), or None for a fresh one.
        config: Settings of a fresh one.
        frozen: Leave the perception as it is; its statistics are at rest too.

    Raises:
        ValueError: The perception stacks several observations, or was made for others.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        perception: Perception | None = None,
        config: PerceptionConfig | None = None,
        frozen: bool = True,
    ) -> None:
        assert observation_space.shape is not None
        pixels = len(observation_space.shape) == 3
        channels_last = (
            (*observation_space.shape[1:], observation_space.shape[0]) if pixels else observation_space.shape
        )
        fresh = perception is None
        if perception is None:
            perception = Perception(config or PerceptionConfig("cnn" if pixels else "mlp"), channels_last)
        if perception.config.history != 1 or perception.shape != channels_last:
            raise ValueError(
                f"the perception takes {perception.config.history} observations of shape {perception.shape} and the "
                f"policy sees one of {channels_last}; use a perception with history 1 of the same world"
            )
        super().__init__(observation_space, perception.config.latent)
        if fresh:
            perception.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # SB3 draws weights
        self.perception, self.pixels, self.fresh, self.frozen = perception, pixels, fresh, frozen and not fresh
        if self.frozen:
            self.perception.requires_grad_(False)

    def train(self, mode: bool = True) -> PerceptionFeatures:
        """As in torch, but a frozen perception stays at rest."""
        super().train(mode and not self.frozen)
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> PerceptionFeatures:
        """As in torch, but a trained perception is left out: SB3 draws new weights for its policies' features."""
        return super().apply(fn) if self.fresh else self

    def forward(self, observation: Tensor) -> Tensor:
        """Latents ``[B, D]``."""
        x = observation.permute(0, 2, 3, 1) * 255 if self.pixels else observation
        latent: Tensor = self.perception(x.unsqueeze(1))
        return latent


class ImpalaFeatures(BaseFeaturesExtractor):
    """The IMPALA network of the Procgen baselines (1802.01561): stages of 16, 32 and 32 channels, then 256 units."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, IMPALA_FEATURES)
        channels, height, width = observation_space.shape
        trunk = Perception(PerceptionConfig("impala", width=32), (height, width, channels)).trunk
        with torch.no_grad():
            outputs = trunk(torch.zeros(1, channels, height, width)).numel()
        layers = nn.Sequential(trunk, nn.Flatten(), nn.Linear(outputs, IMPALA_FEATURES), nn.ReLU())
        self.layers = layers.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # SB3 draws weights

    def forward(self, observation: Tensor) -> Tensor:
        """Features ``[B, 256]`` of pixels ``[B, C, H, W]`` in [0, 1]."""
        features: Tensor = self.layers(observation)
        return features


class PolicyActor(Actor):
    """The head of an SB3 policy on `PerceptionFeatures`, as the agent's actor: it reacts, and it proposes to planners.

    Args:
        policy: Trained on the latents of the agent's perception, with discrete actions.
        actions: The agent's.

    Raises:
        ValueError: Another features extractor, or actions that are not discrete.
    """

    def __init__(self, policy: ActorCriticPolicy, actions: ActionEncoder) -> None:
        nn.Module.__init__(self)
        if not isinstance(policy.features_extractor, PerceptionFeatures) or not actions.discrete:
            raise ValueError("an SB3 policy can be the actor where it has PerceptionFeatures and discrete actions")
        self.actions, self.goals, self.policy = actions, False, policy

    def forward(self, state: State, configuration: Configuration) -> CategoricalPolicy:
        """The policy in a state ``[..., D]``."""
        return CategoricalPolicy(
            self.policy.action_net(self.policy.mlp_extractor.forward_actor(state.latent)), self.actions
        )


def with_policy(agent: Agent, policy: ActorCriticPolicy) -> Agent:
    """A copy of the agent whose actor is an SB3 policy on the agent's own perception.

    Raises:
        ValueError: The policy does not see the latents of this agent's perception.
    """
    features = policy.features_extractor
    if not isinstance(features, PerceptionFeatures) or features.perception is not agent.modules.perception:
        raise ValueError("the policy was not trained on this agent's perception; give it to PerceptionFeatures")
    other = rethink(agent, agent.config.task.thinking)
    actor = PolicyActor(policy, agent.modules.actor.actions).to(agent.device).eval()
    other.modules = replace(agent.modules, actor=actor)
    return other
