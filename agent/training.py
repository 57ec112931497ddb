"""Training: collect in a chosen mode → update the world model → update critic and actor → and again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import torch

from ..modules.types import Mode
from .agent import Agent, plan_width
from .config import Schedule
from .criterion import Metrics
from .health import CHECK_EVERY, STEPS, WINDOWS, collapse, encode, stop_if_collapsed, vitals
from .interaction import Behaviour, Exploring, RandomBehaviour, VectorEnv, interact
from .learning import Learner, to_device
from .recording import draw_windows, memory_for

PROGRESS = ("filled", "rounds", "tuned", "final", "decisions", "resets")
"""What a trainer must know to go on."""

Report = Callable[[str, int, int, Metrics], None]
"""Called after every unit of work: phase, done, total, numbers; phase "health" is no work and only tells numbers."""


def behaviour_updates(schedule: Schedule) -> int:
    """Critic and actor updates of one round."""
    return round(schedule.round_updates * schedule.behaviour_ratio)


class Trainer:
    """A life: an agent, its memory, its learner and the environments it lives in.

    Args:
        agent: Who learns.
        env: Vector environment with same-step autoreset, training levels only.
        report: Told of progress.
    """

    def __init__(self, agent: Agent, env: VectorEnv, report: Report) -> None:
        self.agent, self.env, self.report = agent, env, report
        config, spaces = agent.config, agent.spaces
        schedule = config.schedule
        goals = config.task.goals and config.behaviour.goals == "episode"
        self.memory = memory_for(agent, env.num_envs, schedule.capacity, goals)
        self.learner = Learner(agent, schedule.prefill_updates + schedule.rounds * schedule.round_updates)
        self.random = RandomBehaviour(spaces.action, env.num_envs, config.seed + 2, plan_width(spaces), schedule.sticky)
        self.generator = np.random.default_rng(config.seed + 3)
        self.decisions = 0
        self.resets = 0
        self.suspicion: str | None = None  # what the last look at the representation found wrong
        self.filled, self.rounds, self.tuned, self.final = False, 0, 0, 0  # how far the schedule is

    def collect(self, behaviour: Behaviour, decisions: int) -> Metrics:
        """Act for so many decisions over all environments and remember them; returns what happened."""
        steps = max(1, decisions // self.env.num_envs)
        totals, returns = np.zeros(self.env.num_envs), []
        self.memory.break_streams()
        seed = self.agent.config.seed + self.resets
        self.resets += 1
        for count, step in enumerate(islice(interact(self.env, behaviour, seed=seed), steps)):
            self.memory.write(
                step.seen,
                step.action,
                step.reward,
                step.terminated,
                step.truncated,
                step.decision.plan,
                step.decision.course,
                step.decision.planned,
                step.observation["desired_goal"] if self.memory.shape.goals else None,
            )
            totals += step.reward
            for index in np.flatnonzero(step.ended):
                returns.append(float(totals[index]))
                totals[index] = 0.0
            if count % 50 == 49 or count == steps - 1:
                self.report("collect", count + 1, steps, {"return": float(np.mean(returns)) if returns else 0.0})
        self.decisions += steps * self.env.num_envs
        return {"return": float(np.mean(returns)), "episodes": len(returns)} if returns else {"episodes": 0}

    def learn_model(self, updates: int) -> Metrics:
        """World-model updates on windows from memory."""
        config = self.agent.config.model_loss
        metrics: Metrics = {}
        for count in range(updates):
            window = self.memory.sample(config.batch, config.steps, self.generator, config.balance)
            metrics = self.learner.world_model_update(to_device(window, self.agent.device))
            self.report("world model", count + 1, updates, metrics)
            if self.learner.done % CHECK_EVERY == 0:
                self.check_health()
        return metrics

    def check_health(self) -> None:
        """Look at representation and world model, in a way that leaves no trace in what follows.

        Raises:
            CollapseError: The representation has collapsed.
        """
        done, agent = self.learner.done, self.agent
        draws = np.random.default_rng([agent.config.seed, done])
        window = to_device(draw_windows(self.memory, WINDOWS, STEPS, draws), agent.device)
        latent = encode(agent.modules.perception, window.observation)
        directions = torch.Generator(device=agent.device).manual_seed(agent.config.seed)
        found = vitals(agent.modules, window, latent, agent.config.model_loss, directions)
        self.report("health", done, self.learner.updates, found.numbers())
        before, self.suspicion = self.suspicion, collapse(found)
        stop_if_collapsed(before, self.suspicion, done, agent.config.model_loss)

    def rest(self) -> None:
        """From here on perception does not change: compute every remembered latent once."""
        perception = self.agent.modules.perception
        self.memory.keep_latents(lambda percepts: encode(perception, percepts))

    def learn_predictor(self, updates: int) -> Metrics:
        """World-model updates with perception at rest."""
        config, schedule = self.agent.config.model_loss, self.agent.config.schedule
        metrics: Metrics = {}
        for count in range(updates):
            window = self.memory.sample(schedule.predictor_batch, config.steps, self.generator, config.balance)
            metrics = self.learner.predictor_update(
                to_device(window, self.agent.device), self.tuned + count, schedule.predictor_updates
            )
            self.report("predictor", count + 1, updates, metrics)
        return metrics

    def learn_behaviour(self, updates: int) -> Metrics:
        """Critic and actor updates on windows from memory."""
        config = self.agent.config.behaviour
        metrics: Metrics = {}
        for count in range(updates):
            window = self.memory.sample(config.batch, config.steps, self.generator, goals=config.hindsight)
            window = to_device(window, self.agent.device)
            dream = self.learner.dream(window)
            plans = self.learner.short_plans(window, dream)
            metrics = self.learner.critic_update(window, dream, plans)
            metrics |= self.learner.actor_update(window, dream, plans)
            self.report("behaviour", count + 1, updates, metrics)
        return metrics

    def run(self) -> None:
        """The whole schedule, from wherever it was left."""
        schedule = self.agent.config.schedule
        if not self.filled:
            self.collect(self.random, schedule.prefill)
            observed = self.memory.data["observation"][:, : self.memory.filled].reshape(-1, *self.agent.spaces.shape)
            self.agent.modules.perception.fit_inputs(torch.from_numpy(observed[:20_000]).to(self.agent.device))
            self.filled = True
        self.learn_model(schedule.prefill_updates - self.learner.done)
        while self.rounds < schedule.rounds:
            self.round(self.rounds)
            self.rounds += 1
        if schedule.predictor_updates or schedule.final_behaviour_updates:
            self.rest()
        while self.tuned < schedule.predictor_updates:
            self.learn_predictor(min(100, schedule.predictor_updates - self.tuned))
            self.tuned += min(100, schedule.predictor_updates - self.tuned)
        while self.final < schedule.final_behaviour_updates:
            self.learn_behaviour(min(100, schedule.final_behaviour_updates - self.final))
            self.final += min(100, schedule.final_behaviour_updates - self.final)
        self.memory.latents = None

    def progress(self) -> dict[str, int]:
        """How far the schedule is, for `continue_from`."""
        return {name: int(getattr(self, name)) for name in PROGRESS}

    def continue_from(self, progress: dict[str, int]) -> None:
        """Go on where `progress` says; an interrupted round is begun again, on levels not yet begun with."""
        for name in PROGRESS:
            setattr(self, name, progress[name])

    def round(self, count: int) -> None:
        """Collect with the agent, then learn."""
        schedule = self.agent.config.schedule
        reactive = schedule.mode_1_rounds and count % schedule.mode_1_rounds == schedule.mode_1_rounds - 1
        mode: Mode = "mode-1" if reactive else schedule.mode
        acting = self.agent.begin(self.env.num_envs, mode, sample=True)
        metrics = self.collect(Exploring(acting, self.random, schedule.exploration), schedule.round_steps)
        self.report(f"round ({mode})", count + 1, schedule.rounds, metrics)
        self.learn_model(schedule.round_updates)
        self.learn_behaviour(behaviour_updates(schedule))
