"""Nested plain data with tensors in it, taken apart into JSON and named tensors, and put together again."""

import base64
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def encode(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """`value` as JSON, and its tensors under their dotted paths: the same ones, no copies.

    Args:
        value: any nesting of dicts, lists, tuples, tensors, numbers, strings, bytes and None.

    Raises:
        TypeError: there is something else in it; names the place.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(value, (), tensors, {}), tensors


def _encode(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under their dotted path.

    Tagged objects `{"$kind": ...}` stand for what JSON lacks. Tied tensors are stored once: `seen` finds them again.
    """
    if isinstance(value, Tensor):
        data = value.detach()
        place = (
            data.data_ptr(),
            data.dtype,
            tuple(data.shape),
            data.stride(),
            str(data.device),
            data.is_conj(),
            data.is_neg(),
        )
        if not data.numel() or place not in seen:
            name = ".".join(path) or "value"
            while name in tensors:
                name += "_"
            tensors[name] = data
            seen[place] = name
        return {"$tensor": seen[place]}
    if isinstance(value, Mapping):
        pairs = [(key, _encode(entry, (*path, str(key)), tensors, seen)) for key, entry in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": [[_encode(key, path, tensors, seen), entry] for key, entry in pairs]}
    if isinstance(value, (list, tuple)):
        entries = [_encode(entry, (*path, str(index)), tensors, seen) for index, entry in enumerate(value)]
        return entries if isinstance(value, list) else {"$tuple": entries}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{'.'.join(path)} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "state_dict() may give tensors, numbers, strings, bytes, None, and dicts, lists and tuples of them"
    )


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `encode` took apart; any error if something else did."""
    if isinstance(value, list):
        return [decode(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    match next(iter(value), None):
        case "$tensor":
            return tensors[value["$tensor"]]
        case "$dict":
            return {decode(key, tensors): decode(entry, tensors) for key, entry in value["$dict"]}
        case "$tuple":
            return tuple(decode(entry, tensors) for entry in value["$tuple"])
        case "$float":
            return float(value["$float"])
        case "$bytes":
            return base64.b64decode(value["$bytes"], validate=True)
    return {key: decode(entry, tensors) for key, entry in value.items()}
