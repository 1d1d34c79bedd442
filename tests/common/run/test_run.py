"""One run: continued bit for bit, skipped when finished, stopped by signals, and clear about what went wrong."""

import errno
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from common.engine.cuda import updates
from common.engine.cuda.sizes import peak_memory_bytes
from common.engine.settings import Kernels
from common.errors import UserError
from common.run import checkpoint, opening, progress, stop
from common.run.folder import selection_of
from common.run.results import Interval, Selection
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RunConfig, RuntimeConfig, TrackerConfig, TrackerName

CHECKOUT = Path(__file__).parents[3]
WHO = RunIdentity(paper="paper", experiment="experiment", method="method", scale="cpu", seed=3)
TOTAL = 240
# Dropout, AdamW with a schedule, every generator in use, a data stream with a position, clients in shards, and a
# selected model.
PROGRAM = """
import random, sys
import numpy as np
import torch
from torch import nn
from common.run.checkpoint import Shards
from common.run.items import Item
from common.run.results import Interval
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig

class Clients:
    def __init__(self):
        self.states = {f"client_{number}": {"moment": torch.zeros(3), "rounds": 0} for number in range(20)}
    def state_dict(self):
        return Shards(self.states, self.states.__getitem__)
    def load_state_dict(self, shards):
        self.states = dict(shards)
    def meet(self, name):
        state = self.states[name]
        self.states[name] = {"moment": 0.9 * state["moment"] + torch.randn(3), "rounds": state["rounds"] + 1}
        return self.states[name]["moment"].sum()

class Stream:
    def __init__(self):
        self.position = 0
    def state_dict(self):
        return {"position": self.position}
    def load_state_dict(self, state):
        self.position = state["position"]
    def __next__(self):
        self.position += 1
        return torch.full((4, 8), self.position % 7 / 7) + torch.randn(4, 8)

folder, total = sys.argv[1], int(sys.argv[2])
identity = RunIdentity("paper", "experiment", "method", "cpu", 3)
loop = LoopConfig(save_every=7, save_seconds=0, keep=2)
runtime = RuntimeConfig(device=Device.cpu)
with Run(folder, {"total": total}, runtime, TrackerConfig(), loop, identity) as run:
    if run.finished:
        raise SystemExit(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step / 50))
    stream, clients = Stream(), Clients()
    run.track("model", model)
    run.track("optimiser", optimiser)
    run.track("schedule", schedule)
    run.track("stream", stream)
    run.track("clients", clients)
    for step in run.steps(total):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        noise += clients.meet(f"client_{step * step % 20}").item() / 9  # some are met never, some often
        loss = (model(next(stream)) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        run.log(step, "train", outer_loss=loss, noise=noise)
        if run.due(50):
            run.log(step, "dev", score=-loss.item())
            run.select(-loss.item())
        run.save_if_due(step)
    best = run.restore_best("model")
    test = model.eval()(torch.ones(1, 8)).item()
    found = {"value": Interval(test, 1, test, test), "best": Interval(best, 1, best, best)}
    run.finish(found, [Item("0", "0", {"value": (test, 1)})])
"""


def options(**changed: Any) -> dict[str, Any]:
    return {
        "config": {"inner": {"steps": 4}, "seed": 3},
        "runtime": RuntimeConfig(device=Device.cpu),
        "tracker": TrackerConfig(),
        "loop": LoopConfig(save_seconds=0),
        "identity": WHO,
        **changed,
    }


