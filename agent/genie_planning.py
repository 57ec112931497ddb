"""Planning in a dream: what courses of latent actions lead to, as an objective for any planner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.sampler import Sampling, draw_noise
from ..modules.genie.transformer import precision
from ..modules.genie.world import Dream, Genie
from ..planners import Budget, Planner, Proposal
from .agent import Decision
from .genie_real import Window, dream_on
from .interaction import Courses, Observation


class DreamObjective:
    """Energies of courses of latent actions from where B dreams are: F = −Σ γ^t Π(continue) reward.

    All courses of one environment share their sampling noise, so that they differ by their actions alone.

    Args:
        world: With outcome heads that have learned.
        dream: Of B environments.
        discount: γ.
        seed: Of the sampling noise; the same in every iteration of a planner.
        sampling: How frames are drawn; None: as the world says.
    """

    def __init__(
        self, world: Genie, dream: Dream, discount: float = 0.99, seed: int = 0, sampling: Sampling | None = None
    ) -> None:
        self.world, self.dream, self.discount, self.seed = world, dream, discount, seed
        self.sampling, self.calls = sampling or world.sampling, 0

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Tensor:
        """Energies ``[B, S]`` of courses ``[B, S, T]``."""
        batch, candidates, horizon = actions.shape
        device = actions.device
        dream = self.dream.rows(torch.arange(batch, device=device).repeat_interleave(candidates))
        generators = [torch.Generator().manual_seed(self.seed + row) for row in range(batch)]
        taken = actions.flatten(0, 1)
        energy = torch.zeros(len(taken), device=device)
        going = torch.ones(len(taken), device=device)
        sampling, tokens = self.sampling, self.world.tokenizer.tokens
        for step in range(horizon):
            noise = draw_noise(generators, sampling.steps, tokens).to(device).repeat_interleave(candidates, 0)
            with precision(device):
                reward, ending = self.world.outcomes.judge(dream.patches.float(), taken[:, step])
                if step < horizon - 1:  # the last step is judged and need not be dreamed
                    _, dream = self.world.step(dream, taken[:, step], noise, sampling, draw=False)
            energy -= self.discount**step * going * reward.float()
            going = going * (1 - ending.float())
            self.calls += len(taken)
        return energy.reshape(batch, candidates)


class DreamBehaviour:
    """Plans in the dream that begins with the frames at hand, and decides on latent actions.

    Args:
        world: With outcome heads that have learned, on ``device``.
        num_envs: B.
        planner: Of discrete actions.
        budget: Of a decision.
        discount: γ.
        seed: Draws candidates and sampling noise.
        device: Where the world is.
        sampling: How frames are drawn; None: as the world says.
        commit: Steps of a plan that are carried out before the next is made.
        codes: Latent actions to plan with; all when None.

    Raises:
        ValueError: No codes.
    """

    def __init__(
        self,
        world: Genie,
        num_envs: int,
        planner: Planner,
        budget: Budget,
        discount: float,
        seed: int,
        device: torch.device,
        sampling: Sampling | None = None,
        commit: int = 1,
        codes: Sequence[int] | None = None,
    ) -> None:
        self.codes = torch.tensor(range(world.actions) if codes is None else codes, device=device)
        if not len(self.codes):
            raise ValueError("no latent actions to plan with")
        self.world, self.planner, self.budget, self.discount, self.seed = world, planner, budget, discount, seed
        self.device, self.window, self.sampling = device, Window(num_envs, world), sampling
        self.courses = Courses(num_envs, min(commit, budget.horizon))
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Plan for the active environments whose last plan is carried out, together."""
        frames = self.window.see(observation, first)
        index, calls = self.courses.due(first, active), 0
        if len(index):
            dream = dream_on(self.world, frames[index], self.device)
            objective = DreamObjective(self.world, dream, self.discount, self.seed, self.sampling)
            space = spaces.Discrete(len(self.codes))
            plan = self.planner.plan(
                lambda chosen: objective(self.codes[chosen]), space, Proposal(), self.budget, len(index), self.generator
            )
            self.courses.follow(index, self.codes[plan.actions].cpu().numpy())
            calls = objective.calls
        planned = np.isin(np.arange(len(first)), index)
        return Decision(self.courses.advance(active), np.zeros((len(first), 1), np.float32), None, planned, calls)
