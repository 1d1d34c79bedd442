"""Sweeps on a real SLURM: arrays, failures, cancelling, and jobs that are interrupted and end in the same bits."""

import logging
import re
from pathlib import Path

import pytest

from tests.runs import contents, only_run
from tests.slurm.cluster import Cluster, Sweep, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
log = logging.getLogger("slurm")
STEPS = 150


def at_work(sweep: Sweep, root: str) -> None:
    """Wait until the run below `root` has saved its first checkpoint."""

    def saved() -> bool:
        assert sweep.process.poll() is None, sweep.job_logs()
        return any((sweep.folder / root).rglob("step-*"))

    wait_for(f"a checkpoint in {root}", saved)


def found_in(folder: Path, pattern: str) -> list[int]:
    """The numbers that `pattern` finds in a run's log."""
    (path,) = folder.rglob("log.txt")
    return [int(number) for number in re.findall(pattern, path.read_text())]


def test_a_sweep_is_one_array_with_a_gpu_a_job_and_a_failing_job_stops_no_other(
    cluster: Cluster, tmp_path: Path
) -> None:
    gpus = "hydra.launcher.setup=['echo GPU $CUDA_VISIBLE_DEVICES']"
    words = ["hydra/launcher=slurm_gpu", "hydra.launcher.cpus_per_task=1", gpus, "data=absent,mini", "outer.steps=4"]
    sweep = cluster.launch(tmp_path, *words)
    first, second = cluster.jobs(sweep, 2)
    array = first.partition("_")[0]
    assert (first, second) == (f"{array}_0", f"{array}_1")
    assert sweep.wait() == 2, sweep.job_logs()
    said = sweep.output[sweep.output.rindex("error: ") :].strip()
    log.info("job %s failed: %s", first, said)
    assert "absent.jsonl" in said and "Traceback" not in said
    assert "data-mini" in only_run(tmp_path).name
    assert sorted(re.findall(r"^GPU (.*)$", sweep.job_logs(), re.MULTILINE)) == ["0", "1"]
    wait_for("the accounting", lambda: list(cluster.accounted(array).values()) == ["COMPLETED"] * 2)
    log.info("accounting: %s", cluster.accounted(array))


def test_a_preempted_job_and_a_warned_one_are_requeued_and_end_in_the_same_bits(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Three runs of the same settings: one is preempted, one gets the signal of a limit or of a polite preemption."""
    words = ["loop.root=a,b,c", f"outer.steps={STEPS}", "loop.save_every=10", "loop.evaluate_every=50"]
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm", *words)
    jobs = dict(zip("abc", cluster.jobs(sweep, 3), strict=True))
    for name in jobs:
        at_work(sweep, name)

    urgent = cluster.call("sbatch", "--parsable", "--partition=urgent", "--output=/dev/null", "--wrap=true")
    log.info("submitted: urgent job %s", urgent)

    def running() -> list[str]:
        return [name for name, job in jobs.items() if cluster.fields(job)["JobState"] == "RUNNING"]

    wait_for("one of the three preempted", lambda: len(running()) < 3)
    warned, straight = running()
    cluster.call("scancel", "--signal=USR2", jobs[warned])
    (preempted,) = set(jobs) - {warned, straight}
    log.info("preempted: job %s; warned by SIGUSR2: job %s", jobs[preempted], jobs[warned])
    cluster.run_again(jobs[preempted])
    cluster.run_again(jobs[warned])
    assert sweep.wait() == 0, sweep.job_logs()

    runs = {name: only_run(tmp_path / name) for name in jobs}
    saved = {name: found_in(runs[name], r"stop signal: saved after step (\d+)") for name in jobs}
    continued = {name: found_in(runs[name], r"continuing after step (\d+)") for name in jobs}
    for name in (preempted, warned):
        log.info(
            "job %s saved after step %s of %d, continued after %s", jobs[name], saved[name], STEPS, continued[name]
        )
    assert (saved[straight], continued[straight]) == ([], [])
    assert continued[warned] == saved[warned] and len(saved[warned]) == 1
    assert len(continued[preempted]) == 1 and 0 < continued[preempted][0] < STEPS

    expected = contents(runs[straight])
    for name in (preempted, warned):
        found = contents(runs[name])
        assert found.keys() == expected.keys()
        for part in found:
            assert found[part] == expected[part], (name, part)
        log.info("job %s equals job %s bit by bit: %s", jobs[name], jobs[straight], ", ".join(sorted(found)))
    assert cluster.accounted(urgent)[urgent] == "COMPLETED"


def test_a_job_near_its_time_limit_saves_is_requeued_and_continues(cluster: Cluster, tmp_path: Path) -> None:
    """Limits are minutes and SLURM looks at them twice a minute, so the limit is lowered once the job is at work."""
    words = ["hydra.launcher.signal_delay_s=280", "outer.steps=100000", "loop.save_every=10", "loop.evaluate_every=0"]
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm_cpu", *words)
    (job,) = cluster.jobs(sweep, 1)
    at_work(sweep, "runs")
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=5")
    log.info("limit of job %s lowered to 300 s, of which the warning takes 280", job)
    cluster.run_again(job)
    (saved,) = found_in(tmp_path, r"stop signal: saved after step (\d+)")
    assert "SIGUSR2: saving after this step" in sweep.job_logs()
    assert wait_for("the run continued", lambda: found_in(tmp_path, r"continuing after step (\d+)")) == [saved]
    log.info("job %s saved after step %d and continued after it", job, saved)
    assert sweep.process.poll() is None, sweep.job_logs()


def test_a_cancelled_job_is_reported_within_a_minute(cluster: Cluster, tmp_path: Path) -> None:
    sweep = cluster.launch(tmp_path, "hydra/launcher=slurm_cpu", "outer.steps=100000")
    (job,) = cluster.jobs(sweep, 1)
    wait_for("the job running", lambda: cluster.fields(job)["JobState"] == "RUNNING")
    cluster.call("scancel", job)
    log.info("cancelled: job %s", job)
    assert sweep.wait(60) == 1, sweep.job_logs()
    (said,) = re.findall(r"^.*has not produced any output.*$", sweep.output, re.MULTILINE)
    log.info("%s", said)
    assert "CANCELLED" in said
    assert cluster.accounted(job)[job].startswith("CANCELLED")
