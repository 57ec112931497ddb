"""The two perception–action episodes of the architecture (LeCun 2022, section 3.1, figures 3 and 4).

Mode-1:  s[0] = Enc(x);  a[0] = A(s[0])
Mode-2:  s[0] = Enc(x);  s[t+1] = Pred(s[t], a[t]);  F(a) = Σ γ^t u·IC(ι[t]) + γ^T v·TC(s[T]);  ǎ = argmin_a F(a)
After:   D(ǎ[0], A(s[0])) is what Mode-2 teaches Mode-1 (`learning.imitation_loss`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..modules.actor import Actor, Policy
from ..modules.configurator import Configurator
from ..modules.cost import IntrinsicCost, plan_energy
from ..modules.critic import Critic
from ..modules.perception import Perception
from ..modules.types import Configuration, State, Trajectory
from ..modules.world_model import WorldModel
from ..planners import ActionSpace, Budget, Distribution, Objective, Plan, Planner, Proposal


@dataclass(frozen=True)
class Modules:
    """The six modules but memory, which belongs to the life of a run and not to one decision."""

    configurator: Configurator
    perception: Perception
    world_model: WorldModel
    intrinsic_cost: IntrinsicCost
    critic: Critic
    actor: Actor


def mode_1(
    m: Modules, x: Tensor, configuration: Configuration, generator: torch.Generator, sample: bool = False
) -> Tensor:
    """React: perceive, ask the actor, act. Neither the world model nor a cost is called.

    Args:
        m: The modules.
        x: Percepts ``[B, history, *shape]``.
        configuration: From the configurator.
        generator: Draws the action where ``sample`` asks for it.
        sample: Draw from the policy instead of taking its mode.

    Returns:
        Actions ``[B, ...]`` in the environment's units.
    """
    s = m.perception.encode(x, configuration)
    policy: Policy = m.actor(s, configuration)
    return policy.sample(generator) if sample else policy.mode()


def mode_2(
    m: Modules,
    x: Tensor,
    configuration: Configuration,
    planner: Planner,
    action_space: ActionSpace,
    start: Distribution | None,
    generator: torch.Generator,
) -> Plan:
    """Think ahead: perceive, propose, simulate, evaluate, improve; the caller acts on the plan's first action(s).

    Args:
        m: The modules.
        x: Percepts ``[B, history, *shape]``.
        configuration: From the configurator; sets goal, weights, horizon and budget.
        planner: The optimiser over action sequences.
        action_space: Of one environment.
        start: Where to begin the search, usually the last plan shifted on; None for anywhere.
        generator: Draws candidates.
    """
    s = m.perception.encode(x, configuration)
    return think(m, s, configuration, planner, action_space, start, generator)


def think(
    m: Modules,
    s: State,
    configuration: Configuration,
    planner: Planner,
    action_space: ActionSpace,
    start: Distribution | None,
    generator: torch.Generator,
) -> Plan:
    """Mode-2 from a state ``[B, D]`` on: propose, simulate, evaluate, improve."""
    budget = Budget(configuration.horizon, configuration.candidates, configuration.iterations, configuration.hold)
    proposal = Proposal(start, propose(m, s, configuration, generator) if configuration.proposals else None)
    objective = energy(m, s, configuration)
    return planner.plan(objective, action_space, proposal, budget, s.latent.shape[0], generator)


def propose(m: Modules, s: State, configuration: Configuration, generator: torch.Generator) -> Tensor:
    """The actor's own courses of action ``[B, P, T, ...]``: ã[t] = A(s[t]), s[t+1] = Pred(s[t], ã[t]) (p. 12)."""
    latent = s.latent.unsqueeze(1).expand(-1, configuration.proposals, -1)
    actions = []
    for _ in range(configuration.horizon):
        action = m.actor(State(latent), configuration).sample(generator)
        latent = m.world_model.predict(State(latent), action).latent
        actions.append(action)
    return torch.stack(actions, dim=2)


def energy(m: Modules, s: State, configuration: Configuration) -> Objective:
    """F as a function of action sequences ``[B, S, T, ...]`` → energies ``[B, S]``, from states ``[B, D]``."""

    def objective(actions: Tensor) -> Tensor:
        return trajectory_energy(m, m.world_model.rollout(s, actions, configuration.goal), configuration)

    return objective


def trajectory_energy(m: Modules, imagined: Trajectory, configuration: Configuration) -> Tensor:
    """F = Σ γ^t Π(continue) u·IC(ι[t]) + γ^T Π(continue) v·TC(s[T]) of imagined trajectories, ``[B, S]``."""
    intrinsic = m.intrinsic_cost(imagined.interoception, configuration.u).sum(-1)
    terminal = m.critic(State(imagined.latent[:, :, -1]), configuration).sum(-1)
    return plan_energy(intrinsic, imagined.continuation, terminal, configuration.discount)
