"""A process of a sweep on one machine: it makes one run after the other, and does not outlive who asked for them.

A stop signal reaches it from the terminal, from the sweep (`common/run/pool.py`), or from both: the run saves after its
step, once, and the process ends with 128 + the signal's number. If the sweep was killed, its end of the pipe is closed,
and the process takes that for SIGTERM.
"""

import os
import pickle
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

from common.run import progress, stop

LEAVING = tuple(number for number in stop.STOPS if number not in (signal.SIGUSR1, signal.SIGUSR2))
"""Signals that this process itself answers; a SIGUSR is left to the run, which must not wait for `stop.PATIENCE`."""


def main(descriptor: int) -> None:
    """Take a function, then places of runs to call it with, and send back what each call returned.

    Args:
        descriptor: of this process's end of the pipe. Signals are blocked until here.
    """
    stop.take_over(_leave, LEAVING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop.STOPS)
    connection = Connection(descriptor)
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    sys.argv, function = pickle.loads(asked.get())
    with suppress(BrokenPipeError, ConnectionResetError):  # the listener tells what that means
        progress.watch = lambda done, total: connection.send_bytes(pickle.dumps((done, total)))
        while (job := asked.get()) is not None:
            place, name = pickle.loads(job)
            stop.prefix = f"{name}: "
            connection.send_bytes(_packed(function(place, name)))


def _listen(connection: Connection, asked: "queue.SimpleQueue[Any]") -> None:
    """Queue what is asked for; the end of who asks is a SIGTERM."""
    try:
        while message := connection.recv_bytes():
            asked.put(message)
        asked.put(None)
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def _packed(value: Any) -> bytes:
    """What a call returned, in a list; a text in its place if another process could not read it."""
    import cloudpickle

    try:
        message: bytes = cloudpickle.dumps([value])
        pickle.loads(message)
    except Exception as error:
        return pickle.dumps(f"{value!r:.500} cannot be sent to the sweep: {error!r:.500}")
    return message


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
