"""The critic: its targets against slow references, and what it learns of a Markov chain whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from forethought.modules.critic import Critic, CriticConfig, lambda_returns
from forethought.modules.types import DRIVES, Configuration, State, drive_weights
from torch import Tensor

K = len(DRIVES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


# ---- λ-returns


def slow_return(t: int, c: Tensor, go: Tensor, v: Tensor, discount: float, trace: float) -> Tensor:
    """G[t] by the recursion, where c[t], go[t] and v[t] belong to the state that step t leads to."""
    if t == len(c) - 1:
        return c[t] + discount * go[t] * v[t]
    following = slow_return(t + 1, c, go, v, discount, trace)
    return c[t] + discount * go[t] * ((1 - trace) * v[t] + trace * following)


@pytest.mark.parametrize("trace", [0.0, 0.7, 0.95, 1.0])
def test_lambda_returns_equal_a_slow_recursion(trace: float) -> None:
    draws = generator()
    costs, values = torch.randn(3, 6, K, generator=draws), torch.randn(3, 6, K, generator=draws)
    go = torch.rand(3, 6, generator=draws)
    fast = lambda_returns(costs, go, values, 0.9, trace)
    assert fast.shape == costs.shape
    for b in range(3):
        for t in range(6):
            assert torch.allclose(fast[b, t], slow_return(t, costs[b], go[b], values[b], 0.9, trace), atol=1e-5)


def test_no_trace_is_one_step_and_full_trace_is_monte_carlo() -> None:
    draws = generator(1)
    costs, values = torch.randn(5, K, generator=draws), torch.randn(5, K, generator=draws)
    go = torch.ones(5)
    assert torch.allclose(lambda_returns(costs, go, values, 0.9, 0.0), costs + 0.9 * values)
    powers = 0.9 ** torch.arange(6.0)
    full = lambda_returns(costs, go, values, 0.9, 1.0)
    for t in range(5):
        rest = (powers[: 5 - t, None] * costs[t:]).sum(0) + powers[5 - t] * values[-1]
        assert torch.allclose(full[t], rest, atol=1e-5)


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
def test_nothing_passes_through_an_ending(trace: float) -> None:
    draws = generator(2)
    costs, values = torch.randn(5, K, generator=draws), torch.randn(5, K, generator=draws)
    go = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    before = lambda_returns(costs, go, values, 0.9, trace)
    assert torch.allclose(before[2], costs[2])
    costs[3:] += 100
    values[2:] -= 100
    after = lambda_returns(costs, go, values, 0.9, trace)
    assert torch.allclose(after[:3], before[:3], atol=1e-5)
    assert (after[3:] - before[3:]).abs().min() > 1


# ---- the network


def test_an_untrained_critic_expects_nothing() -> None:
    critic = Critic(CriticConfig(hidden=16), 5)
    assert torch.allclose(critic.cost_to_go(torch.randn(7, 5, generator=generator())), torch.zeros(7, K), atol=1e-4)


def test_shapes() -> None:
    critic = Critic(CriticConfig(hidden=16, bins=11), 5)
    latent = torch.zeros(2, 3, 5)
    assert critic.logits(latent).shape == (2, 3, K, 11)
    assert critic.cost_to_go(latent).shape == (2, 3, K)
    assert critic(State(latent), Configuration(torch.ones(K), torch.ones(K))).shape == (2, 3, K)


# ---- learning a Markov chain


@dataclass(frozen=True)
class Chain:
    """Steps forward mostly, sometimes jumps; ends in a few states. States are seen as random vectors."""

    states: int = 80
    discount: float = 0.85
    seed: int = 0

    def __post_init__(self) -> None:
        draws = generator(self.seed)
        n = self.states
        step = torch.roll(torch.eye(n), 1, dims=1)
        jump = torch.eye(n)[torch.randint(n, (n,), generator=draws)]
        ends = (torch.arange(n) % 20 == 7).float()
        costs = torch.zeros(n, K)  # felt on entering a state
        costs[:, 0] = -(torch.rand(n, generator=draws) < 0.25).float() * 2
        costs[:, 1] = ends
        costs[:, 2] = (torch.rand(n, generator=draws) < 0.25).float()
        object.__setattr__(self, "latent", torch.randn(n, 24, generator=draws))
        object.__setattr__(self, "moves", 0.9 * step + 0.1 * jump)
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "goes_on", 1 - ends)

    latent: Tensor = None  # type: ignore[assignment]
    moves: Tensor = None  # type: ignore[assignment]
    costs: Tensor = None  # type: ignore[assignment]
    goes_on: Tensor = None  # type: ignore[assignment]

    def truth(self) -> Tensor:
        """Cost-to-go ``[n, K]``: V = P(c + γ·go·V)."""
        system = torch.eye(self.states) - self.discount * self.moves * self.goes_on
        return torch.linalg.solve(system, self.moves @ self.costs)

    def walk(self, batch: int, steps: int, draws: torch.Generator) -> Tensor:
        """Paths ``[batch, steps + 1]``; a path runs on after an ending, as streams do."""
        at = torch.randint(self.states, (batch,), generator=draws)
        path = [at]
        for _ in range(steps):
            at = torch.multinomial(self.moves[at], 1, generator=draws).squeeze(-1)
            path.append(at)
        return torch.stack(path, dim=1)


def train(chain: Chain, shuffled: bool, updates: int = 500) -> Critic:
    with torch.random.fork_rng():
        torch.manual_seed(chain.seed)
        critic = Critic(CriticConfig(hidden=64), chain.latent.shape[1])
        slow = Critic(CriticConfig(hidden=64), chain.latent.shape[1])
    slow.load_state_dict(critic.state_dict())
    draws = generator(chain.seed + 1)
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    for _ in range(updates):
        path = chain.walk(32, 8, draws)
        with torch.no_grad():
            values = slow.cost_to_go(chain.latent[path[:, 1:]])
            target = lambda_returns(chain.costs[path[:, 1:]], chain.goes_on[path[:, 1:]], values, chain.discount, 0.9)
        if shuffled:
            target = target.flatten(0, 1)[torch.randperm(target[..., 0].numel(), generator=draws)].view_as(target)
        optimiser.zero_grad()
        critic.two_hot.loss(critic.logits(chain.latent[path[:, :-1]]), target).sum(-1).mean().backward()
        optimiser.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), critic.parameters(), strict=True):
                old.lerp_(new, 0.1)
    return critic


def score(chain: Chain, critic: Critic) -> list[float]:
    """Rank correlation with the truth of each drive that has any cost."""
    with torch.no_grad():
        learned, truth = critic.cost_to_go(chain.latent), chain.truth()
    return [spearman(learned[:, k], truth[:, k]) for k in range(3)]


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


@pytest.fixture(scope="module")
def learned(chain: Chain) -> Critic:
    return train(chain, shuffled=False)


def test_the_truth_is_the_mean_of_sampled_costs(chain: Chain) -> None:
    path = chain.walk(4000, 40, generator(5))
    running = torch.cumprod(torch.cat([torch.ones(4000, 1), chain.goes_on[path[:, 1:-1]]], dim=1), dim=1)
    powers = chain.discount ** torch.arange(40.0)
    sampled = (powers[:, None] * running[..., None] * chain.costs[path[:, 1:]]).sum(1)
    assert torch.allclose(sampled.mean(0), chain.truth()[path[:, 0]].mean(0), atol=0.1)


def test_it_learns_the_cost_to_go_of_every_drive(chain: Chain, learned: Critic) -> None:
    assert min(score(chain, learned)) >= 0.9
    with torch.no_grad():
        error = (learned.cost_to_go(chain.latent) - chain.truth()).abs().mean(0)
    assert (error[:3] < 0.25 * chain.truth()[:, :3].std(0)).all()
    assert float(error[3]) < 0.02  # the drive that never costs anything


def test_targets_shuffled_in_time_teach_nothing(chain: Chain) -> None:
    scores = score(chain, train(chain, shuffled=True))
    assert sum(scores) / len(scores) < 0.3


def test_new_weights_need_no_training(chain: Chain, learned: Critic) -> None:
    truth = chain.truth()
    for v in (
        drive_weights(pleasure=1.0, ending=3.0),
        drive_weights(effort=1.0),
        drive_weights(pleasure=1.0, effort=5.0),
        drive_weights(pleasure=-1.0, ending=1.0),
    ):
        with torch.no_grad():
            weighed = learned(State(chain.latent), Configuration(torch.zeros(K), v))
        assert torch.allclose(weighed, v * learned.cost_to_go(chain.latent))
        assert spearman(weighed.sum(-1), (v * truth).sum(-1)) >= 0.9
