"""Runs of a sweep in several processes of one machine, with stop signals that lose nothing.

| to the sweep comes | what happens |
|---|---|
| the first stop signal, whoever else got it | no run begins; those at work save after their step |
| a second Ctrl-C | the processes are killed; their last checkpoints stay |
| Ctrl-Z | the processes are halted as well, and go on with it |
| SIGKILL | the processes see the pipe closed, save and end (`common/run/worker.py`) |

A process that dies costs its own run only.
"""

import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from common.run import stop
from common.run.local import cores
from common.run.outlook import seconds_left
from common.run.progress import duration

SECONDS = 30.0
"""At most so long between two lines about the whole."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Unless they are set, the processes share the cores; a run sets torch's own number, `runtime.threads`."""
PROGRAM = "import sys; sys.path[:] = {path!r}; from common.run.worker import main; main({descriptor})"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lost:
    """In place of a result: why there is none."""

    reason: str


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    place: int = -1
    """Of the run at work, -1 between runs."""
    began: float = 0.0
    share: float = 0.0
    """Part of the run that is done, from 0 to 1."""


@dataclass
class Pool:
    """Calls a function once for each name, in up to `processes` processes."""

    function: bytes
    """Pickled, of the place and the name of a run; what it returns is the run's result."""
    names: Sequence[str]
    processes: int
    asked: int = 0
    """The first stop signal that came, 0 before."""
    _results: dict[int, Any] = field(default_factory=dict)
    _workers: list[_Worker] = field(default_factory=list)
    _lengths: list[float] = field(default_factory=list)
    """Seconds that each ended run took."""
    _interrupted: float = 0.0
    """When the first SIGINT came, 0 before."""

    def run(self) -> list[Any]:
        """What each call returned, or `Lost`, in the order of the names.

        Raises:
            SystemExit: a stop signal came, with 128 + its number; every process has ended.
        """
        before = stop.take_over(self._receive, [number for number in stop.STOPS if number != signal.SIGUSR2])
        before |= stop.take_over(self._halt, [signal.SIGTSTP])
        self._waiting = list(range(len(self.names)))
        self._told = time.monotonic()
        told = 0
        log.info("%d runs, %d at a time", len(self.names), min(self.processes, len(self.names)))
        try:
            while self._workers or (self._waiting and not self.asked):
                self._give_work()
                if not self.asked and (len(self._results) > told or time.monotonic() - self._told >= SECONDS):
                    told = len(self._results)
                    self._tell()
                for connection in wait([worker.connection for worker in self._workers], timeout=SECONDS):
                    self._hear(next(worker for worker in self._workers if worker.connection is connection))
        finally:
            for worker in self._workers:  # after a mistake of ours only
                worker.connection.close()
                worker.process.wait()
            stop.give_back(before)
        if self.asked:
            begun, ended = len(self.names) - len(self._waiting), len(self._lengths)
            name = signal.Signals(self.asked).name
            message = "%s: %d of %d runs are finished, %d begun; the same command continues them, skips finished ones"
            log.warning(message, name, ended, len(self.names), begun - ended)
            raise SystemExit(128 + self.asked)
        return [self._results[place] for place in range(len(self.names))]

    def _give_work(self) -> None:
        """A run for every idle process, a process for every run that may begin; idle processes without one end."""
        busy = sum(worker.place >= 0 for worker in self._workers)
        while not self.asked and len(self._workers) < min(self.processes, busy + len(self._waiting)):
            self._start()
        for worker in [worker for worker in self._workers if worker.place < 0]:
            if self.asked or not self._waiting:
                self._send(worker, b"")
                worker.place = len(self.names)  # none; its end is waited for
                continue
            worker.place = self._waiting.pop(0)
            worker.began, worker.share = time.monotonic(), 0.0
            self._send(worker, pickle.dumps((worker.place, self.names[worker.place])))

    def _start(self) -> None:
        ours, theirs = Pipe()
        path = [str(folder) for folder in sys.path]
        words = [sys.executable, *_interpreter_flags(), "-c", PROGRAM.format(path=path, descriptor=theirs.fileno())]
        threads = str(max(1, cores() // self.processes))
        environment = {**dict.fromkeys(THREADS, threads), **os.environ}
        with _blocked():  # so that one that comes now waits until the process can answer it
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment)
            self._workers.append(_Worker(process, ours))
        theirs.close()
        self._send(self._workers[-1], self.function)

    def _send(self, worker: _Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
        except OSError:
            pass  # it has died: its closed pipe is heard next

    def _hear(self, worker: _Worker) -> None:
        try:
            message = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, tuple):
            done, total = message
            worker.share = done / total if total else 0.0
            return
        self._end(worker, message[0] if isinstance(message, list) else Lost(message))
        self._lengths.append(time.monotonic() - worker.began)
        worker.place = -1

    def _bury(self, worker: _Worker) -> None:
        code = worker.process.wait()
        worker.connection.close()
        self._workers.remove(worker)
        if 0 <= worker.place < len(self.names):
            self._end(worker, Lost(f"its process {_cause(code)}; the same command continues it"))

    def _end(self, worker: _Worker, result: Any) -> None:
        self._results[worker.place] = result
        if isinstance(result, Lost) and not self.asked:
            log.error("%s: %s", self.names[worker.place], result.reason)

    def _tell(self) -> None:
        """One line about the whole."""
        self._told = now = time.monotonic()
        running, whole = [], list(self._lengths)
        for worker in self._workers:
            if 0 <= worker.place < len(self.names):
                length = (now - worker.began) / worker.share if worker.share else math.nan
                running.append(worker.began + length - now if worker.share else None)
                whole += [length] if worker.share else []
        left = seconds_left(running, len(self._waiting), whole, self.processes)
        time_left = f", about {duration(left)} left for all" if left else ""
        time_left += " if the others take as long" if left and self._waiting else ""
        log.info("%d of %d runs ended, %d running%s", len(self._results), len(self.names), len(running), time_left)

    # ---- signals

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted and time.monotonic() - self._interrupted >= stop.TWIN:
                self._signal(signal.SIGKILL)
                return
            self._interrupted = self._interrupted or time.monotonic()
        if not self.asked:
            self.asked = number
            again = " (once more: stop at once, without saving)" if number == signal.SIGINT else ""
            stop.say(f"{signal.Signals(number).name}: every run saves after its step{again}")
        self._signal(number)

    def _halt(self, number: int, _: FrameType | None) -> None:
        self._signal(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # the kernel knows whether anybody could wake us; here it goes on after SIGCONT
        signal.signal(number, self._halt)
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            worker.process.send_signal(number)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop.STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interpreter_flags() -> list[str]:
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]


def _cause(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number not in {each.value for each in signal.Signals}:
        return f"ended with exit code {code}"
    name = signal.Signals(number).name
    memory = ", which is often a lack of memory: INNERLOOP_JOBS=1 runs one at a time" if name == "SIGKILL" else ""
    return f"was ended by {name}{memory}"
