"""Responses -> items -> metrics with intervals."""

from collections.abc import Sequence

from common.run.items import Item
from common.run.results import Interval
from common.tables import summary
from perk.audit import MOST, audit, matches_of
from perk.babilong.vocabulary import labels_of
from perk.config import APPENDED, DataConfig, EvaluationConfig, MethodConfig, Task
from perk.metrics import exact_match, label_match
from perk.problems import Problem, Question
from perk.templates import Templates


def score(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    data: DataConfig,
    method: MethodConfig,
    templates: Templates,
    *,
    length: int,
    position: str | None = None,
    further: str = "",
) -> list[Item]:
    """One item a question.

    Its `accuracy` is by the paper's metric of the task, `exact` by normalised exact match, `label_match` by BABILong's
    official one, in a generated world over its own labels; other tasks do not have it. `length` counts tokens of the
    context as `data.length` does, `position` says where the gold document or the facts stand.
    """
    matches = matches_of(data.task)
    world = data.babilong.world if data.made else None
    labels = labels_of(data.babilong.task, world) if data.task is Task.babilong else ()
    items = []
    for problem, texts in zip(problems, responses, strict=True):
        for question, text in zip(problem.questions, texts, strict=True):
            said, answer = templates.read(text, question, method.target), question.answers[0]
            scores: dict[str, tuple[float, float]] = {
                "accuracy": (int(matches(said, question.answers)), 1),
                "exact": (int(exact_match(said, question.answers)), 1),
            }
            if labels:
                scores["label_match"] = (int(label_match(said, answer, question.text, labels)), 1)
            more = {"answer": answer, "said": said, "response": text}
            slices = slices_of(question, length, position)
            if further == APPENDED:
                slices |= {APPENDED: "halves"}
            items.append(Item(question.id, problem.group or problem.id, scores, slices, further, more))
    return items


def slices_of(question: Question, length: int, position: str | None) -> dict[str, str | int]:
    """What questions are told apart by; without the position where positions are not asked."""
    slices: dict[str, str | int] = {"kind": question.kind, "length": length}
    return slices if position is None else slices | {"position": position}


def summarise(items: Sequence[Item], asked: EvaluationConfig) -> dict[str, Interval]:
    """Accuracy in all, by kind of question where there are several, and at every length and position that is asked, and
    the other metrics; questions about one context hang together.
    """
    several = len({item.slices["kind"] for item in items if not item.further}) > 1
    by = (["kind"] if several else []) + _passes(asked)
    return summary.summarise(items, asked.confidence, by={"accuracy": by})


def _passes(asked: EvaluationConfig) -> list[str]:
    """The slices that further passes over a split change: no item has a position where none is asked."""
    return (["length"] if asked.lengths else []) + ["position"] + [APPENDED]


def shortcut_items(
    train: Sequence[Problem],
    test: Sequence[Problem],
    data: DataConfig,
    *,
    length: int,
    position: str | None = None,
    further: str = "",
) -> list[Item]:
    """One item a question of the first `perk.audit.MOST` contexts, with `accuracy_<rule>`, from 0 to 1, of every row
    that needs no network.
    """
    rules = audit(train, test, data)
    asked = [(problem, question) for problem in test[:MOST] for question in problem.questions]
    items = []
    for place, (problem, question) in enumerate(asked):
        scores = {f"accuracy_{rule.name}": (rule.right[place], 1) for rule in rules}
        more = {"answer": question.answers[0]}
        slices = slices_of(question, length, position)
        items.append(Item(question.id, problem.group or problem.id, scores, slices, further, more))
    return items


def summarise_rules(items: Sequence[Item], asked: EvaluationConfig) -> dict[str, Interval]:
    """`accuracy_<rule>` in all and at every length and position; chance is exact, its interval has no width."""
    by = {metric: _passes(asked) for item in items for metric in item.scores}
    return summary.summarise(items, asked.confidence, by=by, exact=("accuracy_chance",))
