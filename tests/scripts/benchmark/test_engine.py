"""The engine benchmark: arithmetic of its tables on made-up results, and one real case through a process of its own."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from common.engine.settings import Unroll
from common.errors import UserError
from scripts.benchmark import engine as benchmark_engine
from scripts.benchmark.case_results import MIB, Result
from scripts.benchmark.engine_case import time_by_kind
from scripts.benchmark.engine_groups import Case, groups, quick_groups
from scripts.benchmark.engine_results import auto_notes, growth_note, pair_note, truncation_notes
from scripts.benchmark.running import Group, Row, lines, run_case, table, wrong

TINY = Case("stored", steps=2, tasks=2, rows=2, tokens=6, layers=1, width=16, heads=2, vocabulary=32, repeats=1)


def result(seconds: float, peak: float, **more: object) -> Result:
    """A result of `seconds` in which `peak` MiB were resident and half of them allocated."""
    return Result(
        seconds=(seconds,), peak=round(peak * MIB), allocated=round(peak * MIB / 2), gradient=(2.0, 0.5), **more
    )  # type: ignore[arg-type]


def group() -> Group:
    rows = (
        Row("reference", Case("higher"), against="reference"),
        Row("lean", Case("recompute"), memory=0.2, time=1.1, against="reference"),
        Row("cut", Case("truncate", keep=1), against="reference"),
        Row("other", Case("stored"), against="reference"),
        Row("lost", Case("stored"), against="reference"),
    )
    return Group("toy", "Does it add up?", rows)


def results() -> dict[str, Result]:
    return {
        "reference": result(2.0, 100),
        "lean": result(2.4, 20, first=9.0, flops=3_000_000_000),
        "cut": Result(seconds=(1.0,), peak=MIB, allocated=MIB, gradient=(1.0, 0.1)),
        "other": Result(seconds=(1.0,), peak=MIB, allocated=MIB, gradient=(2.1, 0.5)),
        "lost": Result(error="exit status 9"),
        "reference (again)": result(2.2, 100),
    }


def test_the_table_holds_ratios_to_the_reference_and_what_became_of_the_targets() -> None:
    cells = {row[0]: row[1:] for row in table(group(), results())}
    assert cells["lean"] == [
        "yes", "20", "0.20", "10", "0.20", "2.400", "1.20", "9.0", "3.0",
        "memory <= 0.20: met; time <= 1.10: missed",
    ]  # fmt: skip
    assert cells["cut"][0] == "", "a truncated gradient need not be the exact one"
    assert cells["other"][0] == "NO" and cells["lost"][-1] == "failed: exit status 9"
    assert wrong(group(), results()) == ["other", "lost"]
    alone = results() | {"reference": Result(error="gone")}
    assert [row[1] for row in table(group(), alone)][1] == "?", "nothing is exact beside a reference that failed"
    assert "- noise: the reference took 1.10 of its own time when run again at the end" in list(
        lines(group(), results())
    )


def test_notes_compute_growth_and_shares() -> None:
    found = {f"K={k}": result(0.1, 10 + 4 * k, fast_bytes=MIB) for k in (1, 2, 4)}
    note = growth_note("recompute", [(k, f"K={k}") for k in (1, 2, 4)], found, 1.2)
    assert "+2.0 MiB allocated (+4.0 resident) an inner step, 2.00 copies" in note and "missed" in note
    assert "not computed" in growth_note("x", [(1, "K=1"), (2, "gone")], found, None)
    pair = {"a": result(2.1, 1), "b": result(2.0, 1)}
    assert pair_note("a", "b", pair, 1.05).startswith("a: 1.05 of the time of b; target <= 1.05: met")
    cost = {"k0": result(0.8, 1), "k2": result(1.4, 2), "short": result(0.8, 2), "first": result(0.8, 1)}
    assert (
        "a truncated step: 0.100 s, 1.00 of a first-order one"
        in truncation_notes({0: "k0", 2: "k2"}, "short", "first", cost)[1]
    )
    budgets = {"auto": result(1.0, 5), "fast": result(0.9, 100), "slow": result(1.0, 5)}
    (auto,) = auto_notes({10.0 * MIB: "auto"}, ["fast", "slow"], budgets)
    assert auto.startswith("auto: 1.00 of the time of slow")


def test_every_group_has_its_own_labels_and_references_among_them() -> None:
    for each in [*groups(), *quick_groups()]:
        labels = [row.label for row in each.rows]
        assert len(set(labels)) == len(labels), each.name
        assert {row.against for row in each.rows} <= set(labels), each.name
    assert not any(row.case.compiled or row.memory or row.time for each in quick_groups() for row in each.rows)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"engine": "magic"}, "engine=magic: use one of higher, torch.func, torchopt"),
        ({"engine": "higher", "micro": 2}, "engine=higher does not know micro"),
        ({"engine": "torchopt", "rank": 4}, "frozen ones too"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(values: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        Case(**values)


def test_a_case_runs_in_a_process_of_its_own_and_engines_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from dataclasses import replace

    rows = tuple(
        Row(name, replace(TINY, engine=name), against="higher") for name in ("higher", "torch.func", *list(Unroll)[:2])
    )
    monkeypatch.setattr(benchmark_engine, "groups", lambda: [Group("toy", "Do they agree?", rows)])
    benchmark_engine.main(["--markdown", str(tmp_path / "table.md"), "--csv", str(tmp_path / "table.csv")])
    assert capsys.readouterr().out == (tmp_path / "table.md").read_text()
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["case"] for row in read] == ["higher", "torch.func", "stored", "recompute"]
    assert {row["exact"] for row in read} == {"yes"} and all(float(row["seconds"]) > 0 for row in read)


def test_a_case_that_fails_says_why() -> None:
    assert "must be divisible" in run_case(Case("stored", width=7, heads=2)).error


def test_an_unknown_group_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmark", "engine", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "no group nothing here; choose from sgd, others" in done.stderr


def test_a_profile_says_where_the_time_goes() -> None:
    seconds = time_by_kind(TINY)
    assert set(seconds) == {"products", "elementwise", "copies and memory", "autograd and Python"}
    assert all(value > 0 for value in seconds.values())
