"""Memories on the disk: whole or not there, read back to the bit, and refused where they do not belong."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.engine.adapter import Adapter, layers
from common.errors import UserError
from common.run.memory import NOTE, Note, load, save


@dataclass(frozen=True)
class Episode(Note):
    chunks: int
    said: str


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
