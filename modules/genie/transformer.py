"""The ST-transformer that tokenizer, latent action model and dynamics are made of (Genie, 2402.15391, section 2.1).

A block attends over the N tokens of one frame, then over time at each place (causally), then has one feed-forward; the
feed-forward between the two attentions is left out, as in the paper. Not stated there and chosen here: LayerNorm before
each part, QK-norm with RMSNorm, four times the width in the feed-forward, and positions as learned biases of the
distance between two frames, so that a stream can run on beyond the length it was trained on, and of the way from one
place to another, so that what is learned about neighbours holds everywhere.

Shapes: B batch, T frames, N tokens of a frame, D width, h heads, d = D / h, L blocks, P past frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Past:
    """Keys and values of the frames that a stream has seen: the cache over time.

    The newest frame is in the last slot; each row may have seen another number of frames.

    Attributes:
        keys: ``[B, L, N, h, P, d]``.
        values: ``[B, L, N, h, P, d]``.
        valid: Slots that hold a frame, bool ``[B, P]``.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor

    def append(self, keys: Tensor, values: Tensor) -> Past:
        """With newer frames ``[B, L, N, h, T, d]`` in place of the oldest ones."""
        count, slots = keys.shape[-2], self.valid.shape[1]
        seen = torch.ones(len(self.valid), count, dtype=torch.bool, device=self.valid.device)
        return Past(
            torch.cat([self.keys, keys], -2)[..., count:, :],
            torch.cat([self.values, values], -2)[..., count:, :],
            torch.cat([self.valid, seen], 1)[:, -slots:] if slots else self.valid,
        )

    def rows(self, index: Tensor) -> Past:
        """The past of the rows ``index [R]``, which may repeat."""
        return Past(self.keys[index], self.values[index], self.valid[index])

    def put(self, index: Tensor, other: Past) -> Past:
        """With the rows ``index [R]`` replaced by those of ``other``."""
        return Past(
            self.keys.index_copy(0, index, other.keys),
            self.values.index_copy(0, index, other.values),
            self.valid.index_copy(0, index, other.valid),
        )


