"""The context modulates perception and world model: tasks that contradict each other are one to whoever is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent, Decision
from forethought.agent.checkpoint import check_same_world, load_agent, save_agent, saved_spaces
from forethought.agent.evaluation import evaluate
from forethought.agent.run import build_env, prepare
from forethought.agent.spaces import Spaces, read_spaces
from forethought.agent.training import Trainer
from forethought.modules.perception import Perception, PerceptionConfig
from forethought.modules.recall import RecallConfig
from forethought.modules.types import Mode
from forethought.modules.world_model import PredictorName
from gymnasium import spaces
from numpy.typing import NDArray

from .small import PREDICTORS, Seek, make_agent, settings, tiny, wake

TOLD = Spaces((4,), False, False, spaces.Discrete(3), context=2)
WIRINGS = 3


def told_agent(predictor: PredictorName = "mlp", members: int = 1, slots: int = 0) -> Agent:
    plain = make_agent(predictor=predictor, members=members)
    recall = RecallConfig(slots=slots, keys=3, values=2)
    return wake(Agent(replace(plain.config, perception=replace(plain.config.perception, recall=recall)), TOLD))


@pytest.mark.parametrize("slots", [0, 4])
@pytest.mark.parametrize(("predictor", "members"), PREDICTORS)
def test_predictions_depend_on_the_context_and_keep_it(predictor: PredictorName, members: int, slots: int) -> None:
    m = told_agent(predictor, members, slots).modules
    percept = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0))
    actions = torch.randint(3, (3, 5, 4), generator=torch.Generator().manual_seed(1))
    base = replace(m.configurator("mode-2"), recalled=torch.zeros(3, 2) if slots else None)
    with torch.no_grad():
        one, other = (
            m.perception.encode(percept, replace(base, context=torch.tensor(context)))
            for context in ([1.0, 0.0], [0.0, 1.0])
        )
        courses = [m.world_model.rollout(state, actions).latent for state in (one, other)]
    for course, context in zip(courses, ([1.0, 0.0], [0.0, 1.0]), strict=True):
        assert torch.equal(course[..., 8:10], torch.tensor(context).expand_as(course[..., 8:10]))
    assert (one.latent[:, :8] - other.latent[:, :8]).abs().max() > 0.01  # perception is modulated
    same = torch.cat([one.latent[:, :8], other.latent[:, 8:]], dim=-1)  # and so is the world model, by itself
    with torch.no_grad():
        moved = m.world_model.rollout(replace(one, latent=same), actions).latent
    assert (moved - courses[0])[..., 1:, :8].abs().max() > 0.01
    if slots:
        assert (courses[0][..., 1:, 10:] - courses[0][..., :1, 10:]).abs().max() > 0  # what is recalled is foreseen


def test_a_context_changes_nothing_at_first_and_learns_with_perception() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        perception = Perception(PerceptionConfig("mlp", latent=6, width=8), (5,), 2)
    percept = torch.randn(16, 1, 5)
    other = percept.clone()
    other[..., 3:] += 1
    latent, moved = perception(percept), perception(other)
    assert torch.equal(latent[:, :6], moved[:, :6]) and torch.equal(moved[:, 6:], other[:, 0, 3:])
    latent[:, :6].square().sum().backward()
    assert perception.modulation is not None and perception.modulation.weight.grad is not None
    assert perception.modulation.weight.grad.abs().max() > 0


def test_the_configuration_has_the_last_word() -> None:
    """What the script says replaces what the world tells; without a script it is the world's."""
    agent = told_agent()
    told = torch.tensor([[[0.3, -0.2, 1.0, 0.0]]])
    other = told.clone()
    other[..., 2:] = torch.tensor([0.0, 1.0])
    scripted = Agent(replace(agent.config, task=replace(agent.config.task, context=(0.0, 1.0))), TOLD)
    for name, network in scripted.networks().items():
        network.load_state_dict(agent.networks()[name].state_dict())
    with torch.no_grad():
        free, bound = (
            [a.modules.perception.encode(x, a.modules.configurator("mode-1")).latent for x in (told, other)]
            for a in (agent, scripted)
        )
    assert not torch.equal(free[0], free[1])
    assert torch.equal(bound[0], bound[1]) and torch.equal(bound[0], free[1])
    assert told[0, 0, 2:].tolist() == [1.0, 0.0]  # the percept itself is left alone
    with pytest.raises(ValueError, match=r"task.context has 3 numbers and the environment tells 2"):
        Agent(replace(agent.config, task=replace(agent.config.task, context=(0.0, 1.0, 0.0))), TOLD)


