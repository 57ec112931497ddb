"""What memory by content is worth, and what stale latents cost.

gap: trains with the memory and without, and plays on other episodes; also with the trained memory emptied, with the
keys in it scrambled (another way before each read, and the same way), and with the memory of another environment. Mean
returns: in forethought/Recall-v0 1 is perfect and 0 is chance; in MiniGrid-MemoryS7-v0 nearly 1 and half of that.

    OMP_NUM_THREADS=1 python benchmarks/recall.py gap --seeds 0 1 2 3 4
    OMP_NUM_THREADS=1 python benchmarks/recall.py gap --env MiniGrid-MemoryS7-v0

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

WORLD = "forethought/Recall-v0"
MODES: tuple[Mode, ...] = ("mode-1", "mode-2")


def trained(world: str, seed: int, memory: bool) -> Agent:
    config = replace(preset(world), seed=seed, device="cpu", threads=1)
    if not memory:
        recall = replace(config.perception.recall, slots=0)
        config = replace(config, perception=replace(config.perception, recall=recall))
    agent, env = prepare(config)
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    return agent


def score(agent: Agent, mode: Mode, episodes: int) -> float:
    agent.generator.manual_seed(0)
    env = build_env(agent.config.env, episodes, seed=10_000, held_out=True)
    mean = float(evaluate(mode, env, agent.begin(episodes, mode), seed=10_000).returns.mean())
    env.close()
    return mean


def disturbed(agent: Agent, mode: Mode, episodes: int) -> tuple[float, float, float, float]:
    """The mean return with the memory emptied before each read, with its keys scrambled, and with another's.

    Who reads again and again meets the right slot in the end where keys are exchanged another way each time; so they
    are also exchanged the same way, as long as the same slots are filled.
    """
    recall = agent.modules.perception.recall
    assert recall is not None
    draws, everywhere = torch.Generator().manual_seed(0), torch.ones(episodes, dtype=torch.bool)
    recall.disturb = lambda memory: forget(memory, everywhere)
    empty = score(agent, mode, episodes)
    recall.disturb = lambda memory: scrambled(memory, draws)
    mixed = score(agent, mode, episodes)
    recall.disturb = lambda memory: scrambled(memory, torch.Generator().manual_seed(0))
    alike = score(agent, mode, episodes)
    recall.disturb = lambda memory: replace(
        memory, keys=memory.keys.roll(1, 0), values=memory.values.roll(1, 0), usage=memory.usage.roll(1, 0)
    )
    exchanged = score(agent, mode, episodes)
    recall.disturb = None
    return empty, mixed, alike, exchanged


def gap(world: str, seeds: list[int], episodes: int) -> None:
    print("seed    mode      with   without   emptied scrambled     alike another's  seconds of processor time")
    rows: dict[Mode, list[tuple[float, ...]]] = {mode: [] for mode in MODES}
    for seed in seeds:
        start = time.process_time()
        on, off = trained(world, seed, True), trained(world, seed, False)
        for mode in MODES:
            without = score(off, mode, episodes)
            rows[mode].append((score(on, mode, episodes), without, *disturbed(on, mode, episodes)))
            numbers = "".join(f"{value:10.3f}" for value in rows[mode][-1])
            print(f"{seed:4d}  {mode}{numbers}{time.process_time() - start:10.1f}", flush=True)
    for mode in MODES:
        table = np.array(rows[mode])
        for column, name in enumerate(("without", "emptied", "scrambled", "scrambled alike", "another's"), start=1):
            found = mean_interval(table[:, 0] - table[:, column])
            bounds = f"[{found.low:.3f}, {found.high:.3f}] (95 %, bootstrap over seeds)" if found.known else ""
            print(f"{mode}, with − {name}: {found.mean:.3f} {bounds}")


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
    worth = commands.add_parser("gap")
    worth.add_argument("--env", default=WORLD, help=f"whose preset has a memory ({WORLD})")
    worth.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    worth.add_argument("--episodes", type=int, default=200, help="in each row (200)")
    slow = commands.add_parser("drift")
    slow.add_argument("--updates", type=int, default=10_000)
    slow.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "gap":
        gap(arguments.env, arguments.seeds, arguments.episodes)
    else:
        drift(arguments.updates, arguments.seed)


if __name__ == "__main__":
    main()
