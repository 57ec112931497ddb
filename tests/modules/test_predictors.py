"""Predictors: one step costs one step, the past reaches as far as it should, and each kind learns known dynamics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from forethought.modules.actions import ActionEncoder
from forethought.modules.predictors import (
    ConvPredictor,
    Ensemble,
    GRUPredictor,
    MLPPredictor,
    ScreenPredictor,
    TransformerPredictor,
)
from forethought.modules.types import State
from forethought.modules.world_model import PredictorName, WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor, nn

LATENT, WIDTH, HIDDEN, CONTEXT = 3, 2, 16, 3
BOX = spaces.Box(-1.0, 1.0, (WIDTH,))
GRID = (1, LATENT)
NAMES: list[PredictorName] = ["mlp", "conv", "screen", "gru", "transformer"]
KINDS = [(name, members) for name in NAMES for members in (1, 3)]
each_kind = pytest.mark.parametrize(("name", "members"), KINDS, ids=[f"{n} x{e}" for n, e in KINDS])
each_name = pytest.mark.parametrize("name", NAMES)

Single = MLPPredictor | ConvPredictor | ScreenPredictor | GRUPredictor | TransformerPredictor
MAKE: dict[str, Callable[[], Single]] = {
    "mlp": lambda: MLPPredictor(LATENT, WIDTH, HIDDEN),
    "conv": lambda: ConvPredictor(LATENT, WIDTH, HIDDEN, GRID),
    "screen": lambda: ScreenPredictor(LATENT, WIDTH, HIDDEN, GRID),
    "gru": lambda: GRUPredictor(LATENT, WIDTH, HIDDEN),
    "transformer": lambda: TransformerPredictor(LATENT, WIDTH, HIDDEN, layers=2, heads=2, context=CONTEXT),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters moved at random, so that no layer that starts at zero is silent."""
    draws = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    return module


def make(name: PredictorName, members: int = 1) -> WorldModel:
    config = WorldModelConfig(name, HIDDEN, members, heads=2, context=CONTEXT, bins=11)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(config, LATENT, ActionEncoder(BOX), GRID)
    awake(model)
    return model


def single(name: str, seed: int = 0) -> Single:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        predictor = MAKE[name]()
    awake(predictor, seed)
    return predictor


def actions(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, WIDTH, generator=generator(seed)) * 2 - 1


def forced(predictor: Single, latents: Tensor, encoded: Tensor) -> Tensor:
    """Features ``[T, H]`` where the latents are given ``[T, D]`` and not predicted."""
    carry, features = predictor.begin(latents[0]), []
    for latent, action in zip(latents, encoded, strict=True):
        carry, feature = predictor((latent, *carry[1:]), action)
        features.append(feature)
    return torch.stack(features)


# ---- the carry


@each_kind
def test_a_carry_can_be_stacked_and_branched_at_any_step(name: PredictorName, members: int) -> None:
    """Tree planners keep nodes of different depths in one tensor, pick some, and go on from there."""
    model = make(name, members)
    start, action = torch.randn(2, 4, LATENT, generator=generator()), actions(2, 4, 6)
    carry = model.begin(start)
    shapes = [(part.shape, part.dtype) for part in carry]
    assert all(part.shape[:3] == (2, 4, members) for part in carry)
    assert torch.equal(carry[0], start.unsqueeze(2).expand(-1, -1, members, -1))
    encoded = model.actions(action)
    carries = [carry]
    for t in range(6):
        carry, _ = model.step(carry, encoded[:, :, t])
        assert [(part.shape, part.dtype) for part in carry] == shapes
        carries.append(carry)
    mixed = tuple(
        torch.cat([early[:, :2], late[:, 1:3]], 1) for early, late in zip(carries[2], carries[5], strict=True)
    )
    went_on, _ = model.step(mixed, encoded[:, :, 5])
    early, _ = model.step(tuple(part[:, :2] for part in carries[2]), encoded[:, :2, 5])
    assert torch.allclose(went_on[0][:, :2], early[0], atol=1e-5)
    late, _ = model.step(tuple(part[:, 1:3] for part in carries[5]), encoded[:, 2:, 5])
    assert torch.allclose(went_on[0][:, 2:], late[0], atol=1e-5)


