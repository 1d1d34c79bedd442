"""Whatever fails, wherever: a run ends like the undisturbed one, or with one clear error, and then continues to it."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.run import checkpoint, environment, origin
from common.run.export import export
from common.run.items import Item
from common.run.results import Interval
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig
from tests.faults import CODES, Disk, faulty
from tests.runs import contents

CHECKOUT = Path(__file__).parents[3]
TOTAL = 4


class Part:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def save_pretrained(self, folder: str) -> None:
        (Path(folder) / "bias.txt").write_text(str(self.model.bias.tolist()))


def train(folder: Path, until: int = TOTAL, data: str = "a", lr: float = 0.1) -> list[int]:
    """A whole run in miniature; returns the steps that it took."""
    taken = []
    who, loop = RunIdentity("paper", "experiment", "method", "cpu", 3), LoopConfig(save_every=1, save_seconds=0)
    with Run(folder, {"seed": 3, "lr": lr}, RuntimeConfig(device=Device.cpu), TrackerConfig(), loop, who) as run:
        if run.finished:
            return taken
        model = nn.Linear(2, 1)
        run.fix({"train": data, "dev": "b", origin.WEIGHTS: origin.of_weights(model.state_dict())})
        run.track("model", model)
        for step in run.steps(until):
            taken.append(step)
            with torch.no_grad():
                model.weight.add_(torch.randn(1, 2))
            run.log(step, "train", value=model.weight.sum())
            run.select({1: 0.5, 2: 0.9}.get(step, 0.1))
            run.save_if_due(step)
        if until == TOTAL:
            run.restore_best("model")
            export(folder / "model", Part(model))
            value = model.weight.sum().item()
            run.finish({"value": Interval(value, 1, value, value)}, [Item("0", "0", {"value": (value, 1)})])
    return taken


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No git, and no walk over the code, at every start."""
    monkeypatch.setattr(environment, "revision", lambda: ("0" * 40, False))
    monkeypatch.setattr(origin, "of_code", lambda *_: "0")


@pytest.fixture
def straight(tmp_path: Path) -> dict[str, Any]:
    train(tmp_path / "straight")
    return contents(tmp_path / "straight")


def intact(folder: Path) -> int:
    """Step of the newest checkpoint that is whole, 0 for none."""
    found = checkpoint.latest(folder / "checkpoints")
    return found.step if found else 0


def disturbed(folder: Path, straight: dict[str, Any], disk: Disk) -> bool:
    """Run with a fault, then again without; says whether the fault ended the run."""
    before, ended = intact(folder), False
    try:
        with faulty(disk):
            train(folder)
    except UserError as error:
        ended = True
        assert "\n" not in str(error) and (str(folder) in str(error) or "disk" in str(error)), error
    reached, finished = intact(folder), (folder / "FINISHED").is_file()
    assert reached >= before, "a checkpoint is gone"
    taken = train(folder)
    assert finished or taken == list(range(reached + 1, TOTAL + 1)), "it went on from where it was"
    assert contents(folder) == straight
    assert (folder / "model" / "bias.txt").is_file()
    left = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    assert not left, left
    return ended


def sweep(tmp_path: Path, straight: dict[str, Any], codes: tuple[int, ...], first: int, every: int) -> dict[str, int]:
    """Let calls fail, each `every`th, in a fresh and in a continued run; returns how often which call did."""
    hit: dict[str, int] = {}
    begun = tmp_path / "begun"
    train(begun, until=2)
    for kind, code in itertools.product(("fresh", "continued"), codes):
        for at in itertools.count(first, every):
            folder = tmp_path / "runs" / f"{kind}-{code}-{at}"
            if kind == "continued":
                shutil.copytree(begun, folder)
            disk = Disk(folder, at, code)
            disturbed(folder, straight, disk)
            if len(disk.calls) <= at:
                break
            hit[disk.calls[at]] = hit.get(disk.calls[at], 0) + 1
            shutil.rmtree(folder)
    return hit


@pytest.mark.parametrize("first, code", list(enumerate(CODES)))
def test_an_error_of_the_disk_at_some_calls_leaves_no_trace(
    tmp_path: Path, straight: dict[str, Any], first: int, code: int
) -> None:
    assert sum(sweep(tmp_path, straight, (code,), first, every=41).values()) > 6


