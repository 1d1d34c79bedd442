"""Label accuracy and fact recall as the sheet's section 4 defines them, and stricter companions."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def split_response(text: str) -> tuple[str, str]:
    """(label, recited facts) of a response.

    The label is the text before "because"; without that word it is the first word; either is cut at a comma.
    """
    before, because, after = text.partition("because")
    if not because:
        before = next(iter(text.split()), "")
    return before.split(",")[0].strip(), after.strip()


@dataclass(frozen=True)
class Recall:
    """How one recitation compares with the relevant facts."""

    published: float
    """Share of recited pieces (cut at commas) whose normal form is a substring of the gold string: the authors' number."""
    precision: float
    recall: float
    exact: bool
    """The recited set equals the relevant set."""


def recall_of(recited: str, facts: Sequence[str]) -> Recall:
    """Compare the recited string with the relevant `facts`.

    Set-level numbers look for whole facts in the recitation, so that facts that contain a comma are not cut in two;
    what is left over when all found facts are taken out counts as one wrong piece each.
    """
    pieces = [normalise(piece) for piece in recited.split(",") if normalise(piece)]
    gold = normalise(",".join(facts).replace(",", " , "))
    published = sum(piece in gold for piece in pieces) / len(pieces) if pieces else 0.0
    wanted = {normalise(fact) for fact in facts}
    found = _whole_facts(pieces, wanted)
    hits = len(found & wanted)
    precision = hits / len(found) if found else 0.0
    return Recall(published, precision, hits / len(wanted), found == wanted)


def _whole_facts(pieces: Sequence[str], wanted: set[str]) -> set[str]:
    """Pieces with neighbours joined again wherever together they are a wanted fact."""
    found: set[str] = set()
    position = 0
    while position < len(pieces):
        for stop in range(len(pieces), position, -1):
            joined = " ".join(pieces[position:stop])
            if joined in wanted or stop == position + 1:
                found.add(joined)
                position = stop
                break
    return found
