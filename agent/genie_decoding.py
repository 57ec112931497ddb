"""How many labels it takes to know what latent actions mean: dictionary and decoder, tried on test video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.decoding import ActionDecoder, ActionDictionary
from ..modules.genie.patches import to_unit
from ..modules.genie.transformer import precision
from ..modules.genie.video import VideoDataset
from ..modules.genie.world import Genie
from .statistics import Interval, wilson

_CHUNK = 64


@dataclass(frozen=True)
class Labelled:
    """Steps: codes ``[n]``, true actions ``[n]``, and what the dynamics made of the frame they leave ``[n, D]``."""

    codes: Tensor
    actions: Tensor
    features: Tensor


@dataclass(frozen=True)
class LabelRow:
    """Accuracy on test video after so many labelled steps."""

    labels: int
    dictionary: Interval
    decoder: Interval


@torch.no_grad()
def read_steps(world: Genie, data: VideoDataset, count: int, seed: int, device: torch.device) -> Labelled:
    """Labelled steps drawn at random, each at the end of a window, so that nothing later than its frame is seen.

    Raises:
        ValueError: The data has no true actions, or no clip that is long enough.
    """
    if not data.labelled:
        raise ValueError(f"{data.folder} has no true actions; record data with forethought genie record")
    frames = min(4, world.config.context)
    starts = data.starts(frames)
    chosen = starts[np.random.default_rng(seed).permutation(len(starts))[:count]]
    truth = torch.from_numpy(data.read_label("actions", chosen, frames)[:, -2])
    parts = [chosen[begin : begin + _CHUNK] for begin in range(0, len(chosen), _CHUNK)]
    return label_windows(world, (data.read(part, frames) for part in parts), truth, device)


@torch.no_grad()
def label_windows(world: Genie, parts: Iterable[NDArray[np.uint8]], truth: Tensor, device: torch.device) -> Labelled:
    """What the world makes of the last step of windows.

    Args:
        world: In evaluation mode, on ``device``.
        parts: Windows ``[m, F, H, W, 3]``, a few at a time.
        truth: The action taken in the last step of each ``[n]``.
        device: Where the world is.
    """
    codes, features = [], []
    for pixels in parts:
        with precision(device):
            tokens, actions = world.infer(to_unit(torch.from_numpy(pixels).to(device)))
            _, dream = world.begin(tokens[:, :-1], actions[:, :-1])  # up to the frame that the step leaves
        codes.append(actions[:, -1])
        features.append(dream.features.float())
    return Labelled(torch.cat(codes), truth.to(device), torch.cat(features))


def label_curve(
    world: Genie,
    train: VideoDataset,
    test: VideoDataset,
    labels: Sequence[int],
    actions: int,
    seed: int,
    device: torch.device,
    tried: int = 1_000,
) -> list[LabelRow]:
    """Accuracy of both maps on test video, by the number of labelled training steps.

    Args:
        world: In evaluation mode, on ``device``.
        train: Where labels come from.
        test: Where they are tried.
        labels: How many; where there are fewer, all.
        actions: Real actions.
        seed: Draws steps and initial weights.
        device: Where the world is.
        tried: Test steps.

    Raises:
        ValueError: No true actions, or numbers below 1.
    """
    if not labels or min(labels) < 1:
        raise ValueError(f"labels are {list(labels)}; expected numbers of at least 1")
    known = read_steps(world, train, max(labels), seed, device)
    held_out = read_steps(world, test, tried, seed + 1, device)
    rows = []
    for count in labels:
        few = slice(0, count)
        dictionary = ActionDictionary(world.actions, actions)
        dictionary.learn(known.codes[few], known.actions[few])
        decoder = make_decoder(world, known, count, actions, seed)
        guesses = (
            dictionary.likeliest(held_out.codes),
            decoder(held_out.features, held_out.codes).argmax(-1),
        )
        right = [int((guess == held_out.actions).sum()) for guess in guesses]
        rows.append(LabelRow(len(known.codes[few]), *(wilson(hits, len(held_out.codes)) for hits in right)))
    return rows


def make_decoder(world: Genie, known: Labelled, count: int, actions: int, seed: int) -> ActionDecoder:
    """A decoder that learned from the first ``count`` labelled steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = ActionDecoder(world.config.dynamics.width, world.actions, actions).to(known.codes.device)
    few = slice(0, count)
    generator = torch.Generator().manual_seed(seed)
    decoder.learn(known.features[few], known.codes[few], known.actions[few], generator)
    return decoder
