"""The whole check-up of a trained agent's representation and world model, on play where training has not been."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from .agent import Agent, plan_width
from .evaluation import Progress
from .health import STEPS, Vitals, encode, vitals
from .imagination import Imagination, imagine
from .interaction import RandomBehaviour
from .learning import to_device
from .probes import Probe, linear_probe
from .recording import Recording, record
from .violation import Violations, violations
from .worlds import held_out_env

HELD_OUT_SEED = 1_000
"""Of held-out levels and starts, where no other is asked for."""
DECISIONS = 4_096
"""Of a held-out recording, over all environments."""
_STREAMS, _WINDOWS = 32, 512  # many starts: a probe cannot tell places where nothing has been


@dataclass(frozen=True)
class Health:
    """Everything that is measured.

    Attributes:
        vitals: Spread of the latents, prediction errors, inverse dynamics.
        violations: How well impossible transitions are told.
        facts: What a linear probe was asked for.
        probe: What it reads from the latents, or None where the world says nothing about itself.
        decisions: Length of the recording over all environments.
        episodes: Episodes in it.
    """

    vitals: Vitals
    violations: Violations
    facts: tuple[str, ...]
    probe: Probe | None
    decisions: int
    episodes: int

    @property
    def probe_score(self) -> float:
        """Mean R² of the probe over the facts that vary; NaN without any."""
        scores = [score for score in (self.probe.scores if self.probe else ()) if math.isfinite(score)]
        return sum(scores) / len(scores) if scores else math.nan

    def numbers(self) -> dict[str, float]:
        """As named numbers, for curves."""
        named = self.vitals.numbers()
        for item in fields(self.violations):
            value = getattr(self.violations, item.name)
            named |= {} if value is None else {f"auroc_{item.name}": value}
        return named if math.isnan(self.probe_score) else named | {"probe": self.probe_score}


def examine(agent: Agent, recording: Recording, seed: int, progress: Progress | None = None) -> Health:
    """Measure an agent on a recording.

    Args:
        agent: Whose perception and world model are examined.
        recording: Of its world.
        seed: Draws windows, directions and other actions.
        progress: Told of measures.
    """
    m, loss = agent.modules, agent.config.model_loss
    tell = progress or (lambda done, wanted: None)
    generator = torch.Generator(device=agent.device).manual_seed(seed)
    window = to_device(recording.windows(_WINDOWS, STEPS, np.random.default_rng(seed)), agent.device)
    latent = encode(m.perception, window.observation)
    tell(1, 4)
    found = vitals(m, window, latent, loss, generator)
    tell(2, 4)
    told = violations(m.world_model, latent, window.action, window.known, generator)
    tell(3, 4)
    episodes, probe = recording.episodes(), None
    if recording.names:
        facts = torch.from_numpy(recording.facts).flatten(0, 1)
        halves = torch.Generator().manual_seed(seed)
        probe = linear_probe(encode(m.perception, recording.observations()), facts, episodes, halves)
    tell(4, 4)
    return Health(found, told, recording.names, probe, len(recording.memory), int(episodes.max()))


def record_held_out(agent: Agent, decisions: int, seed: int, progress: Progress | None = None) -> Recording:
    """Play at random where training has not been, as it did before learning began.

    Args:
        agent: Whose world it is.
        decisions: Over all environments.
        seed: Of levels (or starts) and actions.
        progress: Told of steps.
    """
    space, sticky = agent.spaces.action, agent.config.schedule.sticky
    random = RandomBehaviour(space, _STREAMS, seed, plan_width(agent.spaces), sticky)
    env = held_out_env(agent, _STREAMS, seed)
    try:
        return record(agent, env, random, max(2, decisions // _STREAMS), seed, progress)
    finally:
        env.close()


def imagine_held_out(
    agent: Agent, health: Health, recording: Recording, episodes: int, seed: int, progress: Progress | None = None
) -> Imagination:
    """Imagined beside real courses of first plans where training has not been; see `imagine`.

    Args:
        agent: Who plans.
        health: What `examine` found in the recording.
        recording: Of held-out play.
        episodes: How many.
        seed: Of levels or starts.
        progress: Told of steps.
    """
    env = held_out_env(agent, episodes, seed, "rgb_array" if agent.spaces.goals else None)
    try:
        return imagine(agent, env, recording, health.probe, seed, progress)
    finally:
        env.close()
