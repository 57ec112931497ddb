"""A screen in an agent: actor and critic read every place of it in its own right, those of a map look for things."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from forethought.agent.agent import Agent, Spaces
from forethought.agent.policies import with_policy
from forethought.modules.networks import MapReader
from forethought.modules.perception import PerceptionConfig
from forethought.modules.world_model import WorldModelConfig
from gymnasium import spaces

from .small import tiny

PICTURES = Spaces((64, 64, 3), True, False, spaces.Discrete(3))


@pytest.mark.parametrize(("latents", "predictor"), [("map", "conv"), ("screen", "screen")])
def test_actor_critic_and_further_policies_read_every_place_of_a_screen(
    latents: Literal["map", "screen"], predictor: Literal["conv", "screen"]
) -> None:
    config = replace(
        tiny(),
        perception=PerceptionConfig("cnn", latent=64, latents=latents, width=8),
        world_model=WorldModelConfig(predictor, hidden=8),
    )
    agent = Agent(config, PICTURES)
    other = with_policy(agent, config.task, seed=3)
    for reader in (agent.modules.actor.read, agent.modules.critic.read, other.modules.actor.read):
        assert isinstance(reader.look, MapReader) == (latents == "map")
        latent = torch.randn(2, 64)
        assert torch.equal(reader.look(latent), latent) == (latents == "screen")
