"""Running text cut into sentences."""

import re
from collections.abc import Iterator

_END = re.compile(r"[.!?]+[\"'”’)\]_]*\s+(?=[\"'“‘(\[_]*[A-Z])")
_SHORT = frozenset("mr mrs ms dr st prof rev capt col gen lt sgt hon jr sr vs etc vol esq messrs mme mlle".split())
_HEADING = re.compile(r"^(#|[-*_=\s]{3,}$)")


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a paragraph, blanks and line ends inside them made single blanks.

    Full stops after titles, initials and the like end none.
    """
    text = " ".join(text.split())
    start = 0
    for found in _END.finditer(text):
        word = text[start : found.start()].rpartition(" ")[2].strip("\"'“‘([_")
        if found[0][0] == "." and (word.lower() in _SHORT or re.fullmatch(r"[A-Z]|[a-z]\.[a-z]", word)):
            continue
        yield text[start : found.end()].strip()
        start = found.end()
    if start < len(text):
        yield text[start:]


def paragraphs_of(text: str) -> Iterator[str]:
    """What stands between blank lines, without Markdown's headings and rules."""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = [line for line in block.split("\n") if line.strip() and not _HEADING.match(line)]
        if lines:
            yield " ".join(lines)
