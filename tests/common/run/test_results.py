"""The end of a run, and the hash that tells runs apart."""

import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED
from common.run import results
from common.run.items import Item, read_items
from common.run.results import ACCURACY, Interval, Results, Selection, config_hash, hashed_keys
from common.run.schema import LoopConfig, RuntimeConfig, TrackerConfig


@dataclass
class Data:
    name: str = "x"
    root: str | None = field(default=None, metadata=UNHASHED)
    cut: int = field(default=3, metadata=HASHED_IF_SET)
    limits: dict[str, int] = field(default_factory=lambda: {"train": 0}, metadata=HASHED_IF_SET)


@dataclass
class Config:
    data: Data = field(default_factory=Data)
    further: dict[str, Data] = field(default_factory=dict)
    other: Data | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig, metadata=UNHASHED)


CONFIG: dict[str, Any] = {
    "seed": 1,
    "inner": {"steps": 4, "lr": 1e-5},
    "data": {"name": "x", "root": "here"},
    "loop": {"root": "runs", "evaluate_every": 5, "log_every": 1, "save_every": 1, "save_seconds": 1.0, "keep": 1},
    "runtime": {"device": "cpu", "dtype": "float32", "threads": 1, "deterministic": True},
    "tracker": {"name": "none", "tags": []},
}


def results_of_a_run(**changed: Any) -> Results:
    return Results(
        **{
            "paper": "paper",
            "experiment": "experiment",
            "method": "method",
            "scale": "cpu",
            "seed": 1,
            "config_hash": config_hash(CONFIG, Config),
            "revision": "unknown",
            "dirty": None,
            "hardware": {"cores": 2},
            "wall_seconds": 1.5,
            "peak_memory_bytes": 10,
            "test": {"accuracy": Interval(0.5, 4, 0.2, 0.8)},
            **changed,
        }
    )


def changed(key: str, value: Any) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    return {**CONFIG, group: {**CONFIG[group], name: value}} if group else {**CONFIG, name: value}


@pytest.mark.parametrize(
    "key, value",
    [
        ("data.root", "there"),
        ("data.cut", 3),
        ("data.limits", {"train": 0}),
        ("further", {"a": {"root": "there"}}),
        ("other", {"root": "there", "cut": 3}),
        ("loop.root", "there"),
        ("loop.log_every", 2),
        ("loop.save_every", 2),
        ("loop.save_seconds", 2.0),
        ("loop.keep", 3),
        ("runtime.threads", 2),
        ("runtime.deterministic", False),
        ("runtime.kernels", "foreach"),
        ("runtime.capture", True),
        ("runtime.autocast", False),
        ("tracker.name", "wandb"),
        ("tracker.tags", ["a"]),
        ("tracker", {}),
    ],
)
def test_what_changes_no_number_changes_no_hash(key: str, value: Any) -> None:
    assert config_hash(changed(key, value), Config) == config_hash(CONFIG, Config)


@pytest.mark.parametrize(
    "key, value",
    [
        ("seed", 2),
        ("inner.steps", 5),
        ("inner.lr", 1.0000001e-5),
        ("inner.new", None),
        ("data.name", "y"),
        ("data.cache", None),
        ("data.cut", 4),
        ("data.limits", {"train": 1}),
        ("data.limits", {"train": 0, "dev": 0}),
        ("data.limits", {}),
        ("further", {"root": {"name": "x"}}),
        ("other", {"cut": 4}),
        ("rooted", "there"),
        ("loop.evaluate_every", 6),
        ("runtime.device", "cuda"),
        ("runtime.dtype", "bfloat16"),
        ("runtime.autocast", True),
    ],
)
def test_what_changes_a_number_changes_the_hash(key: str, value: Any) -> None:
    assert config_hash(changed(key, value), Config) != config_hash(CONFIG, Config)


def test_the_hash_does_not_depend_on_the_order_of_keys_and_is_the_same_tomorrow() -> None:
    assert config_hash(dict(reversed(CONFIG.items())), Config) == config_hash(CONFIG, Config)
    assert config_hash({"a": {"b": 1, "c": [1.5, None, "é"]}}, Config) == "d6e5ce871eaf7ea6"


def test_keys_that_no_schema_knows_count_as_they_are() -> None:
    known = {"data": {"root": 1, "name": "x", "cut": 3, "gone": {"root": 2}}, "gone": {}}
    assert hashed_keys(known, Config) == {"data.name": "x", "data.gone.root": 2, "gone": {}}
    assert hashed_keys(known, dict) == {**hashed_keys(known, Config), "data.root": 1, "data.cut": 3}


def test_results_come_back_as_they_were_written_and_follow_the_contract(tmp_path: Path) -> None:
    written = results_of_a_run()
    item = Item("é", "g", {"accuracy": (1, 1)}, {"depth": 2}, more={"said": "yes"})
    results.write(tmp_path, written, [item.to_json()])
    assert results.read(tmp_path) == written
    assert read_items(tmp_path) == [item]
    assert results.finished_hash(tmp_path) == written.config_hash
    keys = "paper experiment method scale seed config_hash revision dirty hardware wall_seconds peak_memory_bytes test"
    assert set(json.loads((tmp_path / "results.json").read_text())) == {*keys.split(), "per_item", "schema"}


def test_the_mark_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, order = os.replace, []

    def noted(source: Path, target: Path) -> None:
        order.append(target.name)
        real(source, target)

    monkeypatch.setattr(os, "replace", noted)
    results.write(tmp_path, results_of_a_run(), [])
    assert order == ["predictions.jsonl", "results.json", "FINISHED"]


def test_a_full_disk_leaves_the_run_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot write the results .* No space left on device; free space there"):
        results.write(tmp_path, results_of_a_run(), [{"id": 1}])
    assert results.finished_hash(tmp_path) is None
    with pytest.raises(UserError, match="no finished run; run its command again"):
        results.read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', '{"schema": 2, "test": {"accuracy": 0.5}}'])
def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path, text: str) -> None:
    results.write(tmp_path, results_of_a_run(), [])
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: not results of this version"):
        results.read(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match="results format 1, this version reads 2; delete the folder and run again, or"):
        results.read(tmp_path)


def test_the_headline_is_the_selected_metric_or_the_best_row_of_a_run_without_one() -> None:
    def test_of(**values: float) -> dict[str, Interval]:
        return {name: Interval(value, 4, value, value) for name, value in values.items()}

    low = Selection("fvd", higher_is_better=False)
    assert ACCURACY.headline(test_of(accuracy=0.5, accuracy_yes=0.9)) == 0.5
    assert ACCURACY.headline(test_of(accuracy_chance=0.3, accuracy_polarity=0.6)) == 0.6
    assert low.headline(test_of(fvd=7.0, psnr=1.0)) == 7.0 and low.headline(test_of(fvd_a=7.0, fvd_b=5.0)) == 5.0
    assert [s.better(0.2, 0.1) for s in (ACCURACY, low)] == [True, False]
    assert not ACCURACY.better(0.1, 0.1) and not low.better(0.1, 0.1), "the first of equals stays"
