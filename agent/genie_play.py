"""Playing in a Genie world, with the true one beside it: one page on this machine's loopback address, or the terminal.

The page asks for one frame per key; nothing is kept open. Requests are refused unless they come from the page itself:
the Host must be this address (against DNS rebinding), an Origin must be it too, and a body is small JSON.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.text import Text

from ..envs.genie import GenieVectorEnv
from ..modules.genie.reading import read_prompt
from .genie_real import Meaning, TrueSide, home_of, learn_map, play_labels

PAGE = Path(__file__).with_name("genie_play.html")
LIMIT = 1024
"""Bytes of a request's body."""
_LONGEST = 3_600  # frames of a recording
_FPS = 10


@dataclass(frozen=True)
class PlayOptions:
    """Options of `forethought genie play`."""

    port: int = 8765
    """Port on the loopback address; 0 takes a free one."""
    terminal: bool = False
    """Draw in the terminal and read codes from it instead of serving a page."""
    steps: int = 0
    """MaskGIT steps per frame; 0: the world's own. Fewer are faster."""
    temperature: float = -1.0
    """Sampling temperature; negative: the world's own."""
    seed: int = 0
    """Seed of the dream."""
    out: str = "recordings"
    """Folder of the MP4 files that are recorded while playing."""
    beside: bool = True
    """Play the true environment beside the dream, where the world says which it was recorded in."""
    labels: int = 256
    """Steps of random play there, from which it is learned what the codes mean."""
    meaning: Meaning = "dictionary"
    """How codes become real actions: dictionary (by the code alone) or decoder (by code and frame)."""
    prompt: str = ""
    """A picture or video of your own to begin with; it comes after the world's own prompts."""


