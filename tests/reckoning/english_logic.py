"""An oracle that shares no code with the package: it reads sentences, not representations, and grounds every rule.

Literals are (subject, verb, object, positive) with the verb's base form; a rule is (conditions, conclusion) with
`X` for its variable.
"""

import re
from collections.abc import Iterable

Lit = tuple[str, str, str, bool]
Implication = tuple[tuple[Lit, ...], Lit]

PRONOUNS = {"someone", "something", "they", "it"}


def _name(phrase: str) -> str:
    phrase = phrase.removeprefix("the ").removeprefix("The ")
    return "X" if phrase in PRONOUNS else phrase


def _clause(text: str) -> Lit:
    if match := re.fullmatch(r"(.+?) (?:is|are) (not )?(\w+)", text):
        return _name(match[1]), "is", match[3], match[2] is None
    if match := re.fullmatch(r"(.+?) (?:does|do) not (\w+) (the .+|\w+)", text):
        return _name(match[1]), match[2], _name(match[3]), False
    if match := re.fullmatch(r"(.+) (\w+) (the .+|[A-Z]\w+)", text):
        return _name(match[1]), match[2].removesuffix("s"), _name(match[3]), True
    raise AssertionError(f"cannot read {text!r}")


def read(sentence: str) -> Implication:
    """A fact is a rule without conditions."""
    text = sentence.strip().removesuffix(".")
    text = re.sub(r"^(It is known that|It is certain that|Everyone can see that) ", "", text)
    if match := re.fullmatch(r"If (.+) then (.+)", text) or re.fullmatch(r"Whenever (.+), (.+)", text):
        conditions: list[Lit] = []
        for piece in match[1].split(" and "):
            if re.fullmatch(r"(not )?\w+", piece):  # "red and not big": the subject is the one before
                piece = f"{conditions[-1][0].replace('X', 'it')} is {piece}"
            conditions.append(_clause(piece))
        return tuple(conditions), _clause(match[2])
    if match := re.fullmatch(r"(?:All )?(\w+(?:, \w+)*) (?:people|things) (.+)", text):
        return tuple(("X", "is", word.lower(), True) for word in match[1].split(", ")), _clause(f"it {match[2]}")
    return (), _clause(text)


def grounded(implications: Iterable[Implication]) -> list[Implication]:
    implications = list(implications)
    literals = [literal for conditions, head in implications for literal in (*conditions, head)]
    names = {s for s, *_ in literals} | {o for _, verb, o, _ in literals if verb != "is"}

    def put(literal: Lit, name: str) -> Lit:
        subject, verb, thing, positive = literal
        return name if subject == "X" else subject, verb, name if thing == "X" else thing, positive

    every = {
        (tuple(put(condition, name) for condition in conditions), put(head, name)): None
        for conditions, head in implications
        for name in names - {"X"}
    }
    return list(every)


def _rounds(implications: list[Implication]) -> dict[Lit, int]:
    """Round in which each literal first follows; a fact follows in round 0."""
    known = {head: 0 for conditions, head in implications if not conditions}
    number = 0
    while True:
        number += 1
        new = {head for conditions, head in implications if all(c in known for c in conditions)} - set(known)
        if not new:
            return known
        known |= dict.fromkeys(new, number)


def consequences(sentences: Iterable[str], open_world: bool = True) -> dict[Lit, int]:
    """Everything that follows, with the least number of rule applications in a row.

    Closed world: the well-founded model by the alternating fixpoint, which knows no strata.
    """
    implications = grounded(map(read, sentences))
    if open_world:
        return _rounds(implications)

    given = ("", "", "", True)  # what remains of a rule whose conditions are all negated still takes a round

    def reduct(model: Iterable[Lit]) -> list[Implication]:
        model = set(model)
        kept: list[Implication] = [((), given)]
        for conditions, head in implications:
            if not any((*c[:3], True) in model for c in conditions if not c[3]):
                kept.append((tuple(c if c[3] else given for c in conditions), head))
        return kept

    low: dict[Lit, int] = {}
    while True:
        high = _rounds(reduct(low))
        after = _rounds(reduct(high))
        if set(after) == set(low):
            assert set(low) == set(high), "the well-founded model is not total"
            return low
        low = after


def truth(question: str, model: dict[Lit, int], open_world: bool = True) -> str:
    _, (subject, verb, thing, positive) = read(question)
    if (subject, verb, thing, positive) in model:
        return "true"
    if (subject, verb, thing, not positive) in model:
        return "false"
    if open_world:
        return "unknown"
    return "false" if positive else "true"
