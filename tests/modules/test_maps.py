"""Latents that are maps: what is learnt of one place holds in all, and nothing reaches further than it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from forethought.modules.actions import ActionEncoder
from forethought.modules.actor import Actor, ActorConfig, SquashedGaussianPolicy
from forethought.modules.critic import Critic, CriticConfig
from forethought.modules.networks import MapReader, Reader
from forethought.modules.perception import Perception, PerceptionConfig
from forethought.modules.predictors import ConvPredictor, MapInverse, ScreenPredictor
from forethought.modules.types import Configuration, State, drive_weights
from forethought.modules.world_model import WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor

GRID, CHANNELS = (11, 12), 2
LATENT = CHANNELS * GRID[0] * GRID[1]
BOX = spaces.Box(-1.0, 1.0, (2,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spot(row: int, column: int, value: float = 1.0) -> Tensor:
    """A latent that is zero but in one place."""
    latent = torch.zeros(CHANNELS, *GRID)
    latent[:, row, column] = value
    return latent.flatten()


def predictor(kind: type[ConvPredictor] = ConvPredictor) -> ConvPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(LATENT, 2, 8, GRID)


each_kind = pytest.mark.parametrize("kind", [ConvPredictor, ScreenPredictor])


@each_kind
def test_what_happens_does_not_depend_on_where_and_only_on_what_is_near(kind: type[ConvPredictor]) -> None:
    conv, action = predictor(kind), torch.tensor([[0.5, -0.2]])

    def change(latent: Tensor) -> Tensor:
        with torch.no_grad():
            return (conv((latent[None],), action)[0][0] - latent).reshape(CHANNELS, *GRID)

    nothing = change(torch.zeros(LATENT))
    here, there = change(spot(5, 5)) - nothing, change(spot(6, 7)) - nothing
    assert here.abs().max() > 1e-3
    assert torch.allclose(here[:, 4:7, 4:7], there[:, 5:8, 6:9], atol=1e-6)
    reached = change(spot(0, 0)) - nothing
    assert reached[:, 4:].abs().max() < 1e-6 and reached[:, :, 4:].abs().max() < 1e-6  # three convolutions: 3 places


@each_kind
def test_actions_matter_everywhere(kind: type[ConvPredictor]) -> None:
    conv, latent = predictor(kind), torch.randn(1, LATENT, generator=generator())
    with torch.no_grad():
        left, right = (conv((latent,), torch.tensor([[a, 0.0]]))[0][0] for a in (-1.0, 1.0))
    assert ((left - right).reshape(CHANNELS, -1).abs().amax(0) > 1e-4).all()


def told_apart(kind: type[ConvPredictor]) -> float:
    """Share of spots of a strength that was not shown of which a head says rightly in which half of the screen they
    are; all are far from the edges, where even a mean over the map knows."""
    told, action = predictor(kind), torch.zeros(1, 2)
    head = torch.nn.Linear(8, 1)
    places = [(row, column) for row in range(3, 8) for column in range(3, 9)]
    shown, asked = (torch.stack([spot(*place, value) for value in each for place in places]) for each in ((2, 4), (3,)))
    left = torch.tensor([float(column < GRID[1] // 2) for _, column in places])
    optimiser = torch.optim.Adam([*told.parameters(), *head.parameters()], 3e-3)

    def said(some: Tensor) -> Tensor:
        return head(told((some,), action.expand(len(some), -1))[1])[:, 0]  # type: ignore[no-any-return]

    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said(shown), left.repeat(2))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return float(((said(asked) > 0) == (left > 0)).float().mean())


def test_heads_of_a_screen_know_where_and_those_of_a_map_do_not() -> None:
    assert told_apart(ScreenPredictor) > 0.9
    assert told_apart(ConvPredictor) < 0.6


def test_of_a_screen_actor_and_critic_read_every_place() -> None:
    config = PerceptionConfig("cnn", latent=128, latents="screen", width=16, stride=4)
    screen = Perception(config, (64, 64, 3))
    assert screen.grid == (8, 8) and screen.searched is None
    assert Perception(replace(config, latents="map"), (64, 64, 3)).searched == (8, 8)
    assert Perception(replace(config, latents="vector"), (64, 64, 3)).searched is None


def test_a_map_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a latent of 10 is no map of 3×3 places"):
        ConvPredictor(10, 2, 8, (3, 3))
    with pytest.raises(ValueError, match="predictor conv needs latents that are a map"):
        WorldModel(WorldModelConfig("conv"), 18, ActionEncoder(BOX))
    with pytest.raises(ValueError, match=r"predictor screen needs .* set perception.latents to screen"):
        WorldModel(WorldModelConfig("screen"), 18, ActionEncoder(BOX))
    with pytest.raises(ValueError, match="a map of 8×8 places needs a multiple of 64"):
        Perception(PerceptionConfig("cnn", latent=100, latents="map"), (64, 64, 3))
    with pytest.raises(ValueError, match="vector observations have no places"):
        Perception(PerceptionConfig("mlp", latent=64, latents="map"), (5,))


@pytest.mark.parametrize(("encoder", "stride"), [("cnn", 4), ("cnn", 2), ("impala", 2), ("pool", 2)])
def test_a_percepts_places_are_the_latents_places(encoder: str, stride: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PerceptionConfig(encoder, latent=128, latents="map", width=16, stride=stride)  # type: ignore[arg-type]
        perception = Perception(config, (64, 64, 3)).eval()
    assert perception.grid == (8, 8)
    picture = torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)
    changed = picture.clone()
    changed[:, :, 50:54, 10:14] = 255
    with torch.no_grad():
        moved = (perception(changed) - perception(picture)).reshape(2, 8, 8).abs().sum(0)
    assert int(moved.argmax()) in {6 * 8 + 1, 5 * 8 + 1, 6 * 8 + 2, 7 * 8 + 1, 6 * 8}
    assert moved[:2].max() < 0.01 * moved.max() and moved[:, 6:].max() < 0.1 * moved.max()


def test_the_latents_of_a_map_have_unit_variance_in_every_channel() -> None:
    perception = Perception(PerceptionConfig("cnn", latent=128, latents="map", width=16, stride=4), (64, 64, 3)).train()
    pictures = torch.randint(0, 256, (40, 1, 64, 64, 3), generator=generator(), dtype=torch.uint8)
    channels = perception(pictures).reshape(40, 2, 64)
    assert torch.allclose(channels.mean((0, 2)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(channels.std((0, 2)), torch.ones(2), atol=0.05)


def test_the_inverse_reads_where_something_changed() -> None:
    """A scene that stands still tells it nothing; the same move tells it the same in every place."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inverse = MapInverse(LATENT, 8, 2, GRID)

    def told(before: Tensor, after: Tensor) -> Tensor:
        with torch.no_grad():
            return inverse(torch.cat([before, after])[None])[0]

    moved = told(spot(5, 5), spot(5, 6))
    assert torch.allclose(moved, told(spot(6, 3), spot(6, 4)), atol=1e-5)
    assert not torch.allclose(moved, told(spot(5, 6), spot(5, 5)), atol=1e-3)
    with_scene = told(spot(5, 5) + spot(9, 9, 3.0), spot(5, 6) + spot(9, 9, 3.0))
    assert torch.allclose(moved, with_scene, atol=1e-5)
    still = torch.randn(LATENT, generator=generator())
    assert torch.allclose(told(still, still), told(2 * still, 2 * still), atol=1e-5)