@pytest.mark.faults
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_an_error_of_the_disk_at_any_call_leaves_no_trace(tmp_path: Path, straight: dict[str, Any], code: int) -> None:
    hit = sweep(tmp_path, straight, (code,), 0, every=1)
    print(errno.errorcode[code], sum(hit.values()), hit)
    assert hit.keys() >= {"open", "read", "write", "fsync", "replace", "rename", "lockf", "flock", "mkdir", "listdir"}


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.faults)])
def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    real = {name: getattr(time, name) for name in ("time", "monotonic")}
    for at in itertools.count(0, every):
        calls = 0

        def jumped(name: str, at: int = at) -> float:
            nonlocal calls
            calls += 1
            return real[name]() - (1e8 if calls > at else 0.0)

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(time, name, lambda name=name: jumped(name))
            train(tmp_path / str(at), until=2)
            train(tmp_path / str(at))
        assert contents(tmp_path / str(at)) == straight
        if calls <= at:
            break


WRITER = """
import os, sys
from pathlib import Path
if sys.argv[2] == "patched":
    os.getpid = lambda: 1
from common.run.files import write_lines

def lines():
    for number in range(2000):
        if number == 1604:
            print(os.getpid(), flush=True)
            sys.stdin.readline()
        yield f"{sys.argv[3]} {number}"

write_lines(Path(sys.argv[1]), lines())
"""


def test_two_writers_of_one_process_number_never_mix(tmp_path: Path) -> None:
    """As in two containers that share a cache."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    spaces = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    target = tmp_path / "cache.jsonl"

    def start(name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", WRITER, str(target), "own" if spaces else "patched", name]
        command = [*alone, *words] if spaces else words
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": "."}
        )
        assert process.stdout is not None and process.stdout.readline() == b"1\n", "both are number 1"
        return process

    def finish(process: subprocess.Popen[bytes]) -> None:
        process.communicate(b"\n")
        assert process.returncode == 0

    first = start("first")
    second = start("second")
    finish(second)
    assert target.read_text().split("\n") == [*(f"second {number}" for number in range(2000)), ""]
    finish(first)
    assert target.read_text().split("\n") == [*(f"first {number}" for number in range(2000)), ""]
    assert list(tmp_path.iterdir()) == [target]


def test_other_data_are_refused_and_other_code_is_told_of(
    tmp_path: Path, straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "run", until=2)
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(UserError, match=r"the data have changed since step 2 was saved: train; put the old files"):
        train(tmp_path / "run", data="flipped")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before
    monkeypatch.setattr(environment, "revision", lambda: ("1" * 40, False))
    monkeypatch.setattr(environment, "_version", lambda name: "0.1" if name == "torch" else None)
    assert train(tmp_path / "run") == [3, 4]
    assert f"since step 2 was saved, and numbers may with it: revision {'0' * 40} (now {'1' * 40})" in caplog.text
    assert "torch" in caplog.text and "(now 0.1)" in caplog.text
    assert contents(tmp_path / "run") == straight
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]
    assert [start["revision"][0] for start in starts] == ["0", "0", "1"]


def test_a_checkpoint_of_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "0", until=2)
    train(tmp_path / "1", until=2, lr=0.2)
    shutil.rmtree(tmp_path / "1" / "checkpoints")
    shutil.copytree(tmp_path / "0" / "checkpoints", tmp_path / "1" / "checkpoints")
    with pytest.raises(UserError, match=r"the checkpoint of step 2 is of a run with other settings"):
        train(tmp_path / "1", lr=0.2)


def test_other_start_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "run", until=2)
    monkeypatch.setattr(origin, "of_weights", lambda _: "of another model file")
    with pytest.raises(UserError, match="the start weights are not those that the run began with; put the model's old"):
        train(tmp_path / "run")


def test_a_checkpoint_of_a_later_version_stops_the_run_and_stays(tmp_path: Path) -> None:
    train(tmp_path / "run", until=2)
    files = sorted((tmp_path / "run" / "checkpoints").glob("*/state.json"))
    for file in files:
        file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))
    with pytest.raises(UserError, match=r"step-000002: checkpoint format 2, this code reads 1; update it"):
        train(tmp_path / "run")
    assert sorted((tmp_path / "run" / "checkpoints").glob("*/state.json")) == files
