"""Drives at work: what they need, what is kept of them, and that behaviour follows their weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import with_budget
from forethought.agent.checkpoint import load_agent, save_agent
from forethought.agent.config import RunConfig
from forethought.agent.criterion import world_model_loss
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.learning import Learner
from forethought.agent.modes import Modules, think
from forethought.agent.presets import preset
from forethought.agent.recording import record
from forethought.agent.run import prepare
from forethought.agent.spaces import Spaces, read_spaces
from forethought.agent.training import Trainer
from forethought.envs.foraging import DRAIN, HAZARD_RADIUS, MEAL, REACH, STEP, ForagingVectorEnv
from forethought.modules.configurator import Configurator, Task, Thinking
from forethought.modules.cost import IntrinsicCost, interoception
from forethought.modules.types import DRIVES, SENSORS, State, Trajectory
from forethought.planners import make_planner
from torch import Tensor

from .small import SEEK, certain, fingerprints, settings, tiny, wake

FORAGER = Spaces((15,), False, False, ForagingVectorEnv(1).single_action_space, SENSORS)


def forager(**task: Any) -> RunConfig:
    """Settings for Foraging that run through every phase and learn nothing."""
    base, short = preset("Foraging"), tiny()
    return replace(
        short,
        env=replace(base.env, num_envs=4, train_steps=20),
        task=replace(short.task, thinking=Thinking(horizon=3, candidates=6, iterations=2), **task),
    )


# ---- what they need


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"hunger": 1.0}, r"task.hunger is 1.0 and ForethoughtSeek-v0 has no sensor energy; set it to 0"),
        ({"hazard": 2.0}, r"task.hazard is 2.0 and ForethoughtSeek-v0 has no sensor hazard_distance"),
        ({"novelty": 0.5}, r"task.novelty is 0.5 and world_model.members 1; .* give the world model more members"),
        ({"agency": 1.0}, r"world_model.noop is None, expected which of the actions 0 to 2 does nothing"),
    ],
)
def test_a_weight_that_nothing_could_serve_is_refused_before_work(weights: dict[str, float], message: str) -> None:
    config = settings()
    with pytest.raises(ValueError, match=message):
        prepare(replace(config, task=replace(config.task, **weights)))
    config = replace(config, world_model=replace(config.world_model, events=False))
    with pytest.raises(ValueError, match=r"neither goal tasks nor world models without events feel .*; set it to 0"):
        Agent(replace(config, task=replace(config.task, goals=True, **weights)), replace(SEEK, goals=True))


def test_weights_that_are_served_are_accepted() -> None:
    config = settings()
    world_model = replace(config.world_model, members=2, noop=1)
    curious = Agent(replace(config, task=replace(config.task, novelty=1.5, agency=0.5), world_model=world_model), SEEK)
    hungry = Agent(forager(hunger=-1.0, hazard=2.0, agency=0.5), FORAGER)
    for agent, weights in ((curious, {"novelty": 1.5, "agency": 0.5}), (hungry, {"hunger": -1.0, "hazard": 2.0})):
        u = agent.modules.configurator("mode-2").u
        assert {name: float(u[DRIVES.index(name)]) for name in weights} == weights


def test_unknown_sensors_are_refused() -> None:
    for sensors in (("energy", "energy"), ("smell",)):
        with pytest.raises(ValueError, match="expected different ones of"):
            read_spaces(FORAGER.action, FORAGER.action, sensors)


def test_agency_is_paid_for_from_the_budget() -> None:
    for agency in (0.0, 1.0):
        agent = with_budget(Agent(forager(agency=agency), FORAGER), 60)
        acting, first = agent.begin(2, "mode-2"), np.ones(2, np.bool_)
        decision = acting.act(np.zeros((2, 15), np.float32), first, first)
        assert 0 < decision.calls <= 2 * 60


# ---- what is kept


def test_heads_are_made_for_what_the_world_offers(tmp_path: Path) -> None:
    plain, sensing = Agent(settings(), SEEK), wake(Agent(forager(), FORAGER))
    assert (plain.modules.critic.heads, sensing.modules.critic.heads) == (4, 6)
    assert plain.modules.world_model.sensors == () and sensing.modules.world_model.sensors == SENSORS
    save_agent(sensing, tmp_path)
    again = load_agent(tmp_path, task=replace(sensing.config.task, hunger=3.0))  # another task, the same networks
    assert again.spaces == sensing.spaces and fingerprints(again) == fingerprints(sensing)
    assert again.modules.configurator("mode-2").u[DRIVES.index("hunger")] == 3


def test_agents_from_before_these_drives_are_read(tmp_path: Path) -> None:
    agent = wake(Agent(settings(), SEEK))
    save_agent(agent, tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for name in ("hunger", "hazard", "novelty", "agency"):
        del content["config"]["task"][name]
    del content["config"]["world_model"]["noop"], content["config"]["model_loss"]["sensors"]
    del content["config"]["env"]["pixels"], content["spaces"]["sensors"]
    path.write_text(json.dumps(content))
    assert fingerprints(load_agent(tmp_path)) == fingerprints(agent)
    content["spaces"]["sensors"] = ["smell"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has the sensors"):
        load_agent(tmp_path)


def test_a_stopped_forager_goes_on_as_if_nothing_had_happened() -> None:
    def begin() -> Trainer:
        return Trainer(*prepare(forager(hunger=1.0)), lambda *_: None)

    def stop_at(unit: int, trainer: Trainer) -> None:
        def pause() -> None:
            if trainer.units == unit:
                raise KeyboardInterrupt

        trainer.pause = pause
        with pytest.raises(KeyboardInterrupt):
            trainer.run()

    whole = begin()
    whole.run()
    stopped = begin()
    stop_at(36, stopped)  # in the middle of a round's collecting
    assert stopped.taken
    resumed = begin()
    for name, network in stopped.agent.networks().items():
        resumed.agent.networks()[name].load_state_dict(network.state_dict())
    for name, array in stopped.memory.data.items():
        resumed.memory.data[name][:] = array
    resumed.learner.restore(stopped.learner.state())
    resumed.restore(stopped.state())
    resumed.run()
    assert fingerprints(resumed.agent) == fingerprints(whole.agent)
    assert whole.memory.data["sensors"].any()
    assert np.array_equal(resumed.memory.data["sensors"], whole.memory.data["sensors"])


# ---- what is learned


def remembered(agent: Agent, steps: int = 60) -> Any:
    env = ForagingVectorEnv(4, max_steps=20)
    return record(agent, env, RandomBehaviour(FORAGER.action, 4, 0, 4, sticky=3), steps, seed=0).memory


def test_memory_keeps_what_came_of_each_step() -> None:
    """The charge that was measured is that of the next observation, also where the episode ended."""
    agent = Agent(forager(), FORAGER)
    memory = remembered(agent)
    window = memory.sample(40, 6, np.random.default_rng(0))
    assert window.sensors is not None and window.sensors.shape == (40, 6, 2)
    charge, known = window.observation[:, 1:, 0, 2], window.known > 0
    assert torch.allclose(window.sensors[..., 0][known], charge[known], atol=1e-6)
    last = (window.valid > 0) & ~known
    before = window.observation[:, :-1, 0, 2]
    assert last.any() and torch.allclose(
        window.sensors[..., 0][last], before[last].sub(DRAIN).clamp(min=0), atol=MEAL + 0.01
    )
    with pytest.raises(ValueError, match="sensors were not given"):
        memory.write(*(np.zeros((4, *shape)) for shape in ((15,), (2,), (), (), ())))


def test_meals_are_events_that_windows_can_be_made_to_contain() -> None:
    memory = remembered(Agent(forager(), FORAGER))
    memory.data["reward"][:] = 0  # so that only the battery leaps
    shares = []
    for balance in (0.0, 1.0):
        window = memory.sample(200, 2, np.random.default_rng(0), balance=balance)
        charge = window.observation[:, :, 0, 2]
        fed = ((charge[:, 1:] - charge[:, :-1] > 0.2) & (window.known > 0)).any(1)
        assert window.sensors is not None
        last = (window.sensors[..., 0] - charge[:, :-1] > 0.2) & (window.valid > 0)
        shares.append(float((fed | last.any(1)).float().mean()))
    assert shares[0] < 0.4 and shares[1] > 0.9


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_world_model_learns_what_sensors_will_say(shuffled: bool) -> None:
    """From latents as perceived and as imagined; with sensors of other moments it does not."""
    config = forager()
    agent = Agent(replace(config, model_loss=replace(config.model_loss, learning_rate=3e-3)), FORAGER)
    memory, draws = remembered(agent), np.random.default_rng(0)
    agent.modules.perception.fit_inputs(torch.from_numpy(memory.data["observation"].reshape(-1, 15)[:240]))
    if shuffled:
        memory.data["sensors"] = draws.permuted(memory.data["sensors"], axis=1)
    learner, told = Learner(agent, 150), []
    for _ in range(150):
        told.append(learner.world_model_update(memory.sample(32, 3, draws))["sensors"])
    floor = float(memory.data["sensors"][:, :60].var(axis=(0, 1)).mean())
    error = float(np.mean(told[-20:])) / floor  # a share of what a constant would miss
    assert error > 0.7 if shuffled else error < 0.25


def test_heads_of_drives_without_weight_are_trained() -> None:
    """Today's task does not matter: hunger and hazard are expected whatever they weigh."""
    agent = Agent(forager(pleasure=0.0), FORAGER)
    memory, learner = remembered(agent), Learner(agent, 1)
    critic, draws = agent.modules.critic, np.random.default_rng(0)
    for _ in range(40):
        learner.behaviour.critic_update(memory.sample(32, 6, draws))
    latent = agent.modules.perception(memory.sample(64, 1, draws).observation).detach()
    expected = critic.cost_to_go(latent)[:, 0].mean(0)
    assert expected[DRIVES.index("hunger")] > 0.5 and expected[DRIVES.index("hazard")] > 0.1
    assert not expected[DRIVES.index("novelty") :].any()


