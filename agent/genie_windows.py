"""Windows of video as the parts of a world learn from them: tokens, codes and, where there are labels, outcomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..modules.genie.video import UNKNOWN, VideoDataset


@dataclass(frozen=True)
class Cached:
    """Windows as the dynamics sees them.

    Attributes:
        tokens: ``[n, T, N]``.
        actions: ``[n, T-1]``.
        starts: Where they lie in the data ``[n, 2]``.
    """

    tokens: Tensor
    actions: Tensor
    starts: NDArray[np.int64]


@dataclass(frozen=True)
class Told:
    """Windows whose outcomes are known.

    Attributes:
        tokens: ``[n, T, N]``.
        codes: What the latent action model names ``[n, T]``, −1 where unknown.
        meant: The code that the true action has most often ``[n, T]``, −1 where there is none.
        rewards: ``[n, T]``.
        ended: 1 where the world ended the episode ``[n, T]``.
        starts: Where they lie in the data ``[n, 2]``.
    """

    tokens: Tensor
    codes: Tensor
    meant: Tensor
    rewards: Tensor
    ended: Tensor
    starts: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.bool_]) -> Told:
        """Some of the windows ``[n]``."""
        index = torch.from_numpy(chosen)
        return Told(
            self.tokens[index], self.codes[index], self.meant[index], self.rewards[index], self.ended[index],
            self.starts[chosen],
        )  # fmt: skip


def tell(data: VideoDataset, usual: Cached, final: Cached, codes: int) -> Told:
    """All windows whose rewards are labelled, with their outcomes.

    Where no frame follows an episode's last step (Procgen), nothing can be inferred of it: its code is the one that is
    meant, which its true action most often has elsewhere.

    Args:
        data: Where they are from.
        usual: The windows that the dynamics learns from.
        final: Those that end with an episode.
        codes: Latent actions |A|.

    Raises:
        ValueError: The data has no rewards.
    """
    length, many = usual.tokens.shape[1], len(usual.starts)
    both = np.concatenate([usual.starts, final.starts])
    truth = torch.from_numpy(data.read_label("actions", both, length))
    seen = truth[:many, :-1]
    there = seen != UNKNOWN
    counts = torch.zeros(1 + max(0, int(truth.max())), codes)
    counts.index_put_((seen[there], usual.actions[there]), torch.ones(int(there.sum())), accumulate=True)
    named = counts.argmax(1).masked_fill(counts.sum(1) == 0, UNKNOWN)
    meant = named[truth.clamp(min=0)].masked_fill(truth == UNKNOWN, UNKNOWN)
    inferred = F.pad(torch.cat([usual.actions, final.actions]), (0, 1), value=UNKNOWN)
    inferred[many:, -1] = meant[many:, -1]
    rewards = torch.from_numpy(data.read_label("rewards", both, length))
    ended = torch.from_numpy(data.read_label("ended", both, length)).float()
    whole = ~rewards.isnan().any(1).numpy()
    if not whole.any():
        raise ValueError("the data has no rewards, which the outcome heads learn from; set updates.outcomes to 0")
    return Told(torch.cat([usual.tokens, final.tokens]), inferred, meant, rewards, ended, both).rows(whole)


def some_clips(told: Told, data: VideoDataset, clips: int, seed: int) -> Told:
    """The windows of so many clips, drawn at random; 0: of all."""
    if not clips:
        return told
    each = data.clip_of(told.starts)
    drawn = np.random.default_rng(seed).permutation(np.unique(each))[:clips]
    return told.rows(np.isin(each, drawn))


def step_weights(starts: NDArray[np.int64], known: Tensor) -> Tensor:
    """Weights ``[n, T]`` by which each step that windows from ``starts [n, 2]`` hold counts once.

    That is in however many of them it is ``known [n, T]``; 0 where it is not. Their mean is that of ``known``.
    """
    places = starts[:, 1:] + np.arange(known.shape[1])
    _, which = np.unique(starts[:, :1] * (places.max() + 1) + places, return_inverse=True)
    times = torch.zeros(int(which.max()) + 1).index_add_(0, torch.from_numpy(which.ravel()), known.float().flatten())
    weights = known / times[torch.from_numpy(which.reshape(places.shape))].clamp(min=1)
    return weights * known.sum() / weights.sum().clamp(min=1e-6)


def drawn_weights(event: Tensor, extra: int, batch: int) -> Tensor:
    """Importance weights ``[n]`` of windows, of which ``extra`` in a batch are drawn from those with an event ``[n]``
    and the rest from all: how often each would come in even draws, by how often it does."""
    oftener = event * len(event) / event.sum().clamp(min=1)
    return batch / (batch - extra + extra * oftener)


def thin(starts: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """Starts ``[n, 2]`` that lie a multiple of ``stride`` after the first of their run of consecutive places."""
    new = np.ones(len(starts), np.bool_)
    new[1:] = (starts[1:, 0] != starts[:-1, 0]) | (starts[1:, 1] != starts[:-1, 1] + 1)
    first = np.maximum.accumulate(np.where(new, np.arange(len(starts)), 0))
    thinned: NDArray[np.int64] = starts[(np.arange(len(starts)) - first) % stride == 0]
    return thinned
