"""What a run does to its folder and its process before the first step."""

import errno
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.run import checkpoint, environment, origin, results, seeding
from common.run.entry import sweep_name
from common.run.files import make_folder, remove_temporaries, write_atomic
from common.run.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, LOCK, LogFile, check_settings, lock, read_environment
from common.run.results import RunIdentity, Selection
from common.run.schema import RuntimeConfig

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAILING = (
    *FULL, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EINTR, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENODEV, errno.EBUSY, errno.ENOTCONN, errno.EREMOTEIO,
)  # fmt: skip
"""Errors that the disk causes; others may be mistakes of ours, and keep their trace."""
log = logging.getLogger(__name__)


def held_or_finished(
    stack: ExitStack, folder: Path, config: Mapping[str, Any], schema: type, *, lock_needed: bool
) -> bool:
    """Hold `folder` for this process until `stack` ends, unless it has a finished run; says whether it has.

    The settings and the mark are read with the lock in hand: another process may have ended until then. Of a folder
    that was made for the lock alone nothing is left.

    Raises:
        UserError: another process holds it, it has a run of other settings, or it cannot be written.
    """
    if _finished(folder, config, schema):  # a mark stays, so no lock is needed to see it
        return True
    with in_words(folder):
        made = make_folder(folder)
        stack.enter_context(lock(folder, needed=lock_needed))
        stack.callback(_remove_unused, folder, made)
    return _finished(folder, config, schema)


def open_folder(
    stack: ExitStack,
    folder: Path,
    config: Mapping[str, Any],
    runtime: RuntimeConfig,
    identity: RunIdentity,
    selection: Selection,
) -> tuple[LogFile, dict[str, Any]]:
    """Let `log.txt` in `folder` grow, seed every generator, and write `config.yaml` and `environment.json`; returns the
    log and the content of the latter.

    `stack` gives the process back as it was; each undoing is registered before the next step can fail.

    Raises:
        UserError: the folder cannot be written.
    """
    with in_words(folder):
        file = LogFile(folder)
        stack.callback(file.detach)
        file.attach()
        remove_temporaries(folder)
        remove_temporaries(folder / CHECKPOINTS)
        stack.enter_context(seeding.applied(runtime, identity.seed))
        # a run of several tables belongs to the sweep that started it first
        earlier = read_environment(folder)
        sweep = earlier.get("sweep") or sweep_name()
        described = {**environment.describe(), "run": asdict(identity), "selection": asdict(selection), "sweep": sweep}
        found = environment.with_starts(described, earlier)
        write_atomic(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        write_atomic(folder / ENVIRONMENT, json.dumps(found, indent=2) + "\n")
    who = identity
    log.info("%s/%s %s, scale %s, seed %d", who.paper, who.experiment, who.method, who.scale, who.seed)
    return file, found


def made_of(found: Mapping[str, Any], identity: RunIdentity, config_hash: str) -> dict[str, dict[str, Any]]:
    """What `common.run.origin` compares before data and weights are known: the settings' hash, and of the code what
    `environment.json` says and the files of `common` and the paper."""
    known = {key: found[key] for key in ("revision", "python", "libraries")}
    code = {**known, "source": origin.of_code("common", identity.paper)}
    return {origin.FIXED: {origin.SETTINGS: config_hash}, origin.CODE: code}


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Put errors of the disk that a run in `folder` meets into words.

    Raises:
        UserError: in place of such an error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FAILING:
            raise
        remedy = "free space there or set loop.root" if error.errno in FULL else "see that the disk answers"
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; {remedy}, then run the same command again and it continues"
        ) from error


def _finished(folder: Path, config: Mapping[str, Any], schema: type) -> bool:
    with in_words(folder):
        began = bool(checkpoint.steps(folder / CHECKPOINTS))
        check_settings(folder, config, schema, began=began)
        return results.finished_hash(folder) is not None


def _remove_unused(folder: Path, made: list[Path]) -> None:
    with suppress(OSError):
        if folder in made and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            for place in made:
                place.rmdir()
