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
