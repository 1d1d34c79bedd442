"""Which sentences of a story with noise lead to the answer: those that the row's story without noise has.

Both texts are made of the same passages, in another order, so the clean one is laid out with passages of the other.
Where a passage has no full stop, nothing but that tells where it ends.
"""

import re

START = re.compile(r"\[|[A-Z]")
ENDS = (".", "!", "?", '."', '!"', '?"')


def passages_of(story: str, clean: str) -> list[tuple[str, int | None]] | None:
    """The story in passages, each with its place in the clean story from 0, or None for noise.

    None in all where the clean story is not made of passages of the story.
    """
    words, wanted = story.split(), clean.split()
    laid = _laid(words, wanted)
    if laid is None:
        return None
    found: list[tuple[str, int | None]] = []
    done = 0
    for start, stop, place in sorted((start, stop, place) for place, (start, stop) in enumerate(laid)):
        if done < start:
            found.append((" ".join(words[done:start]), None))
        found.append((" ".join(words[start:stop]), place))
        done = stop
    return [*found, (" ".join(words[done:]), None)] if done < len(words) else found


def _laid(words: list[str], wanted: list[str]) -> list[tuple[int, int]] | None:
    """(start, stop) in `words` of the passages that make up `wanted`: the longest that leave the rest coverable."""

    def cover(done: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
        if done == len(wanted):
            return taken
        options: list[tuple[int, int]] = []
        for start in range(len(words)):
            if not _may_start(words, start):
                continue
            length = 0
            while _same(words, wanted, start + length, done + length):
                length += 1
                if _may_start(words, start + length) and _may_start(wanted, done + length):
                    options.append((-length, start))
        for length, start in sorted(options):
            stop = start - length
            if all(stop <= first or last <= start for first, last in taken):
                found = cover(done - length, [*taken, (start, stop)])
                if found is not None:
                    return found
        return None

    return cover(0, [])


def _same(words: list[str], wanted: list[str], a: int, b: int) -> bool:
    return a < len(words) and b < len(wanted) and words[a] == wanted[b]


def _may_start(words: list[str], place: int) -> bool:
    """May a passage begin at a place? Behind the end of a sentence, or with a name or a capital."""
    return place in (0, len(words)) or words[place - 1].endswith(ENDS) or START.match(words[place]) is not None
