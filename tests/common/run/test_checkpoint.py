"""Checkpoints: exact round trips, whole or not there, old ones intact whatever happens; one object in memory."""

import errno
import hashlib
import itertools
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from common.errors import UserError
from common.run import checkpoint, seeding, state
from common.run.checkpoint import Shards

CHECKOUT = Path(__file__).parents[3]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


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


# ---- shards


class Clients:
    """As many clients, of which some change a round."""

    def __init__(self, count: int, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.states = {
            f"client_{number}": {"moment": torch.randn(40, 50, generator=draw), "rounds": 0, "rng": draw.get_state()}
            for number in range(count)
        }

    def state_dict(self) -> Shards:
        return Shards(self.states, self.states.__getitem__)

    def load_state_dict(self, shards: Shards) -> None:
        self.states = dict(shards)

    def round(self, *numbers: int) -> None:
        for number in numbers:
            self.states[f"client_{number}"]["moment"].mul_(0.5)
            self.states[f"client_{number}"]["rounds"] += 1


def save_clients(folder: Path, step: int, clients: Clients, previous: int | None = None) -> Path:
    return checkpoint.save(folder, step, {"clients": clients.state_dict()}, {}, previous=previous, keep=9)


def read_clients(path: Path) -> Clients:
    clients = Clients(0)
    clients.load_state_dict(checkpoint.load(path).objects["clients"])
    return clients


def inodes(path: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_ino for file in (path / "clients").iterdir()}


def new_bytes(path: Path, before: Path) -> int:
    """Bytes below `path` in files that are not those of `before`."""
    known = {file.stat().st_ino for file in before.rglob("*")}
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(file.st_size for file in files if file.st_ino not in known)


def test_of_a_hundred_clients_ten_are_written_when_ten_have_changed(tmp_path: Path) -> None:
    clients = Clients(100)
    first = save_clients(tmp_path, 1, clients)
    everything = new_bytes(first, tmp_path / "nowhere")
    clients.round(*range(30, 40))
    second = save_clients(tmp_path, 2, clients, previous=1)
    changed = {name for name, inode in inodes(second).items() if inodes(first)[name] != inode}
    assert changed == {f"client_{number}" for number in range(30, 40)}
    assert new_bytes(second, first) <= 0.15 * everything
    assert same(read_clients(second).states, clients.states)
    assert read_clients(first).states["client_30"]["rounds"] == 0
    assert (second / "clients" / "client_0.safetensors").read_bytes()[:8]  # a file as others, for plain tools too
    assert load_file(second / "clients" / "client_0.safetensors")["moment"].equal(clients.states["client_0"]["moment"])


def test_linked_and_written_shards_are_the_same_files(tmp_path: Path) -> None:
    clients = Clients(3)
    save_clients(tmp_path / "linked", 1, clients)
    clients.round(1)
    linked = save_clients(tmp_path / "linked", 2, clients, previous=1)
    written = save_clients(tmp_path / "written", 2, clients)
    files = [file.relative_to(written) for file in sorted(written.rglob("*")) if file.is_file()]
    assert len(files) == 4
    assert all((linked / file).read_bytes() == (written / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["moment"].view(-1)[7].add_(1e-3),
        lambda state: state.update(rounds=1),
        lambda state: state.update(moment=state["moment"].view(50, 40)),
        lambda state: state.update(moment=state["moment"].view(torch.int32)),
        lambda state: state.update(rounds=0.0),
        lambda state: state.update(more=None),
    ],
)
def test_whatever_changes_a_shard_is_noticed(tmp_path: Path, change: Callable[[Any], None]) -> None:
    clients = Clients(2)
    first = save_clients(tmp_path, 1, clients)
    change(clients.states["client_1"])
    second = save_clients(tmp_path, 2, clients, previous=1)
    assert [inodes(second)[name] == inodes(first)[name] for name in clients.states] == [True, False]
    assert same(read_clients(second).states, clients.states)


def test_clients_come_and_go(tmp_path: Path) -> None:
    clients = Clients(3)
    save_clients(tmp_path, 1, clients)
    clients.states["newcomer"] = clients.states.pop("client_0")
    assert list(read_clients(save_clients(tmp_path, 2, clients, previous=1)).states) == [
        "client_1", "client_2", "newcomer",
    ]  # fmt: skip
    clients.states.clear()
    assert read_clients(save_clients(tmp_path, 3, clients, previous=2)).states == {}


def test_links_outlive_the_checkpoint_they_were_made_from(tmp_path: Path) -> None:
    clients = Clients(5)
    for step in range(1, 7):
        clients.round(step % 5)
        objects = {"clients": clients.state_dict()}
        checkpoint.save(tmp_path, step, objects, {}, keep=1, previous=step - 1 if step > 1 else None)
    assert checkpoint.steps(tmp_path) == [6]
    found = checkpoint.latest(tmp_path)
    assert found is not None and same(dict(found.objects["clients"]), clients.states)


def test_a_damaged_linked_shard_is_noticed_in_every_checkpoint_that_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clients = Clients(3)
    for step in (1, 2, 3):
        clients.round(*([] if step == 3 else [0]))  # client 0 of step 1 is a file of its own, of steps 2 and 3 one file
        save_clients(tmp_path, step, clients, previous=step - 1 if step > 1 else None)
    flipped_bit(tmp_path / "step-000003" / "clients" / "client_0.safetensors")
    for step in (2, 3):
        shards = checkpoint.load(tmp_path / checkpoint.name_of(step)).objects["clients"]
        assert same(shards["client_1"], clients.states["client_1"])
        with pytest.raises(UserError, match="client_0.safetensors is damaged"):
            shards["client_0"]
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 1
    # going on from there links to that one only
    save_clients(tmp_path, 2, read_clients(found.path), previous=1)
    again = checkpoint.latest(tmp_path)
    assert again is not None and again.step == 2


def test_a_shard_that_is_missing_is_noticed(tmp_path: Path) -> None:
    path = save_clients(tmp_path, 1, Clients(2))
    (path / "clients" / "client_1.safetensors").unlink()
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(KeyError):
        checkpoint.load(path).objects["clients"]["client_7"]


def test_without_links_everything_is_written_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    clients = Clients(3)
    paths = [save_clients(tmp_path, step, clients, previous=step - 1 if step > 1 else None) for step in (1, 2, 3)]
    assert same(read_clients(paths[2]).states, clients.states)
    assert len({inode for path in paths for inode in inodes(path).values()}) == 9
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: no links here (Operation not permitted)")


def test_a_previous_checkpoint_that_somebody_deleted_is_not_missed(tmp_path: Path) -> None:
    clients = Clients(2)
    path = save_clients(tmp_path, 2, clients, previous=1)
    (path / "clients" / "client_0.safetensors").unlink()
    assert same(read_clients(save_clients(tmp_path, 3, clients, previous=2)).states, clients.states)


@pytest.mark.parametrize("name", ["../client", "a/b", ".hidden", "", "two words"])
def test_names_of_shards_are_names_of_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a shard; use letters, digits"):
        checkpoint.save(tmp_path, 1, {"clients": Shards([name], lambda _: {})}, {})
    assert names(tmp_path) == []


def rounds(folder: Path, total: int) -> Clients:
    """Continue from the newest checkpoint up to `total` rounds."""
    clients, found = Clients(8), checkpoint.latest(folder)
    if found is not None:
        clients.load_state_dict(found.objects["clients"])
    for step in range(found.step + 1 if found else 1, total + 1):
        clients.round(*random.Random(step).sample(range(8), 2))
        checkpoint.save(folder, step, {"clients": clients.state_dict()}, {}, previous=step - 1 if step > 1 else None)
    return clients


def test_an_error_at_any_call_of_the_disk_leaves_a_run_that_ends_like_the_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = rounds(tmp_path / "straight", 4)
    expected = tmp_path / "straight" / "step-000004"
    left, hit = 0, []

    def failing(name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(*given: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                hit.append(name)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(*given)

        return call

    for at in itertools.count():
        folder, left = tmp_path / f"error at {at}", at
        with monkeypatch.context() as patch:
            for name in ("fsync", "rename"):
                patch.setattr(os, name, failing(name))
            with suppress(UserError):
                rounds(folder, 4)
                break  # no call was left to fail
        assert not list(folder.glob(".*"))
        assert same(rounds(folder, 4).states, straight.states)
        for file in sorted(expected.rglob("*.*")):
            assert (folder / expected.name / file.relative_to(expected)).read_bytes() == file.read_bytes(), file.name
    assert at > 30 and hit.count("rename") == 4


def test_a_conjugate_view_is_no_tie(tmp_path: Path) -> None:
    z = torch.randn(3, dtype=torch.complex64)
    checkpoint.save(tmp_path, 1, {"views": {"z": z, "zc": z.conj(), "minus": z.conj().imag}}, {})
    found = checkpoint.load(tmp_path / checkpoint.name_of(1)).objects["views"]
    assert torch.equal(found["z"], z) and torch.equal(found["zc"], z.conj()) and torch.equal(found["minus"], -z.imag)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    run = state.RunState(tmp_path, keep=2)
    run.step = 1
    assert run.save(1, torch.device("cpu"), 0.0, 0)
    (tmp_path / "checkpoints" / checkpoint.name_of(1) / "state.json").write_text("{}")
    with pytest.raises(UserError, match="no checkpoint there can be read; delete the folder"):
        state.RunState(tmp_path, keep=2).restore(torch.device("cpu"))


# ---- what proves damage, and what does not


def two(folder: Path) -> Path:
    """Checkpoints of steps 1 and 2; the folder of the second."""
    paths = [checkpoint.save(folder, step, objects_of(step), run_of(step), previous=None) for step in (1, 2)]
    return paths[1]


def objects_of(step: int) -> dict[str, Any]:
    clients = {"a": {"moment": torch.ones(2) * step}, "b": {"rounds": step}}
    model = {"weight": torch.full((2, 3), float(step)), "pair": (1, 2.5), "flag": {0: None}, "far": float("inf")}
    return {"model": model, "clients": Shards(clients, clients.__getitem__), "rng": seeding.rng_state()}


def run_of(step: int) -> dict[str, Any]:
    return {"best": {"step": 1, "score": 0.5}, "ended": False, "seconds": 1.5, "records": step, "device": "cpu"}


NO_DAMAGE = (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ENOLCK, errno.EINTR)


@pytest.mark.parametrize("code", NO_DAMAGE, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "clients/b.safetensors", ""])
def test_an_error_of_reading_proves_no_damage(tmp_path: Path, code: int, name: str) -> None:
    folder = tmp_path / "checkpoints"
    newest = two(folder)
    harmed = newest / name if name else folder
    real = {"open": os.open, "listdir": os.listdir}

    def failing(call: str) -> Callable[..., Any]:
        def now(path: Any, *given: Any, **named: Any) -> Any:
            if Path(path) == harmed:
                raise OSError(code, os.strerror(code), str(path))
            return real[call](path, *given, **named)

        return now

    with pytest.MonkeyPatch.context() as patch:
        for call in real:
            patch.setattr(os, call, failing(call))
        with pytest.raises(
            UserError, match="cannot be read .*proves no damage: nothing is passed over or deleted; see"
        ):
            state.RunState(tmp_path, keep=1).restore(torch.device("cpu"))
    assert checkpoint.steps(folder) == [2, 1]
    found = checkpoint.latest(folder)
    assert found is not None and found.step == 2


def test_memory_that_is_short_proves_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two(tmp_path)
    monkeypatch.setattr(checkpoint.tensorfile, "verify", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match=r"step-000002: cannot be read \(out of memory\)"):
        checkpoint.latest(tmp_path)


def test_checkpoints_of_a_later_version_stop_everything(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for path in (two(folder), folder / "step-000001"):
        content = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps({**content, "schema": 2}))
    with pytest.raises(
        UserError, match=r"step-000002: checkpoint format 2, this code reads 1; update it\. If no later"
    ):
        state.RunState(tmp_path, keep=1).restore(torch.device("cpu"))
    # not even a run that went on from elsewhere deletes them
    checkpoint.save(folder, 0, {}, {}, keep=1)
    assert checkpoint.steps(folder) == [2, 1, 0]


def edited(change: Callable[[dict[str, Any]], Any], *, signed: bool = False) -> Callable[[Path], None]:
    """Change `state.json`; `signed`: as an earlier version wrote it, without a hash of its own."""

    def harm(path: Path) -> None:
        content = json.loads((path / "state.json").read_text())
        del content["sha256"]
        content = change(content) or content
        data = json.dumps(content)
        if signed:
            data = f'{data[:-1]}, "sha256": "{hashlib.sha256(data.encode()).hexdigest()}"}}'
        (path / "state.json").write_text(data)

    return harm


def raw(text: str) -> Callable[[Path], None]:
    return lambda path: (path / "state.json").write_text(text) and None


def header(change: Callable[[dict[str, Any]], Any], name: str = "model") -> Callable[[Path], None]:
    """Change the header of a tensor file, and its hash in `state.json` so that it fits."""

    def harm(path: Path) -> None:
        file = path / f"{name}.safetensors"
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:end])
        new = change(entries)
        text = new if isinstance(new, bytes) else json.dumps(new or entries).encode()
        data = len(text).to_bytes(8, "little") + text + data[end:]
        file.write_bytes(data)
        found = hashlib.sha256(data).hexdigest()

        def sign(content: dict[str, Any]) -> None:
            parts = name.split("/")
            if len(parts) == 1:
                content["objects"][name]["sha256"] = found
            else:
                content["objects"][parts[0]]["shards"][parts[1]] = found

        edited(sign)(path)

    return harm


