"""Checkpoints: folders of safetensors and JSON that are whole or not there; nothing is ever unpickled.

checkpoints/step-000400/
    state.json                    step, run state, the structure of every object, sizes and hashes of the tensor files
    <object>.safetensors          the tensors of one object; a model's file holds its parameters under their own names
    <object>/<shard>.safetensors  structure and tensors of one shard of an object that comes in shards

An object is made, written and read when its turn comes, so that one at a time is in memory, and a shard likewise.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run import structure, tensorfile
from common.run.files import remove_temporaries, sync_folder, temporary_beside, write_synced
from common.run.tensorfile import SUFFIX

SCHEMA = 1
STATE = "state.json"
SHARDS, HASH, STRUCTURE = "shards", "sha256", "structure"
log = logging.getLogger(__name__)


class Shards(Mapping[str, Any]):
    """States by name, each with a file of its own, and each made or read anew whenever it is asked for.

    As the state of an object, `run.track("clients", store)` with a `store.state_dict()` of this type, they cost what
    has changed: a shard whose bytes have the hash that the checkpoint before recorded is linked to that file, not
    written. The owner marks nothing; all shards are hashed at every save. `store.load_state_dict` gets them as this
    type, too, and reads one at a time: `for name, state in shards.items()`.
    """

    def __init__(self, names: Iterable[str], state: Callable[[str], Any]) -> None:
        """The shards `names`, letters, digits and any of `_-.`, of which `state` gives one; for a dict of states:
        `Shards(states, states.__getitem__)`."""
        self._names = dict.fromkeys(names)
        self._state = state

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._state(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Checkpoint:
    """What `state.json` says: `entries` tells files, hashes and structures of the objects, `run` is as given to `save`.

    The files are read when they are asked for.
    """

    path: Path
    step: int
    entries: dict[str, Any]
    run: dict[str, Any]

    @property
    def objects(self) -> Shards:
        """The objects' `state_dict()`s, tensors on the CPU; raises UserError where a file is missing or was altered."""
        return Shards(self.entries, self._object)

    def verify(self) -> None:
        """Compare every file with its hash; no tensors are held.

        Raises:
            UserError: one is missing or was altered.
        """
        with _readable(self.path):
            for name, entry in self.entries.items():
                if SHARDS not in entry:
                    tensorfile.verify(self.path / f"{name}{SUFFIX}", entry[HASH])
                for shard, sha256 in entry.get(SHARDS, {}).items():
                    tensorfile.verify(self.path / name / f"{shard}{SUFFIX}", sha256)

    def _object(self, name: str) -> Any:
        entry = self.entries[name]
        if SHARDS in entry:
            return Shards(entry[SHARDS], partial(self._shard, name))
        with _readable(self.path):
            tensors, _ = tensorfile.read(self.path / f"{name}{SUFFIX}", entry[HASH])
            return structure.decode(entry[STRUCTURE], tensors)

    def _shard(self, name: str, shard: str) -> Any:
        with _readable(self.path):
            file = self.path / name / f"{shard}{SUFFIX}"
            tensors, texts = tensorfile.read(file, self.entries[name][SHARDS][shard])
            return structure.decode(json.loads(texts[STRUCTURE]), tensors)


