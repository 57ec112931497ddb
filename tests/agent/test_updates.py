"""Who may change what (test G1): hashes of everything that could change, before and after every kind of update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.behaviour import BehaviourLearner
from forethought.agent.config import WorldModelLoss
from forethought.agent.health import encode, vitals
from forethought.agent.learning import Learner
from forethought.agent.online import OnlineActing, OnlineLearning
from forethought.agent.policies import with_policy
from forethought.agent.spaces import Spaces
from forethought.modules.cost import IntrinsicCost, floored
from forethought.modules.memory import Window
from forethought.modules.types import DRIVES, INTEROCEPTION, Mode, State
from gymnasium import spaces

from .small import fingerprint, fingerprints, make_agent, make_window, settings, wake

ENVS = 3
EVERY = np.ones(ENVS, np.bool_)


def nature() -> str:
    """SHA-256 of what the intrinsic cost says of 200 feelings, and of what is left of weights below the floor."""
    draws = torch.Generator().manual_seed(0)
    felt, u = (torch.randn(*shape, generator=draws) for shape in ((200, len(INTEROCEPTION)), (len(DRIVES),)))
    answers = [IntrinsicCost()(felt, u), IntrinsicCost()(felt, -u), floored(-u.abs())]
    return hashlib.sha256(b"".join(answer.numpy().tobytes() for answer in answers)).hexdigest()


@dataclass
class Life:
    """An agent that can be updated in every way, and what was done to it last."""

    agent: Agent
    learner: Learner
    window: Window

    def hashes(self) -> dict[str, str]:
        """Of every module, of the critic's slow copy, and of what must never change at all."""
        configurator = hashlib.sha256(repr(self.agent.modules.configurator).encode()).hexdigest()
        slow = {"target critic": fingerprint(self.learner.behaviour.target_critic)}
        return fingerprints(self.agent) | slow | {"intrinsic cost": nature(), "configurator": configurator}

    def rested(self) -> Window:
        """The window with the latents that perception at rest has computed."""
        latent = encode(self.agent.modules.perception, self.window.observation)
        return replace(self.window, latent=latent)

    def observation(self, step: int) -> Any:
        seen, goal = np.random.default_rng(step).uniform(-1, 1, (2, ENVS, 2)).astype(np.float32)
        return {"observation": seen, "desired_goal": goal} if self.agent.spaces.goals else seen


def set_behaviour(life: Life, **behaviour: Any) -> BehaviourLearner:
    config = life.agent.config
    life.agent.config = replace(config, behaviour=replace(config.behaviour, **behaviour))
    return life.learner.behaviour


def world_model(life: Life) -> None:
    life.learner.world_model_update(life.window)


def predictor_with_perception_at_rest(life: Life) -> None:
    life.learner.predictor_update(life.rested(), 0, 10)


def critic(life: Life) -> None:
    life.learner.behaviour.critic_update(life.window)


def critic_with_perception_at_rest(life: Life) -> None:
    life.learner.behaviour.critic_update(life.rested())


def critic_in_a_dream(life: Life) -> None:
    learner = set_behaviour(life, improvement=1.0)
    learner.critic_update(life.window, learner.dream(life.window))


def imitation(life: Life) -> None:
    set_behaviour(life, imitation=1.0, entropy=0.1).actor_update(life.window)


def imitation_by_advantage(life: Life) -> None:
    set_behaviour(life, imitation=1.0, advantage=True).actor_update(life.window)


def imitation_of_short_plans(life: Life) -> None:
    life.agent.config = replace(life.agent.config, schedule=replace(life.agent.config.schedule, reanalyse=0))
    learner = set_behaviour(life, imitation=1.0)
    learner.actor_update(life.window, None, learner.short_plans(life.window))


def imitation_of_a_lesson(life: Life) -> None:
    goal = State(torch.randn(ENVS, 8)) if life.agent.spaces.goals else None
    state, target = State(torch.randn(ENVS, 8)), torch.full((ENVS, 3), 1 / 3)
    set_behaviour(life, imitation=1.0).imitate(state, goal, target)


def improvement(life: Life) -> None:
    learner = set_behaviour(life, imitation=0.0, improvement=1.0)
    learner.actor_update(life.window, learner.dream(life.window))


def self_imitation(life: Life) -> None:
    set_behaviour(life, imitation=0.0, remembered=1.0).actor_update(life.window)


def another_policy(life: Life) -> None:
    """It learns beside the agent's own."""
    other = with_policy(life.agent, life.agent.config.task, seed=3)
    before = fingerprint(other.modules.actor)
    learner = Learner(other, 1)
    learner.behaviour.actor_update(life.window)
    assert fingerprint(other.modules.actor) != before


