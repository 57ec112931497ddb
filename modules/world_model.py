"""The JEPA world model: predicts the next latent, the interoception and the chance to go on. No pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .actions import ActionEncoder
from .cost import goal_distance, interoception
from .networks import silent
from .predictors import (
    Carry,
    ConvPredictor,
    Ensemble,
    GRUPredictor,
    MapInverse,
    Member,
    MLPPredictor,
    Predictor,
    ScreenPredictor,
    TransformerPredictor,
)
from .two_hot import TwoHot
from .types import State, Trajectory

PredictorName = Literal["mlp", "conv", "screen", "gru", "transformer"]


@dataclass(frozen=True)
class WorldModelConfig:
    """Settings of the world model."""

    predictor: PredictorName = "mlp"
    """mlp: from the last state alone, fastest; conv: the same for latents that are a map (perception.latents map);
    screen: for a map whose places mean different things (perception.latents screen); gru and transformer: from the
    roll-out so far."""
    hidden: int = 256
    """Hidden units of the predictor; of screen, features for the heads; channels of conv, which wants fewer (32)."""
    members: int = 1
    """Predictors in an ensemble, which differ in their initial weights; each costs as much as one alone."""
    layers: int = 2
    """Transformer: layers."""
    heads: int = 4
    """Transformer: attention heads."""
    context: int = 8
    """Transformer: imagined steps it looks back on; more than the training roll-out's steps are never trained."""
    bins: int = 41
    """Bins of the reward's two-hot distribution."""
    limit: float = 5.0
    """The largest reward that these can tell, in symlog units: 5 is 147, 10 is 22,025; it wants twice the bins."""
    events: bool = True
    """Predict reward and ending. Off for goal tasks, where both belong to the goal and not to the world."""
    noop: int | None = None
    """Discrete actions: the one that does nothing, which agency compares with; in a Box that is 0."""
    codes: int = 1
    """Values K of the latent variable z, which stands for what state and action leave open: a step may have so many
    outcomes, and plans and dreams meet them as often as they come. 1: there is none, one outcome is foreseen."""


