"""Training: collect in a chosen mode → update the world model → update critic and actor → and again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.memory import Window
from ..modules.types import Mode
from .agent import Agent, Array, plan_width
from .checkpoint import part, prefixed
from .config import Schedule
from .criterion import Metrics, carried
from .faults import statistics_kept
from .frames import frame_streams
from .health import CHECK_EVERY, STEPS, WINDOWS, collapse, encode, stop_if_collapsed, vitals
from .interaction import Divided, Exploring, Observation, RandomBehaviour, ResumableBehaviour, Step, VectorEnv, interact
from .learning import Learner, to_device
from .mirror import at_random, mirrors
from .recording import draw_windows, memory_for
from .stopwatch import Stopwatch, Timed
from .storage import generator_from, generator_tensor

PROGRESS = ("filled", "rounds", "gathered", "taken", "streamed", "behaved", "tuned", "decisions", "resets", "units")
"""Whole numbers that say how far a trainer is; see `Trainer`."""

_ANEW = 1_000_003
"""Between the seeds of networks and of those that take their place."""

Report = Callable[[str, int, int, Metrics], None]
"""Called after every unit of work: phase, done, total, numbers; phase "health" is no work and only tells numbers."""


def resting(schedule: Schedule) -> int:
    """Rounds in which perception still learns."""
    return schedule.rounds if schedule.rest is None else min(schedule.rest, schedule.rounds)


def model_updates(schedule: Schedule, rounds: int) -> int:
    """World-model updates after so many rounds in which perception learns, before any renewal that is due then."""
    lives = 1 if schedule.renewal is None or rounds <= schedule.renewal else 2
    return lives * schedule.prefill_updates + rounds * schedule.round_updates


def behaviour_updates(schedule: Schedule) -> int:
    """Critic and actor updates of one round."""
    return round(schedule.round_updates * schedule.behaviour_ratio)


class Trainer:
    """A life: an agent, its memory, its learner and the environments it lives in.

    It works in units: one step of all environments, one update. After each one it can be saved (`state`) and left, and
    another trainer with the same settings that is given this state (`restore`) goes on to the very same end.

    Attributes:
        filled: Whether the prefill was collected.
        rounds: Rounds that are finished.
        gathered: Whether the present round has collected.
        taken: Steps of the present collecting.
        streamed: Those of them since the environments were reset.
        behaved: Critic and actor updates of the present round or, after the last one, of the end.
        tuned: World-model updates with perception at rest.
        decisions: Of all environments.
        resets: Of the environments.
        units: All units of work.
        whole: No unit is under way.
        phase: Of the present unit.
        score: Mean return while collecting in the present round, if an episode ended.
        watch: Where the time went, since this process began.
        inherited: Decisions that were made before that.

    Args:
        agent: Who learns.
        env: Vector environment with same-step autoreset, training levels only.
        report: Told of progress.
        pause: Called after each unit.

    Raises:
        ValueError: Rounds are to go on with episodes under way in a world whose state cannot be saved, windows are to
            be mirrored in a world that has no mirror image, or every frame is to be remembered where that cannot be.
    """

    def __init__(self, agent: Agent, env: VectorEnv, report: Report, pause: Callable[[], None] = lambda: None) -> None:
        self.agent, self.env, self.report, self.pause = agent, env, report, pause
        config, spaces = agent.config, agent.spaces
        schedule = config.schedule
        if not (schedule.round_reset or hasattr(env.unwrapped, "set_state")):
            raise ValueError(
                f"schedule.round_reset is off and the state of {config.env.id} cannot be saved, so that a run could "
                "not be resumed; leave it on"
            )
        goals = config.task.goals and config.behaviour.goals == "episode"
        self.mirrors = mirrors(config.model_loss.mirror, env)
        self.frames = frame_streams(config, env)
        offsets = config.env.action_repeat if schedule.every_frame else 1
        self.memory = memory_for(agent, offsets * env.num_envs, offsets * schedule.capacity, goals)
        renewal = None if schedule.renewal is None else model_updates(schedule, schedule.renewal)
        self.learner = Learner(agent, model_updates(schedule, resting(schedule)), renewal)
        self.random = RandomBehaviour(spaces.action, env.num_envs, config.seed + 2, plan_width(spaces), schedule.sticky)
        self.generator = np.random.default_rng(config.seed + 3)
        self.suspicion: str | None = None  # what the last look at the representation found wrong
        self.filled = self.gathered = False
        self.rounds = self.taken = self.streamed = self.behaved = self.tuned = 0
        self.decisions = self.resets = self.units = 0
        self.whole, self.phase = True, "collect"
        self.score: float | None = None
        self.window: Window | None = None  # what was learned from last, for reports of failures
        self.behaviour: ResumableBehaviour = self.random
        self.resumed: dict[str, Tensor] | None = None  # of the behaviour that was collecting
        self.present: tuple[Observation, NDArray[np.bool_]] | None = None  # observed now, and where episodes begin
        self.totals = np.zeros(env.num_envs)
        self.returns: list[float] = []
        self.watch, self.inherited = Stopwatch(), 0

    def _unit(self, phase: str, done: int, total: int, metrics: Metrics | None) -> None:
        """A unit is complete: tell of it (unless there are no numbers), and pause."""
        self.units += 1
        self.whole = True
        if metrics is not None:
            self.report(phase, done, total, metrics)
        self.pause()
        self.whole = False

    def collect(self, behaviour: ResumableBehaviour, decisions: int) -> Metrics:
        """Act for so many decisions over all environments and remember them; returns what happened."""
        steps = max(1, decisions // self.env.num_envs)
        self.phase, self.behaviour, self.whole = "collect", behaviour, False
        if self.resumed is not None:
            behaviour.restore(self.resumed)
            self.resumed = None
        elif not self.taken:
            self._begin()
        seed = self.agent.config.seed + self.resets - 1
        course = interact(self.env, Timed(behaviour, self.watch), seed=seed, start=self.present)
        for step in islice(self._timed(course), steps - self.taken):
            self._remember(step)
            self.totals += step.reward
            for index in np.flatnonzero(step.ended):
                self.returns.append(float(self.totals[index]))
                self.totals[index] = 0.0
            self.present = step.following, step.ended
            self.taken += 1
            self.streamed += 1
            self.decisions += self.env.num_envs
            told = self.taken % 50 == 0 or self.taken == steps
            self._unit("collect", self.taken, steps, {"return": self._mean_return()} if told else None)
        return ({"return": self._mean_return()} if self.returns else {}) | {"episodes": len(self.returns)}

    def _remember(self, step: Step) -> None:
        if self.frames is not None:
            if (entry := self.frames.entry(step)) is not None:
                self.memory.write(**vars(entry))
            return
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
            step.sensors,
        )

    def _timed(self, course: Iterator[Step]) -> Iterator[Step]:
        """The same steps; what takes time besides acting is the environment."""
        spent = self.watch.seconds
        while True:
            acted, began = spent.get("acting", 0.0), perf_counter()
            step = next(course)
            self.watch.add("environment", perf_counter() - began - (spent["acting"] - acted))
            yield step

    def _mean_return(self) -> float:
        return float(np.mean(self.returns)) if self.returns else 0.0

    def _begin(self) -> None:
        """Collecting begins: with new episodes, or where the last round stopped."""
        if self.present is None or self.agent.config.schedule.round_reset:
            self.returns = []
            self.begin_stream()
        else:  # whoever acts now has not seen what came before; in a short round few episodes end
            self.returns = self.returns[-100:]
            self.present = self.present[0], np.ones_like(self.present[1])

    @property
    def under_way(self) -> bool:
        """Whether what was observed last will be gone on from."""
        schedule = self.agent.config.schedule
        goes_on = not schedule.round_reset and self.rounds < schedule.rounds
        return self.taken > 0 or (goes_on and self.present is not None)

    def begin_stream(self) -> None:
        """What comes next does not follow what came before: the environments are reset."""
        self.memory.break_streams()
        if self.frames is not None:
            self.frames.forget()
        self.resets += 1
        self.streamed = 0
        self.totals[:] = 0
        self.present = None

    def learn_model(self, first: int, updates: int) -> None:
        """World-model updates on windows from memory, so many from number ``first`` on."""
        config, m = self.agent.config.model_loss, self.agent.modules
        self.phase, self.whole = "world model", False
        while (done := self.learner.done - first) < updates:
            with self.watch("perception and world model"):
                window = self.draw(config.batch, config.steps, config.balance, rarity=config.rarity, returns=True)
                with statistics_kept(m.perception, self.learner.target_perception):
                    metrics = self.learner.world_model_update(window)
            if self.learner.done % CHECK_EVERY == 0:
                self.check_health()
            self._unit("world model", done + 1, updates, metrics)

    def draw(
        self, batch: int, steps: int, balance: float = 0.0, goals: int = 1, rarity: float = 0.0, returns: bool = False
    ) -> Window:
        """Windows from memory, where the agent is; with the ``returns`` that followed, where they are learned."""
        past, loss = self.agent.config.perception.recall.reach, self.agent.config.model_loss
        discount = loss.returns_discount if returns and loss.returns else None
        window = self.memory.sample(batch, steps, self.generator, balance, goals, past, rarity, discount)
        window = at_random(window, self.mirrors, self.generator)
        self.window = to_device(window, self.agent.device)
        return self.window

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
        before, self.suspicion = self.suspicion, collapse(found, self.learner.predicts)
        stop_if_collapsed(before, self.suspicion, done, agent.config.model_loss)

    def rest(self) -> None:
        """From here on perception does not change: compute every remembered latent once."""
        perception = self.agent.modules.perception
        if perception.recall is not None or self.memory.latents is not None:
            return  # what is recalled depends on the past: it is computed with each window
        with self.watch("latents at rest"):
            self.memory.keep_latents(lambda percepts: encode(perception, percepts))

    def learn_predictor(self, updates: int) -> None:
        """World-model updates with perception at rest, until there were so many in all."""
        config, schedule = self.agent.config.model_loss, self.agent.config.schedule
        planned = schedule.predictor_updates + (schedule.rounds - resting(schedule)) * schedule.round_updates
        self.phase, self.whole = "predictor", False
        while self.tuned < updates:
            with self.watch("world model at rest"):
                steps = schedule.predictor_steps or config.steps
                window = self.draw(schedule.predictor_batch, steps, config.balance, rarity=config.rarity, returns=True)
                metrics = self.learner.predictor_update(window, self.tuned, planned)
            self.tuned += 1
            self._unit("predictor", self.tuned, updates, metrics)

    def learn_behaviour(self, updates: int, final: bool = False) -> None:
        """Critic and actor updates on windows from memory; the final ones slow down."""
        self.phase, self.whole = "behaviour", False
        while self.behaved < updates:
            if final:
                self.learner.behaviour.cool(self.behaved / updates)
            with self.watch("critic and actor"):
                metrics = self._behave()
            self.behaved += 1
            self._unit("behaviour", self.behaved, updates, metrics)

    def _behave(self) -> Metrics:
        """One update of critic and actor."""
        config, learner = self.agent.config.behaviour, self.learner.behaviour
        window = carried(self.agent.modules.perception, self.draw(config.batch, config.steps, goals=config.hindsight))
        dream = learner.dream(window)
        plans = learner.short_plans(window, dream)
        walked = None
        if plans is not None and config.walks:
            walked = learner.walks(self.draw(config.batch, config.walk_steps, goals=config.hindsight))
        return learner.critic_update(window, dream, plans, walked) | learner.actor_update(window, dream, plans)

    def run(self) -> None:
        """The whole schedule, from wherever it was left."""
        schedule = self.agent.config.schedule
        if not self.filled:
            self.collect(self.random, schedule.prefill)
            self._fit_inputs()
            self.filled, self.taken = True, 0
        self.learn_model(0, schedule.prefill_updates)
        before = resting(schedule)
        while self.rounds < before:
            if self.rounds == schedule.renewal and not self.gathered:
                self.renew()
            self.round(self.rounds)
        if schedule.predictor_updates or schedule.final_behaviour_updates or schedule.rounds > before:
            self.rest()
        self.learn_predictor(schedule.predictor_updates)
        while self.rounds < schedule.rounds:
            self.round(self.rounds)
        self.learn_behaviour(schedule.final_behaviour_updates, final=True)
        self.memory.forget_latents()

    def _fit_inputs(self) -> None:
        observed = self.memory.data["observation"][:, : self.memory.filled].reshape(-1, *self.agent.spaces.shape)
        self.agent.modules.perception.fit_inputs(torch.from_numpy(observed[:20_000]).to(self.agent.device))

    def renew(self) -> None:
        """Let all networks begin anew and learn from everything remembered, as they did from the prefill."""
        config, begun = self.agent.config, self.learner.renewal
        assert begun is not None
        if self.learner.done == begun:  # else a resumed run is past that
            self.learner.renew(Agent(replace(config, seed=config.seed + _ANEW), self.agent.spaces))
            self._fit_inputs()
            self.suspicion = None
        self.learn_model(begun, config.schedule.prefill_updates)

    def round(self, count: int) -> None:
        """Collect with the agent, then learn."""
        schedule = self.agent.config.schedule
        before = resting(schedule)
        if not self.gathered:
            if count in (0, schedule.renewal):
                self.learn_behaviour(schedule.prefill_behaviour)
            reactive = schedule.mode_1_rounds and count % schedule.mode_1_rounds == schedule.mode_1_rounds - 1
            mode: Mode = "mode-1" if reactive else schedule.mode
            metrics = self.collect(self._collecting(mode), schedule.round_steps)
            self.gathered, self.taken, self.behaved, self.score = True, 0, 0, metrics.get("return")
            self._unit(f"round ({mode})", count + 1, schedule.rounds, metrics)
        if count < before:
            self.learn_model(model_updates(schedule, count + 1) - schedule.round_updates, schedule.round_updates)
        else:
            self.rest()
            self.learn_predictor(schedule.predictor_updates + (count - before + 1) * schedule.round_updates)
        self.learn_behaviour(behaviour_updates(schedule))
        self.rounds, self.gathered, self.behaved = self.rounds + 1, False, 0

    def _collecting(self, mode: Mode) -> ResumableBehaviour:
        """The agent, who explores but for the share of environments in which it acts as when it is evaluated."""
        schedule, count = self.agent.config.schedule, self.env.num_envs
        acting = self.agent.begin(count, mode, True, schedule.collecting_candidates, schedule.collecting_iterations)
        exploring = Exploring(acting, self.random, schedule.exploration)
        exploiting = np.arange(count) >= count - round(schedule.exploiting * count)
        if not exploiting.any():
            return exploring
        return Divided(exploring, self.agent.begin(count, mode), exploiting)

    def progress(self) -> dict[str, int]:
        """How far the schedule is."""
        return {name: int(getattr(self, name)) for name in PROGRESS}

    def state(self) -> dict[str, Tensor]:
        """All that the future depends on besides the agent's weights, the learner and the entries of the memory."""
        state = {name: torch.tensor(value) for name, value in self.progress().items()}
        state |= {"generator": generator_tensor(self.generator), "agent": self.agent.generator.get_state()}
        state |= {"suspicion": _text(self.suspicion)}
        state |= prefixed("memory", self.memory.state()) | prefixed("random", self.random.state())
        if self.under_way:
            assert self.present is not None
            observation, first = self.present
            seen = observation if isinstance(observation, dict) else {"": observation}
            state |= {f"observation.{key}": _tensor(value) for key, value in seen.items()}
            state |= {"first": _tensor(first), "totals": _tensor(self.totals)}
            state |= {"returns": torch.tensor(self.returns, dtype=torch.float64)}
            state |= prefixed("behaviour", self.behaviour.state()) if self.taken else {}
            state |= {} if self.frames is None else prefixed("frames", self.frames.state())
            if hasattr(self.env.unwrapped, "set_state"):
                state |= {f"env.{name}": _tensor(array) for name, array in self.env.state().items()}  # type: ignore[attr-defined]
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`, in a fresh trainer whose learner and remembered entries were put back before.

        Environments that cannot be saved (any of Gymnasium) are brought back to where they were by their seed and the
        remembered actions. Where that leads elsewhere, new episodes begin, with a warning.

        Raises:
            ValueError: The state does not fit.
        """
        for name in PROGRESS:
            setattr(self, name, int(state[name]))
        self.inherited = self.decisions
        self.generator = generator_from(state["generator"])
        self.agent.generator.set_state(state["agent"])
        self.suspicion = bytes(state["suspicion"].tolist()).decode() or None
        self.memory.restore(part(state, "memory"))
        self.random.restore(part(state, "random"))
        if "first" not in state:
            return
        seen = {key: tensor.numpy() for key, tensor in part(state, "observation").items()}
        self.totals, self.returns = state["totals"].numpy(), state["returns"].tolist()
        self.resumed = part(state, "behaviour") if self.taken else None
        if self.frames is not None:
            self.frames.restore(part(state, "frames"))
        self.present = seen.get("", seen), state["first"].numpy()
        if saved := part(state, "env"):
            self.env.set_state({name: tensor.numpy() for name, tensor in saved.items()})  # type: ignore[attr-defined]
        elif not self._replay():
            warnings.warn(
                f"{self.agent.config.env.id} did not come back to where it was (its seed and actions do not decide "
                "what it does); new episodes begin, and the run is not what it would have been",
                stacklevel=2,
            )
            self.begin_stream()

    def _replay(self) -> bool:
        """Do again what was done since the last reset; whether the same was seen."""
        memory, seed = self.memory, self.agent.config.seed + self.resets - 1
        if self.streamed > memory.filled:
            return False
        observation, _ = self.env.reset(seed=seed)
        for slot in (memory.cursor + np.arange(-self.streamed, 0)) % memory.length:
            if not _same(observation, memory.data["observation"][:, slot]):
                return False
            observation, reward, terminated, truncated, _ = self.env.step(memory.data["action"][:, slot])
            felt = np.asarray(reward, np.float32)
            known = (memory.data[name][:, slot] for name in ("reward", "terminated", "truncated"))
            if not all(map(np.array_equal, (felt, terminated, truncated), known)):
                return False
        assert self.present is not None
        present = self.present[0]
        return _same(observation, present["observation"] if isinstance(present, dict) else present)


def _same(observation: Observation, known: Array) -> bool:
    return np.array_equal(observation["observation"] if isinstance(observation, dict) else observation, known)


def _text(value: str | None) -> Tensor:
    return torch.tensor(list((value or "").encode()), dtype=torch.uint8)


def _tensor(array: Array) -> Tensor:
    """A copy of an array of any type that safetensors knows; unsigned words become signed ones of the same bits."""
    copied = np.array(array)
    return torch.from_numpy(copied.view(np.int64) if copied.dtype == np.uint64 else copied)
