"""What a shortcut can see of a kinship question without composing anything."""

from collections.abc import Sequence
from itertools import chain

from reckoning.clutrr.kinship import WORDS, words_in

NO_NAMES = frozenset("how is a an the to of who what whom person related from in for and s".split()) | {
    part for word in WORDS for part in word.split("-")
}


def kinship_features(asked: Sequence[str], facts: Sequence[str], sentences: Sequence[Sequence[str]]) -> dict[str, str]:
    """Features of a question by name; {} where no fact holds a kinship word.

    `asked` are the question's words in lower case, `sentences` those of the `facts`. The person asked for is the first
    in the question, the person asked against the last.
    """
    found = [words_in(fact) for fact in facts]
    if not any(found):
        return {}
    persons = _persons(asked, sentences)

    def beside(person: str) -> str:
        named = (words for words, sentence in zip(found, sentences, strict=True) if person in sentence)
        return " ".join(sorted(chain.from_iterable(named)))

    first, last = beside(persons[0]), beside(persons[-1])
    ending = first.split(" ")[0]
    return {
        "kin of the asked": first,
        "kin of the other": last,
        "gender of the asked": WORDS[ending][1] if ending in WORDS else "",
        "kin words": " ".join(sorted(chain.from_iterable(found))),
    }


def _persons(asked: Sequence[str], sentences: Sequence[Sequence[str]]) -> list[str]:
    """Words that tell the question's persons apart: a name, or the number in "person 3"."""
    known = {word for sentence in sentences for word in sentence}
    numbers = [word for word in asked if word.isdigit()]
    return numbers or [word for word in asked if word in known and word not in NO_NAMES] or [""]
