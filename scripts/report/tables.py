"""Published tables as blocks of the page."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.tables.cells import QUIET, Measure, Table
from common.tables.join import Filled, Joined, Verdict
from scripts.report.page import Block, Cell, DataTable, Head, Line, table_of
from scripts.tables.published_tables import USUAL, command_of, grid_of, missing, published_text, remarks_of

SIGNS = {Verdict.holds: "✓", Verdict.fails: "✗", Verdict.open: "≈", Verdict.within: "✓", Verdict.outside: "✗"}
SIGNS |= dict.fromkeys((Verdict.learning, Verdict.weaker), "")
UNREACHED = "n/r"


def anchor_of(joined: Joined) -> str:
    """Where the table stands on the page."""
    return f"{joined.table.paper}-{joined.table.name}-{joined.scale}"


def block(joined: Joined, root: Path) -> Block:
    """Heading, table, every number, commands; figures are added by those who draw them."""
    table = joined.table
    name = f"{table.title}, scale={joined.scale}"
    known = any(cell.cell.published is not None for cell in joined.cells)
    return Block(
        title=table.title,
        anchor=anchor_of(joined),
        label=label_of(table),
        notes=remarks_of(joined),
        table=wide(joined) if joined.runs or known else None,
        details=table_of(grid_of(joined), f"{name}: every number") if joined.runs else None,
        commands=commands(joined, root),
        missing=missing(joined),
        quiet=not joined.runs,
    )


def label_of(table: Table) -> str:
    """Where it stands in the paper, as a heading begins."""
    where = table.where or "ours"
    return where[0].upper() + where[1:]


def commands(joined: Joined, root: Path) -> list[tuple[str, str]]:
    """The commands that make its runs and print it."""
    words = [f"table={joined.table.name}", f"scale={joined.scale}", f"paper={joined.table.paper}"]
    return [("runs", command_of(joined, root)), ("table", printing(words, root))]


def printing(words: Sequence[str], root: Path) -> str:
    """The command that prints tables of the runs below `root`."""
    where = [] if root == USUAL else [f"root={root}"]
    return shlex.join(["python", "-m", "scripts.tables", *words, *where])


def wide(joined: Joined) -> DataTable:
    """A line a row; for each column the published number, where the paper has any there, and the reproduced one."""
    table = joined.table
    cells = {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}
    with_published = {cell.cell.column for cell in joined.cells if cell.cell.published is not None}
    head = [Head("method", number=False)]
    for column in table.columns:
        group = table.heading(column)
        head += [Head("published", group)] if column in with_published else []
        head.append(Head("reproduced", group))
    lines = []
    for row in table.rows:
        fields = [Cell(row)]
        for column in table.columns:
            cell = cells.get((row, column))
            fields += [_published(table, cell)] if column in with_published else []
            fields.append(_reproduced(table, cell))
        lines.append(Line(fields, quiet=quiet(table, row)))
    return DataTable(head, lines, f"{table.title}, scale={joined.scale}")


def quiet(table: Table, row: str) -> bool:
    """Whether the row needs no reasoning."""
    return table.role(row) in QUIET


def _published(table: Table, cell: Filled | None) -> Cell:
    if cell is None or cell.cell.published is None:
        return Cell("")
    if cell.cell.published.text:
        return Cell(cell.cell.published.text)
    if cell.cell.published.value is None:
        return Cell(UNREACHED, kind="unreached", tip="published, but its value was not reached")
    text, _, mark = published_text(table, cell).partition(" ")
    return Cell(text, raised=mark, value=cell.cell.published.value, tip=cell.cell.published.note)


def _reproduced(table: Table, cell: Filled | None) -> Cell:
    if cell is None or not cell.cell.runs:
        return Cell("")
    if cell.value is None:
        return Cell("–", signed=True, kind="unreached", tip=str(cell.verdict or ""))
    measure = table.measure(cell.cell.column)
    small, text, tip = _interval(measure, cell), measure.text(cell.value), words(table, cell)
    return Cell(text, small, sign=sign(cell), signed=True, kind=kind(cell), tip=tip, value=cell.value)


def _interval(measure: Measure, cell: Filled) -> str:
    """`91.2–93.4`; empty for what is exact."""
    if cell.low is None or cell.low == cell.high:
        return ""
    between = "–" if cell.low >= 0 else " to "
    return f"{measure.text(cell.low)}{between}{measure.text(cell.high)}"


def sign(cell: Filled) -> str:
    """A character for the verdict; arrows where the paper's order is not known."""
    if cell.verdict is None or cell.verdict in SIGNS:
        return SIGNS[cell.verdict] if cell.verdict else ""
    return ("↑" if cell.apart[0] > 0 else "↓") if cell.apart else ""


def kind(cell: Filled) -> str:
    """Class of the verdict."""
    return cell.verdict.name if cell.verdict else ""


def words(table: Table, cell: Filled) -> str:
    """The verdict with what it rests on."""
    if cell.verdict is None:
        return ""
    text = str(cell.verdict)
    if cell.apart:
        measure = table.measure(cell.cell.column)
        apart, low, high = (measure.text(each, signed=True) for each in cell.apart)
        text += f": {apart} ({low} to {high}) against {table.rows[cell.cell.row].against}"
    return text


def overview(blocks: Sequence[tuple[Joined, Block]]) -> DataTable:
    """A line a table: how much of it is there, and how its orderings came out."""
    head = [Head("table", number=False), Head("scale", number=False), Head("cells filled"), Head("seeds")]
    head += [Head(name, "orderings") for name in ("hold", "fail", "not decided")]
    lines = []
    for joined, made in blocks:
        filled = [cell for cell in joined.cells if cell.value is not None]
        found = [cell.verdict for cell in joined.cells]
        seeds, there = {cell.seeds for cell in filled} or {0}, sum(bool(cell.cell.runs) for cell in joined.cells)
        fields = [Cell(made.title, small=made.label, link=made.anchor), Cell(joined.scale)]
        fields.append(Cell(f"{len(filled)} of {there}", value=len(filled), share=len(filled) / (there or 1)))
        least, most = min(seeds), max(seeds)
        fields.append(Cell(str(most or "") if least == most else f"{least}–{most}", value=most))
        for verdict in (Verdict.holds, Verdict.fails, Verdict.open):
            fields.append(Cell(str(found.count(verdict) or ""), value=found.count(verdict), kind=verdict.name))
        lines.append(Line(fields, quiet=not filled))
    return DataTable(head, lines, "All tables")
