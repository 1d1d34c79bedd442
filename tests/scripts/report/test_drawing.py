"""How charts are drawn: ticks, points, colours, means over seeds."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.run import results
from common.run.results import Interval
from common.tables import published
from common.tables.join import Filled, Joined
from common.tables.runs import Run
from scripts.report import axes, charts, curves, rates, worth
from scripts.report.colours import Colours
from tests.scripts.report.pages import PUBLISHED


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0, 2000, "0 500 1000 1500 2000"), (0.03, 0.11, "0.02 0.04 0.06 0.08 0.1 0.12")]
)
def test_linear_axes_have_round_ticks(low: float, high: float, ticks: str) -> None:
    axis = charts.linear(low, high, "")
    assert " ".join(text for _, text in axis.ticks) == ticks
    assert axis.low <= low < high <= axis.high and (axis.share(axis.low), axis.share(axis.high)) == (0, 1)


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0.06, 0.9, "0.05 0.1 0.2 0.5 1"), (1, 3e4, "1 10 100 1000 10000"), (3, 3, "2 5")]
)
def test_logarithmic_axes_hold_both_ends(low: float, high: float, ticks: str) -> None:
    axis = charts.logarithmic(low, high, "")
    assert " ".join(text for _, text in axis.ticks) == ticks
    assert axis.low <= low <= high <= axis.high * (1 + 1e-9)
    assert charts.doubling(1, 64, "").ticks[-1] == (64.0, "64")


def test_points_lie_where_their_axes_say() -> None:
    x, y = charts.places(["a", "b"], ""), charts.linear(0, 100, "")
    series = charts.Series("s", "c1", [charts.Point(0, 0, tip="low"), charts.Point(1, 100, tip="high")], "circle")
    drawn = charts.lines([series], x, y, "t")
    left = charts.LEFT + 0.25 * (charts.WIDTH - charts.LEFT - charts.RIGHT)
    assert f'cx="{left:.1f}" cy="{charts.HEIGHT - charts.BOTTOM:.1f}"' in drawn
    assert f'cy="{charts.TOP:.1f}"' in drawn and 'data-tip="high"' in drawn


def test_methods_keep_their_colour_and_variants_share_it(paper: published.Paper) -> None:
    colours = Colours(list(paper.tables.values()))
    assert [colours.kind(name) for name in ("reckoning", "ft_icr", "reckoning_st")] == ["c1", "c2", "c3"]
    assert colours.kind("ft_icr_cached") == "c2" and colours.kind("shortcuts") == charts.QUIET
    assert colours.kind("another") == "c4"


def run_with_curve(folder: Path, values: Mapping[int, float]) -> Run:
    folder.mkdir()
    lines = [json.dumps({"step": step, "dev/accuracy": value}) for step, value in values.items()]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    made = results.Results("reckoning", "demo", "ours", "cpu", 0, "", "abc", False, {}, 1.0, 0, {})
    return Run(folder, made, {}, {})


def curve(*runs: Run) -> list[tuple[int, float, float, float]]:
    return curves.curve(curves.Group("", "", "", runs, True))


def test_curves_are_means_over_the_steps_that_all_seeds_have(tmp_path: Path) -> None:
    runs = [
        run_with_curve(tmp_path / "a", {0: 0.30, 10: 0.2, 20: 0.6}),
        run_with_curve(tmp_path / "b", {0: 0.31, 10: 0.8}),
    ]
    half = 12.706 * 0.5  # Student's quantile of one degree of freedom, times the standard error, in per cent
    first, second = curve(*runs)
    assert first == (0, *(pytest.approx(30.5 + sign * half, abs=1e-2) for sign in (0, -1, 1)))
    assert second == (10, pytest.approx(50), 0.0, 100.0), "a share"
    thinned = curve(run_with_curve(tmp_path / "c", {step: step / 1000 for step in range(1001)}))
    assert len(thinned) == curves.MOST and (thinned[0][0], thinned[-1][0]) == (0, 1000)
    assert curve(run_with_curve(tmp_path / "d", {})) == []


def test_curves_follow_the_metric_that_selects_and_its_direction(tmp_path: Path) -> None:
    run = run_with_curve(tmp_path / "a", {0: 0.9})
    chosen = {"selection": {"metric": "fid", "higher_is_better": False}}
    (run.folder / "environment.json").write_text(json.dumps(chosen))
    records = [{"step": step, "dev/fid": value} for step, value in ((0, 250.0), (10, 31.5), (20, 40.0))]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    group = curves.Group("", "New way", "reckoning", [run], True)
    assert [point[1] for point in curves.curve(group)] == [250.0, 31.5, 40.0], "no share: not clipped, not in per cent"
    assert curves.note([group]).startswith("Fid on the dev split;")
    table = published.parse("reckoning", PUBLISHED).table("main")
    drawn = curves.figure(Joined(table, "cpu", []), [group], Colours([table]))
    assert drawn is not None and drawn.numbers is not None and "dev fid" in drawn.panels[0][1]
    assert [cell.text for cell in drawn.numbers.lines[0].cells] == ["New way", "1", "250", "31.5", "10", "40"]


def test_rates_that_were_not_learned_are_not_drawn(root: Path, joined: list[Joined]) -> None:
    groups = dict((each.table.name, own) for each, own in curves.groups_of(joined))["levels"]
    learned = next(group for group in groups if group.method == "reckoning")
    assert rates.figure(joined[0], [learned]) is not None
    path = learned.runs[0].folder / "rates.json"
    record = json.loads(path.read_text())
    record["records"][1]["values"] = record["records"][0]["values"]
    copy = root.parent / "static"
    copy.mkdir()
    (copy / "rates.json").write_text(json.dumps(record))
    still = replace(learned, runs=[replace(learned.runs[0], folder=copy)])
    assert rates.figure(joined[0], [still]) is None


LENGTHS = """
comparison: {columns: {accuracy: {metric: accuracy}, last: {metric: last, unit: dB}}, worth: last}
tables:
  gaps:
    title: By gap
    axis: gap
    overrides: [+experiment=proofwriter_repaired]
    columns: {"3 out, 0": {metric: a}, "3 out, 2": {metric: b}, "4 out, 6": {metric: c}}
    rows:
      Own: [method=reckoning, x=1]
      "Own, swapped": {overrides: [method=reckoning, x=1], role: control}
      Other: [method=ft_icr, x=2]
      "Other, swapped": {overrides: [method=ft_icr, x=2], role: control}
