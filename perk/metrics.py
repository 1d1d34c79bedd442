"""Whether an answer is right: the paper's exact and substring match, and BABILong's own metric."""

from collections.abc import Sequence

from common.language.normal import normalise


def exact_match(said: str, answers: Sequence[str]) -> bool:
    """Does the answer equal an accepted one, both in their normal form? One that has none (`A`) is compared as it is,
    but for case."""
    plain = said.strip().lower()
    return any((normalise(said) == form) if (form := normalise(each)) else plain == each.lower() for each in answers)


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
