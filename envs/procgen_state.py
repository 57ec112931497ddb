"""Saved states of the Procgen simulator, and the checks that keep a wrong one away from it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ProcgenState:
    """Everything needed to continue a `ProcgenVectorEnv` exactly where it was.

    Attributes:
        simulator: One state of the simulator per environment, its random generators included.
        steps: Steps taken in the current episodes, int64 [B].
    """

    simulator: list[bytes]
    steps: npt.NDArray[np.int64]

    def repeat(self, index: int, count: int) -> ProcgenState:
        """Environment ``index``, ``count`` times."""
        return ProcgenState([self.simulator[index]] * count, np.full(count, int(self.steps[index])))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Plain arrays for saving: `simulator` uint8 [sum of lengths], `lengths` int64 [B], `steps` int64 [B]."""
        return {
            "simulator": np.frombuffer(b"".join(self.simulator), np.uint8),
            "lengths": np.array([len(state) for state in self.simulator], np.int64),
            "steps": self.steps.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> ProcgenState:
        """Undo `to_arrays`.

        Raises:
            ValueError: Arrays are missing or do not fit together.
        """
        if missing := {"simulator", "lengths", "steps"} - arrays.keys():
            raise ValueError(f"A saved Procgen state lacks the arrays {sorted(missing)}; given: {sorted(arrays)}.")
        lengths = np.asarray(arrays["lengths"], np.int64)
        content = np.asarray(arrays["simulator"], np.uint8).tobytes()
        if lengths.ndim != 1 or (lengths <= 0).any() or lengths.sum() != len(content):
            raise ValueError(f"A saved Procgen state of {len(content)} bytes does not fit its lengths {lengths}.")
        ends = np.cumsum(lengths)
        simulator = [content[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        return cls(simulator, np.array(arrays["steps"], np.int64))


def header_of(content: bytes) -> bytes:
    """The part of a state that names game, options and level range: equal for environments built alike."""
    if len(content) < 8:
        return b""
    length = struct.unpack_from("<i", content, 4)[0]  # format version, then the name with its length
    return content[: 8 + max(length, 0) + 15 * 4]  # then twelve options, grid_step, first level, end of levels


def check_state(index: int, content: bytes, header: bytes) -> None:
    """The simulator ends the whole process on a state it cannot read, so look before handing it over."""
    if not content.endswith(b"\xfe\xca\xfe\xca"):
        raise ValueError(f"State {index} of {len(content)} bytes is cut off or damaged. Save it again.")
    if not content.startswith(header):
        given, expected = _describe(header_of(content)), _describe(header)
        raise ValueError(
            f"State {index} belongs to another environment: {given}; expected {expected}. Build the environment with "
            "the game, options and levels of the state."
        )


def _describe(header: bytes) -> str:
    try:
        values = struct.unpack("<15i", header[-60:])
        return f"{header[8:-60].decode('ascii')!r} with options {values[:13]} on levels [{values[13]}, {values[14]})"
    except (struct.error, UnicodeDecodeError):
        return "unreadable"
