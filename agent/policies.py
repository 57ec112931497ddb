"""Several policies side by side, one for each task, on one perception and one world model (LeCun 2022, p. 12).

There is a single world-model engine, which serves one task at a time; a policy A_m(s) is cheap and each task can have
its own. An agent with another policy is an `Agent` like any other: it shares the networks, and only its task and its
actor are its own. A `BehaviourLearner` of it teaches the policy (`actor_update`) without the others noticing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..modules.actor import Actor
from ..modules.configurator import Configurator, Task
from ..modules.types import State
from ..planners import Progress as Shown
from .agent import Agent, plan_target, plan_width
from .behaviour import BehaviourLearner
from .calibration import SEED
from .evaluation import Progress
from .interaction import RandomBehaviour
from .modes import think
from .outlook import HandOver, play
from .worlds import build_env

_TOGETHER = 256  # plans made in one batch
_STREAMS, _ROUNDS, _BATCH, _PASSES = 16, 4, 128, 12


def with_policy(agent: Agent, task: Task, seed: int) -> Agent:
    """The same perception, world model and critic, for another task, with a policy that has learned nothing.

    The critic has a head for each drive and follows the task's weights without new training.

    Args:
        agent: Left as it is; its networks are shared, not copied.
        task: What the policy is for; about goals if the agent is.
        seed: Of the policy's weights and of what the new agent draws.

    Raises:
        ValueError: A task about goals for an agent that is about reward, or the other way round.
    """
    if task.goals != agent.config.task.goals:
        raise ValueError(f"the task has goals={task.goals} and the agent {agent.config.task.goals}; they must agree")
    m, config = agent.modules, agent.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = Actor(
            config.actor, config.perception.latent, m.world_model.actions, goals=task.goals, grid=m.perception.searched
        )
    other = copy.copy(agent)
    other.config = replace(config, task=task, seed=seed)
    other.modules = replace(m, configurator=Configurator(task), actor=actor.to(agent.device).eval())
    other.generator = torch.Generator(device=agent.device).manual_seed(seed)
    return other


@dataclass(frozen=True)
class Lesson:
    """Plans of Mode-2 in N states: to be learned from, or kept apart to see what was learned.

    Attributes:
        state: ``[N, D]``.
        goal: ``[N, D]``; None in a reward task.
        target: What the actor should say there ``[N, P]``.
    """

    state: State
    goal: State | None
    target: Tensor

    def at(self, index: Tensor) -> Lesson:
        """Some of the plans."""
        goal = None if self.goal is None else State(self.goal.latent[index])
        return Lesson(State(self.state.latent[index]), goal, self.target[index])

    def shuffled(self, generator: torch.Generator) -> Lesson:
        """The same plans, each in the state of another."""
        return replace(self, target=self.target[torch.randperm(len(self.target), generator=generator)])

    def divergence(self, agent: Agent) -> float:
        """Mean D(ǎ[0], A(s)): cross-entropy to the plans (discrete), negative log-likelihood of them (Box)."""
        with torch.no_grad():
            configuration = agent.modules.configurator("mode-1", self.goal, agent.device)
            return float(agent.modules.actor(self.state, configuration).imitation_loss(self.target).mean())


@torch.no_grad()
def plan_for(
    agent: Agent,
    state: State,
    goal: State | None,
    generator: torch.Generator,
    proposals: int = 0,
    progress: Progress | None = None,
) -> Lesson:
    """Let Mode-2 plan in states ``[N, D]``, some of them at a time, with so many proposals of the actor."""
    m, targets = agent.modules, []
    for start in range(0, len(state.latent), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        towards = None if goal is None else State(goal.latent[some])
        configuration = replace(m.configurator("mode-2", towards, agent.device), proposals=proposals)
        s = State(state.latent[some])
        targets.append(plan_target(think(m, s, configuration, agent.planner, agent.spaces.action, None, generator)))
        if progress is not None:
            progress(min(start + _TOGETHER, len(state.latent)), len(state.latent))
    return Lesson(state, goal, torch.cat(targets))


@torch.no_grad()
def energy_curve(
    agent: Agent, state: State, goal: State | None, iterations: int, proposals: int, generator: torch.Generator
) -> Tensor:
    """Energy ``[iterations, N]`` of the best course that Mode-2 has found in states ``[N, D]`` after each iteration.

    Args:
        agent: Who plans, and whose actor proposes.
        state: Where.
        goal: Towards what; None in a reward task.
        iterations: Of the planner.
        proposals: Courses of the actor among the first iteration's candidates; 0 is a cold start.
        generator: Draws candidates and proposals.
    """
    m, energies = agent.modules, list[Tensor]()
    configuration = m.configurator("mode-2", goal, agent.device)
    configuration = replace(configuration, iterations=iterations, proposals=proposals, milliseconds=None)

    def watch(shown: Shown) -> None:
        energies.append(shown.energy)

    think(m, state, configuration, agent.planner, agent.spaces.action, None, generator, watch)
    return torch.stack(energies)


def iterations_to(level: Tensor, curve: Tensor) -> Tensor:
    """Iterations ``[N]`` after which a curve ``[iterations, N]`` is at its level ``[N]``; inf where it never is."""
    there = (curve <= level + 1e-6).cummax(0).values
    count = (~there).sum(0) + 1
    return torch.where(there[-1], count.to(curve.dtype), torch.inf)


def distil(learner: BehaviourLearner, lesson: Lesson, updates: int, batch: int, generator: np.random.Generator) -> None:
    """Teach a policy what Mode-2 does: min D(ǎ[0], A(s[0])) over plans drawn from a lesson (LeCun 2022, p. 12).

    Args:
        learner: Of the agent whose policy learns.
        lesson: Plans that were made beforehand.
        updates: Of the actor.
        batch: Plans in each of them.
        generator: Draws them.
    """
    for _ in range(updates):
        index = torch.from_numpy(generator.integers(len(lesson.target), size=batch))
        part = lesson.at(index.to(lesson.target.device))
        learner.imitate(part.state, part.goal, part.target)


def joined(lessons: Sequence[Lesson]) -> Lesson:
    """Several lessons as one."""
    goals = [lesson.goal.latent for lesson in lessons if lesson.goal is not None]
    state = State(torch.cat([lesson.state.latent for lesson in lessons]))
    return Lesson(state, State(torch.cat(goals)) if goals else None, torch.cat([one.target for one in lessons]))


def distilled(agent: Agent, plans: int, progress: Progress | None = None) -> Agent:
    """The agent with a copy of its policy that has gone on to learn Mode-2's plans; nothing else is changed.

    In rounds, so that lessons are about where the policy leads itself (DAgger, 1011.0686): it acts on training levels
    (or starts), Mode-2 plans in states drawn from there, and the policy learns all plans made so far.

    Args:
        agent: Left as it is.
        plans: How many are made.
        progress: Told of them.

    Raises:
        ValueError: As `check_distil`.
    """
    check_distil(agent, plans)
    pupil, config = copy.copy(agent), agent.config
    pupil.config = replace(config, behaviour=replace(config.behaviour, imitation=1.0, entropy=0.0))
    pupil.modules = replace(agent.modules, actor=copy.deepcopy(agent.modules.actor))
    generator = pupil.generator = torch.Generator(device=agent.device).manual_seed(config.seed)
    learner, draws = BehaviourLearner(pupil, generator), np.random.default_rng(config.seed)
    lessons: list[Lesson] = []
    for count in range(_ROUNDS):
        wanted = plans * (count + 1) // _ROUNDS - plans * count // _ROUNDS
        state, goal = _met(pupil, max(wanted, 4 * _STREAMS), SEED + config.seed + _STREAMS * count)
        index = torch.from_numpy(draws.permutation(len(state.latent))[:wanted]).to(agent.device)
        some, towards = State(state.latent[index]), None if goal is None else State(goal.latent[index])
        made = sum(len(lesson.target) for lesson in lessons)

        def told(done: int, _: int, before: int = made) -> None:
            if progress is not None:
                progress(before + done, plans)

        lessons.append(plan_for(agent, some, towards, generator, config.task.thinking.proposals, told))
        lesson = joined(lessons)
        distil(learner, lesson, max(1, _PASSES * len(lesson.target) // _BATCH), _BATCH, draws)
    return pupil


def check_distil(agent: Agent, plans: int) -> None:
    """Refuse lessons that cannot be made.

    Raises:
        ValueError: Fewer plans than rounds, or an agent that recalls: its plans depend on more than what is seen now.
    """
    if plans < _ROUNDS:
        raise ValueError(f"--distil is {plans}, expected 0 or at least {_ROUNDS} plans to learn from")
    if agent.config.perception.recall.slots:
        raise ValueError(
            "--distil teaches what to do in single states, and this agent recalls earlier ones; leave it out"
        )


def _met(agent: Agent, decisions: int, seed: int) -> tuple[State, State | None]:
    """States ``[N, D]``, and goals in a goal task, that the policy comes to in so many decisions on training levels."""
    config, spaces = agent.config, agent.spaces
    goals = False if config.task.goals else None
    env = build_env(config.env, _STREAMS, seed=seed, held_out=False, terminate_on_success=goals)
    try:
        random = RandomBehaviour(spaces.action, _STREAMS, seed, plan_width(spaces))
        acting = HandOver(agent.begin(_STREAMS, "mode-1", sample=True), random, np.zeros(_STREAMS, np.int64))
        played = play(agent, env, acting, -(-decisions // _STREAMS), seed)
    finally:
        env.close()
    goal = None if played.goal is None else State(played.goal.flatten(0, 1))
    return State(played.latent.flatten(0, 1)), goal
