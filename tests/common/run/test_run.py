"""One run: its folder, its records, and clear words about what went wrong."""

import errno
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.engine.cuda import updates
from common.engine.cuda.sizes import peak_memory_bytes
from common.engine.settings import Kernels
from common.errors import UserError
from common.run import opening, stop
from common.run.folder import selection_of
from common.run.results import Selection
from common.run.run import RunIdentity
from common.run.schema import Device, LoopConfig, RunConfig, RuntimeConfig, TrackerConfig, TrackerName
from tests.common.run.counting import Counter, count, open_run, records

# ---- the folder


def test_the_folder_holds_what_the_contract_says(tmp_path: Path) -> None:
    count(tmp_path, 2)
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "log.txt", "checkpoints", "results.json"}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"predictions.jsonl", "FINISHED", ".lock"}
    assert (tmp_path / "config.yaml").read_text() == "inner:\n  steps: 4\nseed: 3\n"
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["libraries"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert {"python", "revision", "dirty", "hardware", "command", "started"} <= environment.keys()
    assert environment["hardware"]["cores"] >= 1
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["paper"], found["seed"], found["hardware"]["device"]) == ("paper", 3, "cpu")
    assert found["peak_memory_bytes"] > 1e7 and found["wall_seconds"] > 0
    assert "step 2/2 (100 %)" in (tmp_path / "log.txt").read_text()


