"""What the critic is worth: does it order states by what is then felt, and does it stand for steps not imagined?

Part one: Spearman's rank correlation of TC with the realised discounted intrinsic cost on held-out episodes, on
perceived latents and on latents imagined k steps ahead under the actions really taken. Beside it the same with realised
costs of other times, with the cost felt in the state itself instead of TC, and the best that anyone could get who has
to order equal costs by chance. Every episode begins with 0 to ``--late`` steps at random, so that the agent also meets
states it would have avoided; then it acts in Mode-1.

Part two: Mode-2 with a horizon of 3 and the critic, against a horizon of 15 without it (five times the predictor
calls), and 3 without. The actor proposes nothing in any of them.

    python benchmarks/critic.py runs/TwoRoom/seed0
    python benchmarks/critic.py runs/CartPole-v1/seed0 --span 10 --candidates 32
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import rethink, without_critic
from forethought.agent.checkpoint import load_agent
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.outlook import HandOver, Played, outlook, play
from forethought.agent.protocols import evaluate_protocol, find_protocol
from forethought.agent.statistics import mean_interval, wilson
from forethought.agent.worlds import build_env


def watch(agent: Agent, streams: int, steps: int, late: int, seed: int) -> Played:
    """Held-out episodes in which the agent takes over after up to ``late`` random steps."""
    env = build_env(agent.config.env, streams, seed=seed, held_out=True)
    random = RandomBehaviour(agent.spaces.action, streams, seed, 1, agent.config.schedule.sticky)
    hand_over = np.random.default_rng(seed).integers(late + 1, size=streams)
    played = play(agent, env, HandOver(agent.begin(streams, "mode-1"), random, hand_over), steps, seed)
    env.close()
    return played


def planner_of(agent: Agent, horizon: int, critic: bool, candidates: int | None) -> Agent:
    """The agent with this horizon, no proposals, and a critic that foresees nothing where it is not wanted."""
    thinking = agent.config.task.thinking
    wanted = thinking.candidates if candidates is None else candidates
    other = rethink(agent, replace(thinking, horizon=horizon, candidates=wanted, proposals=0))
    return other if critic else without_critic(other)


def played_by(agent: Agent, episodes: int, seed: int) -> Result:
    """Mode-2 on held-out episodes: the world's protocol where it has one."""
    protocol = find_protocol(None, agent.config.env.id)
    if protocol is not None:
        return evaluate_protocol(agent, protocol, ("mode-2",), episodes, seed)[0]
    env = build_env(agent.config.env, episodes, seed=seed, held_out=True)
    result = evaluate("mode-2", env, agent.begin(episodes, "mode-2"), seed=seed)
    env.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--streams", type=int, default=200, help="environments that are watched")
    parser.add_argument("--steps", type=int, default=400, help="steps of each of them")
    parser.add_argument("--late", type=int, default=30, help="most steps at random before the agent takes over")
    parser.add_argument("--span", type=int, help="judge only so many steps after that (default: all)")
    parser.add_argument("--ahead", type=int, nargs="+", default=[0, 1, 3, 5, 10], help="imagined steps; 0: perceived")
    parser.add_argument("--episodes", type=int, default=100, help="episodes of part two; 0: leave it out")
    parser.add_argument("--candidates", type=int, help="courses per iteration in part two (default: the agent's)")
    parser.add_argument("--seed", type=int, default=1_000, help="of held-out episodes")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/critic.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    rows: list[list[Any]] = [
        ["part", "setting", "count", "value", "low", "high", "shuffled", "present", "best", "calls", "ms"]
    ]
    played = watch(agent, arguments.streams, arguments.steps, arguments.late, arguments.seed)
    print(f"{'latents':24}{'states':>8}{'TC':>8}{'other times':>13}{'IC(s)':>8}{'best':>8}")
    for ahead in arguments.ahead:
        found = outlook(agent, played, ahead, arguments.span)
        name = f"imagined, {ahead} steps" if ahead else "perceived"
        numbers = f"{found.critic:8.3f}{found.shuffled:13.3f}{found.present:8.3f}{found.best:8.3f}"
        print(f"{name:24}{found.states:8}{numbers}", flush=True)
        row = ["rank", name, found.states, found.critic, "", "", found.shuffled, found.present, found.best, "", ""]
        rows.append(row)
    goals = agent.config.task.goals
    if arguments.episodes:
        print(f"{'Mode-2':24}{'calls':>8}{'ms':>8}{'success %' if goals else 'return':>11}   95 %")
    for horizon, critic in ((3, True), (15, False), (3, False)) if arguments.episodes else ():
        other = planner_of(agent, horizon, critic, arguments.candidates)
        result = played_by(other, arguments.episodes, arguments.seed)
        if goals:
            found_ = wilson(int(result.successes.sum()), arguments.episodes)
            low, mean, high = (100 * value for value in (found_.low, found_.mean, found_.high))
        else:
            interval = mean_interval(result.returns)
            low, mean, high = interval.low, interval.mean, interval.high
        name = f"horizon {horizon}, {'critic' if critic else 'no critic'}"
        print(
            f"{name:24}{result.calls:8.0f}{result.milliseconds:8.2f}{mean:11.1f}   {low:.1f} … {high:.1f}", flush=True
        )
        rows.append(["plan", name, arguments.episodes, mean, low, high, "", "", "", result.calls, result.milliseconds])
    with (arguments.out or arguments.run / "critic.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
