"""The configuration of a run folder as typed objects, whoever wrote it."""

import re
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from common.fields import counts
from common.run.folder import read_config
from common.run.schema import to_typed

T = TypeVar("T")


def stored_config(folder: Path, schema: type[T]) -> T:
    """What the run in `folder` was trained with, as far as it can change a number.

    Nothing else of the file is obeyed: tracker, cache, folders, threads have the defaults of `schema` until the command
    that reads it says otherwise. Its texts are texts: `${oc.env:HOME}` stays what it is.

    Raises:
        UserError: there is no run, or its configuration is damaged or not of this version.
    """
    return to_typed(OmegaConf.create(_literal(_counting(read_config(folder), schema))), schema)


def _counting(config: dict[str, Any], schema: type, above: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        key = f"{above}{name}"
        if counts(key, schema):
            found[name] = _counting(value, schema, f"{key}.") if isinstance(value, dict) else value
    return found


def _literal(value: Any) -> Any:
    """The value with every `${` written so that OmegaConf takes it for two characters."""
    if isinstance(value, dict):
        return {name: _literal(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_literal(each) for each in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
