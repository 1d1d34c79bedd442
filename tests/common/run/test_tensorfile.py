"""Tensor files: the bytes of the format's own library, piece by piece, and nothing read that does not fit."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from common.errors import UserError
from common.run import tensorfile
from common.run.tensorfile import NAMES, digest, read, verify, write


def tensors() -> dict[str, torch.Tensor]:
    """One of every type, and every layout."""
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (40,), dtype=torch.uint8, generator=draw)
    found = {f"type {number}": bits.view(dtype).clone() for number, dtype in enumerate(NAMES)}
    large = torch.randn(6, 4, generator=draw)
    return {
        **found,
        'é"\\\n\x01': torch.tensor(1.5),
        "empty": torch.zeros(0, 2),
        "turned": large.T,
        "spread": torch.tensor([2.0]).expand(3, 2),
        "every second": large[:, ::2],
        "channels last": torch.randn(1, 2, 3, 2, generator=draw).to(memory_format=torch.channels_last),
        "inside": large.flatten()[5:9],
        "half": large.bfloat16(),
        "learned": torch.nn.Parameter(large),
    }


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def bits(tensor: torch.Tensor) -> list[int]:
    return list(tensor.detach().contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("texts", [{}, {"structure": '{"a": "é"}'}])
@pytest.mark.parametrize("piece", [16, 1 << 22])
def test_the_bytes_are_those_of_the_formats_own_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[str, str], piece: int
) -> None:
    monkeypatch.setattr(tensorfile, "PIECE", piece)
    path, given = tmp_path / "file", tensors()
    sha256, size = write(path, given, texts)
    data = path.read_bytes()
    assert data == save({name: tensor.detach().contiguous().clone() for name, tensor in given.items()}, texts or None)
    assert (sha256, size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert digest(given, texts) == sha256
    verify(path, sha256)
    found, words = read(path, sha256)
    assert found.keys() == given.keys() and words == texts
    assert all(equal(found[name], given[name]) for name in given)


def test_no_tensors_are_a_file_too(tmp_path: Path) -> None:
    sha256, _ = write(tmp_path / "file", {})
    assert (tmp_path / "file").read_bytes() == save({})
    assert read(tmp_path / "file", sha256) == ({}, {})


def test_conjugate_and_negated_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    number = torch.tensor([1 + 2j])
    sha256, _ = write(tmp_path / "file", {"conjugate": number.conj(), "negated": number.conj().imag})
    found, _ = read(tmp_path / "file", sha256)
    assert found["conjugate"].item() == 1 - 2j and found["negated"].item() == -2


def test_what_was_read_lives_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sha256, _ = write(path, {"weight": torch.ones(3)})
    found, _ = read(path, sha256)
    with path.open("r+b") as file:
        file.truncate(0)
    assert found["weight"].tolist() == [1, 1, 1]
    found["weight"].zero_()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("name, dtype", [("wide", torch.complex128), ("__metadata__", torch.float32)])
def test_what_the_format_cannot_hold_is_named(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"{name} of {dtype}"):
        write(tmp_path / "file", {name: torch.ones(2, dtype=dtype)})


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sha256, size = write(path, {"a": torch.ones(2), "b": torch.arange(2)})
    data = path.read_bytes()
    broken = [data[:at] for at in range(size)]
    broken += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(size) for bit in range(8)]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            verify(path, sha256)
        with pytest.raises((UserError, ValueError, KeyError, TypeError)):
            read(path, sha256)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("entries", "room"),
    [
        ({"a": F32}, 4),
        ({"a": F32}, 12),
        ({"a": F32, "b": F32}, 8),
        ({"a": {**F32, "data_offsets": [4, 12]}}, 12),
        ({"a": {**F32, "shape": [3]}}, 8),
        ({"a": {**F32, "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, 8),
        ({"a": {**F32, "dtype": "F128"}}, 8),
        ({"a": {"dtype": "F32"}}, 8),
        ([], 0),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused_before_memory_is_taken(
    tmp_path: Path, entries: Any, room: int
) -> None:
    header = json.dumps(entries).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(room)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises((ValueError, KeyError, TypeError)):
        read(tmp_path / "file", hashlib.sha256(data).hexdigest())


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=re.escape(f"a header of {1 << 60} bytes in a file of 10")):
        read(tmp_path / "file", "")


def test_the_formats_own_library_reads_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "file", tensors())
    found = load((tmp_path / "file").read_bytes())
    assert all(equal(found[name], tensor) for name, tensor in tensors().items())
