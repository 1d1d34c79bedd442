"""BM25 over passages, by the library bm25s."""

import logging
from collections.abc import Sequence
from typing import Any


class Index:
    """Passages that can be ranked by a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the passages.

        Raises:
            ValueError: there is none.
        """
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would tell of every index
        if not texts:
            raise ValueError("nothing to index")
        self._count = len(texts)
        self._index = bm25s.BM25()
        self._index.index(self._words(texts), show_progress=False)

    def best(self, question: str, most: int) -> list[int]:
        """Places of the `most` best passages, best first; of equal ones the earlier is first."""
        # of all: the library would keep any of those that are equal at the end
        found, scores = self._index.retrieve(self._words([question]), k=self._count, sorted=False, show_progress=False)
        by_place = scores[0][found[0].argsort()]
        best: list[int] = (-by_place).argsort(kind="stable")[:most].tolist()
        return best

    @staticmethod
    def _words(texts: Sequence[str]) -> Any:
        import bm25s

        return bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
