"""The two perception–action episodes of the architecture (LeCun 2022, section 3.1, figures 3 and 4), and the gate.

Mode-1:  s[0] = Enc(x);  a[0] = A(s[0])
Mode-2:  s[0] = Enc(x);  s[t+1] = Pred(s[t], a[t]);  F(a) = Σ γ^t u·IC(ι[t]) + γ^T v·TC(s[T]);  ǎ = argmin_a F(a)
Gated:   s[0] = Enc(x);  Mode-2 where H[A(s)], Var_E Pred(s, A(s)), Std TC(s) or TC(s) − TC(ŝ) is above its threshold,
         else Mode-1; ŝ is the state that was expected of the last decision, Pred(s[−1], a[−1])
Mode-1 learns from both halves of Mode-2: min D(ǎ[0], A(s[0])) imitates its plans, min F(ã) with ã[t] = A(s[t]) makes
the actor's own course through the imagined world a good one; and it imitates what it remembers to have come out well
(`Learner.actor_update`). Where the configuration says so, a[0] and ǎ are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..modules.actor import Actor, CategoricalPolicy, Policy
from ..modules.configurator import Configurator
from ..modules.cost import IntrinsicCost, plan_energy
from ..modules.critic import Critic
from ..modules.perception import Perception
from ..modules.types import Configuration, Gate, State, Trajectory
from ..modules.world_model import WorldModel
from ..planners import ActionSpace, Budget, Distribution, Nodes, Plan, Planner, Proposal, Watch, drawn
from ..planners.actions import uniform

_AT_ONCE = 1 << 20
"""Numbers in the latents of what is imagined together: 4 MB."""


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
        sample: Draw from the policy instead of taking its mode, whatever the configuration says.

    Returns:
        Actions ``[B, ...]`` in the environment's units.
    """
    s = m.perception.encode(x, configuration)
    policy: Policy = m.actor(s, configuration)
    return policy.sample(generator) if sample or configuration.sample else policy.mode()


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
    plan = think(m, s, configuration, planner, action_space, start, generator)
    return drawn(plan, action_space, generator) if configuration.sample else plan


