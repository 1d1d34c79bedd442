"""Learned inner rates by layer and inner step, as heat maps."""

from collections.abc import Sequence

from common.run import rate_record
from common.tables.damaged import reading
from common.tables.join import Joined
from common.tables.runs import Run
from scripts.report.charts import Heat, heat
from scripts.report.curves import Group
from scripts.report.page import Cell, DataTable, Figure, Head, Line

Rates = dict[str, list[float]]
ALIKE = 1e-6
"""Rates that differ from their start by less than this share of it were not learned."""
NOTE = (
    "Inner rates as tested, means over seeds and over the weight tensors of a layer. Without colour: the rate before "
    "training; blue is larger, red smaller, strongest at each map's largest change."
)


def figure(joined: Joined, groups: Sequence[Group]) -> Figure | None:
    """A map for each setting that learned rates, mean over seeds; None: no run kept any."""
    maps: list[tuple[Group, Rates, float]] = []
    for group in (each for each in groups if each.new):
        if (found := _mean(group)) is not None:
            maps.append((group, *found))
    panels, body = [], []
    for group, rates, start in maps:
        most = max(abs(value - start) for row in rates.values() for value in row)
        if most <= ALIKE * abs(start):
            continue  # not learned
        steps = [str(index + 1) for index in range(len(next(iter(rates.values()))))]
        names = _short(list(rates))
        shown = Heat(names, steps, list(rates.values()), start, most, "inner step")
        panels.append((group.name, heat(shown, f"Learned rates, {group.name}")))
        for layer, row in rates.items():
            for step, value in zip(steps, row, strict=True):
                fields = (group.name, layer, step, f"{start:.4g}", f"{value:.4g}")
                body.append(Line([Cell(text) for text in fields]))
    if not panels:
        return None
    head = [Head("runs", number=False), Head("layer", number=False)]
    head += [Head(name) for name in ("inner step", "at the start", "as tested")]
    numbers = DataTable(head, body, f"Learned rates in numbers, {joined.table.title}")
    return Figure(f"Learned rates, {joined.table.title}", panels, numbers=numbers)


def _mean(group: Group) -> tuple[Rates, float] | None:
    """Rates by layer and their mean before training, over the seeds; None without records."""
    read = [_read(run) for run in group.runs]
    kept = [each for each in read if each is not None]
    if not kept:
        return None
    found = [layers for layers, _ in kept]
    for run, layers in zip((run for run, each in zip(group.runs, read, strict=True) if each), found, strict=True):
        with reading(run.folder):
            if {name: len(row) for name, row in layers.items()} != {name: len(row) for name, row in found[0].items()}:
                raise ValueError(f"{rate_record.RATES} is not of the network of its other seeds")
    first = [value for _, start in kept for value in start]
    mean = {
        layer: [sum(values) / len(found) for values in zip(*(each[layer] for each in found), strict=True)]
        for layer in found[0]
    }
    return mean, sum(first) / len(first)


def _read(run: Run) -> tuple[Rates, list[float]] | None:
    """Rates by layer as tested, and all rates before training; None without a record.

    Raises:
        DamagedRun: it cannot be read.
    """
    with reading(run.folder):
        record = rate_record.read(run.folder)
        if record is None:
            return None
        rates = {layer: [float(value) for value in row] for layer, row in record.by_layer(record.at()).items()}
        return rates, [float(value) for row in record.at(0) for value in row]


def _short(layers: Sequence[str]) -> list[str]:
    """Layers without the part of their names that all share."""
    parts = [name.split(".") for name in layers]
    shared = 0
    while all(len(each) > shared + 1 and each[shared] == parts[0][shared] for each in parts):
        shared += 1
    return [".".join(each[shared:]) for each in parts]
