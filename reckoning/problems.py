"""Problems: a knowledge set and the questions asked about it, and the JSON forms they are kept in."""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from common.data.given import Spellings, Unread, check_names, name_of
from common.data.splits import cut
from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.metrics import normalise

FORMAT = '{"facts": ["...", ...], "question": "...", "answer": "..."}'
SEVERAL = '"questions": [{"question": "...", "answer": "..."}, ...]'
KINDS = ("fact", "rule")
QUESTION = ("question", "answer", "relevant", "depth")
LINE = ("facts", "questions", "kinds", "theory", "id", "all_facts", "guid", "proofs", *QUESTION)
"""Fields that are read; `guid` is the authors' `id`, and their `proofs` say nothing that `facts` does not."""
OTHER_WORDS = {
    **dict.fromkeys(
        ("support", "supports", "supporting_facts", "evidence", "gold", "proof", "relevant_facts"), "relevant"
    ),
    **dict.fromkeys(("label", "target", "gold_answer"), "answer"),
    **dict.fromkeys(("context", "premises", "sentences", "knowledge"), "facts"),
    **dict.fromkeys(("hypothesis", "conclusion", "statement", "query"), "question"),
    **dict.fromkeys(("group", "source", "story_id"), "theory"),
    **dict.fromkeys(("hops", "qdep"), "depth"),
}
"""Of other data sets, PERK's own files among them."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """One question or hypothesis about a knowledge set.

    `relevant` are indices into `Problem.facts` in the order in which they are recited, () where not known;
    `answer` is the label of the file (true, false, unknown, or any word), `depth` the proof depth where known.
    """

    id: str
    text: str
    answer: str
    relevant: tuple[int, ...] = ()
    depth: int | None = None


@dataclass(frozen=True)
class Problem:
    """One knowledge set with its questions.

    `theory` is the key of what must not be shared between splits. `facts` are sentences without the final full stop,
    in the order given to the model. `kinds` says "fact" or "rule" for each, () where unknown.

    Raises:
        ValueError: no facts, no questions, kinds of another length, or a relevant index out of range.
    """

    id: str
    theory: str
    facts: tuple[str, ...]
    kinds: tuple[str, ...]
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        if not self.facts or not self.questions:
            raise ValueError(f"problem {self.id}: {len(self.facts)} facts, {len(self.questions)} questions")
        if self.kinds and (len(self.kinds) != len(self.facts) or not set(self.kinds) <= set(KINDS)):
            raise ValueError(f"problem {self.id}: kinds {self.kinds} for {len(self.facts)} facts")
        for question in self.questions:
            if any(not 0 <= index < len(self.facts) for index in question.relevant):
                raise ValueError(f"question {question.id}: relevant {question.relevant} of {len(self.facts)} facts")


def without_full_stop(sentence: str) -> str:
    """The sentence without surrounding blanks and without its final full stop."""
    return sentence.strip().removesuffix(".").rstrip()


def sentences_of(text: str) -> tuple[str, ...]:
    """The sentences of a paragraph, which end in full stops, without them."""
    return tuple(filter(None, map(without_full_stop, re.split(r"(?<=\.)\s+", text))))


def content_key(facts: Iterable[str]) -> str:
    """Key of a knowledge set by its sentences, whatever their order: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256("\n".join(sorted(set(facts))).encode()).hexdigest()[:16]


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """The problem as plain JSON values; `problem_from_json` is its exact inverse."""
    questions = [
        {"id": q.id, "text": q.text, "answer": q.answer, "relevant": list(q.relevant), "depth": q.depth}
        for q in problem.questions
    ]
    return {
        "id": problem.id,
        "theory": problem.theory,
        "facts": list(problem.facts),
        "kinds": list(problem.kinds),
        "questions": questions,
    }


def problem_from_json(value: Mapping[str, Any]) -> Problem:
    """Inverse of `problem_to_json`.

    Raises:
        ValueError: the value was not written by `problem_to_json`.
    """
    try:
        questions = tuple(
            Question(q["id"], q["text"], q["answer"], tuple(q["relevant"]), q["depth"]) for q in value["questions"]
        )
        return Problem(value["id"], value["theory"], tuple(value["facts"]), tuple(value["kinds"]), questions)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a stored problem ({error!r})") from error


