"""Checkpoints: exact round trips, whole or not there, old ones intact whatever happens; one object in memory."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from common.errors import UserError
from common.run import checkpoint, state
from common.run.checkpoint import Shards
from tests.common.run.checkpoints import Holder, flipped_bit, half_a_file, names, run_of, same

CHECKOUT = Path(__file__).parents[3]


def test_any_nesting_comes_back_exactly(tmp_path: Path) -> None:
    state = {
        "a.b": torch.arange(3),
        "a": {"b": torch.tensor(1.5, dtype=torch.float64), "empty": torch.zeros(0, 2)},
        0: [torch.tensor([True]), (1, 2.5, None, "x", b"\x00\xff"), {}],
        "$odd": float("nan"),
        "far": [float("-inf"), 2**200, -0.0],
        "half": torch.randn(2, 3, dtype=torch.bfloat16).T,
    }
    path = checkpoint.save(tmp_path, 7, {"thing": state}, {"records": 3})
    assert path == tmp_path / "step-000007"
    found = checkpoint.load(path)
    assert (found.step, found.run) == (7, {"records": 3})
    assert same(state, found.objects["thing"])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: Any) -> None:
    def step(model: nn.Module, optimiser: Any) -> None:
        optimiser.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimiser.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {"amsgrad": True}
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    optimiser = kind(groups, lr=0.1, **options)
    for _ in range(3):
        step(model, optimiser)
    checkpoint.save(tmp_path, 3, {"model": model.state_dict(), "optimiser": optimiser.state_dict()}, {})
    step(model, optimiser)

    again = nn.Linear(3, 2)
    fresh = kind([{"params": [again.weight]}, {"params": [again.bias]}], lr=0.5, **options)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    again.load_state_dict(found.objects["model"])
    fresh.load_state_dict(found.objects["optimiser"])
    step(again, fresh)
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    assert same(optimiser.state_dict(), fresh.state_dict())


def test_a_models_file_holds_its_parameters_under_their_own_names_and_tied_ones_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Embedding(5, 2)
            self.outside = nn.Linear(2, 5, bias=False)
            self.outside.weight = self.inside.weight

    model = Tied()
    path = checkpoint.save(tmp_path, 1, {"model": model.state_dict()}, {})
    assert list(load_file(path / "model.safetensors")) == ["inside.weight"]
    other = Tied()
    other.load_state_dict(checkpoint.load(path).objects["model"])
    assert torch.equal(other.outside.weight, model.inside.weight)


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"groups\.0\.rule is a function, which a checkpoint cannot hold"):
        checkpoint.save(tmp_path, 1, {"thing": {"groups": [{"rule": same}]}}, {})
    assert names(tmp_path) == []


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in range(10, 70, 10):
        checkpoint.save(tmp_path, step, {}, {}, keep=2, best=20 if step >= 20 else None)
    assert checkpoint.steps(tmp_path) == [60, 50, 20]
    checkpoint.save(tmp_path, 1_234_567, {}, {}, keep=1)
    assert names(tmp_path) == ["step-1234567"]


def test_what_lies_ahead_of_the_run_takes_no_place(tmp_path: Path) -> None:
    """Step 9 was damaged, so that the run went on from 3."""
    for step in (3, 9):
        checkpoint.save(tmp_path, step, {}, {}, keep=2)
    (tmp_path / "step-000009" / "state.json").write_text("torn")
    checkpoint.save(tmp_path, 5, {}, {}, keep=1)
    assert checkpoint.steps(tmp_path) == [5]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("harm", [half_a_file, flipped_bit, Path.unlink, lambda path: path.write_text("")])
@pytest.mark.parametrize("file", ["state.json", "model.safetensors"])
def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Any, file: str
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"model": {"weight": torch.full((2,), float(step))}}, {"records": step})
    harm(tmp_path / "step-000002" / file)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 1
    assert "step-000002" in caplog.text and "trying the one before" in caplog.text
    # the step comes again and replaces the broken one
    checkpoint.save(tmp_path, 2, {"model": {"weight": torch.zeros(2)}}, {})
    again = checkpoint.latest(tmp_path)
    assert again is not None and again.step == 2


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {}, {})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "schema": 99}))
    with pytest.raises(UserError, match="checkpoint format 99, this code reads 1"):
        checkpoint.load(path)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    path = checkpoint.save(tmp_path, 1, {"rng": {"state": torch.get_rng_state()}}, {})
    checkpoint.load(path)


@pytest.mark.parametrize("code, words", [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "quota exceeded")])
def test_a_full_disk_names_the_last_good_checkpoint_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    good = checkpoint.save(tmp_path, 10, {"model": {"weight": torch.ones(3)}}, {})
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the tensors were written, state.json is not
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        checkpoint.save(tmp_path, 20, {"model": {"weight": torch.zeros(3)}}, {})
    monkeypatch.undo()
    message = str(caught.value)
    assert "step-000020" in message and words in message and str(good) in message and "free space" in message
    assert names(tmp_path) == ["step-000010"]
    found = checkpoint.latest(tmp_path)
    assert found is not None and torch.equal(found.objects["model"]["weight"], torch.ones(3))


def test_a_disk_that_really_refuses_more_bytes_is_one_clear_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large; there is no earlier one; free space there"):
            checkpoint.save(tmp_path / "checkpoints", 1, {"model": {"weight": torch.zeros(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "checkpoints") == []


# ---- one object at a time


def test_the_files_are_those_of_all_earlier_versions(tmp_path: Path) -> None:
    """By hand, as they were written before this format's writer."""
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    data = serialise({"weight": weight})
    structure = {"weight": {"$tensor": "weight"}, "rate": 0.1, "pair": {"$tuple": [1, 2]}}
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "structure": structure}
    written = {"schema": 1, "step": 4, "run": {"records": 2}, "objects": {"model": entry}}
    by_hand = tmp_path / "hand" / "step-000004"
    by_hand.mkdir(parents=True)
    (by_hand / "model.safetensors").write_bytes(data)
    (by_hand / "state.json").write_text(json.dumps(written))
    found = checkpoint.latest(tmp_path / "hand")
    assert found is not None and found.step == 4 and found.run == {"records": 2}
    model = found.objects["model"]
    assert same(model, {"weight": weight, "rate": 0.1, "pair": (1, 2)})
    again = checkpoint.save(tmp_path / "again", 4, {"model": model}, {"records": 2})
    assert (again / "model.safetensors").read_bytes() == data
    own = json.loads((again / "state.json").read_text())
    assert own.pop("sha256") == hashlib.sha256(json.dumps(written).encode()).hexdigest() and own == written


