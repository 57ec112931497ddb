"""What critic and actor learn in a finished world model, by the settings they learn with.

A run's perception and world model stay as they are. Memory is filled anew on training levels: random play, then the
run's own Mode-1. Critic and actor begin anew and learn from it; Mode-1 is then measured on unseen and on training
levels, drawing from its policy and taking the likeliest action. Minutes instead of a training, and the same world model
and memory for all settings. One row for each group of settings:

    python benchmarks/behaviour.py runs/procgen-heist/seed0 --set remembered=0 --set remembered=1,improvement=0
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import rethink
from forethought.agent.checkpoint import load_agent
from forethought.agent.config import BehaviourLoss
from forethought.agent.evaluation import evaluate
from forethought.agent.interaction import Exploring
from forethought.agent.statistics import mean_interval
from forethought.agent.training import Trainer
from forethought.agent.worlds import build_env
from forethought.modules.memory import ShortTermMemory


def changed(behaviour: BehaviourLoss, text: str) -> BehaviourLoss:
    """The settings with changes such as ``steps=32,remembered=1``."""
    numbers = {name: value for name, value in vars(behaviour).items() if type(value) in (int, float)}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        if name not in numbers:
            raise SystemExit(f"--set {text}: no number {name!r} among the settings; choose from {', '.join(numbers)}")
        behaviour = replace(behaviour, **{name: type(numbers[name])(value)})
    return behaviour


def beginner(agent: Agent, behaviour: BehaviourLoss, seed: int) -> Agent:
    """An agent with this one's perception and world model, and a new critic and actor."""
    other = Agent(replace(agent.config, behaviour=behaviour, seed=seed), agent.spaces)
    for name in ("perception", "world_model"):
        other.networks()[name].load_state_dict(agent.networks()[name].state_dict())
    return other


def trainer_of(agent: Agent, seed: int) -> Trainer:
    """In training levels, telling nobody."""
    env = build_env(agent.config.env, agent.config.env.num_envs, seed=seed, held_out=False)
    return Trainer(agent, env, lambda *_: None)


def remembered(agent: Agent, arguments: argparse.Namespace) -> ShortTermMemory:
    """Random play and the agent's own Mode-1, with latents."""
    trainer = trainer_of(agent, arguments.seed)
    trainer.collect(trainer.random, arguments.random)
    trainer.taken, trainer.rounds = 0, 1
    acting = agent.begin(trainer.env.num_envs, "mode-1", sample=True)
    trainer.collect(Exploring(acting, trainer.random, agent.config.schedule.exploration), arguments.own)
    trainer.rest()
    trainer.env.close()
    return trainer.memory


def main() -> None:
    """Learn, measure, print a line for each setting and write all of them beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of an agent with a reward task")
    parser.add_argument("--set", action="append", default=[], help="settings of behaviour that differ from the run's")
    parser.add_argument("--updates", type=int, default=1_500, help="of critic and actor")
    parser.add_argument("--random", type=int, default=16_000, help="random decisions to remember")
    parser.add_argument("--own", type=int, default=14_000, help="decisions of the run's Mode-1 to remember")
    parser.add_argument("--episodes", type=int, default=128, help="per row")
    parser.add_argument("--seed", type=int, default=0, help="of networks, draws and the levels' order")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="CSV file (default: RUN/behaviour.csv)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    agent = load_agent(arguments.run)
    settings = [(text, changed(agent.config.behaviour, text)) for text in arguments.set or [""]]
    memory = remembered(agent, arguments)
    rows: list[list[object]] = [["settings", "levels", "action", "level", "return", "decisions"]]
    for text, behaviour in settings:
        trainer = trainer_of(beginner(agent, behaviour, arguments.seed), arguments.seed)
        trainer.memory = memory
        trainer.learn_behaviour(arguments.updates)
        trainer.env.close()
        for held_out in (True, False):
            env = build_env(agent.config.env, arguments.episodes, seed=1_000, held_out=held_out)
            for sample in (True, False):
                thinking = replace(agent.config.task.thinking, sample=sample)
                acting = rethink(trainer.agent, thinking).begin(arguments.episodes, "mode-1")
                result = evaluate("mode-1", env, acting, seed=1_000)
                where, how = "unseen" if held_out else "training", "drawn" if sample else "likeliest"
                found = mean_interval(result.returns)
                about = f"{text or 'as the run':40} {where:9} {how:10}"
                print(f"{about} {found.mean:6.2f} ({found.low:.2f} … {found.high:.2f})", flush=True)
                rows += [[text, where, how, e.level, e.total, e.decisions] for e in result.episodes]
            env.close()
    with (arguments.out or arguments.run / "behaviour.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