def test_what_selects_the_model_is_written_down_and_read_back(tmp_path: Path) -> None:
    assert selection_of(tmp_path) == Selection("accuracy", higher_is_better=True), "of runs from before it was"
    chosen = Selection("fvd", higher_is_better=False)
    with open_run(tmp_path, selection=chosen):
        pass
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["selection"] == {"metric": "fvd", "higher_is_better": False}
    assert selection_of(tmp_path) == chosen
    (tmp_path / "environment.json").write_text('{"selection": {"name": "fvd"}}')
    with pytest.raises(UserError, match=r"environment.json: damaged \(.*'name'\); run its command again"):
        selection_of(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process forget its peak")
def test_the_peak_of_memory_is_of_the_run_and_not_of_one_before_it(tmp_path: Path) -> None:
    large = torch.ones(400_000_000 // 4)
    with open_run(tmp_path / "before") as run:
        before = peak_memory_bytes(run.device)
    del large
    with open_run(tmp_path / "after") as run:
        assert peak_memory_bytes(run.device) < before - 300_000_000


def test_a_folder_made_with_other_settings_is_refused_with_the_first_differences(tmp_path: Path) -> None:
    count(tmp_path, 2)
    other = {"inner": {"steps": 5}, "new": 1}
    expected = r"other settings: inner.steps=4 \(now 5\), seed=3 \(now absent\), new=absent \(now 1\); go back"
    with pytest.raises(UserError, match=expected), open_run(tmp_path, config=other):
        pass
    (tmp_path / "FINISHED").unlink()  # checkpoints alone are worth the same care
    with pytest.raises(UserError, match=expected), open_run(tmp_path, config=other):
        pass


def test_a_folder_made_with_settings_that_change_no_number_is_continued(tmp_path: Path) -> None:
    count(tmp_path, 2, config=RunConfig())
    tracked = RunConfig(tracker=TrackerConfig(TrackerName.wandb), loop=LoopConfig(keep=1))
    with open_run(tmp_path, config=tracked) as run:
        assert run.finished
    with pytest.raises(UserError, match=r"other settings: seed=0 \(now 1\); go back"):
        open_run(tmp_path, config=RunConfig(seed=1)).__enter__()


def test_a_folder_without_checkpoint_or_result_takes_new_settings(tmp_path: Path) -> None:
    with open_run(tmp_path):
        pass
    with open_run(tmp_path, config={"seed": 9}):
        assert (tmp_path / "config.yaml").read_text() == "seed: 9\n"


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    holder = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
    command = [sys.executable, "-c", f"{holder}; input()", str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is running this"), open_run(tmp_path / "run"):
            pass
        process.stdin.close()
    with open_run(tmp_path / "run"):
        pass


def test_what_another_process_did_before_the_lock_was_had_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finished the run with its own settings between the first look and the lock."""
    real = opening.lock

    def late(folder: Path, **given: bool) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(opening, "lock", real)
            count(folder, 2, config={"seed": finished_with})
        return real(folder, **given)

    for finished_with in (3, 4):
        folder = tmp_path / str(finished_with)
        monkeypatch.setattr(opening, "lock", late)
        if finished_with == 3:
            with open_run(folder, config={"seed": 3}) as run:
                assert run.finished and run.results.test["value"].value == 3
        else:
            with (
                pytest.raises(UserError, match=r"other settings: seed=4 \(now 3\)"),
                open_run(folder, config={"seed": 3}),
            ):
                pass
        assert (folder / "config.yaml").read_text() == f"seed: {finished_with}\n"


def test_a_finished_run_waits_for_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count(tmp_path, 2)
    monkeypatch.setattr("common.run.environment.device_for", lambda _: pytest.fail("it asked for a device"))
    with open_run(tmp_path) as run:
        assert run.finished


def test_the_folder_is_held_while_a_run_waits_for_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def waits(_: RuntimeConfig) -> torch.device:
        done = subprocess.run([sys.executable, "-c", program, tmp_path / ".lock"], capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
        return torch.device("cpu")

    monkeypatch.setattr("common.run.environment.device_for", waits)
    with open_run(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_refused_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def none(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.lockf", none)
    with pytest.raises(UserError, match=r"no lock can be had there .*loop.lock=false and start each run once"):
        count(tmp_path / "run", 2)
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
    assert count(tmp_path / "run", 2, loop=LoopConfig(lock=False)).value == 3
    assert "no lock (" in caplog.text


def test_every_start_is_kept_with_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for revision in ("a", "b", "c"):
        monkeypatch.setattr("common.run.environment.revision", lambda revision=revision: (revision, False))
        with open_run(tmp_path):
            pass
        if revision == "a":  # as an earlier version wrote it
            old = json.loads((tmp_path / "environment.json").read_text())
            del old["starts"]
            (tmp_path / "environment.json").write_text(json.dumps(old))
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["revision"] == "c" and [start["revision"] for start in found["starts"]] == ["a", "b", "c"]
    assert found["starts"][0].keys() == {"started", "revision", "dirty", "python", "libraries"}


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        handlers = [signal.getsignal(number) for number in stop.STOPS]
        root = logging.getLogger()
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            handlers,
            root.level,
            root.handlers[:],
        )

    before = state()
    with open_run(tmp_path, runtime=RuntimeConfig(device=Device.cpu, threads=2)):
        assert torch.get_num_threads() == 2 and torch.are_deterministic_algorithms_enabled()
        assert state() != before
    assert state() == before


def test_the_kernels_of_a_run_are_those_of_its_process_until_it_ends(tmp_path: Path) -> None:
    device = torch.device("cpu")
    with open_run(tmp_path, runtime=RuntimeConfig(device=Device.cpu, kernels=Kernels.foreach)):
        assert updates(device) is updates(device, Kernels.foreach)
    assert updates(device) is updates(device, Kernels.reference)


def test_the_seed_fixes_every_number_of_a_run(tmp_path: Path) -> None:
    def drawn(folder: str, seed: int) -> tuple[float, ...]:
        identity = RunIdentity("paper", "experiment", "method", "cpu", seed)
        with open_run(tmp_path / folder, identity=identity):
            return torch.rand(1).item(), random.random()

    assert drawn("a", 1) == drawn("b", 1)
    assert all(one != other for one, other in zip(drawn("a", 1), drawn("c", 2), strict=True))


# ---- metrics


def test_records_carry_step_time_split_and_named_metrics(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log(0, "dev", accuracy=0.5, **{"rates/mean": torch.tensor(2.0), "cost/bytes": 7})
        run.log(1, "train", outer_loss=float("nan"), method="x")
    first, second = records(tmp_path)
    assert first.pop("time") <= second.pop("time")
    assert first == {"step": 0, "split": "dev", "dev/accuracy": 0.5, "rates/mean": 2.0, "cost/bytes": 7}
    assert second == {"step": 1, "split": "train", "train/outer_loss": None, "train/method": "x"}


def test_the_cost_of_a_step_is_its_own_time_and_the_peak_of_the_run(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        found = []
        for step in run.steps(2):
            if step == 1:
                run._step_began -= 1000  # a step that took long
            found.append(run.cost)
    assert 0 <= found[1]["cost/seconds_per_step"] < 1000 <= found[0]["cost/seconds_per_step"]
    assert all(cost["cost/peak_memory_bytes"] > 1e7 for cost in found)


def test_due_counts_steps_and_never_misses_the_last(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        due = [(step, every) for step in run.steps(7) for every in (0, 1, 3) if run.due(every)]
    assert [step for step, every in due if every == 3] == [3, 6, 7]
    assert [step for step, every in due if every == 0] == [7]
    assert len([step for step, every in due if every == 1]) == 7


def test_an_unexpected_error_leaves_its_trace_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        count(tmp_path, 3, until=2)
    text = (tmp_path / "log.txt").read_text()
    assert "the run failed" in text and "ZeroDivisionError" in text


def test_a_full_disk_is_one_clear_error_and_the_run_continues_later(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match="(cannot write .*checkpoint|metrics.jsonl).* File too large") as caught:
        with open_run(tmp_path, loop=LoopConfig(save_every=2, save_seconds=0)) as run:
            run.track("counter", counter := Counter())
            for step in run.steps(6):
                counter.value += step
                run.log(step, "train", value=counter.value)
                if step == 4:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
                try:
                    run.save_if_due(step)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "step-000002" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002"]
    assert count(tmp_path, 6).value == 21


def test_full_metrics_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path) as run:
        run.log(1, "train", value=1)

        class Full:
            def write(self, _: str) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            def close(self) -> None: ...

        assert run._metrics is not None
        run._metrics._file.close()
        monkeypatch.setattr(run._metrics, "_file", Full())
        with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device; free space"):
            run.log(2, "train", value=1)


def test_a_missing_cuda_device_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="runtime.device=cuda, but torch .* sees no CUDA device; use runtime=cpu"):
        with open_run(tmp_path / "run", runtime=RuntimeConfig(device=Device.cuda)):
            pass
    assert not (tmp_path / "run").exists()
    with open_run(tmp_path / "run", runtime=RuntimeConfig(device=Device.auto)) as run:
        assert run.device.type == "cpu"


@pytest.mark.parametrize("setting", ["kernels=fused", "capture=true"])
def test_what_needs_a_cuda_device_is_refused_without_one(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the folder is made."""
    key, value = setting.split("=")
    wanted: dict[str, Any] = {key: {"fused": Kernels.fused, "true": True}[value]}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = (
        f"runtime.{setting} needs a CUDA device, and this run is on the cpu; use runtime=gpu .*, or runtime.{key}="
    )
    with pytest.raises(UserError, match=message), open_run(tmp_path / "run", runtime=RuntimeConfig(**wanted)):
        pass
    assert not (tmp_path / "run").exists()


def test_fused_kernels_without_triton_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    runtime = RuntimeConfig(device=Device.cuda, kernels=Kernels.fused)
    message = "runtime.kernels=fused: its kernels are Triton's, which is not installed .* use runtime.kernels=auto"
    with pytest.raises(UserError, match=message), open_run(tmp_path / "run", runtime=runtime):
        pass


def test_a_failing_tracker_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert count(tmp_path, 3, tracker=TrackerConfig(name=TrackerName.wandb)).value == 6
    assert "W&B failed at start" in (tmp_path / "log.txt").read_text()


def test_wandb_breaking_in_the_middle_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.left = 1

        def log(self, record: Any) -> None:
            if not self.left:
                raise OSError("connection lost")
            self.left -= 1

    monkeypatch.setattr("common.run.tracker.WandbRun", Breaking)
    assert count(tmp_path, 3, tracker=TrackerConfig(name=TrackerName.wandb)).value == 6
    assert (tmp_path / "log.txt").read_text().count("W&B failed at log (OSError: connection lost)") == 1
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 3]


def test_several_processes_for_one_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(UserError, match="4 processes were started for one run.*hydra/launcher=slurm_gpu"):
        count(tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert count(tmp_path / "run", 1).value == 1
