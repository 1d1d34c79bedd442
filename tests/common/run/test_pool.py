"""A sweep's processes on one machine: whatever signal comes, whoever gets it, runs save, end, and nobody is left."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.run import outlook
from tests.kills import alive

CHECKOUT = Path(__file__).parents[3]
# A run of endless steps that answers as common/run/run.py does: it saves at a step's end when a stop signal waits.
PROGRAM = """
import logging, os, sys, time
from pathlib import Path
import cloudpickle
from common.run import pool, progress, stop

def work(place, name):
    stopping = stop.StopSignal()
    stopping.install()
    try:
        with stopping.deferred():
            Path(f"begun-{place}").write_text(str(os.getpid()))
            if progress.watch:
                progress.watch(1, 2)
            while not Path("end").exists():
                time.sleep(STEP)
                if stopping.asked:
                    Path(f"saved-{place}").touch()
                    stopping.obey()
    finally:
        stopping.restore()
    return RESULT

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level="INFO", stream=sys.stdout)
    BEFORE
    print("results:", pool.Pool(cloudpickle.dumps((sys.argv, work)), ["a", "b", "c"], 2).run())
"""


STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGPWR", "SIGUSR1")


def heeding() -> None:
    """Signals do what they do by default, even if these tests run in the background, where Ctrl-C is ignored."""
    for name in STOPS:
        signal.signal(signal.Signals[name], signal.SIG_DFL)


class Sweep:
    """Three runs in two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, before: str = "pass", result: str = "place * 10", step: float = 0.01, **how: object) -> None:
        text = PROGRAM.replace("BEFORE", before).replace("RESULT", result).replace("STEP", str(step))
        (self.folder / "app.py").write_text(text)
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "process_group": 0, "preexec_fn": heeding, **how}
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "app.py"], cwd=self.folder, env=environment, text=True, **how
        )
        self.wait_for(lambda: len(self.begun()) >= 2)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(6000):
            if condition():
                return
            try:
                assert self.process
                self.process.wait(timeout=0.01)
                assert condition(), f"ended: {self.ended()}"
            except subprocess.TimeoutExpired:
                pass
        raise AssertionError("it did not come")

    def begun(self) -> dict[str, int]:
        """Name of the run -> its process."""
        found = {path.name[-1]: path.read_text() for path in self.folder.glob("begun-*")}
        return {name: int(text) for name, text in found.items() if text}

    def saved(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("saved-*"))

    def ended(self) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        assert self.process
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    found = Sweep(tmp_path)
    yield found
    for pid in [*found.begun().values(), *([found.process.pid] if found.process else [])]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    if found.process:
        found.process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("name", "to"), [*((name, "sweep") for name in STOPS), ("SIGINT", "group"), ("SIGTERM", "group")]
)
def test_a_stop_signal_to_the_sweep_or_to_all_lets_every_run_save(sweep: Sweep, name: str, to: str) -> None:
    number = signal.Signals[name]
    sweep.start()
    (os.killpg if to == "group" else os.kill)(sweep.pid, number)
    code, output, errors = sweep.ended()
    assert code == 128 + number
    assert sweep.saved() == ["saved-0", "saved-1"]
    assert f"{name}: every run saves after its step" in errors and f"a: {name}: saving after this step" in errors
    assert f"{name}: 0 of 3 runs are finished, 2 begun; the same command continues them" in output
    assert not any(alive(pid) for pid in sweep.begun().values())
    assert "Traceback" not in output + errors and "runs ended" not in output


def test_the_same_ctrl_c_twice_is_one(sweep: Sweep) -> None:
    sweep.start("stop.TWIN = 1000")
    for _ in range(3):
        os.killpg(sweep.pid, signal.SIGINT)
    assert sweep.ended()[0] == 130
    assert sweep.saved() == ["saved-0", "saved-1"]


def test_a_second_ctrl_c_stops_at_once_whatever_the_runs_are_in(sweep: Sweep) -> None:
    sweep.start("stop.TWIN = 0", step=1000)
    assert sweep.process and sweep.process.stderr
    os.kill(sweep.pid, signal.SIGINT)
    for line in sweep.process.stderr:
        if "once more: stop at once" in line:
            break
    os.kill(sweep.pid, signal.SIGINT)
    assert sweep.ended()[0] == 130
    assert sweep.saved() == []
    assert not any(alive(pid) for pid in sweep.begun().values())


def test_runs_save_and_end_when_the_sweep_is_killed(sweep: Sweep) -> None:
    sweep.start()
    os.kill(sweep.pid, signal.SIGKILL)
    assert sweep.ended()[0] == -signal.SIGKILL
    assert sweep.saved() == ["saved-0", "saved-1"]  # ended: the pipes that the processes held are closed
    assert sweep.process
    for pid in sweep.begun().values():
        while alive(pid):
            os.sched_yield()


