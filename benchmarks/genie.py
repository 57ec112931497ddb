"""Speed of dreaming: frames per second of one dream, and what the cache over time saves.

    python benchmarks/genie.py [--side 64] [--context 16] [--frames 8]

An untrained world with the default settings; speed does not depend on what was learned. Uncached, every sampling step
computes all frames anew and the new frame is decoded within its clip; the tokens must be the same. Both take turns, and
medians are compared. Then whole steps of `GenieVectorEnv` are timed, with reward and ending.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from forethought.agent.genie_speed import measure_speed
from forethought.modules.genie.files import PARTS, save_part, save_prompts, save_settings
from forethought.modules.genie.latent_action import LatentActionConfig
from forethought.modules.genie.sampler import draw_noise
from forethought.modules.genie.tokenizer import TokenizerConfig
from forethought.modules.genie.world import Genie, GenieConfig


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="height and width of a frame in pixels")
    parser.add_argument("--context", type=int, default=16, help="frames that the networks see")
    parser.add_argument("--frames", type=int, default=8, help="frames that are timed")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    side, context = arguments.side, arguments.context
    config = GenieConfig(side, side, context, TokenizerConfig(patch=side // 8), LatentActionConfig(patch=8))
    world = Genie(config).eval()
    count = world.tokenizer.tokens
    tokens = torch.randint(world.tokenizer.vocabulary, (1, context - 1, count))
    actions = torch.randint(world.actions, (1, context - 1))
    noise = draw_noise([torch.Generator().manual_seed(0)], world.sampling.steps, count)
    _, dream = world.begin(tokens, actions[:, :-1])

    def cached() -> torch.Tensor:
        return world.step(dream, actions[:, -1], noise, world.sampling)[1].tokens

    def uncached() -> torch.Tensor:
        new = world.sample_uncached(tokens, actions, noise, world.sampling)
        world.tokenizer.decode(torch.cat([tokens, new[:, None]], 1))
        return new

    assert torch.equal(cached(), uncached()), "the cache changes the dream"
    print(f"{side}×{side}, {count} tokens, context {context}, {world.sampling.steps} sampling steps, "
          f"{sum(p.numel() for p in world.parameters()) / 1e6:.2f} M parameters, "
          f"{arguments.threads} threads")  # fmt: skip
    works = {"cached": cached, "uncached": uncached}
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.frames):
        for name, work in works.items():
            begun = time.process_time(), time.perf_counter()
            work()
            cpu[name].append(1000 * (time.process_time() - begun[0]))
            wall[name].append(1000 * (time.perf_counter() - begun[1]))
    for name in works:
        lower, median, upper = np.quantile(wall[name], (0.25, 0.5, 0.75))
        print(f"{name:9} {median:7.1f} ms per frame (quartiles {lower:.1f} and {upper:.1f}; {1000 / median:.1f} per "
              f"second), {np.median(cpu[name]):.1f} ms of CPU time")  # fmt: skip
    print(f"the cache saves a factor of {np.median(cpu['uncached']) / np.median(cpu['cached']):.1f} of CPU time")
    with tempfile.TemporaryDirectory() as name:
        folder, prompts = Path(name), np.zeros((1, 2, side, side, 3), np.uint8)
        save_settings(folder, config, {"data": "none, untrained"})
        for part in PARTS:
            save_part(folder, part, getattr(world, part))
        save_prompts(folder, prompts)
        told = measure_speed(folder, prompts, world.sampling, torch.device("cpu"), steps=10 * arguments.frames)
    print(f"environment {told.median:5.1f} ms per step, reward and ending included (quartiles {told.lower:.1f} and "
          f"{told.upper:.1f}; {1000 / told.median:.1f} per second)")  # fmt: skip


if __name__ == "__main__":
    main()
