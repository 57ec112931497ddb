"""Perception: the encoder from observations to the latent state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from .networks import silent
from .recall import Recall, RecallConfig
from .types import Configuration, State

EncoderName = Literal["cnn", "pool", "impala", "mlp"]
VIEWS = ((0, 0), (0, 2), (2, 0), (0, -2), (-2, 0), (2, 2), (2, -2), (-2, 2), (-2, -2))
"""Pixels down and right by which views of a picture are shifted, in the order in which they are added."""


@dataclass(frozen=True)
class PerceptionConfig:
    """Settings of perception."""

    encoder: EncoderName = "cnn"
    """cnn: strided convolutions; pool: the first one strided, then max-pooling and residual blocks, which sees small
    things better at about twice the cost; impala: the same at full resolution, slower still; mlp: for vector
    observations."""
    latent: int = 128
    """Width D of the latent state."""
    latents: Literal["vector", "map", "screen"] = "vector"
    """vector: every number may say anything about the picture; map (pixels): numbers belong to places, D is a multiple
    of the places (64 for pictures of 64×64), and actor and critic look for things wherever they are; screen: the same,
    but where on the screen a thing is counts, and they read every place in its own right."""
    history: int = 1
    """Observations that are stacked into one percept, so that velocity can be seen."""
    width: int = 32
    """Channels of the widest convolution (twice that for pool and for a cnn of stride 4), a quarter of the hidden units
    (mlp)."""
    stride: Literal[2, 4] = 2
    """Of a cnn's first convolution; 4 costs a third of 2."""
    recall: RecallConfig = field(default_factory=RecallConfig)
    """What is recalled of the episode so far, beside what is seen."""


