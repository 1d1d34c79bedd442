"""The HTML report: its numbers are those of the tables, what is missing is named, it needs nothing but its file."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from common.tables.join import Joined
from scripts.report import __main__ as report
from scripts.tables.published_tables import command_of, grid_of
from tests.scripts.report.pages import COMMAND, Found

ROOT = Path(__file__).parents[3]


def test_every_number_is_the_one_of_the_tables(found: Found, joined: list[Joined]) -> None:
    assert [(each.table.name, bool(each.runs)) for each in joined] == [
        ("levels", True),
        ("main", True),
        ("empty", False),
    ]
    for each in joined[:2]:
        wide, every = found.tables[f"reckoning-{each.table.name}-cpu"]
        grid = grid_of(each)
        assert every == [list(grid.head), *[[" ".join(word.split()) for word in line] for line in grid.body]]
        rows = {line[0]: " ".join(line[1:]) for line in wide[2:]}
        for cell in each.cells:
            if cell.value is not None:
                assert each.table.measure(cell.cell.column).text(cell.value) in rows[cell.cell.row]
                assert str(cell.verdict or "") in rows[cell.cell.row]


def test_wide_tables_have_published_and_reproduced_side_by_side(found: Found) -> None:
    groups, head, old, new, rule, chance = found.tables["reckoning-levels-cpu"][0]
    assert groups == ["", "0", "2"]
    assert head == ["method", "published", "reproduced", "published", "reproduced"]
    assert old[:2] == ["Old way", "90.5"] and old[2].startswith("69.2") and old[3:] == ["70.1", "–"]
    assert new[1] == "95.5r" and new[2].startswith("95.8✓") and "ordering holds: +26.7" in new[2]
    assert new[3] == "n/r" and new[4].startswith("50.8")
    assert rule[2].startswith("51.7") and chance == ["Chance", "", "33.3", "", "33.3"]


def test_what_is_missing_is_named_with_its_command(page: Path, found: Found, root: Path, joined: list[Joined]) -> None:
    (lines,) = found.tables["missing-cells"]
    assert [line[:4] for line in lines[1:]] == [
        [title, "cpu", "1", "1"] for title in ("Accuracy by level", "Accuracy <&> more", "Not run yet")
    ]
    assert [line[4] for line in lines[1:]] == [command_of(each, root) for each in joined]
    assert all(f"loop.root={root}" in line[4] for line in lines[1:])
    assert "1 of 8 cells lack 1 run." in page.read_text()
    assert found.tables["reckoning-empty-cpu"][0][2] == ["New way", "12.3", "–"]
    assert found.tables["not-reached"][0][1] == ["reckoning", "Table 10", "closed models"]
    assert "begun=yes" in page.read_text() and "1 not finished" in page.read_text()


def test_commands_stand_below_tables_and_figures(found: Found, root: Path, page: Path) -> None:
    sweeps = [command for command in found.commands if "+sweep=levels" in command]
    assert len(sweeps) >= 3  # the table, its curves, its rates
    assert f"python -m scripts.tables table=levels scale=cpu paper=reckoning root={root}" in found.commands
    assert f"python -m scripts.report root={root} output={page}" in found.commands
    assert COMMAND in found.commands


def test_the_head_says_what_the_runs_ran_on(page: Path) -> None:
    text = page.read_text()
    for line in (
        *("A processor, 2 cores, 16 GB", "0123456789: ", "0123456789 with changes: "),
        *("2026-01-02", "<title>", "9 finished"),
    ):
        assert line in text
    assert "secret-host" not in text and "A card" not in text


def test_the_audit_has_a_line_for_each_data_set(found: Found) -> None:
    head, none, two = found.tables["audit-rules"][0]
    assert head[4:] == ["Chance", "Majority label", "polarity", "bag of words"]
    assert [line[0] for line in (none, two)] == [
        f"proofwriter_repaired, distractors={count}, generator.distractors={count}, theories.test={theories}"
        for count, theories in ((0, 480), (2, 240))
    ]
    assert none[3] == "bag of words" and none[4] == "33.3" and none[7].startswith("51.7")


def test_cost_curves_have_their_break_even_numbers(found: Found) -> None:
    crossings, points = found.tables["cost-1"]
    assert crossings[2] == ["FT-ICR", "0", "0.1", "", "never"]
    assert crossings[3] == ["RECKONING", "1", "0.01", "12 11 to 13", ""]
    assert points[1][:3] == ["FT-ICR", "1", "0.1"] and len(points) == 7
    assert found.charts["cost-1"] == 2
    times = {line[0]: line[2:4] for line in found.tables["cost-training"][0][1:]}
    assert times["RECKONING (multi-task)"] == ["4", "50.5"]


def test_figures_are_drawn_for_axes_curves_and_rates(found: Found, page: Path) -> None:
    assert page.read_text().count(">turns</text>") == 2  # what the paper's loop counts, in two panels
    assert found.charts["reckoning-levels-cpu"] == 1
    assert found.charts["curves-reckoning-levels-cpu"] == 2 and found.charts["rates-reckoning-levels-cpu"] == 2
    assert "curves-reckoning-main-cpu" not in found.charts  # its runs stand in the first table
    rates = [line for line in found.tables["rates-reckoning-levels-cpu"][0] if line[0] == "New way, 0 distractors"]
    assert [line[2:] for line in rates[:2]] == [["1", "0.1", "0.1"], ["2", "0.1", "0.25"]]  # mean of 0.2 and 0.3
    numbers = {line[0]: line[1:] for line in found.tables["curves-reckoning-levels-cpu"][0]}
    assert numbers["New way, 0 distractors"] == ["2", "30.5", "70.5", "400", "70.5"]


def test_it_is_one_small_file_that_asks_for_nothing(page: Path, found: Found) -> None:
    text = page.read_text()
    assert len(text.encode()) < report.MOST_BYTES
    assert {link for link in found.links if not link.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest", text)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "Accuracy &lt;&amp;&gt; more" in text and "<&>" not in text


def test_without_runs_it_shows_what_was_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = report.write([f"root={tmp_path / 'none'}", "paper=reckoning", f"output={tmp_path / 'report.html'}"])
    text = path.read_text()
    assert str(path) in capsys.readouterr().out
    for line in (
        "0 finished",
        "No finished run of a published table has a",
        "No run of the run-time study",
        "99.8",
        "+sweep=table1",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=x"], "experiment=x: write root=<...>, paper=<...>, output=<...>"),
        (
            ["inner.epps=1"],
            "such as inner.eps=1e-8 (runs of reckoning and perk and fal and slowfast_vgen have no key inner.epps)",
        ),
        (["paper=nothing"], "paper=nothing"),
    ],
)
def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr("sys.argv", ["report", *words])
    with pytest.raises(SystemExit) as stopped:
        report.main()
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(root: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "render", lambda page: "")
    monkeypatch.setattr(report, "page_of", lambda *words: None)
    with pytest.raises(report.UserError, match="output=.*cannot be written"):
        report.write([f"root={root}", f"output={page}/below/report.html"])


def test_the_templates_are_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    there = [path.name for path in (ROOT / "scripts" / "report").iterdir() if path.is_file()]
    others = [name for name in there if not name.endswith(".py")]
    assert len(others) == 3 and all(any(fnmatch(name, pattern) for pattern in patterns) for name in others)
