"""Imitating an expert seen on video alone: codes for actions first, then a few labels for what the codes mean.

As in Genie (2402.15391, section 3.3): the latent action model names what happens between the expert's frames, a policy
learns to do the same by cross-entropy, and a map from codes to real actions is learned from N labelled steps. Beside
it the same network that imitates all true actions (the oracle), and chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules.genie.video import VideoDataset
from ..modules.genie.world import Genie
from ..modules.perception import Perception, PerceptionConfig
from .agent import Decision
from .augmentation import check_shift, random_shift
from .genie_contest import Contestant, chance, expert
from .genie_decoding import Labelled, label_windows
from .genie_real import ActionMap, Home, LatentBehaviour, Meaning, Window, home_of, learn_map
from .interaction import Behaviour, Observation, VectorEnv

Told = Callable[[int, int], None]
_CHUNK = 64


@dataclass(frozen=True)
class Cloning:
    """How an expert is imitated."""

    labels: tuple[int, ...] = (16, 64, 256, 1024)
    """Labelled steps of the expert from which the meaning of codes is learned."""
    meanings: tuple[Meaning, ...] = ("dictionary",)
    """dictionary, decoder or both."""
    steps: int = 20_000
    """Steps of video that are imitated, at most."""
    updates: int = 1_000
    """Updates of a policy."""
    batch: int = 64
    """Steps per update."""
    learning_rate: float = 1e-3
    """Learning rate (AdamW)."""
    frames: int = 1
    """Last frames that a policy sees; from two on it knows velocities."""
    shift: int = 0
    """Pixels by which frames are shifted at random while a policy learns."""
    latent: int = 64
    """Width of the policy's perception."""
    channels: int = 16
    """Channels of its widest convolution."""
    sample: bool = False
    """Clones draw from their policy; else they do what is likeliest, which leaves them stuck where the expert itself
    acts by chance."""


@dataclass(frozen=True)
class WatchedExpert:
    """Steps of an expert: the last frames before each uint8 ``[n, F, H, W, 3]``, and what is known of the step."""

    frames: NDArray[np.uint8]
    known: Labelled


class ClonedPolicy(nn.Module):
    """The last frames ``[B, F, H, W, 3]`` to logits ``[B, actions]``."""

    def __init__(self, config: Cloning, shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        seen = PerceptionConfig("cnn", config.latent, history=config.frames, width=config.channels)
        self.perception = Perception(seen, shape)
        self.head = nn.Linear(config.latent, actions)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.perception(frames))
        return logits


class CloneBehaviour:
    """A cloned policy at work: the likeliest action for what its window shows, or with a generator one drawn."""

    def __init__(
        self, policy: ClonedPolicy, window: Window, device: torch.device, generator: np.random.Generator | None = None
    ) -> None:
        self.policy, self.window, self.device, self.generator = policy, window, device, generator

    @torch.no_grad()
    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide for all environments at once."""
        frames = self.window.see(observation, first)
        logits = self.policy(torch.from_numpy(frames).to(self.device)).cpu().numpy()
        if self.generator is not None:
            logits = logits + self.generator.gumbel(size=logits.shape)  # the largest is a draw from the softmax
        chosen = logits.argmax(-1)
        return Decision(chosen, np.zeros((len(first), 1), np.float32), None, np.zeros(len(first), np.bool_), 0)


def watch_expert(
    world: Genie, data: VideoDataset, most: int, frames: int, seed: int, device: torch.device
) -> WatchedExpert:
    """Steps of video in random order, each named from two frames alone, so that an episode's first are among them.

    Where no frame follows an episode's last step (Procgen), that step is missing, for the oracle as well.

    Raises:
        ValueError: The data has frames of another size, no true actions, or no clips of two frames.
    """
    data.need_size(world.config.height, world.config.width)
    if not data.labelled:
        raise ValueError(f"{data.folder} has no true actions to compare with; record an expert with them")
    starts = data.starts(2)
    chosen = starts[np.random.default_rng(seed).permutation(len(starts))[:most]]
    windows = [data.read(chosen[begin : begin + _CHUNK], 2) for begin in range(0, len(chosen), _CHUNK)]
    truth = torch.from_numpy(data.read_label("actions", chosen, 2)[:, 0])
    return WatchedExpert(data.read_past(chosen, frames), label_windows(world, windows, truth, device))


def clone(
    watched: WatchedExpert,
    actions: Tensor,
    count: int,
    config: Cloning,
    seed: int,
    device: torch.device,
    progress: Told | None = None,
) -> ClonedPolicy:
    """A policy that learned to take ``actions [n]`` (of ``count``, codes or true ones) where the expert did."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = ClonedPolicy(config, watched.frames.shape[2:], count).to(device).train()
    optimiser = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.from_numpy(watched.frames)
    for update in range(config.updates):
        chosen = torch.randint(len(frames), (config.batch,), generator=generator)
        shown = frames[chosen]
        if config.shift:
            shown = random_shift(shown.unsqueeze(1), config.shift, generator).squeeze(1)
        loss = F.cross_entropy(policy(shown.to(device)), actions[chosen.to(actions.device)])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if progress is not None:
            progress(update + 1, config.updates)
    return policy.eval()


