"""Tables for a terminal; rich is imported when one is made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def grid(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """A titled table: numbers to the right, the first column and those headed `what ...` to the left."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for index, name in enumerate(head):
        text = index == 0 or name.startswith("what")
        made.add_column(name, justify="left" if text else "right")
    for row in rows:
        made.add_row(*row)
    return made
