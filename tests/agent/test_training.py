"""A whole small life: what is learned, what it is made of (each module matters), and that it is repeatable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import EnvConfig
from forethought.agent.evaluation import Result, evaluate
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.learning import Learner
from forethought.agent.presets import preset
from forethought.agent.run import build_env, check_settings, prepare, timing_of
from forethought.agent.training import Trainer, behaviour_updates
from forethought.modules.configurator import Thinking
from forethought.modules.types import Configuration, Mode, State, Trajectory, drive_weights
from numpy.typing import NDArray
from torch import Tensor

from forethought.progress import phase_totals

from . import worlds  # noqa: F401  (registers ForethoughtLine-v0)
from .small import best_return, fingerprints, settings, tiny, wake

EPISODES, SEED = 40, 500


def ignore(*_: Any) -> None:
    """A report that nobody reads."""


def trained_on(config: Any) -> Trainer:
    agent, env = prepare(config)
    trainer = Trainer(agent, env, ignore)
    trainer.run()
    env.close()
    return trainer


@dataclass
class Life:
    trainer: Trainer
    best: float
    floor: Result

    @property
    def agent(self) -> Agent:
        return self.trainer.agent

    def score(self, result: Result) -> float:
        """Share of the way from random to the best policy."""
        return float((result.returns.mean() - self.floor.returns.mean()) / (self.best - self.floor.returns.mean()))


def play(agent: Agent, mode: Mode) -> Result:
    agent.generator.manual_seed(0)
    env = build_env(agent.config.env, EPISODES, seed=SEED, held_out=True)
    return evaluate(mode, env, agent.begin(EPISODES, mode), seed=SEED)


@pytest.fixture(scope="module")
def life() -> Life:
    trainer = trained_on(settings())
    env = build_env(trainer.agent.config.env, EPISODES, seed=SEED, held_out=True)
    starts, _ = env.reset(seed=SEED)
    best = float(np.mean([best_return(start) for start in starts]))
    chance = RandomBehaviour(trainer.agent.spaces.action, EPISODES, 0, 1)
    return Life(trainer, best, evaluate("random", env, chance, seed=SEED))


@contextmanager
def exchanged(agent: Agent, **modules: Any) -> Iterator[Agent]:
    """The agent with some modules replaced for a while."""
    whole = agent.modules
    agent.modules = replace(whole, **modules)
    try:
        yield agent
    finally:
        agent.modules = whole


def interval(result: Result) -> tuple[float, float]:
    half = 2.02 * result.returns.std(ddof=1) / np.sqrt(len(result.returns))
    return float(result.returns.mean() - half), float(result.returns.mean() + half)


# ---- it works


def test_both_modes_are_near_the_best_and_far_above_random(life: Life) -> None:
    for mode in ("mode-1", "mode-2"):
        result = play(life.agent, mode)  # type: ignore[arg-type]
        assert interval(result)[0] > interval(life.floor)[1]
        assert life.score(result) > 0.85, mode


def test_mode_1_keeps_what_mode_2_taught_it_at_a_fraction_of_the_price(life: Life) -> None:
    """K1: at least 80 % of the planner's return at no more than 5 % of its predictor calls."""
    taught, teacher = play(life.agent, "mode-1"), play(life.agent, "mode-2")
    assert life.score(taught) >= 0.8 * life.score(teacher)
    assert taught.calls == 0 and teacher.calls == 4 * 32 * 2


# ---- every module matters


class Permuted:
    """The world model, with the candidates' actions exchanged before it predicts."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside
        self.draws = torch.Generator().manual_seed(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)

    def rollout(
        self, state: State, actions: Tensor, goal: Tensor | None = None, feel: object = (), chance: object = None
    ) -> Trajectory:
        order = torch.randperm(actions.shape[1], generator=self.draws)
        return self.inside.rollout(state, actions[:, order], goal)  # type: ignore[no-any-return]


def test_with_a_shuffled_predictor_the_advantage_disappears(life: Life) -> None:
    """A4: the planner really asks the world model."""
    with exchanged(life.agent, world_model=Permuted(life.agent.modules.world_model)) as agent:
        shuffled = play(agent, "mode-2")
    assert life.score(shuffled) < 0.3
    assert interval(shuffled)[1] < interval(play(life.agent, "mode-2"))[0]


class Crossed:
    """Perception that shows every environment the state of its neighbour."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def encode(self, observation: Tensor, configuration: Configuration | None = None) -> State:
        return State(self.inside.encode(observation, configuration).latent.roll(1, 0))