class Turns:
    """Gives states and fails if one is still held when the next is asked for."""

    def __init__(self) -> None:
        self.given: list[weakref.ref[torch.Tensor]] = []

    def alone(self, tensor: torch.Tensor) -> torch.Tensor:
        assert not any(other() is not None for other in self.given), "an earlier one is still held"
        self.given.append(weakref.ref(tensor))
        return tensor

    def states(self, *names: str) -> Shards:
        return Shards(names, lambda name: {"weight": self.alone(torch.ones(2) * len(self.given))})


def test_objects_and_shards_are_made_written_and_read_in_their_turn(tmp_path: Path) -> None:
    writing, reading = Turns(), Turns()
    shards = writing.states("a", "b", "c")
    plain = writing.states("model", "outer")
    objects = Shards(["model", "clients", "outer"], lambda name: shards if name == "clients" else plain[name])
    checkpoint.save(tmp_path, 1, objects, {})
    checkpoint.save(tmp_path, 2, objects, {}, previous=1)
    assert len(writing.given) == 10
    found = checkpoint.latest(tmp_path)
    assert found is not None and list(found.objects) == ["model", "clients", "outer"]
    for name in ("model", "outer"):
        reading.alone(found.objects[name]["weight"])
    for _, value in found.objects["clients"].items():
        reading.alone(value["weight"])
        del value
    assert len(reading.given) == 5


