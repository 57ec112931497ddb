"""Perception: what it refuses, and that a dot's position can be read off what it learned, from pixels and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from forethought.agent.config import WorldModelLoss
from forethought.agent.criterion import world_model_loss
from forethought.modules.actions import ActionEncoder
from forethought.modules.memory import Window
from forethought.modules.perception import EncoderName, Perception, PerceptionConfig
from forethought.modules.types import Configuration, State
from forethought.modules.world_model import WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor

SIZE, STEPS = 16, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(config: PerceptionConfig, shape: tuple[int, ...], seed: int = 0) -> Perception:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Perception(config, shape)


# ---- shapes


@pytest.mark.parametrize("encoder", ["cnn", "pool", "impala", "mlp"])
@pytest.mark.parametrize("history", [1, 3])
def test_every_encoder_runs_and_learns(encoder: EncoderName, history: int) -> None:
    shape = (7,) if encoder == "mlp" else (20, 24, 3)
    perception = make(PerceptionConfig(encoder, latent=6, history=history, width=8), shape)
    percept = torch.randint(0, 256, (4, 5, history, *shape), generator=generator())
    percept = percept.float() if encoder == "mlp" else percept.to(torch.uint8)
    latent = perception(percept)
    assert latent.shape == (4, 5, 6)
    assert latent.dtype == torch.float32
    (latent * torch.randn(latent.shape, generator=generator())).sum().backward()
    weights = {name: p.grad for name, p in perception.named_parameters() if name.endswith("weight")}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in weights.values())
    perception.eval()
    state = perception.encode(percept)
    assert isinstance(state, State)
    assert torch.equal(state.latent, perception(percept))


@pytest.mark.parametrize("encoder", ["cnn", "pool", "impala", "mlp"])
def test_every_frame_of_the_history_matters(encoder: EncoderName) -> None:
    shape = (7,) if encoder == "mlp" else (16, 16, 3)
    perception = make(PerceptionConfig(encoder, latent=6, history=3, width=8), shape).eval()
    percept = torch.randint(0, 256, (2, 3, *shape), generator=generator()).float()
    percept = percept if encoder == "mlp" else percept.to(torch.uint8)
    for frame in range(3):
        other = percept.clone()
        other[:, frame] = 255 - other[:, frame]
        assert (perception(other) - perception(percept)).abs().max() > 1e-3
    assert (perception(percept.flip(1)) - perception(percept)).abs().max() > 1e-3  # and so does their order


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("frame", range(2))
def test_what_is_in_one_corner_stays_there_below_the_projection(frame: int, channel: int) -> None:
    """Rows, columns, colours and frames keep their places on the way to the convolutions."""
    perception = make(PerceptionConfig("cnn", latent=6, history=2, width=8), (32, 32, 3)).eval()
    maps: list[Tensor] = []
    perception.trunk.register_forward_hook(lambda module, inputs, output: maps.append(output.view(-1, 8, 4, 4)))
    percept = torch.randint(0, 256, (1, 2, 32, 32, 3), generator=generator()).to(torch.uint8)
    other = percept.clone()
    other[:, frame, :4, -4:, channel] = 255 - other[:, frame, :4, -4:, channel]
    perception(torch.cat([percept, other]))
    change = (maps[0][0] - maps[0][1]).abs().amax(0)
    assert change[0, 3] > 0
    assert change[2:].max() == 0
    assert change[:, :2].max() == 0


@pytest.mark.parametrize(
    ("encoder", "shape", "fit"),
    [
        ("mlp", (64, 64, 3), "cnn, pool or impala"),
        ("cnn", (8,), "mlp"),
        ("impala", (8,), "mlp"),
        ("mlp", (8, 8), "none"),
        ("cnn", (8, 8), "none"),
    ],
)
def test_encoder_and_observation_must_fit(encoder: EncoderName, shape: tuple[int, ...], fit: str) -> None:
    with pytest.raises(
        ValueError, match=rf"encoder '{encoder}' got observations of shape .*; encoders that fit: {fit}"
    ):
        Perception(PerceptionConfig(encoder), shape)


@pytest.mark.parametrize("shape", [(4, 16, 16, 3), (4, 1, 16, 16, 3), (4, 2, 3, 16, 16), (4, 2, 16, 16)])
def test_wrong_percepts_are_refused(shape: tuple[int, ...]) -> None:
    perception = make(PerceptionConfig("cnn", latent=6, history=2, width=8), (16, 16, 3))
    with pytest.raises(ValueError, match=r"percept has trailing shape .*, expected .* = \(2, 16, 16, 3\)"):
        perception(torch.zeros(shape))


@pytest.mark.parametrize("views", [1, 2, 9])
def test_views_are_shifted_by_two_pixels_and_averaged(views: int) -> None:
    """Numpy's edge padding, cut out at the centre, two to the right, two down, to the left, up, and the corners."""
    perception = make(PerceptionConfig("cnn", latent=6, history=2, width=8), (16, 16, 3)).eval()
    percept = torch.randint(0, 256, (4, 2, 16, 16, 3), generator=generator()).to(torch.uint8)
    wide = np.pad(percept.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    corners = [(2, 2), (2, 4), (4, 2), (2, 0), (0, 2), (4, 4), (4, 0), (0, 4), (0, 0)][:views]
    seen = [perception(torch.from_numpy(wide[:, :, y : y + 16, x : x + 16].copy())) for y, x in corners]
    u = torch.ones(1)
    latent = perception.encode(percept, Configuration(u, u, views=views)).latent
    assert torch.allclose(latent, torch.stack(seen).mean(0), atol=1e-6)
    assert torch.equal(perception.encode(percept).latent, seen[0])


@pytest.mark.parametrize(("encoder", "shape", "views"), [("mlp", (7,), 2), ("cnn", (16, 16, 3), 10), ("mlp", (7,), 0)])
def test_views_that_there_are_not_are_refused(encoder: EncoderName, shape: tuple[int, ...], views: int) -> None:
    perception, u = make(PerceptionConfig(encoder, latent=6, width=8), shape), torch.ones(1)
    with pytest.raises(ValueError, match=f"views is {views}"):
        perception.encode(torch.zeros(1, 1, *shape, dtype=torch.uint8), Configuration(u, u, views=views))


def test_latents_are_normalised_in_training_and_fixed_in_evaluation() -> None:
    perception = make(PerceptionConfig("mlp", latent=6, width=8), (5,))
    percept = 40 + 7 * torch.randn(512, 1, 5, generator=generator())
    for _ in range(200):
        latent = perception(percept)
    assert torch.allclose(latent.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(latent.std(0), torch.ones(6), atol=1e-2)
    perception.eval()
    whole, single = perception(percept), perception(percept[:1])
    assert torch.allclose(whole[:1], single, atol=1e-5)  # what is seen does not depend on who else is looking
    assert torch.allclose(whole, latent, atol=0.1)
    assert not list(perception.normalise.parameters())


def test_inputs_are_normalised_by_data() -> None:
    perception = make(PerceptionConfig("mlp", latent=6, width=8, history=2), (3,)).eval()
    scale, shift = torch.tensor([1000.0, 0.01, 1.0]), torch.tensor([5000.0, 0.0, -3.0])
    plain = torch.randn(256, 3, generator=generator())
    plain = (plain - plain.mean(0)) / plain.std(0)
    percept = plain.view(128, 2, 3)
    expected = perception(percept)
    perception.fit_inputs(plain * scale + shift)
    assert torch.allclose(perception(percept * scale + shift), expected, atol=1e-3)
    perception.fit_inputs(torch.ones(10, 3))  # a constant input is no division by zero
    assert torch.isfinite(perception(torch.ones(2, 2, 3))).all()
    pixels = make(PerceptionConfig("cnn", latent=6, width=8), (16, 16, 3)).eval()
    frames = torch.randint(0, 256, (4, 1, 16, 16, 3), generator=generator()).to(torch.uint8)
    before = pixels(frames)
    pixels.fit_inputs(frames)
    assert torch.equal(pixels(frames), before)


def test_input_normalisation_is_saved() -> None:
    perception = make(PerceptionConfig("mlp", latent=6, width=8), (3,))
    perception.fit_inputs(torch.randn(64, 3, generator=generator()) * 5 + 2)
    other = make(PerceptionConfig("mlp", latent=6, width=8), (3,), seed=1)
    other.load_state_dict(perception.state_dict())
    percept = torch.randn(4, 1, 3, generator=generator())
    assert torch.equal(perception.eval()(percept), other.eval()(percept))


# ---- what is learned: a dot that is moved by actions, in a picture full of noise


@dataclass(frozen=True)
class Dots:
    """Windows of a dot that five actions hold or move, and its positions ``[B, T+1, 2]``."""

    window: Window
    position: Tensor


def make_window(observation: Tensor, action: Tensor) -> Window:
    """A window of transitions in which nothing ends and nothing is felt."""
    batch, steps = action.shape[:2]
    zero, one = torch.zeros(batch, steps), torch.ones(batch, steps)
    plan = torch.zeros(batch, steps + 1, 1)
    return Window(observation, action, zero, zero, zero, one, one, plan, action, plan[..., 0])


MOVES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def dots(batch: int, seed: int) -> Dots:
    draws = generator(seed)
    position = [2 + 11 * torch.rand(batch, 2, generator=draws)]
    action = torch.randint(5, (batch, STEPS), generator=draws)
    for t in range(STEPS):
        position.append((position[-1] + MOVES[action[:, t]]).clamp(1, SIZE - 2))
    places = torch.stack(position, dim=1)
    grid = torch.arange(SIZE, dtype=torch.float32)
    row, column = (torch.exp(-0.5 * (grid - places[..., i, None]).square()) for i in range(2))
    image = 150 * row[..., :, None] * column[..., None, :]
    noise = 32 * torch.randn(image.shape, generator=draws) + 50
    pixels = (image + noise).clamp(0, 255).to(torch.uint8)
    return Dots(make_window(pixels[:, :, None, :, :, None], action), places)


def take(window: Window, index: Tensor) -> Window:
    return replace(window, **{k: v[index] for k, v in vars(window).items() if isinstance(v, Tensor)})


def train(perception: Perception, window: Window, space: spaces.Discrete, updates: int, seed: int = 0) -> WorldModel:
    """Perception and world model by the JEPA criterion with SIGReg; both are left in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = WorldModelConfig(hidden=64, events=False)
        world_model = WorldModel(config, perception.config.latent, ActionEncoder(space))
    parameters = [*perception.parameters(), *world_model.parameters()]
    optimiser = torch.optim.AdamW(parameters, 3e-3)
    draws = generator(seed)
    loss = WorldModelLoss(directions=32)
    perception.train()
    for update in range(updates):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - update / updates)
        batch = take(window, torch.randint(len(window.action), (48,), generator=draws))
        optimiser.zero_grad()
        world_model_loss(perception, world_model, batch, loss, 1.0, draws)[0].backward()
        optimiser.step()
    perception.eval()
    return world_model.eval()


def probe(inputs: Tensor, target: Tensor, held_inputs: Tensor, held_target: Tensor) -> float:
    """Least R² over the target's dimensions of a ridge regression, on held-out data."""
    mean, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    x, held = (torch.cat([(i - mean) / scale, torch.ones(len(i), 1)], dim=1).double() for i in (inputs, held_inputs))
    weights = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]).double(), x.T @ target.double())
    error = (held @ weights - held_target).square().mean(0)
    return float((1 - error / held_target.var(0)).min())


