"""Splits that are built once and kept: named by the content of all that decides them, in files that carry hashes.

<data.cache>/<name>-<key>/<split>.jsonl    the problems, or another ending; the key is `common.data.splits.build_digest`
<data.cache>/<name>-<key>/hashes.json      SHA-256 of each, written last: its presence says that all are there
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import jsontext
from common.data.splits import SPLITS
from common.errors import UserError
from common.run.files import write_atomic

HASHES = "hashes.json"
ENDING = ".jsonl"
log = logging.getLogger(__name__)


def file_of(folder: Path, split: str, ending: str = ENDING) -> Path:
    """Where a split is kept."""
    return folder / f"{split}{ending}"


def is_whole(folder: Path, ending: str = ENDING) -> bool:
    """Are all splits there, as they were written? Damage is told of in the log; they are then to be built anew.

    Raises:
        UserError: a file is there and cannot be read.
    """
    path = folder / HASHES
    try:
        known = jsontext.parse(path.read_bytes())
        damaged = [split for split in SPLITS if known.get(split) != _digest(file_of(folder, split, ending))]
    except FileNotFoundError as error:
        if error.filename == str(path):
            return False
        damaged = [Path(error.filename).name]
    except (ValueError, AttributeError, RecursionError):
        damaged = [HASHES]
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); see that the disk answers, or set another data.cache"
        ) from error
    if damaged:
        log.warning("%s: damaged (%s); the splits are built again", folder, ", ".join(damaged))
    return not damaged


@contextmanager
def writing(folder: Path, ending: str = ENDING) -> Iterator[None]:
    """Around the writing of all splits into `folder`; at its end they count as whole.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
        hashes = {split: _digest(file_of(folder, split, ending)) for split in SPLITS}
        write_atomic(folder / HASHES, json.dumps(hashes, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; free space there, or set another data.cache (null keeps nothing)"
        ) from error
    log.info("splits kept in %s", folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
