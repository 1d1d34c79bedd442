"""The HTML report: its numbers are those of the tables, what is missing is named, it needs nothing but its file."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run import results
from common.run.items import Item
from common.run.results import Interval
from common.tables import published, sweep
from common.tables.join import Joined
from common.tables.runs import Run, read_runs
from common.tables.summary import summarise
from reckoning.config import TrainConfig
from scripts.report import __main__ as report
from scripts.report import charts, curves, rates
from scripts.report.colours import Colours
from scripts.tables.published_tables import all_tables, command_of, grid_of
from tests.scripts.report.browser import Tab, browser, executable

ROOT = Path(__file__).parents[3]
PUBLISHED = """
methods: {ft_icr: {role: baseline}, shortcuts: {role: rule}}
rules: {accuracy_majority: {role: chance, title: Majority label}, accuracy_chance: {role: chance, title: Chance}}
comparison:
  items: questions
  columns: {accuracy: {metric: accuracy}}
tables:
  levels:
    title: Accuracy by level
    where: Figure 5
    axis: distractors
    overrides: [+experiment=proofwriter_repaired]
    columns:
      "0": [data.distractors=0]
      "2": [data.distractors=2]
    rows:
      Old way: {overrides: [method=ft_icr], source: seen, values: {"0": 90.5, "2": 70.1}}
      New way: {overrides: [method=reckoning], against: Old way, source: recalled, values: {"0": 95.5, "2": null}}
      Best shortcut rule: {overrides: [method=shortcuts], metric: accuracy_*, once: true}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance, role: chance, once: true}
  main:
    title: Accuracy <&> more
    overrides: [+experiment=proofwriter_repaired]
    columns:
      Repaired: [data.distractors=0]
    rows:
      Old way: {overrides: [method=ft_icr]}
      Single-task: {overrides: [method=reckoning_st]}
      New way: {overrides: [method=reckoning], against: Old way}
  empty:
    title: Not run yet
    where: Table 9
    overrides: [+experiment=proofwriter]
    columns:
      all: [data.distractors=all]
    rows:
      New way: {overrides: [method=reckoning], source: seen, values: {all: 12.3}}
not_reached:
  Table 10: closed models
"""
QUESTIONS = 60
GOLD = ("true", "false", "unknown")
WORDS = dict(zip(GOLD, ("yes", "no", "none"), strict=True))
RIGHT = {("ft_icr", "0"): 41, ("reckoning", "0"): 57, ("ft_icr", "2"): 57, ("reckoning", "2"): 30}
CORES = {
    "cpu": "A processor",
    "cores": 2,
    "memory_bytes": 16_000_000_000,
    "cuda": ["A card"],
    "device": "cpu",
    "host": "secret-host",
}
COMMAND = "python -m reckoning.cost model=tiny"


def write(root: Path, settings: dict[str, Any], items: list[Item], test: dict[str, Interval]) -> Path:
    """A finished run folder."""
    folder = root / "reckoning" / settings["experiment"] / results.config_hash(settings, TrainConfig)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    started = {"command": COMMAND, "started": "2026-01-02T03:04:05+00:00"}
    (folder / "environment.json").write_text(json.dumps(started))
    method = settings.get("method", {}).get("name", "run_time")
    identity = results.RunIdentity("reckoning", settings["experiment"], method, "cpu", settings["seed"])
    seed = settings["seed"]
    written = results.Results(
        **vars(identity), config_hash=folder.name, revision="0123456789abcdef", dirty=seed == 1,
        hardware=CORES, wall_seconds=50.0 + seed, peak_memory_bytes=500_000_000, test=test,
    )  # fmt: skip
    results.write(folder, written, [item.to_json() for item in items])
    return folder


def write_method(root: Path, settings: dict[str, Any], right: int) -> None:
    """A trained run with a learning curve and, if it learns rates, their record."""
    items = [
        Item(f"q{i}", f"t{i // 3}", {"accuracy": (int(i < right), 1)}, {"answer": WORDS[GOLD[i % 3]]})
        for i in range(QUESTIONS)
    ]
    folder = write(root, settings, items, summarise(items, 0.95, by={}))
    records = [
        {"step": step, "dev/accuracy": 0.3 + step / 1000 + settings["seed"] / 100} for step in range(0, 401, 100)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if settings["method"]["name"] == "reckoning":
        values = [[0.1, 0.2 + settings["seed"] / 10], [0.1, 0.1]]
        names = ["net.h.0.weight", "net.h.1.weight"]
        record = {"schema": 1, "names": names, "layers": [name[:-7] for name in names], "selected": 400}
        record["records"] = [{"step": 0, "values": [[0.1, 0.1]] * 2}, {"step": 400, "values": values}]
        (folder / "rates.json").write_text(json.dumps(record))


def write_rules(root: Path, settings: dict[str, Any]) -> None:
    """A run of the shortcut rules."""
    rules = {"majority": 20, "polarity": 24, "bag_of_words": 31}
    items = [
        Item(
            f"q{i}", f"t{i // 3}", {f"accuracy_{rule}": (int(i < right), 1) for rule, right in rules.items()},
            {"answer": WORDS[GOLD[i % 3]]},
        )
        for i in range(QUESTIONS)
    ]  # fmt: skip
    chance = {"accuracy_chance": Interval(1 / 3, QUESTIONS, 1 / 3, 1 / 3)}
    write(root, settings, items, chance | summarise(items, 0.95, by={}))


def write_cost(root: Path) -> Path:
    """A run of the run-time study: one reading costs much, a question little."""
    settings = {"experiment": "run_time", "scale": "cpu", "seed": 0, "tokens": 64, "model": {"name": "tiny"}}
    folder = write(root, settings | {"inner": {"steps": 2}, "runtime": {"threads": 1}}, [], {})
    records: list[dict[str, Any]] = []
    for way, (read, question) in {"ft_icr": (0.0, 0.1), "reckoning": (1.0, 0.01)}.items():
        for count in (1, 4, 16):
            seconds = around(read + question * count)
            point = {"kind": "point", "way": way, "questions": count, "seconds": seconds, "seconds_reading": read}
            records.append(point | {"bytes": 1_000_000 * count})
        line = {"seconds_read": around(read), "seconds_question": around(question)}
        records.append({"kind": "line", "way": way} | line)
    never = dict.fromkeys(("value", "low", "high"), "never")
    records.append({"kind": "break_even", "way": "reckoning", "over": "ft_icr", "questions": around(12)})
    records.append({"kind": "break_even", "way": "ft_icr", "over": "reckoning", "questions": never})
    (folder / "cost.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def around(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1}


@pytest.fixture(scope="module")
def paper() -> published.Paper:
    return published.parse("reckoning", PUBLISHED)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, paper: published.Paper) -> Path:
    """Runs of two seeds that fill the first table but for one cell, and half of the second."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    with sweep.composing("reckoning") as compose:
        for words, once in paper.table("levels").jobs():
            method = next(word.partition("=")[2] for word in words if word.startswith("method="))
            level = words[-2].partition("=")[2]
            for seed in (0,) if once else (0, 1):
                settings = sweep.settings_of(compose(["scale=cpu", f"seed={seed}", *words]))
                if method == "shortcuts":
                    write_rules(folder, settings)
                elif (method, level) != ("ft_icr", "2"):
                    write_method(folder, settings, RIGHT[method, level] + seed)
    write_cost(folder)
    unfinished = folder / "reckoning" / "begun"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("experiment: proofwriter\n")
    (unfinished / "environment.json").write_text(json.dumps({"command": "python -m reckoning.train begun=yes"}))
    return folder


