"""Problems of a user's own: contexts as they are, one JSON object a line.

    {"context": "Mary went home. ...", "question": "Where is Mary?", "answer": "home", "support": ["Mary went home."]}
    {"context": ["one segment", "another"], "questions": [{"question": "...", "answer": ["accepted", "too"]}]}

A context is running text, which is cut into segments of at most `data.segment` tokens, or a list of segments. `answer`
is one text or a list of accepted ones, the first being the one to say. Optional: `support`, sentences of the context in
the order to recite them; `kind`, by which scores are split; of a line `id`, and `source`, what must not cross splits
(default: the context).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.dataroot import find
from common.data.given import Spellings, check_names, name_of
from common.data.jsonfile import read_objects
from common.data.splits import SPLITS, completed, digest
from common.errors import UserError
from common.language.normal import normalise
from perk.config import DataConfig
from perk.metrics import exact_match
from perk.problems import Made, Problem, Question
from perk.segments import segments_of, tell_of_long
from perk.tokens import Tokens

ASKED = ("question", "answer", "support", "kind")
LINE = ("context", "questions", "id", "source")
KNOWN = (*LINE, *ASKED)
OTHER_WORDS = {
    **dict.fromkeys(("relevant", "evidence", "supporting_facts", "gold"), "support"),
    **dict.fromkeys(("label", "target"), "answer"),
    **dict.fromkeys(("text", "passage", "document", "documents", "segments"), "context"),
    **dict.fromkeys(("theory", "group"), "source"),
    **dict.fromkeys(("type", "category"), "kind"),
}
"""Of other data sets, RECKONING's own files among them."""
REMEDY = "name a file with data.files.train"
FORM = '{"context": "...", "question": "...", "answer": "..."}'


@dataclass(frozen=True)
class Line:
    """One line of a file: a context and what is asked about it."""

    id: str
    source: str
    context: str | tuple[str, ...]
    questions: tuple[Question, ...]


def build(config: DataConfig, tokens: Tokens) -> dict[str, Made]:
    """The three splits; those without a file are cut from the train file by `source`.

    Raises:
        UserError: a file is missing or malformed, or leaves a split without problems.
    """
    if config.made:
        raise UserError("data.files.train=null: data.task=jsonl generates nothing; name a file")
    files = {split: name for split in SPLITS if (name := getattr(config.files, split)) is not None}
    read = {split: list(read_lines(find(config.root, name, REMEDY))) for split, name in files.items()}
    read = completed(read, lambda line: line.source, config.shares, config.seed, "contexts")
    return {split: _split(config, tokens, split, read[split]) for split in SPLITS}


def _split(config: DataConfig, tokens: Tokens, split: str, lines: Sequence[Line]) -> Made:
    given = [text for line in lines if not isinstance(line.context, str) for text in line.context]
    tell_of_long(f"data.files: {split}", given, tokens, config.segment_tokens)

    def make(index: int) -> Problem:
        line = lines[index % len(lines)]
        context = line.context
        segments = segments_of(context, tokens, config.segment_tokens) if isinstance(context, str) else context
        gold_of = {
            question: tuple(i for i, text in enumerate(segments) if any(each in text for each in question.support))
            for question in line.questions
        }
        questions = tuple(
            Question(
                f"{config.name}/{split}/{question.id}", question.text, question.answers, question.kind or config.name,
                question.support, gold_of[question],
            )
            for question in line.questions
        )  # fmt: skip
        name = f"{config.name}/{split}/{line.id}"
        source, total = f"source:{line.source}", sum(tokens.counts(segments))
        return Problem(name, tuple(segments), questions, (source,), total, group=source)

    return Made(config.count[split] or len(lines), make)


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    seen: dict[str, int] = {}
    told: dict[str, tuple[Question, str]] = {}
    spellings = Spellings(lambda answer: " ".join(answer.lower().split()))
    for line, value in read_objects(path, remedy=f"give the path of a file with one object a line, {FORM}"):
        where = f"{path}:{line}"
        check_names(value, KNOWN, where, OTHER_WORDS)
        if strange := sorted(set(value) - set(KNOWN)):
            raise UserError(f"{where}: unknown field {strange[0]!r}; known are {', '.join(KNOWN)}")
        context = _context(value.get("context"), where)
        name = name_of(value.get("id"), "id", where) or f"{path.name.split('.')[0]}:{line}"
        if name in seen:
            raise UserError(f"{where}: id {name!r} was used in line {seen[name]}; give every line an id of its own")
        seen[name] = line
        text = context if isinstance(context, str) else " ".join(context)
        asked = _asked(value, where)
        questions = tuple(_question(each, at, f"{name}/{i}", text, spellings) for i, (each, at) in enumerate(asked))
        source = name_of(value.get("source"), "source", where)
        _check_answers(text, questions, [at for _, at in asked], told)
        yield Line(name, digest(text) if source is None else source, context, questions)
    spellings.tell("answer")


