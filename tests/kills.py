"""Kills a training command at moments that hurt, and lets it end."""

import os
import random
import signal
import time
from pathlib import Path

from tests.starter import Starter


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_for_moment(rng: random.Random, pid: int, checkpoints: Path) -> str:
    """Return at some moment of the run: soon after the start, in a step, or while a checkpoint is being written."""
    kind = rng.choice(("start", "step", "checkpoint", "checkpoint"))
    if kind == "start":
        time.sleep(rng.uniform(0, 0.5))
        return kind
    newest = max(checkpoints.glob("step-*"), default=None)
    for _ in range(rng.randint(1, 3)):  # so many checkpoints from here
        while alive(pid) and max(checkpoints.glob("step-*"), default=None) == newest:
            time.sleep(0.0005)
        newest = max(checkpoints.glob("step-*"), default=None)
    if kind == "step":
        time.sleep(rng.uniform(0, 0.1))
        return kind
    while alive(pid) and not list(checkpoints.glob(".step-*")):
        pass
    time.sleep(rng.uniform(0, 0.004))
    return kind


def finish_despite_kills(
    starter: Starter, words: list[str], output: Path, folder: Path, kills: int, seed: int
) -> list[str]:
    """Kill the command `kills` times, then let it end; returns the kind of every kill that hit a living process."""
    rng = random.Random(seed)
    hits = []
    while len(hits) < kills:
        pid = starter.start(output, words)
        kind = wait_for_moment(rng, pid, folder / "checkpoints")
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        code = starter.wait()
        assert code in (0, -signal.SIGKILL), output.read_text()
        if code == 0:
            break
        torn = any(folder.glob("checkpoints/.step-*"))
        hits.append("torn checkpoint" if torn else kind)
    starter.start(output, words)
    assert starter.wait() == 0, output.read_text()
    assert (folder / "FINISHED").is_file()
    return hits
