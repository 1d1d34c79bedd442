"""Progress of a loop: a bar on a terminal, otherwise a log line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

SECONDS = 10.0
"""At most one line in so much time."""

watch: Callable[[int, int], None] | None = None
"""Told with each line of a run's own loop, which has no name, how many of how many steps this process has done."""

PATIENCE, REFRESH = 1.0, 0.2
"""Seconds before anything is shown of what is done quickly as a rule, and between two changes of it on a terminal."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class Progress:
    """`with Progress(...) as progress: ... progress.update(step)`; the rate is that of this process's own steps."""

    def __init__(self, start: int, total: int, *, bar: bool | None = None, name: str = "") -> None:
        """Count from `start` to `total`; `bar=None` shows a bar if standard error is a terminal; bars of
        several runs would overwrite each other.

        `name` opens each line, where it is not a run's own loop.
        """
        self.start, self.total = start, total
        self._prefix = f"{name}: " if name else ""
        self._show_bar = sys.stderr.isatty() if bar is None else bar
        self._stack = ExitStack()
        self._bar: Any = None
        self._notes: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        self._began = self._told = time.monotonic()
        if self._show_bar:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._stack.enter_context(logging_redirect_tqdm())
            self._bar = self._stack.enter_context(
                tqdm(total=self.total, initial=self.start, unit="step", dynamic_ncols=True, mininterval=0.2)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; log lines go where they went before."""
        self._stack.close()

    def note(self, values: Mapping[str, Any]) -> None:
        """The first two numbers of them are shown beside the progress until they are noted anew."""
        numbers = [(name, value) for name, value in values.items() if isinstance(value, (int, float))]
        self._notes |= numbers[:2]

    def update(self, step: int) -> None:
        """`step` is done."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in self._notes.items()}, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._told >= SECONDS or step == self.total:
            self._told = now
            if watch is not None and not self._prefix:
                watch(step - self.start, self.total - self.start)
            log.info("%s", self.line(step, now - self._began))

    def line(self, step: int, seconds: float) -> str:
        """One line: how far, how fast, how long still."""
        rate = (step - self.start) / seconds if seconds > 0 else 0.0
        left = duration((self.total - step) / rate) if rate else "?"
        speed = f"{rate:.3g} steps/s" if rate >= 1 or not rate else f"{1 / rate:.3g} s/step"
        notes = "".join(f", {name} {value:.4g}" for name, value in self._notes.items())
        share = 100 * step / self.total if self.total else 100.0
        return f"{self._prefix}step {step}/{self.total} ({share:.0f} %), {speed}, {left} left{notes}"


def shown(items: Sequence[T], what: str) -> Iterator[T]:
    """The items; how many of them are done stands on standard error, where that takes more than a second: on a terminal
    in one line that vanishes at the end, else a line now and then.
    """
    terminal = sys.stderr.isatty()
    due, told = time.monotonic() + (PATIENCE if terminal else SECONDS), False
    try:
        for done, item in enumerate(items):
            if (now := time.monotonic()) >= due:
                due, told = now + (REFRESH if terminal else SECONDS), True
                line = f"{what}: {done} of {len(items)}"
                sys.stderr.write(f"\r{line}" if terminal else f"{line}\n")
                sys.stderr.flush()
            yield item
    finally:
        if told and terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