@pytest.mark.parametrize("mode", ["mode-1", "mode-2"])
def test_with_a_shuffled_perception_neither_mode_works(life: Life, mode: Mode) -> None:
    with exchanged(life.agent, perception=Crossed(life.agent.modules.perception)) as agent:
        assert life.score(play(agent, mode)) < 0.4


def test_the_critic_alone_can_lead_the_planner_and_a_constant_cannot(life: Life) -> None:
    """Two steps ahead with no intrinsic cost: only TC(s[T]) says where to go."""
    m = life.agent.modules
    configurator = m.configurator

    def only_critic(mode: Mode, goal: State | None = None, device: Any = None) -> Configuration:
        return replace(configurator(mode, goal, device), u=drive_weights(), horizon=2)

    with exchanged(life.agent, configurator=only_critic) as agent:
        short = replace(agent.config.task, thinking=Thinking(horizon=2, candidates=32, iterations=2))
        whole, agent.config = agent.config, replace(agent.config, task=short)
        led = play(agent, "mode-2")
        with exchanged(agent, critic=lambda state, configuration: torch.zeros(*state.latent.shape[:-1], 4)):
            lost = play(agent, "mode-2")
        agent.config = whole
    assert life.score(led) > 0.7 and life.score(lost) < 0.4


def test_with_a_constant_actor_mode_1_does_not_work(life: Life) -> None:
    actor = life.agent.modules.actor

    def still(state: State, configuration: Configuration) -> Any:
        return actor(State(torch.zeros_like(state.latent)), configuration)

    with exchanged(life.agent, actor=still) as agent:
        assert life.score(play(agent, "mode-1")) < 0.4


@pytest.mark.parametrize("shuffled", [False, True], ids=["plans", "shuffled plans"])
def test_an_actor_taught_shuffled_plans_fails(life: Life, shuffled: bool) -> None:
    """K4, and its control: the same lessons with each plan at its own state."""
    pupil = wake(Agent(life.agent.config, life.agent.spaces), seed=1).modules.actor
    draws = torch.Generator().manual_seed(0)
    with exchanged(life.agent, actor=pupil) as agent:
        learner = Learner(agent, 1)
        fresh = learner.behaviour._fresh_plans

        def plans(window: Any) -> Any:
            state, goal, target, course = fresh(window)
            return state, goal, target[torch.randperm(len(target), generator=draws)] if shuffled else target, course

        learner.behaviour._fresh_plans = plans  # type: ignore[method-assign]
        memory, sampler = life.trainer.memory, np.random.default_rng(0)
        for _ in range(150):
            learner.behaviour.actor_update(memory.sample(32, 6, sampler))
        score = life.score(play(agent, "mode-1"))
    teacher = life.score(play(life.agent, "mode-2"))
    assert score < 0.5 * teacher if shuffled else score >= 0.8 * teacher


def test_the_world_model_beats_persistence_and_sees_actions(life: Life) -> None:
    m = life.agent.modules
    window = life.trainer.memory.sample(256, 4, np.random.default_rng(1))
    with torch.no_grad():
        latent = m.perception(window.observation)
        errors = []
        for actions in (window.action, window.action.roll(1, 0)):
            imagined = m.world_model.rollout(State(latent[:, 0]), actions[:, None]).latent[:, 0, 1:]
            errors.append(float(((imagined - latent[:, 1:]).square().mean(-1) * window.known).sum()))
        still = float(((latent[:, :1] - latent[:, 1:]).square().mean(-1) * window.known).sum())
    assert errors[0] < 0.3 * still and errors[0] < 0.3 * errors[1]


# ---- repeatable


def run_tiny(seed: int) -> tuple[dict[str, str], Trainer]:
    trainer = trained_on(tiny(seed))
    return fingerprints(trainer.agent), trainer


