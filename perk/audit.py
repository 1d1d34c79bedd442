"""What a data set holds, what its splits share, and how far one gets on it without reasoning."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from common.language.normal import normalise
from common.run.results import Interval
from common.tables.intervals import share_interval
from perk.config import DataConfig, Task
from perk.metrics import exact_match, substring_match
from perk.problems import Problem, Question
from perk.shortcuts import shortcuts_of
from perk.tokens import Tokens

MOST = 2_000
"""Problems of a split that are looked at."""
Matches = Callable[[str, Sequence[str]], bool]


@dataclass
class Description:
    """Counts of the problems of one split that were looked at. Deviation is the largest share by which a context misses
    its length."""

    problems: int = 0
    questions: int = 0
    tokens: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Tokens of every segment."""
    deviation: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    supported: int = 0
    sources: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Result:
    """One rule on the test split: its accuracy in all, and on the questions of each kind."""

    name: str
    description: str
    interval: Interval
    right: tuple[float, ...]
    """Of every question of the test split: 1 for a right answer, for chance its probability."""
    kinds: dict[str, float]
    searches: bool = False
    """Does it look for words in the context?"""


def matches_of(task: Task) -> Matches:
    """The paper's metric of a task."""
    return substring_match if task is Task.documents else exact_match


def describe(problems: Iterable[Problem], length: int, tokens: Tokens) -> Description:
    """Counts; one problem is in memory at a time. `tokens` counts those of segments."""
    found = Description()
    for problem in problems:
        found.problems += 1
        found.tokens.append(problem.tokens)
        found.segments.append(len(problem.segments))
        found.sizes += tokens.counts(problem.segments)
        found.deviation = max(found.deviation, abs(problem.tokens - problem.added - length) / length)
        found.sources |= set(problem.sources)
        for question in problem.questions:
            found.questions += 1
            found.kinds[question.kind] += 1
            found.answers[question.answers[0]] += 1
            found.supported += bool(question.support)
    return found


def shared(found: Mapping[str, Description]) -> dict[tuple[str, str], set[str]]:
    """What each pair of splits has in common: stories, texts, students, passages, APIs. All must be empty."""
    return {(a, b): found[a].sources & found[b].sources for a, b in combinations(found, 2)}


def audit(train: Sequence[Problem], test: Sequence[Problem], config: DataConfig) -> list[Result]:
    """Chance, constants and the task's rules on the test split.

    Constants are learned from the training split: its most frequent answer, and that of each kind of question. Chance
    draws one of the answers that the kind has there; its interval has no width.
    """
    lessons: dict[str, Counter[str]] = {}
    for problem in train[:MOST]:
        for question in problem.questions:
            lessons.setdefault(question.kind, Counter())[question.answers[0]] += 1
    overall = sum(lessons.values(), Counter[str]())
    fallback = overall.most_common(1)[0][0]
    constant = {kind: counts.most_common(1)[0][0] for kind, counts in lessons.items()}
    asked = [(problem, question) for problem in test[:MOST] for question in problem.questions]
    matches = matches_of(config.task)

    def scored(name: str, description: str, right: Sequence[float], searches: bool = False) -> Result:
        groups = [problem.group or problem.id for problem, _ in asked]
        interval = share_interval(right, groups)
        return Result(name, description, interval, tuple(right), _by_kind(asked, right), searches)

    def of(answer: Callable[[Problem, Question], str]) -> list[float]:
        return [float(matches(answer(problem, question), question.answers)) for problem, question in asked]

    results = [
        scored(rule.name, rule.description, of(rule.answer), rule.searches) for rule in shortcuts_of(config)
    ] + [
        scored("constant_by_kind", "the most frequent training answer of the kind of question",
               of(lambda problem, question: constant.get(question.kind, fallback))),
        scored("constant", "the most frequent training answer", of(lambda problem, question: fallback)),
    ]  # fmt: skip
    known = {kind: {normalise(answer) for answer in counts} for kind, counts in lessons.items()}
    luck = [_luck(question, known, len(problem.segments), config.task) for problem, question in asked]
    share = sum(luck) / len(luck)
    what = "one of the context's documents" if config.task is Task.apis else "one of the training answers of the kind"
    exact = Interval(share, len(luck), share, share)
    return [*results, Result("chance", f"{what}, drawn blindly", exact, tuple(luck), _by_kind(asked, luck))]


def _luck(question: Question, known: Mapping[str, set[str]], segments: int, task: Task) -> float:
    if task is Task.apis:
        return 1 / segments
    answers = known.get(question.kind, set())
    return any(normalise(answer) in answers for answer in question.answers) / max(1, len(answers))


def _by_kind(asked: Sequence[tuple[Problem, Question]], right: Sequence[float]) -> dict[str, float]:
    total: Counter[str] = Counter()
    score: dict[str, float] = {}
    for (_, question), value in zip(asked, right, strict=True):
        total[question.kind] += 1
        score[question.kind] = score.get(question.kind, 0.0) + value
    return {kind: score[kind] / total[kind] for kind in sorted(total)}
