"""Student-record problems: one record is one segment (paper, appendix A.2)."""

import random
from collections.abc import Sequence

from common.data.dataroot import find
from common.data.splits import SPLITS, completed, digest
from common.errors import UserError
from perk.config import DataConfig
from perk.problems import Made, Problem, Question
from perk.segments import tell_of_long
from perk.students.generator import generate
from perk.students.records import ID, Database, kind_of, line_of, named_in, read_databases
from perk.tokens import Tokens


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits.

    Raises:
        UserError: a file is missing or malformed, or leaves a split without questions.
    """
    if not config.made:
        return _from_files(config, tokens)

    def maker(split: str) -> Made:
        def make(index: int) -> Problem:
            return problem_of(database_of(config, tokens, split, index), f"{config.name}/{split}/{index}", tokens)

        return Made(config.count[split], make)

    return {split: maker(split) for split in SPLITS}


def database_of(config: DataConfig, tokens: Tokens, split: str, index: int) -> Database:
    """The generated database number `index` of a split."""
    length = config.length_of(split)
    return generate(config.students, tokens, length, config.seed, split, index, config.questions)


def problem_of(database: Database, name: str, tokens: Tokens, group: str = "") -> Problem:
    """The database as a context with its questions. Support are the records that a question names."""
    place_of: dict[str, int] = {}
    for place, record in enumerate(database.records):
        place_of.setdefault(record[ID], place)
    segments = tuple(map(line_of, database.records))
    questions = []
    for number, (text, answer) in enumerate(database.asked):
        gold = tuple(dict.fromkeys(place_of[name] for name in named_in(text)))
        support = tuple(segments[place] for place in gold)
        questions.append(Question(f"{name}/{number}", text, (answer,), kind_of(text), support, gold))
    total = sum(tokens.counts(segments))
    sources = tuple(f"student:{each}" for each in place_of)
    return Problem(name, segments, tuple(questions), sources, total, group=group)


def _from_files(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    read: dict[str, list[Database]] = {}
    for split in SPLITS:
        if (name := getattr(config.files, split)) is not None:
            read[split] = list(read_databases(find(config.root, name, "generate records: data.files.train=null")))
    read = completed(read, _key, config.shares, config.seed, "databases")
    return {split: _split(config, tokens, split, read[split]) for split in SPLITS}


def _key(database: Database) -> str:
    return digest("\n".join(sorted(map(line_of, database.records))))


def _split(config: DataConfig, tokens: Tokens, split: str, databases: Sequence[Database]) -> Made:
    size = config.questions
    cases = [
        Database(database.records, database.asked[start : start + size])
        for database in databases
        for start in range(0, len(database.asked), size)
    ]
    if not cases:
        raise UserError(f"data.files.{split}: no question in it; give a file with questions")
    records = (line_of(record) for database in databases for record in database.records)
    tell_of_long(f"data.files: {split}", records, tokens, config.segment_tokens)
    random.Random(f"{config.seed}/{split}/cases").shuffle(cases)
    count = config.count[split] or len(cases)

    def make(index: int) -> Problem:
        case = cases[index % len(cases)]
        return problem_of(case, f"{config.name}/{split}/{index}", tokens, f"database:{_key(case)}")

    return Made(count, make)