def encode(perception: Perception, window: Window) -> Tensor:
    with torch.no_grad():
        return perception(window.observation)


def one_step_error(perception: Perception, world_model: WorldModel, window: Window) -> float:
    """Squared error of the predicted next latent, relative to that of predicting no change."""
    with torch.no_grad():
        latent = perception(window.observation)
        predicted = world_model.predict(State(latent[:, :-1]), window.action).latent
    still = (latent[:, 1:] - latent[:, :-1]).square().mean()
    return float((predicted - latent[:, 1:]).square().mean() / still)


DOT = PerceptionConfig("cnn", latent=8, width=16)
SHAPE = (SIZE, SIZE, 1)


@pytest.fixture(scope="module")
def data() -> tuple[Dots, Dots]:
    return dots(1500, seed=1), dots(500, seed=2)


@pytest.fixture(scope="module")
def trained(data: tuple[Dots, Dots]) -> tuple[Perception, WorldModel]:
    perception = make(DOT, SHAPE)
    return perception, train(perception, data[0].window, spaces.Discrete(5), updates=300)


def flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def test_position_can_be_read_off_the_latent(data: tuple[Dots, Dots], trained: tuple[Perception, WorldModel]) -> None:
    seen, held = data

    def score(inputs: Tensor, held_inputs: Tensor) -> float:
        return probe(flat(inputs), flat(seen.position), flat(held_inputs), flat(held.position))

    learned = score(encode(trained[0], seen.window), encode(trained[0], held.window))
    random = []
    for seed in range(2):
        untrained = make(DOT, SHAPE, seed)
        untrained(seen.window.observation)  # sets the normalisation
        untrained.eval()
        random.append(score(encode(untrained, seen.window), encode(untrained, held.window)))
    frames, held_frames = (x.window.observation.flatten(2).float() for x in data)
    mean = flat(frames).mean(0)
    axes = torch.linalg.svd(flat(frames)[:2000] - mean, full_matrices=False).Vh[: DOT.latent].T
    pca = score((frames - mean) @ axes, (held_frames - mean) @ axes)
    assert learned >= 0.8
    assert learned > max(*random, pca) + 0.1


