"""Damaged and hostile worlds, data sets, settings and messages: refused in one line, quickly, and nothing is run.

`tests/agent/test_damage.py` does the same to checkpoints and agents, `tests/modules/test_storage.py` to single files.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.checkpoint import load_agent, save_agent
from forethought.agent.genie_play import PlayOptions, Session, make_server
from forethought.agent.ppo import load_ppo, train_ppo
from forethought.modules.genie.files import load_prompts, load_settings, load_world
from forethought.modules.genie.video import VideoDataset

from .agent.small import SEEK, fingerprint, fingerprints, tiny, wake
from .agent.test_damage import flips
from .agent.test_genie_training import noise
from .agent.test_sb3 import SMALL as PPO
from .modules.genie.small import make, save

CPU = torch.device("cpu")
SECONDS = 5.0
JUNK: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**300, 0.5, -1e308, "", "x", "../../etc/passwd", "__import__('os')",
    [], [[]], [-1], [10**9] * 3, {}, {"x": {}}, {"__class__": "os.system"}, [1] * 100_000,
]  # fmt: skip


def refused(load: Callable[[], Any]) -> bool:
    """Whether it is refused in one line; what is not must work, and both within a few seconds of computing."""
    begun = time.process_time()
    try:
        load()
        known = False
    except (ValueError, FileNotFoundError) as error:
        known = True
        assert str(error) and "\n" not in str(error), error
    assert time.process_time() - begun < SECONDS
    return known


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*at, key))


def spoiled(content: Any, draws: np.random.Generator) -> str:
    """JSON in which one thing is missing, is there twice under another name, or is something else."""
    changed = json.loads(json.dumps(content))
    options = list(places(changed))
    *way, last = options[draws.integers(len(options))]
    inside = changed
    for key in way:
        inside = inside[key]
    kind = draws.integers(8)
    if kind == 0:
        del inside[last]
    elif kind == 1 and isinstance(inside, dict):
        inside[f"{last}s"] = inside[last]
    else:
        inside[last] = JUNK[draws.integers(len(JUNK))]
    return json.dumps(changed)


def harm(path: Path, draws: np.random.Generator) -> bytes:
    """Spoil a file; returns what it was."""
    before = path.read_bytes()
    if path.suffix == ".json" and draws.random() < 0.7:
        path.write_text(spoiled(json.loads(before), draws))
    else:
        path.write_bytes(flips(len(before), draws)(before))
    return before


# ---- worlds and data sets


def test_no_damage_to_a_world_gets_in(tmp_path: Path) -> None:
    """60 worlds with one damaged file each: refused, or a whole world with legal settings and the same weights."""
    folder = save(make(), tmp_path / "world")
    whole, draws = fingerprint(load_world(folder, CPU)), np.random.default_rng(20)
    files = sorted(folder.iterdir())
    assert len(files) == 6
    count = dict.fromkeys((path.name for path in files), 0)
    loaded: list[Any] = []

    def load() -> None:
        loaded[:] = [load_world(folder, CPU), load_prompts(folder, load_settings(folder)[0])]

    for case in range(60):
        path = files[case % len(files)]
        before = harm(path, draws)
        known = refused(load)
        if not known and path.name != "prompts.npy":
            assert fingerprint(loaded[0]) == whole, (case, path.name)
        count[path.name] += known
        path.write_bytes(before)
    assert all(count[name] == 10 for name in count if name.endswith(".safetensors")), count
    assert count["world.json"] > 2 and count["prompts.npy"] > 0, count  # pixels have no checksum


def test_no_damage_to_a_data_set_gets_in(tmp_path: Path) -> None:
    """150 data sets with one damaged file each: refused, or frames and labels that windows can be read from."""
    noise(tmp_path, 5)
    folder, draws = tmp_path / "train", np.random.default_rng(21)
    files = [tmp_path / "dataset.json", *sorted(folder.rglob("*.npy"))]
    assert len(files) == 6
    count = dict.fromkeys((path.name for path in files), 0)

    def load() -> None:
        data = VideoDataset(tmp_path, "train")
        starts = data.starts(3)
        assert data.read(starts, 3).shape[1:] == (3, data.height, data.width, 3)
        for name, kind in (("actions", np.int64), ("rewards", np.float32), ("ended", np.bool_)):
            assert data.read_label(name, starts, 3).dtype == kind
        assert isinstance(data.labelled, bool)

    for case in range(150):
        path = files[case % len(files)]
        before = harm(path, draws)
        count[path.name] += refused(load)
        path.write_bytes(before)
    assert not refused(load) and sum(count.values()) > 50 and min(count.values()) > 0, count


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("clips-0000", np.zeros(3, np.int64), "3 clips in chunk 0"),
        ("clips-0000", np.arange(25) * 2**40, "not counted one by one"),
        ("clips-0000", np.repeat([-1, 0, 1, 2, 3], 5), "not counted one by one"),
        ("labels/actions-0000", np.full(25, 2**60), "actions from 1152921504606846976"),
        ("labels/actions-0000", np.full(25, -2), "actions from -2"),
        ("labels/rewards-0000", np.zeros(24, np.float32), "24 rewards"),
        ("labels/ended-0000", np.zeros(26, np.bool_), "26 ended"),
        ("frames-0000", np.zeros((25, 16, 16, 4), np.uint8), "frames of the sizes"),
        ("frames-0000", np.zeros((0, 16, 16, 3), np.uint8), "0 frames"),
    ],
)
def test_chunks_that_do_not_fit_each_other_are_refused(name: str, array: Any, match: str, tmp_path: Path) -> None:
    noise(tmp_path, 5)
    np.save(tmp_path / "train" / f"{name}.npy", array)
    with pytest.raises(ValueError, match=match):
        VideoDataset(tmp_path, "train")


def test_worlds_that_fit_no_machine_are_refused_by_their_shapes(tmp_path: Path) -> None:
    folder = save(make(), tmp_path / "world")
    content = json.loads((folder / "world.json").read_text())
    for part, name, value in (
        ("dynamics", "width", 65_536), ("dynamics", "blocks", 10**9), ("tokenizer", "width", 2**60),
        ("tokenizer", "levels", [60_000] * 4), ("tokenizer", "levels", [2] * 100_000), ("latent_action", "heads", 0),
        ("latent_action", "actions", 60_000), ("tokenizer", "patch", 0),
    ):  # fmt: skip
        changed = json.loads(json.dumps(content))
        changed["config"][part][name] = value
        (folder / "world.json").write_text(json.dumps(changed))
        assert refused(lambda: load_world(folder, CPU)), (part, name, value)


# ---- settings


def test_no_spoiled_settings_of_an_agent_get_in(tmp_path: Path) -> None:
    """120 config.json with one thing wrong: refused, or a whole agent with legal settings."""
    save_agent(wake(Agent(tiny(), SEEK)), tmp_path)
    whole, draws = fingerprints(load_agent(tmp_path)), np.random.default_rng(22)
    content = json.loads((tmp_path / "config.json").read_text())
    loaded: list[Agent] = []
    count = 0
    for case in range(120):
        (tmp_path / "config.json").write_text(spoiled(content, draws))
        known = refused(lambda: loaded.append(load_agent(tmp_path)))
        count += known
        assert known or fingerprints(loaded[-1]) == whole, case
    assert count > 60


def test_no_damage_to_a_ppo_policy_gets_in(tmp_path: Path) -> None:
    """60 folders with one damaged file each: refused, or the same policy."""
    from dataclasses import replace

    config = replace(PPO, steps=1, rollout=8, env=replace(PPO.env, num_envs=2), minibatches=2, epochs=1)
    whole = fingerprint(train_ppo(config, tmp_path).policy)
    draws, count = np.random.default_rng(23), 0
    loaded: list[Any] = []
    for case in range(60):
        path = tmp_path / ("ppo.json", "policy.safetensors")[case % 2]
        before = harm(path, draws)
        known = refused(lambda: loaded.append(load_ppo(tmp_path)))
        count += known
        assert known or fingerprint(loaded[-1].policy) == whole, case
        path.write_bytes(before)
    assert count > 40


# ---- messages to the play server


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    session = Session(save(make(), tmp_path / "world"), PlayOptions(seed=4, out=str(tmp_path / "films")))
    server = make_server(session, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def exchange(port: int, message: bytes, wait: bool = True) -> bytes:
    """Send bytes and hang up, at once or after the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(message)
            if not wait:
                return b""
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        except ConnectionError:
            return b""
    return answer


