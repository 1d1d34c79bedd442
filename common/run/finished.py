"""Run folders below a folder, and the finished ones by the hash of their settings."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError
from common.run import results
from common.run.files import TEMPORARY
from common.run.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, read_config
from common.run.schema import LoopConfig, schema_of

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
        try:
            if not (folder / results.FINISHED).is_file():
                continue
            check_hash(folder)
        except results.OtherVersion:
            pass  # finished, whoever can read it
        except (UserError, OSError, *results.DAMAGED) as error:
            log.warning("counted as not finished: %s", error)
            continue
        if (digest := results.finished_hash(folder)) is not None:
            found[digest] = folder
    return found


def own_or_twin(folder: Path, config_hash: str, loop: LoopConfig) -> Path:
    """`folder`, or, where nothing is in it yet, the folder below `loop.root` in which a run with the same settings is
    finished; the log says where. A damaged run is none; with `loop.again` nothing is looked for.
    """
    try:
        begun = (folder / results.FINISHED).is_file() or any((folder / CHECKPOINTS).glob("step-*"))
    except OSError:  # whoever reads the folder next says what is wrong there
        return folder
    if loop.again or begun:
        return folder
    for other in run_folders(Path(loop.root)):
        try:
            if results.finished_hash(other) != config_hash:
                continue
            check_hash(other)
        except (UserError, OSError, *results.DAMAGED) as error:
            log.warning("counted as not finished: %s", error)
            continue
        log.info("%s has a finished run of the same settings; loop.again=true trains again, in %s", other, folder)
        return other
    return folder


def check_hash(folder: Path) -> None:
    """See that the settings of a finished run are those that its results were made with.

    Raises:
        UserError: they are not, or a file cannot be read.
    """
    config, found = read_config(folder), results.read(folder)
    results.check_hash(folder, config, schema_of(found.paper, config), found)
