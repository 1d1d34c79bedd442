"""An independent account of kinship: families of persons with parents, spouses and genders, read by definition."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import product

MALE = {
    "father": "mother", "son": "daughter", "brother": "sister", "husband": "wife", "grandfather": "grandmother",
    "grandson": "granddaughter", "uncle": "aunt", "nephew": "niece", "father-in-law": "mother-in-law",
    "son-in-law": "daughter-in-law", "brother-in-law": "sister-in-law",
}  # fmt: skip


class People:
    """Persons are numbers. Families marry into each other without ever closing a circle, so nobody is related twice."""

    def __init__(self, seed: int, couples: int = 9, children: int = 3) -> None:
        self.rng = random.Random(seed)
        self.male: list[bool] = []
        self.parents: dict[int, frozenset[int]] = {}
        self.spouse: dict[int, int] = {}
        circles = [self.children_of(self.born(True), self.born(False), children) for _ in range(couples)]
        while len(circles) > 1:
            self.rng.shuffle(circles)
            one, two = circles.pop(), circles.pop()
            pairs = [(a, b) for a, b in product(one, two) if self.male[a] != self.male[b]]
            pairs = [(a, b) for a, b in pairs if a not in self.spouse and b not in self.spouse]
            joined = [*one, *two]
            if pairs:
                joined += self.children_of(*self.rng.choice(pairs), children)
            circles.append(joined)

    def born(self, male: bool) -> int:
        self.male.append(male)
        return len(self.male) - 1

    def children_of(self, one: int, two: int, count: int) -> list[int]:
        self.spouse |= {one: two, two: one}
        born = [self.born(self.rng.random() < 0.5) for _ in range(count)]
        self.parents |= dict.fromkeys(born, frozenset((one, two)))
        return born

    def words(self) -> dict[tuple[int, int], str]:
        """(a, b) -> what b is to a, for all that one of the 22 words covers; nobody is two things to another."""
        found: dict[tuple[int, int], str] = {}
        up, spouse = self.parents, self.spouse
        children, siblings = defaultdict(set), defaultdict(set)
        for child, parents in up.items():
            for parent in parents:
                children[parent].add(child)
        for child, parents in up.items():
            siblings[child] = {other for parent in parents for other in children[parent]} - {child}
        for a in range(len(self.male)):
            above, below, beside = up.get(a, set()), children[a], siblings[a]
            partner = {spouse[a]} if a in spouse else set()
            relatives = {
                "father": above,
                "son": below,
                "brother": beside,
                "husband": partner,
                "grandfather": {g for p in above for g in up.get(p, ())},
                "grandson": {g for c in below for g in children[c]},
                "uncle": {u for p in above for u in siblings[p]},
                "nephew": {n for s in beside for n in children[s]},
                "father-in-law": {p for s in partner for p in up.get(s, ())},
                "son-in-law": {spouse[c] for c in below if c in spouse},
                "brother-in-law": {x for s in partner for x in siblings[s]}
                | {spouse[s] for s in beside if s in spouse},
            }
            for word, persons in relatives.items():
                for b in persons:
                    assert (a, b) not in found and a != b
                    found[a, b] = word if self.male[b] else MALE[word]
        return found


@cache
def seen() -> dict[tuple[str, str], frozenset[str | None]]:
    """(first, second) -> everything C was to A where B was the `first` of A and C the `second` of B."""
    result: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for seed in range(12):
        words = People(seed).words()
        of = defaultdict(list)
        for (a, b), word in words.items():
            of[a].append((b, word))
        for a, near in list(of.items()):
            for b, first in near:
                for c, second in of[b]:
                    if c != a:
                        result[first, second].add(words.get((a, c)))
    return {pair: frozenset(found) for pair, found in result.items()}


def endings(chain: Sequence[str], table: dict[tuple[str, str], str]) -> set[str]:
    """What a chain can come to by a table of pairs, cut in two in any place, and the parts again."""

    @cache
    def of(start: int, stop: int) -> set[str]:
        if stop - start == 1:
            return {chain[start]}
        halves = (product(of(start, middle), of(middle, stop)) for middle in range(start + 1, stop))
        return {table[pair] for pairs in halves for pair in pairs if pair in table}

    return of(0, len(chain))


SENTENCES = (
    re.compile(r"(?P<who>person \d+) is (a|the) (?P<word>[a-z-]+) of (?P<of>person \d+)"),
    re.compile(r"(?P<of>person \d+) has a (?P<word>[a-z-]+) called (?P<who>person \d+)"),
    re.compile(r"(?P<who>person \d+) is (?P<of>person \d+)'s (?P<word>[a-z-]+)"),
)


def understood(sentence: str) -> tuple[str, str, str]:
    """(of, word, who) of a generated sentence."""
    (match,) = [found for pattern in SENTENCES if (found := pattern.fullmatch(sentence))]
    return match["of"], match["word"], match["who"]
