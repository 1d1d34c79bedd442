"""Memories on the disk: one adapter in a folder that plain `peft` reads, and a note beside it about the rest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from safetensors import SafetensorError

from common import jsontext
from common.engine.adapter import SETTINGS, Adapter, AdapterFiles
from common.engine.weights import Weights
from common.errors import UserError
from common.run.export import write
from common.run.files import write_synced
from common.run.swap import recover, unchanged

NOTE = "memory.json"
"""Beside the adapter's files."""
MOST = 10**9
"""Nothing that a memory counts is more."""


@dataclass(frozen=True)
class Note:
    """The content of `memory.json`; a paper adds numbers and texts of its own."""

    schema: int
    base: str
    """Name of the network that the memory was written into."""
    fingerprint: str
    """Of the base's weights."""

    def save_pretrained(self, folder: str) -> None:
        """Write it, as `common.run.export.write` asks its parts to."""
        write_synced(Path(folder) / NOTE, f"{json.dumps(vars(self), indent=2, ensure_ascii=False)}\n".encode())


AnyNote = TypeVar("AnyNote", bound=Note)


def save(folder: Path, files: AdapterFiles, note: Note) -> None:
    """Write a memory, whole or not at all; an older one in `folder` is replaced.

    Raises:
        UserError: `folder` holds something else, or cannot be written.
    """
    try:
        recover(folder)
        if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / NOTE).is_file())):
            raise UserError(f"{folder} is there and no saved memory; name another folder")
        write(folder, files, note)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the memory into {folder}: {error}; free space there, or name another folder"
        ) from error


def load(folder: Path, adapter: Adapter, kind: type[AnyNote], schema: int, base: str) -> tuple[Weights, AnyNote]:
    """The matrices and the note of a memory that was saved from `adapter`, or from one like it on the same base.

    Args:
        folder: of the memory.
        adapter: in the network that is to have the memory.
        kind: of the note.
        schema: of the notes that can be read.
        base: name of the network, for messages.

    Raises:
        UserError: there is none, it is damaged, or it belongs to another base or adapter.
    """
    try:
        recover(folder)
        return unchanged(folder, lambda: _load(folder, adapter, kind, schema, base))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); see that the disk answers") from error


def _load(folder: Path, adapter: Adapter, kind: type[AnyNote], schema: int, base: str) -> tuple[Weights, AnyNote]:
    note = _note(folder, kind, schema)
    if not adapter.is_base_of(note.fingerprint):
        raise UserError(
            f"{folder}: written into the base {note.base} ({note.fingerprint}), the one here is {base} "
            f"({adapter.fingerprint()}); load a run on that base, or write the memory again"
        )
    return adapter.read(folder), note


def _note(folder: Path, kind: type[AnyNote], schema: int) -> AnyNote:
    path = folder / NOTE
    if not path.is_file():
        found = f"it holds {SETTINGS}, so an adapter of other code" if (folder / SETTINGS).is_file() else "none there"
        raise UserError(f"{folder}: no saved memory ({NOTE} is missing; {found}); give a folder of memory.save")
    try:
        value: Any = jsontext.parse(path.read_bytes())
        note = kind(**value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); save the memory again") from error
    right = all(type(getattr(note, name)) is type_ for name, type_ in get_type_hints(kind).items())
    if note.schema != schema or not right:
        raise UserError(f"{path}: schema {note.schema}, this version reads {schema}; save the memory again with it")
    counts = {name: getattr(note, name) for name, type_ in get_type_hints(kind).items() if type_ is int}
    for name, count in counts.items():
        if not 1 <= count <= MOST:
            raise UserError(f"{path}: {name}={count} is no possible number; copy or save the memory again")
    return note