def test_the_latent_has_not_collapsed(data: tuple[Dots, Dots], trained: tuple[Perception, WorldModel]) -> None:
    latent = flat(encode(trained[0], data[1].window))
    assert latent.std(0).min() > 0.5
    spectrum = torch.linalg.svdvals(latent - latent.mean(0))
    share = spectrum / spectrum.sum()
    assert float(torch.exp(-(share * share.log()).sum())) > 3  # effective rank


def test_the_future_is_predicted_and_not_without_the_order_of_things(
    data: tuple[Dots, Dots], trained: tuple[Perception, WorldModel]
) -> None:
    seen, held = data
    assert one_step_error(*trained, held.window) < 0.6
    draws = generator(3)
    mixed = seen.window.observation.flatten(0, 1)
    mixed = mixed[torch.randperm(len(mixed), generator=draws)].view_as(seen.window.observation)
    perception = make(DOT, SHAPE)
    world_model = train(perception, replace(seen.window, observation=mixed), spaces.Discrete(5), updates=100)
    assert one_step_error(perception, world_model, held.window) > 0.8
    with torch.no_grad():
        relabelled = replace(held.window, action=held.window.action.roll(1, 0))
    assert one_step_error(*trained, relabelled) > 1.3 * one_step_error(*trained, held.window)


