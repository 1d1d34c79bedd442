"""Tables of run folders: what is pooled, what is kept apart, in which order, and what is said below."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run import results
from common.run.items import Item
from common.run.results import Interval
from common.tables import published
from common.tables.comparison import Row, Table, rows_of, tables_of
from common.tables.estimates import over_values
from common.tables.intervals import share_interval
from common.tables.runs import read_runs
from reckoning.config import TrainConfig
from scripts.tables import __main__ as tables
from scripts.tables.comparison import verdict as said_of

LABELS = {"true": "yes", "false": "no"}
METHODS = {
    "reckoning": {"title": "RECKONING (multi-task)", "learner": "reckoning", "knowledge": "given", "question": True},
    "random_facts": {"title": "Random-Facts", "learner": "reckoning", "knowledge": "random", "question": True},
    "ft_icr": {"title": "FT-ICR (multi-task)", "learner": "in_context", "knowledge": "given", "question": True},
    "no_facts": {"title": "No-Facts", "learner": "in_context", "knowledge": "none", "question": True},
    "shortcuts": {"title": "Shortcuts", "learner": "shortcuts", "knowledge": "given", "question": True},
}
QUESTIONS = 40
RULES = {"chance": 20, "majority": 20, "polarity": 12, "bag_of_words": 24}
"""Rule -> right answers."""


def gold(index: int) -> str:
    return "true" if index % 2 == 0 else "false"


def write_run(
    root: Path, method: str, right: int = 0, *, seed: int = 0, done: bool = True, **settings: dict[str, Any]
) -> Path:
    """A run folder whose first `right` questions are answered correctly; two questions a theory."""
    name = "-".join([method, str(seed), *(f"{group}{next(iter(keys))}" for group, keys in settings.items())])
    folder = root / "reckoning" / "demo" / name
    folder.mkdir(parents=True)
    config: dict[str, Any] = {"experiment": "demo", "scale": "cpu", "seed": seed}
    config |= {"data": {"labels": LABELS, "theories": 20, "root": str(root)}, "inner": {"lr": 0.1}}
    config |= {"method": {"name": method, **METHODS[method]}}
    config |= {group: {**config.get(group, {}), **keys} for group, keys in settings.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = f"python src/reckoning/train.py +experiment=demo method={method}"
    (folder / "environment.json").write_text(json.dumps({"command": command}))
    if not done:
        return folder
    items = []
    if method == "shortcuts":
        test = {f"accuracy_{rule}": Interval(count / QUESTIONS, QUESTIONS, 0, 1) for rule, count in RULES.items()}
        test["accuracy_chance"] = Interval(0.5, QUESTIONS, 0.5, 0.5)  # exact, not counted
        for i in range(QUESTIONS):
            scores = {f"accuracy_{rule}": (int(i < count), 1) for rule, count in RULES.items() if rule != "chance"}
            items.append(Item(f"q{i}", f"t{i // 2}", scores, {"answer": LABELS[gold(i)]}))
    else:
        test = {"accuracy": Interval(right / QUESTIONS, QUESTIONS, 0, 1)}
        for i in range(QUESTIONS):
            recalled = {"recall_exact": (int(i < 10), 1)} if method == "reckoning" else {}
            scores = {"accuracy": (int(i < right), 1), **recalled}
            items.append(Item(f"q{i}", f"t{i // 2}", scores, {"answer": LABELS[gold(i)]}))
    hashed = results.config_hash(config, TrainConfig)
    identity = results.RunIdentity("reckoning", "demo", method, "cpu", seed)
    written = results.Results(
        **vars(identity), config_hash=hashed, revision="", dirty=None, hardware={}, wall_seconds=60.0 + seed,
        peak_memory_bytes=0, test=test,
    )  # fmt: skip
    results.write(folder, written, [item.to_json() for item in items])
    return folder


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Three seeds of RECKONING and one run of everything else."""
    for method, right in {"no_facts": 30, "shortcuts": 0, "ft_icr": 34, "random_facts": 20}.items():
        write_run(tmp_path, method, right)
    for seed, right in enumerate((40, 38, 36)):
        write_run(tmp_path, "reckoning", right, seed=seed)
    return tmp_path


