"""Playing: the page's server does what the page asks, and refuses everything else."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from forethought.agent.genie_play import LIMIT, PlayOptions, Session, make_server, picture_text, play_in_terminal
from forethought.envs.genie import GenieVectorEnv
from rich.console import Console

from ..modules.genie.films import cut, film
from ..modules.genie.small import ACTIONS, make, save


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make(), tmp_path_factory.mktemp("world"))


class Page:
    """What a browser would send."""

    def __init__(self, port: int) -> None:
        self.port, self.host = port, f"127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True)
        sent = {"Host": self.host, "Content-Type": "application/json"}
        sent |= {} if body is None else {"Content-Length": str(len(body))}
        for name, value in (sent | {key.replace("_", "-"): value for key, value in headers.items()}).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    def post(self, path: str, body: Any, **headers: str | None) -> tuple[int, dict[str, Any]]:
        status, content = self.ask("POST", path, json.dumps(body).encode(), **headers)
        return status, json.loads(content)


@pytest.fixture
def page(world: Path, tmp_path: Path) -> Iterator[Page]:
    server = make_server(Session(world, PlayOptions(seed=4, out=str(tmp_path / "films"))), 0)
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Page(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def frame(told: dict[str, Any]) -> np.ndarray:
    return iio.imread(io.BytesIO(base64.b64decode(told["frame"].split(",")[1])))


def test_the_page_shows_the_dream_that_the_environment_dreams(page: Page, world: Path) -> None:
    env = GenieVectorEnv(world, 1, seed=4)
    first, _ = env.reset(seed=4)
    status, content = page.ask("GET", "/state")
    told = json.loads(content)
    assert status == 200 and told["actions"] == ACTIONS and told["prompts"] == 3
    assert np.array_equal(frame(told), first[0])
    for number, action in enumerate((2, 0, 3), 1):
        status, told = page.post("/step", {"action": action}, Origin=f"http://{page.host}")
        assert status == 200 and told["step"] == number
        assert np.array_equal(frame(told), env.step(np.array([action]))[0][0])
    status, told = page.post("/reset", {"prompt": 1})
    assert status == 200 and told["step"] == 0
    assert np.array_equal(frame(told), env.reset(options={"prompt": 1})[0][0])


def test_the_page_itself_is_served_and_loads_nothing_from_elsewhere(page: Page) -> None:
    status, content = page.ask("GET", "/")
    text = content.decode()
    assert status == 200 and "<!doctype html>" in text
    assert "http://" not in text and "https://" not in text


def test_dreams_are_recorded(page: Page) -> None:
    page.post("/record", {"on": True})
    for action in (0, 1, 2):
        assert page.post("/step", {"action": action})[1]["recording"]
    status, told = page.post("/record", {"on": False})
    assert status == 200 and not told["recording"]
    assert iio.imread(told["saved"], plugin="pyav").shape == (4, 256, 256, 3)
    assert page.post("/record", {"on": False})[1]["saved"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/step", {"action": ACTIONS}, 400),
        ("/step", {"action": -1}, 400),
        ("/step", {"action": "1"}, 400),
        ("/step", {"action": True}, 400),
        ("/step", {"action": 1.0}, 400),
        ("/step", {"action": None}, 400),
        ("/step", {}, 400),
        ("/step", {"action": 1, "more": 1}, 400),
        ("/step", [1], 400),
        ("/step", "x", 400),
        ("/reset", {"prompt": 99}, 400),
        ("/reset", {"prompt": [[1]]}, 400),
        ("/record", {"on": 1}, 400),
        ("/stop", {"action": 1}, 404),
        ("/../world.json", {}, 404),
    ],
)
def test_what_makes_no_sense_is_refused(page: Page, path: str, body: Any, status: int) -> None:
    found, told = page.post(path, body)
    assert found == status and told["error"]
    assert json.loads(page.ask("GET", "/state")[1])["step"] == 0  # and nothing happened


def test_malformed_requests_are_refused(page: Page) -> None:
    ask = page.ask
    assert ask("POST", "/step", b"{")[0] == 400
    assert ask("POST", "/step", b"[" * 1000)[0] == 400
    assert ask("POST", "/step", b"\xff\xfe")[0] == 400
    assert ask("POST", "/step", b" " * (LIMIT + 1))[0] == 413
    assert ask("POST", "/step", b"{}", Content_Length="99999999999999999999")[0] == 413
    assert ask("POST", "/step", b"", Content_Length="-5")[0] == 411
    assert ask("POST", "/step", b"", Content_Length=None)[0] == 411
    assert ask("POST", "/step", b'{"action": 1}', Content_Type="text/plain")[0] == 415
    assert ask("GET", "/etc/passwd")[0] == 404
    assert ask("PUT", "/step", b"{}")[0] == 501
    assert ask("GET", "/state")[0] == 200  # and it still answers


def test_other_pages_and_other_hosts_are_refused(page: Page) -> None:
    body = {"action": 0}
    assert page.post("/step", body, Origin="http://evil.example")[0] == 403
    assert page.post("/step", body, Origin="null")[0] == 403
    assert page.post("/step", body, Origin=f"https://{page.host}")[0] == 403
    assert page.post("/step", body, Host="evil.example")[0] == 403
    assert page.ask("GET", "/state", Host="evil.example")[0] == 403
    assert page.ask("GET", "/", Host=None)[0] == 403
    assert page.post("/step", body, Origin=f"http://localhost:{page.port}")[0] == 200


def test_a_prompt_of_ones_own_is_the_last_number(world: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "own.gif", height=24, width=24)
    session, env = Session(world, PlayOptions(prompt=str(path))), GenieVectorEnv(world, 1)
    assert len(session.prompts) == len(env.prompts) + 1
    session.reset(len(env.prompts))
    assert np.array_equal(session.frame, env.reset(options={"prompt": path})[0][0])
    with pytest.raises(FileNotFoundError, match=r"there is no picture or video nowhere\.png"):
        Session(world, PlayOptions(prompt="nowhere.png"))
    with pytest.raises(ValueError, match=r"half\.gif was cut short"):
        Session(world, PlayOptions(prompt=str(cut(path, tmp_path / "half.gif", 0.5))))


def test_a_port_in_use_is_named(page: Page, world: Path) -> None:
    session = Session(world, PlayOptions())
    with pytest.raises(OSError, match=f"port {page.port} cannot be used"):
        make_server(session, page.port)
    with pytest.raises(ValueError, match="port is 70000"):
        make_server(session, 70_000)


def test_the_terminal_plays_too(world: Path) -> None:
    session, env = Session(world, PlayOptions(seed=4)), GenieVectorEnv(world, 1, seed=4)
    env.reset(seed=4)
    for action in (0, 2):
        last = env.step(np.array([action]))[0][0]
    console = Console(file=io.StringIO(), width=100)
    play_in_terminal(session, ["13\n", "x\n", "q\n", "1\n"], console)
    assert np.array_equal(session.frame, last) and session.steps == 2
    assert "'x' is no code" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_character_is_two_pixels() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    text = picture_text(picture)
    assert text.plain == "▀▀\n▀▀\n"
    assert str(text.spans[0].style) == "rgb(0,1,2) on rgb(6,7,8)"
