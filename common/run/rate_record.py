"""`rates.json` in a run folder: the learned rates at some outer steps, for maps by layer and inner step.

    {"schema": 1,
     "names": ["transformer.h.0.ln_1.weight", ...],      the rows: weight tensors, or layers with inner.per=layer
     "layers": ["transformer.h.0", ...],                 the layer of each row, in the network's order
     "selected": 400,                                    outer step whose rates the test used; null until the end
     "records": [{"step": 0, "values": [[1e-05, ...], ...]}, ...]}

A record's `step` counts outer steps done and ascends from 0, the rates before training; the last one is the last step
of the run. `values` has one list a row with one rate an inner step: the rates themselves, whatever the space they are
learned in, so they may be negative with inner.space=raw. Runs without inner rates have no such file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from common import jsontext
from common.errors import UserError
from common.run.files import write_atomic

RATES = "rates.json"
SCHEMA = 1
DIGITS = 7
"""Significant digits kept; float32 has no more."""


class Rates(Protocol):
    """What `common.engine.rates.LearnedRates` offers here; this module is read without torch."""

    groups: list[str]
    row: dict[str, int]

    def rates(self) -> Any:
        """All rates, a tensor of shape [groups, steps]."""

    def summary(self) -> dict[str, float]:
        """Name -> number, such as the median of all rates."""


@dataclass(frozen=True)
class RateRecord:
    """`rates.json`, field by field; see the module's docstring."""

    names: list[str]
    layers: list[str]
    selected: int | None
    records: list[dict[str, Any]]
    schema: int = SCHEMA

    def at(self, step: int | None = None) -> list[list[float]]:
        """Values at outer step `step`; default: the selected step, in a run that goes on the last one recorded."""
        wanted = self.selected if step is None else step
        return next((list(r["values"]) for r in self.records if r["step"] == wanted), list(self.records[-1]["values"]))

    def by_layer(self, values: Sequence[Sequence[float]]) -> dict[str, list[float]]:
        """Layer -> mean rate of its rows for each inner step, in the network's order."""
        rows: dict[str, list[Sequence[float]]] = {}
        for layer, row in zip(self.layers, values, strict=True):
            rows.setdefault(layer, []).append(row)
        return {layer: [sum(column) / len(column) for column in zip(*own, strict=True)] for layer, own in rows.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict a row and inner step: layer, name, inner step (from 1), rate before training and as tested."""
        for layer, name, first, last in zip(self.layers, self.names, self.at(0), self.at(), strict=True):
            for index, (before, after) in enumerate(zip(first, last, strict=True), start=1):
                yield {"layer": layer, "name": name, "inner_step": index, "start": before, "tested": after}


def summary(rates: Rates | None) -> dict[str, float]:
    """`rates/<name>` -> number for the log; nothing without inner rates."""
    return {} if rates is None else {f"rates/{name}": value for name, value in rates.summary().items()}


def note(folder: Path, step: int, rates: Rates | None) -> None:
    """Record the rates after outer step `step`; records of this and later steps, from before a restart, are dropped.
    Nothing is written without inner rates.

    Raises:
        OSError: the disk is full; the file is as before.
    """
    from common.engine.rates import layer_of

    if rates is None:
        return
    earlier = read(folder)
    records = [record for record in earlier.records if record["step"] < step] if earlier else []
    values = [[float(f"{rate:.{DIGITS}g}") for rate in row] for row in rates.rates().detach().tolist()]
    layers = {row: layer_of(name) for name, row in rates.row.items()}
    ordered = [layers[row] for row in range(len(rates.groups))]
    _write(folder, RateRecord(list(rates.groups), ordered, None, [*records, {"step": step, "values": values}]))


def select(folder: Path, step: int) -> None:
    """Say that the test uses the rates of outer step `step`.

    Raises:
        OSError: the disk is full; the file is as before.
    """
    if (found := read(folder)) is not None:
        _write(folder, RateRecord(found.names, found.layers, step, found.records))


def read(folder: Path) -> RateRecord | None:
    """The record in a run folder, None if there is none.

    Raises:
        UserError: the file is not one of this version.
    """
    path = folder / RATES
    if not path.is_file():
        return None
    try:
        values: Mapping[str, Any] = jsontext.mapping(path.read_bytes())
        found = RateRecord(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not rates of this version ({error}); delete the file or run again") from error
    if found.schema != SCHEMA or not found.records:
        raise UserError(f"{path}: format {found.schema}, this version reads {SCHEMA}; delete the file or run again")
    return found


def _write(folder: Path, record: RateRecord) -> None:
    write_atomic(folder / RATES, json.dumps(asdict(record)) + "\n")