class SpaceTimeTransformer(nn.Module):
    """L blocks over ``[B, T, N, D]``; what frame t becomes depends on frames ≤ t only.

    Args:
        width: D.
        blocks: L.
        heads: h.
        context: Frames that a frame sees of itself and the past; more are forgotten.
        grid: Rows and columns of a frame's tokens.
        extra: Tokens before them that have no place.
        film: Whether a condition scales and shifts the normalised input of every part (FiLM).

    Raises:
        ValueError: Numbers that do not fit each other.
    """

    ways: Tensor

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        context: int,
        grid: tuple[int, int],
        extra: int = 0,
        film: bool = False,
    ) -> None:
        super().__init__()
        if width % heads or min(width, blocks, heads, context) < 1:
            raise ValueError(
                f"width {width}, blocks {blocks}, heads {heads}, context {context}: expected at least 1 of each, "
                "and a width that the heads divide"
            )
        self.width, self.heads, self.context = width, heads, context
        self.register_buffer("ways", number_ways(grid, extra), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, context, grid, film) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, seen: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """All frames at once.

        Args:
            x: ``[B, T, N, D]``.
            seen: What frame t sees of frame s, bool ``[B, T, T]``; None: itself and the past.
            condition: FiLM's condition ``[B, T, D]``.
        """
        time = torch.arange(x.shape[1], device=x.device)
        if seen is None:
            return self.attend(x, time, None, condition)
        return self.attend(x, time, seen, condition)

    def attend(self, x: Tensor, time: Tensor, seen: Tensor | None, condition: Tensor | None = None) -> Tensor:
        """Frames at the times ``[T]``, which need not be in order; ``seen`` as in `forward`, over the same frames
        (``[T, T]`` where it is the same for the whole batch)."""
        distance = time[:, None] - time[None]
        near = (distance >= 0) & (distance < self.context)
        allowed = near[None] if seen is None else near & (seen if seen.dim() == 3 else seen[None])
        for block in self.blocks:
            assert isinstance(block, Block)
            x, _, _ = block(x, *block.biases(self.ways, distance, allowed), condition)
        normed: Tensor = self.norm(x)
        return normed

    def begin(self, batch: int, device: torch.device) -> Past:
        """The past of streams that have seen nothing."""
        shape = (batch, len(self.blocks), len(self.ways), self.heads, self.context - 1, self.width // self.heads)
        empty = torch.zeros(shape, device=device)
        return Past(empty, empty, torch.zeros(batch, self.context - 1, dtype=torch.bool, device=device))

    def stream(self, x: Tensor, past: Past, condition: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The next frame of streams.

        Args:
            x: ``[B, 1, N, D]``.
            past: What they have seen.
            condition: FiLM's condition ``[B, 1, D]``.

        Returns:
            The frame ``[B, 1, N, D]``, and its keys and values ``[B, L, N, h, 1, d]`` for `Past.append`.
        """
        slots = past.valid.shape[1]
        distance = torch.arange(slots, -1, -1, device=x.device)[None]  # T = 1, P + 1
        allowed = torch.cat([past.valid, past.valid.new_ones(len(past.valid), 1)], 1)[:, None]  # B, 1, P + 1
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            slot = past.keys[:, index], past.values[:, index]
            x, key, value = block(x, *block.biases(self.ways, distance, allowed), condition, slot)
            keys.append(key)
            values.append(value)
        return self.norm(x), torch.stack(keys, 1), torch.stack(values, 1)


class Block(nn.Module):
    """Attention over space, causal attention over time, feed-forward."""

    def __init__(self, width: int, heads: int, context: int, grid: tuple[int, int], film: bool) -> None:
        super().__init__()
        self.heads = heads
        self.space, self.time = Projections(width, heads), Projections(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.film = nn.Linear(width, 6 * width) if film else None
        if self.film is not None:
            nn.init.normal_(self.film.weight, std=0.02)  # small and not zero, so that the condition is heard at once
            nn.init.zeros_(self.film.bias)
        slopes = 2.0 ** -torch.arange(heads)  # heads begin with different horizons, as in ALiBi
        self.distance = nn.Parameter(-slopes[:, None] / 2 * torch.arange(context))
        self.way = nn.Parameter(-slopes[:, None] * lengths(grid))

    def biases(self, ways: Tensor, distance: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the logits of attention over space ``[h, N, N]`` and over time ``[B or 1, h, T, K]``.

        Apart from `forward`, for a compiled block would look up the table of ways for each frame anew.

        Args:
            ways: Number of the way between two tokens ``[N, N]``.
            distance: Frames between query and key ``[T, K]``, K = P + T.
            allowed: Which keys a query sees, bool ``[B or 1, T, K]``.
        """
        near = self.distance[:, distance.clamp(0, self.distance.shape[1] - 1)]  # h, T, K
        return self.way[:, ways], near.masked_fill(~allowed[:, None], -torch.inf)

    def forward(
        self,
        x: Tensor,
        space: Tensor,
        time: Tensor,
        condition: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block.

        Args:
            x: ``[B, T, N, D]``.
            space: Bias of attention over space ``[h, N, N]``.
            time: Bias of attention over time ``[B or 1, h, T, K]``, K = P + T; −∞ where nothing is seen.
            condition: ``[B, T, D]``, or None.
            past: Keys and values of past frames ``[B, N, h, P, d]``.

        Returns:
            ``[B, T, N, D]``, and the frames' own keys and values ``[B, N, h, T, d]``.
        """
        change = [None] * 6 if self.film is None or condition is None else self.film(condition).chunk(6, -1)
        q, k, v = self.space(_modulate(self.norms[0](x), change[0], change[1]))  # B,T,h,N,d
        x = x + self.space.join(attention(q, k, v, space))
        q, k, v = self.time(_modulate(self.norms[1](x), change[2], change[3]).transpose(1, 2))  # B,N,h,T,d
        keys, values = k, v
        if past is not None:
            keys, values = torch.cat([past[0].to(k.dtype), k], -2), torch.cat([past[1].to(v.dtype), v], -2)
        if len(time) > 1:  # the places of a clip follow each other
            time = time.repeat_interleave(q.shape[1], 0)
        heard = attention(q.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), time)
        x = x + self.time.join(heard.reshape(q.shape)).transpose(1, 2)
        x = x + self.feed(_modulate(self.norms[2](x), change[4], change[5]))
        return x, k, v


class Projections(nn.Module):
    """Queries, keys and values of h heads with QK-norm, and the way back."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.query_norm, self.key_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[..., M, D]`` to queries, keys and values ``[..., h, M, d]``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(-4, -2).unbind(-3)
        # ..., M, 3, h, d → ..., h, 3, M, d → three times ..., h, M, d
        return self.query_norm(q.float()).to(v.dtype), self.key_norm(k.float()).to(v.dtype), v

    def join(self, heard: Tensor) -> Tensor:
        """``[..., h, M, d]`` to ``[..., M, D]``."""
        joined: Tensor = self.out(heard.transpose(-3, -2).flatten(-2))
        return joined


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """``softmax(q kᵀ / √d + bias) v`` of queries ``[..., M, d]`` and keys and values ``[..., K, d]``.

    Spelled out where the bias learns on an accelerator: of kernels with such a bias `scaled_dot_product_attention` has
    slow ones only, and compiled it multiplies in float32.
    """
    if q.device.type == "cpu" or not bias.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype))
    return spelled_out(q, k, v, bias)


def spelled_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`attention` in the precision of its inputs, whatever autocast would do."""
    with torch.autocast(q.device.type, enabled=False):
        logits: Tensor = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias.to(q.dtype)
        return logits.softmax(-1) @ v


def number_ways(grid: tuple[int, int], extra: int) -> Tensor:
    """Which entry of a table of ways leads from token to token ``[N, N]``; the last one from and to extra tokens."""
    rows, columns = grid
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down, right = row[None] - row[:, None] + rows - 1, column[None] - column[:, None] + columns - 1
    return F.pad(down * (2 * columns - 1) + right, (extra, 0, extra, 0), value=(2 * rows - 1) * (2 * columns - 1))


def lengths(grid: tuple[int, int]) -> Tensor:
    """How far the ways of `number_ways` lead, in tokens; 0 for extra tokens."""
    rows, columns = grid
    down, right = torch.arange(1 - rows, rows), torch.arange(1 - columns, columns)
    return F.pad((down[:, None] ** 2 + right[None] ** 2).sqrt().flatten(), (0, 1))


def precision(device: torch.device) -> torch.autocast:
    """bfloat16 where there is an accelerator; float32 on the CPU, which gains nothing from it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """Within it the network's blocks are compiled: a minute at first, then about twice as fast on a GPU."""
    blocks = [block for block in network.modules() if isinstance(block, Block)]
    torch.compiler.reset()  # its limit on shapes counts anew for each network
    for block in blocks:
        block.compile(dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def _modulate(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Scale and shift ``[B, T, N, D]`` by ``[B, T, D]``."""
    return x if scale is None or shift is None else x * (1 + scale.unsqueeze(2)) + shift.unsqueeze(2)
