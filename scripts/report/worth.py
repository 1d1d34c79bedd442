"""What the runs behind the published tables cost against how well they do."""

import statistics
from collections.abc import Sequence

from common.tables.estimates import over_values
from common.tables.intervals import Kind
from common.tables.join import Joined
from common.tables.published import known
from scripts.report.axes import axis_of
from scripts.report.charts import Point, Series, key, lines, logarithmic
from scripts.report.colours import Colours
from scripts.report.curves import Group
from scripts.report.page import Figure

NOTE = (
    "A point is the runs of one setting: median wall time, and mean over seeds with its 95 % interval over seeds, "
    "Student's t. Runs that took over weights of another run do not count what those cost."
)


def figures(tables: Sequence[tuple[Joined, Sequence[Group]]], colours: Colours) -> list[Figure]:
    """A figure for each paper and scale, a panel for each experiment that has two settings or more."""
    there: dict[tuple[str, str], dict[str, list[Group]]] = {}
    for joined, groups in tables:
        for group in (each for each in groups if each.new):
            run = group.runs[0].results
            there.setdefault((run.paper, joined.scale), {}).setdefault(run.experiment, []).append(group)
    found = []
    for (paper, scale), experiments in there.items():
        title, shown = known(paper).comparison.against_cost
        panels, legend = [], dict[str, tuple[str, str]]()
        for experiment, groups in experiments.items():
            series = [made for group in groups if (made := _series(group, shown.metric, colours)) is not None]
            if len(series) < 2:
                continue
            seconds = [point.x for each in series for point in each.points]
            x = logarithmic(min(seconds), max(seconds), "seconds")
            panels.append(
                (experiment, lines(series, x, axis_of(shown.measure, title, series), f"{paper} {experiment}"))
            )
            for group in groups:
                text = str(group.runs[0].config.get("method", {}).get("title") or group.method)
                legend.setdefault(text, (key(colours.kind(group.method), colours.marker(group.method)), text))
        if panels:
            found.append(Figure(f"Cost against {title}, {paper}, scale={scale}", panels, list(legend.values()), NOTE))
    return found


def _series(group: Group, metric: str, colours: Colours) -> Series | None:
    """One point; None where its runs lack the metric."""
    named = [run.results.test[metric].value for run in group.runs if metric in run.results.test]
    if len(named) < len(group.runs):
        return None
    measure = known(group.runs[0].results.paper).measure(metric)
    seconds, mean = statistics.median(run.results.wall_seconds for run in group.runs), over_values("", named)
    low, high = mean.interval() if len(named) > 1 else (mean.value, mean.value)
    if measure.kind is Kind.share:
        low, high = max(low, 0.0), min(high, 1.0)
    value, low, high = (measure.factor * each for each in (mean.value, low, high))
    tip = f"{group.name}: {measure.text(value)} in {seconds:.3g} s"
    point = Point(seconds, value, low, high, tip) if len(named) > 1 else Point(seconds, value, tip=tip)
    return Series(group.name, colours.kind(group.method), [point], colours.marker(group.method))