def linked(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(path.parent / "step-000001" / "model.safetensors")


def in_a_circle(path: Path) -> None:
    (path / "state.json").unlink()
    (path / "state.json").symlink_to("state.json")


def linked_folder(path: Path) -> None:
    (path / "clients").rename(path.parent.parent / "elsewhere")
    (path / "clients").symlink_to(path.parent.parent / "elsewhere")


def pipe(path: Path) -> None:
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def file_for_a_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def sparse(path: Path) -> None:
    os.truncate(path / "state.json", 1 << 40)


def at(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def structured(value: Any) -> Callable[[Path], None]:
    return edited(at("objects", "model", "structure", value=value), signed=True)


HARMS = {
    "a list": raw("[]"),
    "nothing": raw(""),
    "null": raw("null"),
    "deep": raw('{"schema": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "no number": raw('{"schema": 1, "step": NaN, "run": {}, "objects": {}}'),
    "a key twice": raw('{"schema": 1, "schema": 1, "step": 2, "run": {}, "objects": {}}'),
    "no utf-8": lambda path: (path / "state.json").write_bytes(b"\xff\xfe{}") and None,
    "a terabyte": sparse,
    "schema 0": edited(at("schema", value=0)),
    "schema true": edited(at("schema", value=True)),
    "schema text": edited(at("schema", value="1")),
    "step text": edited(at("step", value="2")),
    "step negative": edited(at("step", value=-2)),
    "another step": edited(at("step", value=1)),
    "step huge": edited(at("step", value=10**30)),
    "run a list": edited(at("run", value=[])),
    "run empty": edited(at("run", value={})),
    "best a number": edited(at("run", "best", value=3)),
    "best step text": edited(at("run", "best", "step", value="../x")),
    "records text": edited(at("run", "records", value="many")),
    "records negative": edited(at("run", "records", value=-1)),
    "seconds text": edited(at("run", "seconds", value="long")),
    "seconds without end": raw('{"schema": 1, "step": 2, "run": {"seconds": 1e999}, "objects": {}}'),
    "device null": edited(at("run", "device", value=None)),
    "made a list": edited(at("run", "made", value=[1])),
    "made of lists": edited(at("run", "made", value={"fixed": [1]})),
    "objects a list": edited(at("objects", value=[])),
    "object a number": edited(at("objects", "model", value=4)),
    "object a way out": edited(lambda c: c["objects"].update({"../step-000001/model": c["objects"].pop("model")})),
    "object a root": edited(lambda c: c["objects"].update({"/etc/passwd": c["objects"].pop("model")})),
    "hash a number": edited(at("objects", "model", "sha256", value=1)),
    "hash short": edited(at("objects", "model", "sha256", value="ab")),
    "no structure": edited(lambda c: c["objects"]["model"].pop("structure") and None),
    "shards a list": edited(at("objects", "clients", "shards", value=["a"])),
    "shard a way out": edited(at("objects", "clients", "shards", "../model", value="0" * 64)),
    "no generators": edited(lambda c: c["objects"].pop("rng") and None),
    "generators of a word": edited(at("objects", "rng", "structure", "python", value="x")),
    "numpy's generator short": edited(at("objects", "rng", "structure", "numpy", value=["MT19937", [1], 0, 0, 0.0])),
    "a tensor that is missing": structured({"weight": {"$tensor": "nowhere"}}),
    "a tensor by number": structured({"weight": {"$tensor": [1]}}),
    "a tuple of a number": structured({"weight": {"$tuple": 1}}),
    "a key that is a list": structured({"$dict": [[[1], 2]]}),
    "pairs that are none": structured({"$dict": [[1]]}),
    "no float": structured({"$float": "much"}),
    "no bytes": structured({"$bytes": "&"}),
    "deep structure": structured(json.loads("[" * 900 + "]" * 900)),
    "shape negative": header(at("weight", "shape", value=[-2, -3])),
    "shape huge": header(at("weight", "shape", value=[1 << 62, 1 << 62])),
    "shape huge and empty": header(lambda e: {**e, "none": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0],
                                                            "data_offsets": [24, 24]}}),
    "shape of texts": header(at("weight", "shape", value=["2", "3"])),
    "offsets negative": header(at("weight", "data_offsets", value=[-24, 0])),
    "offsets of three": header(at("weight", "data_offsets", value=[0, 1, 2])),
    "offsets beyond": header(at("weight", "data_offsets", value=[0, 1 << 40])),
    "a type of nowhere": header(at("weight", "dtype", value="F7")),
    "a tensor that is text": header(at("weight", value="w")),
    "no header": header(lambda _: b"]"),
    "header a list": header(lambda _: b"[]"),
    "deep header": header(lambda _: b"[" * 100_000),
    "metadata of numbers": header(at("__metadata__", value={"a": 1})),
    "a shard without structure": header(lambda e: e.pop("__metadata__") and None, "clients/a"),
    "a shard of a list": header(at("__metadata__", "structure", value="[1]"), "clients/a"),
    "a link": linked,
    "a link to itself": in_a_circle,
    "a linked folder": linked_folder,
    "a pipe": pipe,
    "a file for a folder": file_for_a_folder,
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_crafted_checkpoint_is_passed_over_for_the_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "checkpoints"
    harm(two(folder))
    run = state.RunState(tmp_path, keep=2)
    holders = {name: Holder() for name in ("model", "clients")}
    for name, holder in holders.items():
        run.add(name, holder)
    before = sorted(str(path) for path in folder.rglob("*"))
    assert run.restore(torch.device("cpu"))
    assert run.step == 1 and holders["model"].state["weight"].equal(torch.ones(2, 3))
    assert "step-000002" in caplog.text and "trying the one before" in caplog.text
    assert sorted(str(path) for path in folder.rglob("*")) == before, "nothing is deleted by looking"


class Holder:
    def __init__(self) -> None:
        self.state: Any = None

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, found: Any) -> None:
        self.state = dict(found)


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.faults)])
def test_every_flipped_bit_of_every_file_is_noticed(tmp_path: Path, every: int) -> None:
    small = {name: value for name, value in objects_of(1).items() if name != "rng"}
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, small, run_of(step))
    logging.disable(logging.WARNING)
    flips = 0
    try:
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            data = file.read_bytes()
            for bit in range(flips % every, 8 * len(data), every):
                changed = bytearray(data)
                changed[bit // 8] ^= 1 << bit % 8
                file.write_bytes(changed)
                with suppress(UserError):  # the digit of the version: a later one stops
                    found = checkpoint.latest(tmp_path)
                    assert found is not None and found.step == 1, (file.name, bit)
                flips += 1
            file.write_bytes(data)
    finally:
        logging.disable(logging.NOTSET)
    print(flips, "bits")
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2 and flips * every > 5_000


def test_later_checkpoints_go_when_they_are_proven_damaged_and_never_else(tmp_path: Path) -> None:
    for step in (1, 8, 9):
        checkpoint.save(tmp_path, step, objects_of(step), run_of(step), keep=9)
    flipped_bit(tmp_path / "step-000009" / "model.safetensors")
    checkpoint.save(tmp_path, 2, objects_of(2), run_of(2), keep=1)
    assert checkpoint.steps(tmp_path) == [8, 2], "9 was damaged, nobody knows why 8 is there"
    checkpoint.save(tmp_path, 8, objects_of(8), run_of(8), keep=1)
    assert checkpoint.steps(tmp_path) == [8]


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
