"""YAML, read in one place: as plain data, by libyaml where PyYAML was built with it, else in Python to the same end."""

from typing import Any

import yaml

from common.errors import UserError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""Neither makes an object of anything but YAML's own kinds, nor looks into the text of a string."""


def load(text: str | bytes, where: object) -> Any:
    """What `text` says; bytes are UTF-8.

    Raises:
        UserError: it is not YAML; `where` it stands begins the message.
    """
    try:
        return yaml.load(text, LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not YAML ({' '.join(str(error).split())}); mend it") from error
