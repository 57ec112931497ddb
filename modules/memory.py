"""Short-term memory: the recent past as raw percepts with what was done, felt and planned.

It keeps observations rather than latents: a latent is computed by the present encoder when it is read, so no entry goes
stale while perception learns. Once perception is at rest, `keep_latents` computes them all and reads carry them.
Imagined futures are kept the same way, as the planned course of actions beside the real percept it started from; the
present world model turns it back into states.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .events import discounted_sums, event_chance, leaps, window_weights

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Window:
    """T consecutive transitions of B streams, as read from memory.

    A stream runs on through the ends of episodes; the masks say what belongs together.

    Attributes:
        observation: Percepts ``x[0…T]``, ``[B, T+1, history, *shape]``; empty where latents are carried.
        action: ``a[0…T−1]``, ``[B, T, ...]``.
        reward: Reward of each transition ``[B, T]``.
        terminated: 1 where the world ended the episode in this transition ``[B, T]``.
        truncated: 1 where a time limit cut it off ``[B, T]``.
        valid: 1 for transitions of the first episode of the window, its last one included ``[B, T]``.
        known: 1 where, besides, ``x[t+1]`` was seen: every valid transition but the last of an episode ``[B, T]``.
        plan: Distribution of the plan's first action in ``x[0…T]``, ``[B, T+1, P]``; zeros where nothing was planned.
        course: The planned actions from ``x[0]`` on, ``[B, H, ...]``.
        planned: 1 where a plan was made ``[B, T+1]``.
        latent: Latents of ``x[0…T]`` that were kept, ``[B, T+1, D]``; None where the encoder has to be asked.
        goal: Where goals are remembered, G for the first episode of each window: what it was asked to reach, and
            (hindsight) what was seen in it at some time; percepts ``[B, G, history, *shape]`` or latents ``[B, G, D]``.
        past: Where asked for, the P percepts before ``x[0]``, ``[B, P, history, *shape]``.
        remembered: 1 where these were seen in the episode of ``x[0]`` and are still remembered ``[B, P]``.
        sensors: What the world's n sensors measured on ``x[1…T]``, ``[B, T, n]``; None where there are none.
        weight: Importance weight of each window ``[B]``: how likely it is among all, over how likely it was to be
            drawn, so that weighted means are those over everything remembered. None where all were equally likely.
        returns: Where asked for, what came after ``x[0…T]``: discounted sums of rewards and of the ending, and how
            much of them is open (`discounted_sums`), ``[B, T+1, 3]``.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    known: Tensor
    plan: Tensor
    course: Tensor
    planned: Tensor
    latent: Tensor | None = None
    goal: Tensor | None = None
    past: Tensor | None = None
    remembered: Tensor | None = None
    sensors: Tensor | None = None
    weight: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True)
class MemoryShape:
    """What one entry of one stream looks like."""

    observation: tuple[int, ...]
    pixels: bool
    action: tuple[int, ...]
    discrete: bool
    plan: int
    horizon: int
    goals: bool = False
    sensors: int = 0


