"""The two perception–action episodes of the architecture (LeCun 2022, section 3.1, figures 3 and 4), and the gate.

Mode-1:  s[0] = Enc(x);  a[0] = A(s[0])
Mode-2:  s[0] = Enc(x);  s[t+1] = Pred(s[t], a[t]);  F(a) = Σ γ^t u·IC(ι[t]) + γ^T v·TC(s[T]);  ǎ = argmin_a F(a)
         With a latent variable s[t+1] = Pred(s[t], a[t], z[t]), z ~ P(z | s, a), and over M futures
         J = mean F + β·std F, or, against an adversary, J = max F
Gated:   s[0] = Enc(x);  Mode-2 where H[A(s)], Var_E Pred(s, A(s)), Std TC(s) or TC(s) − TC(ŝ) is above its threshold,
         else Mode-1; ŝ is the state that was expected of the last decision, Pred(s[−1], a[−1])
Mode-1 learns from both halves of Mode-2: min D(ǎ[0], A(s[0])) imitates its plans, min F(ã) with ã[t] = A(s[t]) makes
the actor's own course through the imagined world a good one; and it imitates what it remembers to have come out well
(`BehaviourLearner.actor_update`). Where the configuration says so, a[0] and ǎ are drawn.
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
from ..modules.types import Configuration, Gate, State, Trajectory, by_future
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
    energy = judge(m, s, configuration, generator)
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
    foreseen = foresee(m, s, action.unsqueeze(1), configuration, generator) if expects else None
    if thinks.any():
        goal = None if configuration.goal is None else configuration.goal[thinks]
        begin = type(start)(*(getattr(start, part.name)[thinks] for part in fields(start)))
        some = configuration.with_goal(goal)
        plan = think(m, State(s.latent[thinks]), some, planner, action_space, begin, generator)
        plan = drawn(plan, action_space, generator) if configuration.sample else plan
        if foreseen is not None:
            first = plan.actions[:, : configuration.commit]
            foreseen[thinks] = foresee(m, State(s.latent[thinks]), first, some, generator)
    return Gated(action, doubt, thinks, plan, foreseen)


def foresee(m: Modules, s: State, actions: Tensor, configuration: Configuration, generator: torch.Generator) -> Tensor:
    """v·TC ``[B]`` of the states that actions ``[B, T, ...]`` are expected to lead to from states ``[B, D]``; the mean
    over futures."""
    chance = m.world_model.chance(len(s.latent), configuration.futures, actions.shape[1], generator)
    imagined = m.world_model.rollout(s, actions.unsqueeze(1), configuration.goal, chance=chance)
    return m.critic(State(imagined.each.latent[:, 0, :, -1]), configuration).sum(-1).mean(-1)  # type: ignore[no-any-return]


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
    """Mode-1 in imagination: ã[t] = A(s[t]), s[t+1] = Pred(s[t], ã[t], z[t]) (LeCun 2022, p. 12), z ~ P(z | s, ã).

    Args:
        m: The modules.
        s: States ``[B, S, D]``.
        configuration: Says how many steps, its horizon T, and the goals ``[B, D]`` if any.
        generator: Draws the actions and z.
    """
    goal = None if configuration.goal is None else configuration.goal.unsqueeze(1)
    chance = m.world_model.chance(len(s.latent), s.latent.shape[1], configuration.horizon, generator)  # [B, S, T]
    feel = configuration.feels
    carry = m.world_model.begin(s.latent)
    latents, actions, felt, goes_on, entropies = [s.latent], [], [], [], []
    for t in range(configuration.horizon):
        policy: Policy = m.actor(State(latents[-1]), configuration)
        actions.append(policy.sample(generator))
        entropies.append(policy.entropy())
        drawn_by = None if chance is None else chance[..., t]
        carry, after = m.world_model.advance(carry, actions[-1], goal, feel, drawn_by)
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
    imagined = m.world_model.rollout(s, actions, chance=m.world_model.chance(len(s.latent), 1, steps, generator))
    assert imagined.continuation is not None
    still = (imagined.continuation[:, 0].cumprod(-1) > 0.5).long().sum(-1)
    taken = torch.randint(steps + 1, still.shape, generator=generator, device=still.device).minimum(still)
    return State(imagined.latent[torch.arange(len(taken), device=taken.device), 0, taken])


def judge(m: Modules, s: State, configuration: Configuration, generator: torch.Generator) -> Energy:
    """The energy that plans from states ``[B, D]`` are judged by, with futures drawn for it where there is chance."""
    c = configuration
    return Energy(m, s, c, m.world_model.chance(len(s.latent), c.futures, c.horizon, generator))


@dataclass(frozen=True)
class Energy:
    """F as a function of action sequences ``[B, S, T, ...]`` → energies ``[B, S]``, from states ``[B, D]``.

    With an ensemble, or with futures that differ in their latent variables, J = mean F + β·std F over them, each along
    its own trajectory; against an adversary the worst future counts. ``chance [B, M, T]`` draws z, the same for every
    course, so that they are compared in the same futures; None: the likeliest future. With habit η the actor's
    surprise −η·log π(a[t] | s[t]) is a cost of each step: the objective of control as inference with the actor as prior
    (1805.00909), whose plans leave the habit only for a gain.

    Tree planners follow the same energy step by step. A node is what the roll-out to it carries, the weights
    ``[B, N, M, E]`` of futures and members: the chance that it is this one that is right if the episode still goes on
    there, and how many steps it is away ``[B, N]``. With them a sum of weighted costs is the mean of the members' sums.
    """

    m: Modules
    s: State
    configuration: Configuration
    chance: Tensor | None = None

    @property
    def discount(self) -> float:
        """γ."""
        return self.configuration.discount

    def __call__(self, actions: Tensor) -> Tensor:
        """Energies ``[B, S]`` of action sequences ``[B, S, T, ...]``.

        On a CPU many environments are imagined a few at a time, so that what is between two layers stays in its caches.

        Raises:
            ValueError: The configuration weighs risk or knows an adversary, and there is nothing to disagree or choose.
        """
        futures = 1 if self.chance is None else self.chance.shape[1]
        together = max(1, _AT_ONCE // (futures * actions.shape[1] * self.s.latent.shape[-1]))
        if torch.is_grad_enabled() or self.s.latent.is_cuda or len(actions) <= together:
            return self._judge(actions)
        goal = self.configuration.goal
        parts = []
        for begin in range(0, len(actions), together):
            some = slice(begin, begin + together)
            configuration = self.configuration.with_goal(None if goal is None else goal[some])
            chance = None if self.chance is None else self.chance[some]
            part = replace(self, s=State(self.s.latent[some]), configuration=configuration, chance=chance)
            parts.append(part._judge(actions[some]))
        return torch.cat(parts)

    def _judge(self, actions: Tensor) -> Tensor:
        """The same of all environments at once."""
        chance = None if self.chance is None else self.chance[..., : actions.shape[2]]
        c = self.configuration
        imagined = self.m.world_model.rollout(self.s, actions, c.goal, c.feels, chance)
        energy = self._energy(imagined)
        return energy + c.habit * self._surprise(imagined, actions) if c.habit else energy

    def _energy(self, imagined: Trajectory) -> Tensor:
        """F, or J over futures and the members of an ensemble, of imagined courses ``[B, S]``."""
        risk = self.configuration.risk
        if self.configuration.adversary and self.chance is None:
            raise ValueError("an adversary is said to choose z and the world model has none; set world_model.codes")
        if imagined.members is None:
            if risk and self.chance is None:
                raise ValueError(
                    f"risk is {risk}, and the world model is no ensemble and has no latent variable; set "
                    "world_model.members or world_model.codes above 1"
                )
            return trajectory_energy(self.m, imagined, self.configuration)
        energies = trajectory_energy(self.m, imagined.members, self.configuration)  # [B, S, M·E]
        if self.configuration.adversary:
            return by_future(energies, imagined.futures).mean(-1).amax(-1)
        return energies.mean(-1) + risk * energies.std(-1, correction=0) if risk else energies.mean(-1)

    def _surprise(self, imagined: Trajectory, actions: Tensor) -> Tensor:
        """−log π of the actions ``[B, S, T, ...]`` of courses, added up as costs are, in the mean over futures
        ``[B, S]``."""
        each = imagined.each
        before = each.latent[..., :-1, :]  # [B, S, M, T, D]
        done = actions.unsqueeze(2).expand(*before.shape[:4], *actions.shape[3:])
        policy: Policy = self.m.actor(State(before.flatten(1, 3)), self.configuration)
        surprise = -policy.log_probability(done.flatten(1, 3)).reshape(before.shape[:4])
        return plan_energy(surprise, each.continuation, torch.zeros_like(surprise[..., 0]), self.discount).mean(-1)

    def root(self) -> Nodes:
        """The present state as the only node of each environment ``[B, 1, ...]``.

        Raises:
            ValueError: The configuration weighs risk or knows an adversary, neither of which is a sum over steps.
        """
        for what in ("risk", "adversary"):
            if value := getattr(self.configuration, what):
                raise ValueError(
                    f"{what} is {value}, and a spread or a maximum of energies cannot be followed step by step; switch "
                    "it off or choose a planner of whole sequences"
                )
        futures = 1 if self.chance is None else self.chance.shape[1]
        carry = self.m.world_model.begin(self.s.latent[:, None, None].expand(-1, 1, futures, -1))
        members = carry[0].shape[2] * carry[0].shape[3]
        weight = torch.full_like(carry[0][..., 0], 1 / members)
        return (*carry, weight, torch.zeros_like(weight[..., 0, 0], dtype=torch.int64))

    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        """Nodes, u·IC(ι) ``[B, N]`` and the chance to go on ``[B, N]`` after ``actions [B, N, ...]``."""
        *carry, weight, depth = nodes
        goal = None if self.configuration.goal is None else self.configuration.goal[:, None, None]
        chance = None
        if self.chance is not None:
            there = depth.clamp(max=self.chance.shape[2] - 1).unsqueeze(1).expand(-1, self.chance.shape[1], -1)
            chance = self.chance.gather(2, there).transpose(1, 2)  # [B, N, M]
        carried, after = self.m.world_model.advance(
            tuple(carry), actions.unsqueeze(2), goal, self.configuration.feels, chance
        )
        assert after.interoception is not None and after.continuation is not None
        cost = self.m.intrinsic_cost(after.interoception, self.configuration.u).sum(-1)
        if self.configuration.habit:
            policy: Policy = self.m.actor(State(carry[0].mean(-2)), self.configuration)
            done = actions.unsqueeze(2).expand(*cost.shape[:3], *actions.shape[2:])
            cost = cost - self.configuration.habit * policy.log_probability(done).unsqueeze(-1)
        alive = weight * after.continuation
        go_on = alive.sum((-2, -1))
        weight = alive / go_on.clamp(min=torch.finfo(alive.dtype).tiny)[..., None, None]
        return (*carried, weight, depth + 1), (nodes[-2] * cost).sum((-2, -1)), go_on

    def leaf(self, nodes: Nodes) -> Tensor:
        """v·TC(s) of nodes ``[B, N]``."""
        values: Tensor = self.m.critic(State(nodes[0]), self.configuration)
        return (nodes[-2] * values.sum(-1)).sum((-2, -1))

    def prior(self, nodes: Nodes) -> Tensor:
        """The actor's probabilities ``[B, N, A]`` of discrete actions (components of a MultiDiscrete in a row)."""
        policy = self.m.actor(State(nodes[0].mean(-2).flatten(1, 2)), self.configuration)
        assert isinstance(policy, CategoricalPolicy)
        weight = nodes[-2].sum(-1, keepdim=True)  # [B, N, M, 1]
        return (weight * policy.probabilities().reshape(*weight.shape[:3], -1)).sum(2)


def trajectory_energy(m: Modules, imagined: Trajectory, configuration: Configuration) -> Tensor:
    """F = Σ γ^t Π(continue) u·IC(ι[t]) + γ^T Π(continue) v·TC(s[T]) of imagined trajectories, ``[B, S(, E)]``."""
    intrinsic = m.intrinsic_cost(imagined.interoception, configuration.u).sum(-1)
    terminal = m.critic(State(imagined.latent[..., -1, :]), configuration).sum(-1)
    return plan_energy(intrinsic, imagined.continuation, terminal, configuration.discount)
