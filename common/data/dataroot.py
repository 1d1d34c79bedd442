"""Where real data lie: `data.root`, or the environment variable INNERLOOP_DATA."""

import os
from collections.abc import Iterable, Mapping, Sequence
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
    if (found := _there(root, name)) is not None:
        return found
    raise _missing(root, [name], remedy)


def check_all(root: str | None, names: Iterable[str], remedy: str, keys: Mapping[str, str] | None = None) -> None:
    """See that no two of the files and folders are missing: whoever reads one says so himself, with more about it.
    `keys` are the configuration keys of names that need no root.

    Raises:
        UserError: several are; it names them all, and `remedy` ends the message.
    """
    missing = [name for name in dict.fromkeys(names) if _there(root, name) is None]
    if len(missing) > 1:
        told = [f"{keys[name]}={name}" if keys and name in keys else name for name in missing]
        raise _missing(root, told, remedy)


def is_there(root: str | None, name: str) -> bool:
    """Would `find` find the file or folder?"""
    return _there(root, name) is not None


def _there(root: str | None, name: str) -> Path | None:
    root = root or os.environ.get(ROOT_VARIABLE)
    direct = Path(name).expanduser()
    if direct.exists() and (direct.is_absolute() or root is None):
        return direct
    if root is None:
        return None
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
    return None


def _missing(root: str | None, names: Sequence[str], remedy: str) -> UserError:
    root = root or os.environ.get(ROOT_VARIABLE)
    named, several = ", ".join(names), len(names) > 1
    if root is None:
        return UserError(
            f"data.root is not set and {named} {'are' if several else 'is'} needed; set data.root=<folder> or the "
            f"environment variable {ROOT_VARIABLE}, or {remedy}"
        )
    are, them = ("are", "them") if several else ("is", "it")
    return UserError(f"data.root={root}: {named} {are} not below it; put {them} there, or {remedy}")
