"""Classifiers from scikit-learn that answer from words and overlap, trained on the training split, as shortcuts."""

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reckoning.problems import split_by_key
from reckoning.shortcuts import EMPTY, Surface

MAX_FEATURES = 5000  # most frequent words kept by a classifier
MAX_ROWS = 6000  # training questions used by a classifier
STRENGTHS = (0.03, 0.3, 3.0)  # inverse L2 weights tried for the logistic regressions


def _plain(surface: Surface) -> list[str]:
    asked = [f"q {word}" for word in surface.question]
    pairs = [f"q {a} {b}" for a, b in zip(surface.question, surface.question[1:], strict=False)]
    return asked + pairs + [f"k {word}" for word in sorted(surface.knowledge)]


def _crossed(surface: Surface) -> list[str]:
    features = [f"f {name}={value}" for name, value in surface.features.items()]
    polarity = f"negated={surface.features['negated']}"
    found = [f"{'in' if word in surface.knowledge else 'out'} {word}" for word in sorted(set(surface.question))]
    asked = surface.features["attribute"]
    beside = [f"a {asked} k {word}" for word in sorted(surface.knowledge - EMPTY)]
    return _plain(surface) + features + [f"{each} {polarity}" for each in features + found] + found + beside


@dataclass(frozen=True)
class Lesson:
    """What a classifier learns from, question by question: its surface, its answer, the key of its theory."""

    surfaces: Sequence[Surface]
    answers: Sequence[str]
    keys: Sequence[str]


@dataclass(frozen=True)
class Classifier:
    """`predict(lesson, test, seed)` learns and labels the test surfaces; it is a pure function."""

    name: str
    description: str
    predict: Callable[[Lesson, Sequence[Surface], int], list[str]]


def _regression(tokens: Callable[[Surface], list[str]]) -> Callable[[Lesson, Sequence[Surface], int], list[str]]:
    def predict(lesson: Lesson, test: Sequence[Surface], seed: int) -> list[str]:
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(analyzer=tokens, binary=True, max_features=MAX_FEATURES)
        inputs = vectorizer.fit_transform(lesson.surfaces)
        strength = _strength(inputs, lesson, seed)
        model = _fit(inputs, lesson.answers, strength, seed)
        return [str(label) for label in model.predict(vectorizer.transform(test))]

    return predict


def _strength(inputs: Any, lesson: Lesson, seed: int) -> float:
    """The best of `STRENGTHS` on a fifth of the training theories held out from the fit."""
    middle = STRENGTHS[1]
    if len(set(lesson.keys)) < 10:
        return middle
    rows = split_by_key(range(len(lesson.keys)), lesson.keys, {"fit": 0.8, "held": 0.2}, seed)
    answers = {name: [lesson.answers[row] for row in part] for name, part in rows.items()}
    if len(set(answers["fit"])) < 2:
        return middle
    models = {strength: _fit(inputs[rows["fit"]], answers["fit"], strength, seed) for strength in STRENGTHS}
    return max(models, key=lambda strength: float(models[strength].score(inputs[rows["held"]], answers["held"])))


def _fit(inputs: Any, answers: Sequence[str], strength: float, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=60, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():  # an unfinished fit is a classifier too, and the time stays bounded
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, list(answers))


def _forest(lesson: Lesson, test: Sequence[Surface], seed: int) -> list[str]:
    from sklearn.ensemble import RandomForestClassifier

    names = [name for name, value in lesson.surfaces[0].features.items() if not isinstance(value, str)]

    def numbers(surfaces: Sequence[Surface]) -> list[list[float]]:
        return [[float(each.features.get(name, -1)) for name in names] for each in surfaces]  # type: ignore[arg-type]

    model = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=1)
    model.fit(numbers(lesson.surfaces), list(lesson.answers))
    return [str(label) for label in model.predict(numbers(test))]


CLASSIFIERS = (
    Classifier("bag_of_words", "logistic regression on words of question and knowledge", _regression(_plain)),
    Classifier("bag_of_words_crossed", "the same with overlap and question-knowledge pairs", _regression(_crossed)),
    Classifier("overlap_forest", "random forest on counts of overlap and kinds", _forest),
)


def sample_rows(count: int, seed: int) -> list[int]:
    """Rows of the training split a classifier is trained on: all, or `MAX_ROWS` drawn ones in order."""
    if count <= MAX_ROWS:
        return list(range(count))
    return sorted(random.Random(f"{seed}/audit").sample(range(count), MAX_ROWS))
