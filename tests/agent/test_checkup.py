"""Probes, violation of expectation, recordings, imagination, and the reports of them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.checkup import Health, examine, imagine_held_out, record_held_out
from forethought.agent.config import EnvConfig, RunConfig
from forethought.agent.health_report import as_json, health_table, write_health
from forethought.agent.imagination import FirstPlan, principal_plane
from forethought.agent.interaction import RandomBehaviour, interact
from forethought.agent.modes import mode_2
from forethought.agent.probes import linear_probe
from forethought.agent.recording import record
from forethought.agent.violation import SHIFT, other_actions, transition_energy, violations
from forethought.agent.worlds import build_env, held_out_env
from forethought.modules.actions import ActionEncoder
from forethought.modules.configurator import Task, Thinking
from forethought.modules.perception import PerceptionConfig
from forethought.modules.world_model import WorldModelConfig
from gymnasium import spaces
from PIL import Image
from rich.console import Console
from torch import Tensor

from .small import SEEK, settings, wake


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def room_settings(id: str = "TwoRoom") -> RunConfig:
    thinking = Thinking(horizon=4, candidates=8, iterations=2)
    return replace(
        settings(),
        env=EnvConfig(id, num_envs=4),
        task=Task(goals=True, thinking=thinking),
        perception=PerceptionConfig("cnn", latent=8, width=8),
        world_model=WorldModelConfig(hidden=16, events=False),
    )


def agent_for(config: RunConfig) -> Agent:
    from forethought.agent.run import prepare

    agent, env = prepare(config)
    env.close()
    return wake(agent)


@pytest.fixture(scope="module")
def walker() -> Agent:
    """An untrained agent in TwoRoom."""
    return agent_for(room_settings())


@pytest.fixture(scope="module")
def seeker() -> Agent:
    return wake(Agent(settings(), SEEK))


# ---- probes


def test_a_linear_fact_is_read_from_other_episodes() -> None:
    latent = torch.randn(400, 6, generator=draws())
    facts = latent[:, :2] * torch.tensor([50.0, 0.01]) + torch.tensor([100.0, -3.0])
    probe = linear_probe(latent, facts, torch.arange(400) // 20, draws())
    assert min(probe.scores) > 0.9999
    assert ((probe(latent) - facts) / facts.std(0)).abs().max() < 1e-3


def test_what_is_not_in_the_latents_is_not_read() -> None:
    latent, noise = torch.randn(600, 6, generator=draws()), torch.randn(600, 1, generator=draws(1))
    assert linear_probe(latent, noise, torch.arange(600) // 20, draws()).scores[0] < 0.05
    curved = latent[:, :1] ** 2
    assert linear_probe(latent, curved, torch.arange(600) // 20, draws()).scores[0] < 0.3


def test_a_probe_cannot_learn_the_episodes_by_heart() -> None:
    """Latents that only say which episode it is, facts that are drawn once per episode."""
    episode = torch.arange(400) // 20
    latent = torch.eye(20)[episode]
    facts = torch.randn(20, 1, generator=draws())[episode]
    assert linear_probe(latent, facts, episode, draws()).scores[0] < 0.05


def test_a_fact_that_does_not_vary_has_no_score() -> None:
    latent = torch.randn(40, 3, generator=draws())
    scores = linear_probe(latent, torch.ones(40, 1), torch.arange(40) // 5, draws()).scores
    assert math.isnan(scores[0])


def test_a_single_episode_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="at least 2 episodes"):
        linear_probe(torch.zeros(5, 2), torch.zeros(5, 1), torch.zeros(5), draws())


# ---- violation of expectation


class Steps:
    """s' = s + a, or s' = s for a model that does not listen."""

    def __init__(self, space: Any, listens: bool = True) -> None:
        self.actions, self.listens = ActionEncoder(space), listens

    def begin(self, latent: Tensor) -> tuple[Tensor]:
        return (latent.unsqueeze(-2),)

    def outcomes(self, carry: tuple[Tensor], encoded: Tensor) -> tuple[tuple[Tensor], None]:
        (latent,), step = carry, encoded.argmax(-1).float()[..., None, None]
        return ((latent + (step if self.listens else 0)).unsqueeze(-3),), None


def steps(seed: int = 0, windows: int = 60, length: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Random walks of whole steps 1 … 4: latents ``[B, T+1, 1]``, actions ``[B, T]`` and what is known."""
    action = torch.randint(1, 5, (windows, length), generator=draws(seed))
    start = 1_000.0 * torch.arange(windows)[:, None]
    latent = torch.cat([start, start + action.cumsum(1)], dim=1).unsqueeze(-1)
    return latent, action, torch.ones(windows, length)


