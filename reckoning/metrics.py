"""Label accuracy and fact recall as the released code defines them, and stricter companions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.language import normal

SPLIT_HYPHEN = re.compile(r"(?<=\w) ?- ?(?=\w)")
"""A word-piece decoder puts blanks around the hyphens of mother-in-law."""


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks; parts joined by hyphens become one word."""
    return normal.normalise(SPLIT_HYPHEN.sub("-", text.lower()))


def split_response(text: str, words: int = 1) -> tuple[str, str]:
    """(label, recited facts) of a response.

    The label is the text before "because"; without that word it is the first word, or the first `words` where the
    expected label has so many; either is cut at a comma.
    """
    before, because, after = SPLIT_HYPHEN.sub("-", text).partition("because")
    if not because:
        before = " ".join(before.split()[:words])
    return before.split(",")[0].strip(), after.strip()


@dataclass(frozen=True)
class Recall:
    """How one recitation compares with the relevant facts."""

    pieces: int
    """Pieces recited: what stands between commas and is not empty."""
    matching: int
    """Of these, the ones whose normal form is a substring of the normalised gold string. Summed over a data set,
    matching / pieces is the authors' number: short pieces match easily and missing facts cost nothing."""
    precision: float
    """Share of the recited set that is relevant; 0 where nothing was recited."""
    recall: float
    """Share of the relevant set that was recited."""
    exact: bool
    """The recited set equals the relevant set."""


def recall_of(recited: str, facts: Sequence[str]) -> Recall:
    """Compare the recited string with the relevant `facts`.

    The set-level numbers look for whole facts in the recitation, so that facts that contain a comma are not cut in
    two; every piece that belongs to no whole fact counts as a wrong one.
    """
    pieces = [normalise(piece) for piece in recited.split(",") if normalise(piece)]
    gold = normalise(", ".join(facts))
    wanted = {normalise(fact.replace(",", " ")) for fact in facts}
    found = _whole_facts(pieces, wanted)
    hits = len(found & wanted)
    return Recall(
        pieces=len(pieces),
        matching=sum(piece in gold for piece in pieces),
        precision=hits / len(found) if found else 0.0,
        recall=hits / len(wanted),
        exact=found == wanted,
    )


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
