"""Actions as the networks see them: one-hot for Discrete and MultiDiscrete, scaled to [−1, 1] for Box."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

ActionSpace = spaces.Box | spaces.Discrete | spaces.MultiDiscrete


class ActionEncoder(nn.Module):
    """Encodes actions of a single environment's action space as float vectors ``[..., A]``; it has no parameters.

    Raises:
        ValueError: The space is not Discrete, MultiDiscrete or a bounded one-dimensional Box.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: ActionSpace) -> None:
        super().__init__()
        self.space = space
        low, high = torch.zeros(1), torch.ones(1)
        if isinstance(space, spaces.Discrete):
            self.sizes: tuple[int, ...] = (int(space.n),)
        elif isinstance(space, spaces.MultiDiscrete):
            self.sizes = tuple(int(n) for n in space.nvec)
        elif isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
            self.sizes = ()
            low, high = torch.tensor(space.low, dtype=torch.float32), torch.tensor(space.high, dtype=torch.float32)
            if (low >= high).any():
                raise ValueError(f"action space {space} leaves no choice in some dimension; remove that dimension")
        else:
            raise ValueError(f"action space {space} is not supported; use Discrete, MultiDiscrete or a bounded 1-D Box")
        self.width = sum(self.sizes) or int(low.numel())
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    @property
    def discrete(self) -> bool:
        """True for Discrete and MultiDiscrete."""
        return bool(self.sizes)

    @property
    def scalar(self) -> bool:
        """True for Discrete, whose actions have no trailing dimension."""
        return isinstance(self.space, spaces.Discrete)

    def forward(self, action: Tensor) -> Tensor:
        """Encode actions: ``[...]`` (Discrete), ``[..., components]`` (MultiDiscrete) or ``[..., A]`` (Box)."""
        if not self.sizes:
            return (action.to(self.low.dtype) - self.low) * (2 / (self.high - self.low)) - 1
        if self.scalar:
            return F.one_hot(action.long(), self.sizes[0]).float()
        parts = [F.one_hot(component.long(), n) for component, n in zip(action.unbind(-1), self.sizes, strict=True)]
        return torch.cat(parts, dim=-1).float()

    def decode(self, scaled: Tensor) -> Tensor:
        """Turn scaled Box actions in [−1, 1] ``[..., A]`` back into the environment's units."""
        return ((scaled + 1) * ((self.high - self.low) / 2) + self.low).clamp(self.low, self.high)

    def idle(self, noop: int | None) -> Tensor:
        """The encoded action ``[A]`` that does nothing: 0 in a Box, or what is nearest; else number ``noop``.

        Raises:
            ValueError: Discrete actions without a number, or with one that is no action.
        """
        if not self.sizes:
            rest: Tensor = self(torch.zeros_like(self.low).clamp(self.low, self.high))
            return rest
        if noop is None or not 0 <= noop < min(self.sizes):
            raise ValueError(
                f"world_model.noop is {noop}, expected which of the actions 0 to {min(self.sizes) - 1} does nothing: "
                "agency is the difference from it (task.agency 0 needs none)"
            )
        return torch.cat([F.one_hot(torch.tensor(noop), n) for n in self.sizes]).to(self.low)

    def effort(self, encoded: Tensor) -> Tensor:
        """‖a‖² ``[...]`` of encoded Box actions ``[..., A]``; choosing among discrete actions takes no effort."""
        return encoded.square().sum(-1) if not self.sizes else torch.zeros_like(encoded[..., 0])