@each_kind
def test_a_roll_out_is_its_steps(name: PredictorName, members: int) -> None:
    model = make(name, members)
    action, start, goal = actions(2, 3, 5), torch.randn(2, LATENT, generator=generator()), torch.ones(2, LATENT)
    imagined = model.rollout(State(start), action, goal)
    own = imagined.members or imagined
    for s in range(3):
        carry = model.begin(start)
        for t in range(5):
            carry, after = model.advance(carry, action[:, s, t], goal)
            assert after.interoception is not None and after.continuation is not None
            parts = (
                own.latent[:, s, ..., t + 1, :],
                own.interoception[:, s, ..., t, :],
                own.continuation[:, s, ..., t],
            )
            taken = (after.latent, after.interoception, after.continuation)
            for part, other in zip(parts, taken, strict=True):
                assert torch.allclose(part.reshape(other.shape), other, atol=1e-4)


@each_kind
def test_candidates_and_environments_do_not_mix(name: PredictorName, members: int) -> None:
    model = make(name, members)
    action, start = actions(3, 4, 5), torch.randn(3, LATENT, generator=generator())
    whole = model.rollout(State(start), action)
    part = model.rollout(State(start[1:2]), action[1:2, 2:3])
    assert torch.allclose(whole.latent[1:2, 2:3], part.latent, atol=1e-4)
    assert torch.allclose(whole.continuation[1:2, 2:3], part.continuation, atol=1e-4)


@each_kind
def test_time_is_the_only_loop(name: PredictorName, members: int) -> None:
    """However many candidates, environments and members, a roll-out of T steps asks each network T times."""
    model, times = make(name, members), [0]
    whole = model.predictor.member if isinstance(model.predictor, Ensemble) else model.predictor

    def count(*_: object) -> None:
        times[0] += 1

    for module in (whole, whole.delta):
        module.register_forward_hook(count)
    model.rollout(State(torch.zeros(5, LATENT)), actions(5, 7, 4))
    assert times[0] == 2 * 4
    assert model.calls == 5 * 7 * 4 * members
    model.predict(State(torch.zeros(3, LATENT)), actions(3))
    assert model.calls == (5 * 7 * 4 + 3) * members


# ---- how far the past reaches


