"""What Mode-1 keeps of Mode-2, at which price, and what it gives back (tests K1 to K4).

Perception, world model and critic of a trained agent are left as they are. A policy that has learned nothing is taught
Mode-2's plans: in states of random play and, in reward tasks, round by round where the policy leads itself; plans are
made without proposals of any actor. Beside it a policy that was taught the same plans at the wrong states, and
the run's own policy as it was trained.

K1: return (success in rooms) of both modes, ms and predictor calls per decision.
K2: planner iterations until the energy that a cold start finds at its end, with the policy's proposals beside without;
    proposals are paid for, as so many candidates of an iteration. State by state, where one iteration is the least
    that can be had, and for the mean energy over states, between iterations by a straight line.
K3: divergence between policy and plans in held-out states, before and after.
K4: K1 and K3 of the policy with shuffled lessons.

    python benchmarks/distillation.py runs/TwoRoom/seed0
    python benchmarks/distillation.py runs/CartPole-v1/seed0 --candidates 32
"""

from __future__ import annotations

import argparse
import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forethought.agent.agent import Agent, plan_width
from forethought.agent.behaviour import BehaviourLearner
from forethought.agent.checkpoint import load_agent
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.health import encode
from forethought.agent.interaction import Behaviour, RandomBehaviour, interact
from forethought.agent.outlook import HandOver, play
from forethought.agent.policies import Lesson, distil, energy_curve, iterations_to, joined, plan_for, with_policy
from forethought.agent.protocols import evaluate_protocol, find_protocol
from forethought.agent.recording import memory_for
from forethought.agent.statistics import mean_interval, wilson
from forethought.agent.worlds import build_env
from forethought.modules.types import Mode, State
from torch import Tensor

STREAMS = 16


