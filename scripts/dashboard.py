"""Build the W&B report that sets each table's reproduced numbers beside the published ones.

    python -m scripts.dashboard --entity team                       every table, at scale=cpu
    python -m scripts.dashboard --entity team --table table1 --scale paper --project mine
    python -m scripts.dashboard --dry-run                           print it as JSON; needs no account and no network

Per table: accuracy by row as bars beside the published numbers, cost, learning curves, learned rates and gradient
norms. Runs that differ in nothing but the seed are one bar or line, with the range over seeds. It shows the runs of the
group `<paper>/<table>`, as `tracker=wandb` and `python -m scripts.replay_wandb` send them. Needs the extra `dashboard`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.schema import TrackerConfig
from common.tracker import EVALUATE

if TYPE_CHECKING:
    from wandb_workspaces.reports import v2 as wr

COLUMNS = 24
"""Width of a report's grid."""
SCALES = ("paper", "gpu", "cpu")
ABSENT = "–"
WITHOUT_REASONING = ("test/accuracy_chance", "test/accuracy_majority")
CURVES = {
    "Dev accuracy": ["dev/accuracy"],
    "Outer loss": ["train/outer_loss"],
    "Inner loss, first and last step": ["train/inner_loss_first", "train/inner_loss_last"],
    "Learned rates": ["rates/min", "rates/median", "rates/max"],
    "Share of negative rates": ["rates/negative_share"],
    "Gradient norm": ["train/grad_norm"],
}


@dataclass(frozen=True)
class PublishedTable:
    """What a section of the dashboard needs to know of a published table."""

    paper: str
    name: str
    """The sweep that runs it."""
    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[str]]
    """Title -> a published value a column, as text with its source mark."""
    metrics: tuple[str, ...]
    """What it compares, named as in the summaries of runs: test/accuracy."""
    keys: tuple[str, ...]
    """Configuration keys, besides the method, that tell its cells apart: experiment, data.distractors."""


def markdown(table: PublishedTable) -> str:
    """The published numbers as a Markdown table."""
    head = ["published", *table.columns]
    body = [[title, *(value or ABSENT for value in values)] for title, values in table.rows.items()]
    lines = [head, ["---", *["---:"] * len(table.columns)], *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def panels(table: PublishedTable) -> Iterator[Any]:
    """Bars beside the published numbers, then cost, then curves; three columns of them."""
    from wandb_workspaces.reports import v2 as wr

    half, third = COLUMNS // 2, COLUMNS // 3
    tall = max(8, 4 + len(table.rows))
    over_seeds: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}

    def bars(title: str, metrics: Iterable[str], layout: wr.Layout) -> wr.BarPlot:
        return wr.BarPlot(title=title, metrics=list(metrics), layout=layout, **over_seeds)

    yield bars(f"Reproduced: {', '.join(table.metrics)}", table.metrics, wr.Layout(x=0, y=0, w=half, h=tall))
    yield wr.MarkdownPanel(markdown=markdown(table), layout=wr.Layout(x=half, y=0, w=half, h=tall))
    costs = {"Wall time (s)": ["cost/wall_seconds"], "Peak memory (bytes)": ["cost/peak_memory_bytes"]}
    for place, (title, metrics) in enumerate({**costs, "Without reasoning": list(WITHOUT_REASONING)}.items()):
        yield bars(title, metrics, wr.Layout(x=place * third, y=tall, w=third, h=8))
    for place, (title, metrics) in enumerate(CURVES.items()):
        layout = wr.Layout(x=place % 3 * third, y=tall + 8 + place // 3 * 8, w=third, h=8)
        yield wr.LinePlot(title=title, x="step", y=list(metrics), title_x="outer step", layout=layout, **over_seeds)
    below = tall + 8 + -(-len(CURVES) // 3) * 8
    yield wr.MediaBrowser(
        title="Rates by layer and step", media_keys=["plots/rates"], layout=wr.Layout(x=0, y=below, w=COLUMNS, h=10)
    )


def runset(table: PublishedTable, scale: str) -> wr.Runset:
    """The training runs of a table at one scale, grouped so that only seeds are averaged."""
    from wandb_workspaces import expr
    from wandb_workspaces.reports import v2 as wr

    chosen = expr.And(
        expr.Metric("Group") == f"{table.paper}/{table.name}",
        expr.Metric("JobType") != EVALUATE,
        expr.Config("scale") == scale,
    )
    return wr.Runset(
        name=f"{table.paper}/{table.name}, scale={scale}",
        filters=chosen,
        groupby=["JobType", *(f"config.{key}" for key in table.keys)],
    )


def build(tables: Sequence[PublishedTable], scale: str, project: str, entity: str) -> wr.Report:
    """The whole report; nothing is sent."""
    from wandb_workspaces.reports import v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for table in tables:
        command = f"python -m {table.paper}.train -m +sweep={table.name} scale={scale} seed=0,1,2 tracker=wandb"
        grid = wr.PanelGrid(runsets=[runset(table, scale)], panels=list(panels(table)))
        blocks += [wr.H2(f"{table.paper}: {table.title}"), wr.P(wr.InlineCode(command)), grid]
    return wr.Report(
        project=project,
        entity=entity,
        title=f"Published against reproduced, scale={scale}",
        description="Bars and lines are means over seeds, with their range. metrics.jsonl of the runs is the truth.",
        blocks=blocks,
        width="fluid",
    )


def as_json(report: wr.Report) -> str:
    """What saving would send."""
    spec = report._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)  # the library has no public way
    return json.dumps(spec, indent=2)


def published_tables(paper: str | None, name: str | None) -> list[PublishedTable]:
    """The tables of `<paper>/published.yaml`; without a paper all that are there, without a name all of a paper.

    Raises:
        UserError: no such table.
    """
    raise UserError("no published numbers yet")


def main(words: Sequence[str] | None = None) -> None:
    """Print or save."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.dashboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paper", help="default: every paper with published numbers")
    parser.add_argument("--table", help="default: every table")
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="which runs; default: cpu")
    parser.add_argument("--project", default=TrackerConfig.project, help=f"default: {TrackerConfig.project}")
    parser.add_argument("--entity", help="W&B user or team; needed to save")
    parser.add_argument("--url", help="replace this report instead of adding one")
    parser.add_argument("--dry-run", action="store_true", help="print what would be saved; no network")
    given = parser.parse_args(words)
    try:
        if not given.entity and not given.dry_run:
            raise UserError("--entity: name the W&B user or team that owns the project, or use --dry-run")
        report = build(published_tables(given.paper, given.table), given.scale, given.project, given.entity or "")
        sys.stdout.write((as_json(report) if given.dry_run else save(report, given.url)) + "\n")
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        _stop("the dashboard needs wandb-workspaces: pip install -c requirements.lock 'innerloop[dashboard]'")
    except UserError as error:
        _stop(str(error))


def save(report: wr.Report, url: str | None) -> str:
    """Send it, over the report at `url` if one is given; returns its address.

    Raises:
        UserError: W&B refused it.
    """
    from wandb_workspaces.reports import v2 as wr

    try:
        if url:
            report.id = wr.Report.from_url(url).id
        report.save()
    except Exception as error:  # noqa: BLE001 - W&B raises what it likes
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"W&B did not take the report ({type(error).__name__}: {reason}); --dry-run shows it"
        ) from error
    return str(report.url)


def _stop(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
