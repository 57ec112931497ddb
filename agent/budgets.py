"""Budgets: the same agent, thinking more or less."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from ..modules.configurator import Configurator, Task, Thinking
from .agent import Agent

_FEWEST = 16  # candidates of an iteration, below which fewer iterations are better than fewer candidates


def rethink(agent: Agent, thinking: Thinking) -> Agent:
    """The same networks under other settings of thinking, with a fresh generator; the agent itself is left alone."""
    return retask(agent, replace(agent.config.task, thinking=thinking))


def retask(agent: Agent, task: Task) -> Agent:
    """The same networks configured for another task, with a fresh generator; the agent itself is left alone."""
    other = copy.copy(agent)
    other.config = replace(agent.config, task=task)
    other.modules = replace(agent.modules, configurator=Configurator(task))
    other.generator = torch.Generator(device=agent.device).manual_seed(agent.config.seed)
    return other


def thinking_within(calls: int, thinking: Thinking, members: int = 1) -> Thinking:
    """Settings that make at most so many predictor calls per decision.

    The shape of a plan (horizon, hold, how much of it is carried out) stays. Candidates follow from the budget; where
    that leaves few of them, there are fewer iterations instead. What carrying out several steps of a plan saves is
    spent on the plan, and what the actor's proposals cost is taken off.

    Args:
        calls: Predictor calls per decision.
        thinking: The agent's own settings.
        members: Of the world model's ensemble, in each future; each of them is called.

    Raises:
        ValueError: The budget does not even allow two candidates.
    """
    commit = min(thinking.commit, thinking.horizon)
    courses = calls * commit // (thinking.horizon * members)  # courses of action that one plan may imagine
    if courses < 2:
        least = -(-2 * thinking.horizon * members // commit)
        raise ValueError(
            f"a budget of {calls} predictor calls is too small for plans of {thinking.horizon} steps, which need "
            f"{least} for two candidates; choose larger budgets, or a shorter horizon"
        )
    proposals = min(thinking.proposals, (courses - 2) // 2)
    courses -= proposals
    iterations = max(1, min(thinking.iterations, courses // _FEWEST))
    candidates = courses // iterations
    return replace(thinking, candidates=candidates, iterations=iterations, proposals=min(proposals, candidates - 1))


def with_budget(agent: Agent, calls: int) -> Agent:
    """The same agent with at most so many predictor calls per decision.

    Raises:
        ValueError: The budget is too small for its plans.
    """
    model, thinking = agent.config.world_model, agent.config.task.thinking
    each = model.members * (2 if agent.config.task.agency else 1)  # and what doing nothing does
    futures = thinking.futures if model.codes > 1 else 1
    return rethink(agent, thinking_within(calls, thinking, each * futures))


def search_of(agent: Agent) -> str:
    """What its planner tries per decision, for people."""
    thinking = agent.config.task.thinking
    return f"{thinking.candidates}×{thinking.iterations} plans of {thinking.horizon} steps"


def thought_of(agent: Agent) -> str:
    """The same of Mode-2: in how many futures, where there are several."""
    if agent.config.world_model.codes == 1:
        return search_of(agent)
    against = ", of which the worst counts" if agent.config.task.thinking.adversary else ""
    return f"{search_of(agent)} in {agent.config.task.thinking.futures} futures{against}"


def without_critic(agent: Agent) -> Agent:
    """The same agent with a critic that foresees nothing: a plan is worth what its own steps cost."""
    other, silent = copy.copy(agent), copy.deepcopy(agent.modules.critic)
    for parameter in silent.net[-1].parameters():  # all bins alike: their mean is 0
        torch.nn.init.zeros_(parameter)
    other.modules = replace(agent.modules, critic=silent)
    return other
