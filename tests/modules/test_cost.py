"""Intrinsic cost: fixed formulas, nothing to learn, nothing to change, floors under the weights of end and hazard."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from forethought.agent.modes import Energy, Modules
from forethought.modules.actions import ActionEncoder
from forethought.modules.actor import Actor, ActorConfig
from forethought.modules.configurator import Configurator, Task
from forethought.modules.cost import IntrinsicCost, floored, goal_distance, interoception, plan_energy
from forethought.modules.critic import Critic, CriticConfig
from forethought.modules.perception import Perception, PerceptionConfig
from forethought.modules.types import DRIVES, INTEROCEPTION, SENSORS, Configuration, State, drive_weights
from forethought.modules.world_model import WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor, nn

K = len(DRIVES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- what it is


def test_there_is_nothing_to_learn() -> None:
    cost = IntrinsicCost()
    assert not isinstance(cost, nn.Module)
    assert not hasattr(cost, "parameters")
    assert not hasattr(cost, "__dict__")
    assert IntrinsicCost() == cost


def test_it_cannot_be_assigned_to() -> None:
    cost = IntrinsicCost()
    for name in ("__call__", "weight", "u", "anything"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(cost, name, 1)
        with pytest.raises((AttributeError, TypeError)):
            object.__setattr__(cost, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        del cost.__call__  # type: ignore[misc]


# ---- the formulas


def test_drives_by_hand() -> None:
    felt = interoception(
        reward=torch.tensor([2.0, -1.0]),
        ended=torch.tensor([0.0, 1.0]),
        effort=torch.tensor([0.5, 0.25]),
        distance=torch.tensor([3.0, 4.0]),
        energy=torch.tensor([1.0, 0.4]),
        hazard_distance=torch.tensor([0.0, 0.1]),
        disagreement=torch.tensor([0.5, 0.0]),
        impact=torch.tensor([0.25, 2.0]),
    )
    u = drive_weights(pleasure=1.0, ending=10.0, effort=2.0, goal=0.5, hunger=5.0, hazard=3.0, novelty=4.0, agency=-1.0)
    far, farther = 0.5 * (1 - math.exp(-3.0 / 0.5)), 0.5 * (1 - math.exp(-4.0 / 0.5))
    expected = torch.tensor(
        [
            [-2.0, 0.0, 1.0, far, 0.0, 3.0, -2.0, 0.25],
            [1.0, 10.0, 0.5, farther, 5 * 0.36, 3 * math.exp(-2.0), 0.0, 2.0],
        ]
    )
    assert torch.allclose(IntrinsicCost()(felt, u), expected)


@pytest.mark.parametrize("drive", range(K), ids=DRIVES)
def test_each_drive_reads_its_own_channel(drive: int) -> None:
    felt = torch.tensor([3.0, 1.0, 5.0, 0.2, 0.7, 0.05, 0.3, 0.6])
    expected = torch.zeros(K)
    energies = torch.tensor([-3.0, 1.0, 5.0, 1 - math.exp(-0.4), 0.09, math.exp(-1.0), -0.3, -0.6])
    expected[drive] = energies[drive]
    assert torch.allclose(IntrinsicCost()(felt, torch.eye(K)[drive]), expected)


def test_interoception_has_its_channels_in_order() -> None:
    felt = interoception(*(torch.full((2, 3), float(i)) for i in range(len(INTEROCEPTION))))
    assert felt.shape == (2, 3, len(INTEROCEPTION))
    assert felt[0, 0].tolist() == list(range(len(INTEROCEPTION)))
    without = interoception(torch.ones(2), torch.ones(2), torch.ones(2))
    assert without.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 2


def test_goal_distance_is_the_mean_square() -> None:
    latent = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    goal = torch.tensor([[[1.0, 0.0]]])
    assert goal_distance(latent, goal).tolist() == [[2.0, 0.5]]


def test_flipping_the_sign_of_a_weight_flips_the_order() -> None:
    felt = interoception(torch.tensor([0.0, 1.0, 3.0]), torch.zeros(3), torch.zeros(3))
    wanting = IntrinsicCost()(felt, drive_weights(pleasure=1.0)).sum(-1)
    loathing = IntrinsicCost()(felt, drive_weights(pleasure=-1.0)).sum(-1)
    assert int(wanting.argmin()) == 2
    assert int(loathing.argmin()) == 0


def test_hunger_is_least_when_the_battery_is_full() -> None:
    """Homeostasis: the charge e* is sought, not as much as possible, and flipping the sign seeks to starve."""
    charge = torch.linspace(0, 1.4, 15)
    felt = interoception(*(torch.zeros(15),) * 3, energy=charge)
    wanting = IntrinsicCost()(felt, drive_weights(hunger=1.0)).sum(-1)
    assert float(charge[wanting.argmin()]) == pytest.approx(1.0)
    assert float(charge[IntrinsicCost()(felt, drive_weights(hunger=-1.0)).sum(-1).argmin()]) == 0


def test_gradient_flows_through() -> None:
    felt = torch.rand(5, len(INTEROCEPTION), generator=generator(), requires_grad=True)
    u = drive_weights(pleasure=2.0, ending=3.0, effort=4.0, goal=5.0, hunger=6.0, hazard=7.0, novelty=8.0, agency=9.0)
    IntrinsicCost()(felt, u).sum().backward()
    assert felt.grad is not None
    distance, charge, hazard = felt[0, 3:6].tolist()
    slope, away = 5.0 * math.exp(-distance / 0.5) / 0.5, -7.0 * math.exp(-hazard / 0.05) / 0.05
    expected = torch.tensor([-2.0, 3.0, 4.0, slope, -12 * (1 - charge), away, -8.0, -9.0])
    assert torch.allclose(felt.grad[0], expected, rtol=1e-4)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="interoception has 3 channels, expected 8"):
        IntrinsicCost()(torch.zeros(2, 3), torch.ones(K))
    with pytest.raises(ValueError, match=r"weights u have shape \(3,\), expected \(8,\)"):
        IntrinsicCost()(torch.zeros(2, 8), torch.ones(3))


# ---- the floors


def test_no_weights_make_the_end_attractive() -> None:
    """Whatever u says, ending never lowers the energy, and the other drives keep their sign."""
    draws = generator()
    running = torch.rand(200, len(INTEROCEPTION), generator=draws)
    running[:, 1] = 0
    ended = running.clone()
    ended[:, 1] = 1
    for _ in range(100):
        u = torch.randn(K, generator=draws) * 10
        before, after = IntrinsicCost()(running, u), IntrinsicCost()(ended, u)
        assert (after.sum(-1) >= before.sum(-1) - 1e-4).all()
        assert torch.allclose(after[:, 1], u[1].clamp(min=0).expand(200))
        assert torch.allclose(after[:, 2], u[2] * running[:, 2])
        assert torch.equal(after[:, 3:], before[:, 3:])
        assert torch.allclose(after[:, 0], -u[0] * running[:, 0])


def test_no_weight_vector_passes_the_safety_floors() -> None:
    """Of any state, ending it or coming nearer to a hazard never has the lower energy: 1000 random weight vectors."""
    draws = generator(8)
    scales = 10 ** torch.linspace(-3, 6, 1000).unsqueeze(-1)
    weights = torch.randn(1000, K, generator=draws) * scales * torch.randint(0, 2, (1000, K), generator=draws)
    weights[0], weights[1] = -1.0, -torch.inf
    weights[1, [0, 2, 3, 4, 6, 7]] = 0.0  # and the worst that safety can be asked for
    passed = torch.zeros(2)
    for u in weights:
        assert (floored(u)[[1, 5]] >= 0).all()
        free = [0, 2, 3, 4, 6, 7]
        assert torch.equal(floored(u)[free], u[free])  # nothing else is touched
        felt = torch.rand(20, len(INTEROCEPTION), generator=draws)
        felt[:, 1] = 0
        ended, nearer = felt.clone(), felt.clone()
        ended[:, 1] = 1
        nearer[:, 5] *= torch.rand(20, generator=draws)
        costs = IntrinsicCost()(felt, u)
        for drive, worse in ((1, ended), (5, nearer)):
            change = IntrinsicCost()(worse, u) - costs
            assert (change[:, drive] >= 0).all()
            others = [k for k in range(K) if k != drive]
            assert torch.equal(change[:, others], torch.zeros(20, K - 1))
            passed[int(drive == 5)] += float(u[drive] > 0 and (change[:, drive] > 0).any())
    assert (passed > 100).all()  # and where they have weight, they are felt


def test_no_task_makes_hazards_attractive() -> None:
    """The floors hold from the task's settings on, in the weights of both costs."""
    draws = generator(9)
    for _ in range(100):
        wanted = dict(zip(("ending", "hazard", "hunger"), torch.randn(3, generator=draws).tolist(), strict=True))
        configuration = Configurator(Task(**wanted))("mode-2")
        for weights in (floored(configuration.u), floored(configuration.v)):
            expected = drive_weights(
                pleasure=1.0, ending=max(wanted["ending"], 0), hazard=max(wanted["hazard"], 0), hunger=wanted["hunger"]
            )
            assert torch.allclose(weights, expected)