@each_kind
def test_what_is_done_later_changes_nothing_before(name: PredictorName, members: int) -> None:
    model = make(name, members)
    start, action = torch.zeros(1, LATENT), actions(1, 1, 6)
    other = action.clone()
    other[:, :, 3] *= -1
    first, second = (model.rollout(State(start), a).latent for a in (action, other))
    assert torch.equal(first[:, :, :4], second[:, :, :4])
    assert (first[:, :, 4:] - second[:, :, 4:]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize(
    ("name", "reach"), [("mlp", 1), ("conv", 1), ("screen", 1), ("gru", 6), ("transformer", CONTEXT)]
)
def test_the_past_reaches_as_far_as_it_should(name: str, reach: int) -> None:
    """With latents that are given, step t looks back on the last one, on all, or on those within the context."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "transformer":  # with one layer; each further one reaches a context further back
            predictor: Single = TransformerPredictor(LATENT, WIDTH, HIDDEN, layers=1, heads=2, context=CONTEXT)
        else:
            predictor = MAKE[name]()
    awake(predictor)
    latents, encoded = torch.randn(6, LATENT, generator=generator()), actions(6)
    for change in (latents, encoded):
        before = forced(predictor, latents, encoded)[-1]
        for t in range(6):
            change[t] += 1
            moved = float((forced(predictor, latents, encoded)[-1] - before).detach().abs().max())
            change[t] -= 1
            assert (moved > 1e-5) == (6 - t <= reach), t


def test_cached_attention_is_attention_to_the_last_states() -> None:
    """Against the definition, written out token by token without a cache."""
    predictor = single("transformer")
    assert isinstance(predictor, TransformerPredictor)
    latents, encoded = torch.randn(7, LATENT, generator=generator()), actions(7)

    def normalised(token: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt() * (1 + scale) + shift

    tokens = [predictor.embed(latent) for latent in latents]
    for block in predictor.blocks:
        parts = [block.modulation(action).chunk(6) for action in encoded]
        qkv = [block.qkv(normalised(x, *p[:2])).view(3, 2, HIDDEN // 2) for x, p in zip(tokens, parts, strict=True)]
        for t in range(7):
            heads = []
            for head in range(2):
                seen = range(max(0, t - CONTEXT + 1), t + 1)
                scores = torch.stack([qkv[t][0, head] @ qkv[j][1, head] for j in seen]) / (HIDDEN // 2) ** 0.5
                scores = scores + torch.stack([block.ages[head, CONTEXT - 1 - (t - j)] for j in seen])
                heads.append(sum(w * qkv[j][2, head] for w, j in zip(scores.softmax(0), seen, strict=True)))
            gate, shift, scale, dense_gate = parts[t][2:]
            tokens[t] = tokens[t] + gate * block.attended(torch.cat(heads))
            tokens[t] = tokens[t] + dense_gate * block.dense(normalised(tokens[t], shift, scale))
    expected = [
        normalised(x, *predictor.modulation(a).chunk(2)) for x, a in zip(tokens, encoded, strict=True)
    ]  # fmt: skip
    assert torch.allclose(forced(predictor, latents, encoded), torch.stack(expected), atol=1e-4)


def test_the_recurrence_is_a_normalised_gated_recurrent_unit() -> None:
    """Against the definition, unit by unit."""
    predictor = single("gru")
    assert isinstance(predictor, GRUPredictor)
    latents, encoded, hidden = torch.randn(5, LATENT, generator=generator()), actions(5), torch.zeros(HIDDEN)
    given = forced(predictor, latents, encoded)
    (linear, norm), read = predictor.gates, predictor.read
    for t in range(5):
        raw = linear.weight @ torch.cat([latents[t], encoded[t], hidden]) + linear.bias
        gates = (raw - raw.mean()) / (raw.var(correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
        after = torch.zeros(HIDDEN)
        for unit in range(HIDDEN):
            reset, keep = gates[unit].sigmoid(), (gates[HIDDEN + unit] - 1).sigmoid()
            after[unit] = keep * hidden[unit] + (1 - keep) * (reset * gates[2 * HIDDEN + unit]).tanh()
        hidden = after
        expected = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt() * read.weight + read.bias
        assert torch.allclose(given[t], expected, atol=1e-4)


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong in ({"heads": 3}, {"heads": 0}, {"layers": 0}, {"context": 0}):
        with pytest.raises(ValueError, match="hidden a multiple of heads"):
            WorldModel(WorldModelConfig("transformer", **{"hidden": 16, **wrong}), 4, ActionEncoder(BOX))
    with pytest.raises(ValueError, match="0 members of the world model, expected at least 1"):
        WorldModel(WorldModelConfig(members=0), 4, ActionEncoder(BOX))


# ---- ensembles


@each_name
def test_members_imagine_what_each_alone_would(name: PredictorName) -> None:
    alone = [single(name, seed) for seed in range(3)]
    action, start = actions(2, 4, 5), torch.randn(2, 4, LATENT, generator=generator())
    expected = []
    for predictor in alone:
        carry = predictor.begin(start)
        for t in range(5):
            carry, feature = predictor(carry, action[:, :, t])
        expected.append((carry[0], feature))
    ensemble = Ensemble([single(name, seed) for seed in range(3)])
    assert sum(p.numel() for p in ensemble.parameters()) == 3 * sum(p.numel() for p in alone[0].parameters())
    carry = ensemble.begin(start.unsqueeze(2).expand(-1, -1, 3, -1))
    for t in range(5):
        carry, features = ensemble(carry, action[:, :, t, None])
    for e, (latent, feature) in enumerate(expected):
        assert torch.allclose(carry[0][:, :, e], latent, atol=1e-4)
        assert torch.allclose(features[:, :, e], feature, atol=1e-4)
    assert (expected[0][0] - expected[1][0]).abs().min() > 1e-4


def test_an_ensemble_starts_with_members_that_differ() -> None:
    config = WorldModelConfig(hidden=HIDDEN, members=3)
    model = WorldModel(config, LATENT, ActionEncoder(BOX), GRID)
    for name, parameter in model.predictor.named_parameters():
        if name.endswith("weight") and parameter.dim() == 3:
            assert (parameter[0] - parameter[1]).abs().mean() > 1e-3, name


@each_name
def test_an_ensemble_foretells_the_mean_and_says_how_far_its_members_part(name: PredictorName) -> None:
    model = make(name, 3)
    start, action = torch.randn(2, LATENT, generator=generator()), actions(2, 4, 5)
    imagined = model.rollout(State(start), action)
    own = imagined.members
    assert own is not None and own.latent.shape == (2, 4, 3, 6, LATENT) and own.continuation.shape == (2, 4, 3, 5)
    for mean, each in ((imagined.latent, own.latent), (imagined.interoception, own.interoception)):
        assert torch.allclose(mean, (each[:, :, 0] + each[:, :, 1] + each[:, :, 2]) / 3, atol=1e-5)
    assert torch.allclose(imagined.continuation, own.continuation.mean(2))
    spread = ((own.latent - imagined.latent.unsqueeze(2)) ** 2).sum((2, 4)) / (3 * LATENT)
    assert imagined.disagreement.shape == (2, 4, 5)
    assert torch.allclose(imagined.disagreement, spread[:, :, 1:], atol=1e-5) and spread[:, :, 1:].min() > 1e-4
    assert not spread[:, :, 0].detach().round(decimals=9).any()
    one = model.predict(State(start), action[:, 0, 0])
    assert torch.allclose(one.latent, imagined.latent[:, 0, 1], atol=1e-5)
    assert one.continuation is not None
    assert torch.allclose(one.continuation, imagined.continuation[:, 0, 0], atol=1e-5)


def test_one_predictor_agrees_with_itself() -> None:
    imagined = make("mlp").rollout(State(torch.zeros(2, LATENT)), actions(2, 4, 5))
    assert imagined.members is None and torch.equal(imagined.disagreement, torch.zeros(2, 4, 5))


# ---- gradients


@each_kind
def test_gradients_reach_every_action_the_start_and_every_parameter(name: PredictorName, members: int) -> None:
    model = make(name, members)
    start = torch.randn(2, LATENT, generator=generator(), requires_grad=True)
    action = actions(2, 3, 5).requires_grad_()
    imagined = model.rollout(State(start), action)
    last = imagined.latent[:, :, -1].square().sum()
    parameters = dict(model.predictor.named_parameters())
    to_start, to_action = torch.autograd.grad(last, (start, action), retain_graph=True)
    assert to_start.abs().min() > 0 and to_action.abs().amax(-1).min() > 0
    assert imagined.interoception is not None
    heads = [key for key in parameters if "thin." in key or "summary." in key]  # asked by the heads alone
    assert (name == "screen") == bool(heads)
    for parameter, value in parameters.items():
        asked = imagined.interoception.sum() if parameter in heads else last
        (gradient,) = torch.autograd.grad(asked, value, retain_graph=True)
        per_member = gradient.reshape(members, -1).abs().amax(-1)
        assert per_member.min() > 0, parameter


@each_kind
def test_gradient_to_actions_is_the_slope(name: PredictorName, members: int) -> None:
    model = make(name, members).double()
    start = torch.randn(1, LATENT, generator=generator(), dtype=torch.float64)
    action = actions(1, 1, 5).double().requires_grad_()

    def height(a: Tensor) -> Tensor:
        return model.rollout(State(start), a).latent[..., -1, :].sum()

    gradient = torch.autograd.grad(height(action), action)[0]
    for t in (0, 4):
        for axis in range(WIDTH):
            step = torch.zeros_like(action)
            step[0, 0, t, axis] = 1e-4
            slope = (height(action + step) - height(action - step)) / 2e-4
            assert float(gradient[0, 0, t, axis]) == pytest.approx(float(slope.detach()), rel=1e-3, abs=1e-6)


# ---- learning


def walk(count: int, seed: int, inertia: float) -> tuple[Tensor, Tensor]:
    """Latents ``[N, 6, 3]`` and actions ``[N, 5, 2]``: pushed through a bent field, with velocity or without."""
    draws = generator(seed)
    action = torch.rand(count, 5, WIDTH, generator=draws) * 2 - 1
    position = torch.randn(count, LATENT, generator=draws)
    push = torch.tensor([[0.6, 0.0, 0.3], [0.0, 0.6, -0.3]])
    path, velocity = [position], torch.zeros(count, LATENT)
    for t in range(5):
        velocity = inertia * velocity + action[:, t] @ push * (1 + 0.5 * position.sin())
        position = position + velocity
        path.append(position)
    return torch.stack(path, 1), action


def taught(name: PredictorName, inertia: float, members: int = 1, updates: int = 80) -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = WorldModelConfig(name, hidden=32, members=members, heads=2, context=5, events=False)
        model = WorldModel(config, LATENT, ActionEncoder(BOX), GRID)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for update in range(updates):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - update / updates)
        path, action = walk(64, update, inertia)
        latents, _ = model.unroll(path[:, 0], model.actions(action))
        optimiser.zero_grad()
        (latents - path.unsqueeze(1)).square().mean().backward()
        optimiser.step()
    return model


def errors(model: WorldModel, path: Tensor, action: Tensor) -> Tensor:
    """Mean squared errors after 1 … 5 steps."""
    with torch.no_grad():
        latent = model.rollout(State(path[:, 0]), action.unsqueeze(1)).latent[:, 0]
    return (latent - path).square().mean((0, 2))[1:]


@pytest.mark.parametrize(
    ("name", "members"), [("mlp", 1), ("conv", 1), ("screen", 1), ("gru", 1), ("transformer", 1), ("mlp", 3)]
)
def test_known_dynamics_are_learnt(name: PredictorName, members: int) -> None:
    model = taught(name, 0.0, members)
    path, action = walk(1000, 10**6, 0.0)
    right, still = errors(model, path, action), (path - path[:, :1]).square().mean((0, 2))[1:]
    assert (right < 0.15 * still).all(), right / still
    assert (right < 0.15 * errors(model, path, action.roll(1, 0))).all()  # others' actions
    assert (right[:4] < 0.3 * errors(model, path, action.roll(1, 1))[:4]).all()  # its own, an instant too late


def test_only_a_predictor_with_a_past_foresees_inertia() -> None:
    """Velocity cannot be seen in a state; it follows from what was done before."""
    path, action = walk(1000, 10**6, 1.0)
    last = {name: float(errors(taught(name, 1.0, updates=120), path, action)[-1]) for name in NAMES}
    assert last["gru"] < 0.5 * last["mlp"] and last["transformer"] < 0.5 * last["mlp"], last


def test_members_part_where_nothing_was_learnt() -> None:
    """Disagreement tells places never seen from those learnt (AUROC ≥ 0.75 is asked, test W6)."""
    model = taught("mlp", 0.0, members=4)
    (path, action), far = walk(300, 10**6, 0.0), 4 * torch.randn(300, LATENT, generator=generator()).sign()
    with torch.no_grad():
        here, there = (model.rollout(State(s), action.unsqueeze(1)).disagreement.mean(-1) for s in (path[:, 0], far))
    assert float((there > here.T).float().mean()) > 0.9