# ---- velocity needs history


@pytest.mark.parametrize("history", [1, 2])
def test_velocity_is_seen_with_history_only(history: int) -> None:
    """A free particle seen by its position: with two looks its velocity is in the latent, with one it cannot be."""

    def free(batch: int, seed: int) -> tuple[Window, Tensor]:
        draws = generator(seed)
        start, velocity = torch.randn(batch, 2, generator=draws), 0.5 * torch.randn(batch, 2, generator=draws)
        time = torch.arange(-1.0, STEPS + 1)
        position = start[:, None] + velocity[:, None] * (time - 1)[:, None]
        frames = torch.stack([position[:, t : t + STEPS + 1] for t in range(2)], dim=2)[:, :, 2 - history :]
        action = torch.zeros(batch, STEPS, dtype=torch.int64)
        return make_window(frames, action), velocity[:, None].expand(-1, STEPS + 1, -1)

    (seen, velocity), (held, held_velocity) = free(1500, 1), free(500, 2)
    perception = make(PerceptionConfig("mlp", latent=8, width=8, history=history), (2,))
    perception.fit_inputs(seen.observation.flatten(0, 2))
    world_model = train(perception, seen, spaces.Discrete(2), updates=200)
    middle = slice(1, 2)  # where the position is the start, which says nothing about the velocity
    score = probe(
        flat(encode(perception, seen)[:, middle]), flat(velocity[:, middle]),
        flat(encode(perception, held)[:, middle]), flat(held_velocity[:, middle]),
    )  # fmt: skip
    error = one_step_error(perception, world_model, held)
    if history == 2:
        assert score > 0.8
        assert error < 0.3
    else:
        assert score < 0.3
        assert error > 0.5
