"""Runs: from settings to a folder with a trained agent, and from such a folder to numbers."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..modules.perception import VIEWS
from .agent import Agent
from .checkpoint import adopt, save_agent
from .checkup import DECISIONS, HELD_OUT_SEED, examine, record_held_out
from .config import EnvConfig, RunConfig
from .distinct import with_distinct_actions
from .errors import CollapseError, OutOfMemoryError
from .faults import locked, stop_requests
from .interaction import VectorEnv
from .keeper import Keeper
from .stopwatch import peak_megabytes
from .storage import write_atomically
from .training import Report, Trainer, resting
from .worlds import build_env, spaces_of

_LARGEST = 40
"""In symlog units, of two-hot bins: their squares are still 32-bit numbers."""
TIMING = "timing.json"
"""In a finished run's folder: what the training cost. It is no curve, for the same run has the same curves."""


def prepare(config: RunConfig) -> tuple[Agent, VectorEnv]:
    """Build agent and training world, so that every mistake in the settings shows before work begins.

    Raises:
        ValueError: Settings that do not fit each other or the world.
    """
    check_settings(config)
    if config.task.goals:
        _need_goals(config.env)
    config = replace(config, env=with_distinct_actions(config.env, config.seed))
    torch.set_num_threads(config.threads)
    # In goal tasks the end of an episode belongs to the goal and not to the world: training episodes run on.
    goals = False if config.task.goals else None
    env = build_env(config.env, config.env.num_envs, seed=config.seed, held_out=False, terminate_on_success=goals)
    return Agent(config, spaces_of(env)), env


def _need_goals(config: EnvConfig) -> None:
    """Refuse goals where the world has none.

    Raises:
        ValueError: It has none.
    """
    env = build_env(config, 1, seed=0, held_out=False)
    try:
        if not spaces_of(env).goals:
            raise ValueError(
                f"task.goals is set, and {config.id} has no goals to be reached; leave it off, or choose a world that "
                "has (TwoRoom, DotWall)"
            )
    finally:
        env.close()


