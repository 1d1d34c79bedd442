"""Responses -> items -> metrics with intervals."""

from collections.abc import Sequence

from common.language.learner import Responses
from common.run.items import Item
from common.run.results import Interval
from common.tables import summary
from common.tables.intervals import mean_interval, share_interval
from reckoning.methods import Encoded
from reckoning.metrics import normalise, recall_of, split_response
from reckoning.problems import Problem, Question


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
            scores: dict[str, tuple[float, float]] = {"accuracy": (int(normalise(said) == normalise(expected)), 1)}
            if recited and facts:
                found = recall_of(rest, facts)
                scores |= {"recall_exact": (int(found.exact), 1), "recall_precision": (found.precision, 1)}
                scores |= {"recall_recall": (found.recall, 1), "recall_published": (found.matching, found.pieces)}
            more = {"said": said, "response": text}
            items.append(Item(question.id, problem.theory, scores, slices_of(question, expected), more=more))
    return items


def slices_of(question: Question, expected: str) -> dict[str, str | int]:
    """What questions are told apart by: the expected word, and the depth where it is known."""
    return {"answer": expected} | ({} if question.depth is None else {"depth": question.depth})


def summarise(items: Sequence[Item], confidence: float) -> dict[str, Interval]:
    """Metrics with intervals: accuracy in all, per class and per depth, and fact recall where facts were recited. The
    authors' recall, `recall_published`, is matching pieces over recited pieces of the whole set.

    Questions about one theory are not independent; the intervals account for it.
    """
    return summary.summarise(items, confidence, by={"accuracy": ("answer", "depth")})


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
        metrics[f"fact_exact_{when}"] = share_interval(exact, theories, confidence)
        losses = [getattr(fact, f"loss_{when}") for fact, _ in facts]
        metrics[f"fact_loss_{when}"] = mean_interval(losses, theories, confidence)
    return metrics
