"""Learning to configure: the search finds what is best, on a toy and for an agent, and goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forethought.agent import configuring, run
from forethought.agent.agent import Agent
from forethought.agent.calibration import SEED, calibrate, with_gate
from forethought.agent.comparison import CompareConfig, modes_of, play
from forethought.agent.configuring import (
    ConfigureConfig,
    begin,
    check_configure,
    configured,
    differing,
    generation,
    load,
    measure,
    mode_of,
    realise,
    save,
    verdict,
)
from forethought.agent.evaluation import evaluate
from forethought.agent.evolution import Evolution
from forethought.agent.worlds import build_env
from forethought.modules.actor import CategoricalPolicy
from forethought.modules.configurator import Task, Thinking
from forethought.modules.types import Configuration, Gate, State

from .small import make_agent, settings

KNOBS = ("thinking.candidates", "thinking.iterations")


# ---- the search


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("best", [(0.8, 0.3, 0.55), (0.1, 0.9, 0.0)])
def test_the_search_finds_a_known_optimum_through_noise(best: tuple[float, ...], seed: int) -> None:
    noise = np.random.default_rng(seed)
    search = Evolution((0.5,) * 3, (0.2,) * 3, seed=seed, pairs=6)
    for _ in range(40):
        asked = search.ask()
        assert asked.shape == (12, 3) and asked.min() >= 0 and asked.max() <= 1
        costs = ((asked - np.array(best)) ** 2 @ np.array([1.0, 5.0, 0.5])) + 0.01 * noise.normal(size=12)
        search = search.tell(costs.tolist())
    assert search.generation == 40
    assert np.abs(np.array(search.mean) - np.array(best)).max() < 0.12


def test_costs_that_say_nothing_move_nothing() -> None:
    search = Evolution((0.5, 0.5), (0.2, 0.2))
    after = search.tell([3.0] * 8)
    assert after.mean == pytest.approx(search.mean) and after.width == pytest.approx(search.width)
    costs = np.random.default_rng(0).normal(size=8)
    one, other = search.tell(costs.tolist()), search.tell((100 * costs + 7).tolist())
    assert one == other != search  # ranks alone count
    with pytest.raises(ValueError, match="expected 8 finite numbers"):
        search.tell([1.0] * 7)
    with pytest.raises(ValueError, match="expected 8 finite numbers"):
        search.tell([float("nan")] * 8)


def test_the_draws_of_a_generation_mirror_each_other() -> None:
    search = Evolution((0.5, 0.5), (0.1, 0.1), seed=3)
    asked = search.ask()
    assert np.allclose(asked[0::2] + asked[1::2], 1.0)
    assert np.array_equal(asked, search.ask())
    assert not np.array_equal(asked, replace(search, generation=1).ask())


# ---- what a configuration costs


def test_realised_cost_is_what_was_felt_under_the_scripted_weights() -> None:
    agent = make_agent(pleasure=2.0, ending=3.0, thinking=Thinking(horizon=3, candidates=6, iterations=1))
    other = replace(agent.config.task, pleasure=0.0, ending=0.0)  # not to care does not make it cheaper
    found = realise(agent, other, 12, 5, held_out=True, price=0.0)
    one = play(modes_of(agent, CompareConfig(("mode-1",), film=0))[0], CompareConfig(episodes=12, film=0, seed=5))
    assert len(one.returns) == len(found.returns) == 12
    fell = found.felt + 2 * found.returns
    assert np.allclose(found.felt, found.total) and set(np.round(fell, 3)) <= {0.0, 3.0}
    assert found.calls == 3 * 6
    priced = realise(agent, other, 12, 5, held_out=True, price=10.0)
    assert np.allclose(priced.felt, found.felt) and (priced.total > priced.felt).all()


def test_a_configuration_with_a_gate_acts_gated() -> None:
    assert mode_of(Task()) == "mode-2"
    assert mode_of(Task(thinking=Thinking(gate=Gate(entropy=0.0)))) == "gated"


# ---- an agent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent that learned `Seek`; its script thinks much harder than this world needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "DECISIONS", 128)
        config = settings(thinking=Thinking(horizon=4, candidates=64, iterations=3))
        yield run.train(config, tmp_path_factory.mktemp("seek"), lambda *told: None)


def test_the_learned_configuration_costs_less_on_held_out_episodes(trained: Agent) -> None:
    config = ConfigureConfig(knobs=KNOBS, generations=4, pairs=3, episodes=6, held_out=24, price=0.5)
    learned = begin(trained, config)
    assert learned.learned == learned.scripted == trained.config.task
    before = trained.config, trained.generator.get_state()
    for _ in range(config.generations):
        learned = generation(trained, learned)
    learned = measure(trained, learned)
    assert {name for name, _, _ in differing(learned.scripted, learned.learned)} <= set(KNOBS)
    assert learned.scripted == trained.config.task != learned.learned
    mean, low, _ = learned.measured["saved"]["cost"]
    assert low > 0 and verdict(learned).startswith("the learned configuration saves")
    assert learned.measured["learned"]["calls"] < 0.8 * learned.measured["scripted"]["calls"]
    assert mean == pytest.approx(
        learned.measured["scripted"]["cost"][0] - learned.measured["learned"]["cost"][0], abs=1e-6
    )
    assert (trained.config, True) == (before[0], torch.equal(trained.generator.get_state(), before[1]))


def test_doubt_is_a_better_reason_to_plan_than_chance(trained: Agent) -> None:
    """Half of this actor's states are made hard for it: a gate finds them, chance as often does not (F6)."""
    agent, count = trained, 96
    original, weights = agent.modules.actor, side_probe(agent)

    class Torn(torch.nn.Module):
        """It knows nothing where the target is on the right."""

        def forward(self, state: State, configuration: Configuration) -> CategoricalPolicy:
            policy = original(state, configuration)
            assert isinstance(policy, CategoricalPolicy)
            left = (state.latent @ weights[:-1] + weights[-1] < 0).float()
            return replace(policy, logits=policy.logits * left[..., None])

    torn = with_gate(agent, Gate())
    torn.modules = replace(agent.modules, actor=Torn())  # type: ignore[arg-type]
    gate = calibrate(torn, 0.5, ("entropy",), decisions=512)
    env = build_env(agent.config.env, count, seed=77, held_out=True)
    found = {}
    for name, opened, mode in (
        ("mode-1", Gate(), "mode-1"),
        ("gated", gate, "gated"),
        ("mode-2", Gate(), "mode-2"),
    ):
        row = evaluate(name, env, with_gate(torn, opened).begin(count, mode), seed=77)  # type: ignore[arg-type]
        found[name] = (row.returns, row.calls)
    rate = found["gated"][1] / found["mode-2"][1]
    row = evaluate("chance", env, with_gate(torn, Gate(chance=rate)).begin(count, "gated"), seed=77)
    gain = {name: found[name][0].mean() for name in found} | {"chance": row.returns.mean()}
    assert 0.3 < rate < 0.7 and gain["mode-2"] > gain["mode-1"] + 1
    closed = (gain["gated"] - gain["mode-1"]) / (gain["mode-2"] - gain["mode-1"])
    by_chance = (gain["chance"] - gain["mode-1"]) / (gain["mode-2"] - gain["mode-1"])
    assert closed > 0.85 and closed > by_chance + 0.1
    env.close()