def act(life: Life, mode: Mode) -> None:
    acting = life.agent.begin(ENVS, mode, sample=True)
    for step in range(3):
        acting.act(life.observation(step), EVERY if step == 0 else ~EVERY, EVERY)


def planning(life: Life) -> None:
    act(life, "mode-2")


def reacting(life: Life) -> None:
    act(life, "mode-1")


def planning_by_gradient(life: Life) -> None:
    """Gradients flow through every module to the actions, and change nothing on their way."""
    box = Spaces((2,), False, life.agent.spaces.goals, spaces.Box(-1.0, 1.0, (2,), np.float32))
    config = life.agent.config
    thinking = replace(config.task.thinking, planner="gradient")
    agent = wake(Agent(replace(config, task=replace(config.task, thinking=thinking)), box))
    before = fingerprints(agent)
    act(Life(agent, life.learner, life.window), "mode-2")
    assert fingerprints(agent) == before
    assert all(p.grad is None for network in agent.networks().values() for p in network.parameters())


def online(life: Life) -> None:
    """What Mode-1 learns online, it learns in a predictor of its own."""
    acting = OnlineActing(life.agent, ENVS, OnlineLearning(1e-2))
    before = fingerprints(acting.agent)
    for step in range(4):
        acting.act(life.observation(step), EVERY if step == 0 else ~EVERY, EVERY)
    assert {name for name, digest in fingerprints(acting.agent).items() if digest != before[name]} == {"world_model"}


def configuring(life: Life) -> None:
    goal = State(torch.randn(ENVS, 8)) if life.agent.spaces.goals else None
    for mode in ("mode-1", "mode-2"):
        life.agent.modules.configurator(mode, goal)


def looking_after_its_health(life: Life) -> None:
    latent = encode(life.agent.modules.perception, life.window.observation)
    vitals(life.agent.modules, life.window, latent, WorldModelLoss(inverse=1.0), torch.Generator())


TABLE: dict[Callable[[Life], None], set[str]] = {
    world_model: {"perception", "world_model"},
    predictor_with_perception_at_rest: {"world_model"},
    critic: {"critic", "target critic"},
    critic_with_perception_at_rest: {"critic", "target critic"},
    critic_in_a_dream: {"critic", "target critic"},
    imitation: {"actor"},
    imitation_by_advantage: {"actor"},
    imitation_of_a_lesson: {"actor"},
    improvement: {"actor"},
    another_policy: set(),
    planning: set(),
    planning_by_gradient: set(),
    reacting: set(),
    online: set(),
    configuring: set(),
    looking_after_its_health: set(),
}
"""What each kind of update changes: this, all of this, and nothing else."""


def begin(goals: bool = False) -> Life:
    agent = make_agent(goals)
    return Life(agent, Learner(agent, 10), make_window())


def changed_by(life: Life, update: Callable[[Life], None]) -> set[str]:
    before = life.hashes()
    update(life)
    return {name for name, digest in life.hashes().items() if digest != before[name]}


@pytest.mark.parametrize("goals", [False, True], ids=["reward", "goals"])
@pytest.mark.parametrize("update", TABLE, ids=lambda update: update.__name__)
def test_every_kind_of_update_changes_what_it_may_and_nothing_else(update: Callable[[Life], None], goals: bool) -> None:
    assert changed_by(begin(goals), update) == TABLE[update]


def test_imitating_short_plans_changes_the_actor_alone() -> None:
    assert changed_by(begin(goals=True), imitation_of_short_plans) == {"actor"}


def test_imitating_what_was_done_changes_the_actor_alone() -> None:
    assert changed_by(begin(), self_imitation) == {"actor"}


def test_a_leak_is_noticed() -> None:
    """The same table, and an actor's optimiser that was given perception as well."""

    def leaking(life: Life) -> None:
        parameters = [(f"perception.{n}", p) for n, p in life.agent.modules.perception.named_parameters()]
        life.learner.behaviour.actor_optimiser.add_param_group({"params": parameters})
        with torch.no_grad():
            for _, parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
        life.learner.behaviour.actor_optimiser.step()

    assert "perception" in changed_by(begin(), leaking)


def test_a_change_of_nature_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = begin().hashes()
    monkeypatch.setattr("forethought.modules.cost.GOAL_SCALE", 0.6)
    after = begin().hashes()
    assert {name for name in before if before[name] != after[name]} == {"intrinsic cost"}


def test_settings_are_frozen() -> None:
    """Neither weights nor settings can be assigned to from outside."""
    agent = make_agent()
    for part, name in ((agent.modules, "critic"), (agent.config.task, "ending"), (settings(), "seed")):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(part, name, None)
