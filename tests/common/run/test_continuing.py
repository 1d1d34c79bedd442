"""One run, continued: killed anywhere it ends bit for bit like the straight one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from common.run import checkpoint
from common.run.schema import LoopConfig
from tests.common.run.counting import Counter, count, open_run, records

CHECKOUT = Path(__file__).parents[3]
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
                    run.state.ended = True
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


def test_what_is_fixed_is_fixed_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    with open_run(tmp_path) as run, pytest.raises(RuntimeError, match=r"run\.fix comes after the checkpoint was read"):
        run.restore()
        run.fix({"train": "0"})
