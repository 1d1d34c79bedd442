"""What a field of a configuration says of its key besides type and default: `field(default=1, metadata=UNHASHED)`.

A field that says nothing is part of a run's hash and of its folder's name.
"""

import functools
import typing
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, Final

HASHED, NAMED, IF_SET = "hashed", "named", "if set"
UNHASHED: Final[Mapping[str, Any]] = {HASHED: False}
"""The key, or all keys below it, cannot change a number: no part of the hash, nor of the folder's name."""
HASHED_IF_SET: Final[Mapping[str, Any]] = {HASHED: IF_SET}
"""For a key that came when there were runs already: left out of the hash while it has its field's default, which must
stay what it is, so that those runs are found."""
UNNAMED: Final[Mapping[str, Any]] = {NAMED: False}
"""Choosing this key or group is no part of the folder's name; keys below it are."""


@functools.cache
def fields_of(cls: type) -> dict[str, tuple[Field[Any], Any]]:
    """Name -> field and type of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: (field, hints[field.name]) for field in fields(cls)}


def dataclass_in(kind: Any) -> type | None:
    """The dataclass in `D`, `D | None`, `list[D]` or `dict[str, D]`."""
    for part in (kind, *typing.get_args(kind)):
        if isinstance(part, type) and is_dataclass(part):
            return part
    return None


@functools.cache
def fields_along(key: str, cls: type) -> tuple[tuple[str, Field[Any]], ...]:
    """The fields that a dotted key passes, each with its own key, as far as `cls` knows them."""
    found: list[tuple[str, Field[Any]]] = []
    kind: Any = cls
    names = key.split(".")
    for position, name in enumerate(names, 1):
        if typing.get_origin(kind) is dict:  # whose keys are free
            kind = typing.get_args(kind)[1]
            continue
        known = fields_of(nested) if (nested := dataclass_in(kind)) else {}
        if name not in known:
            break
        field, kind = known[name]
        found.append((".".join(names[:position]), field))
    return tuple(found)


def counts(key: str, cls: type) -> bool:
    """Can the key change a number? Its fields say when not; a key that `cls` does not know can."""
    return all(field.metadata.get(HASHED, True) for _, field in fields_along(key, cls))


def is_named(key: str, cls: type) -> bool:
    """Is an override of the key part of the folder's name?"""
    own = dict(fields_along(key, cls)).get(key)
    return counts(key, cls) and (own is None or bool(own.metadata.get(NAMED, True)))
