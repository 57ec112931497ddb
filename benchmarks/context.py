"""What the context that modulates perception and world model is worth: one agent for tasks that contradict each other.

The controls of ENV are wired anew in each episode (`Wired`), and the context tells how. One agent is trained with the
context and one without; a third is trained on the world as it is, which is what one task alone would give. The agents
of K tasks have ``--scale`` times the decisions and updates of the one of a single task. Mean returns of held-out
episodes in each mode; the agent with a context also where it is told another wiring, and where it is told nothing.
Shares are of the way from random play to the agent of one task.

    OMP_NUM_THREADS=1 python benchmarks/context.py CartPole-v1 --seeds 0 1 2 3 4 --scale 2 --out context.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forethought.agent.agent import Agent, Decision, plan_width
from forethought.agent.evaluation import evaluate
from forethought.agent.interaction import Behaviour, RandomBehaviour
from forethought.agent.presets import preset
from forethought.agent.run import build_env, prepare
from forethought.agent.statistics import mean_interval
from forethought.agent.training import Trainer
from forethought.modules.types import Mode
from numpy.typing import NDArray

Lie = Callable[[NDArray[Any]], NDArray[Any]]
ROWS: dict[str, tuple[str, Lie | None]] = {
    "told": ("told", None),
    "told another's": ("told", lambda context: np.roll(context, 1, axis=1)),
    "told nothing": ("told", np.zeros_like),
    "trained untold": ("untold", None),
    "one task alone": ("alone", None),
}
"""Which agent, and what is done to the context before it sees it."""
HELD_OUT = 10_000


@dataclass
class Misled:
    """A behaviour whose context is changed before it sees it."""

    behaviour: Behaviour
    wirings: int
    lie: Lie

    def act(self, observation: NDArray[Any], first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide on what it is told."""
        own, context = observation[:, : -self.wirings], observation[:, -self.wirings :]
        return self.behaviour.act(np.concatenate([own, self.lie(context)], axis=1), first, active)


def trained(id: str, seed: int, wirings: int, scale: int, kind: str) -> Agent:
    """The preset's agent of the world as it is, or of its wirings with a longer schedule."""
    config = replace(preset(id), seed=seed, device="cpu", threads=1)
    if kind != "alone":
        plan = config.schedule
        names = ("prefill", "prefill_updates", "rounds", "mode_1_rounds", "final_behaviour_updates")
        plan = replace(plan, **{name: scale * getattr(plan, name) for name in names})
        env = replace(config.env, wirings=wirings, wirings_told=kind == "told")
        config = replace(config, env=env, schedule=plan)
    agent, world = prepare(config)
    Trainer(agent, world, lambda *_: None).run()
    world.close()
    return agent


def score(agent: Agent, mode: Mode | None, lie: Lie | None, episodes: int) -> float:
    """Mean return of held-out episodes; of random play without a mode."""
    agent.generator.manual_seed(0)
    env = build_env(agent.config.env, episodes, seed=HELD_OUT, held_out=True)
    behaviour: Behaviour = (
        RandomBehaviour(agent.spaces.action, episodes, 0, plan_width(agent.spaces))
        if mode is None
        else agent.begin(episodes, mode)
    )
    if lie is not None:
        behaviour = Misled(behaviour, agent.spaces.context, lie)
    mean = float(evaluate(mode or "random", env, behaviour, seed=HELD_OUT).returns.mean())
    env.close()
    return mean


def main() -> None:
    """Train, play, print, and write every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", nargs="?", default="CartPole-v1", help="Gymnasium id")
    parser.add_argument("--wirings", type=int, default=2, help="ways in which the controls may be wired")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="training seeds")
    parser.add_argument("--scale", type=int, default=1, help="of the schedule of agents of several tasks")
    parser.add_argument(
        "--untold", action=argparse.BooleanOptionalAction, default=True, help="train one without a context as well"
    )
    parser.add_argument("--episodes", type=int, default=40, help="held-out episodes")
    parser.add_argument("--out", type=Path, default=Path("context.csv"), help="CSV file")
    arguments = parser.parse_args()
    modes: tuple[Mode, ...] = ("mode-1", "mode-2")
    found: dict[tuple[str, Mode], list[float]] = {(row, mode): [] for row in ROWS for mode in modes}
    lines: list[list[Any]] = []
    for seed in arguments.seeds:
        start = time.process_time()
        kinds = ["told", "alone", *(["untold"] if arguments.untold else [])]
        agents = {kind: trained(arguments.env, seed, arguments.wirings, arguments.scale, kind) for kind in kinds}
        floor = score(agents["told"], None, None, arguments.episodes)
        print(f"seed {seed}: random {floor:.1f}, trained in {time.process_time() - start:.0f} s of processor time")
        returns = {
            (row, mode): score(agents[kind], mode, lie, arguments.episodes)
            for row, (kind, lie) in ROWS.items()
            if kind in agents
            for mode in modes
        }
        for (row, mode), value in returns.items():
            share = (value - floor) / (returns["one task alone", mode] - floor)
            found[row, mode].append(share)
            lines.append([arguments.env, arguments.wirings, seed, mode, row, value, floor, share])
            print(f"  {mode}  {row:15}{value:9.1f}{100 * share:8.0f} %", flush=True)
        with arguments.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["env", "wirings", "seed", "mode", "row", "return", "random", "share"])
            writer.writerows(lines)
    for (row, mode), shares in found.items():
        if not shares:
            continue
        interval = mean_interval(shares)
        print(f"{mode}  {row:15}{100 * interval.mean:6.0f} % ({100 * interval.low:.0f} … {100 * interval.high:.0f})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
