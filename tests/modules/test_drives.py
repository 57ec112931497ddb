"""Where drives get what they feel: heads for the world's sensors, and what imagination says about itself."""

from __future__ import annotations

import pytest
import torch
from forethought.modules.actions import ActionEncoder
from forethought.modules.critic import Critic, CriticConfig
from forethought.modules.types import DRIVES, INTEROCEPTION, SENSORS, Configuration, State, drive_weights
from forethought.modules.world_model import PredictorName, WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor, nn

BOX = spaces.Box(-1.0, 3.0, (2,))
CHANNEL = {name: index for index, name in enumerate(INTEROCEPTION)}


def make(
    space: spaces.Box | spaces.Discrete = BOX,
    sensors: tuple[str, ...] = (),
    members: int = 1,
    predictor: PredictorName = "mlp",
    noop: int | None = None,
) -> WorldModel:
    """A world model in which no head is silent."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = WorldModelConfig(predictor, hidden=16, bins=11, members=members, layers=1, heads=2, noop=noop)
        model = WorldModel(config, 4, ActionEncoder(space), sensors=sensors)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def courses(*shape: int) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return 4 * torch.rand(*shape, 2, generator=draws) - 1


# ---- sensors


def test_each_sensor_has_a_head_and_its_channel() -> None:
    start, actions = State(torch.randn(2, 4)), courses(2, 3, 5)
    both, swapped = make(sensors=SENSORS), make(sensors=SENSORS[::-1])
    felt, other = (model.rollout(start, actions).interoception for model in (both, swapped))
    for name, twin in zip(SENSORS, SENSORS[::-1], strict=True):  # the same heads under exchanged names
        assert torch.equal(felt[..., CHANNEL[name]], other[..., CHANNEL[twin]])
        assert felt[..., CHANNEL[name]].std() > 0.01 and felt[..., CHANNEL[name]].min() >= 0
    alone = make(sensors=("hazard_distance",)).rollout(start, actions).interoception
    assert not alone[..., CHANNEL["energy"]].any() and alone[..., CHANNEL["hazard_distance"]].any()


def test_a_world_without_sensors_has_no_heads_for_them_and_no_channels() -> None:
    plain = make()
    assert not any("sensing" in name for name in plain.state_dict())
    felt = plain.rollout(State(torch.randn(2, 4)), courses(2, 3, 5)).interoception
    assert felt.shape[-1] == len(INTEROCEPTION) and not felt[..., CHANNEL["goal_distance"] :].any()


def test_a_head_for_sensors_moves_no_other_weight() -> None:
    """What is drawn for it comes last, so a seed gives the same predictor with and without."""

    def drawn(sensors: tuple[str, ...]) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return WorldModel(WorldModelConfig(hidden=8), 4, ActionEncoder(BOX), sensors=sensors).state_dict()

    plain, sensing = drawn(()), drawn(SENSORS)
    assert all(torch.equal(plain[name], sensing[name]) for name in plain)


# ---- novelty and agency


@pytest.mark.parametrize("predictor", ["mlp", "gru"])
def test_disagreement_is_felt_by_all_members_where_it_has_weight(predictor: PredictorName) -> None:
    model, start, actions = make(members=3, predictor=predictor), State(torch.randn(2, 4)), courses(2, 3, 5)
    imagined = model.rollout(start, actions, feel=("novelty",))
    assert imagined.members is not None
    felt = imagined.members.interoception[..., CHANNEL["disagreement"]]  # [B, S, E, T]
    assert torch.allclose(felt, imagined.disagreement.unsqueeze(2).expand_as(felt)) and felt.min() > 0
    assert not model.rollout(start, actions).interoception[..., CHANNEL["disagreement"]].any()


@pytest.mark.parametrize(("predictor", "members"), [("mlp", 1), ("mlp", 3), ("gru", 2), ("transformer", 1)])
def test_impact_is_the_difference_from_doing_nothing(predictor: PredictorName, members: int) -> None:
    """Along a course, each step is compared with standing still in that very step."""
    model, start, actions = make(members=members, predictor=predictor), State(torch.randn(2, 4)), courses(2, 1, 4)
    felt = model.rollout(start, actions, feel=("agency",)).interoception[:, 0, :, CHANNEL["impact"]]
    for t in range(4):
        idle = actions.clone()
        idle[:, :, t] = 0.0
        reached, stayed = (model.rollout(start, a) for a in (actions, idle))
        ends = [imagined.latent[:, :, t + 1] for imagined in (reached, stayed)]
        if reached.members is not None and stayed.members is not None:
            ends = [imagined.members.latent[:, 0, :, t + 1] for imagined in (reached, stayed) if imagined.members]
        expected = (ends[0] - ends[1]).square().mean(-1).mean(-1)
        assert torch.allclose(felt[:, t], expected, atol=1e-5) and expected.min() > 0


def test_doing_nothing_has_no_impact() -> None:
    model, start = make(), State(torch.randn(2, 4))
    assert not model.rollout(start, torch.zeros(2, 1, 3, 2), feel=("agency",)).interoception[..., -1].any()
    choice = make(spaces.Discrete(3), noop=2)
    for action in range(3):
        felt = choice.rollout(start, torch.full((2, 1, 3), action), feel=("agency",)).interoception[..., -1]
        assert bool(felt.any()) == (action != 2)


def test_a_drive_of_imagination_costs_calls_only_where_it_has_weight() -> None:
    model, start, actions = make(members=2), State(torch.randn(3, 4)), courses(3, 5, 4)
    calls = []
    for weights in ({}, {"novelty": 1.0}, {"agency": -1.0}, {"agency": 1.0, "novelty": 1.0}):
        u = drive_weights(pleasure=1.0, **weights)
        before = model.calls
        model.rollout(start, actions, feel=Configuration(u, u).feels)
        calls.append(model.calls - before)
    assert calls == [120, 120, 240, 240]


@pytest.mark.parametrize("predictor", ["mlp", "gru"])
def test_step_by_step_feels_the_same(predictor: PredictorName) -> None:
    model, start, actions = make(sensors=SENSORS, members=2, predictor=predictor), torch.randn(2, 4), courses(2, 1, 3)
    whole = model.rollout(State(start), actions, feel=("novelty", "agency"))
    assert whole.members is not None
    carry = model.begin(start)
    for t in range(3):
        carry, after = model.advance(carry, actions[:, 0, t], feel=("novelty", "agency"))
        assert after.interoception is not None
        assert torch.allclose(after.interoception, whole.members.interoception[:, 0, :, t], atol=1e-5)


@pytest.mark.parametrize("noop", [None, 3, -1])
def test_discrete_worlds_must_say_what_does_nothing(noop: int | None) -> None:
    with pytest.raises(ValueError, match=r"world_model.noop is .*, expected which of the actions 0 to 2 does nothing"):
        ActionEncoder(spaces.Discrete(3)).idle(noop)


def test_rest_in_a_box_is_what_is_nearest_to_nothing() -> None:
    encoder = ActionEncoder(spaces.Box(torch.tensor([-1.0, 2.0]).numpy(), torch.tensor([3.0, 4.0]).numpy()))
    assert torch.allclose(encoder.decode(encoder.idle(None)), torch.tensor([0.0, 2.0]))


# ---- the critic


def test_a_critic_without_heads_for_some_drives_expects_nothing_of_them() -> None:
    critic = Critic(CriticConfig(hidden=8, bins=11), 4, heads=4)
    with torch.no_grad():
        critic.net[-1].weight.normal_()
    latent = torch.randn(5, 3, 4)
    assert critic.logits(latent).shape == (5, 3, 4, 11)
    expected = critic.cost_to_go(latent)
    assert expected.shape == (5, 3, len(DRIVES)) and not expected[..., 4:].any() and expected[..., :4].all()
