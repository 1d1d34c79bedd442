"""Running text as a context: cut as the builders cut theirs."""

import logging
from collections.abc import Iterable

from perk.babilong.passage import FINE, joined, pieces_of, segmented
from perk.babilong.sentences import sentences_of
from perk.tokens import Tokens

logger = logging.getLogger(__name__)


def segments_of(text: str, tokens: Tokens, segment: int, head: str = "") -> list[str]:
    """The text in segments of at most `segment` tokens that end with a sentence, if none is longer than a part of one.

    Each begins with `head`, which counts. Blanks and line ends inside become single blanks, as in contexts that are
    built. A text of blanks has none.
    """
    sentences = list(sentences_of(text))
    if not sentences:
        return []
    counts = tokens.counts([f" {sentence}" for sentence in sentences])
    limit = segment - (tokens.counts([head])[0] if head else 0)
    while True:  # a text may have a token more than its pieces: its first word has no blank before it
        pieces = [
            piece
            for sentence, count in zip(sentences, counts, strict=True)
            for piece in pieces_of(sentence, count, tokens, max(1, limit // FINE))
        ]
        texts = [" ".join(filter(None, (head, joined(group)))) for group in segmented(pieces, limit)]
        over = max(tokens.counts(texts)) - segment
        if over <= 0 or limit - over < FINE:
            return texts
        limit -= over


def tell_of_long(name: str, texts: Iterable[str], tokens: Tokens, segment: int) -> None:
    """Say how many segments of a file, which stay as they are, are longer than a segment should be."""
    counts = tokens.counts(list(texts))
    if over := [count for count in counts if count > segment]:
        logger.warning(
            "%s: %d of %d segments have more than data.segment=%d tokens, up to %d; they stay as they are",
            name, len(over), len(counts), segment, max(over),
        )  # fmt: skip