def open_run(folder: Path, **changed: Any) -> Run:
    return Run(folder, **options(**changed))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Counter:
    """The smallest thing with a state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


def count(folder: Path, total: int, until: int | None = None, **changed: Any) -> Counter:
    """A run that adds its steps up; `until` raises in the middle of that step."""
    counter = Counter()
    with open_run(folder, **changed) as run:
        run.track("counter", counter)
        for step in run.steps(total):
            counter.value += step
            run.log(step, "train", value=counter.value)
            if step == until:
                raise ZeroDivisionError
            run.save_if_due(step)
        run.finish({"value": Interval(counter.value, 1, 0, 9)})
    return counter


# ---- continuation


def start(program: Path, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with (program.parent / "output.txt").open("ab") as output:
        command = [sys.executable, program, folder, str(TOTAL)]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def kill_somewhere(program: Path, folder: Path, share: float) -> bool:
    """Start the program and SIGKILL it once `share` of the records are there; False if it was done before."""
    process = start(program, folder)
    metrics, enough, limit = folder / "metrics.jsonl", share * TOTAL, time.monotonic() + 100
    while process.poll() is None and time.monotonic() < limit:
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= enough:
            process.kill()
            break
        time.sleep(0.001)
    return process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def straight(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert start(program, folder).wait(100) == 0, (program.parent / "output.txt").read_text()
    return folder


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_like_the_straight_one(
    program: Path, straight: Path, tmp_path: Path, kills: int
) -> None:
    folder, draw = tmp_path / "run", random.Random(kills)
    killed = sum(
        kill_somewhere(program, folder, share) for share in sorted(draw.uniform(0, 0.95) for _ in range(kills))
    )
    assert killed == kills
    assert start(program, folder).wait(100) == 0, (program.parent / "output.txt").read_text()

    def timeless(path: Path) -> list[dict[str, Any]]:
        return [{key: value for key, value in record.items() if key != "time"} for record in records(path)]

    assert timeless(folder) == timeless(straight)
    for file in sorted((straight / "checkpoints").rglob("*.safetensors")):
        assert file.read_bytes() == (folder / file.relative_to(straight)).read_bytes(), file.name
    assert checkpoint.steps(folder / "checkpoints") == checkpoint.steps(straight / "checkpoints")
    last = folder / "checkpoints" / checkpoint.name_of(TOTAL) / "clients"
    linked = {file.stem for file in last.iterdir() if file.stat().st_nlink > 1}
    assert len(list(last.iterdir())) == 20 and {"client_2", "client_3"} <= linked and "client_0" not in linked
    one, other = (json.loads((path / "results.json").read_text()) for path in (straight, folder))
    assert one["test"] == other["test"] and one["config_hash"] == other["config_hash"]
    assert (folder / "predictions.jsonl").read_bytes() == (straight / "predictions.jsonl").read_bytes()


def test_a_continued_run_takes_up_state_records_and_time(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        count(tmp_path, 10, until=8, loop=LoopConfig(save_every=3, save_seconds=0))
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "tor')
    saved = json.loads((tmp_path / "checkpoints" / "step-000006" / "state.json").read_text())["run"]["seconds"]
    with open_run(tmp_path) as run:
        run.track("counter", counter := Counter())
        assert run.restore() == 6
        assert counter.value == 21
        assert run.seconds > saved
        assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert count(tmp_path, 10).value == 55
    assert [record["step"] for record in records(tmp_path)] == [*range(1, 11), 10], "the steps, and the test"


def test_a_checkpoint_that_holds_more_than_is_tracked_is_continued(tmp_path: Path) -> None:
    """Earlier ones hold a generator of the run's own."""
    with pytest.raises(ZeroDivisionError):
        count(tmp_path, 3, until=3, loop=LoopConfig(save_every=1, save_seconds=0))
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None and found.step == 2 and found.objects.keys() == {"counter", "rng"}
    more = {**found.objects, "generator": torch.Generator().manual_seed(3).get_state()}
    checkpoint.save(tmp_path / "checkpoints", 2, more, found.run)
    assert checkpoint.load(tmp_path / "checkpoints" / "step-000002").objects.keys() == more.keys()
    assert count(tmp_path, 3, loop=LoopConfig(save_every=1, save_seconds=0)).value == 1 + 2 + 3


def test_without_a_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        count(tmp_path, 10, until=4)
    assert count(tmp_path, 10).value == 55
    assert [record["step"] for record in records(tmp_path)] == [*range(1, 11), 10]


def test_a_finished_run_is_skipped_and_left_alone(tmp_path: Path) -> None:
    count(tmp_path, 3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with open_run(tmp_path) as run:
        assert run.finished
        assert run.results.test["value"].value == 6
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_last_step_is_saved_even_if_nothing_was_due(tmp_path: Path) -> None:
    count(tmp_path, 5)
    assert checkpoint.steps(tmp_path / "checkpoints") == [5]


def test_the_selected_model_outlives_newer_checkpoints_and_comes_back(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.7, 3: 0.7, 4: float("nan"), 5: 0.2}
    counter = Counter()
    with open_run(tmp_path, loop=LoopConfig(save_every=1, save_seconds=0, keep=1)) as run:
        run.track("counter", counter)
        selected = []
        for step in run.steps(5):
            counter.value = step
            selected.append(run.select(scores[step]))
            run.save_if_due(step)
        assert selected == [True, True, False, False, False]
        assert run.best == {"step": 2, "score": 0.7}
        assert checkpoint.steps(tmp_path / "checkpoints") == [5, 2]
        assert run.restore_best("counter") == 2
        assert counter.value == 2
    with open_run(tmp_path / "other") as run:
        assert run.restore_best("counter") == 0


def test_a_run_that_ended_early_does_not_go_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with open_run(tmp_path) as run:
            for step in run.steps(10):
                run.log(step, "train", value=step)
                if step == 4:
                    run.end_early()
                    assert run.due(0)
                run.save_if_due(step)
            assert run.step == 4
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4]


def test_time_alone_makes_a_checkpoint_due(tmp_path: Path) -> None:
    with open_run(tmp_path, loop=LoopConfig(save_seconds=1e-9)) as run:
        for step in run.steps(2):
            run.save_if_due(step)
            assert checkpoint.steps(tmp_path / "checkpoints")[0] == step


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_way_out(tmp_path: Path) -> None:
    def once(*names: str) -> None:
        with open_run(tmp_path) as run:
            for name in names:
                run.track(name, torch.nn.Linear(len(names), 1))
            run.restore()
            run.save(1)

    once("a")
    with pytest.raises(
        UserError, match=r"step-000001 does not fit this code \(a: RuntimeError .*size mismatch.*environment.json"
    ):
        once("a", "b")


