"""Memories on the disk: whole or not there, read back to the bit, and refused where they do not belong."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.engine.adapter import Adapter, layers
from common.errors import UserError
from common.run.memory import NOTE, Note, load, save


@dataclass(frozen=True)
class Episode(Note):
    chunks: int
    said: str


EARLIER = "3744a7d220c2"
"""Fingerprint of `adapter_of()` by an earlier version."""


def adapter_of(seed: int = 0, rank: int = 2) -> Adapter:
    """On a base that `seed` draws."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return Adapter(network, target_modules=layers(network, ["*"]), r=rank)


def saved(adapter: Adapter, folder: Path, chunks: int = 5) -> dict[str, torch.Tensor]:
    weights = {name: torch.randn_like(w) for name, w in adapter.matrices().items()}
    save(folder, adapter.files(weights), Episode(1, "toy", adapter.fingerprint(), chunks, "go left"))
    return weights


def test_a_memory_comes_back_to_the_bit_with_its_note(tmp_path: Path) -> None:
    first, second = adapter_of(), adapter_of()
    for chunks in (5, 7):
        weights = saved(first, tmp_path / "memory", chunks)
        found, note = load(tmp_path / "memory", second, Episode, 1, "toy")
        assert note == Episode(1, "toy", first.fingerprint(), chunks, "go left")
        assert list(found) == list(weights) and all(w.equal(weights[name]) for name, w in found.items())
    assert [path.name for path in tmp_path.iterdir()] == ["memory"], "the older one is replaced"


def test_a_memory_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapter_of()
    saved(adapter, tmp_path / "memory")
    before = {path.name: path.read_bytes() for path in (tmp_path / "memory").iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.run.memory.write_synced", full)
    with pytest.raises(UserError, match="cannot write the memory into .*No space left.*name another folder"):
        saved(adapter, tmp_path / "memory")
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "memory").iterdir()} == before


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary")
    for taken in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="is there and no saved memory; name another folder"):
            saved(adapter_of(), taken)
    assert (tmp_path / "notes.txt").read_text() == "dear diary"


def test_another_base_and_another_rank_are_refused(tmp_path: Path) -> None:
    own, other = adapter_of(), adapter_of(seed=1)
    saved(own, tmp_path / "memory")
    words = rf"written into the base toy \({own.fingerprint()}\), the one here is new \({other.fingerprint()}\); load a"
    with pytest.raises(UserError, match=words):
        load(tmp_path / "memory", other, Episode, 1, "new")
    with pytest.raises(UserError, match="with r=2, this model's has 3"):
        load(tmp_path / "memory", adapter_of(rank=3), Episode, 1, "toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, r"no saved memory \(memory.json is missing; it holds adapter_config.json, so an adapter of other code"),
        ("{", "memory.json: damaged"),
        ({"schema": 1}, "memory.json: damaged .*missing 4 required"),
        ({"more": 1}, "memory.json: damaged .*unexpected keyword argument 'more'"),
        ({"schema": 2}, "memory.json: schema 2, this version reads 1; save the memory again with it"),
        ({"chunks": "five"}, "memory.json: schema 1, this version reads 1"),
        ({"chunks": True}, "memory.json: schema 1, this version reads 1"),
        ({"chunks": 0}, "memory.json: chunks=0 is no possible number; copy or save the memory again"),
        ({"chunks": -3}, "memory.json: chunks=-3 is no possible number"),
        ({"chunks": 10**12}, "memory.json: chunks=1000000000000 is no possible number"),
    ],
)
def test_a_note_that_is_damaged_or_of_another_version_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    saved(adapter_of(), tmp_path)
    file = tmp_path / NOTE
    kept = json.loads(file.read_text())
    if change is None:
        file.unlink()
    elif isinstance(change, str):
        file.write_text(change)
    else:
        file.write_text(json.dumps(change if change == {"schema": 1} else {**kept, **change}))
    with pytest.raises(UserError, match=message):
        load(tmp_path, adapter_of(), Episode, 1, "toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.int8), "holds int8, an adapter's matrices are floating-point numbers"),
        (lambda w: w.bool(), "holds bool, an adapter's"),
        (lambda w: w.to(torch.complex64), "holds complex64, an adapter's"),
        (lambda w: w.to(torch.float8_e4m3fn), "holds float8_e4m3fn, an adapter's"),
        (lambda w: w.index_fill(0, torch.tensor([1]), torch.nan), "holds numbers that are not finite"),
        (lambda w: w.index_fill(0, torch.tensor([1]), -torch.inf), "holds numbers that are not finite"),
        (lambda w: w.double() * 1e300, "holds numbers that are not finite, or too large for this model's float32"),
        (lambda w: w[:1].clone(), r"is \[1, 3\], this model needs \[2, 3\]"),
        (lambda w: w.flatten(), r"is \[6\], this model needs \[2, 3\]"),
    ],
)
def test_tensors_that_are_no_matrices_are_refused_by_file_and_name(tmp_path: Path, change: Any, message: str) -> None:
    saved(adapter_of(), tmp_path)
    file, name = tmp_path / "adapter_model.safetensors", "base_model.model.0.lora_A.weight"
    tensors = load_file(file)
    save_file({**tensors, name: change(tensors[name]).contiguous()}, file)
    with pytest.raises(UserError, match=f"{file}: {name} {message}"):
        load(tmp_path, adapter_of(), Episode, 1, "toy")


def test_a_pickled_adapter_is_not_read(tmp_path: Path) -> None:
    saved(adapter_of(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(file), tmp_path / "adapter_model.bin")
    file.unlink()
    with pytest.raises(UserError, match="no adapter .adapter_model.safetensors is missing"):
        load(tmp_path, adapter_of(), Episode, 1, "toy")


def wide(seed: int = 0) -> Adapter:
    """On a base of more numbers than earlier versions looked at."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(40, 41), nn.BatchNorm1d(41), nn.Linear(41, 2))
    return Adapter(network, target_modules=layers(network, ["*"]), r=2)


@pytest.mark.parametrize("place", ["0.base_layer.weight", "1.bias", "1.running_var"])
def test_every_number_of_the_base_counts(tmp_path: Path, place: str) -> None:
    own, other = wide(), wide()
    saved(own, tmp_path)
    load(tmp_path, other, Episode, 1, "toy")
    with torch.no_grad():
        other.network.state_dict()[place].view(-1)[7] += 1e-6
    with pytest.raises(UserError, match="written into the base toy"):
        load(tmp_path, other, Episode, 1, "toy")


def test_a_memory_of_an_earlier_version_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of()
    saved(adapter, tmp_path)
    note = json.loads((tmp_path / NOTE).read_text())
    (tmp_path / NOTE).write_text(json.dumps(note | {"fingerprint": EARLIER}))
    load(tmp_path, adapter_of(), Episode, 1, "toy")
    assert "whose base was told by a sample of it; save it again" in caplog.text
    with pytest.raises(UserError, match=f"written into the base toy .{EARLIER}., the one here is toy"):
        load(tmp_path, adapter_of(seed=1), Episode, 1, "toy")


def test_the_bytes_of_a_base_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, made = wide(), []
    sha256 = hashlib.sha256
    monkeypatch.setattr("common.engine.adapter.hashlib.sha256", lambda *data: made.append(1) or sha256(*data))
    first = adapter.fingerprint()
    assert adapter.fingerprint() == first and len(made) == 1
    adapter.network.load_state_dict({name: value + 1 for name, value in adapter.network.state_dict().items()})
    assert adapter.fingerprint() != first and len(made) == 2
