"""The family that stories are told about: a couple, their four married children, four children of each of those.

Only the genders differ from story to story. Relations are read off parents and spouses, not composed.
"""

import random
from collections.abc import Sequence
from functools import cache

from reckoning.clutrr.kinship import FORMS, GENDERS, RULES, WORDS

SPOUSE = {0: 1, 1: 0, **{child: child + 4 for child in range(2, 6)}, **{child + 4: child for child in range(2, 6)}}
"""0 and 1 are the founders, 2 to 5 their children, 6 to 9 whom those married."""
PARENTS = {
    **{child: (0, 1) for child in range(2, 6)},
    **{10 + 4 * branch + place: (2 + branch, 6 + branch) for branch in range(4) for place in range(4)},
}
PERSONS = range(26)
ALIKE = (0, 1, 2, 6, 10)
"""One of each kind of person; all others are like one of these."""
Person = int
Genders = Sequence[int]
"""Person -> index into `GENDERS`."""


def draw_genders(rng: random.Random) -> Genders:
    """Genders of all persons, those of a couple different."""
    genders = [rng.randrange(2) for _ in PERSONS]
    for person in (0, *range(2, 6)):
        genders[SPOUSE[person]] = 1 - genders[person]
    return genders


def word(one: Person, other: Person, genders: Genders) -> str:
    """What `other` is to `one`; the two must be related."""
    return FORMS[relations()[one, other]][genders[other]]


@cache
def relations() -> dict[tuple[Person, Person], str]:
    """(one, other) -> what the other is to the one, without gender, for all that one of the 22 words covers."""
    pairs = ((one, other) for one in PERSONS for other in PERSONS if one != other)
    return {pair: found for pair in pairs if (found := _relation(*pair))}


def _relation(one: Person, other: Person) -> str | None:
    upwards, downwards = PARENTS.get(one, ()), PARENTS.get(other, ())
    partner, theirs = SPOUSE.get(one, -1), SPOUSE.get(other, -1)
    cases = {
        "spouse": partner == other,
        "parent": other in upwards,
        "child": one in downwards,
        "sibling": _siblings(one, other),
        "grandparent": any(other in PARENTS.get(parent, ()) for parent in upwards),
        "grandchild": any(one in PARENTS.get(parent, ()) for parent in downwards),
        "pibling": any(_siblings(other, parent) for parent in upwards),
        "nibling": any(_siblings(one, parent) for parent in downwards),
        "parent_in_law": other in PARENTS.get(partner, ()),
        "child_in_law": one in PARENTS.get(theirs, ()),
        "sibling_in_law": _siblings(partner, other) or _siblings(one, theirs),
    }
    return next((name for name, holds in cases.items() if holds), None)


def _siblings(one: Person, other: Person) -> bool:
    return one != other and one in PARENTS and PARENTS[one] == PARENTS.get(other)


@cache
def pairs_of(relation: str) -> list[tuple[Person, Person]]:
    """All pairs so related."""
    return [pair for pair, found in relations().items() if found == relation]


@cache
def between(one: Person, other: Person) -> list[Person]:
    """Persons through whom one of CLUTRR's compositions gives what `other` is to `one`."""
    known = relations()
    return [third for third in PERSONS if (known.get((one, third)), known.get((third, other))) in RULES]


def chain(relation: str, gender: str, hops: int, genders: Genders, rng: random.Random) -> list[Person] | None:
    """`hops` + 1 different persons, each related to the next, the last a `relation` of that gender to the first.

    It grows by putting a person between two neighbours, in a random place. None where this cannot go on.
    """
    ends = [pair for pair in pairs_of(relation) if GENDERS[genders[pair[1]]] == gender]
    if not ends:
        return None
    persons = list(rng.choice(ends))
    while len(persons) <= hops:
        places = [
            (place, third)
            for place, (one, other) in enumerate(zip(persons, persons[1:], strict=False), 1)
            for third in between(one, other)
            if third not in persons
        ]
        if not places:
            return None
        persons.insert(*rng.choice(places))
    return persons


def can_happen(path: Sequence[str], answer: str) -> bool:
    """Could `chain` grow different persons related by these words, the last the `answer` of the first?"""

    def go_on(persons: list[Person], genders: dict[Person, str]) -> bool:
        if len(persons) > len(path):
            return relations().get((persons[0], persons[-1])) == WORDS[answer][0] and _grows(persons)
        relation, gender = WORDS[path[len(persons) - 1]]
        unlike = GENDERS[1 - GENDERS.index(gender)]
        return any(
            go_on([*persons, other], {**genders, other: gender, SPOUSE.get(other, -1): unlike})
            for other in PERSONS
            if other not in persons
            and relations().get((persons[-1], other)) == relation
            and genders.get(other, gender) == gender
        )

    return any(go_on([first], {}) for first in ALIKE)


def _grows(persons: Sequence[Person]) -> bool:
    inner = range(1, len(persons) - 1)
    return not inner or any(
        persons[place] in between(persons[0], persons[-1]) and _grows(persons[: place + 1]) and _grows(persons[place:])
        for place in inner
    )