def test_sensors_are_no_part_of_a_loss_that_does_not_want_them() -> None:
    agent = Agent(forager(), FORAGER)
    m, window = agent.modules, remembered(agent).sample(8, 3, np.random.default_rng(0))
    both = []
    for weight in (0.0, 10.0):
        config = replace(agent.config.model_loss, sensors=weight)
        loss, parts = world_model_loss(
            m.perception, m.world_model, window, config, 1.0, torch.Generator().manual_seed(0)
        )
        both.append((float(loss.detach()), parts["sensors"]))
    assert both[0][1] == both[1][1] > 0 and both[1][0] - both[0][0] == pytest.approx(10 * both[0][1], rel=1e-4)


# ---- behaviour follows the weights: Mode-2 in a world model that is right


class TrueWorld(torch.nn.Module):
    """Foraging's own rules in the world model's place; the latent is the observation."""

    chance = staticmethod(certain)

    def rollout(
        self, state: State, actions: Tensor, goal: Tensor | None = None, feel: Any = (), chance: object = None
    ) -> Trajectory:
        seen = state.latent[:, None, None]  # B, 1, 1, 15
        path = [seen[..., :2].expand(-1, actions.shape[1], -1, -1)]
        for move in actions.unbind(2):
            path.append((path[-1] + STEP * move.unsqueeze(2)).clamp(0, 1))
        there = torch.cat(path[1:], dim=2)  # B, S, T, 2
        food, hazard, other, token = (seen[..., :2] + seen[..., i : i + 2] for i in (3, 5, 7, 9))
        ate, took = (self._first((there - place).norm(dim=-1) < REACH) for place in (food, token))
        charge = seen[..., 2] + (MEAL * ate - DRAIN).cumsum(-1)
        rims = [(there - place).norm(dim=-1) - HAZARD_RADIUS for place in (hazard, other)]
        nothing = torch.zeros_like(charge)
        gap = torch.minimum(*rims).clamp(min=0)
        iota = interoception(took.float(), nothing, nothing, None, charge.clamp(0, 1), gap)
        return Trajectory(seen.expand(-1, actions.shape[1], actions.shape[2] + 1, -1), iota, 1 - nothing)

    @staticmethod
    def _first(near: Tensor) -> Tensor:
        """Where something is taken for the first time: afterwards it is elsewhere."""
        return near & (near.cumsum(-1) == 1)


