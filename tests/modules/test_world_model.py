"""The world model: it predicts better than no change and than with other actions, counts its calls, foresees events."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from forethought.agent.config import WorldModelLoss
from forethought.agent.criterion import world_model_loss
from forethought.modules.actions import ActionEncoder
from forethought.modules.cost import goal_distance
from forethought.modules.memory import MemoryShape, ShortTermMemory, Window
from forethought.modules.perception import Perception, PerceptionConfig
from forethought.modules.types import INTEROCEPTION, State
from forethought.modules.world_model import WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor

BOX = spaces.Box(np.array([-0.2, -0.4], np.float32), np.array([0.2, 0.1], np.float32))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete, latent: int = 4, events: bool = True
) -> WorldModel:
    """An untrained model whose heads, which start at zero, were given something to say."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(WorldModelConfig(hidden=16, bins=11, events=events), latent, ActionEncoder(space))
        for head in (model.reward, model.ending):
            torch.nn.init.normal_(head.weight, std=0.5)
    return model


def random_actions(space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete, *shape: int) -> Tensor:
    space.seed(0)
    flat = np.stack([space.sample() for _ in range(int(np.prod(shape)))])
    return torch.from_numpy(flat).view(*shape, *space.shape)


SPACES = [spaces.Discrete(3), spaces.MultiDiscrete([3, 2]), BOX]


# ---- one engine


@pytest.mark.parametrize("space", SPACES, ids=["discrete", "multi", "box"])
@pytest.mark.parametrize("goals", [False, True])
def test_rollout_is_predict_repeated(space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete, goals: bool) -> None:
    model = make(space)
    actions = random_actions(space, 2, 3, 5)
    start = torch.randn(2, 4, generator=generator())
    goal = torch.randn(2, 4, generator=generator(1)) if goals else None
    imagined = model.rollout(State(start), actions, goal)
    assert imagined.latent.shape == (2, 3, 6, 4)
    assert imagined.interoception.shape == (2, 3, 5, len(INTEROCEPTION))
    assert imagined.continuation.shape == (2, 3, 5)
    for b in range(2):
        for s in range(3):
            state = State(start[b])
            assert torch.equal(imagined.latent[b, s, 0], start[b])
            for t in range(5):
                state = model.predict(state, actions[b, s, t], None if goal is None else goal[b])
                assert state.interoception is not None
                assert state.continuation is not None
                assert torch.allclose(imagined.latent[b, s, t + 1], state.latent, atol=1e-5)
                assert torch.allclose(imagined.interoception[b, s, t], state.interoception, atol=1e-4)
                assert torch.allclose(imagined.continuation[b, s, t], state.continuation, atol=1e-5)


def test_every_single_prediction_is_counted() -> None:
    model = make(spaces.Discrete(3))
    assert model.calls == 0
    model.rollout(State(torch.zeros(2, 4)), torch.zeros(2, 5, 7, dtype=torch.int64))
    assert model.calls == 2 * 5 * 7
    model.predict(State(torch.zeros(3, 4)), torch.zeros(3, dtype=torch.int64))
    assert model.calls == 2 * 5 * 7 + 3
    model.predict(State(torch.zeros(2, 6, 4)), torch.zeros(2, 6, dtype=torch.int64))
    assert model.calls == 2 * 5 * 7 + 3 + 12


def test_actions_act_from_their_own_time_on() -> None:
    """a[t] leads from s[t] to s[t+1]: what is done later changes nothing before, what is done now changes the next."""
    model = make(spaces.Discrete(3))
    actions = torch.zeros(1, 1, 6, dtype=torch.int64)
    other = actions.clone()
    other[..., 3] = 1
    first, second = (model.rollout(State(torch.zeros(1, 4)), a) for a in (actions, other))
    assert torch.equal(first.latent[:, :, :4], second.latent[:, :, :4])
    assert (first.latent[:, :, 4:] - second.latent[:, :, 4:]).abs().amax(-1).min() > 1e-4
    assert torch.equal(first.interoception[:, :, :3], second.interoception[:, :, :3])
    assert (first.interoception[:, :, 3, 0] - second.interoception[:, :, 3, 0]).abs() > 1e-4
    assert torch.equal(first.continuation[:, :, :3], second.continuation[:, :, :3])
    assert (first.continuation[:, :, 3] - second.continuation[:, :, 3]).abs() > 1e-5


