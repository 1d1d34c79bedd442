"""Folders in place of others: one of the two is there whatever happens, whole."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.run import swap
from common.run.swap import new_folder, recover, unchanged

CHECKOUT = Path(__file__).parents[3]
WAYS = ["exchange", "aside"]


def write(folder: Path, text: str) -> None:
    with new_folder(folder) as temporary:
        (temporary / "one").write_text(text)
        (temporary / "other").write_text(text)


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


def no_exchange(*_: Path) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which an old folder makes way."""
    if request.param == "aside":
        monkeypatch.setattr(swap, "exchange", no_exchange)
    return str(request.param)


def test_a_folder_takes_the_place_of_another_and_of_a_link_to_it(tmp_path: Path, way: str) -> None:
    (tmp_path / "link").symlink_to("place")
    for text in ("old", "new"):
        write(tmp_path / "place", text)
        assert content(tmp_path / "place") == {text}
    write(tmp_path / "link", "linked")
    assert content(tmp_path / "place") == {"linked"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place"]


def test_an_error_in_the_block_leaves_the_old_one(tmp_path: Path, way: str) -> None:
    write(tmp_path / "place", "old")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "place") as temporary:
        (temporary / "one").write_text("new")
        raise ZeroDivisionError
    assert content(tmp_path / "place") == {"old"} and len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from common.run import swap
place, way, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0

def dying(real):
    def call(*given, **named):
        global calls
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(*given, **named)
    return call

def none(*_):
    raise OSError(38, "none")

swap.exchange = dying(none if way == "aside" else swap.exchange)
for name in ("rename", "fsync", "rmdir", "mkdir", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
with swap.new_folder(place) as temporary:
    (temporary / "one").write_text("new")
    (temporary / "other").write_text("new")
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_writer_killed_at_any_call_loses_neither(tmp_path: Path, way: str) -> None:
    seen = []
    for at in range(100):
        place = tmp_path / str(at) / "place"
        write(place, "old")
        command = [sys.executable, "-c", KILLED, str(place), way, str(at)]
        code = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": "."}).returncode
        assert code in (0, -signal.SIGKILL)
        if way == "exchange":
            assert place.is_dir(), "it is never away"
        recover(place)
        assert content(place) in ({"old"}, {"new"})
        seen.append(*content(place))
        write(place, "newest")
        assert content(place) == {"newest"} and len(list(place.parent.iterdir())) == 1
        if code == 0:
            break
    assert seen.count("old") > 2 and seen.count("new") > 2, seen


def test_two_writers_at_once_leave_one_of_the_two(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes between any two calls of the first."""
    real: dict[str, Callable[..., Any]] = {"rename": os.rename, "exchange": swap.exchange}
    for at in range(5):
        place, left = tmp_path / str(at) / "place", [at]
        write(place, "old")

        def between(name: str, place: Path = place, left: list[int] = left) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                left[0] -= 1
                if left[0] == -1:
                    write(place, "second")
                return real[name](*given)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", between("rename"))
            patch.setattr(swap, "exchange", between("exchange"))
            write(place, "first")
        assert content(place) in ({"first"}, {"second"}) and len(list(place.parent.iterdir())) == 1


def test_a_reader_gets_one_folder_and_no_mixture(tmp_path: Path, way: str) -> None:
    place = tmp_path / "place"
    write(place, "old")
    reads = []

    def read() -> set[str]:
        found = {(place / "one").read_text()}
        if not reads:
            write(place, "new")
        reads.append(1)
        return found | {(place / "other").read_text()}

    assert unchanged(place, read) == {"new"} and len(reads) == 2
    with pytest.raises(FileNotFoundError):
        unchanged(tmp_path / "nowhere", lambda: content(tmp_path / "nowhere"))
