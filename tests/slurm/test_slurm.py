"""Sweeps on a real SLURM: arrays, failures, cancelling, and jobs that are interrupted and end in the same bits."""

import logging
import re
from pathlib import Path

import pytest

from tests.reckoning.miniature import contents, only_run
from tests.slurm.cluster import Cluster, Sweep, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
log = logging.getLogger("slurm")
SHORT = ["outer.steps=4", "loop.evaluate_every=2"]
STEPS = 200
SAVED = ["loop.save_every=10", "loop.evaluate_every=50"]
TWINS = ["loop.root=first,second", "loop.save_seconds=0"]
"""Two cells of the same settings: whichever is disturbed is compared with the other one."""


def newest(root: Path) -> int:
    """Step of the newest checkpoint below `root`, 0 without one."""
    return max((int(path.name.removeprefix("step-")) for path in root.rglob("step-*")), default=0)


def in_the_middle(sweep: Sweep, root: str) -> int:
    """Wait until a run has saved something, and is far from its end."""

    def saved() -> int:
        assert sweep.process.poll() is None, sweep.job_logs()
        return newest(sweep.folder / root)

    return wait_for(f"a checkpoint in {root}", saved)


def finished_like_its_twin(sweep: Sweep, disturbed: str) -> None:
    """The sweep ends well, the disturbed run continued from a checkpoint, and both runs are equal bit by bit."""
    assert sweep.wait() == 0, sweep.job_logs()
    first, second = only_run(sweep.folder / "first"), only_run(sweep.folder / "second")
    logs = {"first": (first / "log.txt").read_text(), "second": (second / "log.txt").read_text()}
    continued = {name: re.findall(r"continuing after step (\d+)", text) for name, text in logs.items()}
    assert {name: len(steps) for name, steps in continued.items()} == {"first": 0, "second": 0} | {disturbed: 1}
    log.info("%s continued after step %s of %d", disturbed, continued[disturbed][0], STEPS)
    assert 0 < int(continued[disturbed][0]) < STEPS
    found, expected = contents(second), contents(first)
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == expected[name], name
    log.info("equal bit by bit: %s", ", ".join(sorted(found)))


def test_a_sweep_is_one_array_and_each_job_has_a_gpu_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    gpus = "hydra.launcher.setup=['echo GPU $CUDA_VISIBLE_DEVICES']"
    words = ["hydra/launcher=slurm_gpu", "hydra.launcher.cpus_per_task=1", gpus, "seed=0,1", *SHORT]
    sweep = cluster.launch(tmp_path, *words)
    first, second = cluster.jobs(sweep, 2)
    array = first.partition("_")[0]
    assert (first, second) == (f"{array}_0", f"{array}_1")
    assert sweep.wait() == 0, sweep.job_logs()
    assert len(list(tmp_path.rglob("FINISHED"))) == 2
    assert sorted(re.findall(r"^GPU (.*)$", sweep.job_logs(), re.MULTILINE)) == ["0", "1"]
    wait_for("the accounting", lambda: set(cluster.accounted(array).values()) == {"COMPLETED"})
    log.info("accounting: %s", cluster.accounted(array))


def test_a_failing_job_is_reported_and_stops_no_other(cluster: Cluster, tmp_path: Path) -> None:
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm", "data=absent,mini", *SHORT)
    cluster.jobs(sweep, 2)
    assert sweep.wait() == 2, sweep.job_logs()
    message = sweep.output[sweep.output.rindex("error: ") :]
    log.info("%s", message.strip())
    assert "absent.jsonl" in message and "Traceback" not in message
    assert "data-mini" in only_run(tmp_path).name


def test_a_cancelled_job_is_reported_within_a_minute(cluster: Cluster, tmp_path: Path) -> None:
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm_cpu", "seed=0", *SAVED, "outer.steps=100000")
    (job,) = cluster.jobs(sweep, 1)
    in_the_middle(sweep, "runs")
    cluster.call("scancel", job)
    log.info("cancelled: job %s", job)
    assert sweep.wait(60) == 1, sweep.job_logs()
    (said,) = re.findall(r"^.*has not produced any output.*$", sweep.output, re.MULTILINE)
    log.info("%s", said)
    assert "CANCELLED" in said
    assert cluster.accounted(job)[job].startswith("CANCELLED")


def test_a_preempted_job_is_requeued_and_ends_in_the_same_bits(cluster: Cluster, tmp_path: Path) -> None:
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm_cpu", *TWINS, *SAVED, f"outer.steps={STEPS}")
    jobs = dict(zip(("first", "second"), cluster.jobs(sweep, 2), strict=True))
    for name in jobs:
        in_the_middle(sweep, name)
    urgent = cluster.call("sbatch", "--parsable", "--partition=urgent", "--output=/dev/null", "--wrap=true")
    log.info("submitted: urgent job %s", urgent)

    def preempted() -> str | None:
        running = [name for name, job in jobs.items() if cluster.fields(job)["JobState"] == "RUNNING"]
        return None if len(running) == 2 else next(name for name in jobs if name not in running)

    name = wait_for("one of the two preempted", preempted)
    log.info("preempted: job %s, newest checkpoint of step %d", jobs[name], newest(tmp_path / name))
    cluster.back_in_queue(jobs[name])
    finished_like_its_twin(sweep, name)
    wait_for("the accounting", lambda: cluster.accounted(urgent)[urgent] == "COMPLETED")


def test_a_job_near_its_limit_saves_is_requeued_and_ends_in_the_same_bits(cluster: Cluster, tmp_path: Path) -> None:
    """Limits are minutes and SLURM looks at them twice a minute, so the limit is lowered once the job is at work."""
    unsaved = ["loop.save_every=0", "loop.evaluate_every=0"]  # no checkpoint but the one that the signal causes
    words = ["hydra.launcher.signal_delay_s=280", *TWINS, f"outer.steps={STEPS}", *unsaved]
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm_cpu", *words)
    _, job = cluster.jobs(sweep, 2)
    wait_for("the second at work", lambda: any((tmp_path / "second").rglob("metrics.jsonl")))
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=5")
    log.info("limit of job %s lowered: the warning is due", job)
    cluster.back_in_queue(job)
    finished_like_its_twin(sweep, "second")
    assert "SIGUSR2: saving after this step" in sweep.job_logs()
    (log_file,) = (tmp_path / "second").rglob("log.txt")
    assert "stop signal: saved after step" in log_file.read_text()