class Perception(nn.Module):
    """Enc(x): a stack of observations to a latent with zero mean and unit variance per dimension.

    The latent leaves through a BatchNorm without learned scale: the anti-collapse terms then start from the right
    scale, and distances between latents mean the same in every dimension (of a map: in every channel).

    A context c modulates it: it scales and shifts the trunk's features (FiLM, 1709.07871), which starts as no change,
    and goes on beside the latent as a token for all who read the state. It is the last numbers of a vector observation,
    or the last planes of a picture, behind its colours, each as bright everywhere as its number says: 0 to 255 for 0
    to 1.

    Attributes:
        grid: Height and width of the map that a latent is, channels first; None where it is a vector.
        recall: The memory by content that is read beside it; None without one.
        width: Of a state: D, the context and what is recalled.

    Args:
        config: Settings.
        shape: Shape of one observation: ``(H, W, C)`` uint8 pixels or ``(F,)`` floats.
        context: Numbers at the end of a vector observation, or planes at that of a picture, that are the context; 0:
            there is none.

    Raises:
        ValueError: The encoder does not fit the observation's shape, or recall or a context is wanted beside a map.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: PerceptionConfig, shape: tuple[int, ...], context: int = 0) -> None:
        super().__init__()
        if config.stride not in {2, 4}:
            raise ValueError(f"a cnn's first stride is 2 or 4, got {config.stride}")
        self.config = config
        self.shape = shape
        pixels = len(shape) == 3
        if pixels == (config.encoder == "mlp") or len(shape) not in {1, 3}:
            fit = (
                "cnn, pool or impala"
                if pixels
                else "mlp"
                if len(shape) == 1
                else "none (flatten the observation first)"
            )
            raise ValueError(f"encoder {config.encoder!r} got observations of shape {shape}; encoders that fit: {fit}")
        self.pixels, self.context = pixels, context
        if context and not 0 < context < shape[-1]:
            raise ValueError(
                f"a context of {context} numbers in observations of shape {shape}; expected longer vectors or "
                "pictures of more planes"
            )
        if context and config.latents != "vector":
            raise ValueError("a context has no place on a map; set perception.latents to vector")
        self.trunk, features = _trunk(config, (*shape[:-1], shape[-1] - context))
        self.modulation = silent(context, 2 * features[0]) if context else None
        self.grid = self._grid(features) if config.latents != "vector" else None
        self.project: nn.Linear | nn.Conv2d
        self.normalise: nn.BatchNorm1d | nn.BatchNorm2d
        if self.grid is None:
            self.project = nn.Linear(math.prod(features), config.latent)
            self.normalise = nn.BatchNorm1d(config.latent, affine=False, momentum=0.05)
        else:
            self.project = nn.Conv2d(features[0], config.latent // math.prod(self.grid), 1)
            self.normalise = nn.BatchNorm2d(self.project.out_channels, affine=False, momentum=0.05)
        if config.recall.slots and self.grid is not None:
            raise ValueError("what is recalled has no place on a map; set perception.latents to vector")
        self.recall = Recall(config.recall, config.latent) if config.recall.slots else None
        self.width = config.latent + context + (config.recall.values if config.recall.slots else 0)
        self.register_buffer("mean", torch.zeros(shape if not pixels else 1))
        self.register_buffer("scale", torch.ones(shape if not pixels else 1))

    def _grid(self, features: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the map that the latent is, from the trunk's features ``(C, h, w)``."""
        if len(features) != 3:
            raise ValueError(f"latents {self.config.latents} needs pixels; vector observations have no places")
        places = features[1] * features[2]
        if self.config.latent % places:
            raise ValueError(
                f"perception.latent is {self.config.latent}; a map of {features[1]}×{features[2]} places needs a "
                f"multiple of {places}"
            )
        return features[1], features[2]

    @property
    def searched(self) -> tuple[int, int] | None:
        """The grid, where actor and critic look for things wherever they are; None where they read latents whole."""
        return self.grid if self.config.latents == "map" else None

    def fit_inputs(self, observations: Tensor) -> None:
        """Set the input normalisation of vector observations ``[N, F]`` from data, once; pixels need none."""
        if not self.pixels and not self.mean.any() and (self.scale == 1).all():
            self.mean.copy_(observations.float().mean(0))
            self.scale.copy_(observations.float().std(0).clamp(min=1e-3))

    def forward(self, observation: Tensor) -> Tensor:
        """Latents ``[..., D]`` of percepts ``[..., history, *shape]``, with a context C behind ``[..., D+C]``.

        Raises:
            ValueError: The percept's trailing dimensions are not (history, *shape).
        """
        expected = (self.config.history, *self.shape)
        given = tuple(observation.shape[-len(expected) :])
        if given != expected:
            raise ValueError(f"percept has trailing shape {given}, expected (history, *observation) = {expected}")
        lead = observation.shape[: -len(expected)]
        flat = observation.reshape(-1, *expected)
        width = self.shape[-1] - self.context
        if self.pixels:
            inputs = _stacked(flat[..., :width]).mul_(1 / 255).sub_(0.5)
        else:
            normal = (flat.float() - self.mean) / self.scale
            inputs = normal[..., :width].flatten(1)
        features = self.trunk(inputs)
        if self.modulation is not None:
            context = self.told(flat[:, -1])
            modulation: Tensor = self.modulation(context)
            scale, shift = modulation.reshape(*modulation.shape, *[1] * (features.dim() - 2)).chunk(2, dim=1)
            features = features * (1 + scale) + shift
        latent: Tensor = self.normalise(self.project(features.flatten(1) if self.grid is None else features)).flatten(1)
        if self.modulation is not None:
            latent = torch.cat([latent, context], dim=-1)
        return latent.reshape(*lead, latent.shape[-1])

    def told(self, observation: Tensor) -> Tensor:
        """The context ``[N, C]`` of single observations ``[N, *shape]``."""
        if self.pixels:
            return observation[:, 0, 0, -self.context :] / 255
        return observation[:, -self.context :].float()

    def encode(self, observation: Tensor, configuration: Configuration | None = None) -> State:
        """The state that a percept shows (paper p. 7), as the configuration modulates it.

        Its context replaces the one that the world told, and so many views of a picture as it says are averaged. What
        it says was recalled stands beside what is seen; where there is recall and nothing was recalled, zeros do.
        """
        if self.context and configuration is not None and configuration.context is not None:
            observation = observation.clone()
            told = configuration.context
            observation[..., -self.context :] = (255 * told).round() if self.pixels else told
        latent = self._seen(observation, 1 if configuration is None else configuration.views)
        if self.recall is None:
            return State(latent)
        recalled = None if configuration is None else configuration.recalled
        if recalled is None:
            recalled = latent.new_zeros(*latent.shape[:-1], self.width - latent.shape[-1])
        return State(torch.cat([latent, recalled], dim=-1))

    def _seen(self, observation: Tensor, views: int) -> Tensor:
        """Latents of percepts, or the mean over so many shifted views of pictures, whose edges are repeated.

        Raises:
            ValueError: Several views of what is no picture, or more than there are.
        """
        if views == 1:
            return self(observation)  # type: ignore[no-any-return]
        if not self.pixels or not 1 <= views <= len(VIEWS):
            raise ValueError(f"views is {views}; pictures have 1 to {len(VIEWS)}, vector observations 1")
        return torch.stack([self(_shifted(observation, down, right)) for down, right in VIEWS[:views]]).mean(0)


