"""YAML, read in one place: as plain data, by libyaml where PyYAML was built with it, else in Python to the same end.

libyaml recurses without a limit, in time that grows with the third power of the depth, so that text of brackets alone
would end the process; and a few aliases, or merge keys (`<<`), can stand for any number of values. All are refused.
"""

import re
from typing import Any

import yaml

from common.errors import UserError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""Neither makes an object of anything but YAML's own kinds, nor looks into the text of a string."""
DEEPEST, MOST, LONGEST = 200, 1_000_000, 8_000_000
"""Levels of nesting; values, what an alias stands for counted wherever it stands; and bytes."""
MERGE = "tag:yaml.org,2002:merge"
_BREAKS = re.compile(rb"\r|\n|\xc2\x85|\xe2\x80[\xa8\xa9]")
"""What YAML ends a line with, in UTF-8."""
_INDICATORS = re.compile(rb"[-?](?=[ \t])")


def load(text: str | bytes, where: object) -> Any:
    """What `text` says; bytes are UTF-8.

    Raises:
        UserError: it is not YAML; `where` it stands begins the message.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"{where}: not YAML ({error}); mend it") from error


def parse(text: str | bytes) -> Any:
    """What `text` says; bytes are UTF-8.

    Raises:
        ValueError: it is not YAML, nested too deeply, or too large.
    """
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    _refuse_deep(raw)
    try:
        if b"<<" in raw or b"merge" in raw:
            _refuse_merges(text)
        value = yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error  # `!!int ""` is an IndexError, `!!bool x` a KeyError
    _refuse_many(value)
    return value


def _refuse_deep(text: bytes) -> None:
    """Before libyaml sees it: a level takes a bracket, an indicator in its line, or a wider indentation."""
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} bytes, and {LONGEST} are the most")
    depth = 0
    for bracket in re.findall(rb"[\[{\]}]", text):
        depth = depth + 1 if bracket in b"[{" else max(0, depth - 1)
        if depth > DEEPEST:
            raise ValueError(f"brackets in brackets, more than {DEEPEST} deep")
    for line in _BREAKS.split(text):
        indentation = len(line) - len(line.lstrip(b" "))
        if indentation > DEEPEST or (len(line) > 2 * DEEPEST and len(_INDICATORS.findall(line)) > DEEPEST):
            raise ValueError(f"more than {DEEPEST} levels in a line")


def _refuse_merges(text: str | bytes) -> None:
    """Before any is carried out: nothing here writes them."""
    if any(isinstance(event, yaml.ScalarEvent) and _is_merge(event) for event in yaml.parse(text, LOADER)):
        raise ValueError("a merge key (<<); write its values out")


def _is_merge(event: yaml.ScalarEvent) -> bool:
    return event.tag == MERGE or (event.value == "<<" and event.implicit[0])


def _refuse_many(value: Any) -> None:
    """Walk as whoever uses the value will."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        inner = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else []
        count += len(inner)
        if count > MOST:
            raise ValueError(f"aliases that stand for more than {MOST} values")
        waiting += inner
