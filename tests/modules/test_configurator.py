"""The configurator: two tasks, one world, different deeds; and no setting that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from forethought.agent.modes import Energy, Modules, think
from forethought.modules.actions import ActionEncoder
from forethought.modules.actor import Actor, ActorConfig
from forethought.modules.configurator import Configurator, Task, Thinking
from forethought.modules.cost import IntrinsicCost, goal_distance, interoception
from forethought.modules.critic import Critic, CriticConfig
from forethought.modules.types import Configuration, Gate, State, Trajectory, drive_weights
from forethought.planners import Categorical, make_planner
from gymnasium import spaces
from torch import Tensor

# ---- weights and goals


def test_a_reward_task_weighs_reward_in_cost_and_critic() -> None:
    made = Configurator(Task(pleasure=2.0, ending=3.0, effort=0.5))("mode-2")
    expected = drive_weights(pleasure=2.0, ending=3.0, effort=0.5)
    assert made.u.tolist() == made.v.tolist() == expected.tolist()
    assert made.goal is None
    assert Configurator(Task())("mode-2").u.tolist() == drive_weights(pleasure=1.0).tolist()


def test_a_goal_task_weighs_distance_and_carries_the_goal() -> None:
    goal = torch.arange(6.0).view(2, 3)
    made = Configurator(Task(goals=True, pleasure=2.0, ending=3.0, effort=0.5))("mode-2", State(goal))
    assert made.u.tolist() == drive_weights(ending=3.0, effort=0.5, goal=1.0).tolist()
    assert made.v.tolist() == drive_weights(goal=1.0).tolist()
    assert made.goal is not None
    assert torch.equal(made.goal, goal)


def test_goal_and_task_must_agree() -> None:
    with pytest.raises(ValueError, match="needs a goal and got none"):
        Configurator(Task(goals=True))("mode-2")
    with pytest.raises(ValueError, match="is about reward and got a goal"):
        Configurator(Task())("mode-1", State(torch.zeros(1, 3)))


def test_with_goal() -> None:
    made = Configurator(Task())("mode-2")
    other = made.with_goal(torch.ones(1, 2))
    assert made.goal is None
    assert other.goal is not None
    assert replace(other, goal=None) == made


def test_drive_weights() -> None:
    assert drive_weights(goal=2.0, pleasure=1.0, hazard=3.0).tolist() == [1.0, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="unknown drive 'thirst'; the drives are pleasure, ending, effort, goal"):
        drive_weights(thirst=1.0)


def test_mode_is_passed_on() -> None:
    assert Configurator(Task())("mode-1").mode == "mode-1"
    assert Configurator(Task())("mode-2").mode == "mode-2"


# ---- every setting is read


OTHER_THINKING: dict[str, Any] = {
    "horizon": 5, "candidates": 9, "iterations": 2, "hold": 3, "proposals": 4, "commit": 2,
    "risk": 0.5,
    "futures": 3,
    "adversary": True,
    "habit": 0.4,
    "views": 5,
    "sample": True,
    "milliseconds": 7.5, "gate": Gate(entropy=0.1, spread=2.0),
}  # fmt: skip
OTHER_TASK: dict[str, Any] = {
    "pleasure": 0.5, "ending": 2.0, "effort": 0.1, "hunger": -1.0, "hazard": 3.0, "novelty": 0.2, "agency": 0.7,
    "discount": 0.9, "context": (0.5, 1.0),
}  # fmt: skip
MOVED = {"discount": {"discount"}, "context": {"context"}}


def as_dict(configuration: Configuration) -> dict[str, Any]:
    values = {f.name: getattr(configuration, f.name) for f in fields(configuration)}
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}


@pytest.mark.parametrize("name", OTHER_THINKING)
def test_every_setting_of_thinking_arrives_under_its_name(name: str) -> None:
    before = as_dict(Configurator(Task())("mode-2"))
    after = as_dict(Configurator(Task(thinking=Thinking(**{name: OTHER_THINKING[name]})))("mode-2"))
    assert {key for key in before if before[key] != after[key]} == {name}
    assert after[name] == OTHER_THINKING[name]


@pytest.mark.parametrize("name", OTHER_TASK)
def test_every_setting_of_the_task_changes_something(name: str) -> None:
    before = as_dict(Configurator(Task())("mode-2"))
    after = as_dict(Configurator(Task(**{name: OTHER_TASK[name]}))("mode-2"))
    assert {key for key in before if before[key] != after[key]} == MOVED.get(name, {"u", "v"})


def test_no_setting_was_forgotten_here() -> None:
    assert {f.name for f in fields(Thinking)} == {*OTHER_THINKING, "planner"}  # the agent makes the planner
    assert {f.name for f in fields(Task)} == {*OTHER_TASK, "goals", "thinking"}


# ---- the same world, another task, another deed

FRUIT, WALK, DIE, STAY = range(4)
EATEN = torch.tensor([1.0, 0.0, 3.0, 0.0])
ENDS = torch.tensor([0.0, 0.0, 1.0, 0.0])
TIRES = torch.tensor([1.5, 0.2, 0.0, 0.0])
MOVES = torch.tensor([0.0, 0.3, 0.0, 0.0])


@dataclass
class HandMadeWorld:
    """FRUIT is good and tiring, WALK moves the latent by 0.3, DIE is delicious and the end, STAY does nothing."""

    calls: int = 0

    def chance(self, *_: object) -> None:
        """There is one outcome, and nothing to draw."""

    def rollout(
        self, state: State, actions: Tensor, goal: Tensor | None = None, feel: object = (), chance: object = None
    ) -> Trajectory:
        self.calls += actions.numel()
        steps = MOVES[actions].cumsum(-1)[..., None]
        start = state.latent[:, None, None].expand(-1, actions.shape[1], 1, -1)
        latent = torch.cat([start, start + steps], dim=2)
        distance = None if goal is None else goal_distance(latent[:, :, 1:], goal[:, None, None])
        ended = ENDS[actions]
        return Trajectory(latent, interoception(EATEN[actions], ended, TIRES[actions], distance), 1 - ended)


@pytest.fixture(scope="module")
def modules() -> Modules:
    actions = ActionEncoder(spaces.Discrete(4))
    return Modules(
        configurator=None,  # type: ignore[arg-type]
        perception=None,  # type: ignore[arg-type]
        world_model=HandMadeWorld(),  # type: ignore[arg-type]
        intrinsic_cost=IntrinsicCost(),
        critic=Critic(CriticConfig(hidden=8, bins=11), 1),
        actor=Actor(ActorConfig(hidden=8), 1, actions),
    )


STATE = State(torch.zeros(1, 1))
TASKS = {
    "one step": (Task(thinking=Thinking(horizon=1)), None, [DIE]),
    "fruit": (Task(thinking=Thinking(horizon=5)), None, [FRUIT] * 4 + [DIE]),
    "alive": (Task(ending=9.0, thinking=Thinking(horizon=3)), None, [FRUIT] * 3),
    "lazy": (Task(ending=9.0, effort=1.0, thinking=Thinking(horizon=3)), None, [STAY] * 3),
    "far": (Task(goals=True, ending=9.0, thinking=Thinking(horizon=3)), 0.9, [WALK] * 3),
    "near": (Task(goals=True, thinking=Thinking(horizon=2)), 0.12, [STAY] * 2),
    "impatient": (Task(discount=0.2, thinking=Thinking(horizon=2)), None, [DIE]),
}


def goal_state(goal: float | None) -> State | None:
    return None if goal is None else State(torch.full((1, 1), goal))


def best_first(modules: Modules, configuration: Configuration, options: Tensor) -> list[int]:
    with torch.no_grad():
        energies = Energy(modules, STATE, configuration)(options[None])[0]
    return options[energies.argmin()].tolist()


@pytest.mark.parametrize("name", TASKS)
def test_each_task_makes_its_own_plan_cheapest(modules: Modules, name: str) -> None:
    task, goal, wanted = TASKS[name]
    if name in {"far", "near"}:  # where the world is about a goal nobody dies of it
        options = torch.cartesian_prod(*[torch.tensor([FRUIT, WALK, STAY])] * task.thinking.horizon)
    else:
        options = torch.cartesian_prod(*[torch.arange(4)] * task.thinking.horizon)
    options = options.view(-1, task.thinking.horizon)
    found = best_first(modules, Configurator(task)("mode-2", goal_state(goal)), options)
    if name == "near":
        assert WALK not in found
    else:
        assert found[: len(wanted)] == wanted


def test_tasks_choose_different_actions_through_the_planner(modules: Modules) -> None:
    """Configurations exchanged between tasks lead to the wrong deed."""
    chosen: dict[str, int] = {}
    for name in ("alive", "far", "one step"):
        task, goal, wanted = TASKS[name]
        configuration = Configurator(task)("mode-2", goal_state(goal))
        space = spaces.Discrete(4)
        plan = think(
            modules, STATE, configuration, make_planner("categorical_cem", space), space, None,
            torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert isinstance(plan.distribution, Categorical)
        chosen[name] = int(plan.actions[0, 0])
        assert chosen[name] == wanted[0]
        assert plan.actions.shape == (1, task.thinking.horizon)
        assert plan.calls == task.thinking.horizon * task.thinking.candidates * task.thinking.iterations
    assert len(set(chosen.values())) == 3
