"""The play page itself: its script runs against the real server, in a browser and in Node where they are installed."""

from __future__ import annotations

import base64
import io
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from forethought.agent.genie_play import PAGE, PlayOptions, Session, answer, make_server
from forethought.envs.genie import PRETRAINED, GenieVectorEnv
from forethought.envs.sprite import MOVES, SpriteVectorEnv

from .browsers import Action, Browser, find_browser, run_in_node
from .sprites import find

BROWSER, NODE = find_browser(), shutil.which("node")
ACTIONS: list[Action] = [
    ("key", "v"), ("key", "1"), ("key", "3"), ("click", "#codes button:nth-child(5)"), ("key", "9"), ("key", "v"),
    ("key", "t"), ("type", "2"), ("click", "#reset"), ("key", "2"), ("key", "T"), ("type", "99"), ("key", "r"),
    ("type", ""), ("key", "R"),
]  # fmt: skip


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """The small world that comes along, with the sprite's box beside it."""
    return Session(PRETRAINED, PlayOptions(seed=3, labels=48, out=str(tmp_path / "films")))


@pytest.fixture
def url(session: Session) -> Iterator[str]:
    server = make_server(session, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def picture(source: str) -> np.ndarray:
    return iio.imread(io.BytesIO(base64.b64decode(source.split(",")[1])))


def check_story(seen: list[dict[str, Any]]) -> None:
    """What a player must have seen after each of ACTIONS."""
    begun, _, one, two, clicked, nothing, saved, followed, _, prompted, alone, refused, _, wrong, _, again = seen
    assert begun["beside"] and begun["buttons"] == 5 and begun["error"] == ""
    truth, dream = SpriteVectorEnv(1), GenieVectorEnv(PRETRAINED, 1)
    dream.reset(seed=3)
    first, _ = truth.reset(seed=3)
    assert np.array_equal(picture(begun["truth"]), first[0])
    dream.begin_from(first[:, None])
    moves = {tuple(move) for move in MOVES.tolist()}
    before = find(first)[0]
    for shown, code in ((one, 0), (two, 2), (clicked, 4)):
        assert np.array_equal(picture(shown["frame"]), dream.step(np.array([code]))[0][0])
        place = find(picture(shown["truth"]))
        assert tuple((place - before).tolist()) in moves
        before = place
    assert "step 3" in clicked["told"] and nothing == clicked  # there is no ninth code
    assert re.search(r"saved .*dream-000\.mp4", saved["told"]) and saved["tape"].startswith("record")
    assert one["tape"].startswith("stop")
    assert np.array_equal(find(picture(followed["frame"])), before)  # the dream goes on from the truth
    expected, _ = dream.reset(options={"prompt": 2})
    assert np.array_equal(picture(prompted["frame"]), expected[0])
    assert "begin anew" in prompted["trueTold"] and not prompted["truth"].startswith("data:")
    assert np.array_equal(picture(alone["frame"]), dream.step(np.array([1]))[0][0])
    assert "no true environment" in refused["error"] and "prompt is 99" in wrong["error"]
    assert again["error"] == "" and "step 0" in again["told"]
    assert np.array_equal(find(picture(again["frame"])), find(picture(again["truth"])))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install one, or name it in FORETHOUGHT_BROWSER")
def test_the_page_plays_in_a_real_browser(url: str) -> None:
    assert BROWSER is not None
    with Browser(BROWSER) as browser:
        check_story(browser.run(url, ACTIONS))
        assert browser.evaluate("document.getElementById('frame').naturalWidth") == 16  # the picture was drawn


@pytest.mark.skipif(NODE is None, reason="no Node here, which would run the page's script")
def test_the_page_s_script_plays_without_a_browser(url: str, session: Session) -> None:
    assert NODE is not None
    check_story(run_in_node(NODE, url, PAGE.read_text(), ACTIONS))
    film = iio.imread(session.out / "dream-000.mp4", plugin="pyav")
    assert film.shape == (4, 256, (16 + 1 + 16) * 16, 3)  # dream and truth side by side


def test_page_and_server_speak_of_the_same_things(session: Session) -> None:
    """Every message that the script sends is understood, and all that it reads is told."""
    page = PAGE.read_text()
    sent = set(re.findall(r'send\("(/\w+)", \{(\w+):', page))
    assert {path for path, _ in sent} == {"/step", "/reset", "/follow", "/record"}
    values: dict[str, Any] = {"action": 0, "prompt": None, "frames": 1, "on": False}
    answer(session, "/reset", {"prompt": None})
    for path, name in sorted(sent):
        told = answer(session, path, {name: values[name]})
        assert set(re.findall(r"told\.(\w+)", page)) <= {*told, "error"}  # refusals have that
    ids = set(re.findall(r'\bat\("([\w-]+)"\)', page))
    assert ids and ids <= set(re.findall(r' id="([\w-]+)"', page))
