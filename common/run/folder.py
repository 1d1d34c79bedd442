"""A run folder's files: names, settings, log, metrics, and the lock that keeps other processes out."""

import fcntl
import json
import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from common import jsontext, yamltext
from common.errors import UserError
from common.run import results
from common.run.files import is_at, sync_file, write_atomic

CONFIG, ENVIRONMENT, LOG = "config.yaml", "environment.json", "log.txt"
METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"
TABLE = "table.jsonl"
"""Of a study, a run that answers no items: what it found in each of its cells, a line a cell."""
ABSENT, LOCK = "absent", ".lock"
FORMS = {"command": str, "started": str, "run": dict, "starts": list}
"""Of what is read again in `environment.json`, where it is there: earlier versions wrote less."""
log = logging.getLogger(__name__)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration a run was made with, as plain data: nothing in it is resolved or made, whoever wrote it.

    Raises:
        UserError: there is no run, or the file is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no run folder ({CONFIG} is missing); give the folder that training printed")
    found = yamltext.load(_bytes(path), path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged (no mapping of keys); delete the folder and run again")
    return found


def read_environment(folder: Path) -> dict[str, Any]:
    """`environment.json` of a run folder, empty before its first start.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / ENVIRONMENT
    try:
        found = jsontext.mapping(_bytes(path)) if path.is_file() else {}
        for key, kind in FORMS.items():
            if not isinstance(found.get(key, kind()), kind):
                raise ValueError(f"{key} is no {kind.__name__}")
        if not all(isinstance(start, dict) for start in found.get("starts", [])):
            raise ValueError("one of starts is no dict")
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); delete the file and run the command again") from error
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def selection_of(folder: Path) -> results.Selection:
    """What selected the model of a run; the default for a run that was made before papers could choose.

    Raises:
        UserError: `environment.json` is damaged.
    """
    try:
        chosen = results.Selection(**read_environment(folder).get("selection", {}))
        if not isinstance(chosen.metric, str) or not isinstance(chosen.higher_is_better, bool):
            raise TypeError(f"selection={chosen}")
    except TypeError as error:
        raise UserError(f"{folder / ENVIRONMENT}: damaged ({error}); run its command again") from error
    return chosen


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, none before the first; a last line that is still being written is left out.

    Raises:
        UserError: a line is not a JSON object; names it.
    """
    path = folder / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    records = []
    for line_number, line in enumerate((line for line in lines if line.endswith(b"\n")), start=1):
        try:
            records.append(jsontext.mapping(line))
        except ValueError as error:
            raise UserError(f"{path}:{line_number}: not a record ({error}); delete the line") from error
    return records


def check_settings(folder: Path, config: Mapping[str, Any], schema: type, *, began: bool) -> None:
    """Refuse a folder whose results or checkpoints (`began`) were made with other settings.

    Raises:
        UserError: naming the first keys that differ.
    """
    mark = results.finished_hash(folder)
    if mark is None and not began:
        return
    there = results.hashed_keys(read_config(folder), schema)
    now = results.hashed_keys(config, schema)
    differing = [key for key in {**there, **now} if there.get(key, ABSENT) != now.get(key, ABSENT)]
    if not differing and mark in (None, results.config_hash(config, schema)):
        return
    shown = ", ".join(f"{key}={there.get(key, ABSENT)} (now {now.get(key, ABSENT)})" for key in differing[:5])
    more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
    raise UserError(
        f"{folder} holds a run with other settings: {shown or 'made by another version'}{more}; "
        "go back to those settings, name another folder (hydra.run.dir=...), or delete this one"
    )


def lock(folder: Path, *, needed: bool = True) -> IO[str]:
    """Hold the folder for this process; the system lets go of it however the process ends.

    Args:
        folder: of the run.
        needed: refuse a file system that has no locks, rather than go on with a warning.

    Raises:
        UserError: another process holds it, or there are no locks.
    """
    while True:
        file = (folder / LOCK).open("a", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise UserError(f"{folder}: another process is running this; wait for it or stop it first") from error
        except OSError as error:
            if needed:
                file.close()
                raise UserError(
                    f"{folder}: no lock can be had there ({error.strerror}), so nobody would notice two processes in "
                    "it; use a loop.root on a file system with locks, or loop.lock=false and start each run once"
                ) from error
            log.warning("%s: no lock (%s); start each run once at a time", folder, error.strerror)
            return file
        with ExitStack() as stack:
            stack.callback(file.close)
            if is_at(folder / LOCK, file.fileno()):  # or somebody has just deleted it
                stack.pop_all()
                return file


class LogFile(logging.FileHandler):
    """`log.txt`, fed by the root logger between `attach` and `detach`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG, delay=True, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._level_before = logging.getLogger().level

    def attach(self) -> None:
        """Begin; the root logger lets INFO through from now on."""
        root = logging.getLogger()
        root.setLevel(min(self._level_before, logging.INFO) or logging.INFO)
        root.addHandler(self)

    def detach(self) -> None:
        """End, and leave the root logger as it was."""
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._level_before)
        with suppress(OSError):  # as in `handleError`
            self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; opening the file may fail as well."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def failure(self, error: BaseException) -> None:
        """Write down what ended the run, in this file only: the console is the caller's."""
        plain = isinstance(error, UserError)
        trace = None if plain else (type(error), error, error.__traceback__)
        message = str(error) if plain else "the run failed"
        self.handle(logging.LogRecord("common.run.run", logging.ERROR, __file__, 0, message, None, trace))

    def handleError(self, record: logging.LogRecord) -> None:
        """Give up silently where the disk is full: whatever matters raises elsewhere."""


class Metrics:
    """`metrics.jsonl`, opened for appending after its first `records` lines; what follows them is dropped.

    The steps after a checkpoint come again when a run is continued, and their records with them.
    """

    def __init__(self, folder: Path, records: int) -> None:
        self.path = folder / METRICS
        self.records = 0
        if self.path.is_file():
            lines = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            if len(lines) < records:
                log.warning("%s: %d records, but %d at the checkpoint", self.path, len(lines), records)
            write_atomic(self.path, b"".join(lines[:records]))
            self.records = min(len(lines), records)
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; the line is complete or, after a crash, dropped at the next start.

        Raises:
            UserError: the disk is full.
        """
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space there or set loop.root to a bigger disk, "
                "then run the same command again and it continues from the last checkpoint"
            ) from error
        self.records += 1

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        sync_file(self._file)

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:  # a line that did not fit is still in the buffer
            log.debug("%s: %s", self.path, error)


def number(value: Any) -> Any:
    """A metric as JSON holds it: tensors of one element as numbers, NaN and infinities as null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
