"""What runs measured in cells of their own, each as a table: studies that answer no items, and calibrations of metrics.

The first line of the file may be a head, {"title": ..., "note": ...}; every other one is a cell with its `values`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.data.textfile import read_json_lines
from common.run.folder import TABLE
from common.tables.damaged import reading
from common.tables.estimates import over_values
from common.tables.runs import Run, command_of
from scripts.report.page import Block, Cell, DataTable, Head, Line

NOTE = (
    "Means over the runs of a cell with their 95 % intervals, Student's t; where some have no value, how many have one."
)


def blocks(runs: Sequence[Run]) -> list[Block]:
    """A block for each finished study."""
    found = [run for run in runs if (run.folder / TABLE).is_file()]
    found.sort(key=lambda run: (run.results.paper, run.results.experiment, run.results.seed))
    return [_block(run, f"study-{number}") for number, run in enumerate(found, 1)]


def _block(run: Run, anchor: str) -> Block:
    with reading(run.folder):
        records = [dict(record) for _, record in read_json_lines(run.folder / TABLE, remedy="run again")]
        head = records.pop(0) if records and "values" not in records[0] else {}
        keys = list(dict.fromkeys(key for record in records for key in record if key not in ("cell", "values")))
        there = list(dict.fromkeys(name for record in records for name in record["values"]))
        columns = [name for name in run.config.get("columns") or there if name in there]
        lines = [_line(record, keys, columns) for record in records]
    title = head.get("title") or run.config.get("title") or run.results.experiment
    notes = [head["note"]] if "note" in head else []
    names = [Head(key.rpartition(".")[2]) for key in keys] + [Head(name.replace("_", " ")) for name in columns]
    command = [("run", text)] if (text := command_of(run.folder)) else []
    return Block(title, anchor, run.results.paper, notes, table=DataTable(names, lines, title), commands=command)


def _line(record: Mapping[str, Any], keys: Sequence[str], columns: Sequence[str]) -> Line:
    own = [record.get(key) for key in keys]
    settings = [Cell(_text(each), value=each if isinstance(each, float) else None) for each in own]
    return Line([*settings, *(_cell(record["values"].get(name) or []) for name in columns)])


def _cell(values: Sequence[float | None]) -> Cell:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not values or len(finite) < len(values):
        return Cell("–", f"{len(finite)} of {len(values)}" if values else "")
    mean = over_values("", finite)
    low, high = mean.interval()
    small = f"{low:.4g} to {high:.4g}" if high - low > 1e-9 * max(1.0, abs(mean.value)) else ""
    return Cell(f"{mean.value:.4g}", small, value=mean.value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