class WorldModel(nn.Module):
    """Pred(s, a, z): one engine for training, evaluation and planning.

    Every predictor is residual (s' = s + Δ) so that "nothing happens" is where it starts from. An ensemble's members
    imagine side by side, each from its own last latent; the heads are shared. Every single-state prediction of every
    member is counted in `calls`: that is the price of thinking.

    The latent variable z is one of K codes and reaches the predictor beside the action, from which it differs in who
    chooses it: a prior P(z | s, a) ∝ exp(−R(z)) (LeCun 2022, pp. 27 and 33). It is drawn by a number from 0 to 1 that
    is looked up in the prior's distribution function, so that the same chance can be given to several courses of
    action. All members share it. Where nobody says anything about chance, z is the likeliest code.

    Args:
        config: Settings.
        latent: Width D of the latent.
        actions: Encoder of the world's actions.
        grid: Height and width of the map that a latent is; None where it is a vector.
        sensors: Those of `SENSORS` that the world offers; each has a head.
        context: Which numbers of a state are its context: every prediction sees them, and none changes them.

    Raises:
        ValueError: Settings of the predictor that do not fit each other, or no code at all.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        latent: int,
        actions: ActionEncoder,
        grid: tuple[int, int] | None = None,
        sensors: tuple[str, ...] = (),
        context: slice = slice(0),
    ) -> None:
        super().__init__()
        if config.members < 1:
            raise ValueError(f"{config.members} members of the world model, expected at least 1 (no ensemble)")
        if config.codes < 1:
            raise ValueError(f"{config.codes} codes of the latent variable, expected at least 1 (there is none)")
        self.config = config
        self.actions, self.context = actions, context
        self.calls = 0
        hidden = config.hidden
        inputs = actions.width + (config.codes if config.codes > 1 else 0)
        members = [_predictor(config, latent, inputs, grid) for _ in range(config.members)]
        self.predictor: Predictor = Ensemble(members) if config.members > 1 else members[0]
        self.two_hot = TwoHot(config.bins, config.limit)
        self.reward = silent(hidden, config.bins)  # an untrained model promises nothing
        self.ending = silent(hidden, 1)
        output = 2 * actions.width if not actions.discrete else actions.width
        self.inverse: nn.Module = nn.Sequential(nn.Linear(2 * latent, hidden), nn.SiLU(), nn.Linear(hidden, output))
        if config.predictor == "conv" and grid is not None:
            self.inverse = MapInverse(latent, hidden, output, grid)
        self.sensors = sensors
        self.sensing = silent(hidden, len(sensors)) if sensors else None
        self.prior = _prior(latent + actions.width, hidden, config.codes) if config.codes > 1 else None

    def begin(self, latent: Tensor) -> Carry:
        """What a roll-out from latents ``[..., D]`` carries: tensors ``[..., E, *]``, its members' latents first."""
        return self.predictor.begin(latent.unsqueeze(-2).expand(*latent.shape[:-1], self.config.members, -1))

    def step(self, carry: Carry, encoded: Tensor, z: Tensor | None = None) -> tuple[Carry, Tensor]:
        """The carry after encoded actions ``[..., A]``, and the transition's features ``[..., E, H]`` for the heads.

        Args:
            carry: What the roll-outs carry.
            encoded: Encoded actions.
            z: Codes ``[..., K]``, one-hot; None for the likeliest ones.
        """
        self.calls += carry[0].numel() // carry[0].shape[-1]
        z = self.draw(carry, encoded) if z is None else z
        if z is not None:
            encoded = torch.cat([encoded.expand(*z.shape[:-1], encoded.shape[-1]), z], dim=-1)
        taken: tuple[Carry, Tensor] = self.predictor(carry, encoded.unsqueeze(-2))
        if not self.context.stop:
            return taken
        (latent, *rest), features = taken
        kept = carry[0][..., self.context]
        latent = torch.cat([latent[..., : self.context.start], kept, latent[..., self.context.stop :]], dim=-1)
        return (latent, *rest), features

    def log_prior(self, carry: Carry, encoded: Tensor) -> Tensor:
        """log P(z | s, a) of the K codes ``[..., K]``, read off the members' mean latent and encoded actions."""
        latent = carry[0].mean(-2)
        if self.prior is None:
            return latent.new_zeros(*latent.shape[:-1], 1)
        asked = torch.cat([latent, encoded.expand(*latent.shape[:-1], encoded.shape[-1])], dim=-1)
        return self.prior(asked).log_softmax(-1)  # type: ignore[no-any-return]

    def draw(self, carry: Carry, encoded: Tensor, chance: Tensor | None = None) -> Tensor | None:
        """The codes ``[..., K]`` that numbers ``chance [...]`` from 0 to 1 draw from the prior; None: the likeliest.

        Their gradient is that of the probabilities (straight-through, 1308.3432). Without a latent variable, None.
        """
        if self.prior is None:
            return None
        share = self.log_prior(carry, encoded).exp()
        code = share.argmax(-1) if chance is None else drawn_code(share.detach(), chance)
        return F.one_hot(code, self.config.codes) + (share - share.detach())

    def chance(self, batch: int, futures: int, steps: int, generator: torch.Generator) -> Tensor | None:
        """Numbers ``[B, M, T]`` that draw z in M futures, in each step one from each M-th of 0 to 1; None without z."""
        if self.prior is None:
            return None
        device = generator.device
        rank = torch.rand(batch, futures, steps, generator=generator, device=device).argsort(1)
        return (rank + torch.rand(batch, futures, steps, generator=generator, device=device)) / futures

    def outcomes(self, carry: Carry, encoded: Tensor) -> tuple[Carry, Tensor]:
        """Carry ``[..., K, E, *]`` and features ``[..., K, E, H]`` after encoded actions ``[..., A]``, for every z."""
        codes, lead = self.config.codes, encoded.shape[:-1]
        several = tuple(part.unsqueeze(len(lead)).expand(*lead, codes, *part.shape[len(lead) :]) for part in carry)
        z = torch.eye(codes, device=encoded.device).expand(*lead, codes, codes)
        return self.step(several, encoded.unsqueeze(-2), z if codes > 1 else None)

    def advance(
        self,
        carry: Carry,
        action: Tensor,
        goal: Tensor | None = None,
        feel: Collection[str] = (),
        chance: Tensor | None = None,
    ) -> tuple[Carry, State]:
        """The carry after actions ``[...]``, and every member's state ``[..., E]`` with what it feels there.

        Channels of the drives about imagination itself are worked out for those named in ``feel``; z is drawn by
        ``chance [...]``, or the likeliest.
        """
        encoded = self.actions(action)
        z = self.draw(carry, encoded, chance)
        after, features = self.step(carry, encoded, z)
        goal = None if goal is None else goal.unsqueeze(-2)
        spread = disagreement(after[0]).unsqueeze(-1).expand_as(after[0][..., 0]) if "novelty" in feel else None
        impact = self.impact(carry, after, z) if "agency" in feel else None
        return after, State(after[0], *self.sense(features, encoded.unsqueeze(-2), after[0], goal, spread, impact))

    def impact(self, before: Carry, after: Carry, z: Tensor | None) -> Tensor:
        """‖Pred(s, a, z) − Pred(s, no-op, z)‖²/D of each member ``[..., E]``; one more predictor call each."""
        idle = self.actions.idle(self.config.noop).expand(*before[0].shape[:-2], -1)
        return (after[0] - self.step(before, idle, z)[0][0]).square().mean(-1)

    def measure(self, features: Tensor) -> Tensor:
        """What the world's n sensors will say ``[..., n]``, from features ``[..., H]``; never below 0."""
        assert self.sensing is not None
        return F.softplus(self.sensing(features), beta=10)

    def sense(
        self,
        features: Tensor,
        encoded: Tensor,
        latent: Tensor,
        goal: Tensor | None,
        spread: Tensor | None = None,
        impact: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predicted ι ``[..., I]`` and continuation ``[...]`` of a transition into ``latent``."""
        if self.config.events:
            reward = self.two_hot.mean(self.reward(features))
            ended = self.ending(features).squeeze(-1).sigmoid()
        else:
            reward = ended = torch.zeros_like(latent[..., 0])
        distance = None if goal is None else goal_distance(latent, goal)
        effort = self.actions.effort(encoded).expand_as(ended)
        measured = dict(zip(self.sensors, self.measure(features).unbind(-1), strict=True)) if self.sensors else {}
        iota = interoception(reward, ended, effort, distance, **measured, disagreement=spread, impact=impact)
        return iota, 1 - ended

    def predict(self, state: State, action: Tensor, goal: Tensor | None = None, chance: Tensor | None = None) -> State:
        """One step: the state that ``action [...]`` leads to from ``state [..., D]``, in the mean over members.

        Of several outcomes that is the one which ``chance [...]`` draws, or the likeliest.
        """
        _, after = self.advance(self.begin(state.latent), action, goal, chance=chance)
        assert after.interoception is not None and after.continuation is not None
        return State(after.latent.mean(-2), after.interoception.mean(-2), after.continuation.mean(-1))

    def rollout(
        self,
        state: State,
        actions: Tensor,
        goal: Tensor | None = None,
        feel: Collection[str] = (),
        chance: Tensor | None = None,
    ) -> Trajectory:
        """Imagine S courses of action for each of B states; of an ensemble, the mean and each member's own.

        Args:
            state: Latents ``[B, D]``.
            actions: ``[B, S, T]`` or ``[B, S, T, A]``, in the environment's units.
            goal: Latent goals ``[B, D]``, or None.
            feel: Which drives about imagination itself to work out, of `IMAGINED_DRIVES`.
            chance: What draws z in each of M futures ``[B, M, T]``, the same for all courses: then every member has
                its own in each of them. None: there is one future, in which the likeliest comes.

        Raises:
            ValueError: The batches of state and actions differ.
        """
        batch, candidates = actions.shape[:2]
        if state.latent.shape[0] != batch:
            raise ValueError(f"{state.latent.shape[0]} states but actions for {batch}; give one set of plans per state")
        futures = 1 if chance is None else chance.shape[1]
        encoded = self.actions(actions).unsqueeze(2)  # [B, S, 1, T, A]
        start = state.latent[:, None, None].expand(-1, candidates, futures, -1)
        drawn = None if chance is None else chance.unsqueeze(1).expand(-1, candidates, -1, -1)
        latents, features, impact = self._unroll(start, encoded, "agency" in feel, drawn)  # [B, S, M, E, T(+1), *]
        reached = latents[..., 1:, :]
        goals = None if goal is None else goal[:, None, None, None, None]
        spread = None
        if "novelty" in feel:
            spread = disagreement(reached.transpose(-3, -2)).unsqueeze(-2).expand(reached.shape[:-1])
        iota, continuation = self.sense(features, encoded.unsqueeze(3), reached, goals, spread, impact)
        latents, iota, continuation = (part.flatten(2, 3) for part in (latents, iota, continuation))
        if latents.shape[2] == 1:
            return Trajectory(latents[:, :, 0], iota[:, :, 0], continuation[:, :, 0])
        members = Trajectory(latents, iota, continuation, futures=futures)
        return Trajectory(latents.mean(2), iota.mean(2), continuation.mean(2), members, futures)

    def unroll(self, latent: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Every member's latents ``[..., E, T+1, D]`` and features ``[..., E, T, H]`` along encoded actions.

        Of several outcomes the likeliest one comes.

        Args:
            latent: Where the roll-outs begin ``[..., D]``.
            encoded: Encoded actions ``[..., T, A]``.
        """
        latents, features, _ = self._unroll(latent, encoded, False, None)
        return latents, features

    def _unroll(
        self, latent: Tensor, encoded: Tensor, agency: bool, chance: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `unroll` with z drawn by ``chance [..., T]``, and the impacts ``[..., E, T]`` of the actions where they
        are wanted."""
        carry = self.begin(latent)
        latents, features, impacts = [carry[0]], [], []
        for t, action in enumerate(encoded.unbind(-2)):
            before, z = carry, self.draw(carry, action, None if chance is None else chance[..., t])
            carry, feature = self.step(before, action, z)
            latents.append(carry[0])
            features.append(feature)
            if agency:
                impacts.append(self.impact(before, carry, z))
        impact = torch.stack(impacts, dim=-1) if agency else None
        return torch.stack(latents, dim=-2), torch.stack(features, dim=-2), impact


def disagreement(latent: Tensor) -> Tensor:
    """Variance over members of their latents ``[..., E, D]``, mean over D, ``[...]``; 0 for one predictor."""
    return latent.var(-2, correction=0).mean(-1)


def drawn_code(share: Tensor, chance: Tensor) -> Tensor:
    """Codes ``[...]`` that numbers ``chance [...]`` from 0 to 1 draw from probabilities ``[..., K]``."""
    return (chance.unsqueeze(-1) >= share.cumsum(-1)[..., :-1]).sum(-1)


def _prior(inputs: int, hidden: int, codes: int) -> nn.Module:
    """What says how likely each code is; at first all alike."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), silent(hidden, codes))


def _predictor(config: WorldModelConfig, latent: int, actions: int, grid: tuple[int, int] | None) -> Member:
    match config.predictor:
        case "mlp":
            return MLPPredictor(latent, actions, config.hidden)
        case "conv" | "screen":
            kind, latents = (ConvPredictor, "map") if config.predictor == "conv" else (ScreenPredictor, "screen")
            if grid is None:
                raise ValueError(
                    f"predictor {config.predictor} needs latents that are a map; set perception.latents to {latents}"
                )
            return kind(latent, actions, config.hidden, grid)
        case "gru":
            return GRUPredictor(latent, actions, config.hidden)
        case "transformer":
            return TransformerPredictor(
                latent, actions, config.hidden, config.layers, config.heads, config.context
            )  # fmt: skip