@pytest.fixture(scope="module")
def page(root: Path, paper: published.Paper) -> Path:
    """The page as the command writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "read", lambda name: paper)
        patch.setattr(report, "every_paper", lambda: ["reckoning"])
        return report.write([f"root={root}", f"output={root.parent / 'report.html'}"])


@dataclass
class Found:
    """What stands on a page."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tables: dict[str, list[list[list[str]]]] = field(default_factory=dict)
    """Anchor of the article -> its tables as rows of fields."""
    commands: list[str] = field(default_factory=list)
    charts: dict[str, int] = field(default_factory=dict)
    """Anchor of the article -> its drawings."""


class Reader(HTMLParser):
    """Collects what the tests look at."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Found()
        self._article = ""
        self._field: list[str] | None = None
        self._command: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        found = self.found
        found.ids += [given["id"]] if "id" in given else []
        found.links += [given[name] for name in ("href", "src") if name in given]
        if tag == "article":
            self._article = given.get("id", "")
        if tag == "table":
            found.tables.setdefault(self._article, []).append([])
        if tag == "tr":
            found.tables[self._article][-1].append([])
        if tag in ("td", "th"):
            self._field = []
        if tag == "code":
            self._command = []
        if tag == "svg" and given.get("class") == "chart":
            found.charts[self._article] = found.charts.get(self._article, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._field is not None:
            self.found.tables[self._article][-1][-1].append(" ".join("".join(self._field).split()))
            self._field = None
        if tag == "code" and self._command is not None:
            self.found.commands.append("".join(self._command))
            self._command = None

    def handle_data(self, data: str) -> None:
        for text in (self._field, self._command):
            if text is not None:
                text.append(data)


@pytest.fixture(scope="module")
def found(page: Path) -> Found:
    reader = Reader()
    reader.feed(page.read_text())
    return reader.found


@pytest.fixture(scope="module")
def joined(root: Path, paper: published.Paper) -> list[Joined]:
    return all_tables(read_runs(root, None, None)[0], [paper])


# ---- what it says


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


def test_figures_are_drawn_for_axes_curves_and_rates(found: Found) -> None:
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
            "or an override of every cell such as inner.eps=1e-8 (runs of reckoning have no key inner.epps)",
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


# ---- how it is drawn


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


# ---- in a browser

PROGRAM = executable()
in_browser = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here: apt-get install chromium, or name another one in CHROMIUM"
)
WIDER = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
    && !e.classList.contains('unseen') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(PROGRAM or "", tmp_path_factory.mktemp("profile")) as running:
        yield running.tab()


@in_browser
@pytest.mark.parametrize("width", [390, 1440])
def test_it_opens_from_the_disk_without_a_complaint_and_fits(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width)
    assert tab.run("document.querySelector('.contents').open") == (width > 1000)
    for opened in ("false", "true"):
        tab.run(f"document.querySelectorAll('details').forEach(d => d.open = {opened})")
        assert tab.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        assert tab.run(WIDER) == []
    assert tab.complaints == []
    assert set(tab.requests) == {page.resolve().as_uri()}


@in_browser
def test_plots_are_there_and_large_enough(tab: Tab, page: Path, found: Found) -> None:
    tab.open(page, 390)
    sizes = tab.run("[...document.querySelectorAll('svg.chart')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == sum(found.charts.values()) and all(wide > 250 and high > 60 for wide, high in sizes)
    path = "document.querySelector('#reckoning-levels-cpu .chart .series.c1 .line:not(.dashed)')"
    assert tab.run(f"{path}.getTotalLength()") > 50
    assert tab.run(f"getComputedStyle({path}).stroke") == tab.run(
        "getComputedStyle(document.querySelector('#curves-reckoning-levels-cpu .chart .series.c1 .line')).stroke"
    )


def column(article: str, place: int) -> str:
    rows = f"[...document.querySelector('#{article} table').tBodies[0].rows].filter(r => !r.hidden)"
    return f"{rows}.map(r => r.cells[{place}].querySelector('.value')?.firstChild.textContent ?? '')"


def click(article: str, place: int) -> str:
    return f"[...document.querySelectorAll('#{article} table thead tr:last-child button')][{place}].click()"


@in_browser
def test_tables_sort_by_number_and_back(tab: Tab, page: Path) -> None:
    tab.open(page, 1440)
    article = "reckoning-levels-cpu"
    orders = [tab.run(column(article, 2))]
    for _ in range(3):
        tab.run(click(article, 2))
        orders.append(tab.run(column(article, 2)))
    assert orders[1] == sorted(orders[0], key=float) and orders[2] == orders[1][::-1] and orders[3] == orders[0]
    assert orders[0] not in (orders[1], orders[2])
    tab.run(click(article, 4))
    assert tab.run(column(article, 4))[-1] == "–"  # what is missing stays last
    assert tab.run(f"document.querySelectorAll('#{article} th[aria-sort=ascending]').length") == 1
    tab.run(click(article, 0))
    names = tab.run(column(article, 0))
    assert names == sorted(names)
    assert tab.run("valueOf({textContent: '1:02:03', dataset: {}}).number") == 3723


@in_browser
def test_tables_filter_by_words(tab: Tab, page: Path) -> None:
    tab.open(page, 1440)
    details = "document.querySelector('#reckoning-levels-cpu details')"
    tab.run(f"{details}.open = true; window.box = {details}.querySelector('input')")
    shown = f"[...{details}.querySelectorAll('tbody tr')].filter(r => r.checkVisibility()).length"
    assert tab.run(shown) == 8
    for words, rows in {"holds": 1, "new way": 2, "old not run": 1, "nothing": 0, "": 8}.items():
        tab.run(f"box.value = '{words}'; box.dispatchEvent(new Event('input'))")
        assert tab.run(shown) == rows, words


@in_browser
def test_pointing_at_a_point_shows_its_numbers(tab: Tab, page: Path) -> None:
    tab.open(page, 390)
    assert tab.run("document.getElementById('tip').hidden")
    tab.run("""document.querySelector('#reckoning-levels-cpu .hit').dispatchEvent(
        new PointerEvent('pointerover', {bubbles: true, clientX: 380, clientY: 5}))""")
    assert "Old way, 0: published 90.5" in tab.run("document.getElementById('tip').textContent")
    box = tab.run("(r => [r.left, r.right])(document.getElementById('tip').getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= 390


@in_browser
def test_light_and_dark_are_both_readable(tab: Tab, page: Path) -> None:
    ratio = """(() => { const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(v => v / 255).map(
        v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const ratio = c => { const l = light(c); return (Math.max(l, paper) + .05) / (Math.min(l, paper) + .05); };
        const colour = element => getComputedStyle(element).color;
        const text = ['body', '.note', 'h3 .label', 'nav a'].map(q => colour(document.querySelector(q)));
        const box = document.body.appendChild(document.createElement('i'));
        const lines = [1, 2, 3, 4, 5, 6, 7, 8].map(i => { box.style.color = `var(--c${i})`; return colour(box); });
        return [Math.min(...text.map(ratio)), Math.min(...lines.map(ratio))]; })()"""
    for dark in (False, True):
        tab.open(page, 1440, dark=dark)
        text, lines = tab.run(ratio)
        assert text >= 4.5 and lines >= 3, dark
