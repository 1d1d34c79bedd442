"""Files of `torch.save`: the same tensors as torch reads, and nothing that runs."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.data.statedict import read_state_dict
from common.errors import UserError


class Runs:
    """A command, if it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


def test_tensors_are_those_that_were_saved(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2).half(), nn.Linear(1, 1).bfloat16())
    base = torch.arange(24, dtype=torch.double).view(4, 6)
    saved = {**module.state_dict(), "part": base[1:3, ::2], "turned": base.T, "none": torch.empty(0), "one": base[1, 1]}
    torch.save(saved, tmp_path / "plain.pth")
    torch.save(module.state_dict(), tmp_path / "ordered.pth")
    for name, expected in (("plain", saved), ("ordered", module.state_dict())):
        found = read_state_dict(tmp_path / f"{name}.pth", "some.key")
        assert found.keys() == expected.keys()
        for each, value in expected.items():
            assert found[each].dtype == value.dtype and torch.equal(found[each], value)


def test_a_shared_storage_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    weight = torch.rand(3, 3)
    torch.save({"a": weight, "b": weight}, tmp_path / "tied.pth")
    found = read_state_dict(tmp_path / "tied.pth", "some.key")
    assert torch.equal(found["a"], weight) and torch.equal(found["b"], weight)


def cut(file: Path) -> None:
    torch.save({"a": torch.rand(100)}, file)
    file.write_bytes(file.read_bytes()[:300])


def code(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs(), protocol=2))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, r"weights\.pth is missing; correct some\.key"),
        (cut, r"weights\.pth holds no named tensors .*fetch the file anew"),
        (code, r"weights\.pth holds no named tensors as torch\.save writes them \(a call of"),
        (lambda file: file.write_text("text"), r"weights\.pth holds no named tensors"),
        (lambda file: torch.save(torch.rand(2), file), r"holds something else than named tensors; save its state_dict"),
        (lambda file: torch.save({"a": {"b": 1}}, file), r"holds something else than named tensors"),
        (
            lambda file: torch.save({"a": torch.rand(1)}, file, _use_new_zipfile_serialization=False),
            r"no named tensors",
        ),
    ],
)
def test_what_holds_no_weights_is_refused_and_runs_nothing(
    write: Callable[[Path], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        read_state_dict(tmp_path / "weights.pth", "some.key")
    assert not (tmp_path / "made").exists()