def test_objects_are_tracked_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    with open_run(tmp_path) as run, pytest.raises(RuntimeError, match="track everything first"):
        run.restore()
        run.track("late", Counter())


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


def test_what_is_fixed_is_fixed_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    with open_run(tmp_path) as run, pytest.raises(RuntimeError, match=r"run\.fix comes after the checkpoint was read"):
        run.restore()
        run.fix({"train": "0"})


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


# ---- stop signals


def signalled(folder: Path, *numbers: int, total: int = 6) -> Counter:
    """A counting run that sends itself `numbers` in step 3."""
    counter = Counter()
    with open_run(folder) as run:
        run.track("counter", counter)
        for step in run.steps(total):
            for number in numbers if step == 3 else ():
                os.kill(os.getpid(), number)
            counter.value += step
            run.save_if_due(step)
    return counter


@pytest.mark.parametrize("number", [number for number in stop.STOPS if number != signal.SIGUSR2])
def test_a_stop_signal_finishes_the_step_saves_and_exits_with_its_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, number)
    assert caught.value.code == 128 + number
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    assert f"{signal.Signals(number).name}: saving after this step" in capfd.readouterr().err
    assert "saved after step 3" in (tmp_path / "log.txt").read_text()
    assert count(tmp_path, 6).value == 21


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "TWIN", 0)
    with pytest.raises(KeyboardInterrupt):
        signalled(tmp_path, signal.SIGINT, signal.SIGINT)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_somebody_doubles_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(stop, "TWIN", 1000)
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, number, number, number)
    assert caught.value.code == 128 + number
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    assert capfd.readouterr().err.count("saving after this step") == 1


def test_a_signal_is_obeyed_where_standard_error_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stop.os, "write", gone)
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, signal.SIGHUP)
    assert caught.value.code == 129
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]


def test_a_signal_after_the_last_save_is_not_forgotten(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught, open_run(tmp_path) as run:
        for step in run.steps(2):
            run.save_if_due(step)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_outside_the_steps_a_signal_acts_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught, open_run(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_a_handler_of_somebody_elses_is_called_after_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def requeue(number: int, _: Any) -> None:  # as submitit does
        assert checkpoint.steps(tmp_path / "checkpoints") == [3]
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    ignored: list[int] = []
    term = signal.signal(signal.SIGTERM, lambda number, _: ignored.append(number))
    try:
        with pytest.raises(SystemExit) as caught:
            signalled(tmp_path, signal.SIGUSR2, signal.SIGTERM)
        assert caught.value.code == -1
        assert signalled(tmp_path / "ignored", signal.SIGTERM).value == 21  # saved, handed on, and went on
        assert ignored == [signal.SIGTERM]
        assert checkpoint.steps(tmp_path / "ignored" / "checkpoints") == [6, 3]
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
        signal.signal(signal.SIGTERM, term)


def test_a_step_that_takes_too_long_does_not_cost_the_place_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requeue(number: int, _: Any) -> None:
        raise SystemExit(-1)

    monkeypatch.setattr(stop, "PATIENCE", 0.02)
    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit) as caught, open_run(tmp_path) as run:
            for _ in run.steps(1):
                os.kill(os.getpid(), signal.SIGUSR2)
                signal.pause()
        assert caught.value.code == -1
        assert checkpoint.steps(tmp_path / "checkpoints") == []
    finally:
        signal.signal(signal.SIGUSR2, before)


# ---- progress


def test_a_progress_line_says_how_far_how_fast_and_how_long_still(caplog: pytest.LogCaptureFixture) -> None:
    told = progress.Progress(20, 100, bar=False, name="seed=1")
    told.note({"train/outer_loss": 0.51234})
    assert told.line(40, 10.0) == "seed=1: step 40/100 (40 %), 2 steps/s, 0:30 left, train/outer_loss 0.5123"
    assert told.line(21, 100.0).startswith("seed=1: step 21/100 (21 %), 100 s/step, 2:11:40 left")
    with caplog.at_level(logging.INFO), progress.Progress(0, 500, bar=False) as lines:
        for step in range(1, 501):
            lines.update(step)
    assert len(caplog.records) == 1  # the last step; the others came within ten seconds


def test_whoever_watches_is_told_how_much_of_a_runs_own_loop_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(progress, "watch", lambda *numbers: told.append(numbers))
    monkeypatch.setattr(progress, "SECONDS", 0)
    for name in ("", "answers"):
        with progress.Progress(20, 100, bar=False, name=name) as lines:
            lines.update(30)
    assert told == [(10, 80)], "those of an earlier start took none of this one's time"


def test_on_a_terminal_there_is_a_bar_and_log_lines_do_not_break_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with progress.Progress(0, 3, bar=True) as bar:
        for step in (1, 2, 3):
            bar.note({"loss": step / 4})
            bar.update(step)
    assert "3/3" in capsys.readouterr().err
