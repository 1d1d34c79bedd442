"""What has changed between the start of a run and its continuation: files, weights; and a cache that was damaged."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reckoning.config import DataConfig, Format
from reckoning.data import digests, load
from tests.reckoning.miniature import lines, write_lines
from tests.runs import contents


@pytest.fixture
def begun(mini: Any, trained: Path, tmp_path: Path) -> Path:
    """A run that was stopped before its test."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / "FINISHED").unlink()
    return folder


def flipped(path: Path) -> bytes:
    """Exchange all labels of a file; returns what it was."""
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"true"', b'"x"').replace(b'"false"', b'"true"').replace(b'"x"', b'"false"'))
    assert path.read_bytes() != before
    return before


def test_flipped_labels_are_refused_until_they_are_back(
    mini: Any, trained: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mini.folder / "dev.jsonl"
    before = flipped(file)
    try:
        assert mini.train(tmp_path, f"hydra.run.dir='{begun}'") == 2
        said = capsys.readouterr().err
        assert "the data have changed since step 4 was saved: dev; put the old files" in said and "Trace" not in said
    finally:
        file.write_bytes(before)
    assert mini.train(tmp_path, f"hydra.run.dir='{begun}'") == 0
    assert contents(begun) == contents(trained)


def test_other_start_weights_are_refused(
    mini: Any, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    file = mini.folder / "model" / "model.safetensors"
    before = file.read_bytes()
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file, {"format": "pt"})
    try:
        assert mini.train(tmp_path, f"hydra.run.dir='{begun}'") == 2
        assert "the start weights are not those that the run began with; put the model's old" in capsys.readouterr().err
    finally:
        file.write_bytes(before)


def test_a_damaged_cache_is_built_again_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "dev", "test"):
        write_lines(tmp_path / f"{split}.jsonl", lines(split))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "dev", "test")}
    config = DataConfig(name="mine", format=Format.jsonl, labels={"true": "yes", "false": "no", "unknown": "none"})
    config.files = replace(config.files, **files)
    config.cache = str(tmp_path / "cache")
    first = load(config)
    (folder,) = (tmp_path / "cache").iterdir()
    kept = (folder / "train.jsonl").read_bytes()
    (folder / "train.jsonl").write_bytes(kept[: kept.rindex(b"\n", 0, -1) + 1])
    assert load(config) == first and "train" in caplog.text and "the splits are built again" in caplog.text
    assert (folder / "train.jsonl").read_bytes() == kept
    config.cache = None
    assert digests(load(config)) == digests(first), "kept or not"