def test_no_task_makes_the_critic_long_for_the_end() -> None:
    """The floor holds for the cost-to-go as well: v follows the task's weights, and TC has a head for the end."""
    configuration = Configurator(Task(ending=-5.0))("mode-2")
    critic = Critic(CriticConfig(hidden=8, bins=11), 2)
    with torch.no_grad():  # a critic that foresees the end everywhere
        critic.net[-1].bias.view(K, 11)[1] = critic.two_hot.encode(torch.tensor(3.0)).clamp(min=1e-6).log()
        assert float(critic.cost_to_go(torch.zeros(1, 2))[0, 1]) > 1
        assert float(critic(State(torch.zeros(1, 2)), configuration)[0, 1]) >= 0


# ---- the energy of a plan


def slow_energy(costs: list[float], goes_on: list[float], terminal: float, discount: float) -> float:
    alive, total = 1.0, 0.0
    for t, (cost, on) in enumerate(zip(costs, goes_on, strict=True), start=1):
        total += discount**t * alive * cost
        alive *= on
    return total + discount ** len(costs) * alive * terminal


@pytest.mark.parametrize("horizon", [1, 2, 7])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_plan_energy_equals_a_slow_loop(horizon: int, discount: float) -> None:
    draws = generator(horizon)
    costs = torch.randn(3, 5, horizon, generator=draws)
    goes_on = torch.rand(3, 5, horizon, generator=draws)
    terminal = torch.randn(3, 5, generator=draws)
    fast = plan_energy(costs, goes_on, terminal, discount)
    for b in range(3):
        for s in range(5):
            slow = slow_energy(costs[b, s].tolist(), goes_on[b, s].tolist(), float(terminal[b, s]), discount)
            assert float(fast[b, s]) == pytest.approx(slow, abs=1e-5)


