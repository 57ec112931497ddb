"""No field of a configuration is dead: each one, changed alone, moves something that can be measured (test F4)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.modes import think
from forethought.agent.presets import preset
from forethought.agent.run import check_settings
from forethought.modules.configurator import Thinking
from forethought.modules.recall import RecallConfig
from forethought.modules.types import Configuration, Gate, Mode, State, drive_weights

from .small import SEEK, make_agent, wake

ENVS = 4
THINKING = Thinking(horizon=4, candidates=8, iterations=2, proposals=2, gate=Gate(entropy=0.0))
RECALL = RecallConfig(slots=4, keys=3, values=2)
X = np.random.default_rng(0).uniform(-1, 1, (ENVS, 4)).astype(np.float32)  # the last two are a context
OTHER: dict[str, Any] = {
    "u": drive_weights(pleasure=-1.0, ending=3.0, effort=0.5),
    "v": drive_weights(pleasure=-2.0, ending=1.0),
    "goal": torch.linspace(-1, 1, ENVS * 12).view(ENVS, 12),
    "mode": "mode-1",
    "discount": 0.5,
    "horizon": 2,
    "candidates": 5,
    "iterations": 4,
    "hold": 4,
    "proposals": 0,
    "commit": 3,
    "risk": 2.0,
    "futures": 2,
    "adversary": True,
    "habit": 0.7,
    "sample": True,
    "milliseconds": 1e-6,
    "gate": Gate(entropy=9.0),
    "recalled": torch.ones(ENVS, RECALL.values),
    "context": torch.tensor([1.0, -2.0]),
}
MOVES = {
    "u": "energy", "v": "energy", "goal": "energy", "mode": "calls of acting", "discount": "energy",
    "horizon": "calls", "candidates": "calls", "iterations": "calls", "hold": "changes of mind",
    "proposals": "calls", "commit": "calls of acting", "risk": "energy", "habit": "energy", "milliseconds": "calls",
    "futures": "calls", "adversary": "energy",
    "sample": "deeds", "gate": "calls of acting", "recalled": "energy", "context": "energy",
}  # fmt: skip
"""What a field is there to move."""
OF_PICTURES = ["views"]
"""Fields that move nothing in a world of vectors; they have a test of their own."""


@dataclass(frozen=True)
class Fixed:
    """A configurator that always says the same."""

    configuration: Configuration

    def __call__(self, mode: Mode, goal: State | None = None, device: torch.device | None = None) -> Configuration:
        return self.configuration


def made() -> tuple[Agent, Configuration]:
    """An ensemble with a latent variable for rewards, whose drive for goals is felt as well; the mode is what the agent
    is begun in."""
    plain = make_agent(members=2, thinking=THINKING)
    perception = replace(plain.config.perception, recall=RECALL)
    told = replace(plain.spaces, shape=(4,), context=2)
    world_model = replace(plain.config.world_model, codes=3)
    agent = wake(Agent(replace(plain.config, perception=perception, world_model=world_model), told))
    base = agent.modules.configurator("gated")
    u = base.u + drive_weights(ending=0.5, effort=0.1, goal=0.7)
    return agent, replace(base, u=u, goal=torch.zeros(ENVS, 12), recalled=torch.zeros(ENVS, RECALL.values))


def measured(agent: Agent, configuration: Configuration) -> dict[str, Any]:
    """Everything that a configuration could move, from one state and from five steps of acting."""
    m = agent.modules
    agent.generator.manual_seed(0)
    with torch.no_grad():
        s = m.perception.encode(torch.from_numpy(X)[:, None], configuration)
        before = m.world_model.calls
        plan = think(m, s, configuration, agent.planner, SEEK.action, None, torch.Generator().manual_seed(0))
        calls = m.world_model.calls - before
    found: dict[str, Any] = {
        "energy": plan.energy.tolist(),
        "calls": calls,
        "changes of mind": int((plan.actions.diff(dim=-1) != 0).sum()),
        "plan": plan.actions.tolist(),
    }
    if configuration.horizon != THINKING.horizon:  # an agent makes room for its plans when it begins
        return found
    agent.modules = replace(m, configurator=Fixed(configuration))  # type: ignore[arg-type]
    acting = agent.begin(ENVS, configuration.mode)
    told = [acting.act(X, np.full(ENVS, step == 0), np.ones(ENVS, np.bool_)) for step in range(5)]
    agent.modules = m
    return found | {
        "calls of acting": [decision.calls for decision in told],
        "deeds": [decision.action.tolist() for decision in told],
    }


def dead_fields(base: Configuration, agent: Agent, others: dict[str, Any]) -> list[str]:
    """Fields whose change does not move what it should, or anything at all where nothing is said."""
    still = measured(agent, base)
    assert still == measured(agent, base)  # nothing moves by itself
    found = []
    for field in fields(base):
        moved = measured(agent, replace(base, **{field.name: others.get(field.name)})) if field.name in others else {}
        changed = {name for name, value in moved.items() if value != still[name]}
        if MOVES.get(field.name) not in changed:
            found.append(field.name)
    return found


def test_every_field_of_a_configuration_moves_what_it_is_for() -> None:
    agent, base = made()
    assert dead_fields(base, agent, OTHER) == OF_PICTURES
    assert set(OTHER) == set(MOVES) == {field.name for field in fields(Configuration)} - set(OF_PICTURES)


@pytest.mark.parametrize("mode", ["mode-1", "mode-2", "gated"])
def test_who_acts_by_chance_does_something_else_in_each_mode(mode: Mode) -> None:
    agent = make_agent(thinking=replace(THINKING, gate=Gate(entropy=9.0 if mode == "gated" else 0.0)))
    m, same = agent.modules, np.zeros((64, 2), np.float32)
    deeds = []
    for sample in (False, False, True):
        agent.modules = replace(m, configurator=Fixed(replace(m.configurator(mode), sample=sample)))  # type: ignore[arg-type]
        agent.generator.manual_seed(0)
        deeds.append(agent.begin(64, mode).act(same, np.ones(64, np.bool_), np.ones(64, np.bool_)).action)
    assert np.array_equal(deeds[0], deeds[1])
    assert not np.array_equal(deeds[0], deeds[2]) and len(set(deeds[2].tolist())) > 1


@pytest.mark.parametrize("mode", ["mode-1", "mode-2", "gated"])
def test_views_of_pictures_move_what_is_seen_in_each_mode(mode: Mode) -> None:
    plain = make_agent(thinking=replace(THINKING, gate=Gate(surprise=0.0)))
    perception = replace(plain.config.perception, encoder="cnn", width=8)
    agent = Agent(replace(plain.config, perception=perception), replace(plain.spaces, shape=(16, 16, 3), pixels=True))
    m = wake(agent).modules
    pictures = np.random.default_rng(0).integers(0, 256, (ENVS, 16, 16, 3), np.uint8)
    seen: list[torch.Tensor] = []
    handle = m.actor.register_forward_pre_hook(lambda _, given: seen.append(given[0].latent[:ENVS].clone()))
    for views in (1, 1, 3):
        agent.modules = replace(m, configurator=Fixed(replace(m.configurator(mode), views=views)))  # type: ignore[arg-type]
        agent.generator.manual_seed(0)
        agent.begin(ENVS, mode).act(pictures, np.ones(ENVS, np.bool_), np.ones(ENVS, np.bool_))
    handle.remove()
    first, again, averaged = seen[:: len(seen) // 3]
    assert torch.equal(first, again)
    assert not torch.allclose(first, averaged)


@pytest.mark.parametrize(("id", "views", "fits"), [
    ("procgen:fruitbot", 9, True), ("procgen:fruitbot", 10, False), ("procgen:fruitbot", 0, False),
    ("CartPole-v1", 1, True), ("CartPole-v1", 2, False),
])  # fmt: skip
def test_views_that_there_are_not_are_refused_before_the_work(id: str, views: int, fits: bool) -> None:
    config = preset(id)
    config = replace(config, task=replace(config.task, thinking=replace(config.task.thinking, views=views)))
    said = rf"views is {views}, expected 1 to 9 of pictures, 1 of vectors"
    with nullcontext() if fits else pytest.raises(ValueError, match=said):
        check_settings(config)


def test_a_field_that_nobody_reads_is_found() -> None:
    @dataclass(frozen=True)
    class Longer(Configuration):
        attention: float = 0.5

    agent, base = made()
    longer = Longer(**{field.name: getattr(base, field.name) for field in fields(base)})
    assert dead_fields(longer, agent, OTHER | {"attention": 0.9}) == [*OF_PICTURES, "attention"]
    # nor is one that this test was not told of let pass
    assert dead_fields(longer, agent, OTHER) == [*OF_PICTURES, "attention"]


@pytest.mark.parametrize("threshold", ["entropy", "variance", "spread", "surprise", "chance"])
def test_every_part_of_the_gate_opens_it(threshold: str) -> None:
    agent, base = made()
    shut = measured(agent, replace(base, gate=Gate()))["calls of acting"]
    opened = measured(agent, replace(base, gate=Gate(**{threshold: 0.999 if threshold == "chance" else 0.0})))
    assert not any(shut) and all(opened["calls of acting"])
