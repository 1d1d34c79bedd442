"""Answers without learning to reason: what each task can be answered with by looking at the surface alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perk.apis.documents import call_of
from perk.babilong.vocabulary import OBJECTS, labels_of
from perk.config import DataConfig, Task
from perk.problems import Problem, Question
from perk.students.records import FIELDS, kind_of

_WORD = re.compile(r"\w+")
_EMPTY = frozenset(
    "a an and are as at by can for from i in is it of on or that the to was we what where which who with".split()
)


@dataclass(frozen=True)
class Shortcut:
    """`answer` says something about any question; it needs no training. `searches` says that it looks for words in the
    context, which a method that keeps no context cannot do."""

    name: str
    description: str
    answer: Callable[[Problem, Question], str]
    searches: bool = True


def shortcuts_of(config: DataConfig) -> list[Shortcut]:
    """The fixed rules of a task; of a user's own there are none."""
    if config.task is Task.jsonl:
        return []
    if config.task is Task.babilong:
        return _babilong(labels_of(config.babilong.task, config.babilong.world if config.made else None))
    if config.task is Task.students:
        return _students(*config.students.grades)
    return _DOCUMENTS if config.task is Task.documents else _APIS


def _babilong(labels: Sequence[str]) -> list[Shortcut]:
    said = re.compile(r"\b(" + "|".join(labels) + r")\b")

    def mentioned(text: str, question: Question) -> list[str]:
        return [label for label in said.findall(text) if label not in question.text]

    def last(problem: Problem, question: Question) -> str:
        return ([""] + mentioned(" ".join(problem.segments), question))[-1]

    def first(problem: Problem, question: Question) -> str:
        return (mentioned(" ".join(problem.segments), question) + [""])[0]

    def most(problem: Problem, question: Question) -> str:
        found = mentioned(" ".join(problem.segments), question)
        return max(dict.fromkeys(found), key=found.count, default="")

    def beside(problem: Problem, question: Question) -> str:
        names = [word for word in _WORD.findall(question.text)[1:] if word[0].isupper() or word in OBJECTS]
        sentences = re.split(r"(?<=[.!?]) ", " ".join(problem.segments))
        near = [s for s in sentences if any(name in s for name in names) and mentioned(s, question)]
        return mentioned(near[-1], question)[-1] if near else last(problem, question)

    return [
        Shortcut("last_label", "the label that the context names last", last),
        Shortcut("first_label", "the label that the context names first", first),
        Shortcut("frequent_label", "the label that the context names most often", most),
        Shortcut(
            "last_beside_name", "the last label in a sentence with a name of the question; all that QA1 asks", beside
        ),
    ]


def _first_record(problem: Problem, question: Question) -> str:
    kind = kind_of(question.text)
    field = next((f for f in FIELDS if f.split()[-1].lower() == kind.removeprefix("recall_")), "")
    found = re.search(rf"{field}: (.*?)(?=, (?:{'|'.join(FIELDS)}): |$)", problem.segments[0]) if field else None
    return found[1] if found else ""


def _students(low: int, high: int) -> list[Shortcut]:
    ends = {
        "aggregate_highest": f"{high}",
        "aggregate_lowest": f"{low}",
        "aggregate_average": f"{(low + high) / 2:.1f}",
    }
    what = "lowest, highest and middle of the range of grades, `No` about a pair"
    return [
        Shortcut("range_ends", what, lambda problem, question: ends.get(question.kind, "No"), searches=False),
        Shortcut("first_record", "the attribute of the first record", _first_record),
    ]


def words_of(text: str) -> frozenset[str]:
    """Lower-case words that say something."""
    return frozenset(_WORD.findall(text.lower())) - _EMPTY


def closest(problem: Problem, question: Question) -> str:
    """The segment that shares most words with the question."""
    asked = words_of(question.text)
    return max(problem.segments, key=lambda segment: len(words_of(segment) & asked))


def _title(problem: Problem, question: Question) -> str:
    found = re.match(r"Document \(Title: (.*?)\): ", closest(problem, question))
    return found[1] if found else ""


_DOCUMENTS = [
    Shortcut("closest_title", "the title of the passage that shares most words with the question", _title),
    Shortcut("closest_passage", "all of that passage; a substring metric does not mind", closest),
    Shortcut("whole_context", "the whole context; what the substring metric is worth without a limit on length",
             lambda problem, question: " ".join(problem.segments)),
]  # fmt: skip
_APIS = [
    Shortcut("closest_document", "the call of the document that shares most words with the instruction",
             lambda problem, question: call_of(closest(problem, question))),
    Shortcut("first_document", "the call of the first document",
             lambda problem, question: call_of(problem.segments[0])),
    Shortcut("middle_document", "the call of the one in the middle",
             lambda problem, question: call_of(problem.segments[(len(problem.segments) - 1) // 2])),
    Shortcut("last_document", "the call of the last document", lambda problem, question: call_of(problem.segments[-1])),
]  # fmt: skip
