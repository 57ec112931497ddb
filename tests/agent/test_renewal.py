"""Networks that begin anew halfway: nothing of them is left, everything remembered is, and a stop changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forethought.agent.config import RunConfig
from forethought.agent.presets import for_gpu, preset
from forethought.agent.run import check_settings, prepare
from forethought.agent.training import Trainer, behaviour_updates, model_updates
from forethought.envs.procgen import GAMES

from forethought.progress import phase_totals

from .small import fingerprints, tiny
from .test_resume import assert_same, live, small


def renewed(config: RunConfig, renewal: int | None = 2, rounds: int = 3) -> RunConfig:
    schedule = replace(config.schedule, renewal=renewal, rounds=rounds, rest=None, prefill_behaviour=2)
    return replace(config, schedule=schedule)


class Anew:
    """A trainer that is looked at right before and right after its networks begin anew."""

    def __init__(self, config: RunConfig) -> None:
        agent, env = prepare(config)
        self.told: list[str] = []
        self.trainer = Trainer(agent, env, lambda phase, *_: self.told.append(phase))
        self.looks: list[dict[str, Any]] = []
        learner = self.trainer.learner
        renew = learner.renew

        def watched(fresh: Any) -> None:
            self.looks.append(self.look())
            renew(fresh)
            self.looks.append(self.look())

        learner.renew = watched  # type: ignore[method-assign]
        self.first = self.look()
        self.trainer.run()
        env.close()

    def look(self) -> dict[str, Any]:
        learner, memory = self.trainer.learner, self.trainer.memory
        slow = {
            name: float(sum(p.detach().sum() for p in network.parameters()))
            for name, network in learner.networks().items()
        }
        return {
            "networks": fingerprints(self.trainer.agent),
            "slow": slow,
            "moments": [len(optimiser.state) for optimiser in learner.optimisers().values()],
            "memory": (memory.changes, len(memory)),
            "age": learner.age,
            "prediction": learner._prediction_weight(),
            "spread": learner.behaviour.spread,
        }


@pytest.fixture(scope="module")
def anew() -> Anew:
    config = tiny()
    loss = replace(config.model_loss, prediction_delay=3, returns=0.5, regulariser="ema")
    behaviour = replace(config.behaviour, improvement=1.0)
    return Anew(renewed(replace(config, model_loss=loss, behaviour=behaviour)))


def test_all_networks_begin_anew_and_what_hangs_on_them_too(anew: Anew) -> None:
    before, after = anew.looks[:2]
    for name, print_ in after["networks"].items():
        assert print_ not in (before["networks"][name], anew.first["networks"][name]), name
    assert set(after["slow"]) == {"target", "target_perception", "returns"}
    for name, total in after["slow"].items():
        assert total not in (before["slow"][name], anew.first["slow"][name]), name
    agent, learner = anew.trainer.agent, anew.trainer.learner
    assert all(before["moments"]) and not any(after["moments"])
    assert before["spread"] != 1.0 == after["spread"]
    assert learner.agent is agent and agent.modules.critic is not learner.behaviour.target_critic


def test_the_slow_copies_are_of_the_new_networks(anew: Anew) -> None:
    agent, learner = anew.trainer.agent, anew.trainer.learner
    fresh = type(agent)(replace(agent.config, seed=99), agent.spaces)
    learner.renew(fresh)
    for slow, fast in (
        (learner.behaviour.target_critic, fresh.modules.critic),
        (agent.modules.critic, fresh.modules.critic),
    ):
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            assert torch.equal(one, other)


def test_what_is_remembered_stays_and_is_learned_from_as_at_first(anew: Anew) -> None:
    before, after = anew.looks[:2]
    assert after["memory"] == before["memory"] and after["memory"][1] > 0
    assert after["age"] == (0, 6 + 4) and before["age"] == (0, 6 + 4)  # updates of the new networks: none yet, of 10
    assert after["prediction"] == 0.0 < anew.trainer.agent.config.model_loss.prediction
    trainer, schedule = anew.trainer, anew.trainer.agent.config.schedule
    assert trainer.learner.done == 2 * 6 + 3 * 4 == model_updates(schedule, 3)
    totals = phase_totals(trainer.agent.config)
    for name in ("world model", "behaviour"):
        assert totals[name] == anew.told.count(name), name


def test_without_a_renewal_there_is_none() -> None:
    never = Anew(renewed(tiny(), None))
    assert never.looks == [] and never.trainer.learner.done == 6 + 3 * 4


def test_stopping_anywhere_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = renewed(small("procgen:coinrun"), 1, 2)
    whole = live(config, tmp_path / "whole", monkeypatch)
    assert whole.trainer.learner.done == model_updates(config.schedule, 2)
    schedule = config.schedule
    units = (schedule.prefill + schedule.round_steps) // config.env.num_envs + schedule.prefill_updates + 1
    units += schedule.prefill_behaviour + schedule.round_updates + behaviour_updates(schedule)  # up to the renewal
    stops = tuple(units + later for later in (-1, 0, 1, 3, schedule.prefill_updates, schedule.prefill_updates + 1, 12))
    assert_same(whole, live(config, tmp_path / "parts", monkeypatch, stops))


@pytest.mark.parametrize(("renewal", "updates"), [(0, 6), (3, 6), (-1, 6), (2, 0)])
def test_a_renewal_that_cannot_be_is_refused(renewal: int, updates: int) -> None:
    config = renewed(tiny(), renewal)
    config = replace(config, schedule=replace(config.schedule, prefill_updates=updates))
    with pytest.raises(ValueError, match=rf"schedule\.renewal is {renewal}, schedule\.prefill_updates {updates}"):
        check_settings(config)


def test_the_presets_of_all_games_can_be_trained_with() -> None:
    for game in GAMES:
        usual = preset(f"procgen:{game}")
        check_settings(usual)
        check_settings(for_gpu(usual))
        assert (usual.schedule.renewal is not None) == (game in ("starpilot", "coinrun"))
