"""Stop signals: finish the step, save, then go.

| signal | comes from | what a run does |
|---|---|---|
| SIGINT | Ctrl-C | saves after the step, exits 130; a second one stops at once |
| SIGTERM | kill, a cluster that preempts | saves after the step, exits 143 |
| SIGUSR1 | `sbatch --signal=USR1@120` | saves after the step, exits 138 |
| any with a handler of somebody else's | submitit: SIGUSR2, and SIGTERM, which it ignores | saves, then hands on |

So under submitit SIGUSR2 leaves a fresh checkpoint before the job is requeued, and SIGTERM a checkpoint before SLURM
kills it. Requeueing must not come too late, so a SIGUSR that meets a step longer than `PATIENCE` is handed on
without a save: the periodic checkpoint is there. SIGUSR2 without anybody's handler is left alone. Outside
`deferred()` nothing is worth saving and signals act at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PATIENCE = 30.0
"""Seconds a signal that asks for requeueing waits for the end of a step."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopSignal:
    """Turns signals into the flag `asked`, to be read at step boundaries."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._deferring = False
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Is a signal waiting?"""
        return bool(self._pending)

    def install(self) -> None:
        """Take over the signals, in the main thread only: elsewhere Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOPS:
            before = signal.getsignal(number)
            ignored = before is None or before is signal.SIG_IGN
            if not ignored and not (number == signal.SIGUSR2 and before is signal.SIG_DFL):
                self._before[number] = before
                signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, signals wait for `obey()`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

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
        if number == signal.SIGINT and number in self._pending:
            raise KeyboardInterrupt
        self._pending.append(number)
        if not self._deferring:
            self.obey()
            return
        again = " (once more: stop at once, without saving)" if number == signal.SIGINT else ""
        # not logging: the signal may have come in the middle of a log line
        os.write(2, f"\n{signal.Signals(number).name}: saving after this step{again}\n".encode())
        if self._handed_on(number) is not None and number in (signal.SIGUSR1, signal.SIGUSR2):
            self._before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            signal.signal(signal.SIGALRM, lambda *_: self.obey())
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _handed_on(self, number: int) -> Callable[[int, FrameType | None], Any] | None:
        """The handler somebody else had set, if any."""
        before = self._before.get(number)
        return before if callable(before) and before is not signal.default_int_handler else None