def _shifted(pictures: Tensor, down: int, right: int) -> Tensor:
    """Pictures ``[..., H, W, C]`` seen so many pixels further down and right, with their edges repeated."""
    for dim, by in ((-3, down), (-2, right)):
        size = pictures.shape[dim]
        places = (torch.arange(size, device=pictures.device) + by).clamp(0, size - 1)
        pictures = pictures.index_select(dim, places)
    return pictures


def _stacked(percept: Tensor) -> Tensor:
    """Pictures ``[N, history, H, W, C]`` as floats ``[N, history·C, H, W]``, channels last in memory."""
    count, history, height, width, channels = percept.shape
    stacked = torch.empty(count, height, width, history * channels, device=percept.device)
    for picture, among in zip(percept.unbind(1), stacked.split(channels, dim=-1), strict=True):  # type: ignore[no-untyped-call]
        among.copy_(picture)  # converted and put in place in one pass
    return stacked.permute(0, 3, 1, 2)


def _trunk(config: PerceptionConfig, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """The network below the projection, and the shape of the features it gives: ``(C, h, w)`` or ``(H,)``."""
    if config.encoder == "mlp":
        hidden = 4 * config.width
        inputs = config.history * shape[0]
        layers = [nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
        return nn.Sequential(*layers), (hidden,)
    channels = config.history * shape[2]
    match config.encoder:
        case "cnn":
            trunk = _cnn(channels, config.width, config.stride)
        case "pool":
            trunk = _pool(channels, config.width)
        case "impala":
            trunk = _impala(channels, config.width)
    trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        features = trunk(torch.zeros(1, channels, shape[0], shape[1])).shape[1:]
    return trunk, tuple(features)


def _cnn(channels: int, width: int, stride: int) -> nn.Module:
    """Strided convolutions, 64² → 8²: three of stride 2, or for a third of the cost one of stride 4 and one of 2."""
    half = width // 2
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 8, 4, 2), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2, 1)]
    if stride == 2:
        layers = [nn.Conv2d(channels, half, 5, 2, 2), nn.ReLU(), nn.Conv2d(half, width, 3, 2, 1), nn.ReLU()]
        layers.append(nn.Conv2d(width, width, 3, 2, 1))
    return nn.Sequential(*layers, nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def _pool(channels: int, width: int) -> nn.Module:
    """IMPALA's blocks behind one strided convolution, 64² → 8²: a quarter of the cost of `_impala` at equal width."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 2, 2),
        nn.MaxPool2d(3, 2, 1),
        _Residual(width),
        nn.Conv2d(width, 2 * width, 3, 1, 1),
        nn.MaxPool2d(3, 2, 1),
        _Residual(2 * width),
        nn.ReLU(),
    )


def _impala(channels: int, width: int) -> nn.Module:
    """The IMPALA network (1802.01561) with stages of width/2, width and width channels, 64² → 8²."""
    layers: list[nn.Module] = []
    for depth in (width // 2, width, width):
        layers += [nn.Conv2d(channels, depth, 3, 1, 1), nn.MaxPool2d(3, 2, 1), _Residual(depth), _Residual(depth)]
        channels = depth
    return nn.Sequential(*layers, nn.ReLU())