def test_the_ending_is_felt_and_nothing_after_it() -> None:
    costs = torch.tensor([1.0, 10.0, 100.0])
    goes_on = torch.tensor([1.0, 0.0, 1.0])
    assert float(plan_energy(costs, goes_on, torch.tensor(1000.0), 1.0)) == pytest.approx(11.0)
    for later in (-50.0, 50.0):
        other = torch.tensor([1.0, 10.0, later])
        assert float(plan_energy(other, goes_on, torch.tensor(later), 1.0)) == pytest.approx(11.0)


def test_the_future_is_discounted() -> None:
    ones = torch.ones(3)
    assert float(plan_energy(torch.tensor([1.0, 0.0, 0.0]), ones, torch.tensor(0.0), 0.5)) == pytest.approx(0.5)
    assert float(plan_energy(torch.tensor([0.0, 0.0, 1.0]), ones, torch.tensor(0.0), 0.5)) == pytest.approx(0.125)
    assert float(plan_energy(torch.zeros(3), ones, torch.tensor(8.0), 0.5)) == pytest.approx(1.0)


# ---- every arrow is differentiable (test G2)


def smooth_modules(space: spaces.Box) -> Modules:
    """Untrained networks in double precision whose heads, which start at zero, were given something to say."""
    actions = ActionEncoder(space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        world_model = WorldModel(WorldModelConfig(hidden=16, bins=11, members=3), 4, actions, sensors=SENSORS)
        critic = Critic(CriticConfig(hidden=16, bins=11), 4)
        actor = Actor(ActorConfig(hidden=8), 4, actions)
        perception = Perception(PerceptionConfig("mlp", latent=4, width=4), (3,))
        with torch.no_grad():
            for layer in (world_model.reward, world_model.ending, critic.net[-1]):
                nn.init.normal_(layer.weight, std=0.5)
            assert world_model.sensing is not None
            nn.init.normal_(world_model.sensing.weight, std=0.05)  # near hazards, where they are felt
    return Modules(
        configurator=Configurator(Task()),
        perception=perception.double(),
        world_model=world_model.double(),
        intrinsic_cost=IntrinsicCost(),
        critic=critic.double(),
        actor=actor.double(),
    )


CONFIGURATIONS = {
    "all": Configuration(torch.tensor([1.0, 0.5, 0.1, 1.0, 0.7, 0.4, 2.0, 3.0]), torch.ones(K), torch.ones(2, 4)),
    "reward": Configuration(drive_weights(pleasure=1.0), torch.zeros(K)),
    "ending": Configuration(drive_weights(ending=1.0), torch.zeros(K)),
    "effort": Configuration(drive_weights(effort=1.0), torch.zeros(K)),
    "goal": Configuration(drive_weights(goal=1.0), torch.zeros(K), torch.ones(2, 4)),
    "hunger": Configuration(drive_weights(hunger=1.0), torch.zeros(K)),
    "hazard": Configuration(drive_weights(hazard=1.0), torch.zeros(K)),
    "novelty": Configuration(drive_weights(novelty=1.0), torch.zeros(K)),
    "agency": Configuration(drive_weights(agency=1.0), torch.zeros(K)),
    "critic": Configuration(torch.zeros(K), torch.ones(K)),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_gradient_of_the_energy_with_respect_to_actions(name: str) -> None:
    space = spaces.Box(-1, 2, (2,))
    modules = smooth_modules(space)
    configuration = CONFIGURATIONS[name]
    goal = None if configuration.goal is None else configuration.goal.double()
    configuration = replace(configuration, u=configuration.u.double(), v=configuration.v.double(), goal=goal)
    state = State(torch.randn(2, 4, generator=generator(1), dtype=torch.float64))
    objective = Energy(modules, state, configuration)
    actions = torch.rand(2, 3, 4, 2, generator=generator(2), dtype=torch.float64).requires_grad_()
    gradient = torch.autograd.grad(objective(actions).sum(), actions)[0]
    assert gradient.abs().amax(dim=(0, 1, 3)).min() > 0  # every step of every plan matters
    numeric = torch.zeros_like(gradient)
    step = 2e-3  # the encoder rounds actions to single precision, so not much smaller
    with torch.no_grad():
        for t in range(4):
            for a in range(2):
                nudge = torch.zeros(4, 2, dtype=torch.float64)
                nudge[t, a] = step
                change: Tensor = objective(actions + nudge) - objective(actions - nudge)
                numeric[:, :, t, a] = change / (2 * step)
    assert float((gradient - numeric).norm() / numeric.norm()) < 1e-3
