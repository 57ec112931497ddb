"""Predictors of the world model: the next latent from the past ones and the action, one step at a time.

A predictor has two methods and no loop: ``begin(latent)`` makes the carry of a roll-out, ``predictor(carry, encoded)``
takes one step. The carry is everything that a roll-out must remember, so roll-outs can branch anywhere: a tuple of
tensors whose leading dimensions are those of the latents and whose shapes do not change from step to step. Its first
tensor holds the present latents. ``begin`` has no parameters.

Shapes: ``...`` is any leading dimensions (candidates, environments), D latent width, A width of an encoded action, H
hidden units, E ensemble members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import silent

_CHANNELS = 32
"""Of a screen."""

Carry = tuple[Tensor, ...]
"""What a roll-out remembers: tensors ``[..., *]``, the present latents ``[..., D]`` first."""


class MLPPredictor(nn.Module):
    """s' = s + Δ(s, a): two normalised hidden layers; it remembers nothing but the latent."""

    def __init__(self, latent: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(latent + actions, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
        )
        self.delta = _small_change(hidden, latent)

    def begin(self, latent: Tensor) -> Carry:
        """The carry of roll-outs from latents ``[..., D]``."""
        return (latent,)

    def forward(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry and features ``[..., H]`` after encoded actions ``[..., A]``."""
        latent = carry[0]
        features: Tensor = self.trunk(torch.cat([latent, encoded], dim=-1))
        return (latent + self.delta(features),), features


class ConvPredictor(nn.Module):
    """s' = s + Δ(s, a) for latents that are a map: a place depends on what is near it, everywhere alike.

    Three 3×3 convolutions; the action scales and shifts what the first one finds (FiLM,
    1709.07871). Features for the heads are the mean over the map. Of a collision every place where one happens is an
    example, so layouts that were never seen need none of their own.

    Args:
        grid: Height and width h, w of the map; a latent is ``[C·h·w]``, channels first.
        actions: Width of an encoded action.
        hidden: Channels H.
        latent: D = C·h·w.

    Raises:
        ValueError: The latent is no whole number of channels.
    """

    def __init__(self, latent: int, actions: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        channels, rest = divmod(latent, grid[0] * grid[1])
        if rest:
            raise ValueError(f"a latent of {latent} is no map of {grid[0]}×{grid[1]} places; give it a multiple")
        self.shape = (channels, *grid)
        self.look = nn.Conv2d(channels, hidden, 3, padding=1)
        self.modulation = nn.Linear(actions, 2 * hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.delta = nn.Conv2d(hidden, channels, 3, padding=1)
        with torch.no_grad():
            self.delta.weight.mul_(0.1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster to train

    def begin(self, latent: Tensor) -> Carry:
        """The carry of roll-outs from latents ``[..., D]``."""
        return (latent,)

    def forward(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry and features ``[..., H]`` after encoded actions ``[..., A]``."""
        latent = carry[0]
        lead = latent.shape[:-1]
        modulation = self.modulation(encoded.expand(*lead, encoded.shape[-1]))
        scale, shift = modulation.reshape(-1, modulation.shape[-1], 1, 1).chunk(2, dim=1)
        seen = self.look(latent.reshape(-1, *self.shape))
        features = F.silu(self.mix(F.silu(seen * (1 + scale) + shift)))
        change = self.delta(features).reshape(latent.shape)
        read = self.read(features)
        return (latent + change,), read.reshape(*lead, read.shape[-1])

    def read(self, found: Tensor) -> Tensor:
        """What the heads are told ``[N, H]`` of what was found on the map ``[N, H, h, w]``."""
        return found.mean((-2, -1))


class ScreenPredictor(ConvPredictor):
    """s' = s + Δ(s, a) for latents that are a map of a screen: what happens depends on what is near, and what it means
    on where.

    Places change as those of `ConvPredictor` do, in 32 channels, by what is up to two places away. But a screen is not
    alike everywhere: what touches the player counts, and the player has its place. So the heads read every place in its
    own right.

    Args:
        latent: D = C·h·w.
        actions: Width of an encoded action.
        hidden: Features H for the heads.
        grid: Height and width h, w of the map.

    Raises:
        ValueError: The latent is no whole number of channels.
    """

    def __init__(self, latent: int, actions: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__(latent, actions, _CHANNELS, grid)
        self.mix = nn.Conv2d(_CHANNELS, _CHANNELS, 1)  # a third place would cost nearly as much work again
        self.thin = nn.Conv2d(_CHANNELS, _CHANNELS // 2, 1)
        places = _CHANNELS // 2 * grid[0] * grid[1]
        self.summary = nn.Sequential(nn.Linear(places, hidden), nn.LayerNorm(hidden), nn.SiLU())

    def read(self, found: Tensor) -> Tensor:
        """What the heads are told ``[N, H]`` of what was found on the map ``[N, 32, h, w]``."""
        return self.summary(F.silu(self.thin(found)).flatten(1))  # type: ignore[no-any-return]


class MapInverse(nn.Module):
    """Inverse dynamics of latents that are a map: what moved, looked for in every place alike.

    It is read where there is most change, so that what stands still says nothing.

    Args:
        latent: D = C·h·w.
        hidden: Channels.
        output: Width of what is said of the action.
        grid: Height and width of the map.
    """

    def __init__(self, latent: int, hidden: int, output: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.shape = (2 * (latent // (grid[0] * grid[1])), *grid)
        self.look = nn.Conv2d(self.shape[0], hidden, 3, padding=1)
        self.weigh = nn.Conv2d(hidden, hidden, 1)
        self.say = nn.Linear(hidden, output)

    def forward(self, pairs: Tensor) -> Tensor:
        """What lies between two latents side by side ``[..., 2D]``: ``[..., output]``."""
        maps = pairs.reshape(-1, *self.shape)
        before, after = maps.chunk(2, dim=1)
        changed = (after - before).square().mean(1, keepdim=True)
        where = changed / changed.sum((-2, -1), keepdim=True).clamp(min=1e-6)
        found = F.silu(self.weigh(F.silu(self.look(maps))))
        said: Tensor = self.say((where * found).sum((-2, -1)))
        return said.reshape(*pairs.shape[:-1], said.shape[-1])


class GRUPredictor(nn.Module):
    """s' = s + Δ(h'), h' = GRU((s, a), h) with h = 0 at first (Cho et al. 2014, 1406.1078).

    The gates are normalised together and lean towards the new as in DreamerV2 (2010.02193), and so is what is read from
    h'. Without, a small world's prediction error after as many updates was several times the MLP's; with, it is equal.
    """

    def __init__(self, latent: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Sequential(nn.Linear(latent + actions + hidden, 3 * hidden), nn.LayerNorm(3 * hidden))
        self.read = nn.LayerNorm(hidden)
        self.delta = _small_change(hidden, latent)

    def begin(self, latent: Tensor) -> Carry:
        """The carry of roll-outs from latents ``[..., D]``: they, and the hidden state ``[..., H]``."""
        return latent, latent.new_zeros(*latent.shape[:-1], self.hidden)

    def forward(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry and features ``[..., H]`` after encoded actions ``[..., A]``."""
        latent, hidden = carry
        reset, update, new = self.gates(torch.cat([latent, encoded, hidden], dim=-1)).chunk(3, dim=-1)
        hidden = torch.lerp((reset.sigmoid() * new).tanh(), hidden, (update - 1).sigmoid())
        features: Tensor = self.read(hidden)
        return (latent + self.delta(features), hidden), features


class TransformerPredictor(nn.Module):
    """A causal transformer over the last ``context`` states of the roll-out; actions modulate it (AdaLN-zero).

    A state is a token, its action scales and shifts the token's normalised activations and gates what each layer adds
    (Peebles and Xie 2023, 2212.09748; as a world model 2512.24497). Keys and values of past tokens are kept in the
    carry, so a step costs one token. They say how old they are by a learned bias for each head and age, and the oldest
    is dropped when there are ``context``: a roll-out may be of any length.

    Raises:
        ValueError: The hidden units cannot be divided among the heads.
    """

    def __init__(self, latent: int, actions: int, hidden: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        if min(layers, heads, context) < 1 or hidden % heads:
            raise ValueError(
                f"a transformer of {layers} layers, {heads} heads, {context} steps of context and {hidden} hidden "
                "units; each must be at least 1, and hidden a multiple of heads"
            )
        self.memory = (2, heads, context, hidden // heads)
        self.embed = nn.Linear(latent, hidden)
        self.blocks = nn.ModuleList(_Block(actions, hidden, heads, context) for _ in range(layers))
        self.modulation = silent(actions, 2 * hidden)
        self.delta = _small_change(hidden, latent)

    def begin(self, latent: Tensor) -> Carry:
        """The carry of roll-outs from latents ``[..., D]``.

        They, the number of steps kept ``[...]``, and keys and values ``[..., 2, heads, context, H/heads]`` per layer.
        """
        lead = latent.shape[:-1]
        nothing = latent.new_zeros(()).expand(*lead, *self.memory)
        return latent, latent.new_zeros(lead), *[nothing] * len(self.blocks)

    def forward(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry and features ``[..., H]`` after encoded actions ``[..., A]``."""
        latent, count, *memories = carry
        context = self.memory[2]
        count = (count + 1).clamp(max=context)
        age = torch.arange(context - 1, -1, -1, device=latent.device)  # oldest first
        unseen = latent.new_zeros(()).where(age < count.unsqueeze(-1), -torch.inf)  # [..., context]
        token = self.embed(latent)
        kept = []
        for block, memory in zip(self.blocks, memories, strict=True):
            token, grown = block(token, encoded, memory, unseen)
            kept.append(grown)
        shift, scale = self.modulation(encoded).chunk(2, dim=-1)
        features = _modulate(token, shift, scale)
        return (latent + self.delta(features), count, *kept), features


class _Block(nn.Module):
    """One layer: attention to the tokens so far, then two dense layers, both modulated and gated by the action."""

    def __init__(self, actions: int, hidden: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = silent(actions, 6 * hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.ages = nn.Parameter(torch.zeros(heads, context))
        self.attended = nn.Linear(hidden, hidden)
        self.dense = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden))

    def forward(self, token: Tensor, encoded: Tensor, memory: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[..., H]`` and the memory with their keys and values in place of the oldest ones."""
        shift, scale, gate, dense_shift, dense_scale, dense_gate = self.modulation(encoded).chunk(6, dim=-1)
        qkv = self.qkv(_modulate(token, shift, scale)).unflatten(-1, (3, self.heads, 1, -1))
        memory = torch.cat([memory[..., 1:, :], qkv[..., 1:, :, :, :]], dim=-2)
        query, keys, values = qkv[..., 0, :, :, :], memory.select(-4, 0), memory.select(-4, 1)
        # With one query a step this is as fast as the fused kernels, which have no rule for vmap and none for a bias
        # that learns.
        scores = (keys @ query.transpose(-1, -2)).squeeze(-1) * keys.shape[-1] ** -0.5 + self.ages
        weights = (scores + unseen.unsqueeze(-2)).softmax(-1)  # [..., heads, context]
        token = token + gate * self.attended((weights.unsqueeze(-2) @ values).flatten(-3))
        return token + dense_gate * self.dense(_modulate(token, dense_shift, dense_scale)), memory


Member = MLPPredictor | ConvPredictor | ScreenPredictor | GRUPredictor | TransformerPredictor
"""A predictor that is no ensemble."""


class Ensemble(nn.Module):
    """Members of one kind with different initial weights, computed together; no loop over members.

    The parameters of all members are stacked ``[E, ...]`` in the first one, which `torch.vmap` maps over them. Every
    tensor of the carry is ``[..., E, *]``: each member follows its own trajectory (TS∞ of PETS, 1805.12114), trained on
    the same windows (Lakshminarayanan et al. 2017, 1612.01474).
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.member = members[0]
        stacked, _ = torch.func.stack_module_state(list(members))
        for name, parameter in stacked.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.member.get_submodule(owner), leaf, nn.Parameter(parameter))

    def begin(self, latent: Tensor) -> Carry:
        """The carry of roll-outs from latents ``[..., E, D]``."""
        return self.member.begin(latent)

    def forward(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry and features ``[..., E, H]`` after encoded actions ``[..., 1, A]``."""
        where = carry[0].dim() - 2

        def one(parameters: dict[str, Tensor], carry: Carry) -> tuple[Carry, Tensor]:
            taken: tuple[Carry, Tensor] = torch.func.functional_call(
                self.member, parameters, (carry, encoded[..., 0, :])
            )
            return taken

        together = torch.vmap(one, in_dims=(0, where), out_dims=where)
        taken: tuple[Carry, Tensor] = together(dict(self.member.named_parameters()), carry)
        return taken


Predictor = Member | Ensemble


def _small_change(hidden: int, latent: int) -> nn.Linear:
    """The layer that gives Δ, small at first, so that "nothing happens" is where learning starts from."""
    layer = nn.Linear(hidden, latent)
    with torch.no_grad():
        layer.weight.mul_(0.1)
    return layer


def _modulate(token: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(token, token.shape[-1:]) * (1 + scale) + shift
