"""Success of Mode-2 against what a decision may cost, for every planner that fits: one trained agent, the same pairs.

The plan's shape (horizon, hold, how much of a plan is carried out) stays the agent's unless asked otherwise; the number
of candidates follows from the budget, in at most three iterations (random shooting: one; gradient: ten). Without
``--proposals`` the actor offers nothing, so that the search is on its own; ``--without-critic`` it must see the goal.

    python benchmarks/budget.py runs/TwoRoom/seed0 --protocol two_room-cross-room-100 --pairs 200
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import rethink, thinking_within, without_critic
from forethought.agent.checkpoint import load_agent
from forethought.agent.protocols import evaluate_protocol, find_protocol
from forethought.agent.statistics import wilson
from forethought.planners import make_planner

ITERATIONS = {"random_shooting": 1, "gradient": 10}


def thinking_of(agent: Agent, planner: str, calls: int, proposals: int, horizon: int | None) -> Agent:
    """The same agent with this planner and at most so many predictor calls per decision."""
    own = agent.config.task.thinking
    asked = replace(own, planner=planner, iterations=ITERATIONS.get(planner, 3), proposals=proposals)
    asked = replace(asked, horizon=horizon or own.horizon)
    other = rethink(agent, thinking_within(calls, asked, agent.config.world_model.members))
    other.planner = make_planner(planner, agent.spaces.action)
    return other


def main() -> None:
    """Measure and print a table, and write it beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of an agent of TwoRoom or DotWall")
    parser.add_argument("--protocol", help="which protocol (default: the world's usual one)")
    parser.add_argument("--pairs", type=int, default=200, help="held-out pairs of start and goal")
    parser.add_argument("--seed", type=int, default=0, help="draws the pairs")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 256, 1024, 4096], help="calls per decision")
    parser.add_argument("--planners", nargs="+", default=["random_shooting", "cem", "icem", "mppi", "gradient"])
    parser.add_argument("--proposals", type=int, default=0, help="candidates that are the actor's own")
    parser.add_argument("--horizon", type=int, help="steps of a plan (default: the agent's)")
    parser.add_argument("--without-critic", action="store_true", help="plans are worth what their own steps cost")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/budget.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    protocol = find_protocol(arguments.protocol, agent.config.env.id)
    if protocol is None:
        parser.error(f"{agent.config.env.id} has no protocols; give a run of TwoRoom or DotWall")
    rows = []
    print(f"{protocol.name}, {arguments.pairs} pairs")
    print(f"{'planner':17}{'budget':>8}{'calls':>8}{'ms':>8}{'success %':>11}   95 %")
    for planner in arguments.planners:
        for budget in arguments.budgets:
            other = thinking_of(agent, planner, budget, arguments.proposals, arguments.horizon)
            other = without_critic(other) if arguments.without_critic else other
            candidates = other.config.task.thinking.candidates
            (result,) = evaluate_protocol(other, protocol, ("mode-2",), arguments.pairs, arguments.seed)
            interval = wilson(int(result.successes.sum()), arguments.pairs)
            low, mean, high = (100 * value for value in (interval.low, interval.mean, interval.high))
            rows.append([planner, budget, candidates, round(result.calls), result.milliseconds, mean, low, high])
            line = f"{planner:17}{budget:8}{result.calls:8.0f}{result.milliseconds:8.2f}{mean:11.1f}"
            print(f"{line}   {low:.1f} … {high:.1f}", flush=True)
    with (arguments.out or arguments.run / "budget.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["planner", "budget", "candidates", "calls", "milliseconds", "success", "low", "high"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
