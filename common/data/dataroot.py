"""Where real data lie: `data.root`, or the environment variable INNERLOOP_DATA."""

import os
from pathlib import Path

from common.errors import UserError

ROOT_VARIABLE = "INNERLOOP_DATA"
ENDINGS = ("", ".gz", ".xz")


def find(root: str | None, name: str, remedy: str) -> Path:
    """The file or folder `name` below the data root, where the root may already be any folder on the way to it.

    A path that exists as it is needs no root. Files may be packed: .gz and .xz are tried besides the name itself.
    A star in its last part stands for any text, if one file alone fits.

    Raises:
        UserError: no root is known, or nothing of that name is there; `remedy` ends the message.
    """
    root = root or os.environ.get(ROOT_VARIABLE)
    direct = Path(name).expanduser()
    if direct.exists() and (direct.is_absolute() or root is None):
        return direct
    if root is None:
        raise UserError(
            f"data.root is not set and {name} is needed; set data.root=<folder> or the environment variable "
            f"{ROOT_VARIABLE}, or {remedy}"
        )
    parts = direct.parts
    for start in range(len(parts)):
        path = Path(root).expanduser() / Path(*parts[start:])
        for ending in ENDINGS:
            packed = path.with_name(path.name + ending)
            if packed.exists():
                return packed
            fitting = [path for path in packed.parent.glob(packed.name) if path.is_file()] if "*" in packed.name else []
            if len(fitting) == 1:
                return fitting[0]
    raise UserError(f"data.root={root}: {name} is not below it; put it there, or {remedy}")
