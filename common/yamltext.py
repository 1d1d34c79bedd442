"""YAML, read in one place: as plain data, by libyaml where PyYAML was built with it, else in Python to the same end.

libyaml recurses without a limit, in time that grows with the third power of the depth, so that text of brackets alone
would end the process; and a few aliases can stand for any number of values. Both are refused.
"""

import re
from typing import Any

import yaml

from common.errors import UserError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""Neither makes an object of anything but YAML's own kinds, nor looks into the text of a string."""
DEEPEST, MOST, LONGEST = 200, 1_000_000, 8_000_000
"""Levels of nesting; values, what an alias stands for counted wherever it stands; and bytes."""
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
    _refuse_deep(text.encode(errors="replace") if isinstance(text, str) else text)
    try:
        value = yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
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
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip(b" "))
        if indentation > DEEPEST or (len(line) > 2 * DEEPEST and len(_INDICATORS.findall(line)) > DEEPEST):
            raise ValueError(f"more than {DEEPEST} levels in a line")


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