def test_what_was_selected_is_known_from_state_json_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        checkpoint.save(
            folder, step, {"model": {"weight": torch.ones(1, 1) * step}}, {"best": {"step": 1, "score": 0.5}}
        )
        (folder / checkpoint.name_of(step) / "model.safetensors").rename(tmp_path / f"{step}")
    found = state.selected(tmp_path)
    assert found.step == 1 and found.objects.keys() == {"model"}
    model = nn.Linear(1, 1, bias=False)
    with pytest.raises(UserError, match="step-000001: unreadable checkpoint .*No such file"):
        state.put_back(found, {"model": model}, tmp_path, "tiny")
    (tmp_path / "1").rename(folder / checkpoint.name_of(1) / "model.safetensors")
    state.put_back(found, {"model": model}, tmp_path, "tiny")
    assert model.weight.item() == 1
    flipped_bit(folder / checkpoint.name_of(1) / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors is damaged \(its hash differs\)"):
        state.put_back(found, {"model": model}, tmp_path, "tiny")


MEASURE = """
import sys
from pathlib import Path
import torch
from common.engine.cuda.sizes import MemoryMeter, give_back
from common.run import checkpoint

class Part:
    def load_state_dict(self, state):
        assert len(state) == 4

cpu, folder = torch.device("cpu"), Path(sys.argv[1])
def peak(work):
    give_back(cpu)
    with MemoryMeter(cpu) as meter:
        work()
    print(meter.peak // 1_000_000)

checkpoint.save(folder / "small", 0, {"model": {"0": torch.ones(1)}}, {})
if sys.argv[2] == "write":
    states = {name: {str(n): torch.ones(25_000_000 // 4) for n in range(4)} for name in ("model", "outer")}
    peak(lambda: checkpoint.save(folder, 1, states, {}))
else:
    parts = {"model": Part(), "outer": Part()}
    found = []
    peak(lambda: found.append(checkpoint.latest(folder)))
    peak(lambda: [part.load_state_dict(found[0].objects[name]) for name, part in parts.items()])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process forget its peak")
def test_saving_200_mb_takes_no_memory_and_reading_it_that_of_one_object(tmp_path: Path) -> None:
    def megabytes(what: str) -> list[int]:
        command = [sys.executable, "-c", MEASURE, str(tmp_path), what]
        return [int(line) for line in subprocess.check_output(command, text=True, cwd=CHECKOUT).split()]

    (written,) = megabytes("write")
    assert written < 40
    verified, read = megabytes("read")
    assert verified < 40 and 90 < read < 140


def test_a_conjugate_view_is_no_tie(tmp_path: Path) -> None:
    z = torch.randn(3, dtype=torch.complex64)
    checkpoint.save(tmp_path, 1, {"views": {"z": z, "zc": z.conj(), "minus": z.conj().imag}}, {})
    found = checkpoint.load(tmp_path / checkpoint.name_of(1)).objects["views"]
    assert torch.equal(found["z"], z) and torch.equal(found["zc"], z.conj()) and torch.equal(found["minus"], -z.imag)


def test_a_name_that_is_none_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.\./model' is no name of an object; use letters, digits"):
        checkpoint.save(tmp_path, 1, {"../model": {}}, {})


def test_weights_below_an_adapter_that_have_changed_are_refused(tmp_path: Path) -> None:
    class Part(Holder):
        def __init__(self, base: str) -> None:
            self.state, self.base = {}, base

        def fingerprint(self) -> str:
            return self.base

    made = {"fixed": {"base weights": "old"}}
    path = checkpoint.save(tmp_path, 1, {"model": {}}, {**run_of(1), "made": made})
    state.put_back(checkpoint.load(path), {"model": Part("old")}, tmp_path, "gpt2")
    with pytest.raises(UserError, match="trained on other base weights than model.name=gpt2 has now; put the old ones"):
        state.put_back(checkpoint.load(path), {"model": Part("new")}, tmp_path, "gpt2")
