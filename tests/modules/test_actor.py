"""The actor: its distributions are what they say, and it learns a rule of the state by imitation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from forethought.modules.actions import ActionEncoder
from forethought.modules.actor import Actor, ActorConfig, CategoricalPolicy, SquashedGaussianPolicy
from forethought.modules.types import DRIVES, Configuration, State
from gymnasium import spaces
from torch import Tensor

PLAIN = Configuration(torch.ones(len(DRIVES)), torch.ones(len(DRIVES)))
SKEWED = spaces.Box(np.array([-0.4, 2.0, -9.0], np.float32), np.array([0.3, 2.5, -1.0], np.float32))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(space: Any, latent: int = 4, goals: bool = False, hidden: int = 64) -> Actor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Actor(ActorConfig(hidden), latent, ActionEncoder(space), goals)


# ---- categorical


def test_categorical_samples_as_often_as_it_says() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    policy = CategoricalPolicy((probabilities.log() + 3).expand(20_000, 4), ActionEncoder(spaces.Discrete(4)))
    drawn = policy.sample(generator())
    assert drawn.shape == (20_000,)
    assert drawn.dtype == torch.int64
    assert torch.allclose(drawn.bincount(minlength=4) / 20_000, probabilities, atol=0.015)


def test_categorical_components_are_independent_and_in_their_places() -> None:
    first, second = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.25, 0.75])
    logits = torch.cat([first, second]).log().expand(20_000, 5)
    policy = CategoricalPolicy(logits, ActionEncoder(spaces.MultiDiscrete([3, 2])))
    drawn = policy.sample(generator())
    joint = torch.zeros(3, 2).index_put_((drawn[:, 0], drawn[:, 1]), torch.ones(20_000), accumulate=True) / 20_000
    assert torch.allclose(joint, first[:, None] * second, atol=0.015)
    assert policy.mode()[0].tolist() == [0, 1]
    expected = -(first * first.log()).sum() - (second * second.log()).sum()
    assert float(policy.entropy()[0]) == pytest.approx(float(expected), rel=1e-5)


def test_categorical_mode_and_entropy() -> None:
    encoder = ActionEncoder(spaces.Discrete(3))
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 9.0, 1.0], [-1e9, -1e9, 0.0]])
    policy = CategoricalPolicy(logits, encoder)
    assert policy.mode()[1:].tolist() == [1, 2]
    assert float(policy.entropy()[0]) == pytest.approx(math.log(3), rel=1e-5)
    assert policy.entropy().diff().max() < 0
    assert float(policy.entropy()[2]) == pytest.approx(0, abs=1e-6)
    assert set(policy.sample(generator())[2:].tolist()) == {2}
    single = CategoricalPolicy(logits, ActionEncoder(spaces.MultiDiscrete([3])))
    assert single.mode().shape == (3, 1)


@pytest.mark.parametrize("space", [spaces.Discrete(5), spaces.MultiDiscrete([3, 2])], ids=repr)
def test_categorical_imitation_is_least_at_the_target(space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    encoder = ActionEncoder(space)
    draws = generator(3)
    target = torch.cat([torch.rand(n, generator=draws).softmax(-1) for n in encoder.sizes])
    best = float(CategoricalPolicy(target.log(), encoder).imitation_loss(target))
    for _ in range(50):
        other = target.log() + 0.5 * torch.randn(5, generator=draws)
        assert float(CategoricalPolicy(other, encoder).imitation_loss(target)) > best
    assert best == pytest.approx(float(CategoricalPolicy(target.log(), encoder).entropy()), rel=1e-5)


def test_log_probabilities_are_those_of_torch() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=draws)
    policy = CategoricalPolicy(logits, ActionEncoder(spaces.MultiDiscrete([3, 4])))
    action = policy.sample(draws)
    parts = [torch.distributions.Categorical(logits=part) for part in (logits[:, :3], logits[:, 3:])]
    expected = parts[0].log_prob(action[:, 0]) + parts[1].log_prob(action[:, 1])
    assert torch.allclose(policy.log_probability(action), expected, atol=1e-6)
    assert torch.allclose(policy.probabilities()[:, 3:], parts[1].probs, atol=1e-6)
    single = CategoricalPolicy(logits[:, :3], ActionEncoder(spaces.Discrete(3)))
    assert torch.allclose(single.log_probability(action[:, 0]), parts[0].log_prob(action[:, 0]), atol=1e-6)
    mean, log_std = torch.randn(2, 5, 2, generator=draws).unbind(0)
    box = spaces.Box(np.float32([-1, 2]), np.float32([3, 4]))
    normal = SquashedGaussianPolicy(mean, log_std - 1, ActionEncoder(box))
    raw = mean + 0.3
    expected = torch.distributions.Normal(mean, (log_std - 1).exp()).log_prob(raw).sum(-1)
    assert torch.allclose(normal.log_probability(ActionEncoder(box).decode(raw.tanh())), expected, atol=1e-2)


def test_sampling_is_seeded() -> None:
    for space in (spaces.Discrete(5), spaces.MultiDiscrete([3, 5]), SKEWED):
        policy = make(space)(State(torch.randn(64, 4, generator=generator())), PLAIN)
        first, again, other = (policy.sample(generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


# ---- squashed Gaussian


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_bounds_are_always_respected(scale: float, seed: int) -> None:
    """Exactly: an environment that checks its bounds refuses an action one rounding step outside."""
    draws = np.random.default_rng(seed)
    low, high = np.sort(draws.normal(size=(2, 50)).astype(np.float32), axis=0)
    space = spaces.Box(low, high)
    mean = scale * torch.randn(200, 50, generator=generator(seed))
    policy = SquashedGaussianPolicy(mean, torch.zeros(200, 50), ActionEncoder(space))
    for action in (policy.sample(generator(seed)), policy.mode()):
        inside = (action.numpy() >= space.low) & (action.numpy() <= space.high)
        assert inside.all(), f"{(~inside).sum()} of {inside.size} actions are out of bounds"


def test_gaussian_samples_have_the_distribution_it_says() -> None:
    encoder = ActionEncoder(SKEWED)
    mean, log_std = torch.tensor([0.3, -0.5, 1.0]), torch.tensor([-1.0, -0.5, 0.0])
    policy = SquashedGaussianPolicy(mean.expand(20_000, 3), log_std.expand(20_000, 3), encoder)
    before = encoder(policy.sample(generator())).clamp(-1 + 1e-5, 1 - 1e-5).atanh()
    assert torch.allclose(before.mean(0), mean, atol=0.03)
    assert torch.allclose(before.std(0), log_std.exp(), atol=0.03)
    assert torch.corrcoef(before.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.allclose(encoder(policy.mode()[0]), mean.tanh(), atol=1e-5)
    expected = sum(0.5 * math.log(2 * math.pi * math.e) + float(s) for s in log_std)
    assert float(policy.entropy()[0]) == pytest.approx(expected, rel=1e-5)


def test_gaussian_imitation_is_least_at_the_elites() -> None:
    """Descent on the loss makes the policy sample what the elites were: their mean and spread, in each dimension."""
    encoder = ActionEncoder(SKEWED)
    elites_mean, elites_std = torch.tensor([0.1, 2.3, -6.0]), torch.tensor([0.02, 0.01, 0.8])
    target = torch.cat([elites_mean, elites_std])
    mean, log_std = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([mean, log_std], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        SquashedGaussianPolicy(mean, log_std, encoder).imitation_loss(target).backward()
        optimiser.step()
    policy = SquashedGaussianPolicy(mean.detach().expand(20_000, 3), log_std.detach().expand(20_000, 3), encoder)
    drawn = policy.sample(generator())
    assert torch.allclose(policy.mode()[0], elites_mean, rtol=1e-3, atol=1e-3)
    assert torch.allclose(drawn.mean(0), elites_mean, rtol=0.02, atol=0.01)
    assert torch.allclose(drawn.std(0), elites_std, rtol=0.1)


def test_gaussian_imitation_of_a_bound_is_finite_and_pulls_the_right_way() -> None:
    encoder = ActionEncoder(spaces.Box(-2, 2, (1,)))
    for bound in (-2.0, 2.0):
        mean, log_std = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        loss = SquashedGaussianPolicy(mean, log_std, encoder).imitation_loss(torch.tensor([bound, 0.0]))
        loss.backward()
        assert torch.isfinite(loss)
        assert mean.grad is not None
        assert float(mean.grad) * bound < 0
        assert abs(float(mean.grad)) < 100


def test_gaussian_spread_stays_within_reason() -> None:
    actor = make(spaces.Box(-1, 1, (3,)))
    with torch.no_grad():
        actor.net[-1].weight.normal_(std=100, generator=generator())
    policy = actor(State(torch.randn(100, 4, generator=generator())), PLAIN)
    assert isinstance(policy, SquashedGaussianPolicy)
    assert -3.0 <= float(policy.log_std.detach().min()) < -2.9
    assert 0.4 < float(policy.log_std.detach().max()) <= 0.5


# ---- the network


@pytest.mark.parametrize(
    ("space", "shape"),
    [(spaces.Discrete(5), ()), (spaces.MultiDiscrete([3, 5]), (2,)), (spaces.MultiDiscrete([4]), (1,)), (SKEWED, (3,))],
    ids=repr,
)
def test_actions_have_the_space_s_shape(space: Any, shape: tuple[int, ...]) -> None:
    policy = make(space)(State(torch.zeros(2, 7, 4)), PLAIN)
    for action in (policy.sample(generator()), policy.mode()):
        assert action.shape == (2, 7, *shape)
    assert policy.entropy().shape == (2, 7)
    assert all(a in space for a in policy.sample(generator()).detach().flatten(0, 1).numpy())


def test_an_untrained_actor_has_no_preference() -> None:
    policy = make(spaces.Discrete(5))(State(torch.randn(10, 4, generator=generator())), PLAIN)
    assert torch.allclose(policy.entropy(), torch.full((10,), math.log(5)))


def test_goals() -> None:
    blind, seeing = make(spaces.Discrete(3)), make(spaces.Discrete(3), goals=True)
    for actor in (blind, seeing):
        with torch.no_grad():
            actor.net[-1].weight.normal_(generator=generator())
    state = State(torch.randn(2, 6, 4, generator=generator()))
    here, there = (PLAIN.with_goal(torch.full((2, 4), value)) for value in (-1.0, 1.0))
    assert torch.equal(blind(state, here).logits, blind(state, there).logits)
    assert torch.equal(blind(state, here).logits, blind(state, PLAIN).logits)
    assert (seeing(state, here).logits - seeing(state, there).logits).abs().max() > 0.1
    with pytest.raises(ValueError, match="this actor was made for goals and the configuration has none"):
        seeing(state, PLAIN)
    # each environment's own goal
    mixed = PLAIN.with_goal(torch.tensor([[-1.0] * 4, [1.0] * 4]))
    expected = torch.stack([seeing(state, here).logits[0], seeing(state, there).logits[1]])
    assert torch.allclose(seeing(state, mixed).logits, expected, atol=1e-5)


# ---- imitation


def imitate(actor: Actor, rule: Callable[[Tensor], Tensor], shuffled: bool, goals: bool = False) -> None:
    """Train on the rule's targets; ``shuffled`` gives each state the target of another."""
    draws = generator(7)
    optimiser = torch.optim.Adam(actor.parameters(), 3e-3)
    for _ in range(250):
        latent = torch.randn(128, 4, generator=draws)
        goal = torch.randn(128, 4, generator=draws)
        target = rule(goal - latent if goals else latent)
        if shuffled:
            target = target[torch.randperm(128, generator=draws)]
        optimiser.zero_grad()
        actor(State(latent), PLAIN.with_goal(goal if goals else None)).imitation_loss(target).mean().backward()
        optimiser.step()