def group_questions(problems: Iterable[Problem], limit: int) -> list[Problem]:
    """Problems with at most `limit` questions each: consecutive ones with equal theory, facts and kinds are merged,
    larger ones are cut. A merged problem keeps the id of its first member.

    Raises:
        UserError: limit below 1.
    """
    if limit < 1:
        raise UserError(f"data.questions_per_set={limit}: at least one question per knowledge set; use 1 or more")
    grouped: list[Problem] = []
    for (theory, facts, kinds), run in groupby(problems, key=lambda p: (p.theory, p.facts, p.kinds)):
        asked = [(problem.id, question) for problem in run for question in problem.questions]
        names: set[str] = set()
        for start in range(0, len(asked), limit):
            name, first = asked[start]
            name = f"{name}/{first.id}" if name in names else name  # one problem cut into several
            names.add(name)
            questions = tuple(question for _, question in asked[start : start + limit])
            grouped.append(Problem(name, theory, facts, kinds, questions))
    return grouped


def shuffled_copies(problems: Iterable[Problem], count: int, seed: int) -> list[Problem]:
    """Every problem `count` times, all of them once before any comes again: as it is, then with its sentences in an
    order that depends on the seed, the problem's id and the copy alone. A copy recites its relevant sentences in the
    order in which it gives them.
    """
    originals = list(problems)
    copies = list(originals)
    for copy in range(1, count):
        for problem in originals:
            order = list(range(len(problem.facts)))
            random.Random(f"{seed}/copies/{problem.id}/{copy}").shuffle(order)
            place = {index: new for new, index in enumerate(order)}
            copies.append(
                replace(
                    problem,
                    id=f"{problem.id}/copy{copy}",
                    facts=tuple(problem.facts[index] for index in order),
                    kinds=tuple(problem.kinds[index] for index in order) if problem.kinds else (),
                    questions=tuple(
                        replace(question, relevant=tuple(sorted(place[index] for index in question.relevant)))
                        for question in problem.questions
                    ),
                )
            )
    return copies


def read_jsonl(
    path: Path,
    labels: Mapping[str, str] | None = None,
    *,
    questions_per_set: int = 1,
    answers: Spellings | None = None,
    told: "Answers | None" = None,
) -> list[Problem]:
    """Problems of a user's own JSON-lines file (plain or .gz), one knowledge set per line in the form `FORMAT`.

    Several questions about the facts stand in `questions`, a list of objects, in place of `question` and `answer`.
    Optional fields of a question: `relevant` (sentences of `facts` or their indices from 0) and `depth`; in a list also
    `id`. Optional fields of a line: `kinds` ("fact" or "rule" per sentence), `theory` (what must not cross splits;
    default: `content_key` of the facts), `id` (default: the line). In the authors' files `all_facts` are given and
    `facts` the relevant of them, and `guid` is the id. `labels` maps the labels of the file to answer
    words; its keys are the only labels accepted, compared without regard to case and kept as the key writes them (JSON
    true and false are read as words). None accepts any; of spellings that scoring takes for one the first in `answers`
    is kept, with a warning. With `told` a question has one answer. Problems have up to
    `questions_per_set` questions: consecutive lines with equal facts are merged, longer lists are cut.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    remedy = "give the path of a JSON-lines file, plain or .gz"
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    unread = Unread(path)
    own = Spellings(normalise) if answers is None else answers
    for number, record in read_json_lines(path, remedy=remedy, own=False):
        where = f"{path}:{number}"
        unread.tell(check_names(record, LINE, where, OTHER_WORDS), number)
        problem = _problem_of(record, where, f"{path.name.split('.')[0]}:{number}", labels)
        if labels is None:
            questions = tuple(replace(each, answer=own.one(each.answer, where)) for each in problem.questions)
            problem = replace(problem, questions=questions)
        if told is not None:
            told.check(problem, where)
        for question in problem.questions:
            if question.id in seen:
                raise UserError(
                    f"{where}: id {question.id!r} was used in line {seen[question.id]}; "
                    "give every question an id of its own"
                )
            seen[question.id] = number
        problems.append(problem)
    if answers is None:
        own.tell("answer")
    return group_questions(problems, questions_per_set)


class Answers:
    """What questions about a knowledge set were answered."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[str, str]] = {}

    def differing(self, problem: Problem, where: str) -> tuple[Question, str, str] | None:
        """The first question of a problem that was answered otherwise before, with that answer and its place."""
        knowledge = problem.theory + content_key(problem.facts)
        for question in problem.questions:
            key = (knowledge, normalise(question.text))
            answer, place = self._said.setdefault(key, (question.answer, where))
            if normalise(answer) != normalise(question.answer):
                return question, answer, place
        return None

    def check(self, problem: Problem, where: str) -> None:
        """See that no question has two answers.

        Raises:
            UserError: one has.
        """
        if found := self.differing(problem, where):
            question, answer, place = found
            raise UserError(
                f"{where}: {question.text!r} is answered {question.answer!r}, and {answer!r} of the same facts in "
                f"{place}; correct one of them"
            )