def test_a_perfect_model_is_surprised_by_all_that_cannot_be() -> None:
    found = violations(Steps(spaces.Discrete(5)), *steps(), draws())  # type: ignore[arg-type]
    assert (found.teleported, found.shifted, found.other_action) == (1, 1, 1)


def test_a_model_that_does_not_listen_is_not_surprised_by_other_actions() -> None:
    found = violations(Steps(spaces.Discrete(5), listens=False), *steps(), draws())  # type: ignore[arg-type]
    assert found.other_action == 0.5 and found.teleported == 1


def test_a_later_outcome_is_compared_at_its_own_distance() -> None:
    """When every step is alike, the late outcome is SHIFT steps further than expected, and nothing else."""
    action = torch.ones(10, 6, dtype=torch.int64)
    latent = torch.arange(7.0)[None, :, None].expand(10, -1, -1)
    energy = transition_energy(Steps(spaces.Discrete(5)), latent[:, :3], action[:, :3], latent[:, 1 + SHIFT :])  # type: ignore[arg-type]
    assert (energy == SHIFT**2).all()
    assert violations(Steps(spaces.Discrete(5)), latent, action, torch.ones(10, 6), draws()).shifted == 1  # type: ignore[arg-type]


def test_transitions_across_the_end_of_an_episode_do_not_count() -> None:
    """After the ends comes what would spoil every comparison: real outcomes that surprise, late ones that do not."""
    latent, action, known = steps()
    latent[:30, 4:] = latent[:30, 1:4].clone()
    known[:30, 3:] = 0
    found = violations(Steps(spaces.Discrete(5)), latent, action, known, draws())  # type: ignore[arg-type]
    assert (found.teleported, found.shifted, found.other_action) == (1, 1, 1)


def test_without_known_transitions_nothing_is_said() -> None:
    latent, action, known = steps()
    found = violations(Steps(spaces.Discrete(5)), latent, action, 0 * known, draws())  # type: ignore[arg-type]
    assert (found.teleported, found.shifted, found.other_action) == (None, None, None)
    short = violations(Steps(spaces.Discrete(5)), latent[:, :3], action[:, :2], known[:, :2], draws())  # type: ignore[arg-type]
    assert short.shifted is None and short.teleported == 1


def test_other_actions_are_all_the_others() -> None:
    taken = torch.randint(4, (4_000,), generator=draws())
    other = other_actions(taken, ActionEncoder(spaces.Discrete(4)), draws(1))
    assert (other != taken).all()
    shares = torch.bincount((other - taken) % 4, minlength=4) / 4_000
    assert shares[1:].min() > 0.3  # a third each
    parts = torch.stack([taken % 2, taken % 3], dim=-1)
    others = other_actions(parts, ActionEncoder(spaces.MultiDiscrete([2, 3])), draws(1))
    assert (
        (others != parts).all() and set(others[:, 1].tolist()) == {0, 1, 2} and (others[:, 0] == 1 - parts[:, 0]).all()
    )