def verdict(rows: list[Row]) -> str:
    return said_of(rows, published.read("reckoning"))


def only_table(root: Path) -> Table:
    (table,) = tables_of(read_runs(root, None, None)[0])
    return table


def test_rows_stand_in_their_order(full: Path) -> None:
    assert [row.title for row in rows_of(only_table(full))] == [
        "RECKONING (multi-task)", "FT-ICR (multi-task)", "No-Facts", "Random-Facts",
        "Shortcut: bag of words", "Shortcut: polarity", "Majority label", "Chance",
    ]  # fmt: skip


def test_seeds_are_pooled_item_by_item_with_theories_as_groups(full: Path) -> None:
    row = rows_of(only_table(full))[0]
    correct = [i < right for right in (40, 38, 36) for i in range(QUESTIONS)]
    groups = [f"t{i // 2}" for _ in range(3) for i in range(QUESTIONS)]
    pooled, (low, high) = share_interval(correct, groups, 0.95), over_values("", [1.0, 0.95, 0.9]).interval()
    got = row.interval(0.95)
    assert got.value == pytest.approx(0.95) and got.low <= min(low, pooled.low) and got.high == 1.0 < high
    assert (len(row.seeds), row.items, row.others, row.seconds) == (3, QUESTIONS, {"exact recall": 0.25}, 61.0)
    assert row.by_slice() == {"yes": (57 / 60, 20), "no": (57 / 60, 20)}


def test_classes_of_shortcuts_are_answer_words_and_chance_is_exact(full: Path) -> None:
    rows = {row.title: row for row in rows_of(only_table(full))}
    assert rows["Shortcut: polarity"].by_slice() == {"yes": (6 / 20, 20), "no": (6 / 20, 20)}
    assert rows["Chance"].interval().value == 0.5 and rows["Chance"].by_slice() == {"yes": (0.5, 20), "no": (0.5, 20)}


def test_the_sentence_names_the_best_shortcut_and_says_whether_it_is_beaten(full: Path) -> None:
    rows = rows_of(only_table(full))
    strict = rows[0].interval(0.99)
    text = verdict(rows)
    assert f"95.0 %, 99 % interval {100 * strict.low:.1f} to {100 * strict.high:.1f}" in text
    assert "(shortcut: bag of words) gets 60.0 %: RECKONING lies above it, beyond the interval." in text


@pytest.mark.parametrize(("right", "said"), [(24, "is not shown to beat it"), (4, "lies below it, beyond")])
def test_the_sentence_admits_what_is_not_shown(tmp_path: Path, right: int, said: str) -> None:
    write_run(tmp_path, "reckoning", right)
    write_run(tmp_path, "shortcuts")
    assert said in verdict(rows_of(only_table(tmp_path)))


def test_the_sentence_says_what_is_missing(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 30)
    assert "no finished run of method=shortcuts" in verdict(rows_of(only_table(tmp_path)))
    assert verdict([]) == "No finished run of RECKONING here."


def test_runs_on_other_data_are_not_averaged_and_the_difference_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 40)
    write_run(tmp_path, "reckoning", 10, seed=1, data={"theories": 30})
    write_run(tmp_path, "shortcuts", data={"theories": 30})
    small, large = sorted(tables_of(read_runs(tmp_path, None, None)[0]), key=lambda table: table.name)
    assert small.name == "reckoning: demo, scale=cpu, data.theories=20"
    assert large.name == "reckoning: demo, scale=cpu, data.theories=30"
    assert [run.results.method for run in small.runs] == ["reckoning"]
    assert [run.results.method for run in large.runs] == ["reckoning", "shortcuts"]


