"""Beam search: breadth first, but only the most promising courses of action go on (LeCun 2022, p. 11 and p. 37).

All actions are tried from every kept course at once, so a beam that is wide enough for every course is exhaustive
search. It asks the objective step by step (`StepwiseObjective`): what a course has cost is never computed again.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .actions import block_mean, repeat
from .checks import check_calls, check_elites, check_number, checked_energies, stepwise
from .sampling import fit_categorical
from .search import Search, equal_weights, mean_energy
from .stepwise import advance
from .types import ActionSpace, Budget, Categorical, Objective, Plan, Proposal, Watch


@dataclass(frozen=True)
class BeamSearch:
    """Beam search over the sequences of a Discrete space, or of a MultiDiscrete with few joint actions.

    The beam is as wide as the budget's calls allow. Nothing is drawn. Proposed actions are evaluated beside the last
    step's courses, so that the plan is never worse than what was proposed; a proposed distribution has no use here and
    is left alone. Once the budget's milliseconds are spent the beam narrows to the best course, which is followed to
    the end. The plan's baseline is the mean energy after the first action, and each (held) action is an iteration.

    Attributes:
        guided: Whether courses are ranked by their cost so far and the cost-to-go of where they have come
            (`StepwiseObjective.leaf`), as their energy will be at the end, or by the cost so far alone.
        elites: How many courses, or which fraction of the budget's candidates, shape the returned distribution.
        smoothing: Pseudo-count added to every action in the returned distribution.
    """

    guided: bool = True
    elites: int | float = 0.1
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_elites(self.elites)
        check_number("smoothing", self.smoothing, 0, math.inf, exclusive=True)

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
            ValueError: The objective cannot be followed step by step, there are too many joint actions, or the budget
                does not pay for following one course.
        """
        search = Search("beam", self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        course, energies = self._grow(search)
        if search.proposals is not None:
            course = torch.cat((course, search.proposals), 1)
            energies = torch.cat((energies, search.ask(search.proposals)), 1)
        elites = search.select(course, energies)
        frequencies = fit_categorical(elites.actions, elites.weights, search.components, self.smoothing)
        return search.plan(Categorical(block_mean(frequencies, budget.hold)))

    def _grow(self, search: Search) -> tuple[Tensor, Tensor]:
        """The courses ``[B, S, T, A]`` at the end and their energies ``[B, S]``."""
        objective = stepwise(search.planner, search.objective, "discount", "root", "step", "leaf")
        ways = search.joint_actions()  # [J, A]
        width = beam_width(search, len(ways))
        nodes = objective.root()
        total, share = ways.new_zeros(search.batch, 1).float(), ways.new_ones(search.batch, 1).float()
        course = ways.new_empty(search.batch, 1, 0, ways.shape[1])
        for level, steps in enumerate(search.blocks):
            actions = ways.repeat(total.shape[1], 1).expand(search.batch, -1, -1)  # every way on from every course
            nodes, total, share, course = (
                tuple(part.repeat_interleave(len(ways), 1) for part in nodes),
                *(part.repeat_interleave(len(ways), 1) for part in (total, share, course)),
            )
            nodes, cost, factor = advance(objective, nodes, search.outside(actions), steps)
            search.calls += actions.shape[1] * steps
            total, share = total + share * cost, share * factor
            course = torch.cat((course, actions.unsqueeze(2)), 2)
            energies, _ = checked_energies(
                total + share * objective.leaf(nodes), (search.batch, total.shape[1]), "course"
            )
            if level == 0:
                search.baseline = mean_energy(energies)
            if level == search.free - 1:
                break
            rank = energies if self.guided else total
            kept = rank.topk(min(1 if search.late() else width, rank.shape[1]), dim=1, largest=False).indices
            nodes = tuple(part[search.rows, kept] for part in nodes)
            total, share, course = (part[search.rows, kept] for part in (total, share, course))
            _show(search, course[:, 0], energies[search.rows, kept])
        return repeat(course, search.budget.hold, search.budget.horizon, dim=2), energies


def beam_width(search: Search, ways: int) -> int:
    """The most courses that can be kept for the budget's calls, less those for the proposed actions.

    Raises:
        ValueError: There are not even calls for one.
    """

    def calls(width: int) -> int:
        return sum(steps * ways * min(width, ways**level) for level, steps in enumerate(search.blocks))

    available = search.budget.calls
    if search.proposals is not None:
        available -= search.proposals.shape[1] * search.budget.horizon
    check_calls(search.planner, calls(1), available, f"{ways} actions at each of {search.budget.horizon} steps")
    return bisect.bisect_right(range(1, available + 1), available, key=calls)


def _show(search: Search, course: Tensor, energies: Tensor) -> None:
    """Tell the watch of a beam's best course ``[B, level, A]``, its last action repeated, and of its energies."""
    rest = course[:, -1:].expand(-1, search.free - course.shape[1], -1)
    actions = repeat(torch.cat((course, rest), 1), search.budget.hold, search.budget.horizon, dim=1)
    search.show(actions, energies[:, 0], energies, equal_weights(energies))
