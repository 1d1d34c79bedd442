"""What users' files get wrong and no parser notices: a key that stands twice, a misspelt field, a word spelt twice."""

import difflib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from common.errors import UserError

logger = logging.getLogger(__name__)
NEAR = 0.7
"""How like a known name a misspelt one is, from 0 to 1."""
SHOWN = 5
"""Places named in a message."""


class Refused(ValueError):
    """Well-formed JSON that is not read: the message says why and what to do."""


def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as `object_pairs_hook`.

    Raises:
        Refused: a key stands twice, of which a parser would keep the last; or a text holds what no text has.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(f"the key {twice!r} stands twice in one object; keep one of them")
    for name, value in pairs:
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and ("\0" in text or not text.isascii()):
                _check_text(name, text)
    return found


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise Refused(f"{name} holds a NUL character (\\u0000); remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(f"{name} holds half a character (\\ud800 to \\udfff); write the text anew") from None


def check_names(record: Mapping[str, Any], known: Collection[str], where: str, foreign: Mapping[str, str]) -> list[str]:
    """The names of fields that are not read. `foreign` are other words for known fields.

    Raises:
        UserError: one is most likely meant for a known field that is not there.
    """
    rest = [name for name in record if name not in known]
    absent = {name.lower(): name for name in known if name not in record}
    for name in rest:
        near = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=NEAR)
        meant = absent[near[0]] if near else foreign.get(name.lower())
        if meant is not None and meant not in record:
            raise UserError(f"{where}: unknown field {name!r}: did you mean {meant!r}? known are {', '.join(known)}")
    return rest


def name_of(value: Any, field: str, where: str) -> str | None:
    """An id or a key as text; None where the field is not there.

    Raises:
        UserError: neither a text with content nor a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise UserError(f"{where}: {field}={value!r} is neither a text nor a number; write one, or leave {field} out")
    return str(value)


class Unread:
    """Fields that a file has and that nobody reads: each is said once."""

    def __init__(self, path: object) -> None:
        self._path, self._said = path, set[str]()

    def tell(self, names: Iterable[str], line: int) -> None:
        """Warn of those that are new."""
        for name in names:
            if name not in self._said:
                self._said.add(name)
                logger.warning("%s:%d: field %r is not read", self._path, line, name)


class Spellings:
    """One spelling for what scoring takes for one: the first that was read."""

    def __init__(self, form: Callable[[str], str]) -> None:
        """`form` is what scoring compares."""
        self._form, self._first = form, dict[str, tuple[str, str]]()
        self._others: dict[tuple[str, str], list[str]] = defaultdict(list)

    def one(self, text: str, where: str) -> str:
        """The spelling of `text` that is kept; `where` it was read is remembered."""
        first, _ = self._first.setdefault(self._form(text), (text, where))
        if text != first:
            self._others[first, text].append(where)
        return first

    def tell(self, what: str) -> None:
        """Warn of the spellings that were merged."""
        for (first, text), places in self._others.items():
            more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
            logger.warning(
                "the %s %r (%s) is read as %r (%s first): scoring takes them for one; write it in one way",
                what, text, ", ".join(places[:SHOWN]) + more, first, self._first[self._form(first)][1],
            )  # fmt: skip
