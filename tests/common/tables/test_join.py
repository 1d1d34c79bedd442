"""Published cells filled from run folders: values, intervals, pairing, verdicts."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from common.errors import UserError
from common.run import results
from common.run.items import Item, OfAll, read_items, write_of_all
from common.run.schema import schema_of
from common.tables import published, sweep
from common.tables.cells import Overrides
from common.tables.comparison import rows_of, tables_of
from common.tables.estimates import Scores
from common.tables.intervals import wilson
from common.tables.join import Joined, Verdict, join
from common.tables.kept import digest_of
from common.tables.runs import Run, read_runs, scores_of
from common.tables.summary import interval_of
from scripts.tables.__main__ import parse
from scripts.tables.grids import render
from scripts.tables.published_tables import fill, grid_of, tables_named
from tests.scripts.tables.test_tables import QUESTIONS, write_run

TABLE = """
tables:
  demo:
    title: A demonstration
    where: Table 1
    columns: {A: [x=1], B: {overrides: [x=1], metric: accuracy@answer_yes}}
    rows:
      FT-ICR: {overrides: [method=ft_icr], source: recalled, values: {A: 80, B: null}}
      RECKONING: {overrides: [method=reckoning], against: FT-ICR, source: seen, values: {A: ORDER, B: null}}
      Gain: {overrides: [method=reckoning], minus: [method=ft_icr], skip: [B]}
      No-Facts: {overrides: [method=no_facts], skip: [B]}
      Rules: {overrides: [method=shortcuts], metric: accuracy_*, once: true, skip: [B]}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance, once: true, skip: [B]}
"""


def filled(root: Path, order: int = 90, scale: str = "cpu", text: str = TABLE) -> Joined:
    table = published.parse("reckoning", text.replace("ORDER", str(order))).table("demo")
    runs = read_runs(root, None, None)[0]
    own = {run.results.method: run.keys for run in runs}

    def settings(words: Overrides) -> str:
        return digest_of(own.get(words[-1].partition("=")[2], {"none": words}))

    return join(table, runs, settings, scale)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of two methods, the better one right wherever the other is."""
    for seed, right in enumerate((36, 38, 40)):
        write_run(tmp_path, "reckoning", right, seed=seed)
        write_run(tmp_path, "ft_icr", right - 10, seed=seed)
    write_run(tmp_path, "shortcuts")
    return tmp_path


def by_name(joined: Joined) -> dict[tuple[str, str], Any]:
    return {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}


def test_values_are_means_over_seeds_and_differences_of_them(runs: Path) -> None:
    cells = by_name(filled(runs))
    assert cells["RECKONING", "A"].value == pytest.approx(95.0) and cells["RECKONING", "A"].seeds == 3
    assert cells["RECKONING", "A"].difference == pytest.approx(5.0)
    assert cells["Gain", "A"].value == pytest.approx(25.0)
    assert cells["RECKONING", "B"].value == pytest.approx(100 * (18 + 19 + 20) / 60)
    assert (cells["Rules", "A"].value, cells["Rules", "A"].best) == (pytest.approx(60.0), "bag of words")
    assert cells["Chance", "A"].value == cells["Chance", "A"].low == cells["Chance", "A"].high == 50.0


