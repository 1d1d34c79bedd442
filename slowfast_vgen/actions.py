"""Actions in free text and their ids; 0 is the null action, of clips without a command (sheet 1.3)."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import UserError

NULL = 0
NEAR = 0.5
"""How like a known action an unknown one is, from 0 to 1, to be named in the message."""


@dataclass(frozen=True)
class Actions:
    """What can be asked of a world; the names have ids from 1 in their order."""

    names: tuple[str, ...]
    inverses: Mapping[str, str] = field(default_factory=dict)
    """Name -> the action that takes it back exactly; an action without one has no entry."""

    def __post_init__(self) -> None:
        """Refuse names that are one up to case and blanks.

        Raises:
            UserError: two are, or one is blank.
        """
        plain = [normal(name) for name in self.names]
        if "" in plain or len(set(plain)) < len(plain):
            twice = next((name for name in plain if not name or plain.count(name) > 1), "")
            raise UserError(f"actions: {twice!r} is blank or stands twice in {', '.join(self.names)}; name each once")

    @property
    def count(self) -> int:
        """Ids in all, with the null action."""
        return len(self.names) + 1

    def id(self, text: str) -> int:
        """The id of an action, whatever its case and blanks; of an empty text the null action's.

        Raises:
            UserError: nobody declared it; the message names the closest one.
        """
        asked = normal(text)
        known = {"": NULL, **{normal(name): place for place, name in enumerate(self.names, 1)}}
        if asked not in known:
            near = difflib.get_close_matches(asked, known, n=1, cutoff=NEAR)
            meant = f"did you mean {self.text(known[near[0]])!r}? " if near else ""
            raise UserError(f"action {text!r} is unknown: {meant}known are {', '.join(self.names)}")
        return known[asked]

    def text(self, id: int) -> str:
        """The name of an id; of the null action an empty text."""
        return "" if id == NULL else self.names[id - 1]

    def inverse(self, id: int) -> int:
        """The id that takes an action back; the null action is its own.

        Raises:
            UserError: the action has none.
        """
        name = self.text(id)
        if name and name not in self.inverses:
            raise UserError(f"action {name!r} has no inverse; those with one are {', '.join(self.inverses) or 'none'}")
        return self.id(self.inverses[name]) if name else NULL


def normal(text: str) -> str:
    """A text by which actions are compared: small letters, single blanks."""
    return " ".join(text.lower().split())


def paired(*pairs: tuple[str, str]) -> Actions:
    """Actions of which each two take one another back."""
    inverses = {name: other for pair in pairs for name, other in (pair, pair[::-1])}
    return Actions(tuple(name for pair in pairs for name in pair), inverses)
