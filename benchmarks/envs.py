"""Throughput of our Procgen vector environment against raw gym3.

Both step the same game with the same pre-drawn actions, in turns within one process, so that a busy machine slows
both; rates are per second of processor time, which other jobs disturb less.
The ratio is the median over the pairs of turns.

    OMP_NUM_THREADS=1 python benchmarks/envs.py --games coinrun bigfish
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from forethought.envs.procgen import GAMES, ProcgenVectorEnv, import_procgen


def seconds(step: Callable[[npt.NDArray[np.int32]], object], actions: npt.NDArray[np.int32]) -> float:
    start = time.process_time()
    for row in actions:
        step(row)
    return time.process_time() - start


def compare(game: str, num_envs: int, steps: int, pairs: int) -> tuple[float, float, list[float]]:
    """Median environment steps per second of ours and of raw gym3, and the ratio of every pair."""
    ours = ProcgenVectorEnv(game, num_envs, seed=0)
    ours.reset()
    raw = import_procgen().ProcgenGym3Env(
        num=num_envs, env_name=game, distribution_mode="easy", start_level=0, num_levels=200, num_threads=0, rand_seed=0
    )

    def raw_step(actions: npt.NDArray[np.int32]) -> object:
        raw.act(actions)
        return raw.observe()

    generator = np.random.default_rng(0)
    ours_rates: list[float] = []
    raw_rates: list[float] = []
    for pair in range(pairs + 1):
        actions = generator.integers(15, size=(steps, num_envs), dtype=np.int32)
        turns = [(ours.step, ours_rates), (raw_step, raw_rates)]
        for step, rates in turns if pair % 2 else reversed(turns):  # same actions, same levels: equal work
            rates.append(steps * num_envs / seconds(step, actions))
    ours.close()
    raw.close()
    ratios = [a / b for a, b in zip(ours_rates[1:], raw_rates[1:], strict=True)]  # the first pair warms up
    return statistics.median(ours_rates[1:]), statistics.median(raw_rates[1:]), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=["coinrun", "starpilot", "maze", "bigfish"])
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="vector steps per turn")
    parser.add_argument("--pairs", type=int, default=200)
    arguments = parser.parse_args()
    print(f"{'game':12}{'ours/s':>10}{'gym3/s':>10}{'ratio':>8}{'lowest':>8}{'highest':>8}")
    for game in arguments.games:
        ours, raw, ratios = compare(game, arguments.num_envs, arguments.steps, arguments.pairs)
        print(f"{game:12}{ours:10.0f}{raw:10.0f}{statistics.median(ratios):8.3f}{min(ratios):8.3f}{max(ratios):8.3f}")


if __name__ == "__main__":
    main()
