"""Build the W&B report that sets each table's reproduced numbers beside the published ones.

    python -m scripts.dashboards report --entity team                       every table, at scale=cpu
    python -m scripts.dashboards report --entity team --table table1 --scale paper --project mine
    python -m scripts.dashboards report --dry-run          print it as JSON; needs no account and no network

A section a table: its metrics as bars beside the published numbers, cost, learning curves, learned rates and gradient
norms. Runs that differ in nothing but the seed are one bar or line, with its range over seeds. The numbers in words are
those of the run folders below `--root`. The panels show the W&B runs of these folders; of a table without any, the
group `<paper>/<table>`. Send runs first: `tracker=wandb`, or `python -m scripts.dashboards replay` afterwards.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.run.finished import finished_below
from common.run.results import Selection
from common.run.schema import TrackerConfig
from common.run.trackers.names import EVALUATE, TRAIN, known_id
from common.tables import published
from common.tables.cells import Table, key_of
from common.tables.join import Filled, Joined, Verdict
from scripts.tables.grids import render
from scripts.tables.published_tables import SCALES, command_of, every_paper, grid_of, joined_tables, tables_named
from scripts.words import mistakes_told

if TYPE_CHECKING:
    from wandb_workspaces.reports import v2 as wr

WIDE, HIGH = 24, 8
"""Width of a report's grid and height of a panel, in its units."""
COST = {"Wall time, seconds": "cost/wall_seconds", "Peak memory, bytes": "cost/peak_memory_bytes"}
CURVES = {
    "Outer loss": ["train/outer_loss"],
    "Inner loss before and after the inner steps": ["train/inner_loss_first", "train/inner_loss_last"],
    "Gradient norm": ["train/grad_norm"],
    "Learned rates": ["rates/min", "rates/median", "rates/max"],
    "Share of negative rates": ["rates/negative_share"],
}
MAP = "plots/rates"


def metrics_of(joined: Joined) -> list[str]:
    """What the table compares, as the summaries of its runs name it; without runs, as far as a metric is of one run and
    not the best of many.
    """
    named = {metric for run in joined.runs for metric in run.results.test}
    metrics = dict.fromkeys(cell.metric for cell in joined.table.cells() if "*" not in cell.metric)
    return [f"test/{metric}" for metric in metrics if not named or metric in named]


def curves_of(joined: Joined) -> dict[str, list[str]]:
    """Title -> metrics of the curves: first what selects the weights of the table's runs."""
    metrics = dict.fromkeys(run.selected_by[0] for run in joined.runs if run.of_method) or [Selection.metric]
    return {f"Dev {metric.replace('_', ' ')}": [f"dev/{metric}"] for metric in metrics} | CURVES


def _units(table: Table) -> list[str]:
    return list(dict.fromkeys(unit for column in table.columns if (unit := table.measure(column).unit)))


def keys_of(table: Table) -> list[str]:
    """The configuration keys, besides method and seed, that tell the table's runs apart."""
    runs = [{key_of(word): word for word in words} for words, _ in table.jobs()]
    keys = dict.fromkeys(key for run in runs for key in run if key not in ("method", "seed"))
    apart = [key for key in keys if len({run.get(key) for run in runs}) > 1]
    return [key if "." in key or key == "experiment" else f"{key}.name" for key in apart]