def _problem_of(record: dict[str, Any], where: str, name: str, labels: Mapping[str, str] | None) -> Problem:
    record = _of_authors(record, where)
    facts = tuple(_sentences(record, where))
    kinds = tuple(_items(_given(record, "kinds"), where, "kinds", str))
    if kinds and (len(kinds) != len(facts) or not set(kinds) <= set(KINDS)):
        raise UserError(
            f"{where}: kinds={list(kinds)} for {len(facts)} facts; write 'fact' or 'rule' for each, or no kinds"
        )
    name = name_of(record.get("id"), "id", where) or name
    theory = name_of(record.get("theory"), "theory", where)
    questions = tuple(_question(asked, at, called, facts, labels) for asked, at, called in _asked(record, where, name))
    return Problem(name, content_key(facts) if theory is None else theory, facts, kinds, questions)


def _of_authors(record: dict[str, Any], where: str) -> dict[str, Any]:
    """A line in the form of the authors' own files as one in ours."""
    found = {**record, "id": record.get("id", record.get("guid"))}
    if isinstance(record.get("questions"), str) and "guid" in record:  # CLUTRR's, in the later release
        found["question"] = found.pop("questions")
    if record.get("all_facts") is None:
        return found
    if "relevant" in record or "questions" in found:
        extra = "relevant" if "relevant" in record else "questions"
        raise UserError(
            f"{where}: {extra} beside all_facts, of which facts are the relevant ones; remove one of the two"
        )
    return {**found, "facts": record["all_facts"], "relevant": _items(record.get("facts"), where, "facts", str)}


def _given(record: Mapping[str, Any], field: str) -> Any:
    """An optional list."""
    return [] if record.get(field) is None else record[field]