def think(
    m: Modules,
    s: State,
    configuration: Configuration,
    planner: Planner,
    action_space: ActionSpace,
    start: Distribution | None,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> Plan:
    """Mode-2 from a state ``[B, D]`` on: propose, simulate, evaluate, improve; ``watch`` is told of every iteration."""
    c = configuration
    budget = Budget(c.horizon, c.candidates, c.iterations, c.hold, c.milliseconds)
    proposal = Proposal(start, propose(m, s, configuration, generator) if configuration.proposals else None)
    energy = Energy(m, s, configuration)
    return planner.plan(energy, action_space, proposal, budget, s.latent.shape[0], generator, watch)


def propose(m: Modules, s: State, configuration: Configuration, generator: torch.Generator) -> Tensor:
    """The actor's own courses of action ``[B, P, T, ...]`` from states ``[B, D]``."""
    several = State(s.latent.unsqueeze(1).expand(-1, configuration.proposals, -1))
    return imagine(m, several, configuration, generator).action


class Gated(NamedTuple):
    """What the gate decided for B states, of which N are thought about.

    Attributes:
        action: What Mode-1 would do ``[B, ...]``.
        doubts: What the gate looked at ``[B, 4]``, in the order of `DOUBTS`; NaN where it did not look.
        thinks: Where it plans ``[B]``.
        plan: Of those N, or None without any.
        expected: v·TC of the states that this decision is expected to lead to ``[B]``; None where nobody asks.
    """

    action: Tensor
    doubts: Tensor
    thinks: Tensor
    plan: Plan | None
    expected: Tensor | None


def gated(
    m: Modules,
    x: Tensor,
    configuration: Configuration,
    planner: Planner,
    action_space: ActionSpace,
    start: Distribution,
    generator: torch.Generator,
    expected: Tensor,
    sample: bool = False,
) -> Gated:
    """React where nothing is in doubt, and think ahead where something is; only those states are planned for.

    Args:
        m: The modules.
        x: Percepts ``[B, history, *shape]``.
        configuration: From the configurator; sets the gate and all that Mode-2 needs.
        planner: The optimiser over action sequences.
        action_space: Of one environment.
        start: Where to begin the search ``[B, ...]``.
        generator: Draws candidates, and actions and plans where chance is asked for.
        expected: What the last decision of each was expected to lead to ``[B]`` (`Gated.expected`); NaN without one.
        sample: Where it reacts, draw from the policy instead of taking its mode, whatever the configuration says.
    """
    s = m.perception.encode(x, configuration)
    policy: Policy = m.actor(s, configuration)
    doubt = doubts(m, s, policy, configuration, expected)
    thinks = wants_plan(doubt, configuration.gate, generator)
    action = policy.sample(generator) if sample or configuration.sample else policy.mode()
    plan, expects = None, configuration.gate.surprise is not None
    foreseen = foresee(m, s, action.unsqueeze(1), configuration) if expects else None
    if thinks.any():
        goal = None if configuration.goal is None else configuration.goal[thinks]
        begin = type(start)(*(getattr(start, part.name)[thinks] for part in fields(start)))
        some = configuration.with_goal(goal)
        plan = think(m, State(s.latent[thinks]), some, planner, action_space, begin, generator)
        plan = drawn(plan, action_space, generator) if configuration.sample else plan
        if foreseen is not None:
            foreseen[thinks] = foresee(m, State(s.latent[thinks]), plan.actions[:, : configuration.commit], some)
    return Gated(action, doubt, thinks, plan, foreseen)


def foresee(m: Modules, s: State, actions: Tensor, configuration: Configuration) -> Tensor:
    """v·TC ``[B]`` of the states that actions ``[B, T, ...]`` are expected to lead to from states ``[B, D]``."""
    latent = m.world_model.rollout(s, actions.unsqueeze(1), configuration.goal).latent[:, 0, -1]
    return m.critic(State(latent), configuration).sum(-1)  # type: ignore[no-any-return]


def doubts(m: Modules, s: State, policy: Policy, configuration: Configuration, expected: Tensor) -> Tensor:
    """What the reactive agent is unsure about in states ``[B, D]``: ``[B, 4]`` in the order of `DOUBTS`.

    Entropy of the policy; variance over the ensemble's members of where its action leads; spread of the critic's
    belief; by how much it is worse than ``expected [B]`` of the last decision. What the gate has no threshold for is
    not computed and NaN, as is surprise where nothing was expected.

    Raises:
        ValueError: The gate asks for the variance of a world model that is no ensemble.
    """
    gate, unasked = configuration.gate, torch.full_like(s.latent[:, 0], math.nan)
    entropy = variance = spread = surprise = unasked
    if gate.entropy is not None:
        entropy = policy.entropy()
    if gate.variance is not None:
        if m.world_model.config.members < 2:
            raise ValueError("gate.variance is set and the world model is no ensemble; set world_model.members above 1")
        _, after = m.world_model.advance(m.world_model.begin(s.latent), policy.mode(), configuration.goal)
        variance = after.latent.var(-2, correction=0).mean(-1)
    if gate.spread is not None:
        spread = m.critic.spread(s, configuration)
    if gate.surprise is not None:
        surprise = m.critic(s, configuration).sum(-1) - expected
    return torch.stack([entropy, variance, spread, surprise], dim=-1)


def wants_plan(doubt: Tensor, gate: Gate, generator: torch.Generator) -> Tensor:
    """Where one of the doubts ``[B, 4]`` is above its threshold, or chance has it ``[B]``."""
    limits = [math.inf if threshold is None else threshold for threshold in gate.thresholds]
    above = (doubt > torch.tensor(limits, device=doubt.device)).any(-1)
    if gate.chance is None:
        return above
    return above | (torch.rand(len(doubt), generator=generator, device=doubt.device) < gate.chance)


class Imagined(NamedTuple):
    """What the actor did in imagination: actions ``[B, S, T, ...]``, where they led, its entropies ``[B, S, T]``."""

    action: Tensor
    trajectory: Trajectory
    entropy: Tensor


def imagine(m: Modules, s: State, configuration: Configuration, generator: torch.Generator) -> Imagined:
    """Mode-1 in imagination: ã[t] = A(s[t]), s[t+1] = Pred(s[t], ã[t]) (LeCun 2022, p. 12).

    Args:
        m: The modules.
        s: States ``[B, S, D]``.
        configuration: Says how many steps, its horizon T, and the goals ``[B, D]`` if any.
        generator: Draws the actions.
    """
    goal = None if configuration.goal is None else configuration.goal.unsqueeze(1)
    feel = configuration.feels
    carry = m.world_model.begin(s.latent)
    latents, actions, felt, goes_on, entropies = [s.latent], [], [], [], []
    for _ in range(configuration.horizon):
        policy: Policy = m.actor(State(latents[-1]), configuration)
        actions.append(policy.sample(generator))
        entropies.append(policy.entropy())
        carry, after = m.world_model.advance(carry, actions[-1], goal, feel)
        assert after.interoception is not None and after.continuation is not None
        latents.append(after.latent.mean(-2))  # an ensemble's mean: the actor sees one state
        felt.append(after.interoception.mean(-2))
        goes_on.append(after.continuation.mean(-1))
    imagined = Trajectory(torch.stack(latents, 2), torch.stack(felt, 2), torch.stack(goes_on, 2))
    return Imagined(torch.stack(actions, dim=2), imagined, torch.stack(entropies, dim=2))


@torch.no_grad()
def wander(m: Modules, s: State, steps: int, action_space: ActionSpace, generator: torch.Generator) -> State:
    """States ``[N, D]`` after 0 to ``steps`` random imagined steps from ``s [N, D]``; where an ending would have come
    sooner (a chance of a half), the last before it."""
    actions = uniform(action_space, len(s.latent), 1, steps, generator)
    imagined = m.world_model.rollout(s, actions)
    assert imagined.continuation is not None
    still = (imagined.continuation[:, 0].cumprod(-1) > 0.5).long().sum(-1)
    taken = torch.randint(steps + 1, still.shape, generator=generator, device=still.device).minimum(still)
    return State(imagined.latent[torch.arange(len(taken), device=taken.device), 0, taken])


@dataclass(frozen=True)
class Energy:
    """F as a function of action sequences ``[B, S, T, ...]`` → energies ``[B, S]``, from states ``[B, D]``.

    With an ensemble J = mean F + β·std F over its members, each along its own trajectory. With habit η the actor's
    surprise −η·log π(a[t] | s[t]) is a cost of each step: the objective of control as inference with the actor as prior
    (1805.00909), whose plans leave the habit only for a gain.

    Tree planners follow the same energy step by step. A node is what the roll-out to it carries, and the members'
    weights ``[B, N, E]``: the chance that it is this member that is right if the episode still goes on there. With them
    a sum of weighted costs is the mean of the members' sums.
    """

    m: Modules
    s: State
    configuration: Configuration

    @property
    def discount(self) -> float:
        """γ."""
        return self.configuration.discount

    def __call__(self, actions: Tensor) -> Tensor:
        """Energies ``[B, S]`` of action sequences ``[B, S, T, ...]``.

        On a CPU many environments are imagined a few at a time, so that what is between two layers stays in its caches.

        Raises:
            ValueError: The configuration weighs risk and the world model has no members that could disagree.
        """
        together = max(1, _AT_ONCE // (actions.shape[1] * self.s.latent.shape[-1]))
        if torch.is_grad_enabled() or self.s.latent.is_cuda or len(actions) <= together:
            return self._judge(actions)
        goal = self.configuration.goal
        parts = []
        for begin in range(0, len(actions), together):
            some = slice(begin, begin + together)
            configuration = self.configuration.with_goal(None if goal is None else goal[some])
            parts.append(replace(self, s=State(self.s.latent[some]), configuration=configuration)._judge(actions[some]))
        return torch.cat(parts)

    def _judge(self, actions: Tensor) -> Tensor:
        """The same of all environments at once."""
        imagined = self.m.world_model.rollout(self.s, actions, self.configuration.goal, self.configuration.feels)
        energy = self._energy(imagined)
        habit = self.configuration.habit
        return energy + habit * self._surprise(imagined, actions) if habit else energy

    def _energy(self, imagined: Trajectory) -> Tensor:
        """F, or J over the members of an ensemble, of imagined courses ``[B, S]``."""
        risk = self.configuration.risk
        if imagined.members is None:
            if risk:
                raise ValueError(f"risk is {risk} and the world model is no ensemble; set world_model.members above 1")
            return trajectory_energy(self.m, imagined, self.configuration)
        energies = trajectory_energy(self.m, imagined.members, self.configuration)  # [B, S, E]
        return energies.mean(-1) + risk * energies.std(-1, correction=0) if risk else energies.mean(-1)

    def _surprise(self, imagined: Trajectory, actions: Tensor) -> Tensor:
        """−log π of the actions ``[B, S, T, ...]`` of courses, added up as costs are, ``[B, S]``."""
        assert imagined.continuation is not None
        before = State(imagined.latent[..., :-1, :].flatten(1, 2))
        policy: Policy = self.m.actor(before, self.configuration)
        surprise = -policy.log_probability(actions.flatten(1, 2)).reshape(actions.shape[:3])
        return plan_energy(surprise, imagined.continuation, torch.zeros_like(surprise[..., 0]), self.discount)

    def root(self) -> Nodes:
        """The present state as the only node of each environment ``[B, 1, ...]``.

        Raises:
            ValueError: The configuration weighs risk, which is no sum over steps.
        """
        if self.configuration.risk:
            raise ValueError(
                f"risk is {self.configuration.risk}, and a spread of energies cannot be followed step by step; set "
                "it to 0 or choose a planner of whole sequences"
            )
        carry = self.m.world_model.begin(self.s.latent.unsqueeze(1))
        return (*carry, torch.full_like(carry[0][..., 0], 1 / carry[0].shape[-2]))

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        """Nodes, u·IC(ι) ``[B, N]`` and the chance to go on ``[B, N]`` after ``actions [B, N, ...]``."""
        *carry, weight = nodes
        goal = None if self.configuration.goal is None else self.configuration.goal.unsqueeze(1)
        carried, after = self.m.world_model.advance(tuple(carry), actions, goal, self.configuration.feels)
        assert after.interoception is not None and after.continuation is not None
        cost = self.m.intrinsic_cost(after.interoception, self.configuration.u).sum(-1)
        if self.configuration.habit:
            policy: Policy = self.m.actor(State(carry[0].mean(-2)), self.configuration)
            cost = cost - self.configuration.habit * policy.log_probability(actions).unsqueeze(-1)
        alive = weight * after.continuation
        go_on = alive.sum(-1)
        weight = alive / go_on.clamp(min=torch.finfo(alive.dtype).tiny).unsqueeze(-1)
        return (*carried, weight), (nodes[-1] * cost).sum(-1), go_on

    def leaf(self, nodes: Nodes) -> Tensor:
        """v·TC(s) of nodes ``[B, N]``."""
        values: Tensor = self.m.critic(State(nodes[0]), self.configuration)
        return (nodes[-1] * values.sum(-1)).sum(-1)

    def prior(self, nodes: Nodes) -> Tensor:
        """The actor's probabilities ``[B, N, A]`` of discrete actions (components of a MultiDiscrete in a row)."""
        policy = self.m.actor(State(nodes[0].mean(-2)), self.configuration)
        assert isinstance(policy, CategoricalPolicy)
        return policy.probabilities()


def trajectory_energy(m: Modules, imagined: Trajectory, configuration: Configuration) -> Tensor:
    """F = Σ γ^t Π(continue) u·IC(ι[t]) + γ^T Π(continue) v·TC(s[T]) of imagined trajectories, ``[B, S(, E)]``."""
    intrinsic = m.intrinsic_cost(imagined.interoception, configuration.u).sum(-1)
    terminal = m.critic(State(imagined.latent[..., -1, :]), configuration).sum(-1)
    return plan_energy(intrinsic, imagined.continuation, terminal, configuration.discount)