def test_other_actions_of_a_box_lie_anywhere_within() -> None:
    box = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
    other = other_actions(torch.zeros(2_000, 2), ActionEncoder(box), draws())
    low, high = other.amin(0), other.amax(0)
    assert (low >= torch.tensor([-1.0, 0.0])).all() and (high <= torch.tensor([1.0, 5.0])).all()
    torch.testing.assert_close(high - low, torch.tensor([2.0, 5.0]), rtol=0.02, atol=0)


# ---- recordings


def dots(pictures: Tensor) -> np.ndarray[Any, Any]:
    """Centres of the red dots of TwoRoom pictures ``[N, 64, 64, 3]`` in the world's own pixels."""
    red = pictures[..., 0].double() - pictures[..., 1].double()
    axis = (torch.arange(64) + 0.5) * 3.5 - 0.5
    mass = red.sum((1, 2))
    return torch.stack([(red.sum(1) * axis).sum(1) / mass, (red.sum(2) * axis).sum(1) / mass], dim=1).numpy()


def test_the_facts_of_a_room_are_those_of_the_picture_beside_them(walker: Agent) -> None:
    env = held_out_env(walker, 8, 7)
    recording = record(walker, env, RandomBehaviour(walker.spaces.action, 8, 7, 1), 110, 7)  # episodes end after 100
    assert recording.names == ("x", "y") and recording.facts.shape == (8, 110, 2)
    inner = ((recording.facts > 40) & (recording.facts < 184)).all(-1).reshape(-1)  # dots at the rim are cut off
    apart = dots(recording.observations()[:, 0]) - recording.facts.reshape(-1, 2)
    assert inner.reshape(8, 110)[:, 101:].any() and np.abs(apart[inner]).max() < 1.0


def test_recordings_of_rooms_that_change_know_wall_and_door() -> None:
    agent = agent_for(room_settings("DotWall"))
    env = held_out_env(agent, 2, 7)
    recording = record(agent, env, RandomBehaviour(agent.spaces.action, 2, 7, 1), 3, 7)
    assert recording.names == ("x", "y", "wall", "door")
    state = env.unwrapped._facts()  # type: ignore[attr-defined]
    np.testing.assert_allclose(recording.facts[:, -1, 2], state["wall"], rtol=1e-6)
    np.testing.assert_allclose(recording.facts[:, -1, 3], state["door"], rtol=1e-6)


def test_vectors_are_their_own_facts_and_episodes_are_counted(seeker: Agent) -> None:
    recording = record_held_out(seeker, 32 * 30, 5)
    observed = recording.observations()[:, 0]
    assert recording.names == ("observation 0", "observation 1")
    torch.testing.assert_close(torch.from_numpy(recording.facts).flatten(0, 1), observed)
    ended = (recording.memory.data["terminated"] | recording.memory.data["truncated"])[:, :30].astype(bool)
    episodes = recording.episodes().reshape(32, 30).numpy()
    assert (np.diff(episodes, axis=1) == ended[:, :-1]).all()  # a new number after each end
    assert len(np.unique(episodes[:, 0])) == 32 and (np.diff(episodes.reshape(-1)) >= 0).all()  # and for each stream


def test_recordings_are_repeatable_and_held_out_starts_depend_on_the_seed(seeker: Agent) -> None:
    first, again, other = (record_held_out(seeker, 640, seed).facts for seed in (5, 5, 6))
    assert (first == again).all() and (first[:, 0] != other[:, 0]).any()


def test_the_facts_of_a_step_are_those_of_its_observation() -> None:
    env = build_env(EnvConfig("TwoRoom"), 2, seed=3, held_out=False)
    expected = [env.reset(seed=3)[1]["position"]]
    for step in islice(interact(env, RandomBehaviour(env.single_action_space, 2, 0, 1), seed=3), 4):
        np.testing.assert_array_equal(step.facts["position"], expected[-1])
        expected.append(step.infos["position"])
    assert (expected[0] != expected[-1]).all()


