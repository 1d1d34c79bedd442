"""Whether an answer is right: the paper's exact and substring match, and BABILong's own metric."""

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(said: str, answers: Sequence[str]) -> bool:
    """Does the answer equal an accepted one, both in their normal form?"""
    return normalise(said) in map(normalise, answers)


def substring_match(said: str, answers: Sequence[str]) -> bool:
    """Does the answer hold an accepted one, both in their normal form? Long answers match easily, and an accepted one
    that has no normal form (`The The`) never does."""
    return any(form in normalise(said) for form in filter(None, map(normalise, answers)))


def label_match(said: str, answer: str, question: str, labels: Sequence[str]) -> bool:
    """The official BABILong metric: of all the task's labels that the question does not name, the first sentence said
    names the right one and no other."""
    first = said.lower().split(".")[0]
    open_ones = [label.lower() for label in labels if label.lower() not in question.lower()]
    return [label for label in open_ones if label in first] == [answer.lower()]