def test_a_terminal_that_closes_lets_every_run_save(sweep: Sweep) -> None:
    ours, theirs = pty.openpty()
    own = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    sweep.start(own, process_group=None, start_new_session=True, **streams)
    os.close(theirs)
    os.close(ours)
    assert sweep.ended()[0] in (120, 129)  # 120: what is left to print cannot be printed
    assert sweep.saved() == ["saved-0", "saved-1"]


def test_what_nohup_ignores_stays_ignored(sweep: Sweep) -> None:
    sweep.start("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    os.killpg(sweep.pid, signal.SIGHUP)
    (sweep.folder / "end").touch()
    code, output, _ = sweep.ended()
    assert (code, sweep.saved()) == (0, [])
    assert "results: [0, 10, 20]" in output


def test_ctrl_z_halts_the_runs_and_fg_wakes_them(sweep: Sweep) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    sweep.start()
    everyone = [sweep.pid, *sweep.begun().values()]
    os.kill(sweep.pid, signal.SIGTSTP)
    sweep.wait_for(lambda: {state(pid) for pid in everyone} == {"T"})
    os.kill(sweep.pid, signal.SIGCONT)
    sweep.wait_for(lambda: "T" not in {state(pid) for pid in everyone})
    os.kill(sweep.pid, signal.SIGTERM)
    assert sweep.ended()[0] == 143
    assert sweep.saved() == ["saved-0", "saved-1"]


def test_a_process_that_dies_costs_its_own_run_only(sweep: Sweep) -> None:
    sweep.start()
    os.kill(sweep.begun()["0"], signal.SIGKILL)
    os.kill(sweep.begun()["1"], signal.SIGTERM)
    sweep.wait_for(lambda: "2" in sweep.begun())
    (sweep.folder / "end").touch()
    code, output, _ = sweep.ended()
    assert code == 0
    assert "a: its process was ended by SIGKILL, which is often a lack of memory: INNERLOOP_JOBS=1" in output
    assert "b: its process was ended by SIGTERM; the same command continues it" in output
    assert re.search(r"results: \[Lost\(.+\), Lost\(.+\), 20\]", output)
    assert sweep.saved() == ["saved-1"], "one can be stopped alone"


def test_a_result_that_cannot_be_sent_is_a_failure_of_its_run(sweep: Sweep) -> None:
    (sweep.folder / "end").touch()
    sweep.start(result="__import__('threading').Lock() if place == 1 else place")
    code, output, _ = sweep.ended()
    assert code == 0
    assert "cannot be sent to the sweep: TypeError" in output
    assert output.startswith("3 runs, 2 at a time\n") and "\n1 of 3 runs ended, " in output
    assert "3 of 3 runs ended, 0 running\n" in output


def test_the_time_left_for_all_is_told_while_they_run(sweep: Sweep) -> None:
    sweep.start("pool.SECONDS = 0.05")
    assert sweep.process and sweep.process.stdout
    wanted = r"0 of 3 runs ended, 2 running, about 0:\d\d left for all if the others take as long"
    while not re.match(wanted, line := sweep.process.stdout.readline()):
        assert line, "it ended without telling"


# ---- names and time


def test_runs_are_named_by_what_differs() -> None:
    jobs = [["+experiment=e", "method=ft_icr", "seed=1"], ["+experiment=e", "method=reckoning", "seed=2"]]
    assert outlook.names(jobs) == ["[1/2] ft_icr seed 1", "[2/2] reckoning seed 2"]
    jobs = [["inner.steps=2", "seed=0"], ["inner.steps=4", "seed=0"], ["seed=0"]]
    assert outlook.names(jobs) == ["[1/3] inner.steps 2", "[2/3] inner.steps 4", "[3/3]"]
    assert outlook.names([["seed=0"]]) == ["[1/1]"]


@pytest.mark.parametrize(
    ("running", "waiting", "whole", "processes", "expected"),
    [
        ([], 0, [10.0], 2, 0.0),
        ([None, None], 4, [], 2, None),
        ([30.0, 20.0], 0, [60.0, 40.0], 2, 30.0),
        ([30.0, 20.0], 1, [60.0, 40.0], 2, 70.0),  # begins after 20, takes 50
        ([30.0, None], 2, [60.0, 40.0], 2, 100.0),  # 30 + 50 and 50 + 50
        ([5.0], 2, [10.0], 3, 10.0),  # both begin now
    ],
)
def test_time_left_is_that_of_the_last_run(
    running: list[float | None], waiting: int, whole: list[float], processes: int, expected: float | None
) -> None:
    assert outlook.seconds_left(running, waiting, whole, processes) == expected
