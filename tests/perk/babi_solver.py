"""Answers bAbI tasks 1 to 5 from facts alone, written without a look at the builder: the oracle of these tests."""

import re
from collections.abc import Sequence

MOVE = re.compile(r"^(\w+) (?:moved|went|went back|journeyed|travelled) to the (\w+)\.$")
GET = re.compile(r"^(\w+) (?:got|took|grabbed|picked up) the (\w+)(?: there)?\.$")
DROP = re.compile(r"^(\w+) (?:dropped|left|put down|discarded) the (\w+)(?: there)?\.$")
GIVE = re.compile(r"^(\w+) (?:gave|handed|passed) the (\w+) to (\w+)(?: there)?\.$")
SIDE = re.compile(r"^The (\w+) is (north|south|east|west) of the (\w+)\.$")
INVERSE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def solve(question: str, facts: Sequence[str]) -> str | None:
    """The answer, None where the facts do not give it.

    Raises:
        ValueError: a fact or a question of no known form.
    """
    place: dict[str, str] = {}  # person -> room
    hands: dict[str, str] = {}  # thing -> person
    lies: dict[str, str] = {}  # thing -> room
    trail: dict[str, list[str]] = {}
    gifts: list[tuple[str, str, str]] = []
    sides: list[tuple[str, str, str]] = []
    for fact in facts:
        if found := MOVE.match(fact):
            place[found[1]] = found[2]
        elif found := GET.match(fact):
            hands[found[2]] = found[1]
            if found[1] in place:
                lies.pop(found[2], None)
        elif found := DROP.match(fact):
            hands.pop(found[2], None)
            if found[1] in place:
                lies[found[2]] = place[found[1]]
        elif found := GIVE.match(fact):
            gifts.append((found[1], found[2], found[3]))
            hands[found[2]] = found[3]
        elif found := SIDE.match(fact):
            sides += [(found[1], found[2], found[3]), (found[3], INVERSE[found[2]], found[1])]
        else:
            raise ValueError(f"no fact: {fact!r}")
        for thing in {*hands, *lies}:
            room = place.get(hands.get(thing, ""), lies.get(thing))
            steps = trail.setdefault(thing, [])
            if room is not None and (not steps or steps[-1] != room):
                steps.append(room)
    return _answer(question, place, trail, gifts, sides)


def _answer(
    question: str,
    place: dict[str, str],
    trail: dict[str, list[str]],
    gifts: list[tuple[str, str, str]],
    sides: list[tuple[str, str, str]],
) -> str | None:
    if found := re.match(r"^Where is (\w+)\?$", question):
        return place.get(found[1])
    if found := re.match(r"^Where is the (\w+)\?$", question):
        return trail.get(found[1], [None])[-1]  # type: ignore[list-item]
    if found := re.match(r"^Where was the (\w+) before the (\w+)\?$", question):
        steps = trail.get(found[1], [])
        visits = [number for number, room in enumerate(steps) if room == found[2] and number]
        return steps[visits[-1] - 1] if visits else None
    forms = (
        (r"^What did (?P<a>\w+) give to (?P<c>\w+)\?$", 1),
        (r"^Who did (?P<a>\w+) give the (?P<b>\w+) to\?$", 2),
        (r"^Who gave the (?P<b>\w+) to (?P<c>\w+)\?$", 0),
        (r"^Who gave the (?P<b>\w+)\?$", 0),
        (r"^Who received the (?P<b>\w+)\?$", 2),
    )
    for form, wanted in forms:
        if found := re.match(form, question):
            given = found.groupdict()
            for gift in reversed(gifts):
                if all(given.get(name, part) == part for name, part in zip("abc", gift, strict=True)):
                    return gift[wanted]
            return None
    if found := re.match(r"^What is (\w+) of the (\w+)\?$", question):
        return next((x for x, side, y in sides if (side, y) == (found[1], found[2])), None)
    if found := re.match(r"^What is the (\w+) (\w+) of\?$", question):
        return next((y for x, side, y in sides if (x, side) == (found[1], found[2])), None)
    raise ValueError(f"no question: {question!r}")