def side_probe(agent: Agent) -> torch.Tensor:
    """Weights and offset that read the target's place from the latent."""
    x = torch.rand(512, 1, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latent = agent.modules.perception.encode(x).latent
    inputs = torch.cat([latent, torch.ones(512, 1)], -1)
    return torch.linalg.lstsq(inputs, x[:, 0, 1:]).solution[:, 0]


# ---- files


def quick() -> tuple[Agent, ConfigureConfig]:
    agent = make_agent(thinking=Thinking(horizon=2, candidates=4, iterations=1))
    return agent, ConfigureConfig(knobs=KNOBS, generations=3, pairs=1, episodes=2, held_out=3, longest=4)


def test_a_search_that_was_stopped_and_resumed_is_the_one_that_was_not(tmp_path: Path) -> None:
    agent, config = quick()
    whole = begin(agent, config)
    for _ in range(3):
        whole = generation(agent, whole)
    stopped = generation(agent, begin(agent, config))
    save(stopped, tmp_path / "c" / "level-3.json")
    resumed = load(tmp_path / "c" / "level-3.json")
    assert resumed == stopped
    for _ in range(2):
        resumed = generation(agent, resumed)
    assert resumed == whole and len(resumed.history) == 3
    both = json.loads((tmp_path / "c" / "level-3.json").read_text())
    assert both["scripted"]["thinking"]["candidates"] == 4 and "learned" in both


def test_searching_plays_training_episodes_and_measuring_held_out_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    build = configuring.build_env

    def spied(config, count, **options):  # type: ignore[no-untyped-def]
        asked.append((options["seed"], options["held_out"]))
        return build(config, count, **options)

    monkeypatch.setattr(configuring, "build_env", spied)
    agent, config = quick()
    learned = generation(agent, generation(agent, begin(agent, config)))
    assert [held for _, held in asked] == [False] * 4 and min(seed for seed, _ in asked) > SEED
    assert asked[0] == asked[1] != asked[2] == asked[3]  # one generation's configurations play the same episodes
    asked.clear()
    measure(agent, learned)
    assert asked == [(1_000, True)] * 2


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    agent, config = quick()
    path = tmp_path / "level-3.json"
    with pytest.raises(FileNotFoundError, match="forethought configure RUN writes one"):
        load(path)
    save(begin(agent, config), path)
    good = path.read_text()
    for bad, match in (
        (good.replace('"format": 1', '"format": 9'), "no configuration of format 1"),
        (good.replace('"generation"', '"generatoin"'), "is damaged"),
        (good.replace('"scripted"', '"script"'), "is damaged"),
        (good.replace('"pleasure": 1.0', '"pleasure": "much"', 1), "pleasure is 'much', expected"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=match):
            load(path)
    path.write_text(good)
    with pytest.raises(ValueError, match="is about reward and the agent about goals"):
        configured(make_agent(goals=True), path)


def test_a_learned_configuration_is_a_row(tmp_path: Path) -> None:
    agent, config = quick()
    task = replace(agent.config.task, thinking=Thinking(horizon=2, candidates=7, iterations=3))
    save(replace(begin(agent, config), learned=task), tmp_path / "level-3.json")
    rows = CompareConfig(("mode-2",), episodes=2, film=0, configurations=(str(tmp_path / "level-3.json"),))
    players = modes_of(agent, rows)
    assert [player.name for player in players] == ["mode-2", "configured · level-3"]
    assert [play(player, rows).calls for player in players] == [8, 42]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"knobs": ("thinking.risk",)}, "no ensemble"),
        ({"knobs": ("speed",)}, "--knobs is speed"),
        ({"episodes": 0}, "--episodes is 0"),
        ({"price": -1.0}, "--price is -1.0"),
        ({"width": 0.9}, "--width 0.9"),
    ],
)
def test_searches_that_cannot_work_are_refused(change: dict[str, object], match: str) -> None:
    agent, config = quick()
    with pytest.raises(ValueError, match=match):
        check_configure(agent, replace(config, **change))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the task is about goals"):
        check_configure(make_agent(goals=True), replace(config, knobs=("pleasure",)))
