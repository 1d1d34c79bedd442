"""Runs kept in one file: what enters, what never does, what comes back, and that nothing is written over."""

import io
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import yaml

from common.errors import UserError
from common.run import private, results
from common.run.finished import finished_below
from common.run.items import Item
from common.tables.runs import read_runs
from reckoning.config import TrainConfig
from scripts.archive import __main__ as archive
from scripts.archive import form
from scripts.tables import __main__ as tables
from tests.scripts.tables.test_tables import write_run

HOST, USER = "node17", "ada"
SECRETS = (f"/users/{USER}", HOST, USER)
ROOT = str(Path(__file__).parents[2])
ARCHIVE = Path("docs/results/reckoning.runs.tar.xz")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty repository, and a user and a host that must not be told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(private.getpass, "getuser", lambda: USER)
    monkeypatch.setattr(private.socket, "gethostname", lambda: HOST)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON or YAML file."""
    read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    path.write_text(write({**read(path.read_text()), **changes}))
    if path.name == "config.yaml":
        digest = results.config_hash(yaml.safe_load(path.read_text()), TrainConfig)
        (path.parent / "FINISHED").write_text(f"{digest}\n")
        edit(path.parent / "results.json", config_hash=digest)


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
    assert archive.parse(["pack", "paper=reckoning"]) == ("pack", "reckoning", Path("runs"), 512)


def test_nothing_to_keep_is_said_and_leaves_no_archive() -> None:
    write_run(Path("runs"), "reckoning", done=False)
    with pytest.raises(UserError, match="no finished run"):
        archive.pack("reckoning", Path("runs"))
    assert not ARCHIVE.exists()


def rewritten(change: Callable[[str, bytes], bytes], path: Path = ARCHIVE) -> None:
    """The archive with every file's content changed, its form sound."""
    (run,) = form.read(path, "reckoning")
    files = {name: change(name, content) for name, content in run.files.items()}
    path.write_bytes(form.written([form.Packed(run.place, files)]))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", b"lr: ", b"lr: 7"),
        ("config.yaml", b"seed: 0", b"seed: 1"),
        ("config.yaml", b"seed", b"{"),
        ("FINISHED", b"", b"0"),
        ("results.json", b'"paper": "reckoning"', b'"paper": "perk"'),
        ("results.json", b'"schema": 2', b'"schema": 3'),
        ("results.json", b'"config_hash"', b'"hash"'),
        ("results.json", b'"test": {', b'"test": [], "tests": {'),
        ("config.yaml", b"seed: 0", b"seed: !!int ''"),
        ("metrics.jsonl", b"{", b"3\n{"),
        ("rates.json", b"{}", b"[]"),
        ("environment.json", b"{", b"["),
        ("predictions.jsonl", b"scores", b"score"),
        ("predictions.jsonl", b"{", b""),
        ("predictions.jsonl", b"{", b"\xff{"),
        ("predictions.jsonl", b"{", b"[" * 100_000),
        ("predictions.jsonl", b'": [', b'": [1' + b"0" * 400),
    ],
)
def test_a_run_that_does_not_fit_its_settings_or_is_damaged_is_refused(name: str, old: bytes, new: bytes) -> None:
    made("runs", "ft_icr")
    archive.pack("reckoning", Path("runs"))
    rewritten(lambda each, content: content.replace(old, new, 1) if each == name else content)
    with pytest.raises(UserError, match=r"tar\.xz: reckoning/demo/ft_icr-0: .*; restore the archive or delete it"):
        archive.unpack("reckoning", Path("back"))
    assert not Path("back").exists()


def test_an_archive_with_any_damage_gives_its_runs_or_one_message() -> None:
    made("runs", "ft_icr")
    archive.pack("reckoning", Path("runs"))
    whole, expected = ARCHIVE.read_bytes(), form.read(ARCHIVE, "reckoning")
    draw = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        kind = draw.randrange(3)
        if kind == 0:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            start = draw.randrange(len(damaged))
            damaged[start : start + draw.randrange(1, 64)] = draw.randbytes(draw.randrange(64))
        ARCHIVE.write_bytes(damaged)
        try:
            assert form.read(ARCHIVE, "reckoning") == expected
        except UserError as error:
            assert str(ARCHIVE) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 150
    damaged = bytearray(lzma.decompress(whole))
    for _ in range(200):  # whole as a packed file, damaged in what it holds
        changed = bytearray(damaged)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        ARCHIVE.write_bytes(lzma.compress(changed, preset=0))
        try:
            form.read(ARCHIVE, "reckoning")
        except UserError as error:
            assert str(ARCHIVE) in str(error)


def test_a_file_that_is_there_twice_is_refused() -> None:
    made("runs", "ft_icr")
    archive.pack("reckoning", Path("runs"))
    (run,) = form.read(ARCHIVE, "reckoning")
    ARCHIVE.write_bytes(form.written([run, run]))
    with pytest.raises(UserError, match="is there twice"):
        archive.unpack("reckoning", Path("back"))


@pytest.mark.parametrize("inside", ["a member", "its header", "nothing", "many runs"])
def test_a_bomb_is_refused_and_nothing_is_written(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ARCHIVE.parent.mkdir(parents=True)
    monkeypatch.setattr(form, "MOST_RUNS", 100)
    size = 70_000_000
    with tarfile.open(ARCHIVE, "w:xz", preset=0, format=tarfile.PAX_FORMAT) as tar:
        for index in range(200 if inside == "many runs" else 1):
            member = tarfile.TarInfo(f"reckoning/demo/x{index}/config.yaml")
            member.size = size if inside == "a member" else 0
            if inside == "its header":
                member.pax_headers = {"comment": "a" * size}
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    if inside == "nothing":
        ARCHIVE.write_bytes(lzma.compress(bytes(size), preset=0))
    with pytest.raises(UserError, match=r"more than (64|30) MB|lacks|is missing|damaged|one too many|no run"):
        archive.unpack("reckoning", Path("back"), limit_mb=512 if inside in ("a member", "many runs") else 30)
    assert not Path("back").exists()


def test_a_sparse_file_is_refused_before_its_zeros_are_in_memory() -> None:
    header = bytearray(tarfile.TarInfo("reckoning/demo/a/metrics.jsonl").tobuf(tarfile.GNU_FORMAT))
    size = b"%011o\0" % 60_000_000
    header[156:157], header[386:410], header[483:495] = b"S", size + b"%011o\0" % 0, size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    ARCHIVE.parent.mkdir(parents=True)
    ARCHIVE.write_bytes(lzma.compress(bytes(header) + bytes(1024)))
    with pytest.raises(UserError, match=r"metrics\.jsonl is a sparse file"):
        archive.unpack("reckoning", Path("back"))


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
    runs = form.read(Path(__file__).parents[2] / archive.archive_of(paper), paper)
    assert len(runs) == KEPT[paper] == len({run.digest for run in runs})
    for run in runs:
        found = json.loads(run.files["results.json"])
        items = [json.loads(line) for line in run.files["predictions.jsonl"].splitlines()]
        metrics = {metric for item in map(Item.of, items) for metric in item.scores}
        named = {metric.partition("@")[0] for metric in found["test"]}
        assert metrics <= named and bool(metrics) == (found["method"] != "run_time"), run.place
