"""Runs: from settings to a folder with a trained agent, and from such a folder to numbers."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .agent import Agent, read_spaces
from .checkpoint import (
    load_agent,
    load_memory,
    load_optimiser,
    optimiser_tensors,
    read_tensors,
    save_agent,
    save_memory,
    save_tensors,
    write_atomically,
)
from .checkup import DECISIONS, HELD_OUT_SEED, examine, record_held_out
from .config import RunConfig
from .errors import CollapseError
from .interaction import VectorEnv
from .training import PROGRESS, Report, Trainer
from .worlds import build_env


def prepare(config: RunConfig) -> tuple[Agent, VectorEnv]:
    """Build agent and training world, so that every mistake in the settings shows before work begins.

    Raises:
        ValueError: Settings that do not fit each other or the world.
    """
    check_settings(config)
    torch.set_num_threads(config.threads)
    # In goal tasks the end of an episode belongs to the goal and not to the world: training episodes run on.
    goals = False if config.task.goals else None
    env = build_env(config.env, config.env.num_envs, seed=config.seed, held_out=False, terminate_on_success=goals)
    return Agent(config, read_spaces(env.single_observation_space, env.single_action_space)), env


def check_settings(config: RunConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Names the setting, what was given and what was expected.
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
        "schedule.prefill": schedule.prefill,
        "schedule.sticky": schedule.sticky,
        "task.thinking.horizon": thinking.horizon,
        "task.thinking.candidates": thinking.candidates,
        "task.thinking.iterations": thinking.iterations,
        "task.thinking.hold": thinking.hold,
        "task.thinking.commit": thinking.commit,
    }
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    shares = {
        "task.discount": config.task.discount,
        "model_loss.balance": loss.balance,
        "model_loss.momentum": loss.momentum,
        "schedule.exploration": schedule.exploration,
    }
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}, expected a number from 0 to 1")
    try:
        torch.device("cpu" if config.device == "auto" else config.device)
    except RuntimeError:
        raise ValueError(f"device is {config.device!r}, expected auto, cpu or cuda") from None
    if thinking.proposals >= thinking.candidates:
        raise ValueError(
            f"task.thinking.proposals is {thinking.proposals} and candidates is {thinking.candidates}; "
            "leave room for candidates that are not the actor's"
        )
    if thinking.risk and config.world_model.members < 2:
        raise ValueError(
            f"task.thinking.risk is {thinking.risk} and world_model.members 1; risk is the spread of an ensemble, "
            "give the world model more members"
        )
    need = (max(loss.steps, config.behaviour.steps) + config.perception.history + 1) * config.env.num_envs
    if schedule.prefill < need or schedule.capacity < need:
        raise ValueError(
            f"schedule.prefill is {schedule.prefill} and schedule.capacity {schedule.capacity}; windows of "
            f"{loss.steps} steps in {config.env.num_envs} environments need at least {need}"
        )


def train(config: RunConfig, folder: Path, report: Report, resume: bool = False) -> Agent:
    """Train an agent and leave it in ``folder``; an interrupted run can be resumed.

    Args:
        config: Settings.
        folder: Run folder, created if needed.
        report: Told of progress.
        resume: Go on with the run in the folder.

    Raises:
        KeyboardInterrupt: Passed on after everything was saved.
    """
    agent, env = prepare(config)
    try:
        trainer = Trainer(agent, env, report)
        if resume:
            restore(trainer, folder)
        write_provenance(folder)
        try:
            trainer.run()
        except (KeyboardInterrupt, FloatingPointError, CollapseError, OSError):
            keep(trainer, folder, finished=False)
            raise
        keep(trainer, folder, finished=True)
    finally:
        env.close()
    done = trainer.learner.done
    report(
        "health", done, done, examine(agent, record_held_out(agent, DECISIONS, HELD_OUT_SEED), HELD_OUT_SEED).numbers()
    )
    return agent


def keep(trainer: Trainer, folder: Path, finished: bool) -> None:
    """Save a trainer's state; the memory only where it is needed to go on."""
    save_agent(trainer.agent, folder)
    learner = trainer.learner
    tensors = {
        **optimiser_tensors("model", learner.model_optimiser),
        **optimiser_tensors("critic", learner.critic_optimiser),
        **optimiser_tensors("actor", learner.actor_optimiser),
        **{f"{name}.{key}": t for name, slow in learner.targets().items() for key, t in slow.state_dict().items()},
    }
    save_tensors(folder / "learner.safetensors", tensors)
    if not finished:
        save_memory(folder / "memory", trainer.memory.data, trainer.memory.cursor, trainer.memory.filled)
    progress = {"finished": finished, "updates": learner.done} | trainer.progress()
    write_atomically(folder / "progress.json", json.dumps(progress, indent=2).encode())


def restore(trainer: Trainer, folder: Path) -> None:
    """Put a saved state into a fresh trainer.

    Raises:
        FileNotFoundError: Nothing to resume.
        ValueError: The run is finished, or was made with other settings.
    """
    path = folder / "progress.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no interrupted run (no progress.json); start one without --resume")
    try:
        progress = {name: int(json.loads(path.read_text())[name]) for name in ("finished", "updates", *PROGRESS)}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run") from error
    if progress["finished"]:
        raise ValueError(f"the run in {folder} is finished; there is nothing to resume")
    saved = load_agent(folder)
    if saved.config != trainer.agent.config:
        raise ValueError(f"{folder} was trained with other settings; resume with the same, or choose another folder")
    for name, network in trainer.agent.networks().items():
        network.load_state_dict(saved.networks()[name].state_dict())
    learner = trainer.learner
    tensors = read_tensors(folder / "learner.safetensors")
    load_optimiser("model", learner.model_optimiser, tensors)
    load_optimiser("critic", learner.critic_optimiser, tensors)
    load_optimiser("actor", learner.actor_optimiser, tensors)
    for name, slow in learner.targets().items():
        target = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        try:
            slow.load_state_dict(target)
        except RuntimeError as error:
            path = folder / "learner.safetensors"
            raise ValueError(f"{path} does not fit the run ({error}); start a new one") from error
    learner.done = progress["updates"]
    memory = trainer.memory
    memory.cursor, memory.filled = load_memory(folder / "memory", memory.data)
    trainer.continue_from(progress)


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
