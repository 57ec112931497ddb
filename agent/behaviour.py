"""How critic and actor learn: from what is remembered, in dreams, from plans.

The critic's update moves the critic's heads, the actor's update the actor; perception and world model are only asked.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..modules.cost import floored, interoception
from ..modules.critic import lambda_returns
from ..modules.memory import Window
from ..modules.regularisers import follow
from ..modules.types import DRIVES, SENSOR_DRIVES, Configuration, State, Trajectory, drive_weights
from .agent import Agent, plan_target
from .criterion import Metrics, masked_mean, perceive
from .descent import check_finite, descend, named
from .hindsight import (
    Ends,
    ShortPlans,
    Walks,
    expected_ends,
    imagine_courses,
    seeking_energy,
    short_plans,
    walks,
    window_ends,
)
from .modes import imagine, judge, propose, think, trajectory_energy, wander

_SERVED = ("pleasure", "ending", "effort", "hunger", "hazard")
"""Drives that a task may be made of."""


@dataclass(frozen=True)
class Dream:
    """The actor's own roll-outs in imagination: N of them, T steps long, towards goals in a goal task.

    Attributes:
        configuration: Under which the actor dreamt.
        goal: The goals ``[N/G, G, D]``, G for each state remembered; None in a reward task.
        action: ``[N, 1, T, ...]``.
        imagined: Where that led, differentiable in Box actions.
        entropy: Of the actor where it acted ``[N, T]``, differentiable in the actor where actions are continuous.
        energy: F from s[0] on ``[N]``, of the target critic.
        target: λ-returns of the unweighted intrinsic cost from s[0…T−1] on ``[N, T, K]``; None where the gradient of F
            is all that is wanted (goals and continuous actions).
        alive: Chance that the episode was still going on there ``[N, T]``.
    """

    configuration: Configuration
    goal: Tensor | None
    action: Tensor
    imagined: Trajectory
    entropy: Tensor
    energy: Tensor
    target: Tensor | None
    alive: Tensor

    @property
    def latent(self) -> Tensor:
        """Where each action was taken, s[0…T−1] ``[N, T, D]``."""
        return self.imagined.latent[:, 0, :-1].detach()


class BehaviourLearner:
    """The optimisers of critic and actor, and their updates.

    Args:
        agent: Whose critic and actor learn.
        generator: Of what is drawn in imagination.
    """

    def __init__(self, agent: Agent, generator: torch.Generator) -> None:
        self.agent, self.generator = agent, generator
        m, rate = agent.modules, agent.config.behaviour.learning_rate
        self.critic_optimiser = torch.optim.Adam(named("critic", m.critic), rate)
        self.actor_optimiser = torch.optim.Adam(named("actor", m.actor), rate)
        self.target_critic = deepcopy(m.critic)
        self.unit = torch.ones(len(DRIVES), device=agent.device)  # what is not measured in this world is not felt
        self.sensors = m.world_model.sensors
        self.unit[[DRIVES.index(drive) for name, drive in SENSOR_DRIVES.items() if name not in self.sensors]] = 0
        self.spread = 1.0  # of the returns in dreams

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name they are saved under."""
        return {"critic": self.critic_optimiser, "actor": self.actor_optimiser}

    def cool(self, done: float) -> None:
        """Set the learning rate of critic and actor for when a share ``done`` of the final updates is over."""
        behaviour = self.agent.config.behaviour
        left = behaviour.final_rate + (1 - behaviour.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
        for optimiser in self.optimisers().values():
            for group in optimiser.param_groups:
                group["lr"] = behaviour.learning_rate * left

    def dream(self, window: Window) -> Dream | None:
        """Let the actor act in imagination from remembered states; None where the settings do not want it."""
        m, config = self.agent.modules, self.agent.config
        if not config.behaviour.improvement:
            return None
        with torch.no_grad():
            if config.task.goals:
                ends = self._ends(window)
                state, goals = ends.state, ends.goal
            else:
                state, goals = State(perceive(m.perception, window)[:, :-1][window.valid > 0]), None
                if config.behaviour.wander:
                    state = wander(m, state, config.behaviour.wander, self.agent.spaces.action, self.generator)
        goal = None
        if goals is not None:  # every state with each of its goals
            state, goal = State(state.latent.repeat_interleave(goals.shape[1], 0)), State(goals.flatten(0, 1))
        configuration = replace(m.configurator("mode-1", goal, self.agent.device), horizon=config.behaviour.imagination)
        if config.behaviour.weights == "any":
            u = self.any_weights()
            configuration = replace(configuration, u=u, v=u)
        with torch.set_grad_enabled(not m.world_model.actions.discrete):
            action, imagined, entropy = imagine(m, State(state.latent.unsqueeze(1)), configuration, self.generator)
        with torch.no_grad():
            target = None
            if goal is not None and not m.world_model.actions.discrete:
                energy = seeking_energy(m, self.target_critic, imagined, configuration)[:, 0]
            else:
                target = self._returns(imagined, configuration)[:, 0]
                energy = (floored(configuration.v) * target[:, 0]).sum(-1)
            go = imagined.continuation[:, 0, :-1]
            alive = torch.cat([torch.ones_like(go[:, :1]), go], dim=-1).cumprod(-1)
        return Dream(configuration, goals, action, imagined, entropy[:, 0], energy, target, alive)

    def any_weights(self) -> Tensor:
        """Drive weights ``[K]`` of a task that could be: some of the drives that the world serves, in any shares."""
        served = [name for name, there in zip(DRIVES, self.unit.tolist(), strict=True) if name in _SERVED and there]
        if self.agent.modules.world_model.actions.discrete:
            served.remove("effort")
        draws = torch.rand(2, len(served), generator=self.generator, device=self.agent.device)
        chosen = draws[0] < 0.5
        chosen[int(draws[0].argmin())] = True
        shares = torch.where(chosen, -draws[1].clamp(min=1e-6).log(), 0.0)
        return drive_weights(self.agent.device, **dict(zip(served, (shares / shares.sum()).tolist(), strict=True)))

    def short_plans(self, window: Window, dream: Dream | None = None) -> ShortPlans | None:
        """Short plans from remembered states, those of the dream if there is one; None in a reward task.

        What the actor does in the dream is one more course. Without a dream, each state is also read as it had been
        expected.
        """
        m, config = self.agent.modules, self.agent.config
        if not config.task.goals:
            return None
        with torch.no_grad():
            if dream is None or dream.goal is None:
                ends = self._ends(window)
                state, goal, expected = ends.state, ends.goal, expected_ends(m, window, ends)
            else:
                state, goal, expected = State(dream.latent[:: dream.goal.shape[1], 0]), dream.goal, None
        behaviour, space = config.behaviour, self.agent.spaces.action
        courses = imagine_courses(m, state, behaviour.steps, behaviour.courses, space, self.generator, expected)
        plans = short_plans(m, self.target_critic, courses, m.configurator("mode-2", State(goal), self.agent.device))
        if dream is None:
            return plans
        return replace(plans, energy=plans.energy.minimum(dream.energy.reshape(plans.energy.shape)))

    def _ends(self, window: Window, count: int | None = None) -> Ends:
        goals = self.agent.config.behaviour.hindsight
        return window_ends(self.agent.modules.perception, window, goals, self.generator, count)

    def walks(self, window: Window) -> Walks:
        """What the remembered walks of a goal task really cost, and the target critic expects after them."""
        m, behaviour = self.agent.modules, self.agent.config.behaviour
        anywhere = State(window.known.new_zeros(1, 1, m.perception.width))  # the goals are the walks' own
        configuration = m.configurator("mode-2", anywhere, self.agent.device)
        return walks(m, self.target_critic, window, behaviour.hindsight, configuration, self.generator)

    def critic_update(
        self,
        window: Window,
        dream: Dream | None = None,
        plans: ShortPlans | None = None,
        walked: Walks | None = None,
    ) -> Metrics:
        """One step of the critic: towards λ-returns, or in a goal task towards what short plans find and walks cost."""
        critic, config = self.agent.modules.critic, self.agent.config
        plans = self.short_plans(window, dream) if plans is None else plans
        loss, metrics = self._critic_loss(window, dream) if plans is None else self._goal_critic_loss(plans)
        if walked is not None and len(walked.energy):
            real = self._walk_loss(walked)
            loss, metrics["walks"] = loss + config.behaviour.walks * real, float(real.detach())
        check_finite("critic loss", loss, metrics)
        descend(self.critic_optimiser, loss)
        follow(self.target_critic, critic, config.critic.target_rate)
        return metrics

    def _critic_loss(self, window: Window, dream: Dream | None) -> tuple[Tensor, Metrics]:
        """Cross-entropy to λ-returns, on remembered states and on those imagined: along the actor's dream if there is
        one, else along remembered plans."""
        m, config = self.agent.modules, self.agent.config
        with torch.no_grad():
            latent = perceive(m.perception, window)
            real_target, real_mask = self._real_returns(latent, window)
            if dream is None:
                imagined = self._along_plans(latent[:, 0], window)
            else:
                assert dream.target is not None
                imagined = dream.latent, dream.target, dream.alive
        heads = m.critic.heads
        real_target = real_target[..., :heads]
        real = m.critic.two_hot.loss(m.critic.logits(latent[:, :-1]), real_target).sum(-1)
        dreamt = m.critic.two_hot.loss(m.critic.logits(imagined[0]), imagined[1][..., :heads]).sum(-1)
        behaviour = config.behaviour
        loss = behaviour.real * masked_mean(real, real_mask) + behaviour.imagined * masked_mean(dreamt, imagined[2])
        return loss, {"critic": float(loss.detach()), "cost_to_go": float(real_target.sum(-1).mean())}

    def _goal_critic_loss(self, plans: ShortPlans) -> tuple[Tensor, Metrics]:
        """Cross-entropy of TC(s, goal) to the energy of the best of a few short imagined courses.

        The courses end in the target critic, so each update carries the cost-to-go a few steps further from the goal:
        fitted value iteration in the world model.
        """
        critic = self.agent.modules.critic
        logits = critic.logits(plans.state.latent, plans.goal)[..., DRIVES.index("goal"), :]  # [N, G, V, bins]
        loss = critic.two_hot.loss(logits, plans.energy.unsqueeze(-1).expand(logits.shape[:-1]))
        loss = (self._goal_weights(loss.shape[1]).unsqueeze(-1) * loss).mean()
        return loss, {"critic": float(loss.detach()), "cost_to_go": float(plans.energy.mean())}

    def _goal_weights(self, count: int) -> Tensor:
        """Of G goals ``[G]``, 1 on average: the one that was asked for counts as much as all that were seen."""
        weights = torch.ones(count, device=self.agent.device)
        if self.agent.config.behaviour.goals == "episode" and count > 1:
            weights *= count / 2 / (count - 1)
            weights[0] = count / 2
        return weights

    def _walk_loss(self, walked: Walks) -> Tensor:
        """Cross-entropy of TC(s, goal) to what walks cost, the cheaper ones weighted by an expectile (2110.06169)."""
        critic, share = self.agent.modules.critic, self.agent.config.behaviour.expectile
        logits = critic.logits(walked.state.latent.unsqueeze(1), walked.goal)[:, :, 0, DRIVES.index("goal")]
        cheaper = walked.energy < critic.two_hot.mean(logits.detach())
        weight = torch.where(cheaper, share, 1 - share) * self._goal_weights(cheaper.shape[1])
        return masked_mean(critic.two_hot.loss(logits, walked.energy), weight)

    def _real_returns(self, latent: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """λ-returns ``[B, T, K]`` of the unweighted intrinsic cost along remembered transitions, and their mask."""
        m, config = self.agent.modules, self.agent.config
        discount = config.task.discount
        values = self.target_critic.cost_to_go(latent) / discount  # TC discounts the next cost already, as F does
        effort = m.world_model.actions.effort(m.world_model.actions(window.action))
        sensors = () if window.sensors is None else window.sensors.unbind(-1)
        measured = dict(zip(self.sensors, sensors, strict=True))
        iota = interoception(window.reward, window.terminated, effort, **measured)
        costs = m.intrinsic_cost(iota, self.unit)
        # Where a time limit cut the episode off, the next state is unknown: the return of the state before it is its
        # own value, and it is not trained on.
        cut = window.truncated.unsqueeze(-1)
        costs = torch.where(cut > 0, values[:, :-1], costs)
        goes_on = (1 - window.terminated) * (1 - window.truncated)
        target = discount * lambda_returns(costs, goes_on, values[:, 1:], discount, config.critic.trace)
        return target, 1 - window.truncated

    def _along_plans(self, latent: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """Imagined states ``[B, H, D]`` along the remembered plans, their λ-returns ``[B, H, K]`` and the mask."""
        world_model, course = self.agent.modules.world_model, window.course.unsqueeze(1)
        chance = world_model.chance(len(latent), 1, course.shape[2], self.generator)
        imagined = world_model.rollout(State(latent), course, chance=chance)
        target = self._returns(imagined, self.agent.modules.configurator("mode-2"))[:, 0]
        return imagined.latent[:, 0, :-1], target, window.planned[:, :1].expand_as(target[..., 0])

    def _returns(self, imagined: Trajectory, configuration: Configuration) -> Tensor:
        """λ-returns ``[B, S, T, K]`` of the unweighted intrinsic cost from imagined s[0…T−1] on."""
        m, config = self.agent.modules, self.agent.config
        discount, iota, latent = config.task.discount, imagined.interoception, imagined.latent[:, :, 1:]
        costs = m.intrinsic_cost(iota, self.unit)
        values = self.target_critic.cost_to_go(latent, configuration.goal) / discount
        return discount * lambda_returns(costs, imagined.continuation, values, discount, config.critic.trace)

    def actor_update(self, window: Window, dream: Dream | None = None, plans: ShortPlans | None = None) -> Metrics:
        """One step of the actor: imitate plans, min D(ǎ[0], A(s[0])) (LeCun 2022, p. 12), and what it remembers to have
        come out well, and improve in its dream."""
        config = self.agent.config.behaviour
        parts: list[tuple[str, float, Tensor]] = []
        if config.imitation and (plans is None or self.agent.config.schedule.reanalyse):
            parts = self._imitation(window)
        elif config.imitation and plans is not None:
            parts = self._short_imitation(plans)
        if config.remembered:
            parts += self._self_imitation(window)
        if dream is not None:
            parts += self._improvement(dream)
        return self._step_actor(parts)

    def imitate(self, state: State, goal: State | None, target: Tensor) -> Metrics:
        """One step of the actor towards given plans: their targets ``[N, P]`` in states and goals ``[N, D]``."""
        return self._step_actor(self._towards(state, goal, target, 1.0))

    def _step_actor(self, parts: list[tuple[str, float, Tensor]]) -> Metrics:
        """Descend on weighted parts of the actor's loss; without any, nothing happens."""
        if not parts:
            return {}
        loss = torch.stack([weight * value for _, weight, value in parts]).sum()
        metrics = {name: float(value.detach()) for name, _, value in parts}
        check_finite("actor loss", loss, metrics)
        descend(self.actor_optimiser, loss)
        return metrics

    def _imitation(self, window: Window) -> list[tuple[str, float, Tensor]]:
        """Cross-entropy to the plans remembered in the window and to some made anew, and the entropy."""
        m, config = self.agent.modules, self.agent.config
        with torch.no_grad():
            state, goal, target, course = self._fresh_plans(window)
            if not config.task.goals:
                # with `advantage` only the first plan of a window, whose whole course is known
                steps = 1 if config.behaviour.advantage else window.planned.shape[1]
                planned = window.planned[:, :steps].flatten() > 0
                remembered = perceive(m.perception, window)[:, :steps].flatten(0, 1)[planned]
                state = State(torch.cat([remembered, state.latent]))
                target = torch.cat([window.plan[:, :steps].flatten(0, 1)[planned], target])
                if config.behaviour.advantage:
                    course = torch.cat([window.course[planned], course])
            if not len(target):
                return []
            weight = self._advantage(state, goal, course) if config.behaviour.advantage else 1.0
        return self._towards(state, goal, target, weight)

    def _towards(
        self, state: State, goal: State | None, target: Tensor, weight: Tensor | float
    ) -> list[tuple[str, float, Tensor]]:
        """Weighted cross-entropy of the actor to targets of plans, and its entropy."""
        m, behaviour = self.agent.modules, self.agent.config.behaviour
        with torch.no_grad():
            configuration = m.configurator("mode-1", goal, self.agent.device)
        policy = m.actor(state, configuration)
        return [
            ("imitation", behaviour.imitation, (weight * policy.imitation_loss(target)).mean()),
            ("actor_entropy", -behaviour.entropy, policy.entropy().mean()),
        ]

    def _advantage(self, state: State, goal: State | None, course: Tensor) -> Tensor:
        """Weights ``[N]`` of plans with courses ``[N, H, ...]``: F of the actor's own course minus F of the plan's.

        Both are imagined by the present model, so that a plan of an older one counts for what it is worth now.
        """
        m = self.agent.modules
        configuration = replace(m.configurator("mode-2", goal, self.agent.device), proposals=1)
        own = propose(m, state, configuration, self.generator)
        energy = judge(m, state, configuration, self.generator)(torch.cat([own, course.unsqueeze(1).to(own.dtype)], 1))
        return _relative(energy[:, 0] - energy[:, 1])

    def _short_imitation(self, plans: ShortPlans) -> list[tuple[str, float, Tensor]]:
        """Imitation of short plans, the more the better they are than others, and the entropy."""
        weight = (self._goal_weights(plans.gain.shape[1]) * _relative(plans.gain)).unsqueeze(2)  # for all views alike
        return self._towards(plans.state, State(plans.goal), plans.target.unsqueeze(2), weight)

    def _self_imitation(self, window: Window) -> list[tuple[str, float, Tensor]]:
        """−log π of remembered actions, weighted by how much less the λ-return from there cost than the critic expects
        of the present policy (Oh et al. 2018, 1806.05635), and the entropy."""
        m, behaviour = self.agent.modules, self.agent.config.behaviour
        configuration = m.configurator("mode-1", None, self.agent.device)
        with torch.no_grad():
            latent = perceive(m.perception, window)
            target, mask = self._real_returns(latent, window)
            state = State(latent[:, :-1])
            gain = m.critic(state, configuration).sum(-1) - (floored(configuration.v) * target).sum(-1)
        policy = m.actor(state, configuration)
        weight = gain.clamp(min=0) / max(self.spread, 1.0)
        return [
            ("remembered", behaviour.remembered, masked_mean(-weight * policy.log_probability(window.action), mask)),
            ("actor_entropy", -behaviour.remembered * behaviour.entropy, masked_mean(policy.entropy(), mask)),
        ]

    def _improvement(self, dream: Dream) -> list[tuple[str, float, Tensor]]:
        """Less energy in the dream: down the gradient of F through world model and cost where actions are continuous
        (LeCun 2022, p. 12), by the policy gradient with the critic as baseline where they are discrete.

        Energies are divided by their spread, but not below 1, so that the entropy bonus means the same everywhere
        (DreamerV3, 2301.04104).
        """
        m, behaviour = self.agent.modules, self.agent.config.behaviour
        if m.world_model.actions.discrete:
            assert dream.target is not None
            policy = m.actor(State(dream.latent), dream.configuration)
            with torch.no_grad():
                energy = (floored(dream.configuration.v) * dream.target).sum(-1)
                expected = m.critic(State(dream.latent), dream.configuration).sum(-1)
            chosen = policy.log_probability(dream.action[:, 0])
            loss = masked_mean((energy - expected) * chosen, dream.alive)
            entropy = masked_mean(policy.entropy(), dream.alive)
        else:
            energy = trajectory_energy(m, dream.imagined, dream.configuration)
            loss = energy.mean()
            entropy = masked_mean(dream.entropy, dream.alive)
        low, high = torch.quantile(energy.detach(), torch.tensor([0.05, 0.95], device=energy.device))
        self.spread += 0.01 * (float(high - low) - self.spread)
        return [
            ("improvement", behaviour.improvement / max(self.spread, 1.0), loss),
            ("dream_entropy", -behaviour.improvement * behaviour.dream_entropy, entropy),
        ]

    def _fresh_plans(self, window: Window) -> tuple[State, State | None, Tensor, Tensor]:
        """States, goals (None in reward tasks), targets and courses of as many plans as `Schedule.reanalyse` says."""
        m, config = self.agent.modules, self.agent.config
        count = config.schedule.reanalyse
        goal: State | None = None
        if config.task.goals:
            ends = self._ends(window, count)
            state, goal = ends.state, State(ends.goal[:, 0])
        else:
            state = State(perceive(m.perception, window)[:count, 0])
        if not count:
            return state, goal, window.plan.new_zeros(0, window.plan.shape[-1]), window.course[:0]
        configuration = replace(m.configurator("mode-2", goal, self.agent.device), proposals=0)
        if config.schedule.reanalyse_candidates:
            configuration = replace(configuration, candidates=config.schedule.reanalyse_candidates)
        plan = think(m, state, configuration, self.agent.planner, self.agent.spaces.action, None, self.generator)
        return state, goal, plan_target(plan), plan.actions


def _relative(gain: Tensor) -> Tensor:
    """Weights of gains: 0 for a loss, 1 for the mean gain, at most 4."""
    gain = gain.clamp(min=0)
    return (gain / gain.mean().clamp(min=1e-6)).clamp(max=4.0)
