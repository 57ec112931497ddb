"""Following an objective step by step, for the planners that grow a tree."""

from __future__ import annotations

import torch
from torch import Tensor

from .types import Nodes, StepwiseObjective


def advance(
    objective: StepwiseObjective, nodes: Nodes, actions: Tensor, steps: int, left: Tensor | None = None
) -> tuple[Nodes, Tensor, Tensor]:
    """Keep each action for several steps.

    Args:
        objective: Asked once per step.
        nodes: N nodes of each environment.
        actions: One for each node ``[B, N, ...]``.
        steps: How long it is kept.
        left: How many of these steps each environment still has ``[B]``, or None where all have all; the objective is
            asked about the others too, and the answers are dropped.

    Returns:
        The nodes then reached, the discounted costs on the way Σ_{k≥1} γ^k Π(continue) cost[k] ``[B, N]``, and what an
        energy from there on counts now, γ^steps Π(continue) ``[B, N]``.

    Raises:
        ValueError: The objective returned costs or chances of another shape than ``[B, N]``.
    """
    shape = tuple(actions.shape[:2])
    cost = torch.zeros(shape, device=actions.device)
    share = torch.ones(shape, device=actions.device)
    for step in range(steps):
        after, felt, going = objective.step(nodes, actions)
        if felt.shape != shape or going.shape != shape:
            raise ValueError(
                f"the objective's step returned costs of shape {list(felt.shape)} and chances of shape "
                f"{list(going.shape)} for {list(shape)} [environments, nodes]: return one of each per node"
            )
        share_now = share * objective.discount
        cost_now, share_now = cost + share_now * felt, share_now * going
        if left is None:
            nodes, cost, share = after, cost_now, share_now
        else:
            on = left > step
            pairs = zip(after, nodes, strict=True)
            nodes = tuple(torch.where(on.view(-1, *[1] * (new.dim() - 1)), new, old) for new, old in pairs)
            cost = torch.where(on[:, None], cost_now, cost)
            share = torch.where(on[:, None], share_now, share)
    return nodes, cost, share
