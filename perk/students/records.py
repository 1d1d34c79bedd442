"""Student records and questions about them: the published form, read and written.

An object holds `database`, a list of records with the six fields of FIELDS, all strings, and `questions`, a list of
{question, answer}; lists of the published samples end in the string "...". The samples are licensed MIT.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.jsonfile import line_within, read_objects
from common.errors import UserError
from perk.metrics import exact_match

FIELDS = ("Student Id", "Student Name", "Year", "School", "Major", "Grade")
ID, NAME, YEAR, SCHOOL, MAJOR, GRADE = FIELDS
CUT = "..."
KINDS = {
    "recall_name": r"what is the name of",
    "recall_major": r"what major is",
    "recall_grade": r"what is the grade of",
    "recall_year": r"which year is",
    "recall_school": r"which school is",
    "relation_grade": r"has? a higher grade than",
    "relation_major": r"study the same major",
    "relation_school": r"in the same school",
    "relation_year": r"in the same year",
    "aggregate_highest": r"what is the highest grade",
    "aggregate_lowest": r"what is the lowest grade",
    "aggregate_average": r"what is the average grade",
    "count": r"^how many",
    "sort": r"^list ",
}
Record = Mapping[str, str]


@dataclass(frozen=True)
class Database:
    """Records in the order of the context, and (question, answer) pairs. A record may stand there twice."""

    records: tuple[Record, ...]
    asked: tuple[tuple[str, str], ...]


def kind_of(question: str) -> str:
    """Which of KINDS a question is, by its wording; `other` for none."""
    return next((kind for kind, words in KINDS.items() if re.search(words, question.lower())), "other")


def line_of(record: Record) -> str:
    """The record as the context shows it: one line, one segment."""
    return ", ".join(f"{field}: {record[field]}" for field in FIELDS)


def named_in(question: str) -> list[str]:
    """The ids that a question names."""
    return re.findall(r"\b\d{7}\b", question)


def read_databases(path: Path) -> Iterator[Database]:
    """Every database of a file: one object, several, or an array of them.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    for line, value in read_objects(path, remedy="give the path of a file with student records"):
        yield _database(value, path, line)


def _database(value: dict[str, Any], path: Path, line: int) -> Database:
    for field in ("database", "questions"):
        if not isinstance(value.get(field), list):
            raise UserError(f"{path}:{line}: a list {field!r} is needed, found {sorted(value)}; see the published form")
        while value[field] and value[field][-1] == CUT:
            value[field].pop()
        if not value[field]:
            raise UserError(f"{path}:{line}: {field} is empty; add some")

    def wrong(field: str, index: int, what: str) -> UserError:
        return UserError(f"{path}:{line_within(path, line, field, index)}: {field}[{index}]: {what}")

    records: dict[str, Record] = {}
    for index, record in enumerate(value["database"]):
        if not isinstance(record, dict) or any(not isinstance(record.get(field), str) for field in FIELDS):
            raise wrong("database", index, f"a record needs the fields {', '.join(FIELDS)}, each a string")
        if not re.fullmatch(r"\d{7}", record[ID]) or not record[GRADE].isdigit():
            raise wrong("database", index, f"{ID}={record[ID]!r}, {GRADE}={record[GRADE]!r}: seven digits and a number")
        if records.setdefault(record[ID], record) != record:
            raise wrong("database", index, f"{ID} {record[ID]} was used for another student; ids are unique")
    asked = []
    said: dict[str, str] = {}
    for index, pair in enumerate(value["questions"]):
        if not isinstance(pair, dict) or any(
            not isinstance(pair.get(f), str) or not pair[f].strip() for f in ("question", "answer")
        ):
            raise wrong("questions", index, "a question needs the fields question and answer, each a string")
        if missing := [name for name in named_in(pair["question"]) if name not in records]:
            raise wrong("questions", index, f"no student has the id {missing[0]}; correct the question")
        if not exact_match(pair["answer"], (said.setdefault(pair["question"], pair["answer"]),)):
            raise wrong("questions", index, f"{pair['question']!r} was answered {said[pair['question']]!r} before")
        asked.append((pair["question"], pair["answer"]))
    return Database(tuple(value["database"]), tuple(asked))


def to_json(database: Database) -> dict[str, Any]:
    """The published form; `read_databases` is the inverse."""
    pairs = [{"question": question, "answer": answer} for question, answer in database.asked]
    return {"database": [dict(record) for record in database.records], "questions": pairs}
