"""Planning in a dream: what courses of latent actions lead to, as an objective for any planner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.sampler import Sampling, draw_noise
from ..modules.genie.transformer import Past, precision
from ..modules.genie.world import Dream, Genie
from ..planners import Budget, Nodes, Planner, Proposal
from ..planners.stepwise import advance
from .agent import Decision
from .genie_real import Window, dream_on
from .interaction import Courses, Observation


class DreamObjective:
    """Energies of courses of latent actions from where B dreams are: F = −Σ_{t≥1} γ^t Π(continue) reward[t].

    It can be asked about whole courses, and step by step (`StepwiseObjective`) by planners that grow a tree. What comes
    after a course nobody has learned, nor who would act how: courses end in nothing, and no action is likelier than
    another. All courses of one environment share their sampling noise, so that they differ by their actions alone.

    Args:
        world: With outcome heads that have learned.
        dream: Of B environments.
        discount: γ.
        seed: Of the sampling noise; the same in every iteration of a planner.
        sampling: How frames are drawn; None: as the world says.
        codes: Latent actions that the planner's are, by number; None: all.
    """

    def __init__(
        self,
        world: Genie,
        dream: Dream,
        discount: float = 0.99,
        seed: int = 0,
        sampling: Sampling | None = None,
        codes: Tensor | None = None,
    ) -> None:
        device = dream.tokens.device
        self.world, self.dream, self._discount = world, dream, discount
        self.codes = torch.arange(world.actions, device=device) if codes is None else codes
        self.sampling, self.calls = sampling or world.sampling, 0
        self._generators = [torch.Generator().manual_seed(seed + row) for row in range(len(dream.tokens))]
        self._noise = torch.zeros(0, len(dream.tokens), self.sampling.steps + 1, world.tokenizer.tokens, device=device)

    @property
    def discount(self) -> float:
        """γ."""
        return self._discount

    def __call__(self, actions: Tensor) -> Tensor:
        """Energies ``[B, S]`` of courses ``[B, S, T]``."""
        nodes = tuple(part.repeat_interleave(actions.shape[1], 1) for part in self.root())
        energy = torch.zeros_like(actions[..., 0], dtype=torch.float32)
        share = torch.ones_like(energy)
        for action in actions.unbind(2):
            nodes, cost, factor = advance(self, nodes, action, 1)
            energy, share = energy + share * cost, share * factor
        return energy

    def root(self) -> Nodes:
        """Where the dreams are, as the only node of each environment ``[B, 1, ...]``."""
        dream, batch = self.dream, len(self.dream.tokens)
        parts = (dream.past.keys, dream.past.values, dream.past.valid, dream.tokens, dream.patches)
        waiting, depth = dream.tokens.new_full((batch, 1), -1), dream.tokens.new_zeros(batch, 1)
        return (*(part.unsqueeze(1) for part in parts), waiting, depth)

    @torch.no_grad()
    def step(self, nodes: Nodes, actions: Tensor) -> tuple[Nodes, Tensor, Tensor]:
        """Nodes, −reward ``[B, N]`` and the chance to go on ``[B, N]`` after ``actions [B, N]``.

        Reward and ending are read off the frame that is left and the action. So the frame that an action leads to is
        dreamed only when somebody goes on from it: not at the end of a course, nor of one that was given up.
        """
        batch, count = actions.shape
        keys, values, valid, tokens, patches, waiting, depth = (part.flatten(0, 1) for part in nodes)
        past = Past(keys, values, valid)
        dream = Dream(past, past, tokens, patches)  # nothing is drawn, so the decoder's past is nobody's concern
        rows = torch.nonzero(waiting >= 0).flatten()
        if len(rows):
            noise, everyone = self._noise_of(depth[rows], rows // count), len(rows) == len(waiting)
            before = dream if everyone else dream.rows(rows)
            with precision(actions.device):
                _, reached = self.world.step(before, waiting[rows], noise, self.sampling, draw=False)
            dream = reached if everyone else dream.put(rows, reached)
            depth = depth + (waiting >= 0)
        code = self.codes[actions.flatten()]
        with precision(actions.device):
            reward, ending = self.world.outcomes.judge(dream.patches.float(), code)
        self.calls += len(code)
        kept = (dream.past.keys, dream.past.values, dream.past.valid, dream.tokens, dream.patches, code, depth)
        after = tuple(part.reshape(batch, count, *part.shape[1:]) for part in kept)
        return after, -reward.float().reshape(batch, count), 1 - ending.float().reshape(batch, count)

    def leaf(self, nodes: Nodes) -> Tensor:
        """0 ``[B, N]``: what comes after a course is not known."""
        return torch.zeros_like(nodes[-1], dtype=torch.float32)

    def prior(self, nodes: Nodes) -> Tensor:
        """Even probabilities ``[B, N, A]``."""
        return self.leaf(nodes).unsqueeze(-1).expand(-1, -1, len(self.codes)) + 1 / len(self.codes)

    def _noise_of(self, depth: Tensor, environment: Tensor) -> Tensor:
        """Noise ``[R, steps + 1, N]`` for the frame after ``depth [R]`` dreamed ones, of environments ``[R]``."""
        while len(self._noise) <= int(depth.max()):
            drawn = draw_noise(self._generators, self.sampling.steps, self.world.tokenizer.tokens)
            self._noise = torch.cat([self._noise, drawn.to(self._noise)[None]])
        return self._noise[depth, environment]


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
            objective = DreamObjective(self.world, dream, self.discount, self.seed, self.sampling, self.codes)
            space = spaces.Discrete(len(self.codes))
            plan = self.planner.plan(objective, space, Proposal(), self.budget, len(index), self.generator)
            self.courses.follow(index, self.codes[plan.actions].cpu().numpy())
            calls = objective.calls
        planned = np.isin(np.arange(len(first)), index)
        return Decision(self.courses.advance(active), np.zeros((len(first), 1), np.float32), None, planned, calls)
