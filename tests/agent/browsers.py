"""Two ways to run the play page's own script: a headless Chromium, and Node with a few stand-ins for a document."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Action = tuple[str, str]
"""key and what is pressed, click and a CSS selector, or type and what the prompt's field then holds."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
SNAPSHOT = """JSON.stringify({
  frame: document.getElementById("frame").src || "", truth: document.getElementById("truth").src || "",
  beside: !document.getElementById("beside").hidden, buttons: document.getElementById("codes").children.length,
  told: document.getElementById("told").textContent, trueTold: document.getElementById("true-told").textContent,
  error: document.getElementById("error").textContent, tape: document.getElementById("tape").textContent})"""


def find_browser() -> str | None:
    """A Chromium: that of FORETHOUGHT_BROWSER, one on the path, or Playwright's."""
    named = os.environ.get("FORETHOUGHT_BROWSER")
    installed = [path for name in NAMES if (path := shutil.which(name))]
    cache = Path.home() / ".cache" / "ms-playwright"
    ours = sorted(
        str(path) for path in cache.glob("chromium*/chrome-linux*/*") if path.name in {"chrome", "headless_shell"}
    )
    return next(iter([named] if named else [*installed, *ours]), None)


LAUNCH = """
import os, sys
read, write = int(sys.argv[1]), int(sys.argv[2])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A headless Chromium, spoken to over a pipe (the DevTools protocol); closes with its `with` block."""

    def __init__(self, program: str) -> None:
        (read, self._write), (self._read, write) = os.pipe(), os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (read, write)]  # the browser wants 3 and 4
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # a dying helper may still write there
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                   "--no-zygote", "--disable-dev-shm-usage", f"--user-data-dir={self.home.name}"]  # fmt: skip
        options += os.environ.get("FORETHOUGHT_BROWSER_OPTIONS", "").split()
        launch = [sys.executable, "-c", LAUNCH, *map(str, high), program, *options]
        self.process = subprocess.Popen(
            launch, pass_fds=high, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        for end in (read, write, *high):
            os.close(end)
        self._waiting, self._number, self.session = b"", 0, ""

    def __enter__(self) -> Browser:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # its helpers too: they outlive the browser otherwise
        self.process.wait()
        os.close(self._read)
        os.close(self._write)
        self.home.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._waiting:
                part = os.read(self._read, 1 << 16)
                assert part, f"the browser ended before it answered {method}"
                self._waiting += part
            line, _, self._waiting = self._waiting.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def evaluate(self, expression: str) -> Any:
        """What an expression is in the page."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has its answer."""
        limit = time.monotonic() + 120
        while self.evaluate("document.readyState !== 'complete' || typeof busy === 'undefined' || busy || !actions"):
            assert time.monotonic() < limit, "the page does not come to rest"
            time.sleep(0.02)

    def run(self, url: str, actions: Sequence[Action]) -> list[dict[str, Any]]:
        """What the page shows at first and after each action."""
        self.ask("Page.navigate", url=url)
        self.settle()
        seen = [json.loads(self.evaluate(SNAPSHOT))]
        for kind, what in actions:
            if kind == "key":
                self.ask("Input.dispatchKeyEvent", type="keyDown", key=what, text=what)
                self.ask("Input.dispatchKeyEvent", type="keyUp", key=what)
            elif kind == "click":
                self.evaluate(f"document.querySelector({what!r}).click()")
            else:
                self.evaluate(f"document.getElementById('prompt').value = {what!r}")
            self.settle()
            seen.append(json.loads(self.evaluate(SNAPSHOT)))
        return seen


NODE = """
const [base, page, actions] = [process.argv[1], process.argv[2], JSON.parse(process.argv[3])];
let pending = 0;
const counted = work => { pending++; return work.finally(() => pending--); };
const ask = async (path, options) => {
  const response = await counted(fetch(base + path, options));
  return {ok: response.ok, json: () => counted(response.json())};
};
const element = () => ({textContent: "", value: "", hidden: false, children: [], tagName: "",
  removeAttribute(name) { this[name] = ""; }, replaceChildren(...some) { this.children = some; }});
const elements = Object.fromEntries([...page.matchAll(/ id="([^"]+)"/g)].map(found => [found[1], element()]));
let pressed;
const document = {
  getElementById: id => { if (!elements[id]) throw new Error(`no element ${id}`); return elements[id]; },
  createElement: () => element(), addEventListener: (kind, listener) => { pressed = listener; },
};
const rest = async () => { do await new Promise(done => setTimeout(done, 5)); while (pending); };
const seen = [];
const snapshot = new Function("document", "return " + SNAPSHOT);
new Function("document", "fetch", page.match(/<script>([^]*)<[/]script>/)[1])(document, ask);
await rest();
seen.push(JSON.parse(snapshot(document)));
for (const [kind, what] of actions) {
  if (kind === "key") pressed({key: what, target: {tagName: "BODY"}});
  else if (kind === "type") elements.prompt.value = what;
  else if (what.startsWith("#codes")) elements.codes.children[Number(what.match(/[0-9]+/)[0]) - 1].onclick();
  else elements[what.slice(1)].onclick();
  await rest();
  seen.push(JSON.parse(snapshot(document)));
}
console.log(JSON.stringify(seen));
"""


def run_in_node(program: str, url: str, page: str, actions: Sequence[Action]) -> list[dict[str, Any]]:
    """As `Browser.run`, in Node 18 or later."""
    script = f"const SNAPSHOT = {json.dumps(SNAPSHOT)};\n{NODE}"
    command = [program, "--input-type=module", "-e", script, "--", url.rstrip("/"), page, json.dumps(actions)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
