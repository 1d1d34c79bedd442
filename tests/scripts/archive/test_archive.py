"""Runs kept in one file: what enters, what never does, what comes back, and that nothing is written over."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import yaml

from common.errors import UserError
from common.run import results
from common.run.finished import finished_below
from common.run.items import Item
from common.tables.runs import read_runs
from reckoning.config import TrainConfig
from scripts.archive import __main__ as archive
from scripts.archive import form
from scripts.tables import __main__ as tables
from tests.scripts.archive.making import ARCHIVE, HOST, SECRETS, USER, edit, made, members
from tests.scripts.tables.test_tables import write_run

ROOT = str(Path(__file__).parents[3])


def test_an_archive_holds_what_tables_and_reports_read_and_nothing_else() -> None:
    made("runs", "ft_icr")
    write_run(Path("runs"), "reckoning", done=False)
    assert archive.pack("reckoning", Path("runs")) == ARCHIVE
    names = [member.name for member in members()]
    kept = ("FINISHED", "config.yaml", "environment.json", "metrics.jsonl", "predictions.jsonl", "rates.json")
    assert names == [f"reckoning/demo/ft_icr-0/{name}" for name in (*kept, "results.json")]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members()} == {(0, 0, 0, "", "", 0o644)}


def test_nothing_in_it_says_where_or_by_whom_a_run_was_made() -> None:
    folder = made("runs", "ft_icr")
    archive.pack("reckoning", Path("runs"))
    text = lzma.decompress(ARCHIVE.read_bytes()).decode()
    assert "AMD EPYC" in text and "hydra/launcher=local" in text
    assert not [secret for secret in SECRETS if secret in text]
    archive.unpack("reckoning", Path("back"))
    found = yaml.safe_load(Path("back/reckoning/demo/ft_icr-0/config.yaml").read_text())
    original = yaml.safe_load((folder / "config.yaml").read_text())
    assert results.config_hash(found, TrainConfig) == results.config_hash(original, TrainConfig)
    assert found["data"]["root"] is None and found["loop"] == {"root": "runs"}
    command = json.loads(Path("back/reckoning/demo/ft_icr-0/environment.json").read_text())["command"]
    assert command == "python -m reckoning.train -m +sweep=table1 scale=cpu hydra/launcher=local"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {"name": "/scratch/models/gpt2"}),
        ("model", {"name": "~/gpt2"}),
        ("data", {"files": {"train": r"D:\data\train.jsonl"}}),
        ("data", {"files": {"train": "train.jsonl", "dev": ["/train.jsonl"]}}),
        ("data", {"files": {"train": f"../{USER}/train.jsonl"}}),
        ("note", f"ran on {HOST}"),
        ("note", "--from=/mnt/disk/a"),
    ],
)
def test_a_run_that_needs_a_place_of_its_machine_is_left_out_and_named(
    key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made("runs", "ft_icr")
    folder = made("runs", "no_facts")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    edit(folder / "config.yaml", **{key: {**config.get(key, {}), **value} if isinstance(value, dict) else value})
    archive.pack("reckoning", Path("runs"))
    assert {member.name.split("/")[2] for member in members()} == {"ft_icr-0"}
    assert f"left out: {folder}: config.yaml: {key}" in capsys.readouterr().err


def test_words_with_a_slash_are_no_paths() -> None:
    folder = made("runs", "ft_icr")
    edit(folder / "config.yaml", templates={"question": "Yes/no, 1/2 / 3 </think> a /no_think b https://a.b/c"})
    archive.pack("reckoning", Path("runs"))
    assert members()


def test_what_is_unpacked_is_found_by_tables_and_sweeps_and_packs_to_the_same_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hashes = set()
    for method in ("reckoning", "ft_icr", "shortcuts"):
        folder = made("runs", method)
        hashes.add(results.read(folder).config_hash)
    tables.show(["root=runs", "experiment=demo", "--format", "csv"])
    shown = capsys.readouterr().out
    archive.pack("reckoning", Path("runs"))
    before = ARCHIVE.read_bytes()
    assert len(archive.unpack("reckoning", Path("back"))) == 3
    capsys.readouterr()
    tables.show(["root=back", "experiment=demo", "--format", "csv"])
    assert capsys.readouterr().out == shown
    assert set(finished_below(Path("back"))) == hashes
    ARCHIVE.unlink()
    archive.pack("reckoning", Path("back"))
    assert ARCHIVE.read_bytes() == before


def test_packing_adds_and_of_equal_runs_keeps_the_one_begun_last(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", "ft_icr", started="2026-11-02T00:00:00+00:00")
    made("one", "no_facts")
    archive.pack("reckoning", Path("one"))
    later, earlier = "2026-11-03T00:00:00+00:00", "2026-11-01T00:00:00+00:00"
    moved = made("two", "ft_icr", started=later)
    moved.rename(moved.with_name("other_name"))
    archive.pack("reckoning", Path("two"))
    assert "replaced: reckoning/demo/ft_icr-0" in capsys.readouterr().out
    made("three", "ft_icr", started=earlier)
    made("three", "reckoning", seed=2)
    archive.pack("reckoning", Path("three"))
    there = {run.place.rpartition("/")[2]: run.started for run in form.read(ARCHIVE, "reckoning")}
    assert there == {"no_facts-0": earlier, "other_name": later, "reckoning-2": earlier}


def test_a_later_run_of_other_settings_takes_the_place_of_the_one_whose_folder_it_has() -> None:
    made("one", "ft_icr")
    archive.pack("reckoning", Path("one"))
    folder = made("two", "ft_icr", started="2026-11-03T00:00:00+00:00", inner={"lr": 0.2})
    folder.rename(folder.with_name("ft_icr-0"))
    archive.pack("reckoning", Path("two"))
    (kept,) = form.read(ARCHIVE, "reckoning")
    assert yaml.safe_load(kept.files["config.yaml"])["inner"] == {"lr": 0.2}


def test_unpacking_writes_over_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    made("runs", "ft_icr")
    made("runs", "no_facts")
    archive.pack("reckoning", Path("runs"))
    begun = Path("back/reckoning/demo/ft_icr-0")
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("mine")
    assert archive.unpack("reckoning", Path("back")) == [Path("back/reckoning/demo/no_facts-0")]
    assert [path.name for path in begun.iterdir()] == ["config.yaml"] and (begun / "config.yaml").read_text() == "mine"
    assert "left as it is" in capsys.readouterr().err
    there = made("elsewhere", "no_facts")
    there.rename(there.with_name("same_run"))
    archive.unpack("reckoning", Path("elsewhere"))
    assert not Path("elsewhere/reckoning/demo/no_facts-0").exists()
    assert len(read_runs(Path("elsewhere"), "reckoning", None)[0]) == 2


def test_nothing_to_keep_is_said_and_leaves_no_archive() -> None:
    write_run(Path("runs"), "reckoning", done=False)
    with pytest.raises(UserError, match="no finished run"):
        archive.pack("reckoning", Path("runs"))
    assert not ARCHIVE.exists()


@pytest.mark.parametrize("file", ["predictions.jsonl", "metrics.jsonl", "rates.json", "sets.json", "results.json"])
@pytest.mark.parametrize("secret", [f"/users/{USER}/a", HOST, "hf_" + "a1B2" * 8, "the-own-key"])
@pytest.mark.parametrize("as_key", [False, True])
def test_no_file_of_a_kept_run_holds_a_path_a_host_or_a_key(
    file: str, secret: str, as_key: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_API_KEY", "the-own-key")
    made("runs", "ft_icr")
    path = made("runs", "no_facts") / file
    lines = path.read_text().splitlines() if path.exists() and file.endswith("l") else []
    value = {**json.loads(lines[0] if lines else path.read_text() if path.exists() else "{}")}
    within = value["hardware"] if file == "results.json" else value
    within |= {secret: 1} if as_key else {"said": ["a", {"b": f"x {secret}"}]}
    path.write_text("\n".join([*lines[1:], json.dumps(value)]) + "\n" if lines else json.dumps(value))
    archive.pack("reckoning", Path("runs"))
    said = capsys.readouterr().err
    assert {member.name.split("/")[2] for member in members()} == {"ft_icr-0"}
    assert f"left out: {path.parent}: {file}" in said and "the-own-key" not in said and "hf_a1B2" not in said


def test_two_that_pack_at_once_lose_nothing() -> None:
    """The second is refused while the first reads, adds and writes."""
    made("runs", "ft_icr")
    archive.FOLDER.mkdir(parents=True)
    code = "import sys; from pathlib import Path; from common.run.folder import lock\n"
    code += "with lock(Path('docs/results')): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, env={**os.environ, "PYTHONPATH": ROOT}
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process"):
            archive.pack("reckoning", Path("runs"))
        assert not ARCHIVE.exists()
        other.communicate()
    archive.pack("reckoning", Path("runs"))
    assert ARCHIVE.exists()


KEPT = {"reckoning": 350, "perk": 102}
"""Runs of the repository's own archives."""


@pytest.mark.parametrize("paper", KEPT)
def test_every_kept_run_fits_its_settings(paper: str) -> None:
    runs = form.read(Path(__file__).parents[3] / archive.archive_of(paper), paper)
    assert len(runs) == KEPT[paper] == len({run.digest for run in runs})
    for run in runs:
        found = json.loads(run.files["results.json"])
        items = [json.loads(line) for line in run.files["predictions.jsonl"].splitlines()]
        metrics = {metric for item in map(Item.of, items) for metric in item.scores}
        named = {metric.partition("@")[0] for metric in found["test"]}
        assert metrics <= named and bool(metrics) == (found["method"] != "run_time"), run.place
