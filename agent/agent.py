"""The agent: the six modules and a planner, with one switch between reacting and thinking ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.actions import ActionEncoder
from ..modules.actor import Actor
from ..modules.configurator import Configurator
from ..modules.content import ContentMemory, forget
from ..modules.cost import IntrinsicCost
from ..modules.critic import Critic
from ..modules.perception import Perception
from ..modules.types import DOUBTS, DRIVES, SENSOR_DRIVES, Mode, State
from ..modules.world_model import WorldModel
from ..planners import (
    Categorical,
    Distribution,
    Gaussian,
    Plan,
    Planner,
    default_planner,
    make_planner,
    shift,
    uninformed,
)
from .config import RunConfig
from .modes import Modules, gated, mode_1, mode_2
from .spaces import Spaces

Array = NDArray[np.generic]


def pick_device(name: str) -> torch.device:
    """`auto` is the accelerator where there is one, else the CPU.

    Raises:
        ValueError: A device that this machine does not have.
    """
    here = torch.accelerator.current_accelerator(check_available=True)  # without the check: what torch was built for
    if name == "auto":
        return here or torch.device("cpu")
    device = torch.device(name)
    if device.type != "cpu" and (here is None or here.type != device.type):
        raise ValueError(f"device {name!r} was asked for and no such device is here; use auto or cpu")
    return device


def build_networks(
    config: RunConfig, spaces: Spaces, actions: ActionEncoder
) -> tuple[Perception, WorldModel, Critic, Actor]:
    """The modules that have parameters, as the run's seed begins them.

    Sensors get heads in reward tasks, whatever they weigh now. Novelty and agency are about what is imagined, nothing
    measures them in the world: the critic has no head for them, they count as far as a plan looks ahead.
    """
    goals = config.task.goals
    sensors = spaces.sensors if config.world_model.events and not goals else ()
    heads = DRIVES.index("novelty" if sensors else "hunger")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        perception = Perception(config.perception, spaces.shape, spaces.context)
        latent, seen = perception.width, config.perception.latent
        told = slice(seen, seen + spaces.context) if spaces.context else slice(0)
        world_model = WorldModel(config.world_model, latent, actions, perception.grid, sensors, told)
        critic = Critic(config.critic, latent, goals=goals, grid=perception.searched, heads=heads)
        actor = Actor(config.actor, latent, actions, goals=goals, grid=perception.searched)
    return perception, world_model, critic, actor


def check_drives(config: RunConfig, spaces: Spaces) -> None:
    """Refuse weights of drives that nothing could make the agent feel.

    Raises:
        ValueError: Names the weight and what it needs.
    """
    task = config.task
    newer = {"hunger": task.hunger, "hazard": task.hazard, "novelty": task.novelty, "agency": task.agency}
    weighed = {name: weight for name, weight in newer.items() if weight}
    for name, weight in weighed.items():
        given = f"task.{name} is {weight} and"
        if task.goals or not config.world_model.events:
            raise ValueError(f"{given} neither goal tasks nor world models without events feel {name}; set it to 0")
        sensor = next((sensor for sensor, drive in SENSOR_DRIVES.items() if drive == name), None)
        if sensor is not None and sensor not in spaces.sensors:
            raise ValueError(f"{given} {config.env.id} has no sensor {sensor}; set it to 0 or choose a world with one")
    if "novelty" in weighed and config.world_model.members < 2:
        raise ValueError(
            f"task.novelty is {task.novelty} and world_model.members {config.world_model.members}; novelty is what an "
            "ensemble disagrees about, give the world model more members"
        )
    if "agency" in weighed:
        ActionEncoder(spaces.action).idle(config.world_model.noop)


class Agent:
    """Six modules, a planner and a generator; `act` runs one decision in either mode.

    Args:
        config: Settings of the run.
        spaces: What the environment shows and takes.

    Raises:
        ValueError: Settings that do not fit the spaces.
    """

    def __init__(self, config: RunConfig, spaces: Spaces) -> None:
        if config.task.goals and not spaces.goals:
            raise ValueError("the task is to reach goals but the environment shows none; set task.goals off")
        if config.task.context and len(config.task.context) != spaces.context:
            raise ValueError(
                f"task.context has {len(config.task.context)} numbers and the environment tells {spaces.context}; give "
                "as many, or none to go by what it tells"
            )
        if spaces.pixels and not all(0 <= number <= 1 for number in config.task.context):
            raise ValueError(f"task.context is {config.task.context}; beside pictures its numbers are from 0 to 1")
        check_drives(config, spaces)
        self.config, self.spaces = config, spaces
        self.device = pick_device(config.device)
        perception, world_model, critic, actor = build_networks(config, spaces, ActionEncoder(spaces.action))
        self.modules = Modules(
            configurator=Configurator(config.task),
            perception=perception.to(self.device).eval(),
            world_model=world_model.to(self.device).eval(),
            intrinsic_cost=IntrinsicCost(),
            critic=critic.to(self.device).eval(),
            actor=actor.to(self.device).eval(),
        )
        name = config.task.thinking.planner
        self.planner: Planner = make_planner(default_planner(spaces.action) if name == "auto" else name, spaces.action)
        self.generator = torch.Generator(device=self.device).manual_seed(config.seed)

    def networks(self) -> dict[str, torch.nn.Module]:
        """The modules that have parameters, by name."""
        m = self.modules
        return {"perception": m.perception, "world_model": m.world_model, "critic": m.critic, "actor": m.actor}

    def begin(
        self, num_envs: int, mode: Mode, sample: bool = False, candidates: int = 0, iterations: int = 0
    ) -> Acting:
        """Start acting in ``num_envs`` environments.

        Args:
            num_envs: Environments B.
            mode: How to decide.
            sample: Mode-1 draws from its policy.
            candidates: Courses of action per iteration of a plan; 0: as many as the task says.
            iterations: Of a plan; 0: as many as the task says.

        Raises:
            ValueError: The gated mode without a gate.
        """
        return Acting(self, num_envs, mode, sample, candidates, iterations)


@dataclass(frozen=True)
class Decision:
    """What was decided for B environments, and what was thought about it.

    Attributes:
        action: ``[B, ...]`` in the environment's units.
        plan: Distribution of the plan's first action ``[B, P]``; zeros where nothing was planned in this step.
        course: The planned actions ``[B, H, ...]``, or None in Mode-1.
        planned: Where a plan was made in this step ``[B]``.
        calls: Predictor calls of this step, over all environments.
        doubts: What the gate looked at in this step ``[B, 4]``, NaN where it did not; None in other modes.
    """

    action: Array
    plan: Array
    course: Array | None
    planned: NDArray[np.bool_]
    calls: int
    doubts: NDArray[np.float32] | None = None


class Acting:
    """An agent at work in B environments: the recent observations of each, and the plan it is carrying out."""

    def __init__(
        self, agent: Agent, num_envs: int, mode: Mode, sample: bool, candidates: int = 0, iterations: int = 0
    ) -> None:
        self.agent, self.mode, self.sample = agent, mode, sample
        thinking, spaces = agent.config.task.thinking, agent.spaces
        self.candidates, self.iterations = candidates, iterations
        if mode == "gated" and not thinking.gate.open:
            raise ValueError(
                "the gated mode has no gate: set a threshold (task.thinking.gate), or let compare find one (--gates)"
            )
        history = agent.config.perception.history
        self.frames = np.zeros((num_envs, history, *spaces.shape), np.uint8 if spaces.pixels else np.float32)
        length = 1 if mode == "mode-1" else thinking.horizon
        discrete = agent.modules.world_model.actions.discrete
        self.course = np.zeros((num_envs, length, *(spaces.action.shape or ())), np.int64 if discrete else np.float32)
        self.commit = min(thinking.commit, length)
        self.age = np.full(num_envs, self.commit)  # steps of the present plan that were carried out
        self.known = np.zeros(num_envs, np.bool_)  # where there is a last plan to start from
        start = uninformed(spaces.action, num_envs, thinking.horizon, agent.device)
        self.start = tuple(part.clone() for part in _tensors(start))
        self.fresh = tuple(part[:1].clone() for part in self.start)
        self.expected = torch.full((num_envs,), torch.nan, device=agent.device)  # `Gated.expected`
        recall = agent.modules.perception.recall if agent.config.perception.recall.slots else None
        self.memory = None if recall is None else recall.begin(num_envs, agent.device)

    def state(self) -> dict[str, Tensor]:
        """What it will act on besides the next observation: recent ones, and the plans under way."""
        arrays = {"frames": self.frames, "course": self.course, "age": self.age, "known": self.known}
        start = {f"start{index}": part.clone() for index, part in enumerate(self.start)}
        memory = {} if self.memory is None else {name: part.clone() for name, part in vars(self.memory).items()}
        expected = {"expected": self.expected.clone()} if self.mode == "gated" else {}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()} | start | memory | expected

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        self.frames, self.course, self.age, self.known = (
            fitting(state[name], torch.from_numpy(getattr(self, name))).numpy().copy()
            for name in ("frames", "course", "age", "known")
        )
        self.start = tuple(
            fitting(state[f"start{index}"], part).to(part.device) for index, part in enumerate(self.start)
        )
        if self.mode == "gated":
            self.expected = fitting(state["expected"], self.expected)
        if self.memory is not None:
            present = vars(self.memory)
            self.memory = ContentMemory(
                **{key: fitting(state[key], present[key]).to(self.agent.device) for key in present}
            )

    def act(
        self, observation: Array | dict[str, Array], first: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> Decision:
        """Decide for the active environments.

        Args:
            observation: Of the vector environment; a dict with the goal in goal tasks.
            first: Where an episode begins with this observation ``[B]``.
            active: Where a decision is wanted; elsewhere the last action is repeated ``[B]``.
        """
        x = np.asarray(observation["observation"] if isinstance(observation, dict) else observation)
        self.frames[:, :-1] = self.frames[:, 1:]
        self.frames[:, -1] = x
        self.frames[first] = x[first][:, None]
        self.known &= ~first
        self.age[first] = self.commit
        self.expected[torch.from_numpy(first).to(self.expected.device)] = torch.nan
        recalled = self._recall(first, active)
        due = active & (self.age >= self.commit)
        plan = np.zeros((len(first), plan_width(self.agent.spaces)), np.float32)
        planned = np.zeros(len(first), np.bool_)
        doubts = np.full((len(first), len(DOUBTS)), np.nan, np.float32) if self.mode == "gated" else None
        deciding = np.flatnonzero(due)
        calls = self._decide(deciding, observation, recalled, plan, planned, doubts) if due.any() else 0
        action = self.course[np.arange(len(first)), np.minimum(self.age, self.course.shape[1] - 1)]
        self.age[active] += 1
        return Decision(action, plan, None if self.mode == "mode-1" else self.course, planned, calls, doubts)

    def _recall(self, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Tensor | None:
        """What the present percepts bring to mind ``[B, V]``; they are remembered where an episode goes on."""
        if self.memory is None:
            return None
        perception = self.agent.modules.perception
        assert perception.recall is not None
        device = self.agent.device
        with torch.no_grad():
            latent = perception(torch.from_numpy(self.frames).to(device))[..., : perception.config.latent]
            memory = forget(self.memory, torch.from_numpy(first).to(device))
            recalled, self.memory = perception.recall.step(memory, latent, torch.from_numpy(active).to(device))
        return recalled

    def _decide(
        self,
        index: NDArray[np.int64],
        observation: Array | dict[str, Array],
        recalled: Tensor | None,
        plan: Array,
        planned: NDArray[np.bool_],
        doubts: NDArray[np.float32] | None,
    ) -> int:
        """Run an episode of the chosen mode for the environments in ``index``; returns the predictor calls used.

        What a `Decision` tells of it is written into ``plan``, ``planned`` and ``doubts``.
        """
        agent, device = self.agent, self.agent.device
        m = agent.modules
        before = m.world_model.calls
        with torch.no_grad():
            percept = torch.from_numpy(self.frames[index]).to(device)
            usual = m.configurator(self.mode, self._goal(observation, index), device)
            candidates, iterations = self.candidates or usual.candidates, self.iterations or usual.iterations
            configuration = replace(usual, candidates=candidates, iterations=iterations)
            if recalled is not None:
                configuration = replace(configuration, recalled=recalled[torch.from_numpy(index).to(device)])
            self.commit = min(configuration.commit, self.course.shape[1])
            if self.mode == "mode-1":
                self._react(index, mode_1(m, percept, configuration, agent.generator, self.sample))
                return m.world_model.calls - before
            start = self._start(torch.from_numpy(index).to(device), torch.from_numpy(self.known[index]).to(device))
            thinking = agent.planner, agent.spaces.action, start, agent.generator
            thinks, result = index, None
            if doubts is None:
                result = mode_2(m, percept, configuration, *thinking)
            else:
                rows = torch.from_numpy(index).to(device)
                action, doubt, wanted, result, foreseen = gated(
                    m, percept, configuration, *thinking, self.expected[rows], self.sample
                )
                if foreseen is not None:
                    self.expected[rows] = foreseen
                doubts[index] = doubt.cpu().numpy()
                where = wanted.cpu().numpy()
                thinks = index[where]
                self._react(index[~where], action[~wanted])
            if result is not None:
                self._follow(thinks, result)
                plan[thinks], planned[thinks] = plan_target(result).cpu().numpy(), True
        return m.world_model.calls - before

    def _react(self, index: NDArray[np.int64], action: Tensor) -> None:
        """Take one action and decide again in the next step; there is no plan to go on from."""
        self.course[index, self.commit - 1] = action.cpu().numpy()
        self.age[index] = self.commit - 1
        self.known[index] = False

    def _follow(self, index: NDArray[np.int64], result: Plan) -> None:
        """Carry out a plan, and begin the next search where it will have led."""
        self.course[index] = result.actions.cpu().numpy()
        for kept, new in zip(self.start, _tensors(shift(result, self.commit, self.agent.spaces.action)), strict=True):
            kept[index] = new.to(kept.dtype)
        self.age[index], self.known[index] = 0, True

    def _start(self, index: Tensor, known: Tensor) -> Distribution:
        """The last plans moved on to the present, and where there is none, the uninformed distribution."""
        mask = known[:, None, None]
        parts = [torch.where(mask, kept[index], new) for kept, new in zip(self.start, self.fresh, strict=True)]
        return Gaussian(*parts) if len(parts) == 2 else Categorical(*parts)

    def _goal(self, observation: Array | dict[str, Array], index: NDArray[np.int64]) -> State | None:
        if not self.agent.config.task.goals:
            return None
        assert isinstance(observation, dict)
        goal = np.asarray(observation["desired_goal"])[index]
        percept = np.repeat(goal[:, None], self.frames.shape[1], axis=1)
        return self.agent.modules.perception.encode(torch.from_numpy(percept).to(self.agent.device))


def fitting(saved: Tensor, present: Tensor) -> Tensor:
    """A saved tensor, if it has the shape and type of the one whose place it is to take.

    Raises:
        ValueError: It has not.
    """
    if saved.shape != present.shape or saved.dtype != present.dtype:
        raise ValueError(
            f"a saved tensor is {saved.dtype} {list(saved.shape)}, expected {present.dtype} {list(present.shape)}"
        )
    return saved.clone()


def _tensors(distribution: Distribution) -> tuple[Tensor, ...]:
    if isinstance(distribution, Gaussian):
        return (distribution.mean, distribution.std)
    return (distribution.probabilities,)


def plan_width(spaces: Spaces) -> int:
    """P, the width of `plan_target`."""
    actions = ActionEncoder(spaces.action)
    return actions.width if actions.discrete else 2 * actions.width


def plan_target(plan: Plan) -> Tensor:
    """What the actor is to imitate ``[B, P]``: distribution of the first action (probabilities, or mean and std)."""
    return torch.cat([part[:, 0] for part in _tensors(plan.distribution)], dim=-1)
