"""`state.json` of a checkpoint: written with a hash of its own bytes, read only as what it must be.

    {"schema": 1, "step": 4, "run": {...}, "objects": {...}, "sha256": "<of all before the comma, and a brace>"}

`objects` maps a name to {"sha256", "bytes", "structure"}, or to {"shards": {name: sha256}}. Files of earlier versions
have no hash of their own and are read all the same.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError

SCHEMA = 1
SHARDS, HASH, BYTES, STRUCTURE = "shards", "sha256", "bytes", "structure"
LONGEST = 1 << 28
"""Bytes of a `state.json`; its numbers and texts are small beside the tensors."""
NAME = re.compile(r"[\w-][\w.-]*")
"""Of an object or a shard: a file's name, and no way out of its folder."""
_TAIL = re.compile(rb', "sha256": "([0-9a-f]{64})"\}')
_TAIL_BYTES = 79
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = {"schema", "step", "run", "objects"}


def dump(step: int, run: Mapping[str, Any], objects: Mapping[str, Any]) -> bytes:
    """The bytes of the file.

    Raises:
        ValueError: a number is not finite, or it is all too long to be read again.
    """
    state = {"schema": SCHEMA, "step": step, "run": dict(run), "objects": dict(objects)}
    data = json.dumps(state, allow_nan=False).encode()
    if len(data) > LONGEST - _TAIL_BYTES:
        raise ValueError(f"{len(data)} bytes of numbers and texts: put what is long into tensors")
    return data[:-1] + f', "{HASH}": "{hashlib.sha256(data).hexdigest()}"}}'.encode()


def parse(data: bytes) -> dict[str, Any]:
    """The content of a file, checked to the last entry but for the structures, whose tensors decide.

    Raises:
        UserError: a later version wrote it.
        ValueError, TypeError, KeyError, RecursionError: it is no such file, or altered.
    """
    state = loads(data)
    schema = state["schema"]
    if type(schema) is int and schema > SCHEMA:
        raise UserError(
            f"checkpoint format {schema}, this code reads {SCHEMA}; update it. If no later version has run here, the "
            "file is damaged: move this checkpoint away"
        )
    tail = _TAIL.fullmatch(data[-_TAIL_BYTES:])
    if (HASH in state) != (tail is not None) or state.keys() - {HASH} != _KEYS:
        raise ValueError(f"the entries {', '.join(map(str, state))}")
    if tail and hashlib.sha256(data[:-_TAIL_BYTES] + b"}").hexdigest() != tail[1].decode():
        raise ValueError("its hash differs")
    if type(schema) is not int or schema != SCHEMA:
        raise ValueError(f"format {schema!r}")
    if type(state["step"]) is not int or state["step"] < 0 or type(state["run"]) is not dict:
        raise TypeError("no step, or nothing about the run")
    for name, entry in state["objects"].items():
        _check_entry(name, entry)
    return state


def loads(text: bytes | str) -> dict[str, Any]:
    """An object of JSON without doubled keys and numbers that are not finite, which nothing here writes.

    Raises:
        ValueError, RecursionError: it is none.
    """
    value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, an object is needed")
    return value


def _check_entry(name: str, entry: Any) -> None:
    shards = entry.get(SHARDS)
    if shards is not None:
        known = entry.keys() == {SHARDS}
        hashes = dict(shards)
    else:
        known = entry.keys() == {HASH, BYTES, STRUCTURE} and type(entry[BYTES]) is int
        hashes = {name: entry[HASH]}
    named = all(NAME.fullmatch(each) and _DIGEST.fullmatch(sha256) for each, sha256 in hashes.items())
    if not (known and named and NAME.fullmatch(name)):
        raise ValueError(f"what it says of {name!r}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not finite")
    return value
