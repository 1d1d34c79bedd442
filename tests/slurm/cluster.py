"""What the tests do with a SLURM: launch sweeps, look at jobs, wait for events with a limit."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.slurm.node import empty_queue

CHECKOUT = Path(__file__).parents[2]
LIMIT = 300.0
"""Seconds that any one event may take."""

T = TypeVar("T")
log = logging.getLogger("slurm")


def wait_for(what: str, look: Callable[[], T], seconds: float = LIMIT) -> T:
    """Look until there is something; returns it."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


class Sweep:
    """A training command with `-m` that runs in the background, as it would in tmux."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder

    @property
    def output(self) -> str:
        """What the command has printed."""
        return (self.folder / "output.txt").read_text()

    def wait(self, seconds: float = LIMIT) -> int:
        """Exit code."""
        return self.process.wait(timeout=seconds)

    def job_logs(self) -> str:
        """What the launcher wrote of its jobs: the text shown where a test fails."""
        paths = sorted(self.folder.rglob(".submitit/**/*.out")) + sorted(self.folder.rglob(".submitit/**/*.err"))
        return "\n".join([self.output, *(f"--- {path.name}\n{path.read_text()}" for path in paths)])


class Cluster:
    """A SLURM that runs, and the miniature set-up to train on it."""

    def __init__(self, environment: Mapping[str, str], data: Path) -> None:
        self.environment = {**os.environ, **environment, "PYTHONPATH": str(CHECKOUT)}
        self.data = data
        self.sweeps: list[Sweep] = []

    def launch(self, folder: Path, *words: str) -> Sweep:
        """Start a sweep with its runs below `folder`."""
        given = [
            "--config-dir", str(self.data / "conf"), "-m", "+experiment=mini", "model=mini", "model.dropout=0.2",
            "runtime=cpu", "inner.steps=2", "inner.lr=0.01", "outer.lr=0.01", "outer.batch_problems=2",
            "outer.accumulation=2", "loop.log_every=1", "evaluation.max_new_tokens=4", *words,
        ]  # fmt: skip
        if not any(word.startswith("data=") for word in words):
            given.append("data=mini")
        folder.mkdir(exist_ok=True)
        with (folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "reckoning.train", *given], cwd=folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.sweeps.append(Sweep(process, folder))
        log.info("launched: %s", " ".join(words))
        return self.sweeps[-1]

    def call(self, *words: str) -> str:
        """Run one of SLURM's commands; returns what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def jobs(self, sweep: Sweep, number: int) -> list[str]:
        """Ids of the sweep's `number` jobs as SLURM and the launcher write them: 5_0, 5_1; of a single one 5."""

        def submitted() -> list[str]:
            assert sweep.process.poll() is None, sweep.output
            lines = self.call("squeue", "--noheader", "--array", "--partition=main", "--format=%i").splitlines()
            return sorted(lines) if len(lines) >= number else []

        found = wait_for("jobs in the queue", submitted)
        assert len(found) == number
        log.info("submitted: jobs %s", ", ".join(found))
        return found

    def fields(self, job: str) -> dict[str, str]:
        """What the controller knows of a job now."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def accounted(self, job: str) -> dict[str, str]:
        """Job id -> state in the accounting, array jobs one by one."""
        lines = self.call("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "-j", job)
        return dict(line.split("|")[:2] for line in lines.splitlines())

    def run_again(self, job: str) -> None:
        """Wait until the job has been sent back to the queue, and let it start now: SLURM would wait two minutes."""

        def requeued() -> bool:
            fields = self.fields(job)
            return fields["Restarts"] == "1" and fields["JobState"] == "PENDING"

        wait_for(f"job {job} back in the queue", requeued)
        log.info("job %s was requeued: it is PENDING, Restarts=1", job)
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")

    def end_all(self) -> None:
        """Leave nothing behind of a test that failed half-way."""
        for sweep in self.sweeps:
            if sweep.process.poll() is None:
                sweep.process.kill()
                sweep.process.wait()
        empty_queue(self.environment)
