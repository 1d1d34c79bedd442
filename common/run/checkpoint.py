"""Checkpoints: folders of safetensors and JSON that are whole or not there; nothing is ever unpickled.

checkpoints/step-000400/
    state.json                    step, run state, structures of objects, hashes of files (`common.run.statefile`)
    <object>.safetensors          the tensors of one object; a model's file holds its parameters under their own names
    <object>/<shard>.safetensors  structure and tensors of one shard of an object that comes in shards

An object is made, written and read when its turn comes, so that one at a time is in memory, and a shard likewise.
A checkpoint that is provably damaged is passed over for the one before; any other error of reading stops.
"""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import DamagedError, UserError
from common.run import shards, statefile, structure, tensorfile
from common.run.files import open_regular, remove_temporaries, write_synced
from common.run.shards import Shards as Shards
from common.run.statefile import BYTES, HASH, NAME, SHARDS, STRUCTURE
from common.run.swap import discard, new_folder
from common.run.tensorfile import SUFFIX

STATE = "state.json"
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Errors that say that no such file is there; of all errors of reading, these alone prove damage."""
log = logging.getLogger(__name__)


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
        """Compare every file with its hash, and what its structure asks for with its tensors, which are not held.

        Raises:
            DamagedError: one is missing or was altered.
            UserError: one cannot be read.
        """
        with _readable(self.path):
            for name, entry in self.entries.items():
                if SHARDS not in entry:
                    structure.decode(entry[STRUCTURE], tensorfile.verify(self._file(name), entry[HASH])[0])
                for shard, sha256 in entry.get(SHARDS, {}).items():
                    tensors, texts = tensorfile.verify(self._file(name, shard), sha256)
                    structure.decode(statefile.loads(texts[STRUCTURE]), tensors)

    def _object(self, name: str) -> Any:
        entry = self.entries[name]
        if SHARDS in entry:
            return Shards(entry[SHARDS], partial(self._shard, name))
        with _readable(self.path):
            tensors, _ = tensorfile.read(self._file(name), entry[HASH])
            return structure.decode(entry[STRUCTURE], tensors)

    def _shard(self, name: str, shard: str) -> Any:
        with _readable(self.path):
            tensors, texts = tensorfile.read(self._file(name, shard), self.entries[name][SHARDS][shard])
            return structure.decode(statefile.loads(texts[STRUCTURE]), tensors)

    def _file(self, name: str, shard: str | None = None) -> Path:
        if shard is None:
            return self.path / f"{name}{SUFFIX}"
        if (self.path / name).is_symlink():
            raise ValueError(f"{name} is a link")
        return self.path / name / f"{shard}{SUFFIX}"


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
        ValueError, TypeError: an object holds what no checkpoint can.
    """
    target = folder / name_of(step)
    before = None if previous is None else folder / name_of(previous)
    if odd := [name for name in objects if not NAME.fullmatch(name)]:
        raise ValueError(f"{odd[0]!r} is no name of an object; use letters, digits and any of _-.")
    try:
        with new_folder(target) as temporary:  # there already: unreadable, or of a run that went on from before it
            # no variable holds a state while the next one is made
            entries = {name: _write(temporary, name, objects[name], before) for name in objects}
            write_synced(temporary / STATE, statefile.dump(step, run, entries))
    except OSError as error:
        raise _cannot_write(target, error) from error
    _prune(folder, step, keep, best)
    return target


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:06d}"


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, newest first; complete or not.

    Raises:
        UserError: the folder is there and cannot be read.
    """
    try:
        found = [re.fullmatch(r"step-(\d{6,})", name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _cannot_read(folder, error) from error
    return sorted((int(match[1]) for match in found if match), reverse=True)


def latest(
    folder: Path, *, verified: bool = True, accept: Callable[[Checkpoint], Any] = lambda _: None
) -> Checkpoint | None:
    """The newest checkpoint whose files match their hashes, or, not `verified`, whose `state.json` can be read.

    Damaged ones are passed over with a warning and left alone. `accept` raises what `load` may for one that is not
    what its reader needs.

    Raises:
        UserError: one cannot be read, or comes from a later version; that proves no damage, so nothing is passed over.
    """
    for step in steps(folder):
        try:
            found = load(folder / name_of(step))
            if verified:
                found.verify()
            with _readable(found.path):
                accept(found)
            return found
        except DamagedError as error:
            log.warning("%s; trying the one before", error)
    return None


def load(path: Path) -> Checkpoint:
    """Read the `state.json` of one checkpoint folder.

    Raises:
        DamagedError: it is missing, or was altered.
        UserError: it cannot be read, or comes from a later version.
    """
    with _readable(path):
        with open_regular(path / STATE) as file:
            data = file.read(statefile.LONGEST + 1)
        if len(data) > statefile.LONGEST:
            raise ValueError(f"{STATE} of more than {statefile.LONGEST} bytes")
        try:
            state = statefile.parse(data)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if path.name != name_of(state["step"]):
            raise ValueError(f"step {state['step']} in {path.name}")
        return Checkpoint(path, state["step"], state["objects"], state["run"])


def _write(folder: Path, name: str, state: Any, before: Path | None) -> dict[str, Any]:
    """Write one object into `folder`; returns its entry in `state.json`."""
    if isinstance(state, Shards):
        there: dict[str, str] = {}
        if before is not None:
            with suppress(UserError):  # somebody has deleted it: everything is written
                there = load(before).entries.get(name, {}).get(SHARDS, {})
        old = {} if before is None else {shard: (before / name, sha256) for shard, sha256 in there.items()}
        return {SHARDS: shards.write(folder / name, state, old)}
    shape, tensors = structure.encode(state)
    sha256, size = tensorfile.write(folder / f"{name}{SUFFIX}", tensors)
    return {HASH: sha256, BYTES: size, STRUCTURE: shape}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Put what goes wrong in reading the checkpoint `path` into words: damage that is proven, or another error."""
    try:
        yield
    except UserError:
        raise
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in NOT_THERE:
            raise DamagedError(f"{path}: unreadable checkpoint ({error!r}); use an earlier one") from error
        raise _cannot_read(path, error) from error
    except Exception as error:  # anything may stand in a file that somebody else has made
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise DamagedError(f"{path}: unreadable checkpoint ({reason}); use an earlier one") from error


