"""What goes wrong around a run: it stops with the cause, keeps what was good, and can go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forethought.agent import learning
from forethought.agent.behaviour import BehaviourLearner
from forethought.agent.config import Saving
from forethought.agent.errors import OutOfMemoryError, Stopped
from forethought.agent.faults import is_out_of_memory, locked, statistics_kept, stop_requests
from forethought.agent.interaction import RandomBehaviour, check_finite, interact
from forethought.agent.learning import Learner
from forethought.agent.run import check_settings, prepare, train
from forethought.agent.storage import read_tensors
from forethought.agent.training import Trainer

from .small import fingerprints, make_agent, make_window, tiny
from .test_resume import ignore, snapshot

pytestmark = pytest.mark.usefixtures("short_check_up")

SOON = replace(tiny(), saving=Saving(minutes=0, units=10))


# ---- numbers that are none


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    bad = np.zeros((3, 2), np.float32)
    check_finite("observation", bad)
    check_finite("observation", {"observation": np.zeros((3, 4), np.uint8), "desired_goal": bad})
    bad[2, 1] = value
    for given in (bad, {"observation": np.zeros((3, 4), np.uint8), "desired_goal": bad}):
        with pytest.raises(FloatingPointError, match=f"observation of environment 2 is {value}"):
            check_finite("observation", given)


@pytest.mark.parametrize("what", ["reset", "observation", "reward"])
def test_nothing_is_decided_on_observations_that_are_not_finite(what: str) -> None:
    class Broken(gymnasium.vector.VectorEnv[Any, Any, Any]):
        num_envs = 2

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            return np.full((2, 1), np.nan if what == "reset" else 0.0), {}

        def step(self, actions: Any) -> tuple[Any, ...]:
            seen = np.full((2, 1), np.nan if what == "observation" else 0.0)
            felt = np.full(2, np.nan if what == "reward" else 0.0)
            return seen, felt, np.zeros(2, np.bool_), np.zeros(2, np.bool_), {}

    random = RandomBehaviour(gymnasium.spaces.Discrete(2), 2, 0, 1)
    with pytest.raises(FloatingPointError, match="reward" if what == "reward" else "observation"):
        next(interact(Broken(), random))


Learning = Learner | BehaviourLearner


def owner(name: str) -> type[Learning]:
    """Whose update it is."""
    return Learner if hasattr(Learner, name) else BehaviourLearner


def failing(name: str, after: int, harm: Callable[[Any], None]) -> Callable[..., Any]:
    """A learner's update that does harm before its so-many-th time."""
    update, calls = getattr(owner(name), name), [0]

    def harmed(self: Learning, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == after:
            harm(self)
        return update(self, *arguments, **named)

    return harmed


def poison(learner: Learning) -> None:
    """A weight of perception becomes NaN."""
    with torch.no_grad():
        next(iter(learner.agent.modules.perception.parameters())).view(-1)[0] = torch.nan


def poison_critic(learner: Learning) -> None:
    with torch.no_grad():
        next(iter(learner.agent.modules.critic.parameters())).view(-1)[0] = torch.inf


@pytest.mark.parametrize(
    ("update", "after", "harm", "match"),
    [
        ("world_model_update", 8, poison, "world-model loss is nan .*prediction.*world model; 7 world-model updates"),
        ("critic_update", 3, poison_critic, "critic loss is (nan|inf).*behaviour"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_costs_nothing(
    update: str, after: int, harm: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole", ignore)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(owner(update), update, failing(update, after, harm))
        with pytest.raises(FloatingPointError, match=match + ".*the checkpoint of unit [0-9]+ is kept") as error:
            train(SOON, folder, ignore)
    assert "\n" not in str(error.value)
    crash = folder / "crash"
    report = json.loads((crash / "crash.json").read_text())
    assert report["error"].startswith("FloatingPointError") and any(update in line for line in report["traceback"])
    assert str(report["at"]["units"] + 1) in str(error.value) and report["versions"]["torch"]
    assert len(report["not finite"]) >= 1
    assert all(entry["not finite"] > 0 for entry in report["not finite"].values())
    batch = read_tensors(crash / "batch.safetensors")
    assert batch["observation"].shape[0] == 8 and report["batch"]["reward"]["not finite"] == 0
    assert sum(path.stat().st_size for path in crash.iterdir()) < 100_000
    assert fingerprints(train(SOON, folder, ignore, resume=True)) == fingerprints(whole)


def test_a_gradient_that_is_not_finite_is_named_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent()
    learner, whole = Learner(agent, 10), learning.world_model_loss
    before = fingerprints(agent)

    def steep(perception: Any, *arguments: Any) -> Any:
        loss, metrics = whole(perception, *arguments)
        return loss + (perception.project.bias * 0).sqrt().sum(), metrics  # finite, its slope is 0 · ∞

    monkeypatch.setattr(learning, "world_model_loss", steep)
    with (
        statistics_kept(agent.modules.perception),
        pytest.raises(FloatingPointError, match=r"the gradient of perception.project.bias is not finite"),
    ):
        learner.world_model_update(make_window())
    after = fingerprints(agent)
    assert {name for name in before if before[name] != after[name]} == {"perception"}  # its statistics, see below
    assert all(torch.isfinite(parameter).all() for parameter in agent.modules.perception.parameters())


def test_gradients_are_clipped_as_they_were() -> None:
    """Control of the naming: the step is the one of `clip_grad_norm_`."""
    agent, other = make_agent(), make_agent()
    window = make_window()
    Learner(agent, 10).behaviour.critic_update(window)
    learner = Learner(other, 10)
    loss, _ = learner.behaviour._critic_loss(window, None)
    parameters = list(other.modules.critic.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 5.0)
    learner.behaviour.critic_optimiser.step()
    assert fingerprints(agent) == fingerprints(other)


def test_an_update_that_fails_leaves_the_running_statistics_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, bool, Any]] = []
    config = replace(tiny(), model_loss=replace(tiny().model_loss, regulariser="ema"))
    agent, env = prepare(config)
    trainer = Trainer(agent, env, ignore)
    update = Learner.world_model_update

    def look(self: Learner, window: Any) -> Any:
        slow = self.target_perception
        assert slow is not None
        seen[:] = [
            (statistics(self.agent.modules.perception), self.agent.modules.perception.training, statistics(slow))
        ]
        if self.done == 4:
            window = replace(window, observation=window.observation * torch.nan)
        return update(self, window)

    monkeypatch.setattr(Learner, "world_model_update", look)
    with pytest.raises(FloatingPointError, match="world-model loss"):
        trainer.run()
    perception, slow = agent.modules.perception, trainer.learner.target_perception
    assert slow is not None and seen[0][1] is perception.training is False
    assert statistics(perception) == seen[0][0] and statistics(slow) == seen[0][2]
    assert statistics(perception)[2] == 4  # and the updates before did move them
    env.close()


def statistics(perception: Any) -> tuple[Any, Any, int]:
    normalise = perception.normalise
    return normalise.running_mean.tolist(), normalise.running_var.tolist(), int(normalise.num_batches_tracked)


def test_any_other_failure_leaves_a_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(learner: Learning) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(BehaviourLearner, "actor_update", failing("actor_update", 2, bug))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        train(SOON, tmp_path, ignore)
    assert json.loads((tmp_path / "crash" / "crash.json").read_text())["at"]["phase"] == "behaviour"


# ---- too little memory


@pytest.mark.parametrize(
    ("update", "error", "match"),
    [
        ("world_model_update", torch.OutOfMemoryError("CUDA out of memory"), "world model.*lower model_loss.batch"),
        ("predictor_update", RuntimeError("DefaultCPUAllocator: can't allocate memory"), "schedule.predictor_batch"),
        ("actor_update", MemoryError(), "behaviour.batch"),
    ],
)
def test_too_little_memory_names_the_setting_to_lower(
    update: str, error: BaseException, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_out(learner: Learning) -> None:
        raise error

    monkeypatch.setattr(owner(update), update, failing(update, 2, give_out))
    with pytest.raises(OutOfMemoryError, match=match):
        train(SOON, tmp_path, ignore)
    monkeypatch.undo()
    train(SOON, tmp_path, ignore, resume=True)


@pytest.mark.parametrize(("gib", "error"), [(1e12, OutOfMemoryError), (16.0, OSError)])
def test_a_memory_that_fits_no_machine_is_refused(gib: float, error: type[Exception], tmp_path: Path) -> None:
    config = replace(tiny(), schedule=replace(tiny().schedule, capacity=10**15, memory_gib=gib))
    with pytest.raises(error, match=r"lower schedule\.capacity"):
        train(config, tmp_path, ignore)
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and not is_out_of_memory(ValueError("memory"))


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_unit_to_end(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole", ignore)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(
            BehaviourLearner, "actor_update", failing("actor_update", 3, lambda _: signal.raise_signal(number))
        )
        with pytest.raises(Stopped) as stopped:
            train(tiny(), folder, ignore)
    assert stopped.value.number == number
    assert json.loads((folder / "progress.json").read_text())["behaved"] == 3  # the update it came in was finished
    assert fingerprints(train(tiny(), folder, ignore, resume=True)) == fingerprints(whole)


def test_the_third_signal_gives_up(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as request:
        request.obey()
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT and capfd.readouterr().err == ""
        signal.raise_signal(signal.SIGINT)
        assert "once more to give up" in capfd.readouterr().err
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            request.obey()
    assert signal.getsignal(signal.SIGINT) is before


# ---- one writer


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "config.json").write_text("of the first")
        before = snapshot(tmp_path)
        with pytest.raises(BlockingIOError, match=f"being written by process {os.getpid()} on .*another folder"):
            train(tiny(), tmp_path, ignore)
        assert snapshot(tmp_path) == before
    train(tiny(), tmp_path, ignore)


def _hold(folder: Path, ready: Event) -> None:
    with locked(folder):
        ready.set()
        signal.pause()


def test_the_lock_of_a_process_that_was_killed_means_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(BlockingIOError, match=f"process {holder.pid}"), locked(tmp_path):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.parametrize(("name", "value"), [("minutes", -1.0), ("minutes", float("nan")), ("units", -1), ("keep", 0)])
def test_saving_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    config = replace(tiny(), saving=replace(Saving(), **{name: value}))
    with pytest.raises(ValueError, match=f"saving.{name} is {value}"):
        check_settings(config)
