"""Folders that are whole or not there: written beside their place, then swapped with what is there.

On Linux the two names change places in one call. Elsewhere what is there is put aside first, under a name by which
`recover` finds it if the writer is killed before the new one is in place.
"""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from common.run.files import held, hidden, make_folder, named, remove_temporaries, sync_folder, temporary_beside

ASIDE = ".aside-"
"""Part of the name of a folder that was put aside."""
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
T = TypeVar("T")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path`, and of all that is there, when the block has ended without an error.

    The names in it are synced, its files are the caller's to sync (`sync_tree`).

    Raises:
        OSError: the disk is full or the place not writable; `path` is as before and nothing temporary is left.
    """
    path = path.resolve() if path.is_symlink() else path
    make_folder(path.parent)
    remove_temporaries(path.parent, path.name)
    recover(path)
    temporary, descriptor = held(path, _new_folder)
    try:
        yield temporary
        sync_folder(temporary)
        _put_in_place(temporary, path)
        sync_folder(path.parent)
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)  # after an exchange it holds what was there before


def recover(path: Path) -> None:
    """Put the folder `path` back if a writer was killed while it was put aside; before it is read or written."""
    for aside in named(path.parent, f"{hidden(path)}{ASIDE}"):
        if os.path.lexists(path):
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.rename(aside, path)


def unchanged(path: Path, read: Callable[[], T]) -> T:
    """What `read` finds in the folder `path`, of one and the same folder: again if another took its place meanwhile."""
    while True:
        before = _identity(path)
        try:
            found = read()
        except Exception:
            if _identity(path) == before:
                raise
            continue
        if _identity(path) == before:
            return found


def discard(path: Path) -> None:
    """Delete the folder `path`; killed meanwhile, no half of it is left under its name.

    Raises:
        OSError: it cannot be renamed; it is as before.
    """
    temporary = temporary_beside(path)
    os.replace(path, temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places in one call of the system (Linux).

    Raises:
        OSError: there is no such call here (ENOSYS), or the file system does not know it (EINVAL).
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one)) from None
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino


def _new_folder(path: Path) -> int:
    os.mkdir(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.rmdir(path)
        raise


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder to `path`; what is there gets the temporary name, or is put aside and deleted."""
    for _ in range(100):  # others may do the same
        try:
            os.rename(temporary, path)
            return
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        try:
            exchange(temporary, path)
            return
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in NO_EXCHANGE:
                raise
        aside = path.with_name(f"{hidden(path)}{ASIDE}{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError as error:
            recover(path)
            if error.errno not in TAKEN:
                raise
            continue
        sync_folder(path.parent)
        recover(path)
        return
    raise OSError(errno.EBUSY, "others keep writing it", str(path))
