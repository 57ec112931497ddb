"""Upper bounds: planning in the true simulator, and the rooms' experts. They use what no agent may see."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.configurator import Task
from ..modules.cost import IntrinsicCost, interoception, plan_energy
from ..modules.types import drive_weights
from ..planners import BeamSearch, Budget, CategoricalCEM, Planner, Proposal, TreeSearch
from .agent import Array, Decision
from .interaction import Courses, Observation, VectorEnv


class SavedState(Protocol):
    """B environments, saved."""

    def repeat(self, index: int, count: int) -> SavedState:
        """Environment ``index``, ``count`` times."""
        ...


@runtime_checkable
class Savable(Protocol):
    """A vector environment that can be saved and restored: Procgen and Sprite."""

    num_envs: int
    single_action_space: gymnasium.Space[Any]

    @property
    def noop(self) -> int:
        """The action that does nothing."""
        ...

    def get_state(self) -> Any:
        """A `SavedState` of all environments."""
        ...

    def set_state(self, state: Any) -> None:
        """Go on from one."""
        ...

    def step(self, actions: Any) -> Any:
        """As in Gymnasium."""
        ...


class OracleBehaviour:
    """Mode-2 with the true simulator in place of the world model, and no critic.

    The same energy, planner and budget as the agent's; only the dynamics are true. For each environment the candidates
    are played out from the saved state of the simulator.

    Args:
        env: Environment that is acted in, Procgen or Sprite.
        simulator: The same, with the same options and levels, and with one copy per candidate; where it has some of the
            buttons only, plans and decisions are made of these, by its numbers.
        task: Weights, discount and how hard to think.
        action_repeat: Frames for which each action is held.
        seed: Draws candidates.
        planner: The agent's. In place of one that follows its objective step by step, which a simulator that plays
            whole courses cannot answer, the categorical CEM plans.

    Raises:
        ValueError: The environment cannot be saved and restored.
    """

    def __init__(
        self,
        env: VectorEnv,
        simulator: VectorEnv,
        task: Task,
        action_repeat: int,
        seed: int,
        planner: Planner | None = None,
    ) -> None:
        base, copies = env.unwrapped, simulator.unwrapped
        if not isinstance(base, Savable) or not isinstance(copies, Savable):
            raise ValueError(
                f"oracle planning needs a simulator that can be saved (Procgen, Sprite); {type(base).__name__} is not"
            )
        if copies.num_envs != task.thinking.candidates:
            raise ValueError(f"{copies.num_envs} simulators for {task.thinking.candidates} candidates; make as many")
        self.env, self.copies, self.task, self.repeat = base, copies, task, action_repeat
        thinking = task.thinking
        self.budget = Budget(thinking.horizon, thinking.candidates, thinking.iterations, thinking.hold)
        self.courses = Courses(base.num_envs, min(thinking.commit, thinking.horizon))
        self.planner = CategoricalCEM() if planner is None or isinstance(planner, BeamSearch | TreeSearch) else planner
        self.generator = torch.Generator().manual_seed(seed)
        self.cost = IntrinsicCost()
        self.u = drive_weights(pleasure=task.pleasure, ending=task.ending, effort=task.effort)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Plan for the active environments whose last plan is carried out, one after the other."""
        due = self.courses.due(first, active)
        state: SavedState | None = self.env.get_state() if len(due) else None
        for index in due:
            assert state is not None
            self.courses.follow(int(index), self._plan(state.repeat(int(index), self.budget.candidates)))
        action = np.where(active, self.courses.advance(active), self.copies.noop)
        nothing = np.zeros(len(first), np.bool_)
        return Decision(action, np.zeros((len(first), 1), np.float32), None, nothing, self.budget.calls * len(due))

    def _plan(self, start: SavedState) -> NDArray[np.int64]:
        candidates = self.budget.candidates

        def objective(actions: Tensor) -> Tensor:
            self.copies.set_state(start)
            rewards, going = _play(self.copies, actions[0].numpy(), self.repeat)
            ended = torch.from_numpy(~going).float()
            iota = interoception(torch.from_numpy(rewards).float(), ended, torch.zeros_like(ended))
            costs = self.cost(iota, self.u).sum(-1)
            return plan_energy(costs, 1 - ended, torch.zeros(candidates), self.task.discount)[None]

        space = self.copies.single_action_space
        plan = self.planner.plan(objective, space, Proposal(), self.budget, 1, self.generator)  # type: ignore[arg-type]
        return plan.actions[0].numpy()


def _play(copies: Savable, actions: NDArray[np.int64], repeat: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rewards ``[S, T]`` of action sequences ``[S, T]``, and whether the episode goes on after each step ``[S, T]``."""
    candidates, horizon = actions.shape
    rewards, going = np.zeros((candidates, horizon)), np.ones((candidates, horizon), np.bool_)
    alive = np.ones(candidates, np.bool_)
    for t in range(horizon):
        _, rewards[:, t], alive = held(copies, actions[:, t], repeat, alive)
        going[:, t] = alive
    return rewards, going


def held(
    copies: Savable, action: NDArray[np.int64], repeat: int, alive: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.float64], NDArray[np.bool_]]:
    """Hold actions ``[S]`` for some frames: what is seen then, the rewards, and whose episode still goes on ``[S]``."""
    rewards = np.zeros(len(action))
    for _ in range(repeat):
        frame, reward, terminated, truncated, _ = copies.step(action)
        rewards += np.where(alive, reward, 0.0)
        alive = alive & ~(terminated | truncated)
    return frame, rewards, alive


class ExpertBehaviour:
    """The scripted expert of a room world, free of noise."""

    def __init__(self, env: VectorEnv) -> None:
        expert = getattr(env.unwrapped, "expert_action", None)
        if expert is None:
            raise ValueError(f"{type(env.unwrapped).__name__} has no expert; the rooms have")
        self.expert: Any = expert

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """What the expert does in the environments' present states."""
        nothing = np.zeros(len(first), np.bool_)
        return Decision(np.asarray(self.expert()), np.zeros((len(first), 1), np.float32), None, nothing, 0)
