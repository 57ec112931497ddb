"""Imagined against real: Mode-2's first plan, carried out to its end, beside what the world model said it would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..envs.room_base import RoomVectorEnv
from ..modules.types import State
from .agent import Acting, Agent, Decision
from .evaluation import Progress
from .health import encode
from .interaction import Observation, VectorEnv
from .learning import to_device
from .probes import Probe
from .recording import Recording, record

Points = NDArray[np.float64]
Projection = Callable[[Tensor], Points]


class FirstPlan:
    """Mode-2 that thinks once, in the first step, and then does as planned whatever happens."""

    def __init__(self, acting: Acting) -> None:
        self.acting, self.plan, self.step = acting, None, 0  # type: tuple[Acting, Decision | None, int]

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """The next action of the plan; the last one again after its end."""
        if self.plan is None:
            self.plan = self.acting.act(observation, first, active)
        course = self.plan.course
        assert course is not None  # Mode-2 has one
        action = course[:, min(self.step, course.shape[1] - 1)].copy()
        self.step += 1
        return replace(self.plan, action=action)


@dataclass(frozen=True)
class Room:
    """What is needed to draw in a room: its picture at the start of each episode and its width in its own pixels."""

    pictures: tuple[NDArray[np.uint8], ...]
    side: int


@dataclass(frozen=True)
class Imagination:
    """Courses of E episodes in two dimensions, H steps each.

    Attributes:
        imagined: What the plan was expected to lead to ``[E, H+1, 2]``.
        real: What perception then saw ``[E, H+1, 2]``.
        known: Where the episode still ran ``[E, H+1]``.
        true: Where the agent really was, in rooms ``[E, H+1, 2]``.
        room: To draw it in, in rooms.
        cloud: All latents of the recording that the two dimensions come from ``[N, 2]``.
        shown: What the dimensions are.
    """

    imagined: Points
    real: Points
    known: NDArray[np.bool_]
    true: Points | None
    room: Room | None
    cloud: Points
    shown: tuple[str, str]

    @property
    def errors(self) -> Points:
        """Distance between imagined and real ``[E, H+1]``; in rooms to the true places. NaN after the end."""
        there = self.real if self.true is None else self.true
        distance = np.linalg.norm(self.imagined - there, axis=-1)
        return np.where(self.known, distance, np.nan)


def imagine(
    agent: Agent, env: VectorEnv, recording: Recording, probe: Probe | None, seed: int, progress: Progress | None = None
) -> Imagination:
    """Carry out first plans and compare their imagined course with the real one.

    Places are read by the linear probe where the world is a room; elsewhere the plane is that of the first two
    principal components of the recording's latents.

    Args:
        agent: Who plans.
        env: One environment for each episode, held-out; rendered in rooms.
        recording: Latents that span the plane.
        probe: From latents to facts, of the recording.
        seed: Of the reset.
        progress: Told of steps.
    """
    horizon = agent.config.task.thinking.horizon
    room = _room(env, seed)
    played = record(agent, env, FirstPlan(agent.begin(env.num_envs, "mode-2")), horizon + 1, seed, progress)
    streams = np.arange(env.num_envs)
    window = to_device(played.memory.read(streams, np.zeros_like(streams), horizon), agent.device)
    real = encode(agent.modules.perception, window.observation)
    with torch.no_grad():
        imagined = agent.modules.world_model.rollout(State(real[:, 0]), window.action[:, None]).latent[:, 0]
    cloud = encode(agent.modules.perception, recording.observations())
    if probe is not None and recording.names[:2] == ("x", "y"):
        project, shown = _places(probe), ("x", "y")
    else:
        project, shown = principal_plane(cloud)
        room = None
    known = np.concatenate([np.ones((env.num_envs, 1), np.bool_), window.known.cpu().numpy() > 0], axis=1)
    true = played.facts[:, :, :2].astype(np.float64) if room is not None else None
    return Imagination(project(imagined), project(real), known, true, room, project(cloud), shown)


def principal_plane(latents: Tensor) -> tuple[Projection, tuple[str, str]]:
    """Projection ``[..., D] → [..., 2]`` on the first two principal components of latents ``[N, D]``, and names."""
    samples = _at_least_two(latents)
    centre = samples.mean(0)
    _, values, directions = torch.linalg.svd(samples - centre, full_matrices=False)
    shares = values.square() / values.square().sum()

    def project(latent: Tensor) -> Points:
        plane: Points = ((_at_least_two(latent) - centre) @ directions[:2].T).numpy()
        return plane

    ordinals = "first", "second"
    names = [f"{name} principal component ({100 * share:.0f} %)" for name, share in zip(ordinals, shares, strict=False)]
    return project, (names[0], names[1])


def _at_least_two(latent: Tensor) -> Tensor:
    """Latents of a single dimension get a second one without content."""
    return pad(latent.cpu().double(), (0, max(0, 2 - latent.shape[-1])))


def _places(probe: Probe) -> Projection:
    return lambda latent: probe(latent)[..., :2].numpy()


def _room(env: VectorEnv, seed: int) -> Room | None:
    """The rooms as they are at the start of the episodes with this seed; None for other worlds."""
    base = env.unwrapped
    if not isinstance(base, RoomVectorEnv):
        return None
    env.reset(seed=seed)
    pictures = base.render()
    return None if pictures is None else Room(tuple(pictures), base.LAYOUT.side)
