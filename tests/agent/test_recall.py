"""The agent and its memory by content: what it recalls is what it learned with, and it cannot do without."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import RunConfig
from forethought.agent.criterion import perceive, world_model_loss
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.interaction import interact
from forethought.agent.learning import Learner
from forethought.agent.presets import preset
from forethought.agent.run import build_env, check_settings, prepare
from forethought.agent.spaces import Spaces
from forethought.agent.training import Trainer
from forethought.modules.content import forget, scrambled
from forethought.modules.content_index import ContentIndex
from forethought.modules.memory import MemoryShape, ShortTermMemory
from forethought.modules.recall import RecallConfig
from forethought.modules.types import Mode, State
from gymnasium import spaces

from .small import SEEK, fingerprints, make_window, settings, tiny, wake

ENVS, STEPS = 3, 9
ALL = np.ones(ENVS, bool)


def recalling(config: RunConfig, **changes: Any) -> RunConfig:
    """The same settings with a small memory by content."""
    chosen = RecallConfig(**({"slots": 4, "keys": 6, "values": 5, "past": 8} | changes))
    return replace(config, perception=replace(config.perception, recall=chosen))


def remembered(memory: ShortTermMemory, first: np.ndarray, x: np.ndarray) -> None:
    """Write percepts ``[T, E, 2]`` where episodes begin as ``first [T, E]`` says."""
    for t in range(len(x)):
        over = first[t + 1] if t + 1 < len(x) else np.zeros(ENVS, bool)
        memory.write(x[t], np.zeros(ENVS), np.zeros(ENVS), over, np.zeros(ENVS, bool))


@pytest.mark.parametrize("mode", ["mode-1", "mode-2"])
def test_what_comes_to_mind_while_acting_is_what_was_learned_from(mode: Mode) -> None:
    """States met while acting, memory and all, are those of a training window of the same episode."""
    agent = wake(Agent(recalling(settings()), SEEK))
    m, met = agent.modules, []
    encode = m.perception.encode

    def record(*arguments: Any) -> State:
        met.append(encode(*arguments))
        return met[-1]

    m.perception.encode = record  # type: ignore[method-assign]
    draws = np.random.default_rng(0)
    x = draws.normal(size=(STEPS, ENVS, 2)).astype(np.float32)
    first = np.zeros((STEPS, ENVS), bool)
    first[0] = first[4, 1] = True
    acting = agent.begin(ENVS, mode)
    for t in range(STEPS):
        acting.act(x[t], first[t], ALL)
    memory = ShortTermMemory(MemoryShape((2,), False, (), True, 3, 4), ENVS, 60)
    remembered(memory, first, x)
    for start in (0, 3, 6):
        window = memory.read(np.arange(ENVS), np.full(ENVS, start), 2, past=8)
        with torch.no_grad():
            learned = perceive(m.perception, window)
        assert learned.shape == (ENVS, 3, 13)
        torch.testing.assert_close(learned, torch.stack([s.latent for s in met[start : start + 3]], 1))
    recalled = torch.stack([s.latent[:, 8:] for s in met])
    assert not recalled[0].any() and not recalled[4, 1].any()  # an episode begins with an empty mind
    assert (recalled[1:4] != 0).all() and (recalled[5:] != 0).all()


def test_acting_goes_on_from_a_saved_state() -> None:
    agent = wake(Agent(recalling(settings()), SEEK))
    x = np.random.default_rng(1).normal(size=(STEPS, ENVS, 2)).astype(np.float32)
    acting = agent.begin(ENVS, "mode-1")
    for t in range(5):
        acting.act(x[t], ALL if t == 0 else ~ALL, ALL)
    other = agent.begin(ENVS, "mode-1")
    other.restore(acting.state())
    for t in range(5, STEPS):
        acting.act(x[t], ~ALL, ALL)
        other.act(x[t], ~ALL, ALL)
    assert acting.memory is not None and other.memory is not None
    assert all(map(torch.equal, vars(acting.memory).values(), vars(other.memory).values()))


def test_an_environment_that_is_not_active_remembers_nothing() -> None:
    agent = wake(Agent(recalling(settings()), SEEK))
    acting = agent.begin(ENVS, "mode-1")
    acting.act(np.ones((ENVS, 2), np.float32), ALL, np.array([True, False, True]))
    assert acting.memory is not None
    assert ((acting.memory.usage > 0).sum(-1)).tolist() == [1, 0, 1]


def test_recall_is_learned_with_the_world_model_alone() -> None:
    agent = wake(Agent(recalling(settings()), SEEK))
    learner, window = Learner(agent, 10), make_window()
    before = fingerprints(agent)
    learner.behaviour.critic_update(window)
    learner.behaviour.actor_update(window)
    assert fingerprints(agent)["perception"] == before["perception"]
    parts = agent.modules.perception.recall
    assert parts is not None
    old = {name: weight.clone() for name, weight in parts.named_parameters()}
    learner.world_model_update(window)
    assert set(old) == {"key.weight", "query.weight", "value.weight"}
    assert all(not torch.equal(weight, old[name]) for name, weight in parts.named_parameters())


def test_what_will_be_recalled_is_not_made_easy_to_foresee() -> None:
    """The target's recalled half is held still: from windows of which nothing else is learned, keys learn nothing."""
    agent = wake(Agent(recalling(settings()), SEEK))
    m, window = agent.modules, make_window(steps=2)
    config = replace(agent.config.model_loss, regulariser="none", reward=0.0, ending=0.0)
    loss, metrics = world_model_loss(m.perception, m.world_model, window, config, 1.0, torch.Generator())
    assert metrics["prediction"] > 0 and m.perception.recall is not None
    (gradient,) = torch.autograd.grad(loss, m.perception.recall.query.weight, allow_unused=True)
    assert gradient is None or not gradient.any()  # x[0] has no past here, and the later reads are only targets


