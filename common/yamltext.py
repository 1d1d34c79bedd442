"""YAML, read in one place: as plain data, by libyaml where PyYAML was built with it, else in Python to the same end."""

import re
from typing import Any

import yaml

from common.errors import UserError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""Neither makes an object of anything but YAML's own kinds, nor looks into the text of a string."""
DEEPEST = 200
"""Brackets in brackets."""


def load(text: str | bytes, where: object) -> Any:
    """What `text` says; bytes are UTF-8.

    Raises:
        UserError: it is not YAML; `where` it stands begins the message.
    """
    depth = 0
    for bracket in re.findall(rb"[\[{\]}]", text.encode(errors="replace") if isinstance(text, str) else text):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:  # libyaml's time grows with the third power of the depth
            raise UserError(f"{where}: not YAML (brackets in brackets, more than {DEEPEST} deep); mend it")
    try:
        return yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not YAML ({' '.join(str(error).split())}); mend it") from error