class NothingExpected(torch.nn.Module):
    """A critic of few words."""

    def forward(self, state: State, configuration: Any) -> Tensor:
        return torch.zeros(*state.latent.shape[:-1], len(DRIVES))


def live(steps: int = 40, **weights: float) -> dict[str, float]:
    """Pickups and contacts of Mode-2 per dot, and its mean distance from hazards, under these weights."""
    thinking = Thinking(horizon=8, candidates=64, iterations=2, hold=4)
    configurator = Configurator(Task(discount=0.95, thinking=thinking, **({"pleasure": 0.0} | weights)))
    m = Modules(configurator, None, TrueWorld(), IntrinsicCost(), NothingExpected(), None)  # type: ignore[arg-type]
    env, draws = ForagingVectorEnv(16, max_steps=1_000), torch.Generator().manual_seed(0)
    planner = make_planner("cem", FORAGER.action)
    observation, _ = env.reset(seed=0)
    counts = dict.fromkeys(("food", "token", "contact", "gap"), 0.0)
    for _ in range(steps):
        state = State(torch.from_numpy(observation))
        plan = think(m, state, configurator("mode-2"), planner, FORAGER.action, None, draws)
        observation, _, _, _, infos = env.step(plan.actions[:, 0].numpy())
        for name in ("food", "token", "contact"):
            counts[name] += infos[name].mean()
        counts["gap"] += infos["interoception"][:, 1].mean() / steps
    return counts


