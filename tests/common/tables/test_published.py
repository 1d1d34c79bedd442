"""`published.yaml`: what is merged into a cell, and what a mistake in it says."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.tables import published
from common.tables.cells import Measure, Published, Role, Source, merged
from common.tables.intervals import Kind

TEXT = """
tables:
  demo:
    title: A demonstration
    overrides: [+experiment=demo]
    columns:
      A: [data.hops=2]
      B: {overrides: [data.hops=3], metric: accuracy@depth_3}
      mean: {over: [[data.hops=2], [data.hops=3]]}
    rows:
      base: {overrides: [method=base], source: seen, values: {A: 90, B: null}}
      ours: {overrides: [method=ours], against: base, source: recalled, values: {A: {value: 95, source: derived}}}
      gain: {overrides: [method=ours], minus: [method=base], skip: [mean]}
      rules: {overrides: [method=rules], metric: accuracy_*, once: true}
not_reached: {Table 9: a picture}
"""


def parsed(text: str = TEXT) -> published.Paper:
    return published.parse("paper", text)


def test_a_cell_has_the_overrides_of_table_column_and_row() -> None:
    cells = {(cell.row, cell.column): cell for cell in parsed().table("demo").cells()}
    assert cells["base", "A"].runs == (("+experiment=demo", "data.hops=2", "method=base"),)
    assert (cells["base", "A"].metric, cells["base", "B"].metric) == ("accuracy", "accuracy@depth_3")
    assert cells["rules", "B"].metric == "accuracy_*"
    assert cells["base", "mean"].runs == tuple(
        ("+experiment=demo", "method=base", f"data.hops={hops}") for hops in (2, 3)
    )
    assert cells["gain", "A"].minus == (("+experiment=demo", "data.hops=2", "method=base"),)
    assert ("gain", "mean") not in cells


def test_what_a_row_sets_holds_for_what_its_column_averages_too() -> None:
    text = TEXT.replace("rules: {overrides: [method=rules]", "rules: {overrides: [method=rules, data.hops=9]")
    cells = {(cell.row, cell.column): cell.runs for cell in parsed(text).table("demo").cells()}
    assert cells["rules", "mean"] == 2 * (("+experiment=demo", "method=rules", "data.hops=9"),)
    text = text.replace("metric: accuracy_*, once: true", "over: [[data.hops=4]]")
    cells = {(cell.row, cell.column): cell.runs for cell in parsed(text).table("demo").cells()}
    assert cells["rules", "mean"] == (("+experiment=demo", "method=rules", "data.hops=4"),)


def test_published_unreached_and_own_cells_are_told_apart() -> None:
    cells = {(cell.row, cell.column): cell.published for cell in parsed().table("demo").cells()}
    assert cells["base", "A"] == Published(90.0, Source.seen)
    assert cells["base", "B"] == Published(None)
    assert cells["ours", "A"] == Published(95.0, Source.derived)
    assert cells["ours", "B"] is None
    assert parsed().not_reached == {"Table 9": "a picture"}


def test_jobs_are_each_run_once_and_can_be_chosen() -> None:
    table = parsed().table("demo")
    jobs = table.jobs()
    assert len(jobs) == len({words for words, _ in jobs}) == 6
    assert all(once == ("method=rules" in words) for words, once in jobs)
    chosen = [("+experiment=demo", "data.hops=2", f"method={name}") for name in ("ours", "base")]
    assert [words for words, _ in table.jobs(["gain"], ["A"])] == chosen
    with pytest.raises(UserError, match=r"rows=\['nobody'\] of paper demo: it has base, ours"):
        table.jobs(["nobody"])


def test_a_key_that_comes_again_takes_its_last_value_with_or_without_plus() -> None:
    assert merged(["+experiment=a", "x=1"], ["experiment=b"]) == ("experiment=b", "x=1")


VISION = """
title: OURS
steps: rounds
methods:
  ours: {role: method}
  base: {role: baseline, ignores: [inner]}
  rules: {role: rule}
rules: {accuracy_chance: {role: chance, title: Chance}}
comparison:
  items: clips
  by: {slice: gap, first: [4, 2]}
  columns:
    PSNR: {metric: psnr, unit: dB}
    FVD: {metric: fvd, unit: "", higher_is_better: false}
    cuts: {unit: per clip, kind: count, higher_is_better: false}
tables:
  video:
    title: Video
    overrides: [+experiment=demo]
    unit: dB
    columns:
      PSNR: {metric: psnr}
      FVD: {metric: fvd, unit: "", higher_is_better: false}
      Gain: {metric: gain, unit: "%", kind: quality}
    rows:
      Base: [method=base]
      Ours: {overrides: [method=ours], against: Base}
      Ours, frozen: {overrides: [method=ours], role: control}
      Own: [method=own]
      Rules: {overrides: [method=rules], metric: accuracy_*}
      Chance: {overrides: [method=rules], metric: accuracy_chance, role: chance}
