"""Planning in the true simulator: it leaves the world it acts in alone and finds what really is best."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.agent.oracle import OracleBehaviour, _play
from forethought.envs.make import make_env
from forethought.envs.procgen_state import ProcgenState
from forethought.modules.configurator import Task, Thinking
from forethought.planners import BeamSearch, Budget, CategoricalCEM, Plan, Proposal, RandomShooting, TreeSearch
from numpy.typing import NDArray

CANDIDATES, HORIZON = 6, 4
TASK = Task(ending=2.0, discount=0.9, thinking=Thinking(horizon=HORIZON, candidates=CANDIDATES, iterations=2))


def world(num_envs: int, repeat: int = 1, seed: int = 4) -> Any:
    return make_env("procgen:fruitbot", num_envs, seed=seed, split="test", action_repeat=repeat)


@dataclass
class Spy:
    asked: list[tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=list)
    answered: list[Plan] = field(default_factory=list)

    def plan(
        self, objective: Any, space: Any, proposal: Proposal, budget: Budget, batch: int, generator: torch.Generator
    ) -> Plan:
        def spied(actions: torch.Tensor) -> Any:
            energies = objective(actions)
            self.asked.append((actions[0].numpy().copy(), energies[0].numpy().copy()))
            return energies

        self.answered.append(CategoricalCEM().plan(spied, space, proposal, budget, batch, generator))
        return self.answered[-1]


def replay(state: bytes, steps: int, actions: NDArray[Any], repeat: int) -> float:
    """Energy of one course of action, played out by itself."""
    env = world(1, seed=9)
    env.reset(seed=9)
    env.set_state(ProcgenState([state], np.array([steps])))
    total, discount = 0.0, 1.0
    for action in actions:
        discount *= TASK.discount
        felt, ended = 0.0, False
        for _ in range(repeat):
            _, reward, terminated, truncated, _ = env.step(np.array([action]))
            felt += float(reward[0])
            ended = bool(terminated[0] or truncated[0])
            if ended:
                break
        total += discount * (-felt + TASK.ending * ended)
        if ended:
            break
    env.close()
    return total


@pytest.mark.parametrize("repeat", [1, 3])
def test_planning_does_not_disturb_the_world_and_finds_the_least_energy(repeat: int) -> None:
    env, twin, copies, spy = world(2, repeat), world(2, repeat), world(CANDIDATES), Spy()
    oracle = OracleBehaviour(env, copies, TASK, repeat, seed=0, planner=spy)  # type: ignore[arg-type]
    x, _ = env.reset(seed=4)
    other, _ = twin.reset(seed=4)
    first, active = np.ones(2, np.bool_), np.ones(2, np.bool_)
    for step in range(12):
        saved = env.unwrapped.get_state()
        decision = oracle.act(x, first, active)
        assert decision.calls == 2 * HORIZON * CANDIDATES * 2 and decision.action.shape == (2,)
        if step in {0, 7}:
            for index in range(2):
                plan = spy.answered[2 * step + index]
                tried = spy.asked[2 * (2 * step + index) : 2 * (2 * step + index) + 2]
                energies = np.concatenate([e for _, e in tried])
                assert float(plan.energy) == pytest.approx(energies.min())
                assert decision.action[index] == plan.actions[0, 0]
                for courses, given in tried:
                    truth = replay(saved.simulator[index], int(saved.steps[index]), courses[0], repeat)
                    assert given[0] == pytest.approx(truth, abs=1e-5)
                best = replay(saved.simulator[index], int(saved.steps[index]), plan.actions[0].numpy(), repeat)
                assert best == pytest.approx(float(plan.energy), abs=1e-5)
        x, reward, terminated, truncated, _ = env.step(decision.action)
        other, same, *_ = twin.step(decision.action)
        assert np.array_equal(x, other) and np.array_equal(reward, same)
        first = terminated | truncated
    for each in (env, twin, copies):
        each.close()


def test_environments_that_rest_cost_nothing() -> None:
    env, copies = world(3), world(CANDIDATES)
    oracle = OracleBehaviour(env, copies, TASK, 1, seed=0)
    x, _ = env.reset(seed=4)
    decision = oracle.act(x, np.ones(3, np.bool_), np.array([False, True, False]))
    assert decision.calls == HORIZON * CANDIDATES * 2
    assert decision.action[[0, 2]].tolist() == [env.unwrapped.noop] * 2
    env.close()
    copies.close()


def test_as_many_steps_of_a_plan_are_carried_out_as_the_task_says_but_never_beyond_an_ending() -> None:
    env, copies, spy = world(1), world(CANDIDATES), Spy()
    task = replace(TASK, thinking=replace(TASK.thinking, commit=3))
    oracle = OracleBehaviour(env, copies, task, 1, seed=0, planner=spy)  # type: ignore[arg-type]
    x, _ = env.reset(seed=4)
    on, begins = np.ones(1, np.bool_), [True, False, False, False, False, True]
    decisions = [oracle.act(x, np.array([begin]), on) for begin in begins]
    assert [decision.calls > 0 for decision in decisions] == [True, False, False, True, False, True]
    plans = [plan.actions[0] for plan in spy.answered]
    assert [int(decision.action[0]) for decision in decisions] == [*plans[0][:3], *plans[1][:2], plans[2][0]]
    assert len({tuple(plan[:3].tolist()) for plan in plans}) > 1
    env.close()
    copies.close()


@pytest.mark.parametrize("planner", [RandomShooting(), BeamSearch(), TreeSearch()])
def test_planners_that_go_step_by_step_are_replaced(planner: Any) -> None:
    env, copies = world(1), world(CANDIDATES)
    oracle = OracleBehaviour(env, copies, TASK, 1, seed=0, planner=planner)
    assert oracle.planner == (planner if isinstance(planner, RandomShooting) else CategoricalCEM())
    x, _ = env.reset(seed=4)
    assert oracle.act(x, np.ones(1, np.bool_), np.ones(1, np.bool_)).calls == HORIZON * CANDIDATES * 2
    env.close()
    copies.close()


def test_it_is_seeded() -> None:
    actions = []
    for _ in range(2):
        env, copies = world(2), world(CANDIDATES)
        oracle = OracleBehaviour(env, copies, TASK, 1, seed=3)
        x, _ = env.reset(seed=4)
        actions.append(oracle.act(x, np.ones(2, np.bool_), np.ones(2, np.bool_)).action)
        env.close()
        copies.close()
    assert np.array_equal(*actions)


def test_it_needs_a_simulator_that_can_be_saved_and_a_copy_for_each_candidate() -> None:
    env, copies = world(1), world(CANDIDATES - 1)
    with pytest.raises(ValueError, match="5 simulators for 6 candidates"):
        OracleBehaviour(env, copies, TASK, 1, seed=0)
    cart = gymnasium.make_vec("CartPole-v1", 1)
    for one, other in ((cart, copies), (env, cart)):
        with pytest.raises(ValueError, match="can be saved"):
            OracleBehaviour(one, other, TASK, 1, seed=0)
    env.close()
    copies.close()


def test_nothing_counts_after_the_end_of_an_imagined_episode() -> None:
    """A recorded end, played out again from two steps before it and eight steps beyond."""
    env, copies = world(1), world(2)
    env.reset(seed=4)
    draws, saved, taken, ended = np.random.default_rng(0), [], [], False
    while not ended:
        saved.append(env.get_state())
        taken.append(int(draws.integers(15)))
        _, reward, terminated, truncated, _ = env.step(np.array([taken[-1]]))
        ended = bool(terminated[0] or truncated[0])
    copies.reset(seed=4)
    copies.set_state(ProcgenState(saved[-2].simulator * 2, np.repeat(saved[-2].steps, 2)))
    course = np.array([*taken[-2:], *[4] * 40])
    rewards, going = _play(copies, np.stack([course, course]), 1)
    assert going.tolist() == [[True] + [False] * 41] * 2
    assert rewards[:, 1].tolist() == [float(reward[0])] * 2 and not rewards[:, 2:].any()
    env.close()
    copies.close()
