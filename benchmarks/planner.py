"""Time per decision of the planners, against the bare roll-out of the same network.

A fixed reference network (latent 64, two hidden layers of 256 with ReLU, residual) predicts the next latent; the energy
of a course of action is how far its last latent is from the origin. "Bare" is what no planner can do without: the very
same roll-outs, by the same function with the same shapes (candidates x horizon network calls, iterations times), on
actions that were drawn beforehand, under `torch.no_grad`, without energies and without any planner. What a planner
costs beside it is drawing, checking, reading energies, choosing elites and fitting distributions. Both take turns in
one process, first the one and then the other, so that a busy machine slows both; times are processor time, which
other jobs disturb less. The ratio is the median over the pairs of turns: 1.05 is an overhead of 5 %.

Gradients also go backwards, which the bare roll-out does not: their ratio is no overhead of the planner. iCEM asks for
fewer candidates from iteration to iteration, and beam and tree search predict single steps of as many nodes as they
please: bare is then what they asked for. A tree grows by one node at a time, so that its statistics cost more than a
network as small as this one.

The C library may give freed memory back to the system and fetch it again, page by page, in whichever turn its threshold
is crossed: for batch 1 that moved the ratio between 1.06 and 1.11 from process to process. The two thresholds below
keep the memory, for both.

    export OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000
    python benchmarks/planner.py --batch 1 8
    python benchmarks/planner.py --planners all --iterations 3 --pairs 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from forethought.planners import PLANNERS, ActionSpace, Budget, Nodes, Planner, Proposal, check_space
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

LATENT, HIDDEN = 64, 256
BOX = spaces.Box(-1, 1, (2,), np.float32)
DISCRETE = spaces.Discrete(15)


@dataclass
class Reference:
    """An objective on the reference network, which can be followed step by step, from B states."""

    batch: int
    space: ActionSpace
    courses: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    discount: float = 1.0

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.width = 2 if self.space is BOX else int(DISCRETE.n)
            self.network = nn.Sequential(
                nn.Linear(LATENT + self.width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
                nn.Linear(HIDDEN, LATENT),
            )  # fmt: skip
            self.start = torch.randn(self.batch, LATENT)

    def predict(self, latent: Tensor, encoded: Tensor) -> Tensor:
        return latent + 0.1 * self.network(torch.cat([latent, encoded], -1))

    def encode(self, actions: Tensor) -> Tensor:
        return actions if self.space is BOX else F.one_hot(actions, self.width).float()

    def rollout(self, actions: Tensor) -> Tensor:
        """Last latents ``[B, S, D]`` of ``actions [B, S, T, ...]``."""
        encoded = self.encode(actions)
        latent = self.start[:, None].expand(-1, actions.shape[1], -1)
        for t in range(actions.shape[2]):
            latent = self.predict(latent, encoded[:, :, t])
        return latent

    def __call__(self, actions: Tensor) -> Tensor:
        self.courses.append(actions.shape[1])
        return torch.linalg.vector_norm(self.rollout(actions), dim=-1)

    def root(self) -> Nodes:
        return (self.start[:, None],)

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        self.nodes.append(actions.shape[1])
        zero = torch.zeros(actions.shape)
        return (self.predict(nodes[0], self.encode(actions)),), zero, zero + 1

    def leaf(self, nodes: Nodes) -> Tensor:
        return torch.linalg.vector_norm(nodes[0], dim=-1)

    def prior(self, nodes: Nodes) -> Tensor:
        return torch.full((*nodes[0].shape[:2], self.width), 1 / self.width)


def bare(objective: Reference, horizon: int) -> Callable[[], None]:
    """The roll-outs and single predictions that the objective was asked for, on actions that are drawn here."""
    generator = torch.Generator().manual_seed(0)
    courses, nodes = objective.courses.copy(), objective.nodes.copy()

    def draw(*shape: int) -> Tensor:
        if objective.space is BOX:
            return torch.rand(objective.batch, *shape, objective.width, generator=generator) * 2 - 1
        return torch.randint(objective.width, (objective.batch, *shape), generator=generator)

    whole = {count: draw(count, horizon) for count in set(courses)}
    single = {count: (objective.start[:, None].repeat(1, count, 1), draw(count)) for count in set(nodes)}

    @torch.no_grad()
    def run() -> None:
        for count in courses:
            objective.rollout(whole[count])
        for count in nodes:
            latent, actions = single[count]
            objective.predict(latent, objective.encode(actions))

    return run


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(
    planner: Planner, space: ActionSpace, budget: Budget, batch: int, pairs: int
) -> tuple[float, float, list[float], int]:
    """Median milliseconds of a decision and of the bare roll-out, the ratio of every pair, and the calls made."""
    objective = Reference(batch, space)
    generator = torch.Generator().manual_seed(0)

    def plan() -> int:
        return planner.plan(objective, space, Proposal(), budget, batch, generator).calls

    calls = plan()
    alone = bare(objective, budget.horizon)
    turns: list[tuple[Callable[[], object], list[float]]] = [(plan, []), (alone, [])]
    for pair in range(pairs + 1):
        for run, times in turns if pair % 2 else reversed(turns):
            times.append(seconds(run))
    decision, rollout = (times[1:] for _, times in turns)  # the first pair warms up
    ratios = [a / b for a, b in zip(decision, rollout, strict=True)]
    return 1000 * statistics.median(decision), 1000 * statistics.median(rollout), ratios, calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planners", nargs="+", choices=[*PLANNERS, "all"], default=["cem"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    budget = Budget(arguments.horizon, arguments.candidates, arguments.iterations)
    print(f"{budget.candidates} x {budget.iterations} x {budget.horizon}, {torch.get_num_threads()} thread(s)")
    heads = "".join(f"{head:>9}" for head in ("batch", "calls", "ms", "bare ms", "ratio", "lowest", "highest"))
    print(f"{'planner':17}{'space':10}{heads}")
    for name in PLANNERS if "all" in arguments.planners else arguments.planners:
        space = BOX if name in ("cem", "icem", "mppi", "gradient", "random_shooting") else DISCRETE
        check_space(name, space)
        for batch in arguments.batch:
            ms, alone, ratios, calls = compare(PLANNERS[name](), space, budget, batch, arguments.pairs)
            middle = f"{batch:9}{calls:9}{ms:9.1f}{alone:9.1f}{statistics.median(ratios):9.3f}"
            print(f"{name:17}{type(space).__name__:10}{middle}{min(ratios):9.3f}{max(ratios):9.3f}", flush=True)


if __name__ == "__main__":
    main()