def request(port: int, path: str, body: bytes, **headers: str) -> bytes:
    told = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", "Content-Length": str(len(body))} | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def test_the_play_server_answers_or_refuses_whatever_it_is_sent(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """260 messages: JSON of all kinds, damaged requests, files that are not the page's, and people who hang up."""
    draws, statuses = np.random.default_rng(24), {}
    paths = ["/reset", "/step", "/record", "/../../etc/passwd", "//etc/passwd", "/state", "/world.json", "/%2e%2e/x"]
    names = ["prompt", "action", "on", "x"]
    proper = request(port, "/step", b'{"action": 1}')
    for case in range(260):
        kind = case % 4
        if kind == 0:  # JSON of all kinds
            body = json.dumps({names[draws.integers(4)]: JUNK[draws.integers(len(JUNK) - 1)]}).encode()
            message = request(port, paths[draws.integers(len(paths))], body)
        elif kind == 1:  # damaged requests
            message = flips(len(proper), draws)(proper)
        elif kind == 2:  # strange headers
            name = ["Host", "Origin", "Content-Length", "Content-Type", "Transfer-Encoding"][draws.integers(5)]
            value = ["", "evil.example", "null", "-1", "1e3", "chunked", "x" * 70_000, "٣", "9" * 40][draws.integers(9)]
            message = request(port, "/step", b'{"action": 1}', **{name: value})
        else:  # bytes that are no request
            message = draws.bytes(int(draws.integers(1, 400))) + b"\r\n\r\n" * int(draws.integers(2))
        answer = exchange(port, message, wait=draws.random() < 0.8)
        if answer:
            status = answer.split(b" ", 2)[1][:3].decode() if answer.startswith(b"HTTP/") else "0.9"
            statuses[status] = statuses.get(status, 0) + 1
            assert b"root:" not in answer and b"Traceback" not in answer and status not in {"500", "502"}, message
    assert statuses["400"] > 20 and statuses["403"] > 2 and statuses["404"] > 5 and statuses["200"] > 5, statuses
    answer = exchange(port, f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 200") and b'"frame"' in answer  # it still answers
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["films", "world"], ["world"])


def test_a_recording_that_cannot_be_written_is_told(port: int, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "films", ignore_errors=True)
    (tmp_path / "films").write_text("a file in the way")
    exchange(port, request(port, "/record", b'{"on": true}'))
    answer = exchange(port, request(port, "/record", b'{"on": false}'))
    assert b" 500 " in answer and b"could not write the recording" in answer
