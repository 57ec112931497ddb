"""Short plans towards many goals: what the critic and the actor of a goal task learn from.

The world does not care what for one acts, so courses of action are imagined once and judged by every goal (hindsight,
1707.01495). A goal that is reached can be held: what is learned is the cost until then. Otherwise courses that cannot
stand still would never find a goal to be good.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..modules.cost import interoception, plan_energy, seeking
from ..modules.critic import Critic
from ..modules.memory import Window
from ..modules.perception import Perception
from ..modules.types import INTEROCEPTION, Configuration, State, Trajectory, required_goal
from ..planners import ActionSpace, spread
from .criterion import perceive
from .modes import Modules

_SHARPNESS = 3.0
"""How much better courses count for more, in standard deviations of their energies."""


@dataclass(frozen=True)
class ShortPlans:
    """What is best to do next from N states towards G goals each, as far as a few short courses can tell.

    Attributes:
        state: In V views ``[N, V, D]``, those of the courses.
        goal: ``[N, G, D]``.
        energy: F of the best course ``[N, G]``.
        target: What an actor should imitate ``[N, G, P]``: mean and standard deviation of the good courses' first
            actions (Box), or their probabilities.
        gain: By how much the best course is better than the mean one ``[N, G]``.
    """

    state: State
    goal: Tensor
    energy: Tensor
    target: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Courses:
    """S short imagined courses from each of N states, of an ensemble every member's own; whoever has goals may judge.

    Attributes:
        state: Where they begin, in V views ``[N, V, D]``: as they were imagined from, and as it had been expected.
        action: What each does first ``[N, S, ...]``; it goes on doing so.
        encoded: The same for the networks ``[N, S, T, A]``.
        latent: Where they lead ``[N, S·E, T, D]``.
    """

    state: State
    action: Tensor
    encoded: Tensor
    latent: Tensor


@dataclass(frozen=True)
class Ends:
    """Where remembered windows end, each with its first episode, and goals for whoever is there.

    Attributes:
        state: ``[N, D]``.
        goal: ``[N, G, D]``.
        row: Which windows these are ``[N]``.
        step: After how many steps each ends ``[N]``.
    """

    state: State
    goal: Tensor
    row: Tensor
    step: Tensor


def window_ends(
    perception: Perception, window: Window, goals: int, generator: torch.Generator, count: int | None = None
) -> Ends:
    """The ends of all windows, or of ``count`` drawn from them, with ``goals`` goals each.

    Goals are those that the window carries, of its episode; else any of the windows' states.
    """
    device = window.action.device
    latent = perceive(perception, window)
    row = torch.arange(len(latent), device=device)
    if count is not None:
        row = torch.randint(len(latent), (count,), generator=generator, device=device)
    step = window.known.long().sum(-1)[row]
    return Ends(State(latent[row, step]), _goals(perception, window, latent, row, goals, generator), row, step)


def _goals(
    perception: Perception, window: Window, latent: Tensor, row: Tensor, goals: int, generator: torch.Generator
) -> Tensor:
    """Goals ``[N, G, D]`` for windows ``row``: their own, or else any of the windows' latents ``[B, T+1, D]``."""
    if window.goal is not None:
        return (window.goal if window.latent is not None else perception(window.goal))[row]
    states = latent.flatten(0, 1)
    return states[torch.randint(len(states), (len(row), goals), generator=generator, device=row.device)]


def expected_ends(m: Modules, window: Window, ends: Ends) -> State:
    """Where the world model thought at the windows' beginnings that they would end ``[N, D]``."""
    start = m.perception(window.observation[:, 0]) if window.latent is None else window.latent[:, 0]
    imagined = m.world_model.rollout(State(start), window.action.unsqueeze(1)).latent[:, 0]
    return State(imagined[ends.row, ends.step])


@torch.no_grad()
def imagine_courses(
    m: Modules,
    state: State,
    steps: int,
    count: int,
    space: ActionSpace,
    generator: torch.Generator,
    expected: State | None = None,
) -> Courses:
    """Imagine courses that hold one action each; drawn at random, they differ from each other.

    Args:
        m: The modules.
        state: ``[N, D]``.
        steps: T of each course.
        count: How many, S.
        space: Of actions.
        generator: Draws the courses.
        expected: Another view of the same states ``[N, D]``: how they had been imagined.
    """
    views = [state.latent] if expected is None else [state.latent, expected.latent]
    actions = spread(space, len(state.latent), count, steps, generator)
    encoded = m.world_model.actions(actions)
    imagined, _ = m.world_model.unroll(state.latent.unsqueeze(1).expand(-1, count, -1), encoded)
    return Courses(State(torch.stack(views, dim=1)), actions[:, :, 0], encoded, imagined[..., 1:, :].flatten(1, 2))


