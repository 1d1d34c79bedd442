"""Under which names a tracker has a run: its id, its job and its group."""

import json
import logging
import secrets
from pathlib import Path

from common import jsontext
from common.run.files import write_atomic
from common.run.results import RunIdentity

ID_FILE = "tracker.json"
TRAIN, EVALUATE = "train", "evaluate"
LONGEST_GROUP = 128
"""In characters; W&B refuses longer ones."""
log = logging.getLogger(__name__)


def group_of(identity: RunIdentity, sweep: str | None) -> str:
    """The group of a run: `<paper>/<sweep>`, or `<paper>/<experiment>` of a run that no sweep started."""
    return f"{identity.paper}/{sweep or identity.experiment}"[:LONGEST_GROUP]


def run_id(folder: Path, job: str) -> str:
    """The id kept in the run folder, so that it survives restarts, moves and other machines.

    Raises:
        OSError: there is none yet and the folder is not writable.
    """
    ids = _ids(folder)
    if job not in ids:
        ids[job] = secrets.token_hex(8)
        write_atomic(folder / ID_FILE, json.dumps(ids) + "\n")
    return ids[job]


def known_id(folder: Path, job: str) -> str | None:
    """The id in the run folder; None if nothing was sent to W&B yet, or the file is damaged, which the log says."""
    try:
        return _ids(folder).get(job)
    except (ValueError, OSError) as error:
        log.warning("%s: damaged (%s); its run counts as not sent", folder / ID_FILE, error)
        return None


def _ids(folder: Path) -> dict[str, str]:
    path = folder / ID_FILE
    return jsontext.mapping(path.read_bytes()) if path.is_file() else {}
