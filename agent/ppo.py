"""PPO as a baseline, from Stable-Baselines3 (SB3), with the settings published for Procgen (arXiv 1912.01588).

A run folder holds `ppo.json` (settings and spaces), `policy.safetensors` (weights), `progress.json` and `tensorboard/`.
SB3's own files are not used: loading them runs code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .agent import pick_device
from .checkpoint import describe_space, saved_spaces
from .comparison import Player
from .config import EnvConfig
from .distinct import with_distinct_actions
from .interaction import Behaviour, VectorEnv
from .spaces import Spaces
from .storage import from_json, in_a_line, read_json, read_tensors, save_tensors, to_json, write_atomically
from .worlds import build_env, spaces_of

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.policies import ActorCriticPolicy

FORMAT = 1
Told = Callable[[int, int, Mapping[str, float]], None]
"""Told of steps done, all steps, and metrics."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO: those published for Procgen, unless said otherwise."""

    env: EnvConfig = field(default_factory=lambda: EnvConfig(num_envs=64))
    steps: int = 200_000
    """Decisions over all environments; rounded up to whole rollouts."""
    rollout: int = 256
    """Decisions per environment between updates."""
    epochs: int = 3
    """Passes over a rollout."""
    minibatches: int = 8
    """Minibatches of a pass."""
    learning_rate: float = 5e-4
    """Learning rate (Adam, ε 1e-5)."""
    discount: float = 0.999
    """γ."""
    gae: float = 0.95
    """λ of generalised advantages."""
    clip: float = 0.2
    """Clip of probability ratios and of values."""
    entropy: float = 0.01
    """Weight of the entropy."""
    value: float = 0.5
    """Weight of the value loss."""
    gradient_norm: float = 0.5
    """Clip of the gradient's norm."""
    normalise_rewards: bool = True
    """Divide rewards by the running deviation of returns (discounted by 0.99, as in the published code)."""
    network: Literal["auto", "impala", "nature", "mlp"] = "auto"
    """impala and nature: pixels; mlp: vectors; auto: impala or mlp, as fits."""
    seed: int = 0
    """Seed of worlds, weights and draws."""
    device: str = "auto"
    """auto (CUDA, else CPU), cpu or cuda."""
    threads: int = 2
    """Torch threads on the CPU."""


@dataclass(frozen=True)
class Reactive:
    """A trained PPO policy: it reacts, and cannot plan."""

    config: PPOConfig
    policy: ActorCriticPolicy
    spaces: Spaces


