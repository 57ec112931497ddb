"""What memory by content is worth, and what stale latents cost.

gap: trains on forethought/Recall-v0 with the memory and without, and plays on other episodes; also with the trained
memory emptied, and with the keys in it scrambled, before each read. Mean returns: 1 is perfect, 0 is chance.

    OMP_NUM_THREADS=1 python benchmarks/recall.py gap --seeds 0 1 2 3 4

drift: remembers 512 percepts, lets the encoder learn on, and asks for each of them by a noisy copy: how often the first
answer is right with latents that are encoded again, and with those of the encoder that wrote them.

    OMP_NUM_THREADS=1 python benchmarks/recall.py drift --updates 10000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import RunConfig, WorldModelLoss
from forethought.agent.evaluation import evaluate
from forethought.agent.learning import Learner
from forethought.agent.presets import preset
from forethought.agent.run import build_env, prepare
from forethought.agent.spaces import Spaces
from forethought.agent.statistics import mean_interval
from forethought.agent.training import Trainer
from forethought.modules.content import forget, scrambled
from forethought.modules.content_index import ContentIndex
from forethought.modules.memory import MemoryShape, ShortTermMemory
from forethought.modules.perception import PerceptionConfig
from forethought.modules.types import Mode
from gymnasium import spaces
from torch import Tensor

EPISODES = 200


def trained(seed: int, slots: int) -> Agent:
    config = preset("forethought/Recall-v0")
    recall = replace(config.perception.recall, slots=slots)
    config = replace(config, seed=seed, device="cpu", perception=replace(config.perception, recall=recall))
    agent, env = prepare(config)
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    return agent


def score(agent: Agent, mode: Mode) -> float:
    agent.generator.manual_seed(0)
    env = build_env(agent.config.env, EPISODES, seed=10_000, held_out=True)
    mean = float(evaluate(mode, env, agent.begin(EPISODES, mode), seed=10_000).returns.mean())
    env.close()
    return mean


def disturbed(agent: Agent) -> tuple[float, float]:
    """Mode-2's mean return with the memory emptied before each read, and with its keys scrambled."""
    recall = agent.modules.perception.recall
    assert recall is not None
    draws, everywhere = torch.Generator().manual_seed(0), torch.ones(EPISODES, dtype=torch.bool)
    recall.disturb = lambda memory: forget(memory, everywhere)
    empty = score(agent, "mode-2")
    recall.disturb = lambda memory: scrambled(memory, draws)
    return empty, score(agent, "mode-2")


def gap(seeds: list[int]) -> None:
    print("seed on, mode-1 on, mode-2 off, mode-2   emptied  scrambled  seconds of processor time")
    gaps, lost = [], []
    for seed in seeds:
        start = time.process_time()
        on, off = trained(seed, 8), trained(seed, 0)
        reacting, thinking, without = score(on, "mode-1"), score(on, "mode-2"), score(off, "mode-2")
        empty, mixed = disturbed(on)
        gaps.append(thinking - without)
        lost.append(thinking - mixed)
        row = "".join(f"{value:11.3f}" for value in (reacting, thinking, without, empty, mixed))
        print(f"{seed:4d}{row}{time.process_time() - start:9.1f}", flush=True)
    for name, values in (("on − off, mode-2", gaps), ("on − scrambled, mode-2", lost)):
        found = mean_interval(values)
        print(f"{name}: {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] (95 %, bootstrap over seeds)")


def drift(updates: int, seed: int) -> None:
    config = RunConfig(
        perception=PerceptionConfig("mlp", latent=16, width=16),
        model_loss=WorldModelLoss(steps=2, batch=32, regulariser_weight=0.1, directions=16),
        seed=seed,
        device="cpu",
    )
    agent = Agent(config, Spaces((8,), False, False, spaces.Discrete(3)))
    memory = ShortTermMemory(MemoryShape((8,), False, (), True, 3, 12), 8, 1_024)
    draws, x = np.random.default_rng(seed), np.zeros((8, 8), np.float32)
    for t in range(64):  # each number seen is a walk of its own, pushed by the action
        action = draws.integers(3, size=8)
        x = (0.8 * x + draws.normal(size=x.shape) + (action - 1)[:, None]).astype(np.float32)
        memory.write(x, action, x[:, 0], np.full(8, t % 16 == 15), np.zeros(8, bool))
    learner, fresh, stale = Learner(agent, updates), ContentIndex(memory), ContentIndex(memory)
    percepts = memory.read(*np.divmod(np.arange(512), 64), 0).observation[:, 0]
    cue = percepts + 0.05 * torch.randn(percepts.shape, generator=torch.Generator().manual_seed(seed))

    def encode(percept: Tensor) -> Tensor:
        with torch.no_grad():
            return agent.modules.perception.encode(percept).latent

    def found(index: ContentIndex) -> float:
        near = index.nearest(encode(cue), count=1, steps=0)
        return float(np.mean((near.stream * 64 + near.start)[:, 0] == np.arange(512)))

    stale.refresh(encode, 0)
    print("updates  encoded again   stale")
    for done in range(updates + 1):
        if done in {0, 100, 1_000, updates}:
            fresh.refresh(encode, learner.done)
            print(f"{done:7d}{found(fresh):15.3f}{found(stale):8.3f}", flush=True)
        if done < updates:
            learner.world_model_update(memory.sample(32, 2, draws))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gap").add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    slow = commands.add_parser("drift")
    slow.add_argument("--updates", type=int, default=10_000)
    slow.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "gap":
        gap(arguments.seeds)
    else:
        drift(arguments.updates, arguments.seed)


if __name__ == "__main__":
    main()
