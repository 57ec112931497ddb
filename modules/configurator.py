"""The configurator: sets the other modules for the task at hand. This first one is a script for each kind of task."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .types import Configuration, Gate, Mode, State, drive_weights


@dataclass(frozen=True)
class Thinking:
    """How far and how hard Mode-2 thinks: candidates × iterations × horizon predictor calls a decision."""

    planner: str = "auto"
    """random_shooting; Box: cem, icem, mppi, gradient; Discrete, MultiDiscrete: categorical_cem, beam, tree; auto:
    cem or categorical_cem, as fits."""
    horizon: int = 12
    """Steps that are imagined."""
    candidates: int = 64
    """Courses of action per iteration."""
    iterations: int = 3
    """Iterations per decision."""
    hold: int = 1
    """Steps for which a candidate keeps each action."""
    proposals: int = 0
    """Candidates of the first iteration that are the actor's own roll-outs."""
    commit: int = 1
    """First actions of a plan that are carried out before planning again."""
    risk: float = 0.0
    """β of mean + β·std of a plan's energy over the members of the world model and over futures; needs an ensemble, or
    a latent variable (world_model.codes)."""
    futures: int = 4
    """Futures in which each candidate is imagined where the world model has a latent variable: draws of it, the same
    for all candidates. Each costs as many predictor calls as there were without."""
    adversary: bool = False
    """Whatever the latent variable stands for is against the agent: of the futures the worst counts, not their mean."""
    habit: float = 0.0
    """Weight of the actor's surprise −log π(a) along an imagined course: how reluctantly a plan leaves what Mode-1
    would do. It helps where costs are imagined less well than the actor has learned."""
    views: int = 1
    """Views of a picture, shifted by up to two pixels, whose latents are averaged before either mode decides (up to 9).
    What one of them does not show well, others do; each costs one more encoding."""
    sample: bool = False
    """Act by chance, Mode-1 as its policy has it and Mode-2 as the distribution of its plan, instead of taking the
    likeliest and the best action: for worlds where whoever does the same in the same place gets stuck."""
    milliseconds: float | None = None
    """Time after which a decision begins no further iteration; None: no limit. With one, speed matters."""
    gate: Gate = field(default_factory=Gate)
    """When the gated mode plans."""


@dataclass(frozen=True)
class Task:
    """What the agent is to do, as the configurator is told."""

    goals: bool = False
    """The task is to reach the state shown in the goal observation, rather than to collect reward."""
    pleasure: float = 1.0
    """Weight of reward (reward tasks)."""
    ending: float = 0.0
    """Weight of the world ending the episode."""
    effort: float = 0.0
    """Weight of ‖a‖²."""
    hunger: float = 0.0
    """Weight of (1 − battery)²; reward tasks in worlds with the sensor energy."""
    hazard: float = 0.0
    """Weight of being near a hazard; reward tasks in worlds with the sensor hazard_distance."""
    novelty: float = 0.0
    """Weight of going where the members of the world model disagree; reward tasks, needs an ensemble."""
    agency: float = 0.0
    """Weight of actions that change what will happen; reward tasks, doubles the predictor calls."""
    discount: float = 0.99
    """γ per decision."""
    context: tuple[float, ...] = ()
    """Context that modulates perception and world model, in place of the one that the world tells; empty: as told."""
    thinking: Thinking = field(default_factory=Thinking)
    """How Mode-2 plans."""


@dataclass(frozen=True)
class Configurator:
    """The scripted configurator (level 0 of the learning ladder): task and perceived goal → configuration."""

    task: Task

    def __call__(self, mode: Mode, goal: State | None = None, device: torch.device | None = None) -> Configuration:
        """Configure the modules for ``mode``, towards ``goal`` (latents ``[B, D]``) in a goal task.

        Raises:
            ValueError: A goal task without a goal, or a goal given to a reward task.
        """
        task, thinking = self.task, self.task.thinking
        if task.goals != (goal is not None):
            what = "needs a goal and got none" if task.goals else "is about reward and got a goal"
            raise ValueError(f"the task {what}; give the goal observation exactly when task.goals is set")
        u, v = self._weights(device)
        return Configuration(
            u=u,
            v=v,
            goal=None if goal is None else goal.latent,
            mode=mode,
            discount=task.discount,
            horizon=thinking.horizon,
            candidates=thinking.candidates,
            iterations=thinking.iterations,
            hold=thinking.hold,
            proposals=thinking.proposals,
            commit=thinking.commit,
            risk=thinking.risk,
            futures=thinking.futures,
            adversary=thinking.adversary,
            habit=thinking.habit,
            views=thinking.views,
            sample=thinking.sample,
            milliseconds=thinking.milliseconds,
            gate=thinking.gate,
            context=torch.tensor(task.context, device=device) if task.context else None,
        )

    def _weights(self, device: torch.device | None) -> tuple[Tensor, Tensor]:
        task = self.task
        if task.goals:
            u = drive_weights(device, goal=1.0, ending=task.ending, effort=task.effort)
            return u, drive_weights(device, goal=1.0)
        u = drive_weights(
            device, pleasure=task.pleasure, ending=task.ending, effort=task.effort, hunger=task.hunger,
            hazard=task.hazard, novelty=task.novelty, agency=task.agency,
        )  # fmt: skip
        return u, u
