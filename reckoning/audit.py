"""Audit of a data set: what it holds, what its splits share, and how far surface shortcuts get on it."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from reckoning import bagofwords, shortcuts
from reckoning.clutrr.kinship import WORDS
from reckoning.problems import Problem, Question

log = logging.getLogger(__name__)

CHANCE = "chance"
MAX_PROBLEMS = 20_000  # training problems looked at; more change no rule but cost memory


@dataclass(frozen=True)
class ShortcutResult:
    """One shortcut on the test split. Shares are 0 to 1; `per_class` is the accuracy on the questions of each label,
    `balanced_accuracy` their mean. Labels without a test question are left out of both.

    For "chance" the shares are the expected ones and `predictions` is one draw.
    """

    name: str
    description: str
    predictions: list[str]
    accuracy: float
    balanced_accuracy: float
    per_class: dict[str, float]


@dataclass(frozen=True)
class Description:
    """Counts of a data set. Means are per problem (`facts`) or per question with known relevant sentences; `depths`
    counts questions, those of unknown depth under None; `duplicates` are questions asked before with equal facts."""

    problems: int
    questions: int
    theories: int
    labels: dict[str, int]
    depths: dict[int | None, int]
    facts: float
    base_facts: float | None
    relevant: float | None
    distractors: float | None
    distractor_share: float | None
    duplicates: int


@dataclass(frozen=True)
class Overlap:
    """What two splits share: theories, and questions with the same text about the same facts."""

    theories: int
    questions: int


def _questions(problems: Sequence[Problem]) -> list[tuple[Problem, Question]]:
    return [(problem, question) for problem in problems for question in problem.questions]


def audit(
    train: Sequence[Problem], test: Sequence[Problem], labels: Sequence[str], *, seed: int
) -> list[ShortcutResult]:
    """Chance, the majority label, every applicable shortcut rule and the trained classifiers, in this order.

    Fitted rules and classifiers learn from `train` alone (from a draw of it, where it is large: `MAX_PROBLEMS`,
    `bagofwords.MAX_ROWS`); all are scored on every question of `test`, in order.
    Rules that do not apply are left out and logged (`not_applicable` names them). Ties go to the earlier of `labels`.

    Raises:
        ValueError: no training or no test questions, or a label of theirs is not in `labels`.
    """
    if len(train) > MAX_PROBLEMS:
        train = random.Random(f"{seed}/problems").sample(train, MAX_PROBLEMS)
    answers = [question.answer for _, question in _questions(train)]
    gold = [question.answer for _, question in _questions(test)]
    if not answers or not gold:
        raise ValueError(f"an audit needs questions to learn from and to score: {len(answers)} and {len(gold)} given")
    if strange := sorted(set(answers + gold) - set(labels)):
        raise ValueError(f"labels {strange} are not among {list(labels)}")

    left_out = not_applicable(train, test, labels)
    for name, reason in left_out.items():
        log.info("shortcut %s not applicable: %s", name, reason)

    results = [_chance([label for label in labels if label in set(answers)], gold, labels, seed)]
    frequent = shortcuts.majority(Counter(answers), labels)
    results.append(score("majority", f"always {frequent}", [frequent] * len(gold), gold, labels))

    seen, unseen = shortcuts.surfaces(train), shortcuts.surfaces(test)
    for rule in shortcuts.RULES:
        if rule.name not in left_out:
            values = [rule.apply(surface.features) for surface in unseen]
            if rule.fitted:
                table = shortcuts.fit_shortcut(rule, seen, answers, labels)
                values = [table.get(value, frequent) for value in values]
            results.append(score(rule.name, rule.description, [str(value) for value in values], gold, labels))

    rows = bagofwords.sample_rows(len(seen), seed)
    keys = [problem.theory for problem, _ in _questions(train)]
    lesson = bagofwords.Lesson([seen[row] for row in rows], [answers[row] for row in rows], [keys[row] for row in rows])
    for classifier in bagofwords.CLASSIFIERS:
        if classifier.name not in left_out:
            predictions = classifier.predict(lesson, unseen, seed)
            results.append(score(classifier.name, classifier.description, predictions, gold, labels))
    return results


def _chance(seen: Sequence[str], gold: Sequence[str], labels: Sequence[str], seed: int) -> ShortcutResult:
    """Uniform over the labels seen in training; exact."""
    rng = random.Random(f"{seed}/chance")
    drawn = [rng.choice(seen) for _ in gold]
    per_class = {label: 1 / len(seen) if label in seen else 0.0 for label in labels if label in set(gold)}
    accuracy = 1 / len(seen) * (sum(label in seen for label in gold) / len(gold))
    return ShortcutResult(CHANCE, "uniform over the labels", drawn, accuracy, _mean(per_class), per_class)


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)


def not_applicable(train: Sequence[Problem], test: Sequence[Problem], labels: Sequence[str]) -> dict[str, str]:
    """Shortcuts that cannot be tried on this data, with the reason."""
    reasons: dict[str, str] = {}
    kinds_known = all(problem.kinds for problem in (*train, *test))
    for rule in shortcuts.RULES:
        if missing := [label for label in rule.labels if label not in labels]:
            reasons[rule.name] = f"the data has no label {' or '.join(missing)}"
        elif rule.kinds and not kinds_known:
            reasons[rule.name] = "it is not known which sentences are rules (field 'kinds')"
        elif rule.kinship and not set(labels) <= set(WORDS):
            reasons[rule.name] = "the answers are no kinship words"
    if len({question.answer for _, question in _questions(train)}) < 2:
        reasons |= {each.name: "the training split has one label only" for each in bagofwords.CLASSIFIERS}
    return reasons


def score(
    name: str, description: str, predictions: Sequence[str], gold: Sequence[str], labels: Sequence[str]
) -> ShortcutResult:
    """Accuracies of `predictions` against `gold`, question by question."""
    right: Counter[str] = Counter(g for p, g in zip(predictions, gold, strict=True) if p == g)
    total = Counter(gold)
    per_class = {label: right[label] / total[label] for label in labels if total[label]}
    return ShortcutResult(name, description, list(predictions), right.total() / len(gold), _mean(per_class), per_class)


def describe(problems: Sequence[Problem]) -> Description:
    """Counts of one split.

    Raises:
        ValueError: no problems.
    """
    if not problems:
        raise ValueError("no problems to describe")
    asked = _questions(problems)
    known = [(len(problem.facts), len(question.relevant)) for problem, question in asked if question.relevant]
    facts = sum(count for count, _ in known)
    relevant = sum(count for _, count in known)
    depths = Counter(question.depth for _, question in asked)
    base = [problem.kinds.count("fact") for problem in problems if problem.kinds]
    return Description(
        problems=len(problems),
        questions=len(asked),
        theories=len({problem.theory for problem in problems}),
        labels=dict(sorted(Counter(question.answer for _, question in asked).items())),
        depths={depth: depths[depth] for depth in sorted(depths, key=lambda d: (d is None, d))},
        facts=sum(len(problem.facts) for problem in problems) / len(problems),
        base_facts=sum(base) / len(base) if base else None,
        relevant=relevant / len(known) if known else None,
        distractors=(facts - relevant) / len(known) if known else None,
        distractor_share=(facts - relevant) / facts if known else None,
        duplicates=len(asked) - len({_identity(problem, question) for problem, question in asked}),
    )


def overlap(splits: Mapping[str, Sequence[Problem]]) -> dict[tuple[str, str], Overlap]:
    """What each pair of splits shares. Theories must be zero; questions may not be where facts are a part of a theory,
    as parts of different theories can be equal."""
    theories = {name: {problem.theory for problem in problems} for name, problems in splits.items()}
    asked = {name: {_identity(p, q) for p, q in _questions(problems)} for name, problems in splits.items()}
    return {
        (a, b): Overlap(len(theories[a] & theories[b]), len(asked[a] & asked[b])) for a, b in combinations(splits, 2)
    }


def _identity(problem: Problem, question: Question) -> tuple[frozenset[str], str]:
    return frozenset(problem.facts), question.text
