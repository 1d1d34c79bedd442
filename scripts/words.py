"""What the commands of this folder share: their key=value words, and mistakes as one line with an exit code."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from common.errors import UserError

USER_ERROR = 2
"""Exit code of a mistake in what the user gave."""


def values_of(words: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
    """The values of key=value words by their keys; of a key that comes again the last.

    Raises:
        UserError: a word of another form, or with none of the `keys`.
    """
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            raise UserError(f"{word}: write {', '.join(f'{name}=<...>' for name in keys)}; --help shows examples")
        given[key] = value
    return given


@contextmanager
def mistakes_told(code: int = USER_ERROR) -> Iterator[None]:
    """Turn a `UserError` into its message and an exit code."""
    try:
        yield
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(code) from error