def panels(joined: Joined) -> Iterator[Any]:
    """Bars beside the numbers in words, then cost and curves, three in a line."""
    from wandb_workspaces.reports import v2 as wr

    table, half, third = joined.table, WIDE // 2, WIDE // 3
    tall = max(2 * HIGH, 6 + len(joined.cells) // 2)
    seeds: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    metrics = metrics_of(joined)
    units = dict.fromkeys("shares of 1" if unit == "%" else unit for unit in _units(table))
    title = ", ".join([f"{', '.join(metrics)}: reproduced", *units])
    yield wr.BarPlot(title=title, metrics=list(metrics), layout=wr.Layout(0, 0, half, tall), **seeds)
    yield wr.MarkdownPanel(render(grid_of(joined), "md"), layout=wr.Layout(half, 0, half, tall))
    steps = published.known(table.paper).steps
    small: list[Any] = [
        wr.LinePlot(title=t, x="step", y=list(y), title_x=steps, **seeds) for t, y in curves_of(joined).items()
    ]
    small += [wr.BarPlot(title=title, metrics=[metric], **seeds) for title, metric in COST.items()]
    small += [wr.MediaBrowser(title="Rates by layer and inner step", media_keys=[MAP])]
    for place, panel in enumerate(small):
        panel.layout = wr.Layout(place % 3 * third, tall + place // 3 * HIGH, third, HIGH)
        yield panel


def runset(joined: Joined) -> wr.Runset:
    """The runs behind the table, grouped so that only seeds are averaged."""
    from wandb_workspaces import expr
    from wandb_workspaces.reports import v2 as wr

    table, chosen = joined.table, sent(joined)
    if chosen:  # also those that another table's sweep started
        filters = expr.And(expr.Metric("ID").isin(chosen))
    else:
        group, training = expr.Metric("Group") == _group(table), expr.Metric("JobType") != EVALUATE
        filters = expr.And(group, training, expr.Config("scale") == joined.scale)
    groupby = ["JobType", *(f"config.{key}" for key in keys_of(table))]
    return wr.Runset(name=f"{_group(table)}, scale={joined.scale}", filters=filters, groupby=groupby)


def sent(joined: Joined) -> list[str]:
    """W&B ids of the runs behind the table, as far as they have one."""
    ids = [known_id(run.folder, TRAIN) for run in joined.runs]
    return sorted(each for each in ids if each is not None)


def build(tables: Sequence[Joined], scale: str, project: str, entity: str) -> wr.Report:
    """The whole report; nothing is sent."""
    from wandb_workspaces.reports import v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for joined in tables:
        heading = f"{joined.table.where or 'Ours'}: {joined.table.title}"
        blocks += [wr.H2(heading), wr.P(wr.InlineCode(f"{command_of(joined)} tracker=wandb"))]
        blocks += [wr.PanelGrid(runsets=[runset(joined)], panels=list(panels(joined)))]
    return wr.Report(
        project=project,
        entity=entity,
        title=f"Published and reproduced, scale={scale}",
        description="Bars and lines are means over seeds with their range. Intervals and verdicts stand in the tables.",
        blocks=blocks,
        width="fluid",
    )


def as_json(report: wr.Report) -> str:
    """What saving would send."""
    model = report._to_model()  # the library shows it in no public way
    return json.dumps(model.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2)


def save(report: wr.Report, url: str | None) -> str:
    """Send it, over the report at `url` if one is given; returns its address.

    Raises:
        UserError: W&B did not take it.
    """
    from wandb_workspaces.reports import v2 as wr

    try:
        if url:
            report.id = wr.Report.from_url(url).id
        report.save()
    except Exception as error:  # noqa: BLE001 - W&B raises what it likes
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UserError(f"W&B did not take the report ({why}); --dry-run shows what was sent") from error
    return str(report.url)


def tables_of(root: Path, papers: Sequence[str], name: str | None, scale: str) -> list[Joined]:
    """Every published table that has runs at a scale, or the one of that name, with those below `root`.

    Raises:
        UserError: no such paper or table.
    """
    named = tables_named([published.read(paper) for paper in papers], name)
    wanted = [table for table in named if table.at(scale).jobs()]
    found = joined_tables(root, papers, name, scale) if finished_below(root) else []
    there = {_group(joined.table): joined for joined in found}
    return [there.get(_group(table)) or _without_runs(table, scale) for table in wanted]


def _without_runs(table: Table, scale: str) -> Joined:
    cells = [Filled(cell, verdict=Verdict.missing if cell.runs else None) for cell in table.at(scale).cells()]
    return Joined(table, scale, cells)


def _group(table: Table) -> str:
    return f"{table.paper}/{table.name}"


def show(given: argparse.Namespace) -> None:
    """Print or save.

    Raises:
        UserError: an argument that fits nothing, a missing library, or a refusal of W&B.
    """
    if not given.entity and not given.dry_run:
        raise UserError("--entity: name the W&B user or team that owns the project, or use --dry-run")
    tables = tables_of(given.root, [given.paper] if given.paper else every_paper(), given.table, given.scale)
    try:
        report = build(tables, given.scale, given.project, given.entity or "")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "wandb_workspaces":
            raise
        raise UserError("the dashboard needs wandb-workspaces (the extra `dashboard`): run `make setup`") from error
    for joined in tables:
        if unsent := len(joined.runs) - len(sent(joined)):
            remedy = f"python -m scripts.dashboards replay {given.root}"
            sys.stderr.write(f"{_group(joined.table)}: {unsent} of {len(joined.runs)} runs are not in W&B: {remedy}\n")
    sys.stdout.write((as_json(report) if given.dry_run else save(report, given.url)) + "\n")


def main(words: Sequence[str]) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.dashboards report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--paper", help="default: every paper with published numbers")
    parser.add_argument("--table", help="default: every table")
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="which runs; default: cpu")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of the runs; default: runs")
    parser.add_argument("--project", default=TrackerConfig.project, help=f"default: {TrackerConfig.project}")
    parser.add_argument("--entity", help="W&B user or team that owns the project")
    parser.add_argument("--url", help="replace this report instead of adding one")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent; no network")
    with mistakes_told():
        show(parser.parse_args(words))
