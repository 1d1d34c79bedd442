"""PERK's benchmark: notes of its tables on made-up results, and a small case of every group through its own code."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.tables.breakeven import Line
from scripts.benchmark import perk as benchmark_perk
from scripts.benchmark.case_results import MIB, Result, to_result
from scripts.benchmark.perk_case import measure
from scripts.benchmark.perk_groups import (
    FT_ICR,
    HIGHER,
    PERK,
    SIZES,
    Case,
    answering,
    groups,
    quick_groups,
    reading,
    training,
)
from scripts.benchmark.perk_notes import answering_lines, flat_note, retained_notes
from scripts.benchmark.running import Group, Row, block, lines, table, wrong

TOKENS = 128
"""Two segments."""
SMALL = Case("train", "tgu", TOKENS, repeats=1)


def result(seconds: float, allocated: float, **more: float) -> Result:
    return Result(seconds=(seconds,), peak=round(2 * allocated * MIB), allocated=round(allocated * MIB), **more)  # type: ignore[arg-type]


# ---- notes


def test_a_retained_step_is_the_slope_over_t() -> None:
    labels = {1024: {"higher": {1: "h1", 2: "h2", 4: "h4"}, "ours": {1: "o1", 2: "o2", 4: "o4"}}}
    found = {f"h{t}": result(2.0 + t, 5 + 10 * t) for t in (1, 2, 4)}
    found |= {f"o{t}": result(1.0 + t / 2, 2 + 4 * t) for t in (1, 2, 4)}
    (note,) = retained_notes(labels, found)
    assert "+10.0 MiB allocated (+20.0 resident), +1.000 s with higher" in note
    assert "+4.0 MiB allocated (+8.0 resident), +0.500 s with ours" in note
    assert "memory 0.40 (0.40 resident), an outer step's time 0.50" in note
    (note,) = retained_notes(labels, found | {"h4": Result(error="out of memory")})
    assert note == "1024 tokens, a retained step: not computed, as there is no result of h4"


def test_flat_memory_is_a_ratio_of_two_cases() -> None:
    found = {"short": result(1, 10), "long": result(8, 11)}
    assert flat_note("short", "long", found).startswith("long: 1.10 of the allocated memory of short (1.10 of")
    assert "no result of long" in flat_note("short", "long", {"short": result(1, 1)})


def test_the_table_of_answers_says_from_how_many_questions_on_perk_is_faster() -> None:
    labels = {512: ("512 tokens, FT-ICR", "512 tokens, PERK"), 1024: ("1024 tokens, FT-ICR", "1024 tokens, PERK")}
    found = {
        "512 tokens, FT-ICR": result(1, 1, question=2, kept=MIB),
        "512 tokens, PERK": result(10, 1, question=1, kept=MIB // 2),
        "1024 tokens, FT-ICR": result(1, 1, question=1, kept=MIB),
        "1024 tokens, PERK": result(10, 1, question=1, kept=MIB),
    }
    _, _, *rows, _ = [[cell.strip() for cell in line.split("|")[1:-1]] for line in answering_lines(labels, found)]
    assert rows[0] == ["512", "FT-ICR", "1.000", "2.0000", "1.00", "3.00", "21.00", "201.00", ""]
    assert rows[1] == ["512", "PERK", "10.000", "1.0000", "0.50", "11.00", "20.00", "110.00", "10 questions"]
    assert rows[3][-1] == "never"
    assert Line(10, 1).total(10) == 20 < Line(1, 2).total(10) and Line(10, 1).total(9) == Line(1, 2).total(9)
    lost = answering_lines(labels, found | {"512 tokens, PERK": Result(error="out of memory")})
    assert "no result of 512 tokens, PERK" in lost[2]


def test_too_much_for_the_memory_is_a_result_and_no_failure() -> None:
    group = Group("toy", "?", block(Row("a", SMALL), Row("b", SMALL)))
    found = {"a": result(1, 1), "b": Result(error="out of memory"), "a (again)": result(1, 1)}
    assert table(group, found)[1][-1] == "out of memory"
    assert wrong(group, found) == ["a"], "made up without a gradient"
    assert "out of memory" in "\n".join(lines(group, found))


# ---- groups


@pytest.mark.parametrize("size", SIZES)
def test_every_group_has_its_own_labels_and_references_among_them(size: str) -> None:
    for each in [*groups(size), *quick_groups(size)]:
        labels = [row.label for row in each.rows]
        assert len(set(labels)) == len(labels), each.name
        assert {row.against for row in each.rows} <= set(labels), each.name
    assert all(row.case.repeats == 1 and row.memory is None for each in quick_groups(size) for row in each.rows)


def test_bfloat16_is_too_coarse_to_compare() -> None:
    assert SMALL.exact and Case("read", PERK, 1024).exact and not Case("answer", PERK, 1024).exact
    assert not Case("train", "tgu", 1024, "0.5b").exact


@pytest.mark.parametrize("size", SIZES)
def test_the_long_context_of_the_grid_is_read_in_as_many_groups(size: str) -> None:
    """Eight times the shortest: there is a pair to compare."""
    sizes = SIZES[size]
    assert 8 * sizes.reading[0] in sizes.reading
    group = reading(size, sizes.reading, (1, 8))
    found = {row.label: result(1, 1) for row in group.rows}
    assert f"{8 * sizes.reading[0]} tokens, accumulation 8: 1.00" in group.notes(found)[0]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": "7b"}, "size=7b: use one of cpu, 0.5b"),
        ({"engine": "none"}, "work=train with engine=none"),
        ({"work": "read"}, "work=read with engine=tgu"),
        ({"tokens": 100}, "use a multiple of 64 tokens"),
        ({"accumulation": 3}, "no more groups than segments"),
    ],
)
def test_what_cannot_be_measured_is_refused(values: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(SMALL, **values)


# ---- cases


def test_every_engine_gives_the_gradient_of_higher() -> None:
    """With all steps kept, and with the last alone."""
    whole = [to_result(measure(replace(SMALL, engine=engine, keep=keep))) for engine, keep in ((HIGHER, 4), ("tgu", 4))]
    whole.append(to_result(measure(replace(SMALL, engine="recompute", micro=1))))
    last = [to_result(measure(replace(SMALL, engine=engine, keep=1))) for engine in (HIGHER, "tgu")]
    for reference, *others in (whole, last):
        for other in others:
            assert other.gradient == pytest.approx(reference.gradient, rel=1e-4)
            assert other.rates == pytest.approx(reference.rates, rel=1e-4)
    assert last[0].gradient != pytest.approx(whole[0].gradient, rel=1e-2)
    assert whole[2].allocated < whole[1].allocated < whole[0].allocated


def test_a_context_in_groups_writes_the_same_memory_in_less() -> None:
    one, two = (to_result(measure(Case("read", PERK, TOKENS, accumulation=n, repeats=1))) for n in (1, 2))
    assert two.gradient == pytest.approx(one.gradient, rel=1e-4) and one.gradient[0] > 0
    assert two.allocated < one.allocated


def test_answers_cost_something_and_what_is_kept_has_its_size() -> None:
    size = SIZES["cpu"]
    there = {engine: to_result(measure(Case("answer", engine, TOKENS, repeats=1))) for engine in (FT_ICR, PERK)}
    assert all(found.question > 0 and found.median > 0 for found in there.values())
    head = size.width // size.heads
    assert there[FT_ICR].kept == 2 * size.layers * size.key_heads * head * TOKENS * 4
    sides = 4 * size.width + 2 * (size.width + size.key_heads * head) + 3 * (size.width + size.hidden)
    assert there[PERK].kept == size.layers * size.rank * sides * 4


def test_the_command_runs_every_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small = [training("cpu", (TOKENS,), (0, 1)), reading("cpu", (TOKENS,), (1, 2)), answering("cpu", (512,))]
    monkeypatch.setattr(benchmark_perk, "groups", lambda size: small)
    words = ["--repeats", "1", "--markdown", str(tmp_path / "table.md"), "--csv", str(tmp_path / "table.csv")]
    benchmark_perk.main(words)
    text = capsys.readouterr().out
    assert text == (tmp_path / "table.md").read_text()
    assert text.startswith("`python -m scripts.benchmark perk --repeats 1") and "PERK faster from" in text
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["group"] for row in read] == ["training"] * 4 + ["reading"] * 2 + ["answering"] * 2
    assert {row["exact"] for row in read[:6]} == {"yes"} and all(float(row["seconds"]) > 0 for row in read)
