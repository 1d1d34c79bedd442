"""A passage of so many tokens, cut into segments of about equal length, none longer than a segment may be."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice

from common.errors import UserError
from perk.babilong.haystack import Haystack, walk
from perk.tokens import Tokens

BATCH, SHORT = 64, 8
"""Sentences counted at once, at most; tokens of a short one."""
FINE = 4
"""Sentences longer than a segment's FINEth part are cut, so that segments come out about equal."""
LONG = 16
"""Characters of a token, at most, where a word is broken."""


@dataclass(frozen=True)
class Piece:
    """A sentence, or a part of a long one; `ends` says whether something may follow it without cutting a sentence, and
    `before` what stands between it and the piece before: nothing inside a word."""

    text: str
    tokens: int
    ends: bool
    before: str = " "


def joined(pieces: Sequence[Piece]) -> str:
    """The text of pieces that follow each other."""
    return "".join(f"{piece.before if place else ''}{piece.text}" for place, piece in enumerate(pieces))


def passage(
    haystack: Haystack, split: str, rng: random.Random, tokens: Tokens, budget: int, longest: int
) -> tuple[list[Piece], list[str]]:
    """Consecutive sentences of `budget` tokens in all, in pieces of at most about `longest`, and the documents they are
    from. The last sentence is cut at a word where that meets the budget.

    Raises:
        UserError: the split's haystack is shorter than that.
    """
    pieces: list[Piece] = []
    names: dict[str, None] = {}
    left = budget
    sentences = walk(haystack, split, rng)
    while batch := list(islice(sentences, min(BATCH, left // SHORT + 1))):
        for (name, text), count in zip(batch, tokens.counts([f" {text}" for _, text in batch]), strict=True):
            names[name] = None
            for part in pieces_of(text, count, tokens, longest):
                if part.tokens > left:
                    last = shortened(part, tokens, left)
                    return ([*pieces, last] if last.tokens else pieces), list(names)
                pieces.append(part)
                left -= part.tokens
        if not left:
            return pieces, list(names)
    raise UserError(
        f"data.babilong.haystack: the {split} split holds only {budget - left} of {budget} tokens; "
        "give more text, or shorten data.length"
    )


def pieces_of(text: str, count: int, tokens: Tokens, longest: int) -> list[Piece]:
    """A sentence of `count` tokens, whole or in parts of at most about `longest`."""
    return [Piece(text, count, True)] if count <= longest else split_long(text, tokens, longest)


def split_long(text: str, tokens: Tokens, longest: int) -> list[Piece]:
    """The sentence in parts of at most `longest` tokens, cut between words; a word that is longer is broken."""
    words = text.split(" ")
    parts: list[Piece] = []
    part: list[str] = []
    total = 0
    for word, count in zip(words, tokens.counts([f" {word}" for word in words]), strict=True):
        if part and total + count > longest:
            parts.append(Piece(" ".join(part), total, False))
            part, total = [], 0
        if count > longest:
            parts += _broken(word, tokens, longest)
            continue
        part.append(word)
        total += count
    if part:
        parts.append(Piece(" ".join(part), total, True))
    return [*parts[:-1], replace(parts[-1], ends=True)]


def _broken(word: str, tokens: Tokens, longest: int) -> list[Piece]:
    """A word, or a text without blanks, in parts of at most `longest` tokens (one character may have more)."""
    parts: list[Piece] = []
    start = 0
    while start < len(word):
        fits, most = 1, min(len(word) - start, LONG * longest)
        while fits < most:
            tried = (fits + most + 1) // 2
            (count,) = tokens.counts([word[start : start + tried]])
            fits, most = (tried, most) if count <= longest else (fits, tried - 1)
        text = word[start : start + fits]
        parts.append(Piece(text, tokens.counts([text])[0], False, "" if start else " "))
        start += fits
    return parts


def shortened(piece: Piece, tokens: Tokens, limit: int) -> Piece:
    """As many of its first words as `limit` tokens hold, perhaps none; it no longer ends a sentence."""
    words = piece.text.split(" ")
    kept, total = 0, 0
    for count in tokens.counts([f" {word}" for word in words]):
        if total + count > limit:
            break
        kept, total = kept + 1, total + count
    return Piece(" ".join(words[:kept]), total, False)


def segmented(pieces: Sequence[Piece], segment: int) -> list[list[Piece]]:
    """The pieces in order, in as few segments as hold them, which are filled alike; none is empty, and none has more
    than `segment` tokens but for a piece that has."""
    total = sum(piece.tokens for piece in pieces)
    for number in itertools.count(max(1, -(-total // segment))):
        if (found := filled(pieces, [0] * number, segment)) is not None:
            return [group for group in found if group]
    raise AssertionError("a segment for each piece holds them")


def filled(pieces: Sequence[Piece], taken: Sequence[int], segment: int) -> list[list[Piece]] | None:
    """The pieces in order, in segments of which each has `taken` tokens already: as level as pieces allow, none above
    `segment` tokens; None where they do not fit."""
    level = _level(taken, sum(piece.tokens for piece in pieces))
    ends = list(accumulate(max(0.0, level - each) for each in taken))
    found: list[list[Piece]] = [[] for _ in taken]
    place, size, done = 0, taken[0], 0
    for piece in pieces:
        while size and (
            size + piece.tokens > segment or (place < len(ends) - 1 and done + piece.tokens / 2 > ends[place])
        ):
            place += 1
            if place == len(taken):
                return None
            size = taken[place]
        found[place].append(piece)
        size += piece.tokens
        done += piece.tokens
    return found


def _level(taken: Sequence[int], amount: int) -> float:
    """How high `amount` stands in vessels that are filled to `taken`."""
    ordered = sorted(taken)
    below = 0
    for number, each in enumerate(ordered, 1):
        below += each
        level = (amount + below) / number
        if number == len(ordered) or level <= ordered[number]:
            break
    return level
