"""Student records: the published form, answers worked out again, what splits share, and what constants score."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS
from common.errors import UserError
from perk.audit import audit
from perk.students.build import build, database_of
from perk.students.config import Ask
from perk.students.records import Database, kind_of, line_of, read_databases, to_json
from perk.tokens import Words

KINDS = {
    Ask.recall: {"recall_name", "recall_major", "recall_grade", "recall_year", "recall_school"},
    Ask.relation: {"relation_grade", "relation_major", "relation_school", "relation_year"},
    Ask.aggregate: {"aggregate_highest", "aggregate_lowest", "aggregate_average"},
    Ask.count: {"count"},
    Ask.sort: {"sort"},
}


def answer(database: Database, question: str) -> str:
    """The answer, worked out from the records alone."""
    rows = {record["Student Id"]: record for record in database.records}
    grades = sorted((int(row["Grade"]), name) for name, row in rows.items())
    named = [rows[name] for name in re.findall(r"\d{7}", question)]
    if len(named) == 1:
        for word, field in (("name", "Student Name"), ("major", "Major"), ("grade", "Grade"), ("school", "School")):
            if word in question:
                return named[0][field]
        return named[0]["Year"]
    if len(named) == 2:
        one, two = named
        if "higher grade" in question:
            return "Yes" if int(one["Grade"]) > int(two["Grade"]) else "No"
        field = next(f for w, f in (("major", "Major"), ("school", "School"), ("year", "Year")) if w in question)
        return "Yes" if one[field] == two[field] else "No"
    if question.startswith("How many"):
        values = [value for row in rows.values() for value in (row["Major"], row["School"], row["Year"])]
        return str(sum(re.search(rf"{re.escape(value)}\?$", question) is not None for value in values))
    if question.startswith("List"):
        ends = grades if "lowest" in question else sorted((-grade, name) for grade, name in grades)
        return ", ".join(name for _, name in ends[:3])
    numbers = [int(record["Grade"]) for record in database.records]  # one is there twice in the published samples
    if "average" in question:
        return f"{sum(numbers) / len(numbers):.1f}"
    return str(max(numbers) if "highest" in question else min(numbers))


@pytest.mark.parametrize("name", ["recall", "relation", "allgregation"])
def test_the_published_samples_are_read_and_their_answers_worked_out(data_root: Path, name: str) -> None:
    (database,) = read_databases(data_root / "perk_samples" / f"student_records_{name}.json")
    assert len(database.records) == 26
    assert len(database.asked) == {"recall": 5, "relation": 4, "allgregation": 3}[name]
    assert "other" not in {kind_of(question) for question, _ in database.asked}
    differing = [question for question, expected in database.asked if answer(database, question) != expected]
    # one published answer is wrong: student 3109998 has grade 72, student 1002030 has 56
    assert differing == ["Does student 3109998 has a higher grade than student 1002030?"] * (name == "relation")


@pytest.mark.parametrize("ask", list(Ask))
@pytest.mark.parametrize("variant", ["published", "repaired"])
def test_generated_answers_are_worked_out_again(small: Any, ask: Ask, variant: str) -> None:
    config = small("student_recall", f"data.students.ask={ask}", f"data.students.variant={variant}")
    kinds = set()
    for index in range(40):
        database = database_of(config, Words(), "train", index)
        ((question, given),) = database.asked
        assert answer(database, question) == given
        kinds.add(kind_of(question))
    assert kinds == KINDS[ask]


def test_a_context_holds_as_many_records_as_fit_and_names_its_support(small: Any) -> None:
    config = small("student_relation", "data.length=1024", "data.questions=3")
    for problem in build(config, Words())["test"]:
        assert 1024 - 45 < problem.tokens <= 1024
        assert len({question.text for question in problem.questions}) == 3
        for question in problem.questions:
            assert [problem.segments[place] for place in question.gold] == list(question.support)
            assert all(name in "".join(question.support) for name in re.findall(r"\d{7}", question.text))


def test_no_two_splits_share_an_id_a_name_or_a_combination_of_attributes(small: Any) -> None:
    config = small("student_recall", "data.length=8192")
    seen: dict[str, tuple[set[str], set[str], set[tuple[str, ...]]]] = {}
    for split in SPLITS:
        records = [record for index in range(3) for record in database_of(config, Words(), split, index).records]
        ids, names = {record["Student Id"] for record in records}, {record["Student Name"] for record in records}
        seen[split] = (ids, names, {(r["Year"], r["Major"], r["Grade"]) for r in records})
        assert len(ids) > 400
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert all(not one & other for one, other in zip(seen[a], seen[b], strict=True))


def test_a_database_is_a_pure_function_of_seed_split_and_number(small: Any) -> None:
    config, other = small("student_recall"), small("student_recall", "data.seed=1")
    assert database_of(config, Words(), "dev", 3) == database_of(config, Words(), "dev", 3)
    assert database_of(config, Words(), "dev", 3) != database_of(other, Words(), "dev", 3)


def scores(config: Any) -> dict[str, float]:
    splits = build(config, Words())
    return {result.name: result.interval.value for result in audit(splits["train"], splits["test"], config)}


def test_constants_do_well_on_the_published_kind_and_badly_on_the_repaired_one(small: Any) -> None:
    """By calculation, 86 to 90 % of highest and lowest at about 200 records, so about 60 % of all."""
    sizes = ["data.count={train:15,dev:1,test:25}", "data.length=7000", "data.questions=3"]
    published = scores(small("student_aggregate", *sizes))
    repaired = scores(small("student_aggregate", "data.students.variant=repaired", *sizes))
    assert 0.5 < published["range_ends"] < 0.7
    assert repaired["range_ends"] < 0.1 and max(repaired.values()) < 0.25
    sizes = ["data.count={train:200,dev:1,test:200}"]
    assert scores(small("student_relation", *sizes))["constant"] > 0.6
    assert scores(small("student_relation", "data.students.variant=repaired", *sizes))["constant_by_kind"] < 0.6


def test_written_records_are_read_back(small: Any, tmp_path: Path) -> None:
    database = database_of(small("student_recall"), Words(), "train", 0)
    path = tmp_path / "one.json"
    path.write_text(json.dumps(to_json(database), indent=4))
    assert list(read_databases(path)) == [database]


RECORD = {"Student Id": "1234567", "Student Name": "A", "Year": "Junior", "School": "S", "Major": "M", "Grade": "50"}
PAIR = {"question": "What is the name of the student with ID 1234567?", "answer": "A"}


@pytest.mark.parametrize(
    ("value", "line", "what"),
    [
        ({"questions": [PAIR]}, 1, "a list 'database' is needed"),
        ({"database": [], "questions": [PAIR]}, 1, "database is empty"),
        ({"database": [RECORD, {**RECORD, "Grade": 5}], "questions": [PAIR]}, 11, "database[1]: a record needs"),
        ({"database": [RECORD, {**RECORD, "Student Id": "12"}], "questions": [PAIR]}, 11, "seven digits"),
        ({"database": [RECORD, {**RECORD, "Grade": "7"}], "questions": [PAIR]}, 11, "used for another student"),
        ({"database": [RECORD], "questions": [PAIR, {"question": ""}]}, 17, "questions[1]: a question needs"),
        (
            {"database": [RECORD], "questions": [PAIR, {"question": "Is 7654321 in?", "answer": "No"}]},
            17,
            "no student has the id 7654321",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, value: Any, line: int, what: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(value, indent=1))
    with pytest.raises(UserError, match=re.escape(what)) as caught:
        list(read_databases(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_files_are_cut_by_database(small: Any, tmp_path: Path) -> None:
    config = small("student_recall")
    databases = [database_of(config, Words(), "train", index) for index in range(8)]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(json.dumps(to_json(database)) for database in databases))
    words = [f"data.root={tmp_path}", "data.files.train=all.jsonl", "data.count={train:0,dev:0,test:0}"]
    splits = build(small("student_recall", *words), Words())
    assert [len(splits[split]) for split in SPLITS] == [6, 1, 1]
    assert {line_of(d.records[0]) for d in databases} == {p.segments[0] for split in SPLITS for p in splits[split]}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["data.length=64"], "64 tokens hold 2 student records"),
        (["data.students.ask=aggregate", "data.questions=4"], "answer only 3 different questions"),
        (["data.task=apis", "data.questions=2"], "generated apis have one question a context"),
        (["data.students.grades=[9]"], "data.students.grades=[9]"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(small: Any, words: list[str], what: str) -> None:
    with pytest.raises(UserError, match=re.escape(what)):
        list(build(small("student_recall", *words), Words())["train"])
