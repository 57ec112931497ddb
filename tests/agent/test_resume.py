"""A run that was stopped anywhere and resumed is the run that was never stopped, bit for bit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import keeper, resume, training
from forethought.agent.config import RunConfig, Saving
from forethought.agent.presets import preset
from forethought.agent.run import train
from forethought.agent.training import Trainer
from forethought.modules.configurator import Thinking
from numpy.typing import NDArray

from .small import tiny

SMALL_PIECE = 2_000  # bytes, so that even a tiny memory has several pieces


class Stop(KeyboardInterrupt):
    """What a test stops a run with."""


def small(id: str) -> RunConfig:
    """A run of every phase in a world, as short as can be."""
    base, short = preset(id), tiny()
    schedule = replace(short.schedule, prefill=96, round_steps=24, mode_1_rounds=2, capacity=200)
    pixels = base.perception.encoder == "cnn"
    return replace(
        base,
        env=replace(base.env, num_envs=4, train_levels=20, train_steps=9 if id == "DotWall" else None),
        task=replace(base.task, thinking=Thinking(horizon=3, candidates=6, iterations=2, commit=2)),
        perception=replace(base.perception, latent=8, width=8 if pixels else 4, history=2),
        world_model=replace(base.world_model, hidden=16),
        critic=replace(base.critic, hidden=16),
        actor=replace(base.actor, hidden=16),
        model_loss=replace(base.model_loss, steps=3, batch=4, targets=0, shift=2 if pixels else 0, prediction_delay=3),
        behaviour=replace(base.behaviour, batch=4, steps=3, courses=3, imagination=3, imitation=0.5),
        schedule=replace(schedule, reanalyse=2),
        saving=Saving(minutes=0, units=0, keep=2),
        device="cpu",
        threads=1,
    )


@dataclass
class Life:
    """A finished run: all that can be compared."""

    trainer: Trainer
    told: list[tuple[str, int, int, dict[str, float]]]

    def everything(self) -> dict[str, NDArray[Any]]:
        trainer = self.trainer
        tensors = {
            f"{name}.{key}": tensor
            for name, network in trainer.agent.networks().items()
            for key, tensor in network.state_dict().items()
        }
        tensors |= {f"learner.{key}": tensor for key, tensor in trainer.learner.state().items()}
        tensors |= {f"trainer.{key}": tensor for key, tensor in trainer.state().items()}
        arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        return arrays | {f"memory.{name}": array for name, array in trainer.memory.data.items()}


class Watch:
    """A report that remembers what it was told, over resumptions too."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int, dict[str, float]]] = []

    def __call__(self, phase: str, done: int, total: int, metrics: dict[str, float]) -> None:
        self.told.append((phase, done, total, dict(metrics)))

    def state(self) -> dict[str, Any]:
        return {"told": len(self.told)}

    def restore(self, state: dict[str, Any]) -> None:
        del self.told[state["told"] :]


def live(config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...] = ()) -> Life:
    """Train, stopping after these units of work and going on each time in a fresh trainer."""
    watch, lives = Watch(), []
    made = training.Trainer.__init__

    def remember(self: Trainer, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        lives.append(self)

    monkeypatch.setattr(training.Trainer, "__init__", remember)
    monkeypatch.setattr(resume, "PIECE", SMALL_PIECE)
    pause = keeper.Keeper.pause
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, stop in enumerate((*stops, None)):

            def maybe(self: keeper.Keeper, stop: int | None = stop) -> None:
                pause(self)
                if self.trainer.units == stop:
                    raise Stop

            monkeypatch.setattr(keeper.Keeper, "pause", maybe)
            torch.manual_seed(number)  # global generators do not matter
            np.random.seed(number)  # noqa: NPY002
            if stop is None:
                train(config, folder, watch, resume=number > 0)
            else:
                with pytest.raises(Stop):
                    train(config, folder, watch, resume=number > 0)
    monkeypatch.undo()
    return Life(lives[-1], watch.told)


def assert_same(one: Life, other: Life) -> None:
    first, second = one.everything(), other.everything()
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype and np.array_equal(array, second[name]), name
    assert [entry[:3] for entry in one.told] == [entry[:3] for entry in other.told]
    assert repr(one.told) == repr(other.told)


WORLDS = ["CartPole-v1", "TwoRoom", "procgen:coinrun"]


@pytest.mark.parametrize("id", WORLDS)
def test_stopping_anywhere_changes_nothing(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(id)
    whole = live(config, tmp_path / "whole", monkeypatch)
    units = whole.trainer.units
    draws = np.random.default_rng([2, WORLDS.index(id)])
    for attempt in range(3):
        stops = tuple(sorted(draws.choice(np.arange(1, units), size=2 + 2 * attempt, replace=False).tolist()))
        parts = live(config, tmp_path / str(attempt), monkeypatch, stops)
        assert_same(whole, parts)