def _asked(record: dict[str, Any], where: str, name: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(fields, place in the file, id) of every question of a line."""
    if "questions" not in record:
        yield record, where, name
        return
    if extra := sorted({"question", "answer", "relevant", "depth"} & set(record)):
        raise UserError(f"{where}: {', '.join(extra)} beside 'questions'; move it into the questions, or remove them")
    questions = record["questions"]
    if not isinstance(questions, list) or not questions:
        raise UserError(f"{where}: questions={questions!r} is not a list of questions; write {SEVERAL}")
    for index, fields in enumerate(questions):
        at = f"{where}: questions[{index}]"
        if not isinstance(fields, dict):
            raise UserError(f"{at}={fields!r} is not an object; write {SEVERAL}")
        rest = check_names(fields, (*QUESTION, "id"), at, OTHER_WORDS)
        if lost := [field for field in rest if field in LINE]:
            raise UserError(f"{at}: {lost[0]} is a field of the line; move it out of the question")
        yield fields, at, name_of(fields.get("id"), "id", at) or f"{name}/{index}"


def _question(
    record: dict[str, Any], where: str, name: str, facts: Sequence[str], labels: Mapping[str, str] | None
) -> Question:
    depth = record.get("depth")
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 0):
        raise UserError(f"{where}: depth={depth!r}; a whole number from 0, or leave it out")
    return Question(
        id=name,
        text=_text(record, "question", where),
        answer=_label(record, where, labels),
        relevant=_relevant(_given(record, "relevant"), facts, where),
        depth=depth,
    )


def _sentences(record: dict[str, Any], where: str) -> list[str]:
    if "facts" not in record:
        raise UserError(f"{where}: field 'facts' is missing, found {sorted(record)}; each line is {FORMAT}")
    facts = [without_full_stop(fact) for fact in _items(record["facts"], where, "facts", str)]
    if not facts:
        raise UserError(f"{where}: facts=[]: the knowledge set is empty; give at least one sentence")
    if "" in facts:
        raise UserError(f"{where}: facts[{facts.index('')}] is an empty sentence; remove it or fill it in")
    return facts


def _items(value: Any, where: str, field: str, *types: type) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: {field} is a {type(value).__name__}, a list is needed; each line is {FORMAT}")
    for index, item in enumerate(value):
        if not isinstance(item, types) or isinstance(item, bool):
            wanted = " or ".join({"str": "string", "int": "index"}[kind.__name__] for kind in types)
            raise UserError(f"{where}: {field}[{index}]={item!r} is not a {wanted}; each line is {FORMAT}")
    return value


def _text(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise UserError(f"{where}: field {field!r} is missing, found {sorted(record)}; each line is {FORMAT}")
    value = record[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: {field}={value!r} is not a string; put it in quotes")
    text = without_full_stop(value)
    if not text:
        raise UserError(f"{where}: {field} is empty; write the {field}")
    return text


def _label(record: dict[str, Any], where: str, labels: Mapping[str, str] | None) -> str:
    value = record.get("answer")
    answer = str(value).lower() if isinstance(value, bool) else _text(record, "answer", where)
    label = known_label(answer, labels, where)
    word = labels[label] if labels else label
    if "," in word or "because" in word:
        raise UserError(
            f"{where}: the answer {word!r} holds a comma or 'because', at which a response is cut: it could never be "
            "right; write it without, or map it to another word in data.labels"
        )
    if not normalise(word):
        raise UserError(
            f"{where}: of the answer {word!r} scoring leaves nothing (articles and signs do not count), so anything "
            "empty would be right; write another word, or map it to one in data.labels"
        )
    return label


def known_label(answer: str, labels: Mapping[str, str] | None, where: str) -> str:
    """The key of `labels` that is `answer` but for its case and blanks; any answer where `labels` is None.

    Raises:
        UserError: it is none of them.
    """
    if labels is None or answer in labels:
        return answer
    for label in labels:
        if label.lower().split() == answer.lower().split():
            return label
    raise UserError(
        f"{where}: unknown label {answer!r}, allowed are {sorted(labels)}; correct the line or add the label, "
        "with its answer word, to data.labels"
    )


def check_fields(record: Mapping[str, Any], fields: Mapping[str, type], where: str) -> None:
    """See that a line of a published file has its fields.

    Raises:
        UserError: a field of `fields` is missing or of another type.
    """
    for field, kind in fields.items():
        if field not in record:
            raise UserError(f"{where}: field {field!r} is missing, found {sorted(record)}; needed are {list(fields)}")
        if not isinstance(record[field], kind):
            raise UserError(f"{where}: {field}={record[field]!r} is not a {kind.__name__}; correct the line")


def _relevant(value: Any, facts: Sequence[str], where: str) -> tuple[int, ...]:
    indices: list[int] = []
    for item in _items(value, where, "relevant", str, int):
        if isinstance(item, str):
            sentence = without_full_stop(item)
            if sentence not in facts:
                raise UserError(f"{where}: relevant sentence {item!r} is not one of the facts; copy it from 'facts'")
            item = facts.index(sentence)
        if not 0 <= item < len(facts):
            raise UserError(f"{where}: relevant index {item}, the facts are 0 to {len(facts) - 1}; count from 0")
        indices.append(item)
    return tuple(dict.fromkeys(indices))


def split_by_key(
    items: Sequence[Item], keys: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, list[Item]]:
    """Cut `items` into the named shares: items with equal keys stay together, every split keeps the order of `items`.

    Raises:
        UserError: as of `common.data.splits.cut`.
    """
    split_of = cut(keys, shares, seed, "theories")
    splits: dict[str, list[Item]] = {name: [] for name in shares}
    for item, key in zip(items, keys, strict=True):
        splits[split_of[key]].append(item)
    return splits