class Session:
    """One dream that is played, perhaps beside the truth, and perhaps recorded.

    Args:
        world: Folder of the world.
        options: How it is dreamed.

    Raises:
        FileNotFoundError: No world there, or no such prompt.
        ValueError: The prompt cannot be read, or options that do not fit.
    """

    def __init__(self, world: Path, options: PlayOptions) -> None:
        self.env = GenieVectorEnv(
            world,
            1,
            seed=options.seed,
            max_steps=10**9,
            sampling_steps=options.steps or None,
            temperature=None if options.temperature < 0 else options.temperature,
        )
        self.name, self.out, self.lock = world.name, Path(options.out), threading.Lock()
        self.tape: list[NDArray[np.uint8]] | None = None
        config = self.env.world.config
        self.prompts = list(self.env.prompts)
        if options.prompt:
            self.prompts.append(read_prompt(Path(options.prompt), config.height, config.width, config.context))
        self.truth = _true_side(self.env, options) if options.beside else None
        self.together = False  # whether the true environment shows the same story
        self.frame = self.env.reset(seed=options.seed)[0][0]
        self.reset(None, draw=False)

    @property
    def actions(self) -> int:
        """Latent actions."""
        return self.env.world.actions

    def reset(self, prompt: int | None, draw: bool = True) -> None:
        """Begin anew: from a prompt, or without one where the true environment begins, or from one drawn at random.

        Raises:
            ValueError: No such prompt.
        """
        if prompt is not None and not 0 <= prompt < len(self.prompts):
            raise ValueError(f"prompt is {prompt}; expected 0 to {len(self.prompts) - 1}")
        self.together = prompt is None and self.truth is not None
        if self.truth is not None and prompt is None:
            self.frame = self.env.begin_from(self.truth.reset())[0]
        elif prompt is not None:
            self.frame = self.env.reset(options={"prompt": self.prompts[prompt]})[0][0]
        elif draw:
            self.frame = self.env.reset()[0][0]
        self.steps, self.total = 0, 0.0
        self._keep()

    def follow(self, frames: int) -> None:
        """Let the dream go on from the last frames of the true environment.

        Raises:
            ValueError: There is none, or not so many frames.
        """
        if self.truth is None or not self.together:
            raise ValueError("no true environment is played beside this dream; begin anew without a prompt")
        most = self.truth.window.frames.shape[1]
        if not 1 <= frames <= most:
            raise ValueError(f"frames is {frames}; expected 1 to {most}")
        self.frame = self.env.begin_from(self.truth.window.frames[:, -frames:])[0]
        self._keep()

    def step(self, action: int) -> None:
        """Dream on by one frame.

        Raises:
            ValueError: No such action.
        """
        if not 0 <= action < self.actions:
            raise ValueError(f"action is {action}; expected 0 to {self.actions - 1}")
        observation, reward, *_ = self.env.step(np.array([action]))
        self.frame, self.steps, self.total = observation[0], self.steps + 1, self.total + float(reward[0])
        if self.truth is not None and self.together:
            self.truth.step(action)
        self._keep()

    def record(self, on: bool) -> str | None:
        """Start recording, or stop and write the MP4; its path."""
        if on:
            self.tape = [self.shown]
            return None
        if not self.tape:
            return None
        self.out.mkdir(parents=True, exist_ok=True)
        number = len(list(self.out.glob("dream-*.mp4")))
        path = self.out / f"dream-{number:03}.mp4"
        scale = max(1, 256 // self.frame.shape[0])
        film = np.stack(self.tape).repeat(scale, 1).repeat(scale, 2)
        film = film[:, : film.shape[1] // 2 * 2, : film.shape[2] // 2 * 2]  # the codec wants even sides
        iio.imwrite(path, film, plugin="pyav", codec="libx264", fps=_FPS)
        self.tape = None
        return str(path)

    def tell(self) -> dict[str, Any]:
        """What the page shows."""
        truth = self.truth if self.together else None
        return {
            "world": self.name,
            "actions": self.actions,
            "prompts": len(self.prompts),
            "step": self.steps,
            "reward": round(self.total, 3),
            "recording": self.tape is not None,
            "frame": _as_url(self.frame),
            "beside": self.truth is not None,
            "truth": None if truth is None else _as_url(truth.frame),
            "taken": "" if truth is None else truth.taken,
            "true_reward": 0.0 if truth is None else round(truth.total, 3),
            "ended": truth is not None and truth.ended,
        }

    @property
    def shown(self) -> NDArray[np.uint8]:
        """The dream, and beside it the truth where there is one, grey where it cannot show this dream's story."""
        frame: NDArray[np.uint8] = self.frame
        if self.truth is None:
            return frame
        height = len(self.frame)
        true = self.truth.frame if self.together else np.full_like(self.frame, 128)
        gap = np.full((height, max(1, height // 16), 3), 255, np.uint8)
        both: NDArray[np.uint8] = np.concatenate([self.frame, gap, true], 1)
        return both

    def _keep(self) -> None:
        if self.tape is not None and len(self.tape) < _LONGEST:
            self.tape.append(self.shown)


def _true_side(env: GenieVectorEnv, options: PlayOptions) -> TrueSide | None:
    """The true environment, once it is known what the codes mean in it; None where the world does not name it."""
    home = home_of(env.about)
    if home is None:
        return None
    known = play_labels(env.world, home, options.labels, options.seed, env.device)
    return TrueSide(env.world, home, learn_map(env.world, known, options.meaning, options.seed), options.seed)


def _as_url(frame: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Refusal(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(session: Session, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Do what a POST asks.

    Args:
        session: The dream.
        path: `/reset`, `/step`, `/follow` or `/record`.
        body: The request's JSON.

    Raises:
        Refusal: An unknown path, or a body that does not fit.
    """
    wanted: dict[str, tuple[str, type[Any]]] = {
        "/reset": ("prompt", int),
        "/step": ("action", int),
        "/follow": ("frames", int),
        "/record": ("on", bool),
    }
    if path not in wanted:
        raise Refusal(HTTPStatus.NOT_FOUND, f"no such address {path[:40]}")
    name, kind = wanted[path]
    value = body.get(name)
    if set(body) - {name} or (type(value) is not kind and not (path == "/reset" and value is None)):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"expected {{{name!r}: {kind.__name__}}}")
    with session.lock:
        saved = None
        try:
            if path == "/reset":
                session.reset(value)
            elif path == "/step":
                session.step(int(value))  # type: ignore[arg-type]
            elif path == "/follow":
                session.follow(int(value))  # type: ignore[arg-type]
            else:
                saved = session.record(bool(value))
        except ValueError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error
        except OSError as error:  # of a recording
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"could not write the recording ({error})") from error
        return session.tell() | {"saved": saved}


def make_server(session: Session, port: int) -> ThreadingHTTPServer:
    """A server of the page on 127.0.0.1; nobody else can reach it.

    Raises:
        OSError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            self._serve(self._get)

        def do_POST(self) -> None:
            self._serve(self._post)

        def _serve(self, work: Callable[[], tuple[str, bytes]]) -> None:
            try:
                self._check_sender()
                self._send(HTTPStatus.OK, *work())
            except Refusal as refusal:
                self.close_connection = True
                self._send(refusal.status, "application/json", json.dumps({"error": str(refusal)}).encode())

        def _get(self) -> tuple[str, bytes]:
            if self.path == "/":
                return "text/html; charset=utf-8", PAGE.read_bytes()
            if self.path == "/state":
                with session.lock:
                    return "application/json", json.dumps(session.tell()).encode()
            raise Refusal(HTTPStatus.NOT_FOUND, f"no such address {self.path[:40]}")

        def _post(self) -> tuple[str, bytes]:
            if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
                raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
            return "application/json", json.dumps(answer(session, self.path, self._body())).encode()

        def _body(self) -> dict[str, Any]:
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit()):
                raise Refusal(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
            if len(length) > 9 or int(length) > LIMIT:
                raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {LIMIT} bytes")
            try:
                body = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError, TimeoutError) as error:
                raise Refusal(HTTPStatus.BAD_REQUEST, "expected JSON") from error
            if not isinstance(body, dict):
                raise Refusal(HTTPStatus.BAD_REQUEST, "expected a JSON object")
            return body

        def _check_sender(self) -> None:
            hosts = {f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")}
            origin = self.headers.get("Origin")
            if self.headers.get("Host") not in hosts:
                raise Refusal(HTTPStatus.FORBIDDEN, "this page is served to this machine only")
            if origin is not None and origin not in {f"http://{host}" for host in hosts}:
                raise Refusal(HTTPStatus.FORBIDDEN, "another page may not play here")

        def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header(
                "Content-Security-Policy",
                "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                "connect-src 'self'; frame-ancestors 'none'",
            )
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of single requests."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of who hangs up or is too slow; anything else is a bug and keeps its traceback."""
            if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
                super().handle_error(request, client_address)

    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, expected 0 (any free one) to 65535")
    try:
        return Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise OSError(
            f"port {port} cannot be used ({error.strerror}); give another with --port, or 0 for any"
        ) from error


def play(world: Path, options: PlayOptions, say: Callable[[str], None]) -> None:
    """Play until Ctrl-C.

    Args:
        world: Folder of the world.
        options: How.
        say: Tells the player where to look.
    """
    say(f"opening {world}" + (f" and its true environment ({options.labels} labels)" if options.beside else ""))
    session = Session(world, options)
    if options.terminal:
        play_in_terminal(session, sys.stdin, Console())
        return
    server = make_server(session, options.port)
    say(f"play at http://127.0.0.1:{server.server_address[1]} (keys 1 to {session.actions}); Ctrl-C ends it")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("ended")
    finally:
        server.server_close()


def play_in_terminal(session: Session, lines: io.TextIOBase | Any, console: Console) -> None:
    """Draw frames with half blocks; each line typed holds codes (123 takes three steps), r begins anew, q ends."""
    say = f"codes 1 to {session.actions}, r begins anew, q ends"
    console.print(picture_text(session.shown), say)
    for line in lines:
        for key in line.strip().lower():
            if key == "q":
                return
            if key == "r":
                session.reset(None)
            elif key.isascii() and key.isdigit() and 1 <= int(key) <= session.actions:
                session.step(int(key) - 1)
            else:
                console.print(f"{key!r} is no code: {say}")
                break
        console.print(picture_text(session.shown), f"step {session.steps}")


def picture_text(frame: NDArray[np.uint8]) -> Text:
    """A frame ``[H, W, 3]`` as text: each character is two pixels, one above the other."""
    text = Text()
    for top, bottom in zip(frame[0::2], frame[1::2], strict=False):
        for upper, lower in zip(top, bottom, strict=True):
            colours = [f"rgb({pixel[0]},{pixel[1]},{pixel[2]})" for pixel in (upper, lower)]
            text.append("▀", style=f"{colours[0]} on {colours[1]}")
        text.append("\n")
    return text