def test_candidates_and_environments_do_not_mix() -> None:
    model = make(BOX)
    actions, start = random_actions(BOX, 3, 4, 5), torch.randn(3, 4, generator=generator())
    whole = model.rollout(State(start), actions)
    part = model.rollout(State(start[1:2]), actions[1:2, 2:3])
    assert torch.allclose(whole.latent[1:2, 2:3], part.latent, atol=1e-5)
    assert torch.allclose(whole.interoception[1:2, 2:3], part.interoception, atol=1e-4)


def test_batches_must_agree() -> None:
    with pytest.raises(ValueError, match="2 states but actions for 3; give one set of plans per state"):
        make(BOX).rollout(State(torch.zeros(2, 4)), torch.zeros(3, 1, 5, 2))


def test_an_untrained_model_promises_nothing() -> None:
    model = WorldModel(WorldModelConfig(hidden=16), 4, ActionEncoder(spaces.Discrete(3)))
    start = torch.randn(5, 4, generator=generator())
    state = model.predict(State(start), torch.zeros(5, dtype=torch.int64))
    assert state.interoception is not None
    assert state.continuation is not None
    assert torch.allclose(state.interoception[:, 0], torch.zeros(5), atol=1e-3)
    assert torch.allclose(state.continuation, torch.full((5,), 0.5))
    assert float((state.latent - start).detach().std()) < 0.3


# ---- what is felt


@pytest.mark.parametrize("space", SPACES, ids=["discrete", "multi", "box"])
def test_channels(space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete) -> None:
    model = make(space)
    actions, start = random_actions(space, 2, 3, 5), torch.randn(2, 4, generator=generator())
    goal = torch.randn(2, 4, generator=generator(1))
    imagined = model.rollout(State(start), actions, goal)
    reward, ended, effort, distance = imagined.interoception[..., :4].unbind(-1)
    assert torch.allclose(distance, (imagined.latent[:, :, 1:] - goal[:, None, None]).square().mean(-1), atol=1e-6)
    assert torch.allclose(ended, 1 - imagined.continuation)
    ended = ended.detach()
    assert 0 < float(ended.min()) < float(ended.max()) < 1
    assert float(reward.detach().std()) > 0
    expected = model.actions(actions).square().sum(-1) if isinstance(space, spaces.Box) else torch.zeros(2, 3, 5)
    assert torch.allclose(effort, expected)
    without = model.rollout(State(start), actions)
    assert not without.interoception[..., 3].any()
    assert torch.equal(without.interoception[..., :3], imagined.interoception[..., :3])
    assert torch.equal(without.latent, imagined.latent)  # the goal is no part of the world


def test_without_events_nothing_is_felt_and_nothing_ends() -> None:
    model = make(BOX, events=False)
    goal = torch.ones(2, 4)
    imagined = model.rollout(State(torch.zeros(2, 4)), random_actions(BOX, 2, 3, 5), goal)
    assert not imagined.interoception[..., :2].any()
    assert torch.equal(imagined.continuation, torch.ones(2, 3, 5))
    assert imagined.interoception[..., 2:4].min() > 0


def test_gradient_reaches_first_actions_and_state() -> None:
    model = make(BOX)
    start = torch.randn(2, 4, generator=generator(), requires_grad=True)
    actions = random_actions(BOX, 2, 3, 5).requires_grad_()
    imagined = model.rollout(State(start), actions, torch.zeros(2, 4))
    for part in (imagined.latent[:, :, -1], imagined.interoception[:, :, -1], imagined.continuation[:, :, -1]):
        gradients = torch.autograd.grad(part.square().sum(), (start, actions), retain_graph=True)
        assert gradients[0].abs().min() > 0
        assert gradients[1][:, :, 0].abs().min() > 0


# ---- a corridor that ends at its right wall: rarely, with a reward


