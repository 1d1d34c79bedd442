"""Responses -> per-item records -> metrics with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from common.language.learner import Responses
from common.run.results import Interval
from common.tables.intervals import accuracy_interval, mean_interval
from reckoning.methods import Encoded
from reckoning.metrics import Recall, normalise, recall_of, split_response
from reckoning.problems import Problem


@dataclass(frozen=True)
class Item:
    """One question's outcome, a line of `predictions.jsonl`."""

    question: str
    theory: str
    depth: int | None
    answer: str
    """The expected word."""
    said: str
    """The label found in the response."""
    correct: bool
    response: str
    recall: Recall | None
    """None where nothing was recited or no relevant fact is known."""


def score(
    problems: Sequence[Problem], responses: Responses, words: dict[str, str], *, recited: bool = False
) -> list[Item]:
    """One item a question; `words` maps labels to answer words, `recited` says that responses should hold facts."""
    items = []
    for problem, texts in zip(problems, responses, strict=True):
        for question, text in zip(problem.questions, texts, strict=True):
            expected = words.get(question.answer, question.answer)
            said, rest = split_response(text, len(expected.split()))
            facts = [problem.facts[index] for index in question.relevant]
            items.append(
                Item(
                    question.id,
                    problem.theory,
                    question.depth,
                    expected,
                    said,
                    normalise(said) == normalise(expected),
                    text,
                    recall_of(rest, facts) if recited and facts else None,
                )
            )
    return items


def accuracy(items: Sequence[Item]) -> float:
    """Share of correct labels."""
    return sum(item.correct for item in items) / len(items)


def summarise(items: Sequence[Item], confidence: float) -> dict[str, Interval]:
    """Metrics with intervals: accuracy in all, per class and per depth, and fact recall where facts were recited.

    Questions about one theory are not independent; the intervals account for it.
    """

    def interval(chosen: Sequence[Item]) -> Interval:
        return accuracy_interval([i.correct for i in chosen], [i.theory for i in chosen], confidence)

    metrics = {"accuracy": interval(items)}
    for word in sorted({item.answer for item in items}):
        metrics[f"accuracy_{word}"] = interval([i for i in items if i.answer == word])
    depths = {item.depth for item in items if item.depth is not None}
    for depth in sorted(depths):
        metrics[f"accuracy_depth_{depth}"] = interval([i for i in items if i.depth == depth])
    recitations = [(item.recall, item.theory) for item in items if item.recall is not None]
    if recitations:
        theories = [theory for _, theory in recitations]
        for name in ("exact", "precision", "recall"):
            values = [float(getattr(recall, name)) for recall, _ in recitations]
            metrics[f"recall_{name}"] = accuracy_interval(values, theories, confidence)
        metrics["recall_published"] = _pooled(recitations, confidence)
    return metrics


def summarise_encoding(
    problems: Sequence[Problem], encoded: Sequence[Sequence[Encoded]], confidence: float
) -> dict[str, Interval]:
    """Over all facts of all knowledge sets: share written exactly from the index prefix, and mean loss, each before
    encoding and after it. The loss is in nats a token; its exponential is the perplexity.
    """
    facts = [(fact, problem.theory) for problem, own in zip(problems, encoded, strict=True) for fact in own]
    theories = [theory for _, theory in facts]
    metrics = {}
    for when in ("before", "after"):
        exact = [float(getattr(fact, f"exact_{when}")) for fact, _ in facts]
        metrics[f"fact_exact_{when}"] = accuracy_interval(exact, theories, confidence)
        losses = [getattr(fact, f"loss_{when}") for fact, _ in facts]
        metrics[f"fact_loss_{when}"] = mean_interval(losses, theories, confidence)
    return metrics


def _pooled(recitations: Sequence[tuple[Recall, str]], confidence: float) -> Interval:
    """The authors' fact recall: matching pieces over recited pieces of the whole set; 0 where nothing was recited."""
    right = [place < recall.matching for recall, _ in recitations for place in range(recall.pieces)]
    groups = [theory for recall, theory in recitations for _ in range(recall.pieces)]
    return accuracy_interval(right, groups, confidence) if right else Interval(0.0, 0, 0.0, 1.0)


def to_json(item: Item) -> dict[str, object]:
    """The item as plain values."""
    return asdict(item)