def test_a_map_reader_finds_a_spot_wherever_it_is() -> None:
    """Trained on the places of half of the columns it tells those of the others."""
    torch.manual_seed(0)
    grid = (8, 8)
    reader = MapReader(64, grid)
    head = torch.nn.Linear(reader.features, 2)
    maps, places = torch.eye(64), torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1)
    places = places.reshape(64, 2) / 7
    taught = (torch.arange(64) % 8) % 2 == 0
    optimiser = torch.optim.Adam([*reader.parameters(), *head.parameters()], 1e-2)
    for _ in range(300):
        loss = (head(reader(3 * maps[taught])) - places[taught]).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        error = (head(reader(3 * maps[~taught])) - places[~taught]).abs().mean()
    assert error < 0.12  # a guess is wrong by 0.29


@pytest.mark.parametrize("grid", [None, GRID])
def test_every_latent_is_read_beside_every_goal(grid: tuple[int, int] | None) -> None:
    """As a layer on both side by side would, also one by one."""
    reader = Reader(LATENT, True, grid)
    layer = torch.nn.Linear(reader.features, 7)
    latent = torch.randn(3, 4, LATENT, generator=generator())
    goals = torch.randn(3, 5, LATENT, generator=generator(1))
    with torch.no_grad():
        crossed = reader(layer, latent, goals)
        assert crossed.shape == (3, 5, 4, 7)
        seen, wanted = reader.look(latent), reader.look(goals)
        for g in range(5):
            beside = torch.cat([seen, wanted[:, g, None].expand_as(seen)], dim=-1)
            assert torch.allclose(crossed[:, g], layer(beside), atol=1e-5)
            assert torch.allclose(crossed[:, g], reader(layer, latent, goals[:, g]), atol=1e-6)
        alone = reader(layer, latent[:, 0], goals)
        assert torch.allclose(alone[:, 2], reader(layer, latent[:, 0], goals[:, 2]), atol=1e-6)
        assert reader(layer, latent[:, 0], goals[:, 0]).shape == (3, 7)


def test_actor_and_critic_judge_many_goals_as_one_by_one() -> None:
    torch.manual_seed(0)
    actions = ActionEncoder(BOX)
    critic = Critic(CriticConfig(hidden=16, bins=11), LATENT, True, GRID)
    actor = Actor(ActorConfig(hidden=16), LATENT, actions, True, GRID)
    for parameter in [*critic.parameters(), *actor.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    state = State(torch.randn(3, LATENT))
    goals = torch.randn(3, 4, LATENT)
    weights = drive_weights(goal=1.0)
    several = Configuration(weights, weights, goal=goals)
    with torch.no_grad():
        costs, policy = critic(state, several), actor(state, several)
        assert isinstance(policy, SquashedGaussianPolicy) and costs.shape[:2] == (3, 4)
        for g in range(4):
            one = replace(several, goal=goals[:, g])
            assert torch.allclose(costs[:, g], critic(state, one), atol=1e-5)
            assert torch.allclose(policy.mode()[:, g], actor(state, one).mode(), atol=1e-5)
    assert costs[..., 3].std() > 1e-3


def test_nothing_is_a_batch_too() -> None:
    conv, nothing = predictor(), torch.zeros(3, 0, LATENT)
    (latent,), features = conv((nothing,), torch.zeros(3, 0, 2))
    assert latent.shape == (3, 0, LATENT) and features.shape == (3, 0, 8)
    assert MapInverse(LATENT, 8, 2, GRID)(torch.zeros(3, 0, 2 * LATENT)).shape == (3, 0, 2)
    reader = MapReader(LATENT, GRID)
    assert reader(nothing).shape == (3, 0, reader.features)