def test_the_interval_of_nothing_but_right_answers_has_a_width(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", QUESTIONS)
    cell = by_name(filled(tmp_path))["RECKONING", "A"]
    assert cell.high == 100.0 and 80 < cell.low < 95


def test_an_average_of_nothing_but_right_answers_has_a_width(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", QUESTIONS)
    text = """
tables:
  demo:
    title: A demonstration
    columns: {one: [x=1], both: {over: [[x=1], [x=2]]}}
    rows: {Ours: {overrides: [method=reckoning]}}
"""
    runs = read_runs(tmp_path, None, None)[0]
    one, both = join(
        published.parse("reckoning", text).table("demo"), runs, lambda words: digest_of(runs[0].keys), "cpu"
    ).cells
    assert both.value == both.high == 100.0
    assert both.low is not None and one.low is not None and one.low < both.low < 96


def test_options_and_words_may_stand_in_any_order() -> None:
    options, given = parse(["table=table1", "--format", "md", "scale=cpu"])
    assert (options.format, given["table"], given["scale"]) == ("md", "table1", "cpu")


def test_overrides_of_every_cell_find_runs_with_them_and_a_cells_own_win(tmp_path: Path) -> None:
    """A table of two cells, one of which has the key; runs of both as they are composed."""
    text = """
      tables:
        demo:
          title: t
          columns: {A: [+experiment=proofwriter, data.hops=2]}
          rows:
            plain: [method=reckoning]
            own: [method=reckoning, inner.eps=1e-2]
    """
    table = published.parse("reckoning", text).table("demo")
    with sweep.composing("reckoning") as compose:
        for index, words in enumerate((["inner.eps=1e-8"], ["inner.eps=1e-2"])):
            job = [f"loop.root={tmp_path}", "scale=cpu", "+experiment=proofwriter", "data.hops=2", *words]
            config = sweep.settings_of(compose(job))
            folder = tmp_path / "reckoning" / "proofwriter" / str(index)
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            (folder / "environment.json").write_text(json.dumps({"command": "x"}))
            who = results.RunIdentity("reckoning", "proofwriter", "reckoning", "cpu", 0)
            environment = {"revision": "abc", "dirty": False, "hardware": {}}
            test = {"accuracy": results.Interval(0.5, 2, 0.0, 1.0)}
            digest = results.config_hash(config, schema_of("reckoning", config))
            items = [Item(str(i), str(i), {"accuracy": (i, 1)}).to_json() for i in (0, 1)]
            results.write(folder, results.of_run(who, digest, environment, "cpu", 1.0, 1, test), items)
    runs = read_runs(tmp_path, None, None)[0]
    filled_cells = {words: [cell.value for cell in fill(table, runs, "cpu", words).cells] for words in
                    ((), ("inner.eps=1e-8",), ("inner.eps=1e-3",))}  # fmt: skip
    assert filled_cells == {(): [None, 50.0], ("inner.eps=1e-8",): [50.0, 50.0], ("inner.eps=1e-3",): [None, 50.0]}


@pytest.mark.parametrize(("order", "verdict"), [(90, Verdict.holds), (70, Verdict.fails), (80, Verdict.better)])
def test_the_verdict_compares_with_the_published_order(runs: Path, order: int, verdict: Verdict) -> None:
    cell = by_name(filled(runs, order))["RECKONING", "A"]
    assert cell.verdict is verdict
    assert cell.apart is not None and cell.apart[0] == pytest.approx(25.0) and cell.apart[1] > 0
    assert by_name(filled(runs))["RECKONING", "B"].verdict is Verdict.better, "its order was not reached"


def test_a_difference_inside_its_interval_decides_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 31)
    write_run(tmp_path, "ft_icr", 30)
    assert by_name(filled(tmp_path))["RECKONING", "A"].verdict is Verdict.open


@pytest.mark.parametrize(("order", "verdict"), [(94, Verdict.within), (90, Verdict.outside)])
def test_tolerance_counts_at_the_published_size_only(runs: Path, order: int, verdict: Verdict) -> None:
    text = TABLE.replace("{A: [x=1]", "{A: {overrides: [x=1], tolerance: 2}")
    assert by_name(filled(runs, order, "paper", text))["RECKONING", "A"].verdict is verdict
    assert by_name(filled(runs, order, "cpu", text))["RECKONING", "A"].verdict is Verdict.holds


def test_what_is_not_run_is_named_with_its_command(runs: Path) -> None:
    joined = filled(runs)
    assert joined.missing == [("x=1", "method=no_facts")]
    grid = grid_of(joined)
    line = next(line for line in grid.body if line[1] == "No-Facts")
    assert line[-1] == "not run" and line[3] == ""
    assert grid.notes[-1].endswith("python -m reckoning.train -m +sweep=demo scale=cpu seed=0,1,2 hydra/launcher=local")


def test_every_format_shows_published_reproduced_difference_and_verdict(runs: Path) -> None:
    grid = grid_of(filled(runs))
    for form in ("term", "md", "latex", "csv"):
        text = render(grid, form)
        assert all(part in text for part in ("RECKONING", "95.0", "+5.0", "ordering holds", "not reached", "80.0 r"))


def test_folders_do_not_matter(runs: Path) -> None:
    for number, run in enumerate(read_runs(runs, None, None)[0]):
        run.folder.rename(run.folder.parent / f"renamed-{number}")
    assert by_name(filled(runs))["RECKONING", "A"].seeds == 3


def test_runs_of_a_cell_are_all_there(runs: Path) -> None:
    assert {run.results.method for run in filled(runs).runs} == {"reckoning", "ft_icr", "shortcuts"}
    assert all(isinstance(run, Run) for run in filled(runs).runs)


def contexts(root: Path, method: str) -> Run:
    """A run on contexts of two lengths and two kinds, two questions a context; the longer ones are harder."""
    folder = write_run(root, method, 20)
    found = results.read(folder)
    items = []
    for index in range(40):
        length, right = (2048, index % 4 == 0) if index % 2 else (1024, index % 8 != 0)
        half = index < 20
        slices = {"length": length, "kind": "where" if half else "who", "answer": "yes" if half else "no"}
        rules = {"chance": 0.25, "last": float(length == 2048), "first": float(length == 1024), "polarity": 0.0}
        scores: dict[str, tuple[float, float]] = {f"accuracy_{name}": (value, 1) for name, value in rules.items()}
        scores = scores if method == "shortcuts" else {"accuracy": (int(right), 1)}
        items.append(Item(f"q{index}", f"c{index // 4}", scores, slices))
    test = {name: interval_of(items, name) for name in items[0].scores}
    written = results.Results(**{**vars(found), "test": test})
    results.write(folder, written, [item.to_json() for item in items])
    return next(run for run in read_runs(root, None, None)[0] if run.folder == folder)


SLICES = """
tables:
  demo:
    title: A demonstration
    columns: {1K: {metric: accuracy@length_1024}, 2K: {metric: accuracy@length_2048}, all: {metric: accuracy}}
    rows:
      Ours: {overrides: [method=ft_icr]}
      Rules: {overrides: [method=shortcuts], metric: accuracy_*@column, once: true}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance@column, once: true}
      Closed: {scales: [], source: seen, values: {1K: 12.5, 2K: {text: out of memory}}}
      Large: {overrides: [method=large], scales: [paper], source: seen, values: {1K: 99}}
"""


def test_items_are_chosen_by_their_fields_and_hang_on_their_context(tmp_path: Path) -> None:
    run = contexts(tmp_path, "ft_icr")
    whole = scores_of(run, "accuracy")
    assert whole is not None and whole.groups == tuple(sorted(f"c{i}" for i in range(10)))
    short = scores_of(run, "accuracy@length_1024")
    assert short is not None and short.value == pytest.approx(15 / 20)
    kind = scores_of(run, "accuracy@kind_who")
    assert isinstance(kind, Scores) and kind.wholes.sum() == 20
    for unknown in ("seconds", "accuracy@kind_whose", "accuracy@depth_1", "exact"):
        assert scores_of(run, unknown) is None, "no item has it"


def test_items_of_a_further_pass_count_only_where_their_field_chooses(tmp_path: Path) -> None:
    run = contexts(tmp_path, "ft_icr")
    items = read_items(run.folder)
    moved: dict[str, Any] = {"further": "length", "scores": {"accuracy": (1, 1)}}
    further = [replace(item, slices={"length": 4096, "kind": "where"}, **moved) for item in items]
    results.write(run.folder, run.results, [item.to_json() for item in (*items, *further)])
    for metric, count in {"accuracy": 40, "accuracy@kind_where": 20, "accuracy@length_4096": 40}.items():
        scores = scores_of(run, metric)
        assert isinstance(scores, Scores) and scores.wholes.sum() == count, metric
    row = rows_of(tables_of([run])[0])[0]
    assert row.items == 40 and row.interval().value == sum(item.scores["accuracy"][0] for item in items) / 40 < 1


def test_rules_are_counted_within_their_column(tmp_path: Path) -> None:
    contexts(tmp_path, "ft_icr")
    contexts(tmp_path, "shortcuts")
    cells = by_name(filled(tmp_path, text=SLICES))
    assert [cells["Rules", name].best for name in ("1K", "2K")] == ["first", "last"]
    assert (cells["Rules", "1K"].value, cells["Rules", "all"].value) == (100.0, 50.0)
    assert cells["Chance", "2K"].value == cells["Chance", "2K"].low == cells["Chance", "2K"].high == 25.0
    assert cells["Ours", "2K"].value == pytest.approx(0.0)


def test_rows_that_cannot_run_show_what_was_published(tmp_path: Path) -> None:
    contexts(tmp_path, "ft_icr")
    table = published.parse("reckoning", SLICES).table("demo")
    assert len(table.jobs()) == 3 and len(table.at("cpu").jobs()) == 2 and len(table.at("paper").jobs()) == 3
    joined = join(table.at("cpu"), read_runs(tmp_path, None, None)[0], lambda words: "", "cpu")
    lines = {(line[1], line[0]): line for line in grid_of(joined).body}
    assert lines["Closed", "1K"][2:4] == ["12.5", ""] and lines["Closed", "1K"][-1] == ""
    assert lines["Closed", "2K"][2] == "out of memory" and lines["Large", "1K"][2] == "99.0"
    assert ("method=large",) not in joined.missing


def test_a_comparison_of_runs_has_kinds_and_shares_for_chance(tmp_path: Path) -> None:
    contexts(tmp_path, "ft_icr")
    contexts(tmp_path, "shortcuts")
    rows = {row.title: row for row in rows_of(tables_of(read_runs(tmp_path, None, None)[0])[0])}
    assert set(rows["FT-ICR (multi-task)"].by_slice()) == {"yes", "no"}
    assert rows["Chance"].interval().value == 0.25 and rows["Shortcut: last"].interval().value == 0.5


def test_a_name_chooses_among_all_papers() -> None:
    papers = [published.parse(name, SLICES.replace("demo", f"of_{name}")) for name in ("one", "two")]
    assert [table.paper for table in tables_named(papers, "of_two")] == ["two"]
    assert len(tables_named(papers, None)) == 2
    with pytest.raises(UserError, match="table=of_three: one has of_one; two has of_two"):
        tables_named(papers, "of_three")


# ---- any metric: columns up and down, counts, and numbers that only all items together have

VIDEO = """
tables:
  demo:
    title: Video
    where: Table 1
    unit: dB
    columns:
      PSNR: {metric: psnr}
      gap 4: {metric: psnr@gap_4}
      FVD: {metric: fvd, unit: "", higher_is_better: false}
      cuts: {metric: cuts, unit: "", kind: count, higher_is_better: false}
      robust: {metric: pgd20, unit: "%"}
      worst: {metric: worst, unit: "%"}
    rows:
      Base: {overrides: [method=ft_icr], source: seen, values: {PSNR: 20, FVD: 300}}
      Ours: {overrides: [method=reckoning], against: Base, source: seen, values: {PSNR: 25, FVD: 200}}
"""
CLIPS = 30


def video(root: Path, method: str, better: float, seed: int) -> None:
    """A run on clips: a dB more, a distance less, by what it is better; a cut in two clips of three."""
    folder = write_run(root, method, 10, seed=seed)
    noise = np.random.default_rng(seed)
    items = []
    for clip in range(CLIPS):
        scores: dict[str, tuple[float, float]] = {"psnr": (20 + better + clip % 5 + 0.1 * noise.normal(), 1)}
        scores |= {"cuts": (clip % 3, 1), "pgd20": (1, 1)}
        items.append(Item(f"c{clip}", f"c{clip}", scores, {"gap": 4 if clip % 2 else 2}))
    distances = {f"c{clip}": 300 - 50 * better + (clip % 7 - 3) * 0.5 + 0.05 * noise.normal() for clip in range(CLIPS)}
    worst = OfAll(0.0, dict.fromkeys(distances, 0.0), count=10)  # ten clips of a class, all of them wrong
    write_of_all(folder, {"fvd": OfAll(sum(distances.values()) / CLIPS, distances), "worst": worst})
    results.write(folder, results.read(folder), [item.to_json() for item in items])


def test_columns_go_up_and_down_side_by_side_and_their_intervals_are_those_of_their_kind(tmp_path: Path) -> None:
    for seed in range(3):
        video(tmp_path, "ft_icr", 0.0, seed)
        video(tmp_path, "reckoning", 2.0, seed)
    joined = filled(tmp_path, text=VIDEO)
    cells = by_name(joined)
    psnr, fvd, cuts = (cells["Ours", name] for name in ("PSNR", "FVD", "cuts"))
    assert psnr.value == pytest.approx(24, abs=0.2) and psnr.verdict is Verdict.holds
    assert fvd.value == pytest.approx(200, abs=0.2) and fvd.verdict is Verdict.holds
    assert fvd.apart is not None and fvd.apart[0] == pytest.approx(-100, abs=0.2) and fvd.apart[2] < -99
    assert cuts.value == 1.0 and cuts.low < 1.0 < cuts.high and cuts.verdict is Verdict.open
    assert cells["Ours", "gap 4"].verdict is Verdict.better, "its order is not known, and it goes up"
    robust = cells["Ours", "robust"]
    assert robust.value == robust.high == 100.0 and 80 < robust.low < 95, "a share, even where the table's unit is dB"
    worst = cells["Ours", "worst"]
    assert (worst.low, worst.high) == pytest.approx((0.0, 100 * wilson(0.0, 10, 1.96)[1])), "seeds share the clips"
    assert all(cell.counted for cell in joined.cells)


def test_less_is_better_where_the_column_says_so(tmp_path: Path) -> None:
    for seed in range(3):
        video(tmp_path, "ft_icr", 2.0, seed)
        video(tmp_path, "reckoning", 0.0, seed)
    cells = by_name(filled(tmp_path, text=VIDEO.replace("PSNR: 25, FVD: 200", "PSNR: null, FVD: null")))
    assert (cells["Ours", "PSNR"].verdict, cells["Ours", "FVD"].verdict) == (Verdict.worse, Verdict.worse)
    assert by_name(filled(tmp_path, text=VIDEO))["Ours", "FVD"].verdict is Verdict.fails


def test_columns_of_different_units_say_theirs_in_every_format(tmp_path: Path) -> None:
    video(tmp_path, "reckoning", 2.0, 0)
    grid = grid_of(filled(tmp_path, text=VIDEO))
    assert grid.head[3] == "reproduced" and {line[0] for line in grid.body} == {
        "PSNR dB ↑", "gap 4 dB ↑", "FVD ↓", "cuts ↓", "robust % ↑", "worst % ↑"
    }  # fmt: skip
    assert all("PSNR dB ↑" in render(grid, form) for form in ("term", "md", "csv"))
    assert r"PSNR dB $\uparrow$ &" in render(grid, "latex")


def test_a_column_that_takes_a_quality_for_a_share_is_named(tmp_path: Path) -> None:
    video(tmp_path, "reckoning", 2.0, 0)
    with pytest.raises(UserError, match="row Ours, column PSNR: psnr is 2.*, which is no share of 1; give the column"):
        filled(tmp_path, text=VIDEO.replace("{metric: psnr}", '{metric: psnr, unit: "%"}'))


def test_the_best_of_several_metrics_follows_the_direction_of_its_column(tmp_path: Path) -> None:
    write_run(tmp_path, "shortcuts")
    text = """
tables:
  demo:
    title: A demonstration
    unit: ""
    columns: {up: {metric: accuracy_*}, down: {metric: accuracy_*, higher_is_better: false}, none: {metric: psnr_*}}
    rows: {Rules: {overrides: [method=shortcuts]}}
"""
    cells = by_name(filled(tmp_path, text=text))
    assert (cells["Rules", "up"].best, cells["Rules", "down"].best) == ("bag of words", "polarity")
    assert cells["Rules", "none"].value is None


CLAIMS = VIDEO.replace(
    "    rows:\n",
    """    rows:
      Base again: {overrides: [method=ft_icr], against: Ours, claim: the base is better}
      Ours again: {overrides: [method=reckoning], against: Base, claim: ours is better}
      Cheap: {overrides: [method=ft_icr], skip: [FVD, cuts, worst, robust, gap 4], most: 23, claim: "at most 23"}
      Dear: {overrides: [method=ft_icr], skip: [FVD, cuts, worst, robust, gap 4], most: 21, claim: "at most 21"}
      Close: {overrides: [method=ft_icr], skip: [FVD, cuts, worst, robust, gap 4], most: 22, claim: "at most 22"}
""",
)


def test_a_claim_holds_or_fails_by_the_direction_of_its_column_whatever_was_published(tmp_path: Path) -> None:
    for seed in range(3):
        video(tmp_path, "ft_icr", 0.0, seed)
        video(tmp_path, "reckoning", 2.0, seed)
    joined = filled(tmp_path, text=CLAIMS)
    verdicts = {place: cell.verdict for place, cell in by_name(joined).items()}
    for column in ("PSNR", "FVD"):
        assert verdicts["Ours again", column] is Verdict.holds and verdicts["Base again", column] is Verdict.fails
    assert verdicts["Ours again", "cuts"] is Verdict.open
    capped = [verdicts[row, "PSNR"] for row in ("Cheap", "Dear", "Close")]
    assert capped == [Verdict.holds, Verdict.fails, Verdict.open]
    assert "Ours again: ours is better." in grid_of(joined).notes


def test_a_claim_without_runs_to_be_against_is_not_decided_by_its_own(tmp_path: Path) -> None:
    video(tmp_path, "reckoning", 2.0, 0)
    cells = by_name(filled(tmp_path, text=CLAIMS))
    assert cells["Ours again", "PSNR"].value is not None and cells["Ours again", "PSNR"].verdict is None


def test_each_row_tells_a_property_of_its_runs_where_the_paper_names_one(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = filled(runs)
    plain = grid_of(joined)
    told = published.Paper("reckoning", {}, {}, told="faithful")
    monkeypatch.setattr(published, "known", lambda _: told)
    monkeypatch.setattr(Run, "typed", property(lambda run: SimpleNamespace(faithful=run.results.method != "ft_icr")))
    grid = grid_of(joined)
    assert [*plain.head, "faithful"] == grid.head and [line[:-1] for line in grid.body] == plain.body
    own = {line[1]: line[-1] for line in grid.body}
    assert (own["FT-ICR"], own["RECKONING"], own["No-Facts"]) == ("false", "true", "")
