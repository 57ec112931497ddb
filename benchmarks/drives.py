"""What drives do to behaviour in Foraging: weights raised, signs flipped, and tasks changed without training.

For each seed three agents are trained (or read, where their folders are finished): to collect tokens, to eat, and to
collect while shunning hazards. All act in Mode-2 in the same held-out episodes. Of the one trained to collect, weights
are changed and nothing else. A change of task is judged by the new task's own cost per step, u·IC of what was measured:
0 is the collector as it was, 100 % an agent trained for the new task.

Then every agent serves all three tasks: its networks rest, and its configurator is told the weights of the task. 0 is
the same agent told nothing (all weights 0), 100 % the agent that was trained for the task; beside it what comes of the
weights of the two other tasks.

    python benchmarks/drives.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import itertools
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import load_agent
from forethought.agent.interaction import Behaviour, RandomBehaviour, interact
from forethought.agent.presets import preset
from forethought.agent.run import train
from forethought.agent.statistics import mean_interval
from forethought.agent.worlds import build_env
from forethought.modules.cost import IntrinsicCost, interoception
from forethought.modules.types import drive_weights

Weights = dict[str, float]
COLLECT: Weights = {"pleasure": 1.0}
EAT: Weights = {"pleasure": 0.0, "hunger": 1.0}
AVOID: Weights = {"pleasure": 1.0, "hazard": 3.0}
NOTHING: Weights = {"pleasure": 0.0}
TRAINED = {"collect": COLLECT, "eat": EAT, "avoid": AVOID}
CHANGED = (
    *({"pleasure": 1.0, "hunger": weight} for weight in (1.0, 4.0)),
    {"pleasure": 1.0, "hazard": 0.3},
    {"pleasure": 0.0, "hunger": -1.0},
)
"""What the collector is told to do instead; its own weights are the first setting of each series."""
HELD_OUT_SEED = 10_000
COUNTED = ("food", "token", "contact")


@dataclass(frozen=True)
class Lived:
    """What a behaviour did per episode, and what that costs per step for whoever wants one of the three tasks done."""

    seed: int
    trained: str
    weights: str
    food: float
    token: float
    contact: float
    cost_collect: float
    cost_eat: float
    cost_avoid: float


def read_or_train(task: str, seed: int, folder: Path, prefill_updates: int | None) -> Agent:
    """The agent of this task and seed; about a minute of processor time where it has to be trained."""
    where = folder / task / f"seed{seed}"
    if (where / "progress.json").is_file() and '"finished": true' in (where / "progress.json").read_text():
        return load_agent(where)
    config = preset("Foraging")
    config = replace(config, seed=seed, task=replace(config.task, **TRAINED[task]))
    if prefill_updates is not None:
        config = replace(config, schedule=replace(config.schedule, prefill_updates=prefill_updates))
    print(f"training {where}", flush=True)
    return train(config, where, lambda *_: None, resume=(where / "checkpoints").is_dir())


def reweighted(agent: Agent, weights: Weights) -> Agent:
    """The same networks under other weights; every drive that is not named weighs nothing."""
    nothing = dict.fromkeys(("pleasure", "ending", "effort", "hunger", "hazard", "novelty", "agency"), 0.0)
    other = Agent(replace(agent.config, task=replace(agent.config.task, **(nothing | weights))), agent.spaces)
    for name, network in agent.networks().items():
        other.networks()[name].load_state_dict(network.state_dict())
    return other


def live(agent: Agent, behaviour: Behaviour, envs: int, steps: int) -> dict[str, float]:
    """Pickups and contacts per episode, and costs per step, of one episode in each environment."""
    env = build_env(agent.config.env, envs, seed=HELD_OUT_SEED, held_out=True)
    told = dict.fromkeys((*COUNTED, *(f"cost_{task}" for task in TRAINED)), 0.0)
    for step in islice(interact(env, behaviour, seed=HELD_OUT_SEED), steps):
        for name in COUNTED:
            told[name] += float(step.infos[name].mean())
        assert step.sensors is not None
        nothing = torch.zeros(envs)
        iota = interoception(torch.from_numpy(step.reward), nothing, nothing, None, *torch.from_numpy(step.sensors).T)
        for task, weights in TRAINED.items():
            told[f"cost_{task}"] += float(IntrinsicCost()(iota, drive_weights(**weights)).sum(-1).mean()) / steps
    env.close()
    return told


def measure(seed: int, arguments: argparse.Namespace) -> list[Lived]:
    """All rows of one seed."""
    agents = {task: read_or_train(task, seed, arguments.folder, arguments.prefill_updates) for task in arguments.tasks}
    collector = agents["collect"]
    random = RandomBehaviour(collector.spaces.action, arguments.envs, seed, plan=1, sticky=3)
    turns: list[tuple[str, Weights, Behaviour]] = [("random", {}, random)]
    wanted = [(task, weights) for task in agents for weights in (*TRAINED.values(), NOTHING)]
    for task, weights in [*wanted, *(("collect", weights) for weights in CHANGED)]:
        acting = reweighted(agents[task], weights).begin(arguments.envs, "mode-2")
        turns.append((task, weights, acting))
    rows = []
    for task, weights, behaviour in turns:
        told = live(collector, behaviour, arguments.envs, arguments.steps)
        rows.append(Lived(seed, task, named(weights), **told))
        numbers = "".join(f"{told[name]:9.2f}" for name in COUNTED)
        costs = "".join(f"{told[f'cost_{task}']:10.3f}" for task in TRAINED)
        print(f"{seed:4}  {task:8}{rows[-1].weights:26}{numbers}{costs}", flush=True)
    return rows


def named(weights: Weights) -> str:
    """Weights as they are called in the table."""
    return " ".join(f"{name}={value:g}" for name, value in weights.items())


def summarise(rows: list[Lived]) -> None:
    """Say how far each re-weighted collector got on the way to a retrained agent, and how well each agent serves."""
    seeds = sorted({row.seed for row in rows})
    told = {(row.seed, row.trained, row.weights): row for row in rows}
    for drive, what, sign in (("hunger", "food", 1), ("hazard", "contact", -1)):
        series = [COLLECT, *(weights for weights in CHANGED if drive in weights and weights["pleasure"])]
        if drive == "hazard":
            series.append(AVOID)
        means = [[getattr(told[seed, "collect", named(weights)], what) for weights in series] for seed in seeds]
        rising = sum(all(sign * (b - a) >= 0 for a, b in itertools.pairwise(row)) for row in means)
        print(f"{what} as {drive} rises: monotone in {rising} of {len(seeds)} seeds, mean {np.mean(means, 0).round(2)}")
    bases = [task for task in TRAINED if (seeds[0], task, named(NOTHING)) in told]
    for task in [task for task in bases if task != "collect"]:
        weights = named(COLLECT), named(TRAINED[task])
        _say(f"collect → {task}", [way(told, seed, "collect", task, *weights) for seed in seeds])
    for base in bases:
        for task in bases:
            others = [named(weights) for other, weights in TRAINED.items() if other != task]
            served = [way(told, seed, base, task, named(NOTHING), named(TRAINED[task])) for seed in seeds]
            _say(f"{base} serves {task}", served)
            mixed = [[way(told, seed, base, task, named(NOTHING), other) for other in others] for seed in seeds]
            _say(f"{base} serves {task}, told another task", [float(np.mean(each)) for each in mixed])


def way(told: dict[tuple[int, str, str], Lived], seed: int, base: str, task: str, before: str, after: str) -> float:
    """Share of the way, in the task's own cost, from the weights before to an agent that was trained for the task."""

    def cost(trained: str, weights: str) -> float:
        return float(getattr(told[seed, trained, weights], f"cost_{task}"))

    begin, goal = cost(base, before), cost(task, named(TRAINED[task]))
    return (begin - cost(base, after)) / (begin - goal)