def test_shortcut_rules_join_every_table_on_their_data(tmp_path: Path) -> None:
    for name in ("tiny", "gpt2"):
        write_run(tmp_path, "reckoning", 30, model={"name": name}, loop={name: 1})
    write_run(tmp_path, "shortcuts", model={"name": "tiny"})
    found = tables_of(read_runs(tmp_path, None, None)[0])
    assert [[run.results.method for run in table.runs] for table in found] == [["reckoning", "shortcuts"]] * 2


def test_another_inner_loop_is_another_row_and_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 40)
    write_run(tmp_path, "reckoning", 20, inner={"lr": 0.5})
    assert [(row.title, len(row.seeds)) for row in rows_of(only_table(tmp_path))] == [
        ("RECKONING (multi-task) [inner.lr=0.1]", 1), ("RECKONING (multi-task) [inner.lr=0.5]", 1),
    ]  # fmt: skip


def test_where_data_lie_makes_no_table_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 40, seed=1)
    write_run(tmp_path, "reckoning", 40, seed=2, data={"root": "elsewhere"})
    assert [len(row.seeds) for row in rows_of(only_table(tmp_path))] == [2]


def test_runs_that_are_not_finished_are_named_with_their_command(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(full, "ft_icr", seed=7, done=False)
    tables.show([f"root={full}"])
    line = f"not finished: {folder}: python -m reckoning.train +experiment=demo method=ft_icr\n"
    assert capsys.readouterr().err == line


def test_every_format_holds_the_numbers(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in ("term", "md", "latex", "csv"):
        tables.show([f"root={full}", "--format", name, "--shortcuts", "1"])
        shown[name] = capsys.readouterr().out
    assert (
        "| RECKONING (multi-task) | 95.0 | " in shown["md"] and "| 3 | 40 | 95.0 | 95.0 | 25.0 | 1:01 |" in shown["md"]
    )
    assert r"RECKONING (multi-task) & 95.0 & " in shown["latex"] and r"accuracy \% &" in shown["latex"]
    for name in ("term", "md", "latex"):
        assert "Shortcut: polarity" not in shown[name] and "1 further shortcut rule" in shown[name]
        assert "lies above it" in shown[name]
    rows = list(csv.DictReader(io.StringIO(shown["csv"])))
    assert {row["class"] for row in rows} == {"all", "yes", "no"}
    assert float(rows[0]["accuracy"]) == 0.95 and rows[0]["method"] == "RECKONING (multi-task)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experimnt=x"], "experimnt=x: write root="),
        (["experiment=x", "table=y"], "give one"),
        (
            ["inner.epps=1"],
            "inner.epps=1: write root=<...>, paper=<...>, table=<...>, scale=<...>, experiment=<...>, or an",
        ),
        (
            ["inner.epps=1"],
            "such as inner.eps=1e-8 (runs of reckoning and perk and fal and slowfast_vgen have no key inner.epps)",
        ),
        (["seed=1"], "(seed tells no cells apart)"),
        (["loop.root=x"], "(loop.root tells no cells apart)"),
        (["experiment=x", "inner.eps=1"], "inner.eps=1 is for published tables; give one"),
        (["inner.eps=1"], "root=runs: no run of a published table with inner.eps=1"),
        (["table=table99"], "table=table99: reckoning has table1"),
        (["paper=nobody"], "paper=nobody: there is no nobody/published.yaml"),
        (["root=nowhere"], "root=nowhere: no such folder"),
        (["experiment=other"], "no finished run"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    write_run(tmp_path / "runs", "reckoning", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tables", *words])
    with pytest.raises(SystemExit) as stopped:
        tables.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_the_words_and_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tables.parse(["--help"])
    text = capsys.readouterr().out
    assert all(
        word in text for word in ("root=", "paper=", "experiment=", "term,md,latex,csv", "python -m scripts.tables")
    )