@torch.no_grad()
def short_plans(m: Modules, critic: Critic, courses: Courses, configuration: Configuration) -> ShortPlans:
    """See how good courses are for every goal.

    The target is the mean of the courses weighted by exp(−3·(F − min F)/std F), as in MPPI.

    Args:
        m: The modules.
        critic: Judges where the courses end.
        courses: S from each of N states.
        configuration: Goals ``[N, G, D]``, weights and discount.
    """
    goal, latent = required_goal(configuration, "learner"), courses.latent
    count = courses.action.shape[1]
    members = latent.shape[1] // count  # every member's course is judged, then their mean
    distance = _distances(latent, goal)
    nothing = torch.zeros_like(distance)
    effort = m.world_model.actions.effort(courses.encoded).repeat_interleave(members, 1).unsqueeze(1)
    iota = interoception(nothing, nothing, effort.expand_as(distance), distance)
    costs = m.intrinsic_cost(iota, configuration.u).sum(-1)
    terminal = critic(State(latent[:, :, -1]), configuration).sum(-1)  # [N, G, S·E]
    energy = plan_energy(costs, seeking(distance), terminal, configuration.discount)
    energy = energy.reshape(*energy.shape[:-1], count, members).mean(-1)
    best = energy.amin(-1)
    spread = energy.std(-1, correction=0, keepdim=True).clamp(min=1e-6)  # one course alone spreads by 0, not NaN
    weights = (-_SHARPNESS * (energy - best.unsqueeze(-1)) / spread).softmax(-1)
    gain = energy.mean(-1) - best
    if m.world_model.actions.discrete:
        return ShortPlans(courses.state, goal, best, weights @ courses.encoded[:, :, 0], gain)
    mean = weights @ courses.action
    variance = (weights @ courses.action.square() - mean.square()).clamp(min=0)
    return ShortPlans(courses.state, goal, best, torch.cat([mean, variance.sqrt()], dim=-1), gain)


@dataclass(frozen=True)
class Walks:
    """What going on as was really gone cost from N states, towards G goals each.

    Attributes:
        state: ``[N, D]``.
        goal: ``[N, G, D]``.
        energy: Of the remembered steps until the goal was reached, and of the critic after them ``[N, G]``.
    """

    state: State
    goal: Tensor
    energy: Tensor


@torch.no_grad()
def walks(
    m: Modules, critic: Critic, window: Window, goals: int, configuration: Configuration, generator: torch.Generator
) -> Walks:
    """The remembered steps of each window, up to the end of its first episode, judged by many goals (1707.01495).

    Nothing is imagined: a wall is where it was met. An expectile of these costs is what the best walks cost
    (IQL, 2110.06169).

    Args:
        m: The modules.
        critic: Judges where the walks end.
        window: Of T steps.
        goals: G, of each walk.
        configuration: Weights and discount.
        generator: Draws goals where the windows have none of their own.
    """
    everything = perceive(m.perception, window)
    (row,) = torch.nonzero(window.known[:, 0], as_tuple=True)  # elsewhere it is not known where the first step led
    goal = _goals(m.perception, window, everything, row, goals, generator)
    latent, known = everything[row], window.known[row].unsqueeze(1)
    distance = _distances(latent[:, 1:].unsqueeze(1), goal)[:, :, 0]  # [N, G, T]
    nothing = torch.zeros_like(distance)
    effort = m.world_model.actions.effort(m.world_model.actions(window.action[row])).unsqueeze(1)
    iota = interoception(nothing, nothing, effort.expand_as(distance), distance)
    costs = m.intrinsic_cost(iota, configuration.u).sum(-1) * known
    steps = window.known[row].long().sum(-1)
    end = latent[torch.arange(len(row), device=row.device), steps].unsqueeze(1)
    terminal = critic(State(end), configuration.with_goal(goal)).sum(-1)  # [N, G, 1]
    go_on = seeking(distance) * known + (1 - known)
    # Steps after an episode's end cost nothing and are not there: what follows is discounted less than T of them.
    late = configuration.discount ** (steps - known.shape[-1]).to(latent.dtype)
    energy = plan_energy(costs, go_on, terminal[..., 0] * late.unsqueeze(1), configuration.discount)
    return Walks(State(latent[:, 0]), goal, energy)


def _distances(latent: Tensor, goal: Tensor) -> Tensor:
    """Mean squared distances ``[N, G, S, T]`` of latents ``[N, S, T, D]`` and goals ``[N, G, D]``, by one product."""
    squares = latent.square().sum(-1).unsqueeze(1) + goal.square().sum(-1)[..., None, None]
    products = (goal @ latent.flatten(1, 2).transpose(1, 2)).reshape(squares.shape)
    distances: Tensor = ((squares - 2 * products) / latent.shape[-1]).clamp(min=0)
    return distances


def seeking_energy(m: Modules, critic: Critic, imagined: Trajectory, configuration: Configuration) -> Tensor:
    """F ``[B, S]`` of imagined trajectories until the goal is reached."""
    distance = imagined.interoception[..., INTEROCEPTION.index("goal_distance")]
    costs = m.intrinsic_cost(imagined.interoception, configuration.u).sum(-1)
    terminal = critic(State(imagined.latent[..., -1, :]), configuration).sum(-1)
    return plan_energy(costs, imagined.continuation * seeking(distance), terminal, configuration.discount)
