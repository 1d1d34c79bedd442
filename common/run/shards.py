"""An object of a checkpoint in parts of which a step changes few: each is a file of its own, linked while it stays."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from common.run import structure, tensorfile
from common.run.files import sync_folder
from common.run.statefile import NAME, STRUCTURE
from common.run.tensorfile import SUFFIX

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


def write(folder: Path, shards: Shards, old: Mapping[str, tuple[Path, str]]) -> dict[str, str]:
    """Write the shards of one object into `folder`, which is new, or link them; returns their hashes.

    Args:
        folder: of the object.
        shards: its state.
        old: name -> folder and hash of a shard that was written before.

    Raises:
        ValueError: a name is no file's.
        OSError: the disk is full or the place not writable.
    """
    if odd := [name for name in shards if not NAME.fullmatch(name)]:
        raise ValueError(f"{folder.name}: {odd[0]!r} is no name of a shard; use letters, digits and any of _-.")
    folder.mkdir()
    hashes = {}
    for name in shards:
        hashes[name] = _write_shard(folder / f"{name}{SUFFIX}", shards[name], old.get(name))
    sync_folder(folder)
    return hashes


def _write_shard(path: Path, state: Any, old: tuple[Path, str] | None) -> str:
    shape, tensors = structure.encode(state)
    texts = {STRUCTURE: json.dumps(shape, allow_nan=False)}
    if old is not None and tensorfile.digest(tensors, texts) == old[1]:
        try:
            os.link(old[0] / path.name, path)
            return old[1]
        except OSError as error:
            _tell_of_copies(path.parents[2], error.strerror)
    sha256, _ = tensorfile.write(path, tensors, texts)
    return sha256


@cache
def _tell_of_copies(folder: Path, reason: str) -> None:
    """Once a process and folder."""
    log.warning("%s: no links here (%s); unchanged shards are written again", folder, reason)
