"""Input that hypothesis invents and makes small: files, settings, weights, returns.

Examples are derandomised: the same whenever the same tests run together. What a person would think of is in
`test_hostile.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import load_agent, save_agent
from forethought.agent.config import RunConfig
from forethought.modules.cost import IntrinsicCost, floored
from forethought.modules.critic import lambda_returns
from forethought.modules.storage import (
    array_bytes,
    from_json,
    parse_array,
    parse_json,
    parse_tensors,
    tensor_bytes,
    to_json,
)
from forethought.modules.types import DRIVES, INTEROCEPTION
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .agent.small import SEEK, fingerprints, tiny, wake
from .test_hostile import places, refused

fuzz = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=10), part, max_size=4),
    max_leaves=12,
)
EDITS = st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=6)
TENSORS = {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(7)}
ARRAY = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


def edited(content: bytes, edits: list[tuple[int, int]], cut: int | None, more: bytes) -> bytes:
    """The content with some bytes replaced, its end cut off, and something added."""
    changed = bytearray(content)
    for place, byte in edits:
        changed[place % len(changed)] = byte
    return bytes(changed[: None if cut is None else cut % len(changed)]) + more


def kept(written: Any, read: Any) -> bool:
    """Whether all that was written was read; objects may have got more entries."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(name in read and kept(part, read[name]) for name, part in written.items())
    return bool(written == read)


def answer(load: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether it was refused, else what was read."""
    found: list[Any] = []
    return refused(lambda: found.append(load())), found[0] if found else None


@fuzz
@given(EDITS, st.none() | st.integers(0, 2**31), st.binary(max_size=40))
def test_no_edit_of_a_weights_file_gets_in(edits: list[tuple[int, int]], cut: int | None, more: bytes) -> None:
    whole = tensor_bytes(TENSORS)
    changed = edited(whole, edits, cut, more)
    known, read = answer(lambda: parse_tensors(changed))
    assert known or (read.keys() == TENSORS.keys() and all(torch.equal(read[name], TENSORS[name]) for name in TENSORS))
    if changed == whole:
        assert not known


@fuzz
@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_tensors_or_an_array(content: bytes) -> None:
    refused(lambda: parse_tensors(content))
    assert answer(lambda: parse_array(content, ARRAY.shape, ARRAY.dtype))[0]


@fuzz
@given(EDITS, st.none() | st.integers(0, 2**31), st.binary(max_size=40))
def test_an_edited_array_is_refused_or_has_its_shape(
    edits: list[tuple[int, int]], cut: int | None, more: bytes
) -> None:
    changed = edited(array_bytes(ARRAY), edits, cut, more)
    known, read = answer(lambda: parse_array(changed, ARRAY.shape, ARRAY.dtype))
    assert known or (read.shape == ARRAY.shape and read.dtype == ARRAY.dtype)


@fuzz
@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode) | ANY_JSON.map(json.dumps).map(str.encode))
def test_json_is_read_as_the_standard_library_reads_it(content: bytes) -> None:
    known, read = answer(lambda: parse_json(content))
    if not known:
        assert read == json.loads(content.decode())


@fuzz
@given(ANY_JSON)
def test_no_json_is_taken_for_settings(value: Any) -> None:
    known, read = answer(lambda: from_json(RunConfig, value))
    assert known or isinstance(read, RunConfig)


@fuzz
@given(st.integers(0, 2**31), ANY_JSON)
def test_settings_with_anything_anywhere_are_refused_or_kept(place: int, value: Any) -> None:
    """A legal value somewhere else is what was meant and kept; what is missing gets its default."""
    content = to_json(tiny())
    options = list(places(content))
    *way, last = options[place % len(options)]
    inside = content
    for key in way:
        inside = inside[key]
    inside[last] = value
    content = json.loads(json.dumps(content))
    known, read = answer(lambda: from_json(RunConfig, content))
    if not known:
        assert kept(content, json.loads(json.dumps(to_json(read))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An agent's folder, and what its weights are."""
    agent, folder = wake(Agent(tiny(), SEEK)), tmp_path_factory.mktemp("agent")
    save_agent(agent, folder)
    return folder, fingerprints(agent)


@fuzz
@given(name=st.sampled_from(["config.json", "weights.safetensors"]), edits=EDITS, cut=st.none() | st.integers(0, 2**31))
def test_no_edit_of_an_agent_gets_in(
    saved: tuple[Path, dict[str, Any]], name: str, edits: list[tuple[int, int]], cut: int | None
) -> None:
    folder, whole = saved
    before = (folder / name).read_bytes()
    try:
        (folder / name).write_bytes(edited(before, edits, cut, b""))
        known, agent = answer(lambda: load_agent(folder, device="cpu"))
        assert known or fingerprints(agent) == whole
    finally:
        (folder / name).write_bytes(before)


NUMBER = st.floats(-1e6, 1e6, width=32)


@fuzz
@given(st.lists(NUMBER, min_size=len(DRIVES), max_size=len(DRIVES)), st.floats(0, 1), st.floats(0, 3))
def test_no_weights_make_the_end_or_a_hazard_worth_seeking(weights: list[float], ended: float, distance: float) -> None:
    """Whatever the weights: an end costs no less than none, a near hazard no less than a far one."""
    u, cost = torch.tensor(weights), IntrinsicCost()
    assert (floored(u)[[DRIVES.index("ending"), DRIVES.index("hazard")]] >= 0).all()
    safe, iota = torch.zeros(len(INTEROCEPTION)), torch.zeros(len(INTEROCEPTION))
    hazard, end = INTEROCEPTION.index("hazard_distance"), INTEROCEPTION.index("ended")
    safe[hazard], iota[hazard], iota[end] = distance + 0.5, distance, ended
    assert (cost(iota, u) - cost(safe, u) >= 0)[[DRIVES.index("ending"), DRIVES.index("hazard")]].all()


@fuzz
@given(st.lists(st.tuples(NUMBER, st.floats(0, 1), NUMBER), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_lambda_returns_are_those_of_a_plain_loop(
    steps: list[tuple[float, float, float]], discount: float, trace: float
) -> None:
    costs, goes_on, values = (torch.tensor(column, dtype=torch.float64) for column in zip(*steps, strict=True))
    found = lambda_returns(costs[:, None], goes_on, values[:, None], discount, trace)[:, 0]
    following = float(values[-1])
    for t in reversed(range(len(steps))):
        mixed = (1 - trace) * float(values[t]) + trace * following
        following = float(costs[t]) + discount * float(goes_on[t]) * mixed
        assert float(found[t]) == pytest.approx(following, rel=1e-9, abs=1e-6)
