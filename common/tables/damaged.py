"""A damaged run is named and left out, and does not end what is made of the others."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from common.errors import UserError

T = TypeVar("T")


class InFolder(Protocol):
    """What has a run folder."""

    @property
    def folder(self) -> Path:
        """The folder."""


R = TypeVar("R", bound=InFolder)


class DamagedRun(UserError):
    """A file of the run in `folder` cannot be read, or does not say what it should."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(reason if str(folder) in reason else f"{folder}: {reason}")
        self.folder = folder


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Within this block files of one run are read and taken apart: what goes wrong is a `DamagedRun`."""
    try:
        yield
    except DamagedRun:
        raise
    except (UserError, OSError) as error:
        raise DamagedRun(folder, str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DamagedRun(folder, f"damaged ({reason}); delete the folder and run again") from error


def left_out(line: object) -> None:
    """Name on standard error a run that is left out."""
    sys.stderr.write(f"left out: {line}\n")


def without_damaged(runs: Sequence[R], make: Callable[[list[R]], T]) -> T:
    """What `make` makes of the runs; of one that turns out to be damaged it is told, and all is made without it."""
    kept = list(runs)
    while True:
        try:
            return make(kept)
        except DamagedRun as error:
            if not any(run.folder == error.folder for run in kept):
                raise
            left_out(error)
            kept = [run for run in kept if run.folder != error.folder]
