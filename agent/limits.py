"""What limits planning: the same courses of action judged with more and more of the truth in place of what is learned.

From states that Mode-1 comes to, courses of random actions are played out in the true simulator, and Mode-1 goes on
from where each of them ends. What came of it is the truth about a course. Judges are asked which course is best; they
differ in what they may know: the world model's imagination alone, the latents of the frames that really follow (as if
the dynamics were perfect), the rewards and endings that really follow (as if the heads were), or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.cost import interoception, plan_energy
from ..modules.types import Configuration, State
from .agent import Agent
from .evaluation import Progress
from .health import encode
from .interaction import VectorEnv, interact
from .modes import Modules, mode_1
from .oracle import Savable, SavedState, held

JUDGES = (
    "imagined",
    "imagined, no critic",
    "true dynamics",
    "true events",
    "true dynamics and events",
    "true events, no critic",
)
"""Who is asked: with what of the truth."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """S courses of T decisions from one state, as they really went.

    Attributes:
        percepts: What was perceived before each decision and after the last ``[S, T+1, history, ...]``.
        actions: ``[S, T]``.
        reward: Of each decision ``[S, T]``.
        going: Whether the episode goes on after it ``[S, T]``.
        cost: Discounted intrinsic cost of the courses and of what Mode-1 did after them ``[S]``.
    """

    percepts: NDArray[np.uint8]
    actions: NDArray[np.int64]
    reward: Values
    going: NDArray[np.bool_]
    cost: Values


@dataclass(frozen=True)
class Judged:
    """What was true and what each judge thought of S courses from each of N states.

    Attributes:
        cost: The truth ``[N, S]``.
        energy: Of each judge at each horizon ``[N, S]``, by (judge, horizon).
    """

    cost: Values
    energy: dict[tuple[str, int], Values]

    def captured(self, judge: str, horizon: int) -> tuple[Values, Values]:
        """What was gained by choosing as the judge says, and what could have been, over a random choice ``[N]``."""
        rows = np.arange(len(self.cost))
        mean = self.cost.mean(1)
        return mean - self.cost[rows, self.energy[judge, horizon].argmin(1)], mean - self.cost.min(1)


def judge_courses(
    agent: Agent,
    env: VectorEnv,
    simulator: VectorEnv,
    *,
    horizons: Sequence[int],
    states: int,
    every: int,
    after: int,
    seed: int,
    progress: Progress | None = None,
) -> Judged:
    """Play Mode-1, and stop at states on the way to try courses of action.

    Args:
        agent: Of a reward task with discrete actions.
        env: Where Mode-1 plays: levels that training has not seen.
        simulator: The same without action repeat, with one copy per course.
        horizons: Of the judges; the courses are as long as the largest.
        states: How many to look at, at least.
        every: Decisions between those of one environment.
        after: Decisions for which Mode-1 goes on after a course.
        seed: Of the levels and the courses.
        progress: Told of states.

    Raises:
        ValueError: The environment cannot be saved and restored.
    """
    base, copies = env.unwrapped, simulator.unwrapped
    if not isinstance(base, Savable) or not isinstance(copies, Savable):
        raise ValueError(
            f"courses are played out in a simulator that can be saved (Procgen, Sprite); {type(base).__name__} is not"
        )
    draws = np.random.default_rng(seed)
    ways = int(getattr(agent.spaces.action, "n"))  # noqa: B009 - only Discrete has it
    acting = agent.begin(env.num_envs, "mode-1")
    costs: list[Values] = []
    energies: dict[tuple[str, int], list[Values]] = {(judge, h): [] for judge in JUDGES for h in horizons}
    for count, step in enumerate(interact(env, acting, seed=seed), 1):
        if count % every:
            continue
        percepts = np.concatenate([acting.frames[:, 1:], np.asarray(step.following)[:, None]], 1)
        percepts[step.ended] = percepts[step.ended, -1:]
        present: SavedState = base.get_state()
        for index in range(min(env.num_envs, states - len(costs))):
            actions = draws.integers(ways, size=(copies.num_envs, max(horizons)))
            start = present.repeat(index, copies.num_envs)
            course = play_out(agent, copies, start, percepts[index], actions, after)
            costs.append(course.cost)
            for horizon in horizons:
                for judge, energy in judge_course(agent, course, horizon).items():
                    energies[judge, horizon].append(energy)
            if progress is not None:
                progress(len(costs), states)
        if len(costs) >= states:
            break
    return Judged(np.stack(costs), {key: np.stack(value) for key, value in energies.items()})


def play_out(
    agent: Agent,
    copies: Savable,
    start: SavedState,
    percept: NDArray[np.uint8],
    actions: NDArray[np.int64],
    after: int,
) -> Course:
    """Play courses ``[S, T]`` out from a state that is perceived as ``[history, ...]``, and Mode-1 after them."""
    count, steps = actions.shape
    copies.set_state(start)
    percepts = np.repeat(percept[None, None], count, 0)
    alive, cost, discount = np.ones(count, np.bool_), np.zeros(count), 1.0
    rewards, going = np.zeros((count, steps)), np.ones((count, steps), np.bool_)
    configuration = agent.modules.configurator("mode-1", None, agent.device)
    u, drives = configuration.u, agent.modules.intrinsic_cost
    for t in range(steps + after):
        now = percepts[:, -1]
        chosen = actions[:, t] if t < steps else _react(agent, now, configuration)
        frame, reward, still = held(copies, chosen, agent.config.env.action_repeat, alive)
        ended = torch.from_numpy(alive & ~still).float()
        discount *= configuration.discount
        iota = interoception(torch.from_numpy(reward).float(), ended, torch.zeros_like(ended))
        cost += discount * np.where(alive, drives(iota, u).sum(-1).numpy(), 0.0)
        alive = still
        following = np.concatenate([now[:, 1:], frame[:, None]], 1)[:, None]
        following[~alive] = now[~alive][:, None]  # the next episode's frames say nothing about this one
        if t < steps:
            rewards[:, t], going[:, t] = reward, alive
            percepts = np.concatenate([percepts, following], 1)
        else:
            percepts = following
        if t == steps - 1:
            course = percepts
    return Course(course, actions, rewards, going, cost)


def _react(agent: Agent, percepts: NDArray[np.uint8], configuration: Configuration) -> NDArray[np.int64]:
    with torch.no_grad():
        chosen = mode_1(agent.modules, torch.from_numpy(percepts).to(agent.device), configuration, agent.generator)
    action: NDArray[np.int64] = chosen.cpu().numpy()
    return action


@torch.no_grad()
def judge_course(agent: Agent, course: Course, horizon: int) -> dict[str, Values]:
    """Energies ``[S]`` of the first ``horizon`` decisions of courses, as each judge sees them."""
    m, device = agent.modules, agent.device
    configuration = m.configurator("mode-2", None, device)
    count = len(course.actions)
    flat = torch.from_numpy(course.percepts[:, : horizon + 1].reshape(-1, *course.percepts.shape[2:]))
    seen = encode(m.perception, flat.to(device)).reshape(count, horizon + 1, -1)
    actions = torch.from_numpy(course.actions[:, :horizon]).to(device)
    imagined = m.world_model.rollout(State(seen[:1, 0]), actions[None])
    assert imagined.interoception is not None and imagined.continuation is not None
    followed = m.world_model.predict(State(seen[:, :-1]), actions)
    assert followed.interoception is not None and followed.continuation is not None
    felt = torch.from_numpy(course.reward[:, :horizon]).float().to(device)
    going = torch.from_numpy(course.going[:, :horizon]).float().to(device)
    alive = torch.cat([torch.ones_like(going[:, :1]), going[:, :-1]], -1)
    true = interoception(felt, alive - going, torch.zeros_like(felt))
    dreamt, nothing = imagined.latent[0, :, -1], torch.zeros(count, device=device)
    parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {
        "imagined": (imagined.interoception[0], imagined.continuation[0], _to_go(m, dreamt, configuration)),
        "imagined, no critic": (imagined.interoception[0], imagined.continuation[0], nothing),
        "true dynamics": (followed.interoception, followed.continuation, _to_go(m, seen[:, -1], configuration)),
        "true events": (true, going, _to_go(m, dreamt, configuration)),
        "true dynamics and events": (true, going, _to_go(m, seen[:, -1], configuration)),
        "true events, no critic": (true, going, nothing),
    }
    energies = {}
    for judge in JUDGES:
        iota, going_on, terminal = parts[judge]
        costs = m.intrinsic_cost(iota, configuration.u).sum(-1)
        energy = plan_energy(costs, going_on, terminal, configuration.discount)
        energies[judge] = energy.double().cpu().numpy()
    return energies


def _to_go(m: Modules, latent: Tensor, configuration: Configuration) -> Tensor:
    value: Tensor = m.critic(State(latent), configuration).sum(-1)
    return value
