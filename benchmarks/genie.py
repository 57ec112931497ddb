"""Speed of dreaming: frames per second of one dream, and what the cache over time saves.

    python benchmarks/genie.py [--side 64] [--context 16] [--frames 8]

An untrained world with the default settings; speed does not depend on what was learned. Uncached, every sampling step
computes all frames anew and the new frame is decoded within its clip; the tokens must be the same.
"""

from __future__ import annotations

import argparse
import time

import torch
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
    spent = {}
    for name, work in (("cached", cached), ("uncached", uncached)):
        begun = time.process_time(), time.perf_counter()
        for _ in range(arguments.frames):
            work()
        cpu, wall = (
            (now - then) / arguments.frames
            for now, then in zip((time.process_time(), time.perf_counter()), begun, strict=True)
        )
        spent[name] = cpu
        print(f"{name:9} {1000 * wall:7.1f} ms per frame ({1 / wall:.1f} per second), {1000 * cpu:.1f} ms of CPU time")
    print(f"the cache saves a factor of {spent['uncached'] / spent['cached']:.1f} of CPU time")


if __name__ == "__main__":
    main()