def check_ppo(config: PPOConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Names the setting, what was given and what was expected.
    """
    names = ("steps", "rollout", "epochs", "minibatches", "threads")
    whole = {name: getattr(config, name) for name in names} | {
        "env.num_envs": config.env.num_envs,
        "env.action_repeat": config.env.action_repeat,
    }
    for name, number in whole.items():
        if number < 1:
            raise ValueError(f"{name} is {number}, expected at least 1")
    shares = {"discount": config.discount, "gae": config.gae}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}, expected a number from 0 to 1")
    rollout = config.rollout * config.env.num_envs
    if rollout % config.minibatches or rollout // config.minibatches < 2:
        raise ValueError(
            f"a rollout of {config.rollout} × {config.env.num_envs} decisions does not divide into "
            f"{config.minibatches} minibatches of at least 2; change rollout, env.num_envs or minibatches"
        )
    pick_device(config.device)


def whole_rollouts(config: PPOConfig) -> int:
    """Decisions that a run makes: `PPOConfig.steps`, rounded up to whole rollouts."""
    rollout = config.rollout * config.env.num_envs
    return -(-config.steps // rollout) * rollout


def train_ppo(
    config: PPOConfig, folder: Path, report: Told | None = None, ready: Callable[[], None] = lambda: None
) -> Reactive:
    """Train PPO and leave it in ``folder``, also where it is interrupted.

    Args:
        config: Settings.
        folder: Run folder, made if it is missing.
        report: Told of progress.
        ready: Called once everything fits, before training begins.

    Raises:
        ValueError: Settings that do not fit each other or the world.
        KeyboardInterrupt: Passed on after the policy was saved.
    """
    check_ppo(config)
    config = replace(config, env=with_distinct_actions(config.env, config.seed))
    torch.set_num_threads(config.threads)
    env = build_env(config.env, config.env.num_envs, seed=config.seed, held_out=False)
    try:
        seen = spaces_of(env)
        with torch.random.fork_rng(devices=[]):  # SB3 seeds the global generators
            model, watch = _build(config, env, seen, report)
            folder.mkdir(parents=True, exist_ok=True)
            _log_to(model, folder / "tensorboard")
            trained = Reactive(config, model.policy, seen)
            finished = False
            ready()
            try:
                model.learn(config.steps, callback=watch)
                finished = True
            finally:
                model.logger.dump(model.num_timesteps)  # of the last update
                save_ppo(trained, folder, model.num_timesteps, finished)
    finally:
        env.close()
    return trained


def _build(config: PPOConfig, env: VectorEnv, seen: Spaces, report: Told | None) -> tuple[PPO, Any]:
    """SB3's algorithm around our environments, and the callback that reports."""
    from .sb3 import PPO, BaseCallback, Sb3VecEnv, VecMonitor, VecNormalize  # noqa: PLC0415

    planned = whole_rollouts(config)

    class Watch(BaseCallback):
        """Reports at the start, now and then during a rollout, and at its end."""

        def _tell(self) -> None:
            returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
            if report is not None:
                report(self.num_timesteps, planned, {"return": float(np.mean(returns))} if returns else {})

        def _on_training_start(self) -> None:
            self._tell()

        def _on_step(self) -> bool:
            if self.n_calls % 16 == 0:
                self._tell()
            return True

        def _on_rollout_end(self) -> None:
            self._tell()

    worlds: Any = VecMonitor(Sb3VecEnv(env, config.seed))
    if config.normalise_rewards:
        worlds = VecNormalize(worlds, norm_obs=False, norm_reward=True, gamma=0.99)
    kind, options = _network(config, seen)
    model = PPO(
        kind,
        worlds,
        learning_rate=config.learning_rate,
        n_steps=config.rollout,
        batch_size=config.rollout * config.env.num_envs // config.minibatches,
        n_epochs=config.epochs,
        gamma=config.discount,
        gae_lambda=config.gae,
        clip_range=config.clip,
        clip_range_vf=config.clip,
        ent_coef=config.entropy,
        vf_coef=config.value,
        max_grad_norm=config.gradient_norm,
        policy_kwargs=options,
        seed=config.seed,
        device=pick_device(config.device),
    )
    return model, Watch()


def _log_to(model: PPO, folder: Path) -> None:
    """TensorBoard files, and nothing on the terminal."""
    from .sb3 import Logger, TensorBoardOutputFormat  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    model.set_logger(Logger(str(folder), [TensorBoardOutputFormat(str(folder))]))


def _network(config: PPOConfig, seen: Spaces) -> tuple[str, dict[str, Any]]:
    """SB3's name for the kind of policy, and its options.

    Raises:
        ValueError: The network does not fit the observations.
    """
    from .sb3 import ImpalaFeatures  # noqa: PLC0415

    if seen.goals:
        raise ValueError(f"{config.env.id} shows goals, and PPO plays for reward; choose a world without goals")
    name = ("impala" if seen.pixels else "mlp") if config.network == "auto" else config.network
    if (name == "mlp") == seen.pixels:
        fit = "impala or nature" if seen.pixels else "mlp"
        raise ValueError(f"network {name!r} got observations of shape {seen.shape}; choose {fit}")
    if name == "impala":
        return "CnnPolicy", {"features_extractor_class": ImpalaFeatures, "net_arch": []}
    return ("CnnPolicy", {}) if name == "nature" else ("MlpPolicy", {})


def save_ppo(trained: Reactive, folder: Path, decisions: int, finished: bool = True) -> None:
    """Write weights (safetensors), settings and progress (JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "policy.safetensors", _tensors(trained.policy))
    seen = trained.spaces
    content = {
        "format": FORMAT,
        "config": to_json(trained.config),
        "spaces": {"shape": list(seen.shape), "pixels": seen.pixels, "action": describe_space(seen.action)},
    }
    write_atomically(folder / "ppo.json", json.dumps(content, indent=2).encode())
    progress = {"finished": finished, "decisions": decisions}
    write_atomically(folder / "progress.json", json.dumps(progress, indent=2).encode())


def holds_ppo(folder: Path) -> bool:
    """Whether the folder holds a PPO run."""
    return (folder / "ppo.json").is_file()


def load_ppo(folder: Path, device: str | None = None, threads: int | None = None) -> Reactive:
    """Read a policy back; nothing is executed.

    Args:
        folder: Of the run.
        device: In place of the run's.
        threads: In place of the run's.

    Raises:
        ValueError: The files are damaged or of another version.
    """
    path = folder / "ppo.json"
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, this version reads {FORMAT}")
        config = from_json(PPOConfig, content["config"])
        seen = saved_spaces(content["spaces"])
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({in_a_line(error)}); restore it or train again") from error
    config = replace(config, device=device or config.device, threads=threads or config.threads)
    try:
        policy = _fresh_policy(config, seen)
    except (RuntimeError, TypeError, IndexError, ArithmeticError, MemoryError, AssertionError) as error:
        raise ValueError(f"{path} describes no policy ({in_a_line(error)}); restore it or train again") from error
    given, wanted = read_tensors(folder / "policy.safetensors"), _tensors(policy)
    shapes = {name: tensor.shape for name, tensor in given.items()}
    if shapes != {name: tensor.shape for name, tensor in wanted.items()}:
        raise ValueError(f"{folder / 'policy.safetensors'} does not fit ppo.json; restore it or train again")
    policy.load_state_dict(given, strict=False)  # names of shared parts occur once in the file
    policy.set_training_mode(False)
    return Reactive(config, policy, seen)


def _fresh_policy(config: PPOConfig, seen: Spaces) -> ActorCriticPolicy:
    from .sb3 import POLICIES  # noqa: PLC0415

    kind, options = _network(config, seen)
    space: spaces.Space[Any] = spaces.Box(-np.inf, np.inf, seen.shape, np.float32)
    if seen.pixels:
        height, width, channels = seen.shape
        space = spaces.Box(0, 255, (channels, height, width), np.uint8)  # SB3 turns pictures
    with torch.random.fork_rng(devices=[]):
        policy = POLICIES[kind](space, seen.action, lambda _: config.learning_rate, **options)
    return policy.to(pick_device(config.device))


def _tensors(policy: ActorCriticPolicy) -> dict[str, Tensor]:
    """Parameters and buffers, each once (SB3 has several names for shared parts)."""
    return dict(policy.named_parameters()) | dict(policy.named_buffers())


def reactive_player(trained: Reactive, prefix: str = "", run: str = "", steps: int = 0) -> Player:
    """The row of a PPO run: it draws from its policy, as is usual in Procgen."""
    from .sb3 import PolicyBehaviour  # noqa: PLC0415

    config = trained.config

    def begin(env: VectorEnv) -> Behaviour:
        seen = spaces_of(env)
        if (seen.shape, seen.action) != (trained.spaces.shape, trained.spaces.action):
            raise ValueError(f"the PPO policy in {run} was trained in another world than {config.env.id} is now")
        return PolicyBehaviour(trained.policy, env.single_action_space, config.seed)

    note = f"draws from its policy; {steps:,} steps" if steps else "draws from its policy"
    return Player(f"{prefix}ppo", config.env, begin, run, steps, note)
