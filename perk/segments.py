"""Running text as a context: cut as the builders cut theirs."""

from perk.babilong.passage import FINE, pieces_of, segmented
from perk.babilong.sentences import sentences_of
from perk.tokens import Tokens


def segments_of(text: str, tokens: Tokens, segment: int) -> list[str]:
    """The text in segments of about `segment` tokens that end with a sentence, if none is longer than a part of one.

    Blanks and line ends inside become single blanks, as in contexts that are built. A text of blanks has none.
    """
    sentences = list(sentences_of(text))
    counts = tokens.counts([f" {sentence}" for sentence in sentences])
    pieces = [
        piece
        for sentence, count in zip(sentences, counts, strict=True)
        for piece in pieces_of(sentence, count, tokens, segment // FINE)
    ]
    return [" ".join(piece.text for piece in group) for group in segmented(pieces, segment)] if pieces else []
