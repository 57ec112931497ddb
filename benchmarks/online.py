"""Controls are inverted in the middle of a run: does the one-step error fall again, and how soon? (tests W8, K6)

The agent acts in Mode-1 in held-out episodes, every second action replaced by a random one: inverted, it would soon
stand at a wall, where nothing is to be learned. Once with learning online and once without, on the same seeds; errors
are those of each percept before anything was learned from it.

    python benchmarks/online.py runs/TwoRoom/seed0
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np
import torch
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import load_agent
from forethought.agent.interaction import interact
from forethought.agent.online import OnlineActing, OnlineLearning
from forethought.agent.worlds import held_out_env
from forethought.envs.inverted import Inverted
from numpy.typing import NDArray


def run(agent: Agent, learning: OnlineLearning, arguments: argparse.Namespace) -> NDArray[np.float64]:
    """One-step error of every step."""
    env = Inverted(held_out_env(agent, arguments.streams, arguments.seed), arguments.before)
    agent.generator.manual_seed(arguments.seed)
    acting = OnlineActing(agent, arguments.streams, learning, sample=True, exploration=arguments.exploration)
    for _ in itertools.islice(interact(env, acting, seed=arguments.seed), arguments.before + arguments.after + 1):
        pass
    env.close()
    return np.array(acting.errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--streams", type=int, default=16, help="environments")
    parser.add_argument("--before", type=int, default=60, help="steps before the controls are inverted")
    parser.add_argument("--after", type=int, default=240, help="steps after it")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the predictor")
    parser.add_argument("--updates", type=int, default=1, help="gradient steps per step")
    parser.add_argument("--exploration", type=float, default=0.5, help="chance of a random action")
    parser.add_argument("--seed", type=int, default=1_000, help="of held-out episodes")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/online.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    rates = {"learning": arguments.learning_rate, "not learning": 0.0}
    errors = {
        name: run(agent, OnlineLearning(rate, updates=arguments.updates), arguments) for name, rate in rates.items()
    }
    before, width = arguments.before, 20
    print(f"{'steps since inversion':24}{'learning':>12}{'not learning':>14}")
    for start in range(-before + before % width, arguments.after, width):
        part = slice(before + start, before + start + width)
        learned, still = (float(np.nanmean(errors[name][part])) for name in rates)
        print(f"{f'{start} … {start + width - 1}':24}{learned:12.4f}{still:14.4f}")
    spike = float(np.nanmean(errors["learning"][before : before + 3]))
    smooth = np.convolve(np.nan_to_num(errors["learning"][before:], nan=spike), np.full(5, 0.2), "valid")
    below = np.flatnonzero(smooth < spike / 4)
    print(f"the first three steps: {spike:.4f}; a quarter of that, as a mean of 5: ", end="")
    print(f"after {below[0]} steps" if len(below) else "never")
    with (arguments.out or arguments.run / "online.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *rates])
        writer.writerows(zip(itertools.count(), *errors.values(), strict=False))


if __name__ == "__main__":
    main()
