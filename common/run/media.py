"""Pictures and videos that a run leaves in `<run>/media/`, for reports and trackers.

A run writes `run.folder / media.FOLDER / "return-ep3.gif"`. Steps that come again in a continued run write their files
again, so a name should tell what is shown and not when it was written.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = "media"
MOST_TRACKED_EACH, MOST_TRACKED = 20_000_000, 100_000_000
"""Bytes of a file, and of all files of a run, that go to a tracker: it copies or uploads them at the run's end, when a
job may have little time left.
"""
KINDS: dict[str, Literal["image", "video"]] = {".png": "image", ".gif": "video", ".mp4": "video"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Medium:
    """One file."""

    path: Path
    key: str
    """`media/<stem>`: its name wherever it is shown; all with their suffixes where two files share a stem."""
    kind: Literal["image", "video"]
    size: int
    """In bytes."""


def find(run: Path) -> list[Medium]:
    """The media of a run folder by name, numbers in their order: `ep2` before `ep10`; none without the folder."""
    paths = sorted((path for path in (run / FOLDER).glob("*") if _fits(path)), key=_natural)
    unique = len({path.stem for path in paths}) == len(paths)
    return [
        Medium(
            path=path,
            key=f"{FOLDER}/{path.stem if unique else path.name}",
            kind=KINDS[path.suffix],
            size=path.stat().st_size,
        )
        for path in paths
    ]


def within(media: Iterable[Medium], each: int, total: int) -> tuple[list[Medium], list[Medium]]:
    """What fits, first come first served, and what is left out: no file over `each` bytes, none that brings the sum
    over `total`. A file that does not fit leaves its room to later ones.
    """
    kept: list[Medium] = []
    left_out: list[Medium] = []
    room = total
    for medium in media:
        if medium.size <= min(each, room):
            room -= medium.size
            kept.append(medium)
        else:
            left_out.append(medium)
    return kept, left_out


def for_tracker(run: Path) -> list[Medium]:
    """What a tracker takes of a run folder's media; the log names what it does not."""
    kept, left_out = within(find(run), MOST_TRACKED_EACH, MOST_TRACKED)
    for medium in left_out:
        log.warning(
            "%s (%s) is not sent to the tracker: at most %s a file and %s a run",
            medium.path, size_text(medium.size), size_text(MOST_TRACKED_EACH), size_text(MOST_TRACKED),
        )  # fmt: skip
    return kept


def size_text(size: int) -> str:
    """`3.2 MB`, `14 kB`, `90 bytes`."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _fits(path: Path) -> bool:
    return path.suffix in KINDS and not path.name.startswith(".") and path.is_file()


def _natural(path: Path) -> tuple[list[Any], str]:
    """Sorts numbers by their value; the name itself decides between `1` and `01`."""
    parts = re.split(r"(\d+)", path.name)  # text at even places, numbers at odd ones
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name