class ShortTermMemory:
    """Ring buffers, one for each environment, written in step.

    Args:
        shape: Layout of an entry.
        streams: Environments E that write.
        capacity: Entries kept over all streams; the oldest are overwritten.
        history: Observations per percept.
        gib: GiB that it may take of the main memory; a larger one lives in a temporary file that is mapped into it.

    Raises:
        ValueError: The capacity holds fewer than 2 entries of each stream.
        OSError: There is no room for the temporary file.
    """

    def __init__(
        self, shape: MemoryShape, streams: int, capacity: int, history: int = 1, gib: float = math.inf
    ) -> None:
        length = capacity // max(streams, 1)
        if streams < 1 or length < 2:
            raise ValueError(
                f"memory of {capacity} entries for {streams} environments; it needs at least 1 environment and "
                f"2 entries of each"
            )
        self.shape, self.streams, self.length, self.history = shape, streams, length, history
        frame = np.uint8 if shape.pixels else np.float32
        act = np.int64 if shape.discrete else np.float32
        lead = (streams, length)
        layout: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "observation": ((*lead, *shape.observation), frame),
            "action": ((*lead, *shape.action), act),
            "reward": (lead, np.float32),
            "terminated": (lead, np.bool_),
            "truncated": (lead, np.bool_),
            "age": (lead, np.int32),
            "plan": ((*lead, shape.plan), np.float32),
            "course": ((*lead, shape.horizon, *shape.action), act),
            "planned": (lead, np.bool_),
        }
        if shape.goals:  # written where an episode begins; untouched pages take no memory
            layout["goal"] = ((*lead, *shape.observation), frame)
        if shape.sensors:
            layout["sensors"] = ((*lead, shape.sensors), np.float32)
        size = sum(math.prod(form) * np.dtype(kind).itemsize for form, kind in layout.values())
        self.mapped = size > gib * 2**30
        self.data: dict[str, Array] = {name: _zeros(form, kind, self.mapped) for name, (form, kind) in layout.items()}
        self._latents: Tensor | None = None  # [E, length, D]
        self._encoded = np.full(length, -1, np.int64)  # number of the change of each slot that they are of
        self._current = False  # they are of all that is remembered
        self._goal_blocks: dict[int, Tensor] = {}  # of the episodes that begin in each block of slots
        self.goal_latents: Tensor | None = None  # [N, D], all of them; which is where, say the rows
        self.goal_rows = np.zeros((streams, length if shape.goals else 0), np.int64)
        self.cursor = 0
        self.filled = 0
        self._ended = np.ones(streams, np.bool_)
        self._age = np.zeros(streams, np.int32)
        self.changes = 0
        self.changed = np.zeros(length, np.int64)  # number of the last change of each slot, for saving
        self._sums: tuple[tuple[int, float], NDArray[np.float32]] | None = None  # after which change, for which γ

    def __len__(self) -> int:
        return self.filled * self.streams

    def write(
        self,
        observation: Array,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        plan: Array | None = None,
        course: Array | None = None,
        planned: NDArray[np.bool_] | None = None,
        goal: Array | None = None,
        sensors: Array | None = None,
    ) -> None:
        """Remember one step of every stream: what was seen, done and felt, and the plan if there was one.

        Args:
            observation: x[t] ``[E, *shape]``.
            action: a[t] ``[E, ...]``.
            reward: Reward of the transition ``[E]``.
            terminated: Whether the world ended the episode in it ``[E]``.
            truncated: Whether a time limit did ``[E]``.
            plan: Distribution of the planned first action ``[E, P]``.
            course: Planned actions ``[E, H, ...]``; H may be shorter than the memory's horizon.
            planned: Where there was a plan ``[E]``; nowhere by default.
            goal: What the episode is to reach ``[E, *shape]``, in a memory of goals.
            sensors: What the world's sensors measured on the outcome x[t+1] ``[E, n]``, in a memory of sensors.

        Raises:
            FloatingPointError: A reward is not finite.
            ValueError: A memory of goals or sensors is given none, or a memory without goals is given one.
        """
        if self.shape.goals != (goal is not None):
            raise ValueError(f"a goal was {'not given to a' if self.shape.goals else 'given to no'} memory of goals")
        if self.shape.sensors and sensors is None:
            raise ValueError("sensors were not given to a memory of them; the environment tells infos['interoception']")
        if not np.isfinite(reward).all():
            index = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise FloatingPointError(
                f"reward of environment {index} is {reward[index]}, expected a finite number; fix the environment"
            )
        self._current = False
        at, data = self.cursor, self.data
        self._mark(at)
        self._age = np.where(self._ended, 0, self._age + 1).astype(np.int32)
        self._ended = np.logical_or(terminated, truncated)
        data["observation"][:, at] = observation
        data["action"][:, at] = action
        data["reward"][:, at] = reward
        data["terminated"][:, at] = terminated
        data["truncated"][:, at] = truncated
        data["age"][:, at] = self._age
        data["planned"][:, at] = False if planned is None else planned
        data["plan"][:, at] = 0
        data["course"][:, at] = 0
        if self.shape.sensors and sensors is not None:
            data["sensors"][:, at] = sensors
        if goal is not None:
            begins = self._age == 0
            data["goal"][begins, at] = goal[begins]
        if planned is not None and plan is not None and course is not None:
            data["plan"][:, at] = plan
            data["course"][:, at, : course.shape[1]] = course
        self.cursor = (at + 1) % self.length
        self.filled = min(self.filled + 1, self.length)

    def break_streams(self) -> None:
        """Say that the next entries do not follow the last ones (the environments were reset or exchanged)."""
        if self.filled:
            last = (self.cursor - 1) % self.length
            cut = ~self.data["terminated"][:, last].astype(np.bool_)
            self.data["truncated"][:, last] = cut
            self._mark(last)
        self._ended[:] = True

    def _mark(self, slot: int) -> None:
        self.changes += 1
        self.changed[slot] = self.changes

    def state(self) -> dict[str, Tensor]:
        """All but the entries themselves."""
        numbers = {"cursor": torch.tensor(self.cursor), "filled": torch.tensor(self.filled)}
        return numbers | {"ended": torch.from_numpy(self._ended.copy()), "age": torch.from_numpy(self._age.copy())}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`; the entries are put back into `data`.

        Raises:
            ValueError: It belongs to a memory of another size.
        """
        cursor, filled = int(state["cursor"]), int(state["filled"])
        streams = (state["ended"].shape, state["age"].shape)
        if not (0 <= filled <= self.length and 0 <= cursor < self.length) or set(streams) != {(self.streams,)}:
            raise ValueError(f"cursor {cursor} and fill {filled} of {self.length} entries in {self.streams} streams")
        self.cursor, self.filled = cursor, filled
        self._ended, self._age = state["ended"].numpy().copy(), state["age"].numpy().copy()

    @property
    def latents(self) -> Tensor | None:
        """Of every entry ``[E, filled, D]``, where they are kept and nothing was written since."""
        return self._latents[:, : self.filled] if self._current and self._latents is not None else None

    def keep_latents(self, encode: Callable[[Tensor], Tensor], rows: int = 2_000) -> None:
        """Compute the latent of every entry, for reads to carry until the next write; those of before are still good.

        Blocks of slots are encoded whole, so that the same numbers come out whenever it is done.

        Args:
            encode: Percepts ``[N, history, *shape]`` to latents ``[N, D]``; perception at rest, the same each time.
            rows: How many percepts are encoded at a time, at least one of every stream.
        """
        block = max(1, rows // self.streams)
        for first in range(0, self.filled, block):
            slots = slice(first, min(first + block, self.filled))
            if np.array_equal(self._encoded[slots], self.changed[slots]):
                continue
            if self.shape.goals:
                self._keep_goals(encode, slots)
            stream, slot = np.meshgrid(np.arange(self.streams), np.arange(slots.start, slots.stop), indexing="ij")
            part = encode(self._percepts(stream.ravel(), slot.ravel())).reshape(*slot.shape, -1)
            if self._latents is None:
                self._latents = part.new_empty(self.streams, self.length, part.shape[-1])
            self._latents[:, slots] = part
            self._encoded[slots] = self.changed[slots]
        self._current = True
        if self.shape.goals and self._latents is not None:
            self.goal_latents = torch.cat([self._latents[:0, 0], *self._goal_blocks.values()])
            start = 0
            for first, latents in self._goal_blocks.items():
                stream, slot = self._begins(slice(first, min(first + block, self.filled)))
                self.goal_rows[stream, slot] = start + np.arange(len(latents))
                start += len(latents)

    def _begins(self, slots: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream and slot of every episode that begins in these slots."""
        stream, offset = np.nonzero(self.data["age"][:, slots] == 0)
        return stream, offset + slots.start

    def _keep_goals(self, encode: Callable[[Tensor], Tensor], slots: slice) -> None:
        """Compute the latents of the goals of episodes that begin in these slots."""
        begins = self._begins(slots)
        if len(begins[0]):
            self._goal_blocks[slots.start] = encode(self._goal_percepts(*begins))
        else:
            self._goal_blocks.pop(slots.start, None)

    def forget_latents(self) -> None:
        """Perception is no longer at rest."""
        self._latents = self.goal_latents = None
        self._goal_blocks = {}
        self._encoded[:] = -1
        self._current = False

    def _goal_percepts(self, stream: NDArray[np.int64], slot: NDArray[np.int64]) -> Tensor:
        """Percepts ``[N, history, *shape]`` of the goals of episodes that begin in these slots."""
        return torch.from_numpy(np.repeat(self.data["goal"][stream, slot][:, None], self.history, axis=1))

    def _draw_goals(
        self, stream: NDArray[np.int64], start: NDArray[np.int64], goals: int, generator: np.random.Generator
    ) -> Tensor:
        """G goals ``[B, G, …]`` for each start ``[B]``: what its first episode was asked to reach, then what was seen.

        Where the episode's beginning is forgotten, all were seen in it.
        """
        ages = self.data["age"][:, self.slots(np.arange(self.starts(0), dtype=np.int64))].astype(np.int64)
        begin = start - ages[stream, start]
        begun = np.concatenate([ages == 0, np.ones_like(ages[:, :1], np.bool_)], axis=1)  # or the newest entry's end
        end = np.array([at + 1 + begun[e, at + 1 :].argmax() for e, at in zip(stream, start, strict=True)])
        known = begin >= 0
        rows, at = stream[known], self.slots(begin[known])
        seen = self.slots(generator.integers(begin.clip(min=0)[:, None], end[:, None], (len(start), goals)))
        if self.latents is not None and self.goal_latents is not None:
            drawn, wanted = self.latents[stream[:, None], seen], self.goal_latents[self.goal_rows[rows, at]]
        else:
            drawn, wanted = self._percepts(stream[:, None], seen), self._goal_percepts(rows, at)
        drawn[torch.from_numpy(known).to(drawn.device), 0] = wanted
        return drawn

    def _percepts(self, stream: NDArray[np.int64], slot: NDArray[np.int64]) -> Tensor:
        """Percepts ``[..., history, *shape]`` in ring slots ``[...]`` of streams that broadcast against them."""
        age = self.data["age"][stream, slot].astype(np.int64)
        back = np.minimum(
            np.arange(self.history - 1, -1, -1), age[..., None]
        )  # the first frame stands for earlier ones
        frames = (slot[..., None] - back) % self.length
        return torch.from_numpy(self.data["observation"][stream[..., None], frames])

    def starts(self, steps: int) -> int:
        """How many start positions a window of ``steps`` transitions has in each stream."""
        margin = self.history - 1 if self.filled == self.length else 0
        return self.filled - steps - margin

    def slots(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ring slots of positions counted from the oldest readable entry."""
        full = self.filled == self.length
        oldest = self.cursor + self.history - 1 if full else 0
        return (position + oldest) % self.length

    def sample(
        self,
        batch: int,
        steps: int,
        generator: np.random.Generator,
        balance: float = 0.0,
        goals: int = 1,
        past: int = 0,
        rarity: float = 0.0,
        discount: float | None = None,
    ) -> Window:
        """Read B windows of T = ``steps`` transitions at random.

        Args:
            batch: Windows B.
            steps: Transitions T.
            generator: Draws the positions.
            balance: Share of windows that are made to contain an event (a reward, an ending, or a leap of a sensor),
                where there are any.
            goals: Goals G of each window, where goals are remembered.
            past: Percepts P before each window that are read besides.
            rarity: How much oftener rare kinds of events are among these (`event_chance`).
            discount: Of what came after each percept; None: it is not read.

        Raises:
            ValueError: Fewer entries are remembered than a window needs.
        """
        starts = self.starts(steps)
        if starts < 1:
            raise ValueError(
                f"memory has {self.filled} entries of each environment, a window needs {steps + 1} and "
                f"{self.history - 1} of history; collect more first"
            )
        stream = generator.integers(self.streams, size=batch)
        start = generator.integers(starts, size=batch)
        wanted, weight = round(balance * batch), None
        if wanted and (chance := self._chance(starts + steps - 1, rarity)) is not None:
            streams, positions = np.nonzero(chance)
            if rarity:
                pick = generator.choice(len(streams), size=wanted, p=chance[streams, positions])
            else:
                pick = generator.integers(len(streams), size=wanted)
            offset = generator.integers(steps, size=wanted)
            stream[:wanted] = streams[pick]
            start[:wanted] = np.clip(positions[pick] - offset, 0, starts - 1)
            weight = window_weights(chance, stream, start, steps, wanted / batch)
        window = replace(self.read(stream, start, steps, past), weight=weight)
        if discount is not None:
            returns = self._returns(discount)[stream[:, None], start[:, None] + np.arange(steps + 1)]
            window = replace(window, returns=torch.from_numpy(returns))
        if not self.shape.goals:
            return window
        return replace(window, goal=self._draw_goals(stream, start, goals, generator))

    def _returns(self, discount: float) -> NDArray[np.float32]:
        """What came after every readable entry ``[E, N, 3]``, worked out once after each change."""
        key = (self.changes, discount)
        if self._sums is None or self._sums[0] != key:
            order = self.slots(np.arange(self.starts(0), dtype=np.int64))
            felt = (self.data[name][:, order] for name in ("reward", "terminated", "truncated"))
            reward, terminated, truncated = felt
            sums = discounted_sums(
                reward.astype(np.float32), terminated.astype(np.bool_), truncated.astype(np.bool_), discount
            )
            self._sums = key, sums
        return self._sums[1]

    def _chance(self, length: int, rarity: float) -> NDArray[np.float64] | None:
        """How likely each of the streams' first ``length`` entries is to be the event that is drawn ``[E, length]``."""
        order = self.slots(np.arange(length, dtype=np.int64))
        reward = self.data["reward"][:, order].astype(np.float32, copy=False)
        ended = self.data["terminated"][:, order].astype(np.bool_, copy=False)
        leapt = None
        if self.shape.sensors:
            leapt = leaps(
                self.data["sensors"][:, order].astype(np.float32), self.data["age"][:, order].astype(np.int32)
            )
        return event_chance(reward, ended, leapt, rarity)

    def read(self, stream: NDArray[np.int64], start: NDArray[np.int64], steps: int, past: int = 0) -> Window:
        """Read windows by time: ``start`` counts from the oldest readable entry of each ``stream`` ``[B]``."""
        before, remembered = self._past(stream, start, past) if past else (None, None)
        slots = self.slots(start[:, None] + np.arange(steps + 1))
        rows = stream[:, None]
        data = self.data
        terminated = data["terminated"][rows, slots[:, :-1]].astype(np.bool_)
        truncated = data["truncated"][rows, slots[:, :-1]].astype(np.bool_)
        ended = terminated | truncated
        over = np.cumsum(ended, axis=1) > 0
        valid = np.concatenate([np.ones_like(over[:, :1]), ~over[:, :-1]], axis=1)
        return Window(
            observation=self._percepts(rows, slots) if self.latents is None else torch.empty(*slots.shape, 0),
            action=torch.from_numpy(data["action"][rows, slots[:, :-1]]),
            reward=torch.from_numpy(data["reward"][rows, slots[:, :-1]]),
            terminated=torch.from_numpy(terminated.astype(np.float32)),
            truncated=torch.from_numpy(truncated.astype(np.float32)),
            valid=torch.from_numpy(valid.astype(np.float32)),
            known=torch.from_numpy((~over).astype(np.float32)),
            plan=torch.from_numpy(data["plan"][rows, slots]),
            course=torch.from_numpy(data["course"][stream, slots[:, 0]]),
            planned=torch.from_numpy(data["planned"][rows, slots].astype(np.float32)),
            latent=None if self.latents is None else self.latents[torch.from_numpy(rows), torch.from_numpy(slots)],
            past=before,
            remembered=remembered,
            sensors=torch.from_numpy(data["sensors"][rows, slots[:, :-1]]) if self.shape.sensors else None,
        )

    def _past(self, stream: NDArray[np.int64], start: NDArray[np.int64], count: int) -> tuple[Tensor, Tensor]:
        """Percepts before each start ``[B, P, history, *shape]``, and where they are of its episode ``[B, P]``."""
        back = np.arange(count, 0, -1)
        position = start[:, None] - back
        age = self.data["age"][stream, self.slots(start)].astype(np.int64)
        remembered = (position >= 0) & (back <= age[:, None])
        percepts = self._percepts(stream[:, None], self.slots(position.clip(min=0)))
        return percepts, torch.from_numpy(remembered.astype(np.float32))


def _zeros(shape: tuple[int, ...], kind: type[np.generic], mapped: bool) -> Array:
    """Zeros in main memory, or in a temporary file that is mapped into it and goes when the array goes.

    Raises:
        OSError: There is no room for it.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not mapped or not size:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash later
        except OSError as error:
            raise OSError(
                f"{size / 2**30:.1f} GiB of short-term memory do not fit into {tempfile.gettempdir()} ({error}); let "
                "TMPDIR name a folder on a larger disk, or lower schedule.capacity"
            ) from error
        return np.memmap(file, kind, "r+", shape=shape)
