"""What questions and runs cost: the run-time study as figures, and the wall time and memory of training."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.data.textfile import read_json_lines
from common.tables.damaged import reading
from common.tables.join import Joined
from common.tables.runs import Run, command_of
from scripts.report.charts import DASHED, Point, Series, doubling, key, lines, logarithmic
from scripts.report.colours import Colours
from scripts.report.curves import Group
from scripts.report.page import Block, Cell, DataTable, Figure, Head, Line

CURVE = "cost.jsonl"
VARIANTS = ("_cached", "_batched")
SECONDS, MEMORY = "Time for a number of questions", "Most memory above the model"


def block(run: Run, colours: Colours, anchor: str) -> Block:
    """Curves, their numbers and the break-even numbers of one run.

    Raises:
        DamagedRun: its record of costs cannot be read.
    """
    with reading(run.folder):
        return _block(run, colours, anchor)


def _block(run: Run, colours: Colours, anchor: str) -> Block:
    records = [record for _, record in read_json_lines(run.folder / CURVE, remedy="run again")]
    points = [record for record in records if record["kind"] == "point"]
    ways = list(dict.fromkeys(record["way"] for record in points))
    panels, legend = [], []
    seconds = [_series(points, way, colours, "seconds") for way in ways]
    memory = [_series(points, way, colours, "bytes") for way in ways]
    x = doubling(min(p["questions"] for p in points), max(p["questions"] for p in points), "questions")
    for title, label, series in ((SECONDS, "seconds", seconds), (MEMORY, "megabytes", memory)):
        values = [value for each in series for p in each.points for value in (p.y, p.low, p.high) if value]
        if values:
            panels.append((title, lines(series, x, logarithmic(min(values), max(values), label), title)))
    for way in ways:
        legend.append((key(colours.kind(way), _marker(colours, way), stroke=_stroke(way)), _title(way)))
    caption = "Median with interval; both axes logarithmic. Reading knowledge once is part of the time."
    figure = Figure("What questions cost", panels, legend, caption, numbers=_numbers(points))
    return Block(
        title=_name(run),
        anchor=anchor,
        notes=[f"{run.results.hardware.get('cpu', '')}, {_device(run)}."],
        table=_crossings(records, ways),
        figures=[figure],
        commands=[("run", command_of(run.folder))],
    )


def training(tables: Sequence[tuple[Joined, Sequence[Group]]]) -> DataTable | None:
    """Wall time and memory of the runs behind the published tables, by method; None without runs."""
    there: dict[tuple[str, str], list[Run]] = {}
    for joined, groups in tables:
        for group in (each for each in groups if each.new):
            there.setdefault((joined.scale, group.method), []).extend(group.runs)
    if not there:
        return None
    longest = max(_median(runs) for runs in there.values())
    head = [Head("method", number=False), Head("scale", number=False)]
    head += [Head(name) for name in ("runs", "median wall time, s", "shortest", "longest", "peak memory, GB")]
    body = []
    for (scale, method), runs in sorted(there.items(), key=lambda entry: -_median(entry[1])):
        seconds = [run.results.wall_seconds for run in runs]
        memory = max(run.results.peak_memory_bytes for run in runs) / 1e9
        middle = _median(runs)
        title = str(runs[0].config.get("method", {}).get("title", method))
        cells = [Cell(title), Cell(scale), Cell(str(len(runs))), Cell(f"{middle:.1f}", share=middle / longest)]
        cells += [Cell(f"{min(seconds):.1f}"), Cell(f"{max(seconds):.1f}"), Cell(f"{memory:.2f}")]
        body.append(Line(cells, quiet=runs[0].of_rules))
    return DataTable(head, body, "Wall time and memory by method")


def _median(runs: Sequence[Run]) -> float:
    return statistics.median(run.results.wall_seconds for run in runs)


def _series(points: Sequence[Mapping[str, Any]], way: str, colours: Colours, what: str) -> Series:
    found = []
    for point in points:
        if point["way"] != way or not point[what]:
            continue
        where = f"{_title(way)}, {point['questions']} questions"
        if what == "bytes":
            found.append(Point(point["questions"], point["bytes"] / 1e6, tip=f"{where}: {point['bytes'] / 1e6:.4g} MB"))
            continue
        value, low, high = (float(point["seconds"][name]) for name in ("value", "low", "high"))
        found.append(Point(point["questions"], value, low, high, f"{where}: {value:.3g} s ({low:.3g} to {high:.3g})"))
    return Series(way, colours.kind(way), found, _marker(colours, way), stroke=_stroke(way), band=True)


def _marker(colours: Colours, way: str) -> str:
    return "diamond" if way.endswith("_batched") else colours.marker(way)


def _stroke(way: str) -> str:
    """Cached and batched variants have the colour of their method, dashed."""
    return DASHED if way.endswith(VARIANTS) else ""


def _title(way: str) -> str:
    for end in VARIANTS:
        if way.endswith(end):
            return f"{_title(way.removesuffix(end))}, {end[1:]}"
    return way.upper().replace("_", "-")


def _numbers(points: Sequence[Mapping[str, Any]]) -> DataTable:
    head = [Head("way", number=False), *(Head(name) for name in ("questions", "seconds", "low", "high"))]
    head += [Head("of it reading"), Head("MB")]
    body = []
    for point in points:
        seconds = [f"{point['seconds'][name]:.3g}" for name in ("value", "low", "high")]
        rest = [f"{point['seconds_reading']:.3g}", f"{(point['bytes'] or 0) / 1e6:.4g}"]
        body.append(Line([Cell(text) for text in (_title(point["way"]), str(point["questions"]), *seconds, *rest)]))
    return DataTable(head, body, "Cost in numbers")


def _crossings(records: Sequence[Mapping[str, Any]], ways: Sequence[str]) -> DataTable:
    """Row way, column way: the number of questions from which on the row takes less time."""
    found = {(each["way"], each["over"]): each["questions"] for each in records if each["kind"] == "break_even"}
    read = {each["way"]: each for each in records if each["kind"] == "line"}
    head = [Head("way", number=False), Head("reading, s"), Head("a question, s")]
    head += [Head(_title(way), "number of questions from which on it takes less time than") for way in ways]
    body = []
    for way in ways:
        cells = [Cell(_title(way))]
        cells += [Cell(f"{read[way][name]['value']:.3g}") for name in ("seconds_read", "seconds_question")]
        for other in ways:
            crossing = found.get((way, other))
            if crossing is None:
                cells.append(Cell(""))
                continue
            small = f"{_count(crossing['low'])} to {_count(crossing['high'])}"
            cells.append(Cell(_count(crossing["value"]), small if crossing["low"] != crossing["high"] else ""))
        body.append(Line(cells))
    return DataTable(head, body, "Break-even numbers of questions")


def _count(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0f}"


def _name(run: Run) -> str:
    model, shape = run.config.get("model", {}).get("name", ""), run.config.get("shape") or {}
    name = f"{shape['layers']} layers of width {shape.get('width')}" if shape.get("layers") else model
    steps = run.config.get("inner", {}).get("steps")
    return f"What questions cost: {name}, {run.config.get('tokens')} tokens, {steps} inner steps"


def _device(run: Run) -> str:
    there = run.results.hardware
    if there.get("cuda") and there.get("device") != "cpu":
        return str(there["cuda"][0])
    threads = run.config.get("runtime", {}).get("threads")
    return {None: "all cores", 1: "1 thread"}.get(threads, f"{threads} threads")