def direction(latent: Tensor) -> Tensor:
    """One of four actions: the sign and axis of the larger of the first two dimensions."""
    choice = torch.cat([latent[:, :2], -latent[:, :2]], dim=-1).argmax(-1)
    return torch.eye(4)[choice]


@pytest.mark.parametrize("goals", [False, True])
def test_it_learns_a_rule_of_the_state(goals: bool) -> None:
    latent, goal = torch.randn(2, 1000, 4, generator=generator(11))
    right = direction(goal - latent if goals else latent).argmax(-1)
    accuracy = []
    for shuffled in (False, True):
        actor = make(spaces.Discrete(4), goals=goals)
        imitate(actor, direction, shuffled, goals)
        chosen = actor(State(latent), PLAIN.with_goal(goal)).mode()
        accuracy.append(float((chosen == right).float().mean()))
    assert accuracy[0] > 0.9
    assert accuracy[1] < 0.5


def test_it_learns_a_rule_of_the_state_for_a_box() -> None:
    encoder = ActionEncoder(SKEWED)

    def rule(latent: Tensor) -> Tensor:
        mean = encoder.decode(0.9 * torch.sin(latent[:, :3]))
        return torch.cat([mean, torch.tensor([0.01, 0.01, 0.1]).expand_as(mean)], dim=-1)

    latent = torch.randn(1000, 4, generator=generator(11))
    wanted = encoder(rule(latent).chunk(2, dim=-1)[0])
    residual = []
    for shuffled in (False, True):
        actor = make(SKEWED)
        imitate(actor, rule, shuffled)
        done = encoder(actor(State(latent), PLAIN).mode().detach())
        residual.append(float((done - wanted).square().mean() / wanted.var()))
    assert residual[0] < 0.1
    assert residual[1] > 0.7
