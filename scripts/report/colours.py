"""One colour and one marker for each method, the same in all figures of the page."""

from collections.abc import Iterable, Sequence

from common.tables.cells import QUIET, Table, key_of
from scripts.report.charts import QUIET as STYLE

COUNT = 8
"""Colours c1 to c8 of the style sheet."""
MARKERS = ("circle", "triangle", "square", "diamond")


def method_of(overrides: Iterable[str]) -> str:
    """The method that overrides choose; empty: they leave it open."""
    return next((word.partition("=")[2] for word in overrides if key_of(word) == "method"), "")


class Colours:
    """Methods in the order of the published tables, last row first: papers put their own method last."""

    def __init__(self, tables: Sequence[Table]) -> None:
        rows = [(table, name) for table in tables for name in reversed(list(table.rows))]
        found = [(method_of([*table.overrides, *table.rows[name].overrides]), table.role(name)) for table, name in rows]
        self._quiet = {method for method, role in found if method and role in QUIET}
        self.methods = [name for name in dict.fromkeys(name for name, _ in found) if name and name not in self._quiet]

    def _index(self, method: str) -> int:
        if method not in self.methods:
            known = [name for name in self.methods if method.startswith(name)]
            if known:
                return self.methods.index(max(known, key=len))
            self.methods.append(method)
        return self.methods.index(method)

    def kind(self, method: str) -> str:
        """Class of the method's lines; a method's variant (`<method>_cached`) has its colour."""
        return STYLE if method in self._quiet else f"c{self._index(method) % COUNT + 1}"

    def marker(self, method: str) -> str:
        """Form of its points; empty for what needs no reasoning."""
        return "" if method in self._quiet else MARKERS[self._index(method) % len(MARKERS)]
