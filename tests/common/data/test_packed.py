"""What a packed file unpacks to is bounded, whoever reads it."""

import gzip
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from common.data.jsonfile import read_objects
from common.data.packed import DAMAGE, Bounds, bounded, members, opened
from common.data.textfile import read_csv, read_json_lines, read_lines, read_text
from common.errors import UserError

SMALL = Bounds(file_mb=3, line_mb=1)
READERS: dict[Callable[[Path], Any], bytes] = {
    read_lines: b"1234567\n",
    read_csv: b"123,567\n",
    read_json_lines: b'{"a":1}\n',
    read_objects: b'{"a":1}\n',
    read_text: b"1234567\n",
}
"""Each with a line that it reads."""


def consumed(found: Iterable[Any]) -> None:
    for _ in found:
        pass


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("ending", [".gz", ".xz"])
@pytest.mark.parametrize("lines", [False, True])
def test_a_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, read: Callable[[Path], Any], ending: str, lines: bool
) -> None:
    path = tmp_path / f"bomb{ending}"
    content = READERS[read] * 4_000_000 if lines else b"a" * 30_000_000
    path.write_bytes(gzip.compress(content, 1) if ending == ".gz" else lzma.compress(content, preset=0))
    del content
    tracemalloc.start()
    try:
        message = r"bomb.*data\.bounds\.(file|line)_mb"
        with bounded(Bounds(file_mb=1, line_mb=1)), pytest.raises(UserError, match=message):
            consumed(read(path))
        assert tracemalloc.get_traced_memory()[1] < 10e6, "less than the file unpacked"
    finally:
        tracemalloc.stop()


def test_a_long_line_is_named_in_a_plain_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 1_000_001)
    with bounded(SMALL), pytest.raises(UserError, match=r"a\.txt:2: a line of more than 1 MB.*data\.bounds\.line_mb"):
        list(read_lines(path))
    assert len(read_text(path)) == 1_000_007, "a text may be one line"


def test_a_plain_file_of_lines_may_be_of_any_size_and_one_read_whole_may_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"123456789\n" * 150_000)
    with bounded(Bounds(file_mb=1, line_mb=1)):
        assert sum(1 for _ in read_lines(path)) == 150_000
        with pytest.raises(UserError, match=r"a\.txt: .*more than 1 MB.*data\.bounds\.file_mb"):
            read_text(path)


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_up_to_the_limit_all_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    content = b"0123456789" * 100_000
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending](content))
    with opened(path, Bounds(file_mb=1), whole=True) as file:
        assert file.read() == content


def test_limits_that_let_nothing_through_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.bounds\.line_mb=0"):
        Bounds(line_mb=0)


def test_the_files_of_an_archive_are_bounded_together(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "ab":
            archive.writestr(name, b"0" * 600_000)
    assert {name: len(content) for name, content in members(path).items()} == {"a": 600_000, "b": 600_000}
    with bounded(Bounds(file_mb=1)), pytest.raises(UserError, match=r"a\.npz: .*more than 1 MB.*data\.bounds\.file_mb"):
        members(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DAMAGE):
        members(path)
