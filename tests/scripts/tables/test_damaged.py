"""One damaged run is named and left out; the tables of the others are what they are without it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.tables.damaged import DamagedRun, reading
from common.tables.runs import read_runs
from scripts.report import curves, rates
from scripts.report.__main__ import page_of, render
from scripts.report.curves import Group
from scripts.tables import __main__ as tables
from tests.scripts.tables.test_tables import write_run

Damage = Callable[[bytes], bytes | None]
CONTENTS: dict[str, Damage] = {
    "missing": lambda old: None,
    "empty": lambda old: b"",
    "cut": lambda old: old[: len(old) // 2] + b'{"',
    "binary": lambda old: b"\x00\xff\xfe" + old,
    "no JSON": lambda old: b"not: [json\n",
    "a list": lambda old: b"[1, 2]\n",
    "a number": lambda old: b"7\n",
    "null": lambda old: b"null\n",
    "lacking": lambda old: b"{}\n",
    "nested": lambda old: b"[" * 5000 + b"]" * 5000,
}
FORMS: dict[str, Any] = {
    "command": [None, ["python"], "python 'x"], "started": [3], "run": [[1]], "starts": [{}, ["x"]],
    "selection": [None, {"metric": 1}],
}  # fmt: skip
"""Of `environment.json`."""
DAMAGES = [
    *(("config.yaml", kind) for kind in CONTENTS if kind != "missing"),
    *(("results.json", kind) for kind in CONTENTS if kind != "missing"),
    *(("predictions.jsonl", kind) for kind in CONTENTS if kind != "empty"),
    *(("environment.json", kind) for kind in CONTENTS if kind not in ("missing", "lacking")),
    ("sets.json", "cut"), ("sets.json", "a list"), ("sets.json", "binary"),
]  # fmt: skip


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two methods' runs."""
    for method, right in {"reckoning": 30, "ft_icr": 34}.items():
        write_run(tmp_path / "runs", method, right)
    return tmp_path / "runs"


def damage(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    old = path.read_bytes() if path.is_file() else b'{"fid": {"value": 1.0, "without": {"a": 1.0, "b": 2.0}}}'
    if (new := CONTENTS[kind](old)) is None:
        path.unlink()
    else:
        path.write_bytes(new)


def shown(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    tables.show([f"root={root}", "experiment=demo", "--format", "md"])
    found = capsys.readouterr()
    return found.out, found.err


@pytest.mark.parametrize(("name", "kind"), DAMAGES)
def test_a_damaged_run_is_named_in_one_line_and_the_table_is_that_of_the_others(
    name: str, kind: str, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_run(two, "no_facts", 20)
    whole, said = shown(two, capsys)
    assert "No-Facts" in whole and said == ""
    damage(broken, name, kind)
    without, said = shown(two, capsys)
    (line,) = said.splitlines()
    assert line.startswith("left out: ") and str(broken) in line
    shutil.rmtree(broken)
    assert shown(two, capsys) == (without, "")


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in FORMS.items() for value in values])
def test_a_start_told_in_another_form_is_named(
    key: str, value: Any, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(two, "no_facts", 20) / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    (line,) = shown(two, capsys)[1].splitlines()
    assert line.startswith(f"left out: {path.parent}") and "damaged" in line


@pytest.mark.parametrize("key", ["seed", "inner", "method"])
def test_a_run_whose_settings_were_changed_is_left_out(key: str, two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_run(two, "no_facts", 20)
    path = broken / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8") + f"{key}: 5\n", encoding="utf-8")  # the last one counts
    assert "are not those that its results were made with" in shown(two, capsys)[1]


def test_a_mark_without_results_is_a_run_that_is_not_finished(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_run(two, "no_facts", 20)
    (broken / "results.json").unlink()
    out, said = shown(two, capsys)
    assert "No-Facts" not in out
    assert said.startswith(f"not finished: {broken}: python -m reckoning.train") and said.count("\n") == 1


def test_results_of_a_newer_version_say_so(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_run(two, "no_facts", 20)
    path = broken / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"schema": 9}), encoding="utf-8")
    assert "results format 9, this version reads 2; update this code" in shown(two, capsys)[1]


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "predictions.jsonl", "environment.json"])
def test_the_report_names_a_damaged_run_and_shows_the_others(
    name: str, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_run(two, "no_facts", 20)
    damage(broken, name, "cut")
    text = render(page_of(two, "reckoning", "command"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: ") and str(broken) in line
    assert "RECKONING (multi-task)" in text and "No-Facts [" not in text


def test_all_runs_damaged_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(write_run(tmp_path, "no_facts", 20), "predictions.jsonl", "cut")
    with pytest.raises(UserError, match="no finished run"):
        shown(tmp_path, capsys)


def test_a_paper_that_is_no_name_is_never_imported(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_run(two, "no_facts", 20)
    path = broken / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"paper": "../x"}), encoding="utf-8")
    assert len(read_runs(two, None, None)[0]) == 2
    assert "paper=../x" in capsys.readouterr().err


def test_what_goes_wrong_in_reading_a_run_names_its_folder(tmp_path: Path) -> None:
    for error in (KeyError("x"), ValueError("x"), RecursionError(), ZeroDivisionError(), OSError("x"), UserError("x")):
        with pytest.raises(DamagedRun) as caught, reading(tmp_path):
            raise error
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [
    ("metrics.jsonl", b'{"step": 1, "dev/accuracy": 0.5}\n{"st'), ("metrics.jsonl", b'{"dev/accuracy": 0.5}\n'),
    ("metrics.jsonl", b"\xff\n"), ("rates.json", b"{"), ("rates.json", b"[]"), ("rates.json", b"\x00\xff"),
    ("rates.json", b'{"names": ["a"], "layers": ["a"], "selected": 1, "records": [{"step": 0}]}'),
    ("rates.json", b'{"names": ["a"], "layers": ["a"], "selected": 1, "records": [{"step": 0, "values": [["x"]]}]}'),
    ("rates.json", b'{"names": ["a"], "layers": [], "selected": 1, "records": [{"step": 0, "values": [[0.1]]}]}'),
])  # fmt: skip
def test_curves_and_rates_that_cannot_be_read_name_their_run(name: str, content: bytes, tmp_path: Path) -> None:
    broken = write_run(tmp_path, "reckoning", 20)
    (broken / name).write_bytes(content)
    (run,) = read_runs(tmp_path, None, None)[0]
    group = Group("", "row", "reckoning", [run], new=True)
    with pytest.raises(DamagedRun) as caught:
        curves.curve(group)
        rates._mean(group)
    assert caught.value.folder == broken and str(broken) in str(caught.value)


def test_a_study_whose_costs_cannot_be_read_is_left_out(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_run(two, "no_facts", 20)
    (broken / "cost.jsonl").write_text('{"kind": "point"}\n', encoding="utf-8")
    render(page_of(two, "reckoning", "command"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: ") and str(broken) in line