def check_settings(config: RunConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Names the setting, what was given and what was expected.
    """
    _check_numbers(config)
    schedule, thinking, loss = config.schedule, config.task.thinking, config.model_loss
    try:
        torch.device("cpu" if config.device == "auto" else config.device)
    except RuntimeError:
        raise ValueError(f"device is {config.device!r}, expected auto, cpu or cuda") from None
    if thinking.proposals >= thinking.candidates:
        raise ValueError(
            f"task.thinking.proposals is {thinking.proposals} and candidates is {thinking.candidates}; "
            "leave room for candidates that are not the actor's"
        )
    if schedule.collecting_candidates and schedule.collecting_candidates <= thinking.proposals:
        raise ValueError(
            f"schedule.collecting_candidates is {schedule.collecting_candidates} and task.thinking.proposals "
            f"{thinking.proposals}; leave room for candidates that are not the actor's, or set it to 0"
        )
    if thinking.risk and config.world_model.members < 2 and config.world_model.codes < 2:
        raise ValueError(
            f"task.thinking.risk is {thinking.risk}, world_model.members 1 and world_model.codes 1; risk is the spread "
            "of an ensemble or of futures, give the world model more members or codes"
        )
    _check_latent_variable(config)
    _check_bins(config)
    if loss.returns and not config.world_model.events:
        raise ValueError(
            f"model_loss.returns is {loss.returns} and world_model.events is off; only in reward tasks do rewards and "
            "endings that are to be told belong to the world: set it to 0"
        )
    if config.behaviour.remembered and config.task.goals:
        raise ValueError(
            f"behaviour.remembered is {config.behaviour.remembered} and task.goals is set; only in reward tasks does "
            "the critic say what is to be expected of remembered actions: set it to 0"
        )
    _check_weights(config)
    _check_recall(config)
    _check_gate(config)
    walk = config.behaviour.walk_steps if config.task.goals and config.behaviour.walks else 0
    longest = max(loss.steps, schedule.predictor_steps, config.behaviour.steps, walk)
    need = (longest + config.perception.history + 1 + schedule.every_frame) * config.env.num_envs
    if schedule.prefill < need or schedule.capacity < need:
        raise ValueError(
            f"schedule.prefill is {schedule.prefill} and schedule.capacity {schedule.capacity}; windows of "
            f"{longest} steps in {config.env.num_envs} environments need at least {need}"
        )


def _check_numbers(config: RunConfig) -> None:
    """Refuse single numbers that are out of range.

    Raises:
        ValueError: Names the setting.
    """
    schedule, thinking, loss = config.schedule, config.task.thinking, config.model_loss
    positive = {
        "env.num_envs": config.env.num_envs,
        "env.action_repeat": config.env.action_repeat,
        "threads": config.threads,
        "perception.latent": config.perception.latent,
        "perception.history": config.perception.history,
        "model_loss.batch": loss.batch,
        "model_loss.steps": loss.steps,
        "behaviour.batch": config.behaviour.batch,
        "behaviour.steps": config.behaviour.steps,
        "behaviour.courses": config.behaviour.courses,
        "behaviour.hindsight": config.behaviour.hindsight,
        "behaviour.walk_steps": config.behaviour.walk_steps,
        "schedule.prefill": schedule.prefill,
        "schedule.sticky": schedule.sticky,
        "saving.keep": config.saving.keep,
        "task.thinking.horizon": thinking.horizon,
        "task.thinking.candidates": thinking.candidates,
        "task.thinking.iterations": thinking.iterations,
        "task.thinking.hold": thinking.hold,
        "task.thinking.commit": thinking.commit,
        "task.thinking.futures": thinking.futures,
        "world_model.codes": config.world_model.codes,
    }
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if schedule.collecting_iterations < 0:
        raise ValueError(
            f"schedule.collecting_iterations is {schedule.collecting_iterations}, expected a number from 0"
        )
    for name, span in (("minutes", config.saving.minutes), ("units", config.saving.units)):
        if not 0 <= span < math.inf:
            raise ValueError(f"saving.{name} is {span}, expected a number from 0")
    shares = {
        "task.discount": config.task.discount,
        "model_loss.balance": loss.balance,
        "model_loss.rarity": loss.rarity,
        "model_loss.correction": loss.correction,
        "model_loss.momentum": loss.momentum,
        "model_loss.returns_discount": loss.returns_discount,
        "behaviour.expectile": config.behaviour.expectile,
        "behaviour.final_rate": config.behaviour.final_rate,
        "schedule.exploration": schedule.exploration,
        "schedule.exploiting": schedule.exploiting,
    }
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}, expected a number from 0 to 1")
    if schedule.rest is not None and schedule.rest < 0:
        raise ValueError(f"schedule.rest is {schedule.rest}, expected a number of rounds from 0, or None")
    if schedule.renewal is not None and not (0 < schedule.renewal < resting(schedule) and schedule.prefill_updates):
        raise ValueError(
            f"schedule.renewal is {schedule.renewal}, schedule.prefill_updates {schedule.prefill_updates}, and "
            f"perception learns in {resting(schedule)} rounds; networks that begin anew need some updates, and rounds "
            "before and after: a number from 1 and below that of the rounds, or None"
        )
    if not 0 <= thinking.habit < math.inf:
        raise ValueError(f"task.thinking.habit is {thinking.habit}, expected a number from 0")
    most = 1 if config.perception.encoder == "mlp" else len(VIEWS)
    if not 1 <= thinking.views <= most:
        raise ValueError(f"task.thinking.views is {thinking.views}, expected 1 to 9 of pictures, 1 of vectors")


def _check_latent_variable(config: RunConfig) -> None:
    """Refuse what is said about a latent variable that is not there, or could not be inferred.

    Raises:
        ValueError: Names the setting.
    """
    codes, loss = config.world_model.codes, config.model_loss
    if config.task.thinking.adversary and codes < 2:
        raise ValueError(
            f"task.thinking.adversary is set and world_model.codes is {codes}; an adversary chooses the latent "
            "variable, give the world model more codes"
        )
    if codes > 1 and 0 < loss.targets < loss.steps:
        raise ValueError(
            f"model_loss.targets is {loss.targets} and world_model.codes {codes}; a code is told by what came, and so "
            "every outcome has to be encoded: set model_loss.targets to 0"
        )
    if not 0 <= loss.sharpness < math.inf:
        raise ValueError(f"model_loss.sharpness is {loss.sharpness}, expected a number from 0")


def _check_bins(config: RunConfig) -> None:
    """Refuse two-hot distributions that could not tell anything.

    Raises:
        ValueError: Names the setting.
    """
    for name, part in (("critic", config.critic), ("world_model", config.world_model)):
        if part.bins < 3 or part.bins % 2 == 0:
            raise ValueError(f"{name}.bins is {part.bins}, expected an odd number from 3, so that one of them is at 0")
        if not 0 < part.limit <= _LARGEST:
            raise ValueError(f"{name}.limit is {part.limit}, expected a number above 0 and up to {_LARGEST}")


def _check_weights(config: RunConfig) -> None:
    """Refuse dreams of any weights where they could not be learned from.

    Raises:
        ValueError: Says what they need and what was given.
    """
    behaviour, told = config.behaviour, config.actor.weights
    if behaviour.weights == "own":
        return
    if config.task.goals or not told or behaviour.imitation or not behaviour.improvement:
        raise ValueError(
            "behaviour.weights any needs a reward task, actor.weights on, behaviour.imitation 0 (plans are made for "
            f"the task's own weights) and some behaviour.improvement; given: task.goals {config.task.goals}, "
            f"actor.weights {told}, imitation {behaviour.imitation}, improvement {behaviour.improvement}"
        )


def _check_recall(config: RunConfig) -> None:
    """Refuse recall beside settings that look at percepts one by one.

    Raises:
        ValueError: Names the setting.
    """
    recall, loss = config.perception.recall, config.model_loss
    if not recall.slots:
        return
    for name, width in vars(recall).items():
        if name in {"slots", "keys", "values", "past"} and width < 1:
            raise ValueError(f"perception.recall.{name} is {width}, expected at least 1 (slots 0: no recall)")
    conflicts = {
        "task.goals": config.task.goals,
        "model_loss.targets": loss.targets,
        "model_loss.shift": loss.shift,
        "model_loss.colour": loss.colour,
        "model_loss.regulariser ema": loss.regulariser == "ema",
        f"perception.latents {config.perception.latents}": config.perception.latents != "vector",
    }
    for name, set_ in conflicts.items():
        if set_:
            raise ValueError(
                f"perception.recall.slots is {recall.slots} and {name} is set; what is recalled depends on whole "
                "episodes and serves tasks of reward: unset one of them"
            )


def _check_gate(config: RunConfig) -> None:
    gate = config.task.thinking.gate
    if gate.variance is not None and config.world_model.members < 2:
        raise ValueError(
            "task.thinking.gate.variance is set and world_model.members 1; variance is over an ensemble, give the "
            "world model more members"
        )
    if gate.chance is not None and not 0 <= gate.chance <= 1:
        raise ValueError(f"task.thinking.gate.chance is {gate.chance}, expected a number from 0 to 1")
    if config.schedule.mode == "gated" and not gate.open:
        raise ValueError("schedule.mode is gated and there is no gate; set a threshold (task.thinking.gate)")


def train(config: RunConfig, folder: Path, report: Report, resume: bool = False, origin: Path | None = None) -> Agent:
    """Train an agent and leave it in ``folder``; a run that ended early in whatever way can be resumed.

    Args:
        config: Settings.
        folder: Run folder, created if needed.
        report: Told of progress; saved with the run if it is a `RememberingReport`.
        resume: Go on with the run in the folder.
        origin: Begin with the networks of the run in this folder; its memory and its optimisers are not kept.

    Raises:
        KeyboardInterrupt: Passed on after everything was saved.
        FileNotFoundError, ValueError: The origin holds no agent, or one of another world or with other networks.
        FloatingPointError: Something is not finite; the last checkpoint is kept.
        OutOfMemoryError: Names the settings to lower.
        OSError: The folder cannot be written, or another process writes to it.
    """
    agent, env = prepare(config)
    try:
        before = 0 if origin is None or resume else adopt(agent, origin)
        try:
            trainer = Trainer(agent, env, report)  # what it refuses leaves no folder behind
        except MemoryError as error:
            raise OutOfMemoryError(f"the memory does not fit: lower schedule.capacity ({error})") from error
        with locked(folder), stop_requests() as request:
            trainer.decisions = trainer.inherited = before
            keeper = Keeper(trainer, folder, request, provenance())
            if resume:
                keeper.resume()
            write_provenance(folder)
            if not resume:
                keeper.begin()
            _run(trainer, keeper)
            write_atomically(folder / TIMING, json.dumps(timing_of(trainer), indent=2).encode())
    finally:
        env.close()
    done = trainer.learner.done
    report(
        "health", done, done, examine(agent, record_held_out(agent, DECISIONS, HELD_OUT_SEED), HELD_OUT_SEED).numbers()
    )
    return agent


def timing_of(trainer: Trainer) -> dict[str, Any]:
    """What a training cost since its process began: seconds of each kind of work, throughput and memory.

    Frames are what the environments were stepped by: decisions times the frames that an action is held for.
    """
    seconds = dict(trainer.watch.seconds)
    decisions = trainer.decisions - trainer.inherited
    frames = decisions * trainer.agent.config.env.action_repeat
    return {
        "seconds": seconds,
        "decisions": decisions,
        "frames": frames,
        "frames_per_second": frames / max(sum(seconds.values()), 1e-9),
        "split": trainer.watch.split(),
        "peak_megabytes": peak_megabytes(),
    }


def _run(trainer: Trainer, keeper: Keeper) -> None:
    """Run the schedule to its end, or save what there is and say what stopped it."""
    trainer.pause = keeper.pause
    try:
        trainer.run()
    except BaseException as error:
        if trainer.whole:
            keeper.save()
        elif isinstance(error, CollapseError):
            save_agent(trainer.agent, keeper.folder)  # for whoever wants to look at it
        elif lower := keeper.lower(error):
            raise OutOfMemoryError(f"{lower} ({error})") from error
        elif isinstance(error, FloatingPointError):
            raise FloatingPointError(f"{error}; {keeper.report_failure(error)}") from error
        elif isinstance(error, Exception):
            keeper.report_failure(error)
        raise
    keeper.finish()


def write_provenance(folder: Path) -> None:
    """Write what made this run: command, versions, machine, commit."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "provenance.json", json.dumps(provenance(), indent=2).encode())


def provenance() -> dict[str, Any]:
    """Command, versions, machine and commit, for results and run folders."""
    names = ("forethought", "torch", "numpy", "gymnasium", "procgen", "procgen-mirror", "stable-baselines3")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": " ".join(["forethought", *sys.argv[1:]]),
        "commit": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} torch threads",
        "versions": versions,
    }
