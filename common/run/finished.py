"""Run folders below a folder, and the finished ones by the hash of their settings."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError
from common.run import results
from common.run.files import TEMPORARY
from common.run.folder import CONFIG, ENVIRONMENT, read_config
from common.run.schema import schema_of

log = logging.getLogger(__name__)


def run_folders(root: Path) -> list[Path]:
    """The run folders below `root`, sorted, whatever their files hold; what a killed writer left is none. A folder in a
    run folder, such as its checkpoints, is not looked into.
    """
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        if {CONFIG, ENVIRONMENT} <= {*files}:
            folders.clear()
            yield Path(place)
        folders[:] = [name for name in folders if not (name.startswith(".") and TEMPORARY in name)]


def finished_below(root: Path) -> dict[str, Path]:
    """Config hash -> folder of every finished run below `root`; a damaged run is none, and the log names it."""
    found = {}
    for folder in run_folders(root):
        if not (folder / results.FINISHED).is_file():
            continue
        try:
            check_hash(folder)
        except results.OtherVersion:
            pass  # finished, whoever can read it
        except (UserError, *results.DAMAGED) as error:
            log.warning("counted as not finished: %s", error)
            continue
        if (digest := results.finished_hash(folder)) is not None:
            found[digest] = folder
    return found


def twin_of(folder: Path, config_hash: str, root: Path) -> Path | None:
    """A finished run below `root` with the settings of the run in `folder`, in another folder; None without one.

    A damaged run is no twin.
    """
    for other in run_folders(root):
        if results.finished_hash(other) == config_hash and other.resolve() != folder.resolve():
            try:
                check_hash(other)
            except (UserError, *results.DAMAGED) as error:
                log.warning("counted as not finished: %s", error)
                continue
            return other
    return None


def check_hash(folder: Path) -> None:
    """See that the settings of a finished run are those that its results were made with.

    Raises:
        UserError: they are not, or a file cannot be read.
    """
    config, found = read_config(folder), results.read(folder)
    results.check_hash(folder, config, schema_of(found.paper, config), found)
