"""A Genie world: tokenizer, latent action model and dynamics, and the dreams that they make together.

A dream is a stream of tokens. Each step passes through the dynamics with its past kept, and is drawn by the decoder
with its own past kept; pixels that were drawn are never tokenised again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .dynamics import Dynamics, DynamicsConfig
from .latent_action import LatentActionConfig, LatentActionModel
from .outcomes import Outcomes, OutcomesConfig
from .sampler import Sampling, fill_in
from .tokenizer import TokenizerConfig, VideoTokenizer
from .transformer import Past


@dataclass(frozen=True)
class GenieConfig:
    """Settings of a Genie world."""

    height: int = 32
    """Height of a frame in pixels."""
    width: int = 32
    """Width of a frame in pixels."""
    context: int = 8
    """Frames that the networks see, the newest included."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    outcomes: OutcomesConfig = field(default_factory=OutcomesConfig)


@dataclass(frozen=True)
class Dream:
    """What B dreams must remember.

    Attributes:
        past: Of the dynamics.
        drawn: Of the decoder.
        tokens: The newest frame ``[B, N]``.
        patches: What the dynamics makes of each of its tokens ``[B, N, D]``, for the outcome heads.
    """

    past: Past
    drawn: Past
    tokens: Tensor
    patches: Tensor

    @property
    def features(self) -> Tensor:
        """What the dynamics makes of the frame as a whole ``[B, D]``."""
        return self.patches.mean(1)

    def rows(self, index: Tensor) -> Dream:
        """The dreams ``index [R]``, which may repeat."""
        return Dream(self.past.rows(index), self.drawn.rows(index), self.tokens[index], self.patches[index])

    def put(self, index: Tensor, other: Dream) -> Dream:
        """With the dreams ``index [R]`` replaced by others."""
        return Dream(
            self.past.put(index, other.past),
            self.drawn.put(index, other.drawn),
            self.tokens.index_copy(0, index, other.tokens),
            self.patches.index_copy(0, index, other.patches),
        )


class Genie(nn.Module):
    """A world learned from video.

    Args:
        config: Settings.

    Raises:
        ValueError: Settings that do not fit each other.
    """

    def __init__(self, config: GenieConfig) -> None:
        super().__init__()
        if config.context < 2:
            raise ValueError(f"context is {config.context}; a step needs at least 2 frames")
        self.config = config
        height, width, context = config.height, config.width, config.context
        self.tokenizer = VideoTokenizer(config.tokenizer, height, width, context)
        self.latent_action = LatentActionModel(config.latent_action, height, width, context)
        self.dynamics = Dynamics(
            config.dynamics, self.tokenizer.vocabulary, config.latent_action.actions, self.tokenizer.grid, context
        )
        self.outcomes = Outcomes(
            config.outcomes, config.dynamics.width, config.latent_action.actions, self.tokenizer.grid
        )

    @property
    def actions(self) -> int:
        """Latent actions |A|."""
        return self.config.latent_action.actions

    @property
    def sampling(self) -> Sampling:
        """How frames are sampled unless something else is asked for."""
        settings = self.config.dynamics
        return Sampling(settings.steps, settings.temperature, settings.order)

    def sampling_with(self, steps: int, temperature: float) -> Sampling:
        """How they are sampled in ``steps`` passes (0: in its own number) at a temperature (below 0: at its own)."""
        own = self.sampling
        return Sampling(steps or own.steps, own.temperature if temperature < 0 else temperature, own.order)

    def infer(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[B, F, N]`` and latent actions ``[B, F-1]`` of clips ``[B, F, H, W, 3]`` in [0, 1]."""
        if frames.shape[1] == 1:
            return self.tokenizer.encode(frames), torch.zeros(len(frames), 0, dtype=torch.long, device=frames.device)
        return self.tokenizer.encode(frames), self.latent_action.encode(frames)

    @torch.no_grad()
    def begin(self, tokens: Tensor, actions: Tensor) -> tuple[Tensor, Dream]:
        """Dreams that go on from prompts.

        Args:
            tokens: ``[B, F, N]``, from `infer`.
            actions: ``[B, F-1]``.

        Returns:
            The last frame as drawn ``[B, H, W, 3]`` and the dreams.
        """
        past = self.dynamics.begin(len(tokens), tokens.device)
        drawn = self.tokenizer.begin(len(tokens), tokens.device)
        arrivals = self.dynamics.arrivals(actions)
        for frame, arrival in zip(tokens.unbind(1), arrivals.unbind(1), strict=True):
            hidden, past = self.dynamics.finish(frame, arrival, past)
            picture, drawn = self.tokenizer.decode_next(frame, drawn)
        return picture, Dream(past, drawn, tokens[:, -1], hidden)

    @torch.no_grad()
    def step(
        self, dream: Dream, action: Tensor, noise: Tensor, sampling: Sampling, draw: bool = True
    ) -> tuple[Tensor, Dream]:
        """Dream on by one frame.

        Args:
            dream: B dreams.
            action: Latent actions ``[B]``.
            noise: From `draw_noise`, ``[B, steps + 1, N]``.
            sampling: How.
            draw: Whether the frame is drawn; where nobody looks, it need not be.

        Returns:
            The frame ``[B, H, W, 3]`` (nothing where it is not drawn) and the dreams.
        """
        tokens = fill_in(
            lambda given: self.dynamics.logits(given, action, dream.past), self.dynamics.mask, noise, sampling
        )
        hidden, past = self.dynamics.finish(tokens, action, dream.past)
        picture, drawn = self.tokenizer.decode_next(tokens, dream.drawn) if draw else (tokens.new_zeros(0), dream.drawn)
        return picture, Dream(past, drawn, tokens, hidden)

    @torch.no_grad()
    def rollout(self, tokens: Tensor, actions: Tensor, steps: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
        """Frames ``[B, T, H, W, 3]`` after prompts.

        Args:
            tokens: Of the prompts ``[B, F, N]``.
            actions: Within the prompts ``[B, F-1]``.
            steps: Latent actions to take ``[B, T]``.
            noise: For each step ``[T, B, sampling.steps + 1, N]``.
            sampling: How.
        """
        _, dream = self.begin(tokens, actions)
        frames = []
        for action, draws in zip(steps.unbind(1), noise, strict=True):
            frame, dream = self.step(dream, action, draws, sampling)
            frames.append(frame)
        return torch.stack(frames, 1)

    @torch.no_grad()
    def sample_uncached(self, tokens: Tensor, actions: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
        """The next frame's tokens ``[B, N]`` with everything computed anew in each step; the cache's yardstick.

        Args:
            tokens: ``[B, T, N]``.
            actions: ``[B, T]``, the last of which leads to the new frame.
            noise: ``[B, sampling.steps + 1, N]``.
            sampling: How.
        """

        def logits_of(given: Tensor) -> Tensor:
            clean = torch.cat([tokens, given[:, None].clamp(max=self.dynamics.vocabulary - 1)], 1)
            frames = torch.cat([tokens[:, 1:], given[:, None]], 1)
            return self.dynamics.predict(clean, frames, actions)[0][:, -1]

        return fill_in(logits_of, self.dynamics.mask, noise, sampling)