@pytest.mark.parametrize("encoder", ["cnn", "pool", "impala"])
def test_planes_behind_a_picture_are_a_context(encoder: Any) -> None:
    """They modulate the features and stand behind the latent, are no colours, and the configuration replaces them."""
    torch.manual_seed(0)
    perception = Perception(PerceptionConfig(encoder, latent=6, width=8, history=2), (32, 32, 5), 2).eval()
    assert perception.modulation is not None and perception.width == 8
    percept = torch.randint(256, (4, 2, 32, 32, 5), dtype=torch.uint8)
    percept[..., 3:] = torch.tensor([51, 255], dtype=torch.uint8)
    other = percept.clone()
    other[..., 3:] = torch.tensor([255, 0], dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(perception(percept)[:, :6], perception(other)[:, :6])  # no change at first
        torch.nn.init.normal_(perception.modulation.weight)
        latent, moved = perception(percept), perception(other)
        assert (
            torch.allclose(latent[:, 6:], torch.tensor([0.2, 1.0]).expand(4, 2))
            and moved[:, 6:].tolist() == [[1, 0]] * 4
        )
        assert (latent - moved)[:, :6].abs().max() > 0.01
        configuration = make_agent().modules.configurator("mode-1")
        told = perception.encode(percept, replace(configuration, context=torch.tensor([1.0, 0.0]), views=3))
        assert torch.equal(told.latent, perception.encode(other, replace(configuration, views=3)).latent)
        fifth = perception.encode(percept, replace(configuration, context=torch.tensor([0.2, 1.0])))
        assert torch.equal(fifth.latent, latent)
    assert (percept[..., 3] == 51).all()  # the percept itself is left alone
    plain = make_agent()
    task = replace(plain.config.task, context=(0.5, 1.5))
    settings = replace(plain.config, task=task, perception=replace(plain.config.perception, encoder=encoder, width=8))
    with pytest.raises(ValueError, match=r"task.context is \(0.5, 1.5\); beside pictures its numbers are from 0 to 1"):
        Agent(settings, Spaces((32, 32, 5), True, False, spaces.Discrete(3), context=2))


class Bars(Seek):
    """`Seek` seen as a picture: a bright bar at the point and a dim one at the target."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (32, 32, 1), np.uint8)

    def _observe(self) -> NDArray[Any]:
        picture = np.zeros((32, 32, 1), np.uint8)
        for place, rows, light in ((self.target, slice(16, 32), 128), (self.position, slice(0, 16), 255)):
            column = int(np.clip(round(16 + 8 * place), 1, 30))
            picture[rows, column - 1 : column + 2] = light
        return picture


if "ForethoughtBars-v0" not in gymnasium.registry:
    gymnasium.register("ForethoughtBars-v0", entry_point=Bars)


def test_a_told_agent_is_saved_and_knows_its_world(tmp_path: Path) -> None:
    agent = told_agent()
    save_agent(agent, tmp_path)
    back = load_agent(tmp_path)
    assert back.spaces == TOLD
    percept = torch.randn(2, 1, 4)
    with torch.no_grad():
        assert torch.equal(back.modules.perception(percept), agent.modules.perception(percept))
    with pytest.raises(ValueError, match="a context of 2 numbers, and Elsewhere tells 0"):
        check_same_world(back, replace(TOLD, context=0), "Elsewhere")
    with pytest.raises(ValueError, match="context -1, expected how many numbers"):
        saved_spaces({"shape": [4], "pixels": False, "action": {"kind": "Discrete", "n": 3}, "context": -1})


@pytest.mark.parametrize(
    ("observation", "context"),
    [
        (spaces.Box(0, 255, (64, 64, 2), np.uint8), 2),
        (spaces.Box(-1.0, 1.0, (2,)), 2),
        (spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (4,)), "desired_goal": spaces.Box(-1.0, 1.0, (4,))}), 2),
    ],
)
def test_contexts_that_cannot_be_are_refused(observation: spaces.Space[Any], context: int) -> None:
    with pytest.raises(ValueError, match="2 numbers of its observation are a context; it has"):
        read_spaces(observation, spaces.Discrete(3), (), context)
    with pytest.raises(ValueError, match="expected longer vectors or pictures of more planes"):
        Perception(PerceptionConfig("mlp"), (2,), 2)
    with pytest.raises(ValueError, match="a context has no place on a map"):
        Perception(PerceptionConfig("cnn", latent=64, latents="map"), (32, 32, 3), 2)


def test_a_run_with_a_context_goes_through_every_phase() -> None:
    config = tiny()
    agent, env = prepare(replace(config, env=replace(config.env, wirings=WIRINGS)))
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    assert agent.spaces.context == WIRINGS and agent.modules.perception.width == 8 + WIRINGS


class Misled:
    """An agent that is told another wiring than there is."""

    def __init__(self, agent: Agent, count: int, mode: Mode, lie: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self.acting, self.lie = agent.begin(count, mode), lie

    def act(self, observation: NDArray[Any], first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        seen, context = observation[..., :-WIRINGS], observation[..., -WIRINGS:]
        told = np.concatenate([seen, self.lie(context)], axis=-1)
        return self.acting.act(told, first, active)


def mean_return(agent: Agent, mode: Mode, lie: Callable[[NDArray[Any]], NDArray[Any]]) -> float:
    env = build_env(agent.config.env, 60, seed=500, held_out=True)
    mean = float(evaluate(mode, env, Misled(agent, 60, mode, lie), seed=500).returns.mean())
    env.close()
    return mean


def serves(agent: Agent) -> None:
    """Told it does well in both modes; told a wrong wiring, or nothing, it does not."""
    for mode in ("mode-1", "mode-2"):
        right = mean_return(agent, mode, lambda context: context)
        wrong = mean_return(agent, mode, lambda context: np.roll(context, 1, axis=-1))
        nothing = mean_return(agent, mode, np.zeros_like)
        assert right > 9.0, (mode, right)  # the best is 10.1
        assert max(wrong, nothing) < right - 4, (mode, right, wrong, nothing)


def test_one_agent_serves_contradicting_tasks_where_it_is_told_which() -> None:
    """Three wirings of three actions."""
    config = settings()
    agent, env = prepare(
        replace(
            config,
            env=replace(config.env, wirings=WIRINGS),
            world_model=replace(config.world_model, hidden=96),
            schedule=replace(config.schedule, prefill=2_400, prefill_updates=600),
        )
    )
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    serves(agent)


def test_one_agent_serves_contradicting_tasks_in_pictures() -> None:
    """The same, seen: a point and a target are bars, and planes tell which wiring it is."""
    config = settings(id="ForethoughtBars-v0")
    agent, env = prepare(
        replace(
            config,
            env=replace(config.env, wirings=WIRINGS),
            perception=PerceptionConfig("cnn", latent=8, width=8, stride=4),
            world_model=replace(config.world_model, hidden=96),
            schedule=replace(config.schedule, prefill=2_400, prefill_updates=600),
        )
    )
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    assert agent.spaces.context == WIRINGS and agent.spaces.shape == (32, 32, 1 + WIRINGS)
    serves(agent)
