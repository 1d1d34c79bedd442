"""An object in many files: unchanged ones are linked, a changed or missing one is noticed."""

import errno
import itertools
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.run import checkpoint
from common.run.checkpoint import Shards
from tests.common.run.checkpoints import flipped_bit, names, same


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