def gather(agent: Agent, behaviour: Behaviour, decisions: int, count: int, seed: int) -> tuple[State, State | None]:
    """Play in the training world, and take so many of the states that were seen, in goal tasks with others as goals."""
    goals = False if agent.config.task.goals else None
    env = build_env(agent.config.env, STREAMS, seed=seed, held_out=False, terminate_on_success=goals)
    memory = memory_for(agent, STREAMS, decisions + STREAMS)
    for step in itertools.islice(interact(env, behaviour, seed=seed), decisions // STREAMS):
        memory.write(step.seen, step.action, step.reward, step.terminated, step.truncated)
    env.close()
    window = memory.sample(count, 0, np.random.default_rng(seed))
    latent = encode(agent.modules.perception, window.observation[:, 0])
    return State(latent), State(latent.roll(1, 0)) if agent.config.task.goals else None


def teach(agent: Agent, lesson: Lesson, arguments: argparse.Namespace, shuffle: bool) -> list[float]:
    """Distil in rounds; returns the divergence in held-out states before and after each."""
    generator = torch.Generator(device=agent.device).manual_seed(arguments.seed)
    learner, draws = BehaviourLearner(agent, generator), np.random.default_rng(arguments.seed)
    found, lessons = [lesson.divergence(agent)], []
    for count in range(arguments.rounds):
        width, sticky = plan_width(agent.spaces), agent.config.schedule.sticky
        random = RandomBehaviour(agent.spaces.action, STREAMS, count, width, sticky)
        reacts = count > 0 and not agent.config.task.goals  # random play shows most states that can be goals
        behaviour = agent.begin(STREAMS, "mode-1", sample=True) if reacts else random
        plans = arguments.plans // arguments.rounds
        state, goal = gather(agent, behaviour, arguments.decisions, plans, arguments.seed + count)
        made = plan_for(agent, state, goal, generator)
        lessons.append(made.shuffled(generator) if shuffle else made)
        distil(learner, joined(lessons), arguments.updates // arguments.rounds, arguments.batch, draws)
        found.append(lesson.divergence(agent))
    return found


def held_out_states(agent: Agent, count: int, seed: int) -> tuple[State, State | None]:
    """States that the run's own agent meets in held-out episodes, some random steps after their start, and goals."""
    env = build_env(agent.config.env, count, seed=seed, held_out=True)
    random = RandomBehaviour(agent.spaces.action, count, seed, 1, agent.config.schedule.sticky)
    late = np.random.default_rng(seed).integers(12, size=count)
    played = play(agent, env, HandOver(agent.begin(count, "mode-1"), random, late), 12, seed)
    env.close()
    return State(played.latent[:, -1]), None if played.goal is None else State(played.goal[:, -1])


def measure(agent: Agent, mode: Mode, episodes: int, seed: int) -> Result:
    """One mode on held-out episodes: the world's protocol where it has one."""
    protocol = find_protocol(None, agent.config.env.id)
    if protocol is not None:
        return evaluate_protocol(agent, protocol, (mode,), episodes, seed)[0]
    env = build_env(agent.config.env, episodes, seed=seed, held_out=True)
    result = evaluate(mode, env, agent.begin(episodes, mode), seed=seed)
    env.close()
    return result


def mean_iterations(curve: Tensor, level: float) -> float:
    """Iterations after which the mean energy of a curve ``[iterations, N]`` is at a level; inf where it never is."""
    mean = curve.mean(1).cummin(0).values
    there = torch.nonzero(mean <= level + 1e-6)
    if not len(there):
        return float("inf")
    last = int(there[0])
    if last == 0:
        return 1.0
    before, after = float(mean[last - 1]), float(mean[last])
    return last + (before - level) / max(before - after, 1e-6)


def keep(
    pupils: dict[str, Agent], trained: Agent, state: State, goal: State | None, arguments: argparse.Namespace
) -> list[list[Any]]:
    """K1, K3 and K4: teach the pupils, and measure them beside the policy as trained and Mode-2."""
    seed, goals, rows = arguments.seed, trained.config.task.goals, list[list[Any]]()
    lesson = plan_for(pupils["plans"], state, goal, torch.Generator(device=trained.device).manual_seed(seed))
    for name, pupil in pupils.items():
        found = teach(pupil, lesson, arguments, name != "plans")
        print(
            f"divergence in held-out states, taught {name}: {', '.join(f'{value:.3f}' for value in found)}", flush=True
        )
        rows += [["divergence", f"{name}, round {count}", value, "", "", "", ""] for count, value in enumerate(found)]
    print(f"{'row':28}{'calls':>8}{'ms':>8}{'success %' if goals else 'return':>11}   95 %")
    modes: list[tuple[str, Agent, Mode]] = [
        ("Mode-1, taught plans", pupils["plans"], "mode-1"),
        ("Mode-1, shuffled plans", pupils["shuffled plans"], "mode-1"),
        ("Mode-1, as trained", trained, "mode-1"),
        ("Mode-2", pupils["plans"], "mode-2"),
    ]
    for name, player, mode in modes:
        result = measure(player, mode, arguments.episodes, seed)
        if goals:
            rate = wilson(int(result.successes.sum()), arguments.episodes)
            low, mean, high = (100 * value for value in (rate.low, rate.mean, rate.high))
        else:
            interval = mean_interval(result.returns)
            low, mean, high = interval.low, interval.mean, interval.high
        print(
            f"{name:28}{result.calls:8.0f}{result.milliseconds:8.3f}{mean:11.1f}   {low:.1f} … {high:.1f}", flush=True
        )
        rows.append(["return", name, mean, low, high, result.calls, result.milliseconds])
    return rows


def iterations(
    cold: Agent, players: dict[str, Agent], state: State, goal: State | None, arguments: argparse.Namespace
) -> list[list[Any]]:
    """K2: what a cold start of one agent needs, and what the same search needs with each player's proposals."""
    thinking, rows, count = cold.config.task.thinking, list[list[Any]](), state.latent.shape[0]
    proposals = arguments.proposals or min(8, thinking.candidates // 2)
    draws = torch.Generator(device=cold.device)
    start = energy_curve(cold, state, goal, arguments.iterations, 0, draws.manual_seed(arguments.seed))
    paid = proposals / thinking.candidates
    some = torch.randint(count, (500, count), generator=torch.Generator().manual_seed(arguments.seed))

    def share_of_mean(curve: Tensor, chosen: Tensor) -> float:
        level = float(start[-1, chosen].mean())
        return (paid + mean_iterations(curve[:, chosen], level)) / mean_iterations(start[:, chosen], level)

    for name, player in players.items():
        curve = energy_curve(
            player, state, goal, arguments.iterations, proposals, draws.manual_seed(arguments.seed + 1)
        )
        ratio = (paid + iterations_to(start[-1], curve)) / iterations_to(start[-1], start)
        share = wilson(int((ratio <= 1 / 3).sum()), len(ratio))
        mean = share_of_mean(curve, torch.arange(count))
        low, high = np.quantile([share_of_mean(curve, chosen) for chosen in some], [0.025, 0.975], method="nearest")
        print(
            f"iterations with {proposals} proposals, policy {name}: median {ratio.median():.2f} of a cold start's, "
            f"≤ 1/3 in {100 * share.mean:.0f} % of states ({100 * share.low:.0f} … {100 * share.high:.0f}); until the "
            f"mean energy {mean:.2f} ({low:.2f} … {high:.2f})",
            flush=True,
        )
        rows.append(["iterations", name, float(ratio.median()), "", "", "", ""])
        rows.append(["at most a third", name, 100 * share.mean, 100 * share.low, 100 * share.high, "", ""])
        rows.append(["iterations until the mean energy", name, mean, low, high, "", ""])
    return rows


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--candidates", type=int, help="courses per iteration of Mode-2 (default: the agent's)")
    parser.add_argument("--decisions", type=int, default=1_600, help="of each round of gathering states")
    parser.add_argument("--rounds", type=int, default=3, help="of gathering, planning and learning")
    parser.add_argument("--plans", type=int, default=4_096, help="to learn from, over all rounds; 0: K2 alone")
    parser.add_argument("--proposals", type=int, help="of the policy in K2 (default: 8, or half of the candidates)")
    parser.add_argument("--updates", type=int, default=3_000, help="of the policy, over all rounds")
    parser.add_argument("--batch", type=int, default=128, help="plans in each update")
    parser.add_argument("--episodes", type=int, default=100, help="per row")
    parser.add_argument("--iterations", type=int, default=9, help="of the cold start in K2")
    parser.add_argument("--states", type=int, default=128, help="held-out states of K2 and K3")
    parser.add_argument("--seed", type=int, default=1_000, help="of held-out episodes and of what is drawn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/distillation.csv)")
    return parser.parse_args()


def main() -> None:
    arguments = options()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    thinking = replace(agent.config.task.thinking, proposals=0)
    if arguments.candidates:
        thinking = replace(thinking, candidates=arguments.candidates)
    agent.config = replace(agent.config, behaviour=replace(agent.config.behaviour, imitation=1.0))
    task, seed = replace(agent.config.task, thinking=thinking), arguments.seed
    pupils = {name: with_policy(agent, task, seed=1) for name in ("plans", "shuffled plans")}
    trained = with_policy(agent, task, seed=1)
    trained.modules = replace(trained.modules, actor=agent.modules.actor)
    state, goal = held_out_states(agent, arguments.states, seed)
    rows: list[list[Any]] = [["what", "of", "value", "low", "high", "calls", "ms"]]
    if arguments.plans:
        rows += keep(pupils, trained, state, goal, arguments)
    names = {f"taught {name}": pupil for name, pupil in pupils.items()}
    players = (names if arguments.plans else {"untaught": pupils["plans"]}) | {"as trained": trained}
    rows += iterations(trained, players, state, goal, arguments)
    with (arguments.out or arguments.run / "distillation.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
