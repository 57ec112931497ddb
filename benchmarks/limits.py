"""What limits planning on a game: model, missed events, horizon or critic, each replaced by the truth in turn.

At states of unseen levels that Mode-1 comes to, random courses of action are played out in the true simulator, and
Mode-1 goes on after them for ``--after`` decisions. Of what could be gained by choosing the best course instead of any,
the table says how much each judge gets: 0 % is chance, 100 % knows everything. Intervals: bootstrap over states.

    python benchmarks/limits.py runs/procgen-starpilot/seed0
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from forethought.agent.checkpoint import load_agent
from forethought.agent.limits import JUDGES, Judged, judge_courses
from forethought.agent.statistics import spearman
from forethought.agent.worlds import build_env


def captured(judged: Judged, judge: str, horizon: int, draws: int = 2_000) -> tuple[float, float, float]:
    """Share of the possible gain, with the bounds of its 95 % interval."""
    gain, best = judged.captured(judge, horizon)
    index = np.random.default_rng(0).integers(len(gain), size=(draws, len(gain)))
    shares = gain[index].sum(1) / best[index].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(gain.sum() / best.sum()), float(low), float(high)


def rank(judged: Judged, judge: str, horizon: int) -> float:
    """Mean rank correlation between energies and the truth over the states where courses differ."""
    pairs = zip(judged.energy[judge, horizon], judged.cost, strict=True)
    orders = [spearman(energy, cost) for energy, cost in pairs if cost.std() and energy.std()]
    return float(np.mean(orders)) if orders else float("nan")


def main() -> None:
    """Measure, print a table and write it beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of an agent of a Procgen game")
    parser.add_argument("--states", type=int, default=256, help="states to look at")
    parser.add_argument("--courses", type=int, default=32, help="courses of action from each of them")
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 3, 6, 12], help="decisions that judges see")
    parser.add_argument("--after", type=int, default=20, help="decisions of Mode-1 after a course")
    parser.add_argument("--every", type=int, default=6, help="decisions between two states of an episode")
    parser.add_argument("--envs", type=int, default=32, help="episodes that are watched side by side")
    parser.add_argument("--seed", type=int, default=2_000, help="of levels and courses")
    parser.add_argument("--training-levels", action="store_true", help="levels that training has seen instead")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/limits.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    unseen, seed = not arguments.training_levels, arguments.seed
    env = build_env(agent.config.env, arguments.envs, seed=seed, held_out=unseen)
    copies = build_env(agent.config.env, arguments.courses, seed=seed, held_out=unseen, action_repeat=1)
    judged = judge_courses(
        agent, env, copies, horizons=arguments.horizons, states=arguments.states, every=arguments.every,
        after=arguments.after, seed=arguments.seed,
    )  # fmt: skip
    env.close()
    copies.close()
    rows: list[list[object]] = [["judge", "horizon", "states", "captured", "low", "high", "rank"]]
    print(f"{'judge':28}{'horizon':>8}{'gain %':>8}   {'95 %':14}{'rank':>6}")
    for judge in JUDGES:
        for horizon in arguments.horizons:
            share, low, high = captured(judged, judge, horizon)
            order = rank(judged, judge, horizon)
            bounds = f"{100 * low:.0f} … {100 * high:.0f}"
            print(f"{judge:28}{horizon:8}{100 * share:8.0f}   {bounds:14}{order:6.2f}", flush=True)
            rows.append([judge, horizon, len(judged.cost), share, low, high, order])
    with (arguments.out or arguments.run / "limits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