def clones(
    world: Genie,
    home: Home,
    data: VideoDataset,
    config: Cloning,
    seed: int,
    device: torch.device,
    progress: Told | None = None,
) -> list[Contestant]:
    """The clone by number of labels, its oracle, the expert where it can be asked, and chance.

    Args:
        world: In evaluation mode, on ``device``; it may never have seen an expert.
        home: Where the expert was recorded.
        data: The expert's video; its true actions serve the oracle and, a few of them, as labels.
        config: How.
        seed: Of draws and weights.
        device: Where the world is.
        progress: Told of updates, of both policies together.

    Raises:
        ValueError: Numbers out of range, or data without true actions.
    """
    check_cloning(config)
    check_shift("shift", config.shift, (data.height, data.width, 3))
    watched = watch_expert(world, data, config.steps, config.frames, seed, device)
    known = watched.known

    def second(done: int, wanted: int) -> None:
        if progress is not None:
            progress(wanted + done, 2 * wanted)

    def half(done: int, wanted: int) -> None:
        if progress is not None:
            progress(done, 2 * wanted)

    latent = clone(watched, known.codes, world.actions, config, seed, device, half)
    actions = 1 + int(known.actions.max())
    oracle = clone(watched, known.actions, actions, config, seed, device, second)
    found = [
        _by_labels(world, latent, known, count, meaning, config, seed, device)
        for meaning in config.meanings
        for count in config.labels
    ]
    env, shown = home.build(1, "test", seed), home_of({"data": data.about})
    try:
        found += [
            _at_work(
                "clone of true actions",
                f"oracle, {len(known.actions)} labels",
                world,
                oracle,
                None,
                config,
                seed,
                device,
            ),
            *expert(env, shown),
            chance(home, seed),
        ]
    finally:
        env.close()
    return found


def _by_labels(
    world: Genie,
    policy: ClonedPolicy,
    known: Labelled,
    count: int,
    meaning: Meaning,
    config: Cloning,
    seed: int,
    device: torch.device,
) -> Contestant:
    few = Labelled(known.codes[:count], known.actions[:count], known.features[:count])
    actions = learn_map(world, few, meaning, seed)
    name = f"clone, {len(few.codes)} labels, {meaning}"
    return _at_work(name, "imitates codes", world, policy, actions, config, seed, device)


def _at_work(
    name: str,
    note: str,
    world: Genie,
    policy: ClonedPolicy,
    actions: ActionMap | None,
    config: Cloning,
    seed: int,
    device: torch.device,
) -> Contestant:
    """A cloned policy in the true environment; without a map its answers are true actions."""

    def begin(env: VectorEnv) -> Behaviour:
        draws = np.random.default_rng(seed) if config.sample else None
        cloned = CloneBehaviour(policy, Window(env.num_envs, world, config.frames), device, draws)
        return LatentBehaviour(env, world, cloned, actions, device, frames=1)

    return Contestant(name, begin, note)


def check_cloning(config: Cloning) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: Names the setting.
    """
    for name, least in (
        ("steps", 1), ("updates", 1), ("batch", 1), ("latent", 1), ("channels", 1), ("frames", 1),
    ):  # fmt: skip
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least {least}")
    if not config.labels or min(config.labels) < 1 or not config.meanings:
        raise ValueError(
            f"labels are {list(config.labels)} and meanings {list(config.meanings)}; expected numbers of at least 1 "
            "and at least one meaning"
        )
