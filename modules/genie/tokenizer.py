"""The video tokenizer: frames to a few integers and back (ST-ViViT with a quantiser; Genie, section 2.1).

Encoder and decoder are causal: the tokens of frame t depend on frames ≤ t, and frame t is drawn from tokens ≤ t. So a
stream can be drawn frame by frame, with the decoder's past kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .patches import Places, cut, join, patch_grid
from .quantisers import FiniteScalarQuantiser, VectorQuantiser
from .transformer import Past, SpaceTimeTransformer


@dataclass(frozen=True)
class TokenizerConfig:
    """Settings of the video tokenizer."""

    patch: int = 4
    """Side of a patch in pixels; each becomes one token."""
    width: int = 64
    """Width of encoder and decoder."""
    encoder_blocks: int = 2
    """ST blocks of the encoder."""
    decoder_blocks: int = 2
    """ST blocks of the decoder; more of them help more than in the encoder."""
    heads: int = 4
    """Attention heads."""
    quantiser: Literal["fsq", "vq"] = "fsq"
    """fsq: finite scalar quantisation; vq: a codebook that follows the data."""
    levels: tuple[int, ...] = (8, 8, 8)
    """fsq: levels of each number; their product is the vocabulary."""
    codes: int = 512
    """vq: size of the vocabulary."""
    code_dim: int = 16
    """vq: width of a code."""
    commitment: float = 0.25
    """vq: weight of the commitment loss."""
    changed: float = 4.0
    """Extra weight of pixels that change between two frames: in a picture that stands still, a small figure is what
    matters, and is learned last."""


class VideoTokenizer(nn.Module):
    """Frames ``[B, T, H, W, 3]`` in [0, 1] to tokens ``[B, T, N]`` and back.

    Args:
        config: Settings.
        height: H.
        width: W.
        context: Frames that encoder and decoder see.

    Raises:
        ValueError: Settings that do not fit each other or the frames.
    """

    def __init__(self, config: TokenizerConfig, height: int, width: int, context: int) -> None:
        super().__init__()
        if config.changed < 0:
            raise ValueError(f"tokenizer.changed is {config.changed}, expected a weight of at least 0")
        self.config, self.height, self.frame_width = config, height, width
        self.grid = patch_grid(height, width, config.patch, "tokenizer")
        self.tokens = self.grid[0] * self.grid[1]
        pixels, d = 3 * config.patch**2, config.width
        self.quantiser: FiniteScalarQuantiser | VectorQuantiser
        if config.quantiser == "fsq":
            self.quantiser = FiniteScalarQuantiser(config.levels)
        else:
            self.quantiser = VectorQuantiser(config.codes, config.code_dim)
        self.vocabulary = self.quantiser.size
        self.embed = nn.Sequential(nn.Linear(pixels, d), Places(self.tokens, d))
        self.encoder = SpaceTimeTransformer(d, config.encoder_blocks, config.heads, context, self.grid)
        self.to_code = nn.Linear(d, self.quantiser.dim)
        self.from_code = nn.Sequential(nn.Linear(self.quantiser.dim, d), Places(self.tokens, d))
        self.decoder = SpaceTimeTransformer(d, config.decoder_blocks, config.heads, context, self.grid)
        self.to_pixels = nn.Linear(d, pixels)

    def loss(self, frames: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared error, weighted (and commitment), of clips ``[B, T, H, W, 3]``.

        Args:
            frames: In [0, 1].
            generator: Lets a VQ codebook learn.

        Returns:
            The loss, the tokens ``[B, T, N]`` and the reconstruction.
        """
        quantised = self.quantiser(self._encode(frames), generator)
        drawn = self._draw(self.decoder(self.from_code(quantised.vectors)))
        square, weight = (drawn - frames).square(), self._weight(frames)
        error = (weight * square).sum() / weight.expand_as(square).sum()
        return error + self.config.commitment * quantised.commitment, quantised.codes, drawn

    def _weight(self, frames: Tensor) -> Tensor:
        """Of each pixel ``[B, T, H, W, 1]``: more where it is not as before (in the first frame: as after)."""
        differs = (frames[:, 1:] - frames[:, :-1]).abs().amax(-1, keepdim=True) > 0.05
        known = torch.cat([differs[:, :1], differs], 1) if frames.shape[1] > 1 else frames[..., :1] > 1
        return 1 + self.config.changed * known

    def encode(self, frames: Tensor) -> Tensor:
        """Tokens ``[B, T, N]`` of clips ``[B, T, H, W, 3]`` in [0, 1]."""
        codes: Tensor = self.quantiser(self._encode(frames)).codes
        return codes

    def decode(self, tokens: Tensor) -> Tensor:
        """Frames ``[B, T, H, W, 3]`` of tokens ``[B, T, N]``."""
        return self._draw(self.decoder(self._vectors(tokens)))

    def begin(self, batch: int, device: torch.device) -> Past:
        """The past of streams of which nothing was drawn."""
        return self.decoder.begin(batch, device)

    def decode_next(self, tokens: Tensor, past: Past) -> tuple[Tensor, Past]:
        """The next frame ``[B, H, W, 3]`` of streams, from its tokens ``[B, N]``; the same as in `decode`."""
        hidden, keys, values = self.decoder.stream(self._vectors(tokens[:, None]), past)
        return self._draw(hidden)[:, 0], past.append(keys, values)

    def _encode(self, frames: Tensor) -> Tensor:
        coded: Tensor = self.to_code(self.encoder(self.embed(cut(frames, self.config.patch) - 0.5)))
        return coded

    def _vectors(self, tokens: Tensor) -> Tensor:
        vectors: Tensor = self.from_code(self.quantiser.look_up(tokens))
        return vectors

    def _draw(self, hidden: Tensor) -> Tensor:
        return join(self.to_pixels(hidden) + 0.5, self.config.patch, self.height, self.frame_width)