"""


def test_unit_direction_and_kind_belong_to_a_column() -> None:
    table = parsed(VISION).table("video")
    assert [table.measure(name) for name in table.columns] == [
        Measure("dB", True, Kind.quality), Measure("", False, Kind.quality), Measure("%", True, Kind.quality),
    ]  # fmt: skip
    assert [table.heading(name) for name in table.columns] == ["PSNR dB ↑", "FVD ↓", "Gain % ↑"]
    assert table.shared is None
    usual = parsed().table("demo")
    assert usual.shared == Measure("%", True, Kind.share) and usual.heading("A") == "A"
    assert [table.measure(name).text(31.26) for name in table.columns] == ["31.3", "31.3", "31.3"]
    assert table.measure("FVD").best({"a": 3.0, "b": 2.0}) == "b"


def test_a_row_has_the_role_of_its_method_unless_it_says_its_own() -> None:
    paper = parsed(VISION)
    table = paper.table("video")
    assert {name: table.role(name) for name in table.rows} == {
        "Base": Role.baseline, "Ours": Role.method, "Ours, frozen": Role.control, "Own": Role.method,
        "Rules": Role.rule, "Chance": Role.chance,
    }  # fmt: skip
    assert (paper.first(Role.method), paper.first(Role.rule), paper.first(Role.control)) == ("ours", "rules", "")
    assert paper.method("base").ignores == ("inner",) and paper.method("own").role is Role.method


def test_a_paper_names_what_comparisons_show() -> None:
    shown = parsed(VISION).comparison
    assert (shown.items, shown.by, shown.first) == ("clips", "gap", ("4", "2"))
    assert {title: (each.metric, each.measure) for title, each in shown.columns.items()} == {
        "PSNR": ("psnr", Measure("dB", True, Kind.quality)), "FVD": ("fvd", Measure("", False, Kind.quality)),
        "cuts": ("cuts", Measure("per clip", False, Kind.count)),
    }  # fmt: skip
    assert parsed(VISION).measure("fvd") == Measure("", False, Kind.quality)
    assert published.known("no_such_package").comparison == published.Comparison() == parsed().comparison
    assert (parsed(VISION).steps, parsed().steps) == ("rounds", "outer steps")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Base: [method=base]", "Base: {overrides: [method=base], unit: s}", "rows Base: unit belongs to columns"),
        ("PSNR: {metric: psnr}", "PSNR: {metric: psnr, role: rule}", "columns PSNR: role belongs to rows"),
        ("role: control", "role: baselin", "rows Ours, frozen: role='baselin'; use one of method, baseline, control"),
        ("kind: quality", "kind: distance", "columns Gain: kind='distance'; use one of share, count, quality"),
        ("kind: count", "kind: counts", "comparison, cuts: kind='counts'"),
        ("{metric: psnr, unit: dB}", "{metrik: psnr}", "comparison, PSNR: unknown key metrik"),
        ("  items: clips", "  item: clips", "comparison: unknown key item"),
        ("ours: {role: method}", "ours: {rolle: method}", "methods, ours: unknown key rolle"),
    ],
)
def test_mistakes_in_roles_and_columns_name_their_place(old: str, new: str, message: str) -> None:
    assert old in VISION
    with pytest.raises(UserError) as caught:
        parsed(VISION.replace(old, new, 1))
    assert str(caught.value).startswith("paper/published.yaml: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tables:", "tabels:", "'tables' is needed"),
        ("against: base", "against: nobody", "demo, row ours: nobody is none of base"),
        ("values: {A: 90,", "values: {Z: 90,", "demo, row base: Z is none of A, B"),
        ("title: A", "titel: A", "unknown key titel"),
        ("    title: A demonstration\n", "", "title"),
        ("skip: [mean]", "skip: mean", "not a list of words"),
        ("A: [data.hops=2]", "A: 3", "columns A: give a list of overrides"),
        ("    columns:", "    colums:", "needs a mapping of columns"),
        ("A: 90", "A: ninety", "'ninety' is not a number"),
        ("source: seen", "source: rumour", "source='rumour'; use one of seen"),
        ("- broken: [", "- broken: [", ""),
    ],
)
def test_mistakes_name_their_place(old: str, new: str, message: str) -> None:
    text = TEXT.replace(old, new, 1) if old in TEXT else TEXT + old
    with pytest.raises(UserError, match=r"paper/published.yaml") as caught:
        list(parsed(text).table("demo").cells())
    assert message in str(caught.value)


def test_a_cell_without_overrides_or_metric_is_refused() -> None:
    text = "tables: {demo: {title: t, metric: '', columns: {A: []}, rows: {one: {overrides: [x=1]}}}}"
    with pytest.raises(UserError, match="row one, column A: no metric"):
        list(parsed(text).table("demo").cells())
    with pytest.raises(UserError, match="no overrides"):
        list(parsed(text.replace("metric: ''", "metric: m").replace("[x=1]", "[]")).table("demo").cells())


@pytest.mark.parametrize(
    "paper", sorted(path.parent.name for path in Path(__file__).parents[3].glob("*/published.yaml"))
)
def test_every_published_cell_has_a_metric_and_overrides(paper: str) -> None:
    content = published.read(paper)
    for table in content.tables.values():
        cells = list(table.cells())
        assert cells and all(cell.metric and all(cell.runs) for cell in cells)
        if table.where:
            assert any(cell.published is not None for cell in cells), f"{table.name} says it is {table.where}"
    assert all(reason for reason in content.not_reached.values())


def test_an_unknown_paper_is_named() -> None:
    with pytest.raises(UserError, match="paper=nobody: there is no nobody/published.yaml"):
        published.read("nobody")


def test_a_claim_says_beside_what_it_is_made() -> None:
    text = TEXT.replace(
        "gain: {overrides: [method=ours], minus: [method=base]", "gain: {overrides: [method=ours], claim: x"
    )
    with pytest.raises(UserError, match="row gain: a claim needs the row that it is `against`, or a value that is its"):
        parsed(text)
    with pytest.raises(UserError, match="columns A: claim belongs to rows"):
        parsed(TEXT.replace("A: [data.hops=2]", "A: {overrides: [data.hops=2], claim: x}"))
