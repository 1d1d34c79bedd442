"""JSON that others may have written: whatever is wrong with it is a `ValueError`."""

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    """What `text` says; bytes are UTF-8.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def mapping(text: str | bytes) -> dict[str, Any]:
    """The object that `text` is.

    Raises:
        ValueError: it is not JSON, nested too deeply, or no object.
    """
    found = parse(text)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} where an object is needed")
    return found
