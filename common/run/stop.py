"""Stop signals: finish the step, save, then go.

| signal | comes from | what a run does |
|---|---|---|
| SIGINT | Ctrl-C | saves after the step, exits 130; a second one stops at once |
| SIGTERM | kill, a cluster that preempts | saves after the step, exits 143 |
| SIGHUP | a terminal or connection that closes | saves after the step, exits 129 |
| SIGQUIT | Ctrl-\\ | saves after the step, exits 131 |
| SIGXCPU | a limit of processor time (`ulimit -St`) | saves after the step, exits 152 |
| SIGPWR | an init whose power fails, a container's that is to stop | saves after the step, exits 158 |
| SIGUSR1 | `sbatch --signal=USR1@120` | saves after the step, exits 138 |
| any with a handler of somebody else's | submitit: SIGUSR2, and SIGTERM, which it ignores | saves, then hands on |
| any that is ignored | `nohup`: SIGHUP | goes on |

A signal may come more than once: `timeout`, `uv run` and sweeps pass on what the terminal has already sent to the whole
group. So an interrupt within `TWIN` of the first is the same one, and any other that still waits counts once.

So under submitit SIGUSR2 leaves a fresh checkpoint before the job is requeued, and SIGTERM a checkpoint before SLURM
kills it. Requeueing must not come too late, so a SIGUSR that meets a step longer than `PATIENCE` is handed on
without a save: the periodic checkpoint is there. SIGUSR2 without anybody's handler is left alone. Outside
`deferred()` nothing is worth saving and signals act at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

PATIENCE = 30.0
"""Seconds a signal that asks for requeueing waits for the end of a step."""

TWIN = 0.2
"""Seconds within which a second SIGINT is the first one, sent on by somebody: nobody presses Ctrl-C twice so fast."""

STOPS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2,
    *(signal.Signals[name] for name in ("SIGPWR",) if name in signal.Signals.__members__),  # Linux alone has it
)  # fmt: skip

prefix = "\n"
"""What opens a message about a signal: behind a terminal's ^C a new line, where several runs share one a name."""

Handler = Callable[[int, FrameType | None], Any]


def take_over(handler: Handler, numbers: Sequence[int] = STOPS) -> dict[int, Any]:
    """Handle those of `numbers` that nobody ignores; returns what was there before, for `give_back`.

    Nothing is done outside the main thread, where Python does not allow it. SIGUSR2 is taken only from somebody else's
    handler.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return before
    for number in numbers:
        there = signal.getsignal(number)
        ignored = there is None or there is signal.SIG_IGN
        if not ignored and not (number == signal.SIGUSR2 and there is signal.SIG_DFL):
            before[number] = there
            signal.signal(number, handler)
    return before


def give_back(before: dict[int, Any]) -> None:
    """Undo `take_over`."""
    for number, handler in before.items():
        signal.signal(number, handler)
    before.clear()


def say(message: str) -> None:
    """Write a line to standard error from within a handler, if there is still somewhere to write to.

    Not by logging: the signal may have come in the middle of a log line.
    """
    with suppress(OSError):
        os.write(2, f"{prefix}{message}\n".encode())


class StopSignal:
    """Turns signals into the flag `asked`, to be read at step boundaries."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._deferring = False
        self._before: dict[int, Any] = {}
        self._interrupted = 0.0

    @property
    def asked(self) -> bool:
        """Is a signal waiting?"""
        return bool(self._pending)

    def install(self) -> None:
        """Take over the signals, in the main thread only: elsewhere Python does not allow it."""
        self._before = take_over(self._receive)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        give_back(self._before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, signals wait for `obey()`, at the latest until the block has ended."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._pending:
            self.obey()

    def obey(self) -> None:
        """Act on what was asked for; call it after saving.

        Returns if other handlers took the signals and did not exit.

        Raises:
            SystemExit: with 128 + signal number.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        # other handlers first: a SIGTERM after submitit's SIGUSR2 must not cost the job its place in the queue
        waiting = sorted(self._pending, key=lambda number: self._handed_on(number) is None)
        self._pending.clear()
        for number in waiting:
            others = self._handed_on(number)
            if others is None:
                raise SystemExit(128 + number)
            others(number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        alone = self._handed_on(number) is None
        if number in self._pending:
            if number == signal.SIGINT and alone and time.monotonic() - self._interrupted >= TWIN:
                raise KeyboardInterrupt
            return
        self._pending.append(number)
        if not self._deferring:
            if alone:
                say(f"{signal.Signals(number).name}: stopped between steps; the same command continues")
            self.obey()
            return
        again = ""
        if number == signal.SIGINT and alone:
            self._interrupted = time.monotonic()
            again = " (once more: stop at once, without saving)"
        say(f"{signal.Signals(number).name}: saving after this step{again}")
        if not alone and number in (signal.SIGUSR1, signal.SIGUSR2):
            self._before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            signal.signal(signal.SIGALRM, lambda *_: self.obey())
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _handed_on(self, number: int) -> Handler | None:
        """The handler somebody else had set, if any."""
        before = self._before.get(number)
        return before if callable(before) and before is not signal.default_int_handler else None