def _say(what: str, shares: list[float]) -> None:
    each = ", ".join(f"{100 * share:.0f}" for share in shares)
    found = mean_interval(np.array(shares))
    interval = f" ({100 * found.low:.0f} … {100 * found.high:.0f})" if len(shares) > 1 else ""
    print(f"{what}: {100 * found.mean:.0f} %{interval} of the way [{each}]")


def main() -> None:
    """Train, measure, and print and write tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of trainings")
    parser.add_argument("--tasks", nargs="+", default=list(TRAINED), choices=TRAINED, help="which agents to train")
    parser.add_argument("--envs", type=int, default=16, help="episodes per row")
    parser.add_argument("--steps", type=int, default=100, help="steps of an episode")
    parser.add_argument("--prefill-updates", type=int, help="world-model updates (default: the preset's)")
    parser.add_argument("--folder", type=Path, default=Path("runs/drives"), help="where agents are kept")
    parser.add_argument("--out", type=Path, help="CSV file (default: FOLDER/drives.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "collect" not in arguments.tasks:
        parser.error("--tasks must name collect: it is the agent whose weights are changed")
    titles = "".join(f"{name:>9}" for name in COUNTED) + "".join(f"{task:>10}" for task in TRAINED)
    print(f"{'seed':>4}  {'trained':8}{'weights':26}{titles}")
    rows: list[Lived] = []
    where = arguments.out or arguments.folder / "drives.csv"
    where.parent.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        rows += measure(seed, arguments)
        with where.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(vars(rows[0])))
            writer.writeheader()
            writer.writerows(vars(row) for row in rows)
    summarise(rows)


if __name__ == "__main__":
    main()