def test_more_hunger_more_food_and_the_other_sign_none() -> None:
    food = [live(pleasure=1.0, hunger=weight)["food"] for weight in (0.0, 0.3, 3.0)]
    assert food[0] < food[1] < food[2]
    neutral, averse = live(hunger=0.0)["food"], live(hunger=-1.0)["food"]
    assert averse < 0.5 * neutral < neutral < 0.5 * food[2]


def test_more_hazard_fewer_contacts_and_no_sign_seeks_them() -> None:
    lives = [live(pleasure=1.0, hazard=weight) for weight in (0.0, 0.05, 3.0)]
    contacts = [life["contact"] for life in lives]
    assert contacts[0] > 1 > contacts[1] >= contacts[2] == 0
    assert lives[0]["gap"] < lives[1]["gap"] < lives[2]["gap"]
    assert lives[0]["token"] > lives[1]["token"] > lives[2]["token"]  # what that costs
    assert live(pleasure=1.0, hazard=-100.0) == lives[0]  # the floor


def test_the_sign_of_pleasure_decides_over_tokens() -> None:
    wanting, loathing = live(pleasure=1.0)["token"], live(pleasure=-1.0)["token"]
    assert wanting > 3 and loathing < 0.1 * wanting


def test_a_forager_can_be_told_to_do_something_else() -> None:
    """The same networks, other weights: what is eaten and what is collected changes places."""
    collect, eat = live(pleasure=1.0), live(hunger=1.0)
    assert collect["token"] > 2 * eat["token"] and eat["food"] > 2 * collect["food"]