def test_one_seed_gives_one_life_and_another_seed_another() -> None:
    torch.manual_seed(1)
    one, first = run_tiny(3)
    torch.manual_seed(2)  # global generators do not matter
    np.random.seed(2)  # noqa: NPY002
    again, second = run_tiny(3)
    assert one == again
    for name, array in first.memory.data.items():
        assert np.array_equal(array, second.memory.data[name]), name
    other, third = run_tiny(4)
    assert all(one[name] != other[name] for name in one)
    for name in ("observation", "action"):  # 25 steps of the prefill, at random
        assert not np.array_equal(first.memory.data[name][:, :25], third.memory.data[name][:, :25]), name


# ---- the schedule


def test_the_schedule_is_carried_out_and_reported() -> None:
    config = tiny()
    agent, env = prepare(config)
    told: list[tuple[str, int, int]] = []
    trainer = Trainer(agent, env, lambda phase, done, total, _: told.append((phase, done, total)))
    before = agent.modules.world_model.calls
    trainer.run()
    schedule = config.schedule
    phases = [phase for phase, done, total in told if done == total]
    behaviour = ["behaviour"]
    rounds = ["collect", "round (mode-2)", "world model", *behaviour]
    expected = ["collect", "world model", *rounds, *rounds, "predictor", *behaviour]
    expected.remove("round (mode-2)")  # the first round is not the last
    assert phases == expected
    assert told.count(("round (mode-2)", 1, 2)) == told.count(("round (mode-2)", 2, 2)) == 1
    counts = {name: sum(phase == name for phase, _, _ in told) for name in ("world model", "predictor", "behaviour")}
    assert counts == {"world model": 6 + 2 * 4, "predictor": 3, "behaviour": 2 * 4 + 5}
    assert trainer.memory.latents is None  # they belonged to the phases in which perception was at rest
    assert trainer.learner.done == schedule.prefill_updates + schedule.rounds * schedule.round_updates
    assert trainer.decisions == 100 + 2 * 60 == len(trainer.memory)
    steps = 25 + 2 * 15
    assert trainer.progress() == {
        "filled": 1, "rounds": 2, "gathered": 0, "taken": 0, "streamed": 15, "behaved": 5, "tuned": 3,
        "decisions": 220, "resets": 3, "units": steps + 2 + 14 + 3 + 13,
    }  # fmt: skip
    assert agent.modules.world_model.calls > before
    env.close()


def test_rounds_collect_in_the_mode_that_was_asked_for() -> None:
    config = tiny()
    config = replace(config, schedule=replace(config.schedule, rounds=3, mode_1_rounds=3, exploration=0.0))
    agent, env = prepare(config)
    told: list[str] = []
    trainer = Trainer(agent, env, lambda phase, *_: told.append(phase))
    trainer.run()
    assert [phase for phase in told if phase.startswith("round")] == ["round (mode-2)"] * 2 + ["round (mode-1)"]
    planned = trainer.memory.data["planned"][:, :70].reshape(4, -1)
    assert not planned[:, :25].any() and planned[:, 25:55].all() and not planned[:, 55:].any()
    env.close()


def test_what_is_remembered_is_what_happened() -> None:
    """Actions lead from x[t] to x[t+1], rewards belong to them, plans to the states they were made in."""
    trainer = trained_on(replace(tiny(), schedule=replace(tiny().schedule, exploration=0.0)))
    data: dict[str, NDArray[Any]] = {name: array[:, :55] for name, array in trainer.memory.data.items()}
    x, ended = data["observation"], data["terminated"] | data["truncated"]
    moved = x[:, :-1, 0] + 0.25 * (data["action"][:, :-1] - 1)
    goes_on = ~ended[:, :-1]
    assert np.allclose(moved[goes_on], x[:, 1:, 0][goes_on], atol=1e-5)
    felt = 1 - abs(moved - x[:, :-1, 1])
    assert np.allclose(felt, data["reward"][:, :-1], atol=1e-5)
    planned = data["planned"]
    assert np.array_equal(data["course"][planned][:, 0], data["action"][planned])
    assert np.allclose(data["plan"][planned].sum(-1), 1, atol=1e-5)
    assert data["truncated"][:, [24, 39]].all() or ended[:, [24, 39]].all()  # phases are not joined


def test_exploration_leaves_the_plan_as_it_was_thought() -> None:
    config = tiny()
    trainer = trained_on(replace(config, schedule=replace(config.schedule, exploration=1.0)))
    data = trainer.memory.data
    planned = data["planned"]
    differ = data["course"][planned][:, 0] != data["action"][planned]
    assert planned.sum() == 120 and 0.4 < differ.mean() < 0.9  # random among three actions