def test_a_life_with_recall_runs_through_every_phase() -> None:
    config = recalling(tiny())
    agent, env = prepare(replace(config, schedule=replace(config.schedule, memory_gib=0.0)))
    trainer = Trainer(agent, env, lambda *_: None)
    trainer.run()
    env.close()
    assert trainer.memory.latents is None and trainer.memory.mapped
    numbers = [p for network in agent.networks().values() for p in network.parameters()]
    assert all(torch.isfinite(p).all() for p in numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, task=replace(c.task, goals=True)), "task.goals is set"),
        (lambda c: replace(c, model_loss=replace(c.model_loss, targets=2)), "model_loss.targets is set"),
        (lambda c: replace(c, model_loss=replace(c.model_loss, shift=2)), "model_loss.shift is set"),
        (lambda c: replace(c, model_loss=replace(c.model_loss, colour=0.1)), "model_loss.colour is set"),
        (lambda c: replace(c, model_loss=replace(c.model_loss, regulariser="ema")), "regulariser ema is set"),
        (lambda c: replace(c, perception=replace(c.perception, latents="map")), "perception.latents map is set"),
        (lambda c: recalling(c, past=0), "perception.recall.past is 0, expected at least 1"),
    ],
)
def test_settings_that_do_not_go_with_recall_are_refused(change: Any, message: str) -> None:
    check_settings(recalling(tiny()))
    with pytest.raises(ValueError, match=message):
        check_settings(change(recalling(tiny())))


# ---- W9: entries stay findable while the encoder learns

_WIDE = Spaces((8,), False, False, spaces.Discrete(3))


def test_old_entries_are_found_again_when_stale_latents_are_encoded_again() -> None:
    """W9 in small: 150 encoder updates; docs/memory.md has 10,000."""
    agent = Agent(settings(), _WIDE)
    memory = ShortTermMemory(MemoryShape((8,), False, (), True, 3, 4), 4, 400)
    draws, x = np.random.default_rng(0), np.zeros((4, 8), np.float32)
    for t in range(64):
        x = (0.8 * x + draws.normal(size=x.shape)).astype(np.float32)
        memory.write(x, draws.integers(3, size=4), x[:, 0], np.full(4, t % 16 == 15), np.zeros(4, bool))
    learner, index = Learner(agent, 150), ContentIndex(memory)
    percepts = memory.read(*np.divmod(np.arange(256), 64), 0).observation[:, 0]
    cue = percepts + 0.05 * torch.randn(percepts.shape, generator=torch.Generator().manual_seed(0))

    def encode(percept: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return agent.modules.perception.encode(percept).latent

    def found() -> float:
        near = index.nearest(encode(cue), count=1, steps=0)
        return float(np.mean((near.stream * 64 + near.start)[:, 0] == np.arange(256)))

    index.refresh(encode, learner.done)
    assert found() >= 0.9
    for _ in range(150):
        learner.world_model_update(memory.sample(32, 3, draws))
    assert found() <= 0.5  # stale latents are of no use
    assert index.refresh(encode, learner.done) == 256
    assert found() >= 0.9


# ---- M6: a world that cannot be solved without


def play(agent: Agent, mode: Mode) -> Result:
    agent.generator.manual_seed(0)
    env = build_env(agent.config.env, 200, seed=500, held_out=True)
    return evaluate(mode, env, agent.begin(200, mode), seed=500)


def test_in_a_world_of_memory_it_is_what_an_agent_is_better_by() -> None:
    """M6, one seed: five are in docs/memory.md. Without what it recalls the agent is at chance, 0 ± 0.14."""
    agent, env = prepare(replace(preset("forethought/Recall-v0"), device="cpu"))
    Trainer(agent, env, lambda *_: None).run()
    env.close()
    reacting, thinking = (play(agent, mode).returns.mean() for mode in ("mode-1", "mode-2"))
    assert min(reacting, thinking) > 0.7
    assert agent.modules.perception.recall is not None
    draws, everywhere = torch.Generator().manual_seed(0), torch.ones(200, dtype=torch.bool)
    agent.modules.perception.recall.disturb = lambda memory: forget(memory, everywhere)
    assert abs(play(agent, "mode-2").returns.mean()) < 0.25
    agent.modules.perception.recall.disturb = lambda memory: scrambled(memory, draws)
    assert play(agent, "mode-2").returns.mean() < 0.25  # no key leads to its own side


def test_minigrids_memory_worlds_have_a_preset_that_remembers() -> None:
    """What it is worth takes ten minutes to learn: docs/memory.md."""
    config = preset("MiniGrid-MemoryS7-v0")
    agent, env = prepare(replace(config, device="cpu"))
    try:
        width = config.perception.latent + config.perception.recall.values
        assert agent.spaces.shape == (7 * 7 * 21,) and agent.modules.perception.width == width
        behaviour = agent.begin(env.num_envs, "mode-2")
        steps = list(islice(interact(env, behaviour, seed=0), 61))
        assert steps[59].truncated.any() and not any(step.truncated.any() for step in steps[:59])
    finally:
        env.close()
