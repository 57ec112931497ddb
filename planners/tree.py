"""Tree search with the actor as prior and the critic at the leaves: pUCT over imagined states (LeCun 2022, pp. 11, 37).

Every simulation walks from the root to the tree's edge, choosing at each node the action of largest

    Q̄(s, a) + P(s, a) · √N(s) / (1 + N(s, a)) · (c1 + log((1 + c2 + N(s)) / c2)),

imagines one more node there, and carries its cost-to-go back to the root: Silver et al. 2017 (AlphaZero,
arXiv:1712.01815) on a learned model as in Schrittwieser et al. 2020 (MuZero, arXiv:1911.08265, appendix B, eq. 2-5).
Q̄ turns energies (low is good) round: 1 is the lowest and 0 the highest found so far in the tree. Two things differ from
MuZero: an action not yet tried has the value of its node, not the worst one, and an action that ends at the horizon is
evaluated again each time that it is chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .actions import repeat
from .checks import check_calls, check_number, stepwise
from .search import Search
from .stepwise import advance
from .types import ActionSpace, Budget, Categorical, Nodes, Objective, Plan, Proposal, StepwiseObjective, Watch

VISITS, TOTAL, PRIOR = range(3)
"""What is kept of every action of every node."""


@dataclass(frozen=True)
class TreeSearch:
    """pUCT over the sequences of a Discrete space, or of a MultiDiscrete with few joint actions.

    All environments grow their trees side by side: a simulation is one batched call of the objective per held step, so
    the budget's calls, less those for the final evaluation, are the simulations (times ``hold``). Nothing is drawn.

    The plan is the course of least energy of these: the most visited one, carried on to the horizon as the prior would;
    the best that a simulation followed to the horizon; and those proposed. Its distribution says how often each action
    of the most visited course was tried, at first the actions of the root. The baseline is the energy that the first
    simulation found.

    Attributes:
        prior: "actor" asks `StepwiseObjective.prior`; "uniform" does without an actor.
        exploration: Share of uniform mixed into every prior, so that every action can be tried.
        warm: Share of the first step of a proposed distribution in the root's prior.
        c1: How much the prior counts.
        c2: After about how many visits of a node it counts more.
    """

    prior: Literal["actor", "uniform"] = "actor"
    exploration: float = 0.05
    warm: float = 0.5
    c1: float = 1.25
    c2: float = 19_652.0

    def __post_init__(self) -> None:
        if self.prior not in ("actor", "uniform"):
            raise ValueError(f"prior={self.prior!r}, expected 'actor' or 'uniform'")
        check_number("exploration", self.exploration, 0, 1)
        check_number("warm", self.warm, 0, 1)
        check_number("c1", self.c1, 0, math.inf, exclusive=True)
        check_number("c2", self.c2, 1e-9, math.inf, exclusive=True)

    @torch.no_grad()
    def plan(
        self,
        objective: Objective,
        action_space: ActionSpace,
        proposal: Proposal,
        budget: Budget,
        batch: int,
        generator: torch.Generator,
        watch: Watch | None = None,
    ) -> Plan:
        """Look for the sequence of least energy for each of ``batch`` environments.

        Raises:
            ValueError: The objective cannot be followed step by step or has no prior, there are too many joint actions,
                or the budget does not pay for one simulation.
            FloatingPointError: A cost, a value or a prior is not a finite number.
        """
        search = Search("tree", 1, objective, action_space, proposal, budget, batch, generator, watch)
        asked = ("prior",) if self.prior == "actor" else ()
        followed = stepwise(search.planner, objective, "discount", "root", "step", "leaf", *asked)
        ways = search.joint_actions()
        proposed = 0 if search.proposals is None else search.proposals.shape[1]
        reserved = (1 + proposed) * budget.horizon
        needed = f"{budget.hold} for a simulation and {reserved} to evaluate the plan and {proposed} proposed sequences"
        check_calls(search.planner, reserved + budget.hold, budget.calls, needed)
        simulations = (budget.calls - reserved) // budget.hold
        tree = Tree(self, search, followed, ways, simulations)
        for _ in search.rounds(simulations):
            tree.simulate()
        course, energy, shares = tree.follow()
        courses, energies = [course, tree.course], [energy, tree.energy]
        if search.proposals is not None:
            courses.append(search.proposals)
            energies.append(search.ask(search.proposals))
        search.select(torch.cat(courses, 1), torch.cat(energies, 1))
        return search.plan(Categorical(tree.marginal(shares)))


class Tree:
    """The trees of B environments, their statistics in tensors with a row for each node.

    Environment b has the rows from b·M on for its M nodes, the root first; M is one more than the simulations.

    Args:
        options: Of the planner.
        search: The decision.
        objective: What is followed.
        ways: Joint actions ``[J, A]``.
        simulations: How many there will be at most.
    """

    def __init__(
        self, options: TreeSearch, search: Search, objective: StepwiseObjective, ways: Tensor, simulations: int
    ) -> None:
        self.options, self.search, self.objective, self.ways = options, search, objective, ways
        self.places = ways + search.components.offsets  # of each joint action in a vector of N probabilities
        rows, device = search.batch * (simulations + 1), ways.device
        self.roots = torch.arange(search.batch, device=device) * (simulations + 1)
        self.size = 1
        self.children = torch.full((rows, len(ways)), -1, device=device)  # row of what an action led to, or -1
        self.edges = torch.zeros(rows, 3, len(ways), device=device)  # N(s, a), N(s, a) Q(s, a) as energies, P(s, a)
        self.values = torch.zeros(rows, device=device)  # cost-to-go that the critic expects
        self.costs = torch.zeros(rows, device=device)  # felt on the way to a node
        self.shares = torch.zeros(rows, device=device)  # what an energy from a node on counts in the one before
        nodes = objective.root()
        self.states = tuple(part.new_zeros(rows, *part.shape[2:]) for part in nodes)
        zero = torch.zeros(search.batch, device=device)
        self._write(self.roots, nodes, zero, zero + 1)
        warm = search.proposed_probabilities(0.0)
        if warm is not None:
            joint = warm[:, 0][:, self.places].prod(-1)
            self.edges[self.roots, PRIOR] = self.edges[self.roots, PRIOR].lerp(joint, options.warm)
        self.lowest = self.highest = self.values[self.roots]
        self.course = ways.new_zeros(search.batch, 1, search.budget.horizon, ways.shape[1])  # best to the horizon
        self.energy = torch.full((search.batch, 1), math.inf, device=device)

    def simulate(self) -> None:
        """Walk to the edge, imagine one node more in each environment, and carry its value back."""
        search, at = self.search, self.roots
        on = torch.ones_like(at, dtype=torch.bool)
        walk: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in search.blocks:
            choice = self._choose(at)
            walk.append((at, choice, on))
            child = self.children[at, choice]
            on = on & (child >= 0)
            if len(walk) == len(search.blocks) or not bool(on.any()):
                break
            at = torch.where(on, child, at)  # who has arrived stays, and chooses the same again
        depth = torch.stack([been for _, _, been in walk]).sum(0) - 1
        left = None if search.budget.horizon % search.budget.hold == 0 else search.steps_left(depth)
        nodes = tuple(part[at].unsqueeze(1) for part in self.states)
        actions = search.outside(self.ways[choice].unsqueeze(1))
        nodes, cost, share = advance(self.objective, nodes, actions, search.budget.hold, left)
        search.calls += search.budget.hold
        row = torch.where(child >= 0, child, self.roots + self.size)
        self.size += 1
        self.children[at, choice] = row
        self._write(row, nodes, cost[:, 0], share[:, 0])
        energy = self._back_up(walk, self.values[row])
        if len(walk) == len(search.blocks):
            self._keep(torch.stack([self.ways[taken] for _, taken, _ in walk], 1), energy, walk[-1][2])
        if search.baseline is None:
            search.baseline = self.edges[self.roots, TOTAL].sum(1)
        if search.watch is not None:
            self._show()

    def follow(self) -> tuple[Tensor, Tensor, Tensor]:
        """Walk the most visited course, and beyond the tree the prior's favourite one, to the horizon.

        Returns:
            The course ``[B, 1, T, A]``, its energy ``[B, 1]`` and, at each free action, the share of visits of every
            joint action (beyond the tree: its prior) ``[B, F, J]``.
        """
        search, at, nodes = self.search, self.roots, self.objective.root()
        inside = torch.ones_like(at, dtype=torch.bool)
        total, share = torch.zeros_like(self.lowest)[:, None], torch.ones_like(self.lowest)[:, None]
        course, shares = [], []
        for steps in search.blocks:
            visits = self.edges[at, VISITS]
            inside = inside & (visits.sum(1) > 0)
            prior = self._prior(nodes)
            shares.append(torch.where(inside[:, None], visits / visits.sum(1, keepdim=True).clamp(min=1), prior))
            choice = torch.where(inside, self._favourite(at), prior.argmax(1))
            course.append(self.ways[choice])
            nodes, cost, factor = advance(self.objective, nodes, search.outside(self.ways[choice].unsqueeze(1)), steps)
            search.calls += steps
            total, share = total + share * cost, share * factor
            child = self.children[at, choice]
            inside = inside & (child >= 0)
            at = torch.where(inside, child, at)
        energy = total + share * self.objective.leaf(nodes)
        actions = repeat(torch.stack(course, 1), search.budget.hold, search.budget.horizon, dim=1)
        return actions.unsqueeze(1), energy, torch.stack(shares, 1)

    def marginal(self, shares: Tensor) -> Tensor:
        """Probabilities ``[..., N]`` of the components' actions, from those of joint actions ``[..., J]``."""
        return shares @ F.one_hot(self.places, len(self.search.components.owner)).sum(1).to(shares.dtype)

    def _choose(self, at: Tensor) -> Tensor:
        """The action ``[B]`` of largest pUCT in the nodes ``[B]``."""
        visits, totals, priors = self.edges[at].unbind(1)
        count = 1 + visits.sum(1, keepdim=True)  # N(s), with the visit that made the node
        weight = self.options.c1 + torch.log((count + self.options.c2) / self.options.c2)
        return (self._value(at, visits, totals) + priors * (count.sqrt() * weight) / (1 + visits)).argmax(1)

    def _favourite(self, at: Tensor) -> Tensor:
        """The action ``[B]`` most visited in the nodes ``[B]``; of equals, the one of lower energy."""
        visits, totals, _ = self.edges[at].unbind(1)
        return (visits + 0.5 * self._value(at, visits, totals).clamp(0, 1)).argmax(1)

    def _value(self, at: Tensor, visits: Tensor, totals: Tensor) -> Tensor:
        """Q̄(s, a) ``[B, J]``: 1 for the lowest and 0 for the highest energy found in the tree."""
        node = (self.values[at] + totals.sum(1)) / (1 + visits.sum(1))
        energy = torch.where(visits > 0, totals / visits, node[:, None])
        return (self.highest[:, None] - energy) / (self.highest - self.lowest).clamp(min=1e-9)[:, None]

    def _prior(self, nodes: Nodes) -> Tensor:
        """P(s, a) ``[B, J]`` of the only node in each environment."""
        count, even, exploration = len(self.ways), 1 / len(self.ways), self.options.exploration
        if self.options.prior == "uniform":
            return torch.full((self.search.batch, count), even, device=self.ways.device)
        given = self.objective.prior(nodes)
        expected = [self.search.batch, 1, len(self.search.components.owner)]
        if list(given.shape) != expected:
            raise ValueError(f"the objective's prior has shape {list(given.shape)}, expected {expected}")
        return (1 - exploration) * given[:, 0][:, self.places].prod(-1) + exploration * even

    def _write(self, row: Tensor, nodes: Nodes, cost: Tensor, share: Tensor) -> None:
        """Enter nodes ``[B, 1, ...]`` in the rows ``[B]``, with what the critic and the actor think of them."""
        value, prior = self.objective.leaf(nodes)[:, 0], self._prior(nodes)
        if not bool((cost + share + value + prior.sum(1)).isfinite().all()):
            raise FloatingPointError(
                "a cost, a value or a prior of the objective is not a finite number, and tree search takes their mean: "
                "the world model, a cost head or the actor diverged (to forbid actions by +inf, use 'beam')"
            )
        for kept, part in zip(self.states, nodes, strict=True):
            kept[row] = part[:, 0]
        self.values[row], self.edges[row, PRIOR] = value.to(self.values), prior.to(self.edges)
        self.costs[row], self.shares[row] = cost.to(self.costs), share.to(self.shares)

    def _keep(self, course: Tensor, energy: Tensor, whole: Tensor) -> None:
        """Remember the courses ``[B, F, A]`` that came to the horizon where they have the least energy ``[B]``."""
        better = whole & (energy < self.energy[:, 0])
        course = repeat(course, self.search.budget.hold, self.search.budget.horizon, dim=1)
        self.course = torch.where(better[:, None, None, None], course.unsqueeze(1), self.course)
        self.energy = torch.where(better[:, None], energy[:, None], self.energy)

    def _back_up(self, walk: list[tuple[Tensor, Tensor, Tensor]], value: Tensor) -> Tensor:
        """Carry the value ``[B]`` of the last node of a walk back to the root; returns what it is there."""
        at, choice, on = (torch.stack(parts) for parts in zip(*walk, strict=True))  # [depth, B]
        child = self.children[at, choice]
        cost, share = self.costs[child], self.shares[child]
        values = torch.empty_like(cost)
        for level in reversed(range(len(walk))):
            value = torch.where(on[level], cost[level] + share[level] * value, value)
            values[level] = value
        counts = torch.stack((on.float(), values.where(on, 0)))
        self.edges.index_put_((at, torch.arange(2, device=at.device)[:, None, None], choice), counts, accumulate=True)
        seen = values.where(on, values[0])  # everyone walks the first level
        self.lowest = self.lowest.minimum(seen.amin(0))
        self.highest = self.highest.maximum(seen.amax(0))
        return value

    def _show(self) -> None:
        """Tell the watch of the actions tried at the root, and of the most visited course."""
        visits, totals, _ = self.edges[self.roots].unbind(1)
        at, course = self.roots, []
        for _ in self.search.blocks:
            choice = self._favourite(at)
            course.append(self.ways[choice])
            child = self.children[at, choice]
            at = torch.where(child >= 0, child, at)
        energies = torch.where(visits > 0, totals / visits, torch.inf)
        energy = energies.gather(1, self._favourite(self.roots)[:, None])[:, 0]
        actions = repeat(torch.stack(course, 1), self.search.budget.hold, self.search.budget.horizon, dim=1)
        self.search.show(actions, energy, energies, visits / visits.sum(1, keepdim=True))
