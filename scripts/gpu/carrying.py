"""Runs the parts within a budget of time and keeps what became of them, so that the next call goes on."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic
from scripts.gpu.parts import ROOT, Part

STATE = "state.json"
LIMIT = 8 * 60.0
"""Seconds after which a part is asked to end: a training saves and is continued by the next call."""
GRACE = 50.0
"""Seconds that it then has; with them a part stays below nine minutes."""
LEAST = 90.0
"""A part for which less is left waits for the next call, whatever is predicted."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline", "PYTHONUNBUFFERED": "1"}
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a part."""

    state: str
    """done, failed, or cut: it ended at its time limit, or with this command."""
    seconds: float
    """Of a training in all calls together."""
    code: int
    revision: str
    dirty: bool | None


Runner = Callable[[Part, Path, float], tuple[int, bool]]
"""Part, output folder, seconds -> exit code, and whether the time was up."""


def read_state(output: Path) -> dict[str, Outcome]:
    """Name of the part -> what became of it so far.

    Raises:
        UserError: the file is damaged.
    """
    file = output / STATE
    if not file.is_file():
        return {}
    try:
        return {name: Outcome(**kept) for name, kept in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: {error}; remove it to begin anew") from error


def left(parts: Sequence[Part], state: Mapping[str, Outcome]) -> list[Part]:
    """Those that have not come to an end; a failed one is tried again only by its name."""
    return [part for part in parts if part.name not in state or state[part.name].state == "cut"]


def carry_on(
    parts: Sequence[Part], output: Path, minutes: float, revision: tuple[str, bool | None], run: Runner,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Outcome]:  # fmt: skip
    """Run `parts` one after the other until the time is up; returns what became of all parts, earlier calls' too.

    A part that is predicted to take longer than what is left is passed over; a training takes what there is.
    """
    state = read_state(output)
    end = clock() + 60 * minutes
    for part in parts:
        began = clock()
        needed = LEAST if part.kind == "train" else max(LEAST, 60 * part.minutes)
        if end - began < needed:
            continue
        sys.stdout.write(f"{part.name}: about {part.minutes:.0f} min\n")
        sys.stdout.flush()
        code, stopped = run(part, output, min(LIMIT, end - began - GRACE))
        before = state.get(part.name)
        earlier = before.seconds if before and before.state == "cut" and part.kind == "train" else 0.0
        stopped |= part.kind == "train" and code > 128  # by a signal, after saving
        word = "done" if code == 0 else "cut" if stopped else "failed"
        state[part.name] = Outcome(word, round(earlier + clock() - began, 1), code, *revision)
        kept = {name: asdict(outcome) for name, outcome in state.items()}
        write_atomic(output / STATE, json.dumps(kept, indent=2) + "\n")
        sys.stdout.write(f"{part.name}: {word} after {clock() - began:.0f} s\n")
    return state


def run_part(part: Part, output: Path, seconds: float) -> tuple[int, bool]:
    """Run its command with what it says in a file; at the end of its time it gets SIGTERM, then `GRACE`, then SIGKILL.

    Its processes are a group of their own: Ctrl-C here becomes one SIGTERM there.
    """
    environment = {
        **os.environ,
        **OFFLINE,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    stopped = False
    with (output / f"{part.file}.txt").open("ab") as log:
        process = subprocess.Popen(
            part.command(output), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:  # also on Ctrl-C and SIGTERM
            try:
                if process.poll() is None:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=GRACE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return process.wait(), stopped


def _end_with_parent() -> None:
    """In the child: SIGTERM when this command is killed. On Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
