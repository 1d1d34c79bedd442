"""Archives that are damaged, strange or too large are refused before anything is written."""

import io
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UserError
from scripts.archive import __main__ as archive
from scripts.archive import form
from tests.scripts.archive.making import ARCHIVE, made


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
