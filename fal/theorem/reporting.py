"""A table in its run folder and on the terminal."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.run.files import write_atomic, write_json_lines
from common.run.folder import TABLE
from common.run.results import Interval
from fal.theorem import tables
from fal.theorem.cells import Cell
from fal.theory_config import ReferenceConfig

WIDTH = 240
"""Of what goes to a file or a pipe."""


def need_cpu(device: torch.device) -> None:
    """Refuse a device on which nothing would be computed.

    Raises:
        UserError: it is not the CPU.
    """
    if device.type != "cpu":
        raise UserError(f"runtime.device={device.type}: networks of this size are measured on the CPU; use runtime=cpu")


def report(
    folder: Path,
    title: str,
    cells: Sequence[Cell],
    columns: Sequence[str],
    confidence: float,
    fits: Sequence[tables.Fit] = (),
    references: Sequence[ReferenceConfig] = (),
    note: str = "",
) -> dict[str, Interval]:
    """Write `records.jsonl`, `table.jsonl` and `table.md`, print the table; returns what `results.json` is to hold."""
    write_json_lines(folder / "records.jsonl", _records(cells))
    values = ({"cell": number, **cell.change, "values": cell.values} for number, cell in enumerate(cells))
    write_json_lines(folder / TABLE, values)
    told = tables.summary(fits, [tables.compared(cells, each, confidence) for each in references], note)
    head, rows = tables.lines(cells, columns, confidence)
    write_atomic(folder / "table.md", tables.page(title, head, rows, told))
    _show(title, head, rows, told)
    return tables.metrics_of(cells, fits, columns, confidence)


def _records(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    for number, cell in enumerate(cells):
        for run, record in cell.row():
            finite = {key: value if value == value else None for key, value in record.items()}
            yield {"cell": number, **cell.change, "run": run, **finite}


def _show(title: str, head: list[str], rows: list[list[str]], told: list[str]) -> None:
    from rich.console import Console

    from common.tables.grid import grid

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(grid(title, head, rows))
    for line in told:
        console.print(line, soft_wrap=True)