def _check_answers(
    text: str, questions: Sequence[Question], places: Sequence[str], told: dict[str, tuple[Question, str]]
) -> None:
    """See that no question about a context has two answers; `told` are those of the lines before."""
    for question, where in zip(questions, places, strict=True):
        before, place = told.setdefault(digest(f"{text}\n{normalise(question.text)}"), (question, where))
        if not any(exact_match(answer, before.answers) for answer in question.answers):
            raise UserError(
                f"{where}: {question.text!r} is answered {question.answers[0]!r}, and {before.answers[0]!r} of the "
                f"same context in {place}; correct one of them, or accept both in a list"
            )


def _context(value: Any, where: str) -> str | tuple[str, ...]:
    """Blanks and line ends inside become single blanks, as in the segments."""
    if isinstance(value, str) and value.strip():
        return _plain(value)
    if isinstance(value, list) and value and all(isinstance(each, str) and each.strip() for each in value):
        return tuple(map(_plain, value))
    raise UserError(f"{where}: context={str(value)[:40]!r} is neither a text nor a list of segments; write {FORM}")


def _asked(value: Mapping[str, Any], where: str) -> list[tuple[Mapping[str, Any], str]]:
    """(fields, place in the file) of every question of a line."""
    if "questions" not in value:
        return [(value, where)]
    if extra := [name for name in ASKED if name in value]:
        raise UserError(f"{where}: {extra[0]} beside questions; move it into the questions")
    several = value["questions"]
    if not isinstance(several, list) or not several or not all(isinstance(each, dict) for each in several):
        raise UserError(
            f'{where}: questions is no list of objects; write [{{"question": "...", "answer": "..."}}, ...]'
        )
    return [(each, f"{where}: questions[{index}]") for index, each in enumerate(several)]


def _question(value: Mapping[str, Any], where: str, name: str, context: str, spellings: Spellings) -> Question:
    text, answers, support = value.get("question"), value.get("answer"), value.get("support")
    support = [] if support is None else support
    if strange := [field for field in check_names(value, (*ASKED, *LINE), where, OTHER_WORDS) if field not in KNOWN]:
        raise UserError(f"{where}: unknown field {strange[0]!r}; known are {', '.join(ASKED)}")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: question={text!r} is no text; write {FORM}")
    answers = answers if isinstance(answers, list) else [answers]
    if not answers or not all(isinstance(each, str) and each.strip() for each in answers):
        raise UserError(f"{where}: answer={value.get('answer')!r} is neither a text nor a list of texts; write {FORM}")
    if not isinstance(support, list) or not all(isinstance(each, str) for each in support):
        raise UserError(f"{where}: support={support!r} is no list of sentences; write them as the context has them")
    recited = tuple(map(_plain, support))
    if absent := [each for each in recited if not each or each not in context]:
        raise UserError(f"{where}: support {absent[0]!r} is not in the context; copy the sentence from there")
    said, *others = map(str.strip, answers)
    accepted = (spellings.one(said, where), *others)
    return Question(name, _plain(text), accepted, name_of(value.get("kind"), "kind", where) or "", recited)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
