"""Facts into a haystack."""

import random
from collections import defaultdict
from collections.abc import Sequence

from perk.babilong.config import Index, Order, Placement
from perk.babilong.passage import Piece
from perk.babilong.vocabulary import actor_of

Place = tuple[int, int]
"""(segment, number of pieces of it that come before)."""
ZONE = 10
"""Fixed placements use one in so many segments."""


def indexed(facts: Sequence[str], index: Index) -> list[str]:
    """The facts with what stands before them. Facts without an actor are counted together, without a name."""
    seen: dict[str | None, int] = defaultdict(int)
    told = []
    for fact in facts:
        actor = actor_of(fact) if index is Index.character else None
        name = f"{actor} Event" if actor else "Event"
        told.append(fact if index is Index.none else f"{name} {seen[actor]}: {fact}")
        seen[actor] += 1
    return told


def allotted(
    facts: Sequence[str],
    costs: Sequence[int],
    count: int,
    segment: int,
    placement: Placement,
    order: Order,
    rng: random.Random,
) -> list[int] | None:
    """Which of `count` segments each fact goes to, so that none gets more than `segment` of their tokens, `costs`; None
    where they do not fit. With `order=story` they do not run backwards."""
    if placement is Placement.grouped:
        return _grouped(facts, costs, count, segment, rng)
    least = count if placement is Placement.scattered else max(1, count // ZONE)
    for width in range(least, count + 1):
        if (found := _spread(_zone(count, placement, width), costs, segment, order, rng)) is not None:
            return found
    return None


def within(
    segments: Sequence[Sequence[Piece]], numbers: Sequence[int], order: Order, rng: random.Random
) -> list[Place]:
    """A place for each fact in the segment that it goes to; with `order=story` they do not run backwards. Facts stand
    between sentences; those of a segment in which none ends stand at its beginning, which may be inside a sentence."""
    free = _free(segments)
    found = [(number, rng.choice(free[number])) for number in numbers]
    return sorted(found) if order is Order.story else found


def _spread(zone: range, costs: Sequence[int], segment: int, order: Order, rng: random.Random) -> list[int] | None:
    """A random segment of `zone` for each fact; where one is full, another that has room."""
    left = dict.fromkeys(zone, segment)
    if order is Order.drawn:
        found = []
        for cost in costs:
            fitting = [number for number in zone if left[number] >= cost]
            if not fitting:
                return None
            found.append(rng.choice(fitting))
            left[found[-1]] -= cost
        return found
    drawn = sorted(rng.choice(zone) for _ in costs)
    beyond = range(zone[0], zone[-1] + 1 + len(costs))
    forward = _pushed(drawn, costs, dict.fromkeys(beyond, segment))
    if forward is None or forward[-1] in zone:
        return forward
    # the last stand beyond the end: from there back towards the beginning
    last = zone[0] + zone[-1]
    backward = _pushed([last - min(zone[-1], number) for number in reversed(forward)], costs[::-1], left)
    return None if backward is None else [last - number for number in reversed(backward)]


def _pushed(numbers: Sequence[int], costs: Sequence[int], left: dict[int, int]) -> list[int] | None:
    """Segments that do not run backwards, each the first with room from the wanted one on; None beyond the last."""
    found = [min(left)]
    for number, cost in zip(numbers, costs, strict=True):
        number = max(number, found[-1])
        while number in left and left[number] < cost:
            number += 1
        if number not in left:
            return None
        left[number] -= cost
        found.append(number)
    return found[1:]


def _free(segments: Sequence[Sequence[Piece]]) -> list[list[int]]:
    """Where something may stand, a segment: behind every piece that ends a sentence, and at its beginning if the
    segment before ends one, or if this one has no other place."""
    free = []
    whole = True
    for segment in segments:
        ends = [place for place, piece in enumerate(segment, 1) if piece.ends]
        free.append([0, *ends] if whole or not ends else ends)
        whole = segment[-1].ends if segment else whole
    return free


def _zone(count: int, placement: Placement, width: int) -> range:
    starts = {Placement.pre: 0, Placement.mid: (count - width) // 2, Placement.post: count - width}
    start = starts.get(placement, 0)
    return range(start, start + width)


def _grouped(
    facts: Sequence[str], costs: Sequence[int], count: int, segment: int, rng: random.Random
) -> list[int] | None:
    """The facts of each actor in one segment, or in as many that follow each other as they need; actors in turn."""
    actors = list(dict.fromkeys(map(actor_of, facts)))
    rng.shuffle(actors)
    number, found = -1, dict[int, int]()
    for actor in actors:
        left = 0
        for place, fact in enumerate(facts):
            if actor_of(fact) == actor:
                if not left or costs[place] > left:
                    number, left = number + 1, segment
                left -= costs[place]
                found[place] = number
    if number >= count:
        return None
    start = rng.randrange(count - number)
    return [start + found[place] for place in range(len(facts))]


def merged(segments: Sequence[Sequence[Piece]], facts: Sequence[str], where: Sequence[Place]) -> list[str]:
    """The text of each segment with the facts at their places; those at one place keep their order."""
    at: dict[Place, list[str]] = defaultdict(list)
    for fact, place in zip(facts, where, strict=True):
        at[place].append(fact)
    texts = []
    for number, segment in enumerate(segments):
        parts = list(at[number, 0])
        for before, piece in enumerate(segment, 1):
            glued = parts and not piece.before and not at[number, before - 1]
            parts[-1:] = [f"{parts[-1]}{piece.text}"] if glued else [*parts[-1:], piece.text]
            parts += at[number, before]
        texts.append(" ".join(parts))
    return texts
