"""Headless Chromium by its own protocol over a pipe, so that tests of pages need no library.

The remedy where it is missing: apt-get install chromium, or name another one in CHROMIUM.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 30.0
"""Longest wait for an answer."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
FINE = ("info", "log", "debug", "verbose")


def executable() -> str | None:
    """The browser, None if there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page in a window of some width."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions."""
        self.requests: list[str] = []
        """Addresses that were asked for."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path: Path, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Show a file from the disk."""
        phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=path.resolve().as_uri())
        self._browser.wait(self, "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        got = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(got["data"]))

    def notice(self, event: dict[str, Any]) -> None:
        """Keep what is worth keeping of what the browser says by itself."""
        name, values = event["method"], event["params"]
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(values["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and values["type"] not in FINE:
            self.complaints.append(json.dumps(values["args"]))
        elif name == "Log.entryAdded" and values["entry"]["level"] not in FINE:
            self.complaints.append(values["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)


class Browser:
    """A running Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        # it reads descriptor 3 and writes 4; ours lie above, so that none is overwritten on the way
        pipes = (os.pipe(), os.pipe())
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in pipes for end in _closing(pipe)]
        theirs, self._out, self._in, answers = ends
        quiet = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, quiet, stream) for stream in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, theirs, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(program, words, dict(os.environ), file_actions=actions, setpgroup=0)
        for end in (theirs, answers, quiet):
            os.close(end)
        self._number, self._waiting, self._tabs = 0, b"", dict[str, Tab]()
        self._events: list[tuple[str, str]] = []

    def tab(self) -> Tab:
        """A new, empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._tabs[session] = Tab(self, session)
        return self._tabs[session]

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def wait(self, tab: Tab, event: str) -> None:
        """Until this happens on the page, or has since the last wait."""
        while not any(self._tabs[session] is tab and name == event for session, name in self._events):
            self._next()
        self._events.clear()

    def close(self) -> None:
        """End it and everything it started."""
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._out)
        os.close(self._in)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self._waiting:
            if not select.select([self._in], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"no answer from the browser within {SECONDS:.0f} s")
            if not (more := os.read(self._in, 1 << 16)):
                raise ConnectionError("the browser ended")
            self._waiting += more
        text, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if (tab := self._tabs.get(message.get("sessionId", ""))) and "method" in message:
            tab.notice(message)
            self._events.append((message["sessionId"], message["method"]))
        return message


def _closing(pipe: tuple[int, int]) -> Iterator[int]:
    for end in pipe:
        yield end
        os.close(end)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A browser that is gone afterwards."""
    found = Browser(program, profile)
    try:
        yield found
    finally:
        found.close()