@pytest.mark.parametrize(("share", "exploiting"), [(0.5, 2), (0.3, 1), (1.0, 4), (0.0, 0)])
def test_a_share_of_the_environments_is_acted_in_as_when_the_agent_is_evaluated(share: float, exploiting: int) -> None:
    config = tiny()
    schedule = replace(
        config.schedule, rounds=1, mode="mode-1", exploration=1.0, exploiting=share, round_updates=0,
        predictor_updates=0, final_behaviour_updates=0,
    )  # fmt: skip
    agent, env = prepare(replace(config, schedule=schedule))
    wake(agent)
    trainer = Trainer(agent, env, ignore)
    trainer.run()
    env.close()
    data = {name: array[:, 25:40] for name, array in trainer.memory.data.items()}
    acting, agree = agent.begin(4, "mode-1"), []
    for t in range(15):
        first = data["age"][:, t] == 0
        agree.append(acting.act(data["observation"][:, t], first, np.ones(4, np.bool_)).action == data["action"][:, t])
    everywhere = np.mean(agree, axis=0)
    assert (everywhere[4 - exploiting :] == 1).all() and (everywhere[: 4 - exploiting] < 0.9).all()


def test_environments_are_divided_in_every_way_there_is_to_act() -> None:
    """Plans go where they were made, and calls are counted once."""
    config = tiny()
    schedule = replace(config.schedule, exploration=0.0, exploiting=0.5)
    trainer = trained_on(replace(config, schedule=schedule))
    data = {name: array[:, 25:55] for name, array in trainer.memory.data.items()}
    assert data["planned"].all() and np.allclose(data["plan"].sum(-1), 1, atol=1e-5)
    assert np.array_equal(data["course"][:, :, 0], data["action"])
    calls = []
    for share in (0.0, 0.5):
        one = Trainer(*prepare(replace(config, schedule=replace(schedule, exploiting=share))), ignore)
        behaviour = one._collecting("mode-2")
        observation, _ = one.env.reset(seed=0)
        calls.append(behaviour.act(observation, np.ones(4, np.bool_), np.ones(4, np.bool_)).calls)
        one.env.close()
    assert calls[0] == calls[1] > 0


def test_plans_made_while_collecting_may_be_cheaper() -> None:
    """As many candidates and iterations as the schedule says, if it does; when evaluated as many as the task says."""
    config, everywhere = tiny(), np.ones(4, np.bool_)
    thinking = config.task.thinking
    usual = 4 * thinking.horizon * thinking.candidates * thinking.iterations
    for candidates, iterations, calls in ((0, 0, usual), (5, 3, 4 * thinking.horizon * 5 * 3)):
        schedule = replace(
            config.schedule, collecting_candidates=candidates, collecting_iterations=iterations, exploration=0.0
        )
        trainer = Trainer(*prepare(replace(config, schedule=schedule)), ignore)
        observation, _ = trainer.env.reset(seed=0)
        assert trainer._collecting("mode-2").act(observation, everywhere, everywhere).calls == calls
        assert trainer.agent.begin(4, "mode-2").act(observation, everywhere, everywhere).calls == usual
        trainer.env.close()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("collecting_candidates", 4, "schedule.collecting_candidates is 4 and task.thinking.proposals 4; leave room"),
        ("collecting_candidates", -1, "schedule.collecting_candidates is -1 and task.thinking.proposals 4"),
        ("collecting_iterations", -1, "schedule.collecting_iterations is -1, expected a number from 0"),
    ],
)
def test_cheap_plans_that_cannot_be_are_refused(name: str, value: int, said: str) -> None:
    config: Any = tiny()
    config = replace(config, task=replace(config.task, thinking=replace(config.task.thinking, proposals=4)))
    check_settings(config)
    with pytest.raises(ValueError, match=said):
        check_settings(replace(config, schedule=replace(config.schedule, **{name: value})))


def test_inputs_are_normalised_by_what_was_seen() -> None:
    trainer = trained_on(replace(tiny(), schedule=replace(tiny().schedule, rounds=0)))
    seen = trainer.memory.data["observation"][:, :25].reshape(-1, 2)
    perception = trainer.agent.modules.perception
    assert np.allclose(perception.mean.numpy(), seen.mean(0), atol=1e-4)
    assert np.allclose(perception.scale.numpy(), seen.std(0, ddof=1), atol=1e-4)


