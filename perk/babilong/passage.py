"""A passage of so many tokens, cut into segments of about equal length."""

import random
from dataclasses import dataclass
from itertools import islice

from common.errors import UserError
from perk.babilong.haystack import Haystack, walk
from perk.tokens import Tokens

BATCH, SHORT = 64, 8
"""Sentences counted at once, at most; tokens of a short one."""
FINE = 4
"""Sentences longer than a segment's FINEth part are cut, so that segments come out about equal."""


@dataclass(frozen=True)
class Piece:
    """A sentence, or a part of a long one; `ends` says whether something may follow it without cutting a sentence."""

    text: str
    tokens: int
    ends: bool


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
    """The sentence in parts of at most `longest` tokens (one word may be longer), cut between words."""
    words = text.split(" ")
    parts: list[Piece] = []
    part: list[str] = []
    total = 0
    for word, count in zip(words, tokens.counts([f" {word}" for word in words]), strict=True):
        if part and total + count > longest:
            parts.append(Piece(" ".join(part), total, False))
            part, total = [], 0
        part.append(word)
        total += count
    return [*parts, Piece(" ".join(part), total, True)]


def shortened(piece: Piece, tokens: Tokens, limit: int) -> Piece:
    """As many of its first words as `limit` tokens hold, perhaps none; it no longer ends a sentence."""
    words = piece.text.split(" ")
    kept, total = 0, 0
    for count in tokens.counts([f" {word}" for word in words]):
        if total + count > limit:
            break
        kept, total = kept + 1, total + count
    return Piece(" ".join(words[:kept]), total, False)


def segmented(pieces: list[Piece], segment: int) -> list[list[Piece]]:
    """The pieces in order, in round(tokens / segment) segments (at least one) whose ends lie as near as pieces allow to
    equal shares; none is empty."""
    total = sum(piece.tokens for piece in pieces)
    count = min(max(1, round(total / segment)), len(pieces))
    segments: list[list[Piece]] = [[]]
    done = 0
    for place, piece in enumerate(pieces):
        end = total * len(segments) / count
        rest, open_ones = len(pieces) - place, count - len(segments)
        nearer_after = done + piece.tokens / 2 > end
        if segments[-1] and open_ones and (nearer_after or rest <= open_ones):
            segments.append([])
        segments[-1].append(piece)
        done += piece.tokens
    return segments
