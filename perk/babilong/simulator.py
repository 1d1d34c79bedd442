"""Worlds of our own in which persons move, carry and give things; told and asked in bAbI's words.

`tell` is a pure function of its arguments. A story belongs to the split that its sentences' digest falls to, so no two
splits tell the same story, whatever the seed.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.data.splits import belongs
from common.errors import UserError
from perk.babilong.config import WorldConfig
from perk.babilong.stories import Asked, Story
from perk.babilong.vocabulary import (
    DROPS,
    GETS,
    GIVERS,
    GIVES,
    MOVES,
    OBJECTS,
    OPPOSITE,
    PERSONS,
    PLACES,
)

ATTEMPTS = 2_000
FACTS = {1: (2, 10), 2: (4, 24), 3: (8, 40), 4: (2, 2), 5: (4, 24)}
"""Fewest and most facts of a story, near to what bAbI has."""


def tell(config: WorldConfig, task: int, seed: int, split: str, index: int, questions: int = 1) -> Story:
    """Story number `index` of a split, all its questions at the end and different from each other.

    `questions`: how many; 0 is every one that the story answers, at least one.

    Raises:
        UserError: so many questions cannot be asked of such stories.
    """
    low, high = config.facts or FACTS[task]
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed}/{split}/{index}/{attempt}/story")
        facts, candidates = (
            _directions(config, rng) if task == 4 else _events(config, task, rng, rng.randint(low, high))
        )
        if not belongs("\n".join(facts), split):
            continue
        rng.shuffle(candidates)
        different = list({asked.text: asked for asked in candidates}.values())
        chosen = different[: questions or None]
        if len(chosen) >= max(1, questions):
            return Story(tuple(facts), tuple(chosen))
    raise UserError(
        f"data.questions={questions}: no story of task {task} with {low} to {high} facts answers so many; "
        "ask fewer, or raise data.babilong.world.facts"
    )


def _directions(config: WorldConfig, rng: random.Random) -> tuple[list[str], list[Asked]]:
    """Two statements about three rooms on a line or around a corner, and what follows from either (task 4)."""
    a, b, c = rng.sample(PLACES[: config.places], 3)
    first = rng.choice(list(OPPOSITE))
    second = rng.choice([side for side in OPPOSITE if side != OPPOSITE[first]])
    # a is `first` of b; b is `second` of c, so a and c are never both on one side of b
    stated = [(a, first, b), (b, second, c)]
    told = [_either_way(*each, rng) for each in stated]
    order = rng.sample((0, 1), 2)
    facts = [f"The {told[place][0]} is {told[place][1]} of the {told[place][2]}." for place in order]
    asked = []
    for line, place in enumerate(order):
        for x, side, y in (stated[place], (stated[place][2], OPPOSITE[stated[place][1]], stated[place][0])):
            asked.append(Asked(f"What is {side} of the {y}?", x, (line,), 2))
            asked.append(Asked(f"What is the {x} {side} of?", y, (line,), 2))
    return facts, asked


def _either_way(x: str, side: str, y: str, rng: random.Random) -> tuple[str, str, str]:
    return (x, side, y) if rng.random() < 0.5 else (y, OPPOSITE[side], x)


@dataclass(frozen=True)
class Visit:
    """A thing came to a place that the reader knows."""

    place: str
    support: tuple[int, ...]
    """Why it is there."""
    before: str | None
    """Where it was until then, if it was carried from a place that the reader knows."""
    whole: tuple[int, ...] = ()
    """Why it is there, and why it was there before."""


@dataclass(frozen=True)
class Giving:
    """A gift."""

    giver: str
    thing: str
    receiver: str
    fact: int


class _World:
    """What is so, and what of it a reader knows."""

    def __init__(self, config: WorldConfig, task: int, rng: random.Random) -> None:
        self.rng, self.task = rng, task
        self.persons = (GIVERS if task == 5 else PERSONS)[: config.persons]
        self.places, self.objects = PLACES[: config.places], OBJECTS[: config.objects]
        self.at = {person: rng.choice(self.places) for person in self.persons}
        self.lies = {thing: rng.choice(self.places) for thing in self.objects}
        self.holder: dict[str, str] = {}
        self.moved: dict[str, int] = {}  # last fact that says where a person is
        self.taken: dict[str, int] = {}  # fact by which the holder has a thing
        self.visits: dict[str, list[Visit]] = {thing: [] for thing in self.objects}
        self.givings: list[Giving] = []
        self.facts: list[str] = []

    def step(self) -> None:
        """Let one thing happen."""
        doings: list[Callable[[], str | None]] = [self._move, self._move, self._move]
        if self.task > 1:
            doings += [self._get, self._get, self._drop]
        if self.task == 5:
            doings += [self._give, self._give]
        self.rng.shuffle(doings)
        for doing in doings:
            if (told := doing()) is not None:
                self.facts.append(told)
                return

    def _move(self) -> str:
        person = self.rng.choice(self.persons)
        left, known = self.at[person], person in self.moved
        place = self.rng.choice([place for place in self.places if place != left])
        here, before = len(self.facts), self.moved.get(person)
        self.at[person], self.moved[person] = place, here
        for thing in self._carried(person):
            support = (self.taken[thing], here)
            whole = (*support, before) if before is not None else ()
            self.visits[thing].append(Visit(place, support, left if known else None, whole))
        return f"{person} {self.rng.choice(MOVES)} the {place}."

    def _get(self) -> str | None:
        pairs = [(p, t) for p in self.persons for t in self.objects if t in self.lies and self.lies[t] == self.at[p]]
        if not pairs:
            return None
        person, thing = self.rng.choice(pairs)
        here = len(self.facts)
        del self.lies[thing]
        self.holder[thing], self.taken[thing] = person, here
        self._stays(thing, person)
        return f"{person} {self.rng.choice(GETS)} the {thing}{self._there()}."

    def _drop(self) -> str | None:
        if not self.holder:
            return None
        thing = self.rng.choice(sorted(self.holder))
        person = self.holder.pop(thing)
        self.lies[thing], self.taken[thing] = self.at[person], len(self.facts)
        self._stays(thing, person)
        return f"{person} {self.rng.choice(DROPS)} the {thing}{self._there()}."

    def _give(self) -> str | None:
        pairs = [
            (person, thing, other)
            for thing, person in sorted(self.holder.items())
            for other in self.persons
            if other != person and self.at[other] == self.at[person]
        ]
        if not pairs:
            return None
        person, thing, other = self.rng.choice(pairs)
        self.givings.append(Giving(person, thing, other, len(self.facts)))
        self.holder[thing], self.taken[thing] = other, len(self.facts)
        return f"{person} {self.rng.choice(GIVES)} the {thing} to {other}{self._there()}."

    def _stays(self, thing: str, person: str) -> None:
        """The thing does not move, but its place may become known, or known for another reason."""
        if (since := self.moved.get(person)) is None:
            return
        support, visits = (len(self.facts), since), self.visits[thing]
        if visits and visits[-1].place == self.at[person]:
            visits[-1] = Visit(visits[-1].place, support, visits[-1].before, visits[-1].whole)
        else:
            visits.append(Visit(self.at[person], support, None))

    def _carried(self, person: str) -> list[str]:
        return [thing for thing, holder in self.holder.items() if holder == person]

    def _there(self) -> str:
        return " there" if self.rng.random() < 0.2 else ""

    def asked(self) -> Iterator[Asked]:
        """Every question that the facts told so far answer."""
        told = len(self.facts)
        if self.task == 1:
            for person, fact in self.moved.items():
                yield Asked(f"Where is {person}?", self.at[person], (fact,), told)
        elif self.task == 2:
            for thing, visits in self.visits.items():
                if visits:
                    yield Asked(f"Where is the {thing}?", visits[-1].place, visits[-1].support, told)
        elif self.task == 3:
            yield from self._places_before(told)
        else:
            yield from self._gifts(told)

    def _places_before(self, told: int) -> Iterator[Asked]:
        for thing, visits in self.visits.items():
            seen = [visit.place for visit in visits]
            for place, visit in enumerate(visits):
                if visit.before is not None and seen.count(visit.place) == 1 and place:
                    question = f"Where was the {thing} before the {visit.place}?"
                    yield Asked(question, visit.before, visit.whole, told)

    def _gifts(self, told: int) -> Iterator[Asked]:
        latest: dict[str, tuple[str, int]] = {}
        for giving in self.givings:
            giver, thing, receiver = giving.giver, giving.thing, giving.receiver
            latest |= {
                f"What did {giver} give to {receiver}?": (thing, giving.fact),
                f"Who did {giver} give the {thing} to?": (receiver, giving.fact),
                f"Who gave the {thing} to {receiver}?": (giver, giving.fact),
                f"Who gave the {thing}?": (giver, giving.fact),
                f"Who received the {thing}?": (receiver, giving.fact),
            }
        for question, (answer, fact) in latest.items():
            yield Asked(question, answer, (fact,), told)


def _events(config: WorldConfig, task: int, rng: random.Random, count: int) -> tuple[list[str], list[Asked]]:
    world = _World(config, task, rng)
    for _ in range(count):
        world.step()
    return world.facts, list(world.asked())
