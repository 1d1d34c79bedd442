"""The keys of a schema, and what is said of one that is mistaken."""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from common.errors import UserError
from common.fields import dataclass_in, fields_of

BY_RESOLVER = "UserError raised while resolving interpolation: "
"""How OmegaConf hands on what a resolver raises; it keeps no cause."""


def valid_keys(cls: type) -> list[str]:
    """All dotted keys that `cls` knows, groups included."""
    return [key for key, _ in _keys(cls)]


def unknown_keys(config: dict[str, Any], cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of `config` that `cls` does not know.

    Raises:
        UserError: a value stands where a group of keys is needed.
    """
    known = fields_of(cls)
    for key, value in config.items():
        if key not in known:
            yield f"{prefix}{key}"
            continue
        _, kind = known[key]
        nested = dataclass_in(kind)
        if nested is None or value is None:
            continue
        if nested is kind and not isinstance(value, dict):
            raise UserError(f"{prefix}{key}={value}: a group of keys is needed ({', '.join(fields_of(nested))})")
        origin = typing.get_origin(kind)
        if origin is dict and isinstance(value, dict):
            for name, entry in value.items():
                yield from unknown_keys(entry, nested, f"{prefix}{key}.{name}.")
        elif origin is list and isinstance(value, list):
            for index, entry in enumerate(value):
                yield from unknown_keys(entry, nested, f"{prefix}{key}[{index}].")
        elif isinstance(value, dict):
            yield from unknown_keys(value, nested, f"{prefix}{key}.")


def unknown_key(key: str, valid: Iterable[str]) -> UserError:
    """The error for a key nobody knows, with the closest one that exists."""
    close = closest(key.lstrip("+~"), valid)
    hint = f"did you mean {close}?" if close else "remove it;"
    return UserError(f"unknown key {key}: {hint} `--cfg job` lists every key (a leading + does not make a key known)")


def closest(key: str, valid: Iterable[str]) -> str | None:
    """The valid key most like `key`: by its full path, else by its last part anywhere."""
    candidates = list(valid)
    if near := difflib.get_close_matches(key, candidates, n=1, cutoff=0.75):
        return near[0]
    last = {name.rpartition(".")[2]: name for name in reversed(candidates)}
    near = difflib.get_close_matches(key.rpartition(".")[2], list(last), n=1, cutoff=0.75)
    return last[near[0]] if near else None


def explain(error: OmegaConfBaseException, cls: type | None = None) -> UserError:
    """OmegaConf's error as one line that names the key and the way out."""
    key = error.full_key or "the configuration"
    message = str(error.msg or error).splitlines()[0].strip()
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"{key} has no value: give one, as {key}=... on the command line or in the experiment file")
    if message.startswith(BY_RESOLVER):
        return UserError(message.removeprefix(BY_RESOLVER))
    if message.startswith("Key '") and cls is not None:
        return unknown_key(key, valid_keys(cls))
    kind = ""
    if cls is not None and (declared := dict(_keys(cls)).get(key)) is not None:
        kind = f"; {key} takes {_words(declared)}"
    return UserError(f"{key}: {message}{kind}")


def other_form(key: str, what: str, where: str) -> str | None:
    """What to write for a list, a single value or a whole number; None if OmegaConf complains of something else.

    `what` is its message, `where` Hydra's, which repeats an override.
    """
    given = re.search(r"override \S*?=(.*)$", where)
    value = given[1].rstrip(")") if given else ""
    said = f"{key}={value}" if given else key
    if "is not a ListConfig" in what:
        return f"{said}: a list is needed" + (f"; write '{key}=[{value}]'" if given else ", as in [<value>]")
    if "'list'" in what or "'ListConfig'" in what:
        first = value.strip("[]").partition(",")[0].strip()
        return f"{said}: one value is needed, no list" + (f"; write {key}={first}" if first else "")
    if "could not be converted to Integer" in what and given:
        return f"{said}: a whole number is needed"
    return None


def _keys(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> type of all keys, groups included."""
    for name, (_, kind) in fields_of(cls).items():
        yield prefix + name, kind
        if nested := dataclass_in(kind):
            yield from _keys(nested, f"{prefix}{name}.")


def _words(kind: Any) -> str:
    """A type in a user's words."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(kind.__members__)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if kind in names:
        return names[kind]
    parts = typing.get_args(kind)
    if typing.get_origin(kind) in (list, tuple):
        return f"a list ({_words(parts[0])})"
    return " or ".join(map(_words, parts)) if parts else "a group of keys"
