"""Knobs stay within their bounds, and a table learns to say what tasks are configured as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forethought.agent.configuring import differing
from forethought.agent.modes import Energy, Modules
from forethought.agent.presets import preset
from forethought.modules.configurator import Configurator, Task, Thinking
from forethought.modules.cost import SAFETY, floored
from forethought.modules.knobs import KNOBS, Knob, TaskTable, settings_of, turned
from forethought.modules.types import DRIVES, Configuration, Gate
from torch import Tensor

from .test_configurator import STATE, TASKS, best_first, goal_state, modules

__all__ = ["modules"]
THINKING = ("thinking.horizon", "thinking.candidates", "thinking.iterations")


@pytest.mark.parametrize("name", KNOBS)
def test_a_knob_goes_from_end_to_end_and_back(name: str) -> None:
    knob = KNOBS[name]
    values = [knob.value(x) for x in np.linspace(0, 1, 41)]
    assert values[0] == pytest.approx(knob.low) and values[-1] == pytest.approx(knob.high)
    assert values == sorted(values) and knob.value(-3.0) == values[0] and knob.value(7.0) == values[-1]
    for value in values:
        assert knob.value(knob.setting(value)) == pytest.approx(value)
    assert all(isinstance(value, int) for value in values) == knob.whole


def test_equal_turns_are_equal_factors_or_steps() -> None:
    assert Knob(1, 100, log=True).value(0.5) == pytest.approx(10)
    assert Knob(0, 100).value(0.5) == 50
    assert Knob(0, 10).setting(99.0) == 1.0


def test_whatever_is_turned_the_task_stays_within_bounds_and_above_the_floor() -> None:
    draws = np.random.default_rng(0)
    for _ in range(200):
        settings = dict(zip(KNOBS, draws.normal(0.5, 2.0, len(KNOBS)).tolist(), strict=True))
        task = turned(Task(), settings)
        thinking = task.thinking
        assert thinking.proposals < thinking.candidates and thinking.commit <= thinking.horizon
        made = Configurator(task)("mode-2")
        for drive in map(DRIVES.index, SAFETY):
            assert floored(made.u)[drive] >= 0 and made.u[drive] >= 0
        for value, name in zip(settings_of(task, list(KNOBS)), KNOBS, strict=True):
            assert 0 <= value <= 1 + 1e-9, name


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "TwoRoom", "DotWall", "procgen:coinrun"])
def test_scripted_tasks_are_within_reach_of_the_knobs(id: str) -> None:
    """A search that begins at the script begins at the script, but for a gate that plans everything."""
    task = preset(id).task
    names = [name for name in KNOBS if ".gate." not in name]
    assert turned(task, dict(zip(names, settings_of(task, names), strict=True))) == task
    gated = turned(task, {"thinking.gate.entropy": settings_of(task, ["thinking.gate.entropy"])[0]})
    assert gated.thinking.gate == Gate(entropy=0.0)


def test_unknown_knobs_are_refused() -> None:
    for names in ((), ("thinking.depth",), ("ending", "ending")):
        with pytest.raises(ValueError, match="--knobs is"):
            settings_of(Task(), names)


WORDS = {
    "short": Task(thinking=Thinking(horizon=2, candidates=8, iterations=1)),
    "long": Task(thinking=Thinking(horizon=30, candidates=16, iterations=2)),
    "wide": Task(thinking=Thinking(horizon=6, candidates=200, iterations=6)),
}


def test_a_table_learns_the_scripted_configurations() -> None:
    table = TaskTable(list(WORDS), THINKING)
    before = {name: table.task(name, Task()) for name in WORDS}
    assert table.fit(WORDS) < 0.02
    for name, task in WORDS.items():
        said = table.task(name, Task()).thinking
        for field in ("horizon", "candidates", "iterations"):
            assert getattr(said, field) == pytest.approx(getattr(task.thinking, field), rel=0.12), (name, field)
        assert table.task(name, Task()) != before[name]
    assert differing(Task(), table.task("short", Task()))[0][0] == "thinking.horizon"


def test_a_table_says_what_it_knows_and_refuses_the_rest() -> None:
    table = TaskTable(["a", "b"], THINKING)
    with pytest.raises(ValueError, match="no task 'c' in the table; it knows a, b"):
        table.task("c", Task())
    with pytest.raises(ValueError, match="tasks to learn are a, expected a, b"):
        table.fit({"a": Task()})
    with pytest.raises(ValueError, match="expected different names"):
        TaskTable(["a", "a"], THINKING)
    task = Task(pleasure=3.0)
    assert table.task("a", task).pleasure == 3.0  # what is no knob is the template's


def test_configurations_that_change_places_cost_their_tasks_more(modules: Modules) -> None:
    """One world, three tasks: by the table each does its own best deed; by another's entry it does not (test F2)."""
    knobs = ("thinking.horizon", "pleasure", "ending", "effort")
    names = ["fruit", "alive", "lazy"]
    scripted = {name: replace(TASKS[name][0], thinking=Thinking(horizon=3)) for name in names}
    table = TaskTable(names, knobs)
    assert table.fit(scripted) < 0.02
    options = torch.cartesian_prod(*[torch.arange(4)] * 3)

    def cost(task: Task, by: Task) -> float:
        """What the course that ``by`` finds best costs under ``task``'s own weights."""
        course = best_first(modules, Configurator(by)("mode-2", goal_state(None)), options)
        return energy(modules, Configurator(task)("mode-2"), torch.tensor(course))

    own = [cost(scripted[name], table.task(name, Task())) for name in names]
    scripts = [cost(scripted[name], scripted[name]) for name in names]
    moved = [cost(scripted[a], table.task(b, Task())) for a, b in zip(names, [*names[1:], names[0]], strict=True)]
    assert own == pytest.approx(scripts)
    assert sum(moved) > sum(own) + 3 and all(m >= o for m, o in zip(moved, own, strict=True))


def energy(modules: Modules, configuration: Configuration, course: Tensor) -> float:
    with torch.no_grad():
        return float(Energy(modules, STATE, configuration)(course[None, None])[0, 0])
