"""Room protocols: success on held-out pairs of start and goal, by the rule that the protocol's name stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..envs.rooms import DOT_WALL_200, PROTOCOLS, TWO_ROOM_CROSS_100, Protocol, RoomVectorEnv, sample_pairs
from .agent import Agent, Decision
from .budgets import thought_of
from .checkpoint import check_same_world
from .evaluation import Progress, Result, evaluate
from .interaction import Behaviour, Observation, RandomBehaviour, VectorEnv
from .oracle import ExpertBehaviour
from .worlds import spaces_of

ROOM_BEHAVIOURS = ("mode-1", "mode-2", "random", "no-op", "expert")
"""Rows that a room world can have: the agent's two modes, the floors and the upper bound."""


class NoOpBehaviour:
    """Stand still: the floor below which nothing was learned."""

    def __init__(self, env: VectorEnv) -> None:
        self.action = np.zeros(env.action_space.shape or (), np.float32)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """No move anywhere."""
        nothing = np.zeros(len(first), np.bool_)
        return Decision(self.action, np.zeros((len(first), 1), np.float32), None, nothing, 0)


def protocol_key(protocol: Protocol) -> str:
    """The protocol's name as it is typed on a command line: `two_room-cross-room-100`."""
    return re.sub(r"[ /]+", "-", protocol.name)


def find_protocol(name: str | None, id: str) -> Protocol | None:
    """The protocol of this name; without a name the world's usual one, and None where the world has no protocols.

    Raises:
        ValueError: An unknown protocol, or one of another world.
    """
    world = next((env for room, env in (("TwoRoom", "two_room"), ("DotWall", "dot_wall")) if room in id), None)
    mine = {protocol_key(protocol): protocol for protocol in PROTOCOLS if protocol.env == world}
    if name is None:
        return {"two_room": TWO_ROOM_CROSS_100, "dot_wall": DOT_WALL_200}[world] if world else None
    for key, protocol in mine.items():
        if name in {key, protocol.name}:
            return protocol
    known = ", ".join(mine)
    raise ValueError(
        f"protocol {name!r} is not one of {id}'s; choose from {known}"
        if known
        else f"protocol {name!r} was asked for and {id} has no protocols (only TwoRoom and DotWall have); leave it out"
    )


def check_room_behaviours(names: Sequence[str], agent: Agent, protocol: Protocol) -> None:
    """Refuse what a protocol cannot measure.

    Raises:
        ValueError: An unknown behaviour, or an agent whose decisions last longer than the protocol's.
    """
    known = (*ROOM_BEHAVIOURS, "gated")
    for name in names:
        if name not in known:
            raise ValueError(f"{protocol.name} has no behaviour {name!r}; choose from {', '.join(known)}")
    if (repeat := agent.config.env.action_repeat) != 1:
        raise ValueError(
            f"{protocol.name} counts single moves and this agent holds each action for {repeat} (env.action_repeat); "
            "train with 1"
        )


def evaluate_protocol(
    agent: Agent,
    protocol: Protocol,
    behaviours: Sequence[str] = ROOM_BEHAVIOURS,
    pairs: int = 200,
    seed: int = 0,
    *,
    film: int = 0,
    progress: dict[str, Progress] | None = None,
) -> list[Result]:
    """Run each behaviour once on the same held-out pairs.

    Args:
        agent: The same agent serves both modes.
        protocol: World, law of start and goal, budget and verdict.
        behaviours: Rows, of `ROOM_BEHAVIOURS`.
        pairs: How many pairs of start and goal.
        seed: Draws the pairs, from a stream that training never reads.
        film: Keep at most this many pictures of the first pair.
        progress: Per row, told of finished episodes.

    Raises:
        ValueError: The agent was made for another world, or an argument is unknown or out of range.
    """
    check_room_behaviours(behaviours, agent, protocol)
    held_out = sample_pairs(protocol, pairs, seed, split="held_out")
    env = protocol.make(pairs, render_mode="rgb_array" if film else None)
    try:
        check_same_world(agent, spaces_of(env), protocol.name)
        return [
            evaluate(
                name,
                env,
                _behaviour(name, agent, env, seed),
                seed=seed,
                options=dict(held_out.options(slice(0, pairs))),
                film=film,
                progress=(progress or {}).get(name),
                note=_note(name, agent),
            )
            for name in behaviours
        ]
    finally:
        env.close()


def _behaviour(name: str, agent: Agent, env: RoomVectorEnv, seed: int) -> Behaviour:
    if name in {"mode-1", "mode-2", "gated"}:
        return agent.begin(env.num_envs, name)  # type: ignore[arg-type]
    if name == "random":
        return RandomBehaviour(agent.spaces.action, env.num_envs, seed, plan=1)
    return NoOpBehaviour(env) if name == "no-op" else ExpertBehaviour(env)


def _note(name: str, agent: Agent) -> str:
    return {"mode-2": thought_of(agent), "expert": "scripted, knows the state", "no-op": "stands still"}.get(name, "")