def test_a_world_that_takes_no_render_mode_can_be_built() -> None:
    env = build_env(EnvConfig("ForethoughtLine-v0"), 2, seed=0, held_out=False)
    assert env.num_envs == 2
    env.close()


def test_training_episodes_may_be_shorter_than_held_out_ones() -> None:
    settings_of = replace(preset("DotWall").env, train_steps=5)
    lengths = []
    for held_out in (False, True):
        env = build_env(settings_of, 1, seed=0, held_out=held_out)
        env.reset(seed=0)
        steps = 1
        while not env.step(env.action_space.sample() * 0)[3].any():
            steps += 1
        lengths.append(steps)
        env.close()
    assert lengths == [5, 199]


def test_rounds_go_on_with_perception_at_rest() -> None:
    config = tiny()
    schedule = replace(config.schedule, rounds=3, rest=1, prefill_behaviour=2)
    config = replace(config, schedule=schedule)
    agent, env = prepare(config)
    told: list[tuple[str, int, int]] = []
    resting_at: list[int] = []
    perception = agent.modules.perception

    def report(phase: str, done: int, total: int, _: Any) -> None:
        told.append((phase, done, total))
        if phase == "predictor":
            resting_at.append(hash(tuple(p.sum().item() for p in perception.state_dict().values())))

    trainer = Trainer(agent, env, report)
    trainer.run()
    assert len(set(resting_at)) == 1  # perception did not change any more
    assert trainer.learner.done == 6 + 4  # the prefill's updates and one round's
    assert trainer.tuned == 3 + 2 * 4 and trainer.rounds == 3
    phases = [phase for phase, done, total in told if done == total]
    behaviour = ["behaviour"]
    expected = ["collect", "world model", *behaviour, "collect", "world model", *behaviour, "predictor"]
    expected += ["collect", "predictor", *behaviour, "collect", "round (mode-2)", "predictor", *behaviour, *behaviour]
    assert phases == expected
    totals = phase_totals(config)
    for name in ("world model", "predictor", "behaviour"):
        assert totals[name] == sum(phase == name for phase, _, _ in told), name
    env.close()


def test_time_is_counted_by_kind_of_work() -> None:
    trainer = trained_on(tiny())
    seconds = trainer.watch.seconds
    assert set(seconds) == {
        "acting", "environment", "perception and world model", "critic and actor", "latents at rest",
        "world model at rest",
    }  # fmt: skip
    assert all(spent > 0 for spent in seconds.values())
    timing = timing_of(trainer)
    assert timing["decisions"] == trainer.decisions == timing["frames"]
    assert timing["frames_per_second"] == pytest.approx(trainer.decisions / sum(seconds.values()))
    assert timing["peak_megabytes"] > 50 and "acting" in timing["split"]


def test_critic_and_actor_slow_down_in_the_final_updates_alone() -> None:
    agent, env = prepare(tiny())
    trainer = Trainer(agent, env, lambda *_: None)
    rates: list[tuple[float, float]] = []
    optimisers = trainer.learner.behaviour.critic_optimiser, trainer.learner.behaviour.actor_optimiser
    behave = trainer._behave

    def watched() -> Any:
        critic, actor = (optimiser.param_groups[0]["lr"] for optimiser in optimisers)
        rates.append((critic, actor))
        return behave()

    trainer._behave = watched  # type: ignore[method-assign]
    trainer.run()
    env.close()
    peak, schedule = agent.config.behaviour.learning_rate, agent.config.schedule
    last = schedule.final_behaviour_updates
    before, final = rates[:-last], [rate for rate, _ in rates[-last:]]
    assert len(before) == schedule.rounds * behaviour_updates(schedule) and set(before) == {(peak, peak)}
    assert rates[-1][0] == rates[-1][1] and final == sorted(final, reverse=True)
    assert final[0] == peak and 0.3 * peak < final[-1] < 0.5 * peak


def test_goals_are_refused_where_a_world_has_none() -> None:
    config = tiny()
    with pytest.raises(ValueError, match=rf"task\.goals is set, and {re.escape(config.env.id)} has no goals.*leave it"):
        prepare(replace(config, task=replace(config.task, goals=True)))
