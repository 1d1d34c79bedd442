"""The one place that parses nested text, JSON and YAML, into plain data: never code, never without bounds.

libyaml recurses without a limit of its own, so that text of brackets alone would end the process; and a few aliases can
stand for any number of values.
"""

import json
import re
from typing import Any

import yaml

DEEPEST, MOST = 1000, 1_000_000
"""Levels of nesting, and values in a text of YAML, aliases counted wherever they stand."""
LARGEST_YAML = 8_000_000
"""In characters."""
_LEVELS = re.compile(r"[-?](?=[ \t\n])")
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_yaml(text: str) -> Any:
    """The value of a YAML text, plain data alone: tags that make other objects are refused.

    Raises:
        ValueError: it is none, nested too deeply, or too large.
    """
    _refuse_deep(text)
    try:
        value = yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _refuse_many(value)
    return value


def _refuse_deep(text: str) -> None:
    """Before libyaml sees it: a level of nesting takes a bracket, an indicator in its line, or a wider indentation."""
    if len(text) > LARGEST_YAML:
        raise ValueError(f"{len(text)} characters, and {LARGEST_YAML} are the most")
    depth = deepest = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if found[0] in "[{" else -1))
        deepest = max(deepest, depth)
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip(" "))
        deepest = max(deepest, indentation + (len(_LEVELS.findall(line)) if indentation + len(line) > DEEPEST else 0))
    if deepest > DEEPEST:
        raise ValueError("nested too deeply")


def _refuse_many(value: Any) -> None:
    """Walk as whoever uses the value will: what an alias stands for counts each time."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        inner = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else []
        count += len(inner)
        if count > MOST:
            raise ValueError(f"more than {MOST} values")
        waiting += inner
