"""Run folders below a folder: which are finished, and a run's twin."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run import results
from common.run.finished import finished_below, own_or_twin, run_folders
from common.run.results import Interval, Results
from common.run.schema import LoopConfig, RunConfig


def make(folder: Path, **config: Any) -> str:
    """A finished run; returns the hash of its settings."""
    settings = {"experiment": "e", "scale": "cpu", "seed": 0, **config}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "environment.json").write_text('{"command": "python -m x.train"}', encoding="utf-8")
    digest = results.config_hash(settings, RunConfig)
    interval = Interval(0.5, 4, 0.25, 0.75)
    found = Results("nobody", "e", "m", "cpu", 0, digest, "r", None, {}, 1.0, 0, {"accuracy": interval})
    results.write(folder, found, [])
    return digest


def test_runs_are_found_at_any_depth_and_none_in_a_run_or_in_what_a_killed_writer_left(tmp_path: Path) -> None:
    places = [tmp_path / "a" / "b" / "c", tmp_path / "d"]
    for seed, place in enumerate(places):
        make(place, seed=seed)
    make(tmp_path / "d" / "checkpoints" / "copy")
    make(tmp_path / "a" / ".b.tmp-123")
    assert run_folders(tmp_path) == places == list(finished_below(tmp_path).values())
    assert run_folders(tmp_path / "absent") == []


def damage(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", None), ("results.json", b""), ("results.json", b"{"), ("results.json", b"[1]"),
        ("results.json", b"\xff\xfe\x00"), ("results.json", b'{"schema": 2}'), ("results.json", b"null"),
        ("results.json", b"[" * 100_000), ("FINISHED", b"another hash\n"), ("FINISHED", b""), ("FINISHED", b"\xff"),
        ("config.yaml", b""), ("config.yaml", b"[1, 2]"), ("config.yaml", b"a: b: c"), ("config.yaml", b"\x00\xff"),
        ("config.yaml", b"experiment: e\nscale: cpu\nseed: 7\n"), ("config.yaml", b"[" * 100_000),
    ],
)  # fmt: skip
def test_a_mark_without_its_results_is_no_finished_run(
    tmp_path: Path, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    digest = make(tmp_path / "whole")
    other = make(tmp_path / "damaged", seed=1)
    damage(tmp_path / "damaged", name, content)
    assert finished_below(tmp_path) == {digest: tmp_path / "whole"}
    assert "damaged" in caplog.text and len(caplog.records) == 1
    new = tmp_path / "new"
    assert own_or_twin(new, other, LoopConfig(root=str(tmp_path))) == new


@pytest.mark.parametrize("key", ["seed", "wall_seconds", "test", "hardware", "config_hash", "dirty", "paper"])
def test_results_with_a_field_of_another_kind_or_without_it_are_none(tmp_path: Path, key: str) -> None:
    make(tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for value in (["x"], {"accuracy": {"value": "much", "count": 4, "low": 0, "high": 1}}):
        path.write_text(json.dumps(whole | {key: value}), encoding="utf-8")
        if key == "hardware" and isinstance(value, dict):
            continue
        assert results.finished_hash(tmp_path / "run") is None
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}), encoding="utf-8")
    assert results.finished_hash(tmp_path / "run") is None


def test_results_of_a_newer_version_are_finished_and_not_read(tmp_path: Path) -> None:
    digest = make(tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"schema": 3, "new": 1}), encoding="utf-8"
    )
    assert results.finished_hash(tmp_path / "run") == digest
    assert finished_below(tmp_path) == {digest: tmp_path / "run"}
    with pytest.raises(results.OtherVersion, match="format 3, this version reads 2; update this code"):
        results.read(tmp_path / "run")


def test_a_run_finds_its_twin_says_where_and_how_to_train_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    twin, new = tmp_path / "other" / "name", tmp_path / "x" / "y"
    digest = make(twin)
    loop = LoopConfig(root=str(tmp_path))
    assert own_or_twin(new, digest, loop) == twin
    assert f"{twin} has a finished run of the same settings; loop.again=true" in caplog.text
    assert own_or_twin(new, digest, LoopConfig(root=str(tmp_path), again=True)) == new
    assert own_or_twin(new, "0123", loop) == new
    assert own_or_twin(twin, digest, loop) == twin
    (new / "checkpoints" / "step-000001").mkdir(parents=True)
    assert own_or_twin(new, digest, loop) == new  # what was begun there goes on
