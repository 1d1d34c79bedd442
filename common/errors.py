"""The errors a user is meant to read."""

from collections.abc import Sequence


class UserError(Exception):
    """Something the user gave (a key, a file, a line, a weight) cannot be used.

    The message is complete in itself: where (`file:line` or the configuration key), which value was found, what was
    expected, and the way out. Entry points print it without a stack trace, so whoever raises it writes for a reader
    who has not seen the code. Mistakes of the code itself stay `ValueError` and the like.
    """


class DamagedError(UserError):
    """What is on the disk is provably not what was written, so that an earlier one may take its place.

    An error of reading (of the device, the network, rights, memory) proves nothing: that is a plain `UserError`.
    """


class SweepError(UserError):
    """Some runs of a sweep did not finish; `lines` says which and why."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__("\n  ".join([f"{message}; the same command tries them again and skips the others", *lines]))
        self.lines = list(lines)
