"""What a gate's doubts are worth: return and predictor calls beside Mode-1, Mode-2 and a gate that only chance opens.

For every signal and share of planned decisions the thresholds are calibrated on training levels (or starts) and the
gate is measured on unseen ones. Its control plans with the rate at which this gate really did: a gate that is no better
than that has told nothing about where planning pays.

    python benchmarks/gate.py runs/CartPole-v1/seed0 --signals entropy spread --shares 0.1 0.3 --episodes 32
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from forethought.agent.agent import Agent
from forethought.agent.calibration import calibrate, with_gate
from forethought.agent.checkpoint import load_agent
from forethought.agent.comparison import CompareConfig, Player, play
from forethought.agent.evaluation import Result
from forethought.agent.protocols import find_protocol
from forethought.agent.statistics import mean_interval
from forethought.modules.types import DOUBTS, Gate, Mode

COLUMNS = ("row", "signal", "share", "planned", "calls", "return", "low", "high", "of Mode-2", "gap closed")


def measured(agent: Agent, mode: Mode, config: CompareConfig) -> Result:
    """Episodes of an agent where training has not been."""
    player = Player(mode, agent.config.env, lambda env: agent.begin(env.num_envs, mode))
    return play(player, config, find_protocol(None, agent.config.env.id))


def rows_of(agent: Agent, signals: Sequence[str], shares: Sequence[float], config: CompareConfig) -> list[list[object]]:
    """All rows, printed as they come."""
    ends = {mode: measured(with_gate(agent, Gate()), mode, config) for mode in ("mode-1", "mode-2")}
    low, high = (float(ends[mode].returns.mean()) for mode in ("mode-1", "mode-2"))
    rows: list[list[object]] = []

    def tell(name: str, signal: str, share: float | str, found: Result) -> None:
        interval = mean_interval(found.returns)
        closed = (interval.mean - low) / (high - low) if high != low else float("nan")
        planned = found.calls / ends["mode-2"].calls
        rows.append([name, signal, share, round(planned, 4), round(found.calls, 1), interval.mean, interval.low,
                     interval.high, interval.mean / high if high else float("nan"), closed])  # fmt: skip
        print(
            f"{name:10}{signal:10}{share!s:>6}{100 * planned:9.1f} %{interval.mean:10.2f} "
            f"({interval.low:.2f} … {interval.high:.2f}){100 * closed:9.0f} %",
            flush=True,
        )

    print(f"{'row':10}{'signal':10}{'share':>6}{'calls':>11}{'return':>10} (95 %) and gap closed")
    tell("mode-1", "", "", ends["mode-1"])
    tell("mode-2", "", "", ends["mode-2"])
    for signal in signals:
        for share in shares:
            gate = calibrate(agent, share, (signal,))  # type: ignore[arg-type]
            found = measured(with_gate(agent, gate), "gated", config)
            tell("gated", signal, share, found)
            look = agent.config.world_model.members if signal in {"variance", "surprise"} else 0
            rate = (found.calls - look) / ends["mode-2"].calls
            commit = min(agent.config.task.thinking.commit, agent.config.task.thinking.horizon)
            rate = rate / (commit - (commit - 1) * rate)  # a plan is carried out for so many steps, a reaction for one
            tell("chance", signal, share, measured(with_gate(agent, Gate(chance=rate)), "gated", config))
    return rows


def main() -> None:
    """Measure, print a table, and write it beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--signals", nargs="+", default=["entropy", "spread", "surprise"], choices=DOUBTS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.5], help="of decisions to plan")
    parser.add_argument("--episodes", type=int, default=32, help="unseen episodes per row")
    parser.add_argument("--seed", type=int, default=1_000, help="of their levels, starts or pairs")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/gate.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run, threads=arguments.threads)
    config = CompareConfig(episodes=arguments.episodes, seed=arguments.seed, film=0)
    rows = rows_of(agent, arguments.signals, arguments.shares, config)
    with (arguments.out or arguments.run / "gate.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