def _prune(folder: Path, last: int, keep: int, best: int | None) -> None:
    """Delete what nobody needs: checkpoints beyond the newest `keep` up to `last` but `best`, later ones that are
    provably damaged (the run has passed them over), and what killed writers left."""
    there = steps(folder)
    needed = {best, *[step for step in there if step <= last][:keep]}
    with suppress(OSError):  # the next save tries again
        remove_temporaries(folder)
        for step in there:
            if step not in needed and (step < last or _is_damaged(folder / name_of(step))):
                discard(folder / name_of(step))


def _is_damaged(path: Path) -> bool:
    try:
        load(path).verify()
    except DamagedError:
        return True
    except UserError:
        return False
    return False


def _cannot_read(path: Path, error: OSError | MemoryError) -> UserError:
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return UserError(
        f"{path}: cannot be read ({reason}), which proves no damage: nothing is passed over or deleted; see that the "
        "disk answers and its files may be read, then run the same command again"
    )


def _cannot_write(target: Path, error: OSError) -> UserError:
    left = steps(target.parent)
    good = f"the last good checkpoint is {target.parent / name_of(left[0])}" if left else "there is no earlier one"
    remedy = "free space there, or set loop.root to a bigger disk" if error.errno != errno.EACCES else "allow writing"
    return UserError(
        f"cannot write checkpoint {target}: {error.strerror or error}; {good}; {remedy}, "
        "then run the same command again and it continues"
    )