def save(
    folder: Path,
    step: int,
    objects: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    keep: int = 2,
    best: int | None = None,
    previous: int | None = None,
) -> Path:
    """Write `folder/step-NNNNNN` and drop older ones beyond the newest `keep` and the step `best`.

    Args:
        folder: the run's checkpoint folder; made if need be.
        step: outer steps done.
        objects: name -> state dict, or its `Shards`. A state dict is any nesting of dicts, lists, tuples, tensors,
            numbers, strings, bytes and None.
        run: anything JSON can hold.
        keep: number of newest checkpoints that stay.
        best: step of the checkpoint that stays whatever its age.
        previous: step of the checkpoint that this process has written or verified last; unchanged shards are linked
            to its files.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are intact and nothing temporary is left.
    """
    target = folder / name_of(step)
    temporary = temporary_beside(target)
    before = None if previous is None else folder / name_of(previous)
    try:
        temporary.mkdir(parents=True)
        # no variable holds a state while the next one is made
        entries = {name: _write(temporary, name, objects[name], before) for name in objects}
        state = {"schema": SCHEMA, "step": step, "run": dict(run), "objects": entries}
        write_synced(temporary / STATE, json.dumps(state, allow_nan=False).encode())
        sync_folder(temporary)
        if target.exists():  # unreadable, or left by a run that went on from an earlier checkpoint
            shutil.rmtree(target)
        os.rename(temporary, target)
        sync_folder(folder)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, step, keep, best)
    return target


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:06d}"


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, newest first; complete or not."""
    found = [re.fullmatch(r"step-(\d{6,})", path.name) for path in folder.glob("step-*")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def latest(folder: Path, *, verified: bool = True) -> Checkpoint | None:
    """The newest checkpoint whose files match their hashes, or, not `verified`, whose `state.json` can be read.

    Broken ones are passed over with a warning.
    """
    for step in steps(folder):
        try:
            found = load(folder / name_of(step))
            if verified:
                found.verify()
            return found
        except UserError as error:
            log.warning("%s; trying the one before", error)
    return None


def load(path: Path) -> Checkpoint:
    """Read the `state.json` of one checkpoint folder.

    Raises:
        UserError: it cannot be read, or comes from a later version.
    """
    with _readable(path):
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["schema"] != SCHEMA:
            raise UserError(f"{path}: checkpoint format {state['schema']}, this code reads {SCHEMA}; update it")
        return Checkpoint(path, state["step"], state["objects"], state["run"])


def _write(folder: Path, name: str, state: Any, before: Path | None) -> dict[str, Any]:
    """Write one object into `folder`; returns its entry in `state.json`."""
    if isinstance(state, Shards):
        return {SHARDS: _write_shards(folder / name, state, before)}
    shape, tensors = structure.encode(state)
    sha256, size = tensorfile.write(folder / f"{name}{SUFFIX}", tensors)
    return {HASH: sha256, "bytes": size, STRUCTURE: shape}


def _write_shards(folder: Path, shards: Shards, before: Path | None) -> dict[str, str]:
    """Write the shards of one object, or link them to those of the checkpoint `before`; returns their hashes."""
    if odd := [name for name in shards if not re.fullmatch(r"[\w-][\w.-]*", name)]:
        raise ValueError(f"{folder.name}: {odd[0]!r} is no name of a shard; use letters, digits and any of _-.")
    there: dict[str, str] = {}
    if before is not None:
        with suppress(UserError):  # somebody has deleted it: everything is written
            there = load(before).entries.get(folder.name, {}).get(SHARDS, {})
    folder.mkdir()
    hashes = {}
    for name in shards:
        old = (before / folder.name / f"{name}{SUFFIX}", there[name]) if before and name in there else None
        hashes[name] = _write_shard(folder / f"{name}{SUFFIX}", shards[name], old)
    sync_folder(folder)
    return hashes


def _write_shard(path: Path, state: Any, old: tuple[Path, str] | None) -> str:
    shape, tensors = structure.encode(state)
    texts = {STRUCTURE: json.dumps(shape, allow_nan=False)}
    if old is not None and tensorfile.digest(tensors, texts) == old[1]:
        try:
            os.link(old[0], path)
            return old[1]
        except OSError as error:
            _tell_of_copies(path.parents[2], error.strerror)
    sha256, _ = tensorfile.write(path, tensors, texts)
    return sha256


@cache
def _tell_of_copies(folder: Path, reason: str) -> None:
    """Once a process and folder."""
    log.warning("%s: no links here (%s); unchanged shards are written again", folder, reason)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Put what goes wrong in reading the checkpoint `path` into words."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: unreadable checkpoint ({error!r}); use an earlier one") from error


def _prune(folder: Path, last: int, keep: int, best: int | None) -> None:
    """Delete what nobody needs: checkpoints beyond the newest `keep` up to `last` but `best`, later ones, which the run
    passed over as damaged, and what killed writers left."""
    remove_temporaries(folder)
    there = steps(folder)
    needed = {best, *[step for step in there if step <= last][:keep]}
    for step in there:
        if step not in needed:
            shutil.rmtree(folder / name_of(step), ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> UserError:
    left = steps(target.parent)
    good = f"the last good checkpoint is {target.parent / name_of(left[0])}" if left else "there is no earlier one"
    remedy = "free space there, or set loop.root to a bigger disk" if error.errno != errno.EACCES else "allow writing"
    return UserError(
        f"cannot write checkpoint {target}: {error.strerror or error}; {good}; {remedy}, "
        "then run the same command again and it continues"
    )