@dataclass(frozen=True)
class World:
    """Perception and world model trained on a corridor, and windows of another run."""

    perception: Perception
    world_model: WorldModel
    held: Window

    def latent(self) -> Tensor:
        with torch.no_grad():
            return self.perception(self.held.observation)

    def imagine(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of s[1…T], rewards and chances of an ending, along one course of actions for each window."""
        with torch.no_grad():
            imagined = self.world_model.rollout(State(self.latent()[:, 0]), action.unsqueeze(1))
        return imagined.latent[:, 0, 1:], imagined.interoception[:, 0, :, 0], 1 - imagined.continuation[:, 0]


STEPS = 5


def look(position: np.ndarray) -> np.ndarray:
    """Observations ``[E, 5]`` of positions ``[E, 2]``: bent and mixed."""
    mix = np.array([[1.0, 0.5, 0.0, -0.7, 0.3], [0.0, 0.5, 1.0, 0.7, -0.6]])
    return np.tanh(position @ mix).astype(np.float32)


def corridor(seed: int, length: int = 150) -> ShortTermMemory:
    """32 streams of random walks. Where x passes 1 the episode ends with reward 2; where y passes −1 with nothing."""
    draws = np.random.default_rng(seed)
    shape = MemoryShape((5,), pixels=False, action=(2,), discrete=False, plan=4, horizon=1)
    memory = ShortTermMemory(shape, 32, 32 * length)

    def anywhere() -> np.ndarray:
        return draws.uniform(-1, [0.8, 1.0], size=(32, 2))

    position, age = anywhere(), np.zeros(32, int)
    for _ in range(length):
        action = draws.uniform(BOX.low, BOX.high, size=(32, 2)).astype(np.float32)
        seen, position = look(position), position + 1.5 * action + [0.0, 0.225]
        position[:, 1] = np.clip(position[:, 1], -1, 1)
        position[:, 0] = np.maximum(position[:, 0], -1)
        age += 1
        over = position[:, 0] > 1
        late = (age >= 20) & ~over
        memory.write(seen, action, np.where(over, 2.0, 0.0), over, late)
        position, age = np.where((over | late)[:, None], anywhere(), position), np.where(over | late, 0, age)
    return memory


def train(memory: ShortTermMemory, shuffled: bool = False, updates: int = 400) -> tuple[Perception, WorldModel]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        perception = Perception(PerceptionConfig("mlp", latent=6, width=12), (5,))
        world_model = WorldModel(WorldModelConfig(hidden=48), 6, ActionEncoder(BOX))
    perception.fit_inputs(torch.from_numpy(memory.data["observation"]).flatten(0, 1))
    optimiser = torch.optim.AdamW([*perception.parameters(), *world_model.parameters()], 4e-3)
    draws, windows = generator(), np.random.default_rng(0)
    for update in range(updates):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * (1 - update / updates)
        window = memory.sample(48, STEPS, windows, balance=0.25)
        if shuffled:
            window = replace(window, action=window.action.roll(1, 0))
        optimiser.zero_grad()
        loss, _ = world_model_loss(perception, world_model, window, WorldModelLoss(directions=32), 1.0, draws)
        loss.backward()
        optimiser.step()
    return perception.eval(), world_model.eval()


@pytest.fixture(scope="module")
def memory() -> ShortTermMemory:
    return corridor(1)


@pytest.fixture(scope="module")
def held() -> Window:
    return corridor(2).sample(2000, STEPS, np.random.default_rng(3))


@pytest.fixture(scope="module")
def world(memory: ShortTermMemory, held: Window) -> World:
    return World(*train(memory), held)


def step_errors(predicted: Tensor, latent: Tensor, known: Tensor) -> list[float]:
    """Mean squared error after 1 … T steps where the state was seen."""
    error = (predicted - latent[:, 1:]).square().mean(-1)
    return ((error * known).sum(0) / known.sum(0)).tolist()


def test_it_predicts_better_than_no_change_and_than_with_other_actions(world: World) -> None:
    latent, known = world.latent(), world.held.known
    right = step_errors(world.imagine(world.held.action)[0], latent, known)
    still = step_errors(latent[:, :1], latent, known)
    other = step_errors(world.imagine(world.held.action.roll(1, 0))[0], latent, known)
    late = step_errors(world.imagine(world.held.action.roll(1, 1))[0], latent, known)
    for k in range(STEPS):
        assert right[k] < 0.4 * still[k]
        assert right[k] < 0.4 * other[k]
    for k in range(STEPS - 1):  # with the same actions an instant too late; after T steps their sum is the same
        assert right[k] < 0.6 * late[k]


def test_trained_on_shuffled_actions_it_knows_no_better_than_no_change(memory: ShortTermMemory, world: World) -> None:
    mutant = World(*train(memory, shuffled=True, updates=150), world.held)
    latent, known = mutant.latent(), world.held.known
    wrong = step_errors(mutant.imagine(world.held.action)[0], latent, known)
    still = step_errors(latent[:, :1], latent, known)
    right = step_errors(world.imagine(world.held.action)[0], world.latent(), known)
    normal = step_errors(world.latent()[:, :1], world.latent(), known)
    for k in range(STEPS):
        assert wrong[k] > 0.6 * still[k]
        assert wrong[k] / still[k] > 2 * right[k] / normal[k]


def test_different_actions_lead_where_they_lead(world: World) -> None:
    """From the same state the action that goes further right is imagined further right (test W2)."""
    with torch.no_grad():
        positions = torch.rand(500, 2, generator=generator(5)) * 1.4 - 0.9
        observation = torch.from_numpy(look(positions.numpy()))[:, None]
        latent = world.perception(observation)
        # a linear reading of x from latents
        inputs = torch.cat([latent, torch.ones(500, 1)], dim=1)
        reading = torch.linalg.lstsq(inputs, positions[:, :1]).solution
        left, right = (torch.tensor([[[[-a, 0.0]]]]).expand(500, 1, 3, 2).clone() for a in (0.05, -0.05))
        ends = [world.world_model.rollout(State(latent), a).latent[:, 0, -1] for a in (left, right)]
        x = [(torch.cat([end, torch.ones(500, 1)], dim=1) @ reading).squeeze(-1) for end in ends]
    assert float((x[1] > x[0]).float().mean()) > 0.95


def area(score: Tensor, event: Tensor) -> float:
    """Chance that an event scores higher than a transition without (area under the ROC curve)."""
    ranks = score.argsort().argsort().double() + 1
    positives = float(event.sum())
    return (float(ranks[event].sum()) - positives * (positives + 1) / 2) / (positives * (len(event) - positives))


def test_rare_events_are_foreseen_in_imagined_states(world: World) -> None:
    _, reward, ended = world.imagine(world.held.action)
    for k in range(STEPS):
        valid = world.held.valid[:, k] > 0
        event = world.held.terminated[valid, k] > 0
        assert 0.002 < float(event.float().mean()) < 0.1
        assert area(ended[valid, k], event) > 0.97
        assert area(reward[valid, k], event) > 0.97
        assert float(ended[valid, k][event].mean()) > 4 * float(ended[valid, k][~event].mean())
    valid = world.held.valid > 0
    event = (world.held.terminated > 0) & valid
    assert float(ended[valid].mean()) == pytest.approx(float(event[valid].float().mean()), abs=0.015)
    assert float(reward[event].mean()) > 1.0
    assert abs(float(reward[valid & ~event].mean())) < 0.2
    _, _, elsewhere = world.imagine(world.held.action.roll(1, 0))
    k = STEPS - 1
    still = world.held.valid[:, k] > 0
    happened = world.held.terminated[still, k] > 0
    assert area(ended[still, k], happened) > area(elsewhere[still, k], happened) + 0.1


def test_goal_distance_orders_places(world: World) -> None:
    """In latents, too, what is near is near."""
    with torch.no_grad():
        line = np.stack([np.linspace(-0.9, 0.9, 19), np.zeros(19)], axis=1)
        latent = world.perception(torch.from_numpy(look(line))[:, None])
        distance = goal_distance(latent, latent[9])
    assert int(distance.argmin()) == 9
    assert (distance[10:].diff() > 0).all()
    assert (distance[:9].diff() < 0).all()
