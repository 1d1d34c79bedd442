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


def places(
    segments: Sequence[Sequence[Piece]], facts: Sequence[str], placement: Placement, order: Order, rng: random.Random
) -> list[Place]:
    """A place for each fact; with `order=story` they do not run backwards. Facts stand between sentences; those of a
    segment in which none ends stand at its beginning, which may be inside a sentence."""
    free = _free(segments)
    if placement is Placement.grouped:
        return _grouped(free, facts, rng)
    zone = _zone(len(segments), placement)
    found = [(segment, rng.choice(free[segment])) for segment in (rng.choice(zone) for _ in facts)]
    return sorted(found) if order is Order.story else found


def _free(segments: Sequence[Sequence[Piece]]) -> list[list[int]]:
    """Where something may stand, a segment: behind every piece that ends a sentence, and at its beginning if the
    segment before ends one, or if this one has no other place."""
    free = []
    whole = True
    for segment in segments:
        ends = [place for place, piece in enumerate(segment, 1) if piece.ends]
        free.append([0, *ends] if whole or not ends else ends)
        whole = segment[-1].ends
    return free


def _zone(count: int, placement: Placement) -> range:
    width = max(1, count // ZONE)
    starts = {Placement.pre: 0, Placement.mid: (count - width) // 2, Placement.post: count - width}
    start = starts.get(placement, 0)
    return range(count) if placement is Placement.scattered else range(start, start + width)


def _grouped(free: Sequence[Sequence[int]], facts: Sequence[str], rng: random.Random) -> list[Place]:
    actors = list(dict.fromkeys(map(actor_of, facts)))
    rng.shuffle(actors)
    start = rng.randrange(max(1, len(free) - len(actors) + 1))
    place_of = {}
    for number, actor in enumerate(actors):
        segment = min(start + number, len(free) - 1)
        place_of[actor] = (segment, rng.choice(free[segment]))
    return [place_of[actor_of(fact)] for fact in facts]


def merged(segments: Sequence[Sequence[Piece]], facts: Sequence[str], where: Sequence[Place]) -> list[str]:
    """The text of each segment with the facts at their places; those at one place keep their order."""
    at: dict[Place, list[str]] = defaultdict(list)
    for fact, place in zip(facts, where, strict=True):
        at[place].append(fact)
    texts = []
    for number, segment in enumerate(segments):
        parts = list(at[number, 0])
        for before, piece in enumerate(segment, 1):
            parts += [piece.text, *at[number, before]]
        texts.append(" ".join(parts))
    return texts
