"""A benchmark that was cut off goes on with what the same revision has not measured yet."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from scripts.benchmark import running
from scripts.benchmark.case_results import Result
from scripts.benchmark.fal import main

CASES = 3
"""Of the group that is run: two, and the first again for the noise."""


def on(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """From now on the machine and the code are those of here but for this."""
    found = running.describe() | changed
    monkeypatch.setattr(running, "describe", lambda: found)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cases that are run, and a machine on which nothing has changed."""
    cases: list[Any] = []

    def run_case(case: Any) -> Result:
        cases.append(case)
        return Result(seconds=(0.5,), robust=0.4)

    monkeypatch.setattr(running, "run_case", run_case)
    on(monkeypatch, revision="a" * 40, dirty=False)
    return cases


def run(file: Path) -> None:
    main(["early_exit", "--keep", str(file)])


def test_what_is_there_is_not_run_again_by_the_same_revision(
    measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.jsonl"
    run(file)
    first = capsys.readouterr().out
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))  # as if cut off in the third case
    run(file)
    assert len(measured) == CASES + 1 and len(file.read_text().splitlines()) == CASES
    assert capsys.readouterr().out == first
    on(monkeypatch, revision="b" * 40)
    run(file)
    assert len(measured) == 2 * CASES + 1


def test_failures_are_not_kept(measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "run_case", lambda case: measured.append(case) or Result(error="lost"))
    for _ in range(2):
        with pytest.raises(SystemExit):
            run(tmp_path / "results.jsonl")
    assert len(measured) == 2 * CASES


def test_changed_code_and_other_files_are_refused(
    measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# Notes\n")
    with pytest.raises(UserError, match=r"notes\.md, line 1: no result of a benchmark"):
        run(file)
    on(monkeypatch, dirty=True)
    with pytest.raises(UserError, match="with local changes: results are kept by revision; commit them first"):
        run(tmp_path / "results.jsonl")
    assert not measured
