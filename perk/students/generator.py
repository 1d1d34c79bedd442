"""Student records made to order.

`generate` is a pure function of its arguments. Ids, names and combinations of attributes belong to the split that their
digest falls to, so no two splits share one, as the paper asks of training and test (appendix A.2).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice

from common.data.splits import belongs
from common.errors import UserError
from perk.students.config import Ask, StudentsConfig, Variant
from perk.students.records import GRADE, ID, MAJOR, NAME, SCHOOL, YEAR, Database, Record, line_of
from perk.students.vocabulary import FIRST, LAST, MAJORS, SUFFIXES, TITLES, YEARS
from perk.tokens import Tokens

BATCH = 16
FEWEST = 4
"""Records without which nothing can be asked."""
TOP = 3
"""Students that a sorting question asks for."""
ATTEMPTS = 200
Pair = tuple[str, str]


def generate(
    config: StudentsConfig, tokens: Tokens, length: int, seed: int, split: str, index: int, questions: int = 1
) -> Database:
    """Database number `index` of a split: as many records as `length` tokens hold, and so many different questions.

    Raises:
        UserError: the length does not hold FEWEST records, or so many questions cannot be asked of them.
    """
    rng = random.Random(f"{seed}/{split}/{index}/students")
    records: list[Record] = []
    left, full = length, False
    students = _students(config, split, rng)
    while not full:
        batch = list(islice(students, BATCH))
        for record, count in zip(batch, tokens.counts([line_of(record) for record in batch]), strict=True):
            full = full or count > left
            if not full:
                records.append(record)
                left -= count
    if len(records) < FEWEST:
        raise UserError(
            f"{length} tokens hold {len(records)} student records, {FEWEST} are needed; raise data.length, or lower "
            "data.shrink"
        )
    asked: dict[str, str] = {}
    for _ in range(ATTEMPTS * questions):
        if (pair := ASK[config.ask](records, config.variant, rng)) is not None:
            asked.setdefault(*pair)
        if len(asked) == questions:
            return Database(tuple(records), tuple(asked.items()))
    raise UserError(
        f"data.questions={questions}: {len(records)} records answer only {len(asked)} different questions of the kind "
        f"{config.ask}; ask fewer, or raise data.length"
    )


def _students(config: StudentsConfig, split: str, rng: random.Random) -> Iterator[Record]:
    low, high = config.grades
    if config.variant is Variant.repaired:
        width = max(1, (high - low) // 3)
        low = rng.randint(low, high - width)
        high = low + width
    ids: set[str] = set()
    names: set[str] = set()
    grades = [grade for grade in range(low, high + 1) if _attributes(split, grade)]

    def fresh(draw: Callable[[], str], kind: str, seen: set[str]) -> str:
        while (found := draw()) in seen or not belongs(f"{kind} {found}", split):
            pass
        seen.add(found)
        return found

    while True:
        grade = rng.choice(grades)
        year, school, major = rng.choice(_attributes(split, grade))
        yield {
            ID: fresh(lambda: str(rng.randint(1_000_000, 9_999_999)), "id", ids),
            NAME: fresh(lambda: _name(rng), "name", names),
            YEAR: year,
            SCHOOL: school,
            MAJOR: major,
            GRADE: str(grade),
        }


@cache
def _attributes(split: str, grade: int) -> list[tuple[str, str, str]]:
    """The combinations of (year, school, major) that a split has with a grade; grades are drawn first, so that each is
    as frequent as the others."""
    return [
        (year, school, major)
        for year in YEARS
        for school, offered in MAJORS.items()
        for major in offered
        if belongs(f"{year}/{major}/{grade}", split)
    ]


def _name(rng: random.Random) -> str:
    return f"{rng.choice(TITLES)}{rng.choice(FIRST)} {rng.choice(LAST)}{rng.choice(SUFFIXES)}"


def _recall(records: Sequence[Record], variant: Variant, rng: random.Random) -> Pair:
    record = rng.choice(records)
    field, question = rng.choice(
        (
            (NAME, "What is the name of the student with ID {}?"),
            (MAJOR, "What major is student with ID {} studying?"),
            (GRADE, "What is the grade of the student with ID {}?"),
            (YEAR, "Which year is student with ID {} in?"),
            (SCHOOL, "Which school is the student with ID {} enrolled in?"),
        )
    )
    return question.format(record[ID]), record[field]


def _relation(records: Sequence[Record], variant: Variant, rng: random.Random) -> Pair | None:
    question, holds = rng.choice(RELATIONS)
    wanted = rng.random() < 0.5
    for _ in range(ATTEMPTS):
        first, second = rng.sample(records, 2)
        if variant is Variant.published or holds(first, second) is wanted:
            return question.format(first[ID], second[ID]), "Yes" if holds(first, second) else "No"
    return None


RELATIONS: tuple[tuple[str, Callable[[Record, Record], bool]], ...] = (
    ("Does student {} has a higher grade than student {}?", lambda a, b: int(a[GRADE]) > int(b[GRADE])),
    ("Does student {} study the same major as student {}?", lambda a, b: a[MAJOR] == b[MAJOR]),
    ("Are student {} and student {} enrolled in the same school?", lambda a, b: a[SCHOOL] == b[SCHOOL]),
    ("Are student {} and student {} in the same year?", lambda a, b: a[YEAR] == b[YEAR]),
)
"""Worded as in the published samples."""


def _aggregate(records: Sequence[Record], variant: Variant, rng: random.Random) -> Pair:
    grades = [int(record[GRADE]) for record in records]
    return rng.choice(
        (
            ("What is the highest grade among all students?", str(max(grades))),
            ("What is the lowest grade among all students?", str(min(grades))),
            ("What is the average grade of all students?", f"{sum(grades) / len(grades):.1f}"),
        )
    )


def _count(records: Sequence[Record], variant: Variant, rng: random.Random) -> Pair:
    field, question = rng.choice(
        (
            (MAJOR, "How many students study {}?"),
            (SCHOOL, "How many students are enrolled in the {}?"),
            (YEAR, "How many students are in the year {}?"),
        )
    )
    value = rng.choice(records)[field]
    return question.format(value), str(sum(record[field] == value for record in records))


def _sort(records: Sequence[Record], variant: Variant, rng: random.Random) -> Pair:
    way, sign = rng.choice((("highest", -1), ("lowest", 1)))
    first = sorted(records, key=lambda record: (sign * int(record[GRADE]), record[ID]))[:TOP]
    question = f"List the IDs of the {TOP} students with the {way} grades, the {way} first, equal grades by ID."
    return question, ", ".join(record[ID] for record in first)


ASK: dict[Ask, Callable[[Sequence[Record], Variant, random.Random], Pair | None]] = {
    Ask.recall: _recall,
    Ask.relation: _relation,
    Ask.aggregate: _aggregate,
    Ask.count: _count,
    Ask.sort: _sort,
}
