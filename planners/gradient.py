"""Planning by gradient: walk downhill on the energy of action sequences, through the world model, in a Box.

The first optimiser that LeCun 2022 names for Mode-2 (p. 11): the arrows from actions to energy are differentiable, so
the gradient says how to change each action. Many starts walk at once (a learned energy has many valleys) with Adam
(Kingma and Ba 2015, arXiv:1412.6980, algorithm 1), and actions are moved back into the Box after every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .actions import block_mean, repeat
from .checks import check_elites, check_number
from .search import Search
from .types import ActionSpace, Budget, Gaussian, Objective, Plan, Proposal, Watch

MOMENTUM, SCALE, EPSILON = 0.9, 0.999, 1e-8
"""β1, β2 and ε of Adam."""


@dataclass(frozen=True)
class GradientDescent:
    """Adam from several starts over the sequences of a Box: candidates are starts, iterations are steps.

    Starts are the proposed actions, and for the rest draws from the proposed distribution, or uniform ones. Where
    actions are held, a proposed sequence starts with the mean of each held block. One iteration is one forward pass of
    every start, which is what is counted as calls, and one backward pass, which is not (it costs about twice as much).
    No parameter of the model gets a gradient: only actions are differentiated.

    Attributes:
        learning_rate: Step of Adam, as a fraction of half the range of the Box.
        noise: Standard deviation of the noise added to actions after each step, as a fraction of half the range.
        elites: How many starts (int), or which fraction (float), shape the returned distribution.
        minimum_std: Smallest standard deviation of the returned or a proposed distribution, in half ranges.
    """

    learning_rate: float = 0.1
    noise: float = 0.0
    elites: int | float = 0.1
    minimum_std: float = 0.05

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, 1e-9, 2)
        check_number("noise", self.noise, 0, 2)
        check_elites(self.elites)
        check_number("minimum_std", self.minimum_std, 0, 1)

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
            ValueError: The objective is not differentiable, or an argument does not fit.
            FloatingPointError: An energy or a gradient is not a finite number.
        """
        search = Search("gradient", self.elites, objective, action_space, proposal, budget, batch, generator, watch)
        actions = search.draw(search.proposed_gaussian(self.minimum_std))  # [B, S, F, A]
        if search.proposals is not None:
            held = block_mean(search.proposals.flatten(0, 1), budget.hold)
            actions[:, : search.proposals.shape[1]] = held.view(batch, -1, *held.shape[1:])
        mean, square = torch.zeros_like(actions), torch.zeros_like(actions)
        for iteration in search.rounds():
            candidates, energies, slope = differentiate(search, actions)
            elites = search.select(candidates, energies)
            slope.mul_(search.half)  # as if the Box were [-1, 1]
            mean.lerp_(slope, 1 - MOMENTUM)
            square.lerp_(slope.square_(), 1 - SCALE)
            size = self.learning_rate / (1 - MOMENTUM ** (iteration + 1))
            root = (square / (1 - SCALE ** (iteration + 1))).sqrt_().add_(EPSILON)
            actions = actions - size * search.half * mean / root
            if self.noise:
                actions += (
                    self.noise * search.half * torch.randn(actions.shape, generator=generator, device=generator.device)
                )
            actions.clamp_(*search.limits)
        fitted = search.fit(elites)
        return search.plan(Gaussian(fitted.mean, fitted.std.maximum(self.minimum_std * search.half)))


def differentiate(search: Search, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates ``[B, S, T, A]``, their energies ``[B, S]`` and the gradient ``[B, S, F, A]``; 0 where forbidden."""
    with torch.enable_grad():
        actions = actions.detach().requires_grad_()
        candidates = repeat(actions, search.budget.hold, search.budget.horizon, dim=2)
        energies = search.ask(candidates)
        slope = None
        if energies.requires_grad:
            (slope,) = torch.autograd.grad(energies.sum(), actions, allow_unused=True)
    if slope is None:
        raise ValueError(
            "planner 'gradient' differentiates the energy by the actions and this objective is not a differentiable "
            "function of them: give it one, or use 'cem'"
        )
    energies = energies.detach()
    slope = slope.where((energies != math.inf)[:, :, None, None], 0)
    if not bool(slope.isfinite().all()):
        raise FloatingPointError(
            f"{int((~slope.isfinite()).sum())} of {slope.numel()} numbers of the energy's gradient are not finite: the "
            "world model or a cost head is not smooth there; check its outputs, or use 'cem'"
        )
    return candidates.detach(), energies, slope
