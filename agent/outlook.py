"""What the critic foresaw beside what was then felt: rank correlation on held-out episodes (tests C4, C5).

TC(s[t]) is compared with the realised discounted intrinsic cost Σ_{k≥1} γ^k u·IC(ι[t+k]), for latents that were
perceived and for latents that the world model imagined under the actions that were really taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.cost import goal_distance, interoception
from ..modules.types import Configuration, State
from .agent import Acting, Agent, Decision
from .evaluation import Progress
from .health import encode
from .interaction import Observation, RandomBehaviour, VectorEnv, interact
from .statistics import spearman

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
REST = 0.05
"""Costs so far ahead that they weigh less than this, together, are left out of what is realised."""


class HandOver:
    """Acts at random in the first steps of each episode, and then as the agent does."""

    def __init__(self, acting: Acting, random: RandomBehaviour, steps: NDArray[np.int64]) -> None:
        self.acting, self.random, self.steps = acting, random, steps
        self.age = np.zeros(len(steps), np.int64)

    def act(self, observation: Observation, first: Mask, active: Mask) -> Decision:
        """Decide; `age` says how old the episodes are."""
        self.age = np.where(first, 0, self.age + 1)
        ready = self.age >= self.steps
        drawn = self.random.act(observation, first, active).action
        decision = self.acting.act(observation, first, active & ready)
        mask = ready.reshape(-1, *[1] * (drawn.ndim - 1))
        action = np.where(mask, decision.action, drawn)
        return Decision(action, decision.plan, decision.course, decision.planned, decision.calls)


@dataclass(frozen=True)
class Played:
    """T steps of E environments, as the agent perceived and felt them.

    Attributes:
        latent: s ``[E, T, D]``.
        goal: Latents of the goals ``[E, T, D]``; None in a reward task.
        action: ``[E, T, ...]``.
        reward: Of the transition that follows ``[E, T]``.
        terminated: Where the world ended the episode in it ``[E, T]``.
        truncated: Where a time limit did, or the recording stops ``[E, T]``.
        since: Steps since the agent took over ``[E, T]``; negative before.
    """

    latent: Tensor
    goal: Tensor | None
    action: Tensor
    reward: Tensor
    terminated: Mask
    truncated: Mask
    since: NDArray[np.int64]


def play(
    agent: Agent, env: VectorEnv, behaviour: HandOver, steps: int, seed: int, progress: Progress | None = None
) -> Played:
    """Watch an agent that takes over in the midst of things.

    Args:
        agent: Whose perception sees.
        env: Where training has not been; same-step autoreset.
        behaviour: The agent's, see `HandOver`.
        steps: T.
        seed: Of the reset.
        progress: Told of steps.
    """
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor, Mask, Mask, NDArray[np.int64]]] = []
    perception, goals = agent.modules.perception, agent.config.task.goals
    for step in islice(interact(env, behaviour, seed=seed), steps):
        latent = encode(perception, torch.from_numpy(behaviour.acting.frames))
        goal = latent
        if goals:
            wanted = torch.from_numpy(np.asarray(step.observation["desired_goal"])[:, None])
            goal = encode(perception, wanted.expand(-1, agent.config.perception.history, *wanted.shape[2:]))
        action = torch.from_numpy(np.asarray(step.action).copy()).to(agent.device)
        reward = torch.from_numpy(step.reward.copy()).to(agent.device)
        since = behaviour.age - behaviour.steps
        rows.append((latent, goal, action, reward, step.terminated.copy(), step.truncated.copy(), since))
        if progress is not None:
            progress(len(rows), steps)
    latent, goal, action, reward = (torch.stack([row[i] for row in rows], 1) for i in range(4))  # type: ignore[misc]
    terminated, truncated, since = (np.stack([row[i] for row in rows], 1) for i in (4, 5, 6))
    truncated[:, -1] |= ~terminated[:, -1]  # what comes after the recording is not known
    return Played(latent, goal if goals else None, action, reward, terminated, truncated, since)


@torch.no_grad()
def felt(agent: Agent, played: Played) -> Values:
    """u·IC(ι) of every transition ``[E, T]``, as it was measured.

    Where the world ended the episode of a goal task, the goal was reached: its distance is 0 there.
    """
    m, reward = agent.modules, played.reward
    ended = torch.from_numpy(played.terminated).to(reward)
    distance = None
    if played.goal is not None:
        after = torch.cat([played.latent[:, 1:], played.latent[:, -1:]], 1)
        distance = goal_distance(after, played.goal) * (1 - ended)
        reward, ended = torch.zeros_like(reward), torch.zeros_like(ended)
    effort = m.world_model.actions.effort(m.world_model.actions(played.action))
    iota = interoception(reward, ended, effort, distance)
    cost: Values = m.intrinsic_cost(iota, configuration_of(agent, played).u).sum(-1).double().cpu().numpy()
    return cost


def configuration_of(agent: Agent, played: Played, t: int = 0) -> Configuration:
    """The configuration of step t, its goals ``[E, D]`` included."""
    goal = None if played.goal is None else State(played.goal[:, t])
    return agent.modules.configurator("mode-1", goal, agent.device)


def realised(cost: Values, terminated: Mask, truncated: Mask, discount: float) -> tuple[Values, Mask]:
    """Σ_{k≥1} γ^k cost[t+k−1] of every step ``[E, T]``, and where it is known.

    The sum goes as far as costs matter (`REST`), or to the end of the episode. It is unknown where a time limit or the
    end of the recording comes first: that transition's outcome was not seen.
    """
    count, steps = cost.shape
    horizon = math.ceil(math.log(REST) / math.log(discount))
    total, known = np.zeros((count, steps)), np.ones((count, steps), np.bool_)
    alive = np.ones((count, steps))
    for k in range(horizon):
        left = steps - k
        if left <= 0:
            known &= alive == 0
            break
        total[:, :left] += alive[:, :left] * discount ** (k + 1) * cost[:, k:]
        known[:, :left] &= (alive[:, :left] == 0) | ~truncated[:, k:]
        known[:, left:] &= alive[:, left:] == 0
        alive[:, :left] *= ~terminated[:, k:]
    return total, known


@torch.no_grad()
def foreseen(agent: Agent, played: Played, ahead: int = 0) -> tuple[Values, Mask]:
    """v·TC of every step ``[E, T]``, and where it could be asked.

    Args:
        agent: Whose critic is asked.
        played: What it is asked about.
        ahead: 0: about the perceived latents. k: about those that the world model imagines k steps from s[t−k] on,
            under the actions that were taken; they can be asked about where the episode was k steps old.
    """
    count, steps = played.terminated.shape
    ended = played.terminated | played.truncated
    value, asked = np.zeros((count, steps)), np.zeros((count, steps), np.bool_)
    for t in range(ahead, steps):
        s = State(played.latent[:, t - ahead])
        if ahead:
            actions = played.action[:, t - ahead : t].unsqueeze(1)
            s = State(agent.modules.world_model.rollout(s, actions).latent[:, 0, -1])
        value[:, t] = agent.modules.critic(s, configuration_of(agent, played, t)).sum(-1).double().cpu().numpy()
        asked[:, t] = ~ended[:, t - ahead : t].any(1)
    return value, asked


@dataclass(frozen=True)
class Outlook:
    """How well an order of states by the critic is the order by what was then felt.

    Attributes:
        states: How many were compared.
        critic: Spearman's rank correlation of TC with the realised cost.
        shuffled: The same with the realised costs of other times.
        present: Of the intrinsic cost felt in the state itself, IC(s), instead of TC.
        best: Of the realised costs with themselves, equal ones ordered by chance: more is hardly possible where many
            are equal.
    """

    states: int
    critic: float
    shuffled: float
    present: float
    best: float


def outlook(
    agent: Agent, played: Played, ahead: int = 0, span: int | None = None, generator: np.random.Generator | None = None
) -> Outlook:
    """Compare the critic with what happened.

    Args:
        agent: Whose critic it is.
        played: Held-out episodes.
        ahead: Steps that the judged latents were imagined; 0: perceived ones.
        span: Only the first so many steps after the agent took over; None: all of them.
        generator: Draws the other times.

    Raises:
        ValueError: Fewer than two states can be judged.
    """
    cost = felt(agent, played)
    total, known = realised(cost, played.terminated, played.truncated, agent.config.task.discount)
    value, asked = foreseen(agent, played, ahead)
    ended = played.terminated | played.truncated
    begun = np.concatenate([np.ones_like(ended[:, :1]), ended[:, :-1]], 1)  # nothing was felt before the first step
    here = known & asked & ~begun & (played.since >= 0)
    if span is not None:
        here &= played.since < span
    if here.sum() < 2:
        raise ValueError(
            f"{here.sum()} states whose costs are known to the end; play longer, or hand over to the agent earlier"
        )
    before = np.concatenate([cost[:, :1], cost[:, :-1]], 1)
    draws, after = generator or np.random.default_rng(0), total[here].round(9)  # rounding errors order nothing
    return Outlook(
        states=len(after),
        critic=spearman(value[here], after),
        shuffled=spearman(value[here], draws.permutation(after)),
        present=spearman(before[here], after),
        best=spearman(np.lexsort((draws.random(len(after)), after)).argsort(), after),
    )