def test_episodes_of_goal_tasks_run_on_past_the_goal(walker: Agent, seeker: Agent) -> None:
    assert held_out_env(walker, 1, 7).unwrapped.terminate_on_success is False  # type: ignore[attr-defined]
    assert held_out_env(seeker, 1, 7).num_envs == 1
    with pytest.raises(ValueError, match="trained on"):
        held_out_env(Agent(replace(settings(), env=EnvConfig("CartPole-v1")), SEEK), 1, 7)


# ---- the whole check-up


def test_the_check_up_of_an_untrained_agent_in_a_world_of_vectors(seeker: Agent) -> None:
    recording = record_held_out(seeker, 32 * 20, 5)
    told: list[tuple[int, int]] = []
    health = examine(seeker, recording, 5, lambda done, wanted: told.append((done, wanted)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert health.decisions == 32 * 20 and health.episodes == len(np.unique(recording.episodes()))
    assert health.probe is not None and len(health.probe.scores) == 2
    assert health.probe_score == pytest.approx(sum(health.probe.scores) / 2)
    assert health.vitals.inverse is None  # no head was trained
    assert all(math.isfinite(value) for value in health.numbers().values())
    assert examine(seeker, recording, 5).numbers() == health.numbers()
    with_head = Agent(replace(settings(), model_loss=replace(settings().model_loss, inverse=0.1)), SEEK)
    assert examine(with_head, recording, 5).vitals.inverse is not None


# ---- imagination


def test_the_first_plan_is_carried_out_to_its_end(walker: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return mode_2(*arguments)

    monkeypatch.setattr("forethought.agent.agent.mode_2", counted)
    acting = walker.begin(3, "mode-2")
    env = held_out_env(walker, 3, 7)
    taken = []
    for count, step in enumerate(interact(env, FirstPlan(acting), seed=7)):
        taken.append(step.action)
        if count == 5:
            break
    assert len(calls) == 1
    np.testing.assert_array_equal(np.stack(taken[:4], axis=1), acting.course)
    np.testing.assert_array_equal(taken[4], taken[3])  # after the end of the plan: its last action


def test_imagined_courses_start_where_the_real_ones_do_and_are_the_models(walker: Agent) -> None:
    recording = record_held_out(walker, 32 * 4, 5)
    health = examine(walker, recording, 5)
    walker.generator.manual_seed(1)
    found = imagine_held_out(walker, health, recording, 3, 5)
    assert found.imagined.shape == found.real.shape == (3, 5, 2) and found.known.all()
    np.testing.assert_allclose(found.imagined[:, 0], found.real[:, 0])
    assert np.abs(found.imagined[:, -1] - found.real[:, -1]).max() > 1e-3  # an untrained model is wrong
    assert found.shown == ("x", "y") and found.room is not None and found.true is not None
    assert found.room.side == 224 and len(found.room.pictures) == 3
    env = held_out_env(walker, 3, 5, "rgb_array")
    seen, infos = env.reset(seed=5)
    np.testing.assert_allclose(found.true[:, 0], infos["position"], rtol=1e-6)
    np.testing.assert_array_equal(found.room.pictures, env.render())
    walker.generator.manual_seed(1)
    everywhere = np.ones(3, np.bool_)
    course = walker.begin(3, "mode-2").act(seen, everywhere, everywhere).course
    assert course is not None and health.probe is not None
    with torch.no_grad():
        start = walker.modules.perception.encode(torch.from_numpy(seen["observation"][:, None]))
        expected = walker.modules.world_model.rollout(start, torch.from_numpy(course[:, None])).latent[:, 0]
    np.testing.assert_allclose(found.imagined, health.probe(expected)[..., :2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.errors, np.linalg.norm(found.imagined - found.true, axis=-1))


def test_imagination_is_not_compared_beyond_the_end_of_an_episode() -> None:
    config = settings(thinking=Thinking(horizon=15, candidates=8, iterations=1))
    agent = wake(Agent(config, SEEK))
    recording = record_held_out(agent, 32 * 12, 5)
    found = imagine_held_out(agent, examine(agent, recording, 5), recording, 4, 5)
    assert found.room is None and found.true is None and found.cloud.shape == (32 * 12, 2)
    steps = found.known.sum(1) - 1
    assert (steps <= 11).all()  # Seek ends after 12 steps: the 12th outcome is of the next episode
    assert np.isnan(found.errors[0, steps[0] + 1 :]).all() and np.isfinite(found.errors[0, : steps[0] + 1]).all()


def test_the_plane_is_that_of_the_principal_components() -> None:
    latents = torch.randn(500, 5, generator=draws()) * torch.tensor([1.0, 5.0, 0.1, 2.0, 0.1]) + 3
    project, names = principal_plane(latents)
    points = project(latents)
    assert points.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert abs(np.corrcoef(points[:, 0], latents[:, 1])[0, 1]) > 0.999
    assert abs(np.corrcoef(points[:, 1], latents[:, 3])[0, 1]) > 0.99
    variances = latents.double().var(0)
    assert names[0] == f"first principal component ({100 * variances[1] / variances.sum():.0f} %)"
    assert principal_plane(latents[:, :1])[0](latents[:, :1]).shape == (500, 2)


# ---- reports


def check_up(agent: Agent) -> tuple[Health, Any]:
    recording = record_held_out(agent, 32 * 4, 5)
    health = examine(agent, recording, 5)
    return health, imagine_held_out(agent, health, recording, 4, 5)


@pytest.mark.parametrize("name", ["walker", "seeker"])
def test_a_report_is_three_files_that_can_be_read(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    health, imagination = check_up(request.getfixturevalue(name))
    paths = write_health(health, imagination, "World", tmp_path / "new", {"seed": 5})
    assert [path.name for path in paths] == ["health.json", "health.png", "imagination.png"]
    document = json.loads(paths[0].read_text())
    assert document["metadata"] == {"seed": 5} and document["decisions"] == 128
    assert document["latents"]["effective_rank"] == health.vitals.spread.rank
    assert document["prediction_error"]["model"] == pytest.approx(health.vitals.errors.model, nan_ok=True)
    assert document["violation_auroc"]["teleported"] == health.violations.teleported
    for path in paths[1:]:
        with Image.open(path) as picture:
            assert picture.width == 1800 and len(picture.convert("L").getcolors(1 << 24) or []) > 20


def test_what_is_unknown_is_null_in_json_and_said_in_the_table(seeker: Agent) -> None:
    health, _ = check_up(seeker)
    errors = replace(health.vitals.errors, model=(math.nan,) * 3)
    unknown = replace(
        health,
        vitals=replace(health.vitals, errors=errors),
        violations=replace(health.violations, shifted=None),
        probe=None,
    )
    document = as_json(unknown)
    assert document["prediction_error"]["model"] == [None] * 3
    assert document["linear_probe_r2"] is None and document["violation_auroc"]["shifted"] is None
    assert "unknown" in shown(unknown) and "linear probe" not in shown(unknown)


def test_the_table_says_whether_the_representation_has_collapsed(seeker: Agent) -> None:
    health, _ = check_up(seeker)
    dead = replace(health.vitals.spread, std=(0.0, 0.01, 0.02))
    collapsed = replace(health, vitals=replace(health.vitals, spread=dead))
    alive = replace(health, vitals=replace(health.vitals, spread=replace(dead, std=(0.9, 1.0, 1.1), possible=1.0)))
    assert "not collapsed" in shown(alive)
    assert "not collapsed" not in shown(collapsed) and "collapsed: the latents' standard deviation" in shown(collapsed)
    assert as_json(collapsed)["collapsed"].startswith("the latents' standard") and as_json(alive)["collapsed"] is None


def shown(health: Health) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(health_table(health, "health"))
    return console.export_text()
