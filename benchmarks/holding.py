"""What chance earns by how long actions are held, with all buttons and with those that differ.

A level that chance ends early is seen to its end more often, so that more is learned of its rewards: how long a game's
preset holds its actions was chosen by this on training levels. The same on unseen levels is the floor below an agent
that has those buttons. Every episode is written to a CSV file:

    python benchmarks/holding.py maze heist --frames 1 2 3 4 6 --out holding.csv
    python benchmarks/holding.py maze --frames 2 --unseen --out floor.csv
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

from forethought.agent.comparison import CompareConfig, bystanders, play
from forethought.agent.distinct import with_distinct_actions
from forethought.agent.presets import preset
from forethought.agent.statistics import mean_interval


def main() -> None:
    """Play, print a line for each game, hold and set of buttons, and write all episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", nargs="+", help="Procgen games: maze heist")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2, 3, 4, 6], help="how long actions are held")
    parser.add_argument("--episodes", type=int, default=256, help="per line")
    parser.add_argument("--unseen", action="store_true", help="play unseen levels, those of forethought compare")
    parser.add_argument("--seed", type=int, default=1_000, help="of the levels and of chance")
    parser.add_argument("--out", type=Path, default=Path("holding.csv"), help="CSV file")
    arguments = parser.parse_args()
    config = CompareConfig(("random",), arguments.episodes, seed=arguments.seed, film=0)
    split = "unseen" if arguments.unseen else "train"
    rows: list[list[object]] = [["world", "row", "frames", "split", "index", "return", "decisions", "level"]]
    for game in arguments.games:
        for frames in arguments.frames:
            world = replace(preset(f"procgen:{game}").env, distinct_actions=True, action_repeat=frames)
            for player in bystanders(with_distinct_actions(world, 0), None, config):
                result = play(player, config, split=split)
                found = mean_interval(result.returns)
                about = f"{game:10} held for {frames} {split:6} {player.name:20}"
                print(f"{about} {found.mean:6.2f} ({found.low:.2f} … {found.high:.2f})", flush=True)
                rows += [
                    [player.world.id, player.name, frames, split, index, e.total, e.decisions, e.level]
                    for index, e in enumerate(result.episodes)
                ]
        with arguments.out.open("w", newline="") as file:  # after each game: a stopped run has those before
            csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