"""


def test_columns_that_share_a_beginning_are_a_panel_and_rows_of_one_method_are_told_apart() -> None:
    table = published.parse("reckoning", LENGTHS).table("gaps")
    filled = [Filled(cell, 0.5, 0.4, 0.6, 1) for cell in table.cells()]
    drawn = axes.figure(Joined(table, "cpu", filled), Colours([table]))
    assert [title for title, _ in drawn.panels] == ["Own, 3 out", "Own, 4 out", "Other, 3 out", "Other, 4 out"]
    assert [text for _, text in drawn.legend] == ["Own", "Own, swapped", "Other", "Other, swapped"]
    assert len({look for look, _ in drawn.legend}) == 4
    assert ">0</text>" in drawn.panels[0][1] and ">6</text>" in drawn.panels[1][1]


def test_cost_stands_against_the_column_that_the_paper_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = published.parse("reckoning", LENGTHS)
    monkeypatch.setattr(worth, "known", lambda name: paper)
    table, groups = paper.table("gaps"), []
    for row, seconds in (("Own", 10.0), ("Other", 200.0)):
        made = [
            results.Results(
                "reckoning",
                "demo",
                "ours",
                "cpu",
                seed,
                "",
                "abc",
                False,
                {},
                seconds,
                0,
                {"last": Interval(seed + 5, 9, 4, 8)},
            )
            for seed in (0, 1)
        ]
        runs = [Run(tmp_path / row / str(each.seed), each, {}, {}) for each in made]
        groups.append(curves.Group("", row, row.lower(), runs, True))
    (drawn,) = worth.figures([(Joined(table, "cpu", []), groups)], Colours([table]))
    assert drawn.name == "Cost against last, reckoning, scale=cpu" and [text for _, text in drawn.legend] == [
        "own",
        "other",
    ]
    ((title, chart),) = drawn.panels
    assert title == "demo" and "Own: 5.5 in 10 s" in chart and "Other: 5.5 in 200 s" in chart and "last dB" in chart
    assert worth.figures([(Joined(table, "cpu", []), groups[:1])], Colours([table])) == []
    with pytest.raises(UserError, match="worth=nothing is none of its columns accuracy, last"):
        published.parse("reckoning", LENGTHS.replace("worth: last", "worth: nothing"))
