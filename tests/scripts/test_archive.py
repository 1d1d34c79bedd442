"""Runs kept in one file: what enters, what never does, what comes back, and that nothing is written over."""

import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UserError
from common.run import results
from common.run.finished import finished_below
from common.run.items import Item
from common.run.schema import schema_of
from common.tables.runs import read_runs
from reckoning.config import TrainConfig
from scripts import archive
from scripts.tables import __main__ as tables
from tests.scripts.tables.test_tables import write_run

HOST, USER = "node17", "ada"
SECRETS = (f"/users/{USER}", HOST, USER)
ARCHIVE = Path("docs/results/reckoning.runs.tar.xz")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty repository, and a user and a host that must not be told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive.getpass, "getuser", lambda: USER)
    monkeypatch.setattr(archive.socket, "gethostname", lambda: HOST)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON or YAML file."""
    read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    path.write_text(write({**read(path.read_text()), **changes}))


def rehash(folder: Path) -> None:
    """Let the results of a run be of its settings as they are now."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    digest = results.config_hash(config, TrainConfig)
    edit(folder / "results.json", config_hash=digest)
    (folder / "FINISHED").write_text(f"{digest}\n")


def made(root: str, method: str, *, started: str = "2026-11-01T00:00:00+00:00", **settings: Any) -> Path:
    """A run as training leaves it, full of where it was made."""
    folder = write_run(Path(root), method, 30, **settings)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= {"root": f"/users/{USER}/data", "cache": f"/users/{USER}/runs/data"}
    edit(
        folder / "config.yaml", **config, loop={"root": f"/users/{USER}/runs"}, tracker={"entity": USER, "tags": [HOST]}
    )
    command = f"python /users/{USER}/code/reckoning/train.py -m +sweep=table1 scale=cpu loop.root=/users/{USER}/runs"
    command += f" hydra.launcher.nodelist={HOST} tracker.entity={USER} hydra/launcher=local"
    hardware = {"host": HOST, "cpu": "AMD EPYC", "cores": 2}
    edit(folder / "environment.json", command=command, hardware=hardware, started=started)
    edit(folder / "results.json", hardware=hardware)
    (folder / "metrics.jsonl").write_text('{"step": 1, "dev/accuracy": 0.5}\n')
    (folder / "rates.json").write_text("{}")
    (folder / "log.txt").write_text(f"written on {HOST}")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "config.yaml").write_text("weights")
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return folder


def members() -> list[tarfile.TarInfo]:
    with tarfile.open(ARCHIVE) as tar:
        return tar.getmembers()


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
    rehash(folder)
    archive.pack("reckoning", Path("runs"))
    assert {member.name.split("/")[2] for member in members()} == {"ft_icr-0"}
    assert f"left out: {folder}: config.yaml: {key}" in capsys.readouterr().err


def test_words_with_a_slash_are_no_paths() -> None:
    folder = made("runs", "ft_icr")
    edit(folder / "config.yaml", templates={"question": "Yes/no, 1/2 / 3 </think> a /no_think b https://a.b/c"})
    rehash(folder)
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
    there = {run.place.rpartition("/")[2]: run.started for run in archive.read(ARCHIVE)}
    assert there == {"no_facts-0": earlier, "other_name": later, "reckoning-2": earlier}


def test_a_later_run_of_other_settings_takes_the_place_of_the_one_whose_folder_it_has() -> None:
    made("one", "ft_icr")
    archive.pack("reckoning", Path("one"))
    folder = made("two", "ft_icr", started="2026-11-03T00:00:00+00:00", inner={"lr": 0.2})
    folder.rename(folder.with_name("ft_icr-0"))
    archive.pack("reckoning", Path("two"))
    (kept,) = archive.read(ARCHIVE)
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../demo/x/config.yaml", tarfile.REGTYPE),
        ("/reckoning/demo/x/config.yaml", tarfile.REGTYPE),
        ("reckoning/demo/../../config.yaml", tarfile.REGTYPE),
        ("reckoning/demo/x/config.yaml", tarfile.SYMTYPE),
        ("reckoning/demo/x/config.yaml", tarfile.LNKTYPE),
        ("reckoning/demo/x", tarfile.DIRTYPE),
        ("reckoning/demo/x/evil.sh", tarfile.REGTYPE),
        ("reckoning/demo/x/config.yaml", tarfile.REGTYPE),  # alone: no whole run
    ],
)
def test_a_strange_archive_is_refused_before_anything_is_written(name: str, kind: bytes) -> None:
    ARCHIVE.parent.mkdir(parents=True)
    with tarfile.open(ARCHIVE, "w:xz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../outside"
        tar.addfile(member, io.BytesIO())
    with pytest.raises(UserError, match=r"reckoning\.runs\.tar\.xz"):
        archive.unpack("reckoning", Path("back"))
    assert not Path("back").exists() and not Path("outside").exists()


def test_a_damaged_archive_and_wrong_words_are_named() -> None:
    ARCHIVE.parent.mkdir(parents=True)
    ARCHIVE.write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        archive.unpack("reckoning", Path("back"))
    with pytest.raises(UserError, match="there is no docs/results/perk"):
        archive.unpack("perk", Path("back"))
    made("runs", "ft_icr")
    for words in (["pack"], ["pack", "paper=none"], ["pack", "paper=reckoning", "scale=cpu"]):
        with pytest.raises(UserError):
            archive.parse(words)
    assert archive.parse(["pack", "paper=reckoning"]) == ("pack", "reckoning", Path("runs"))


def test_nothing_to_keep_is_said_and_leaves_no_archive() -> None:
    write_run(Path("runs"), "reckoning", done=False)
    with pytest.raises(UserError, match="no finished run"):
        archive.pack("reckoning", Path("runs"))
    assert not ARCHIVE.exists()


KEPT = {"reckoning": 350, "perk": 102}
"""Runs of the repository's own archives."""


@pytest.mark.parametrize("paper", KEPT)
def test_every_kept_run_is_found_by_its_hash_and_its_items_have_the_contracts_form(paper: str) -> None:
    runs = list(archive.read(Path(__file__).parents[2] / archive.archive_of(paper)))
    assert len(runs) == KEPT[paper] == len({run.digest for run in runs})
    for run in runs:
        found = json.loads(run.files["results.json"])
        settings = yaml.load(run.files["config.yaml"], yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
        schema = schema_of(paper, settings)
        assert run.digest == found["config_hash"] == results.config_hash(settings, schema), run.place
        assert found["schema"] == results.SCHEMA
        items = [json.loads(line) for line in run.files["predictions.jsonl"].splitlines()]
        metrics = {metric for item in map(Item.of, items) for metric in item.scores}
        assert all(isinstance(item["id"], str) and isinstance(item["group"], str) and item["scores"] for item in items)
        named = {metric.partition("@")[0] for metric in found["test"]}
        assert metrics <= named and bool(metrics) == (found["method"] != "run_time"), run.place
