"""Processes of a federation on this machine: found by what they were started with, so that none is lost or mistaken."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.errors import UserError

HOME, NAME = "FLWR_HOME", "INNERLOOP_FLOWER"
"""Environment of every process of a federation: its own FLWR_HOME, which nothing else has, and what it is there."""
GRACE = 10.0
"""Seconds between asking a process to end and ending it."""
TAIL = 12
"""Lines of a log that a message shows."""


def program(name: str) -> str:
    """A command of Flower's, of this very environment."""
    return str(Path(sys.executable).with_name(name))


def environment(home: Path, name: str = "") -> dict[str, str]:
    """What Flower's commands run in: configured by `home` alone, this code importable, silent towards the network."""
    own = {
        HOME: str(home),
        NAME: name,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    return {**os.environ, **own}


_started: list[subprocess.Popen[bytes]] = []
"""By this process, and not known to have ended."""


@dataclass(frozen=True)
class Group:
    """A process of a federation and what it has started."""

    alive: bool
    """Does the first of them run? What it has started may outlive it."""
    members: list[psutil.Process]


def running(home: Path) -> dict[str, Group]:
    """Name -> processes of the federation whose FLWR_HOME is `home`."""
    _forget_ended()
    found: dict[str, list[psutil.Process]] = {}
    first = set()
    for process in psutil.process_iter():
        try:
            its = process.environ()
            if its.get(HOME) != str(home) or not its.get(NAME) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if {"flower-superlink", "flower-supernode"} & {Path(word).name for word in process.cmdline()[:2]}:
                first.add(its[NAME])
        except (psutil.Error, OSError):
            continue
        found.setdefault(its[NAME], []).append(process)
    return {name: Group(name in first, members) for name, members in found.items()}


def start(name: str, command: Sequence[str], home: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one; what it says is appended to `log`."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            command, env=environment(home, name), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    _started.append(child)
    return child


def stop(processes: Sequence[psutil.Process]) -> None:
    """End processes, by force where they do not."""
    for process in processes:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(processes, GRACE)
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, GRACE)
    _forget_ended()


def _forget_ended() -> None:
    _started[:] = [child for child in _started if child.poll() is None]


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        pass


def call(command: Sequence[str], home: Path, seconds: float) -> str:
    """The output of one of Flower's own commands.

    Raises:
        UserError: it fails, or takes longer than `seconds`.
    """
    words = " ".join([Path(command[0]).name, *command[1:]])
    try:
        done = subprocess.run(
            command, env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{words}: no answer in engine.start_seconds={seconds:g}; use a larger one") from error
    if done.returncode:
        raise UserError(f"{words} ended with code {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def refuse_taken(ports: Mapping[str, int], host: str = "127.0.0.1") -> None:
    """Look whether the ports are free before anything is started.

    Raises:
        UserError: somebody else has one.
    """
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise UserError(
                    f"port {port}, which {name} needs, is in use ({error.strerror}); set engine.port to another, or "
                    "end what uses it (an earlier federation of this run: python -m fal.flower.deploy down ...)"
                ) from error


class Ended(UserError):
    """A process that was waited for has ended."""


def wait(ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, end: float, poll: float) -> None:
    """Wait until a process is ready, at most until the clock shows `end`.

    Raises:
        Ended: it ends before.
        UserError: it takes longer.
    """
    while not ready():
        last = f"the last lines of {log}:\n{tail(log)}"
        if (code := child.poll()) is not None:
            raise Ended(f"{log.stem} ended with code {code}; {last}")
        if time.monotonic() >= end:
            raise UserError(f"{log.stem} is not ready after engine.start_seconds; use a larger one; {last}")
        time.sleep(poll)


def tail(log: Path) -> str:
    """The end of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-TAIL:])


def said(log: Path, since: int, words: str) -> bool:
    """Are the words in a log behind its first `since` bytes?"""
    with log.open("rb") as file:
        file.seek(since)
        return words.encode() in file.read()


def listens(host: str, port: int) -> bool:
    """Does somebody answer there?"""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
