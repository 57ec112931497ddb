"""Calibration of the gate: thresholds above which a wanted share of decisions lies, measured while training's worlds
are played.

Doubts depend on who acts, so they are measured twice: where chance decides what is planned, and then where a gate with
the thresholds found so far does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..modules.types import DOUBTS, Gate
from .agent import Agent
from .budgets import rethink
from .evaluation import Progress
from .interaction import interact
from .worlds import build_env

Signal = Literal["entropy", "variance", "spread", "surprise"]
SEED = 1_000_000_000
"""Added to a run's seed: no training and no evaluation begins there."""
_STREAMS = 16


def with_gate(agent: Agent, gate: Gate) -> Agent:
    """The same agent with another gate."""
    return rethink(agent, replace(agent.config.task.thinking, gate=gate))


def calibrate(
    agent: Agent,
    share: float,
    signals: Sequence[Signal] = ("surprise",),
    decisions: int = 2_048,
    progress: Progress | None = None,
) -> Gate:
    """Thresholds above which about ``share`` of the decisions lie on training levels (or starts, or pairs).

    With several signals each gets the same quantile of its own, such that one or another is above in that share.

    Args:
        agent: Whose gate it is to be.
        share: Of decisions that are to be planned, above 0 and below 1.
        signals: What the gate looks at.
        decisions: To look at, each time.
        progress: Told of decisions.

    Raises:
        ValueError: A share or signal that cannot be, or the variance of a world model that is no ensemble.
    """
    check_gates(agent, (share,), signals)
    seen = tuple(signals)
    gate = Gate(**dict.fromkeys(seen, math.inf), chance=share)
    for turn in range(2):
        found = measure_doubts(with_gate(agent, gate), decisions, progress, 2 * decisions, turn * decisions)
        columns = [DOUBTS.index(name) for name in seen]
        gate = Gate(**dict(zip(seen, thresholds(found[:, columns], share), strict=True)))
    return gate


def check_gates(agent: Agent, shares: Sequence[float], signals: Sequence[str]) -> None:
    """Refuse what cannot be calibrated.

    Raises:
        ValueError: Names the option.
    """
    if len(set(shares)) < len(shares) or not all(0 < share < 1 for share in shares):
        given = " ".join(map(str, shares))
        raise ValueError(f"--gates is {given}, expected different shares of decisions above 0 and below 1, 0.1 0.3 say")
    if not signals or len(set(signals)) < len(signals) or not set(signals) <= set(DOUBTS):
        raise ValueError(f"--signals is {' '.join(signals) or 'empty'}, expected some of {', '.join(DOUBTS)}")
    if "variance" in signals and agent.config.world_model.members < 2:
        raise ValueError(
            "--signals has variance and the world model is no ensemble; train with --world-model.members above 1"
        )


def measure_doubts(
    agent: Agent, decisions: int, progress: Progress | None = None, total: int | None = None, done: int = 0
) -> NDArray[np.float32]:
    """What the agent's gate looks at while it acts in its training world: ``[N, 4]``, a row for every decision.

    Steps in the middle of a plan are none.

    Args:
        agent: Acts in the gated mode.
        decisions: At least so many, in `_STREAMS` environments.
        progress: Told of decisions, ``done`` of ``total`` before the first.
        total: See there.
        done: See there.
    """
    seed = SEED + agent.config.seed
    env = build_env(agent.config.env, _STREAMS, seed=seed, held_out=False)
    rows: list[NDArray[np.float32]] = []
    count = 0
    try:
        acting = agent.begin(env.num_envs, "gated")
        for step in islice(interact(env, acting, seed=seed), 50 * decisions):
            assert step.decision.doubts is not None
            asked = step.decision.doubts[~np.isnan(step.decision.doubts).all(-1)]
            rows.append(asked)
            count += len(asked)
            if progress is not None:
                progress(min(done + count, done + decisions), total or decisions)
            if count >= decisions:
                break
    finally:
        env.close()
    return np.concatenate(rows)


def thresholds(doubts: NDArray[np.float32], share: float) -> list[float]:
    """A threshold for each column of ``doubts [N, k]``, such that in ``share`` of the rows one of them is exceeded.

    All have the same quantile, found from the rows' highest ranks. What was not looked at (NaN) was in no doubt.
    """
    doubts = np.where(np.isnan(doubts), doubts.dtype.type(-np.inf), doubts)
    ranks = doubts.argsort(0, kind="stable").argsort(0) / len(doubts)
    level = float(np.quantile(ranks.max(1), 1 - share))
    return [float(value) for value in np.quantile(doubts, level, axis=0)]
