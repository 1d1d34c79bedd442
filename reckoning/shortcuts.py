"""Shortcut rules: answers from surface features, without chaining any facts.

A fixed rule needs no training; a fitted one looks at one feature, or a few together, and gives for each value the
label most frequent with that value in the training split.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from reckoning.clutrr.surface import kinship_features
from reckoning.problems import Problem, Question

NEGATIONS = frozenset({"not", "no", "never", "cannot", "nobody", "nothing"})
EMPTY = NEGATIONS | frozenset("a an the is are was were be been do does did of to it they then if and or".split())

Features = dict[str, Hashable]


@dataclass(frozen=True)
class Surface:
    """What a shortcut sees of one question: its words and, by name, features of them and of the knowledge."""

    question: tuple[str, ...]
    knowledge: frozenset[str]
    features: Features


@dataclass(frozen=True)
class Shortcut:
    """`apply` maps features to a label (fixed), or to a value whose label is fitted on the training split."""

    name: str
    description: str
    apply: Callable[[Features], Hashable]
    fitted: bool = True
    kinds: bool = False  # needs to know which sentences are rules
    kinship: bool = False  # for questions whose answers are kinship words
    labels: tuple[str, ...] = ()  # labels the rule itself gives


def words(text: str) -> tuple[str, ...]:
    """Lower-case words; a contracted "n't" counts as "not"."""
    return tuple(re.findall(r"\w+", text.lower().replace("n't", " not")))


def surfaces(problems: Sequence[Problem]) -> list[Surface]:
    """One surface per question, in order."""
    found: list[Surface] = []
    for problem in problems:
        sentences = [words(fact) for fact in problem.facts]
        found += [_surface(problem, sentences, question) for question in problem.questions]
    return found


def _surface(problem: Problem, sentences: Sequence[tuple[str, ...]], question: Question) -> Surface:
    asked = words(question.text)
    content = [word for word in asked if word not in EMPTY] or list(asked) or [""]
    subject, attribute = content[0], content[-1]
    negated = not NEGATIONS.isdisjoint(asked)
    sets = [frozenset(sentence) for sentence in sentences]
    knowledge = frozenset().union(*sets)
    same = [s for s in sentences if [word for word in s if word not in EMPTY] == content]
    polarities = {not NEGATIONS.isdisjoint(sentence) for sentence in same}
    features: Features = {
        "negated": negated,
        "sentences": len(sentences),
        "subject": subject,
        "attribute": attribute,
        "attribute occurs": attribute in knowledge,
        "attribute count": sum(attribute in each for each in sets),
        "attribute in negated sentence": any(attribute in each and NEGATIONS & each for each in sets),
        "attribute ends a sentence": any(sentence[-1:] == (attribute,) for sentence in sentences),
        "subject occurs": subject in knowledge,
        "subject count": sum(subject in each for each in sets),
        "subject with attribute": sum(subject in each and attribute in each for each in sets),
        "words found": sum(word in knowledge for word in set(content)) - len(set(content)),
        "most words in one sentence": max(sum(word in each for word in set(content)) for each in sets),
        "negated sentences": sum(bool(NEGATIONS & each) for each in sets),
        "stated": negated in polarities,
        "denied": (not negated) in polarities,
    }
    if problem.kinds:
        base = [each for each, kind in zip(sets, problem.kinds, strict=True) if kind == "fact"]
        rest = [each for each, kind in zip(sets, problem.kinds, strict=True) if kind == "rule"]
        features["base facts"] = len(base)
        features["rules"] = len(rest)
        features["attribute in base fact"] = any(attribute in each for each in base)
        features["attribute in rule"] = any(attribute in each for each in rest)
        features["subject in base fact"] = any(subject in each for each in base)
    return Surface(asked, knowledge, features | kinship_features(asked, problem.facts, sentences))


def _polarity(f: Features) -> str:
    return "false" if f["negated"] else "true"


def _by(*names: str) -> Callable[[Features], Hashable]:
    return lambda features: tuple(features.get(name) for name in names)


def _everything(f: Features) -> Hashable:
    names = ["negated", "attribute occurs", "attribute in negated sentence", "attribute ends a sentence"]
    names += ["subject occurs", "stated", "denied"]
    return (*(f[name] for name in names), bool(f["subject with attribute"]), bool(f.get("base facts")))


LOGIC = ("true", "false")
OPEN = ("true", "false", "unknown")
RULES = (
    Shortcut("polarity", "'not' in the question: false, else true", _polarity, False, labels=LOGIC),
    Shortcut(
        "knowledge",
        "any base fact: true, else unknown",
        lambda f: "true" if f["base facts"] else "unknown",
        False,
        kinds=True,
        labels=("true", "unknown"),
    ),
    Shortcut(
        "knowledge_and_polarity",
        "no base fact: unknown, else by polarity",
        lambda f: _polarity(f) if f["base facts"] else "unknown",
        False,
        kinds=True,
        labels=OPEN,
    ),
    Shortcut(
        "attribute_absent",
        "the last word of the question is nowhere in the knowledge: unknown, else by polarity",
        lambda f: _polarity(f) if f["attribute occurs"] else "unknown",
        False,
        labels=OPEN,
    ),
    Shortcut(
        "subject_absent",
        "the subject of the question is nowhere in the knowledge: unknown, else by polarity",
        lambda f: _polarity(f) if f["subject occurs"] else "unknown",
        False,
        labels=OPEN,
    ),
    Shortcut(
        "copy",
        "the statement is a sentence of the knowledge: true, its negation is: false, else unknown",
        lambda f: "true" if f["stated"] else "false" if f["denied"] else "unknown",
        False,
        labels=OPEN,
    ),
    Shortcut("fitted_polarity", "'not' in the question", _by("negated")),
    Shortcut("fitted_knowledge", "any base fact", lambda f: bool(f["base facts"]), kinds=True),
    Shortcut(
        "fitted_knowledge_and_polarity",
        "any base fact, with polarity",
        lambda f: (bool(f["base facts"]), f["negated"]),
        kinds=True,
    ),
    Shortcut("sentence_count", "number of sentences, with polarity", _by("sentences", "negated")),
    Shortcut(
        "kind_counts",
        "numbers of base facts and rules, with polarity",
        _by("base facts", "rules", "negated"),
        kinds=True,
    ),
    Shortcut("negated_sentences", "number of negated sentences, with polarity", _by("negated sentences", "negated")),
    Shortcut("subject_word", "the subject of the question", _by("subject")),
    Shortcut("attribute_word", "the last word of the question, with polarity", _by("attribute", "negated")),
    Shortcut(
        "attribute_occurs", "the last word occurs in the knowledge, with polarity", _by("attribute occurs", "negated")
    ),
    Shortcut("attribute_count", "sentences with the last word, with polarity", _by("attribute count", "negated")),
    Shortcut(
        "attribute_negated",
        "the last word occurs in a negated sentence, with polarity",
        _by("attribute in negated sentence", "negated"),
    ),
    Shortcut(
        "attribute_ends",
        "a sentence ends with the last word, with polarity",
        _by("attribute ends a sentence", "negated"),
    ),
    Shortcut(
        "attribute_place",
        "the last word occurs in base facts or rules, with polarity",
        _by("attribute in base fact", "attribute in rule", "negated"),
        kinds=True,
    ),
    Shortcut("subject_count", "sentences with the subject, with polarity", _by("subject count", "negated")),
    Shortcut(
        "subject_in_base_fact",
        "the subject is in a base fact, with polarity",
        _by("subject in base fact", "negated"),
        kinds=True,
    ),
    Shortcut(
        "pair_count", "sentences with subject and last word, with polarity", _by("subject with attribute", "negated")
    ),
    Shortcut(
        "words_found", "words of the question missing in the knowledge, with polarity", _by("words found", "negated")
    ),
    Shortcut(
        "best_overlap",
        "most words of the question in one sentence, with polarity",
        _by("most words in one sentence", "negated"),
    ),
    Shortcut(
        "fitted_copy", "the statement or its negation is a sentence, with polarity", _by("stated", "denied", "negated")
    ),
    Shortcut("everything", "all yes-no features at once", _everything),
    Shortcut(
        "last_relation",
        "the kinship word beside the person asked for",
        lambda f: str(f.get("kin of the asked", "")).split(" ")[0],
        False,
        kinship=True,
    ),
    Shortcut("fitted_last_relation", "as last_relation, fitted", _by("kin of the asked"), kinship=True),
    Shortcut("gender", "the gender of the person asked for", _by("gender of the asked"), kinship=True),
    Shortcut("first_relation", "the kinship word beside the other person", _by("kin of the other"), kinship=True),
    Shortcut(
        "ends_of_the_chain",
        "the kinship words beside both persons: at two facts that is the composition itself",
        _by("kin of the asked", "kin of the other"),
        kinship=True,
    ),
    Shortcut("relation_words", "the kinship words of all sentences, in no order", _by("kin words"), kinship=True),
)


def fit_shortcut(
    rule: Shortcut, train: Sequence[Surface], answers: Sequence[str], labels: Sequence[str]
) -> dict[Hashable, str]:
    """Feature value -> most frequent label of the training split; ties go to the earlier of `labels`."""
    seen: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for surface, answer in zip(train, answers, strict=True):
        seen[rule.apply(surface.features)][answer] += 1
    return {value: majority(counts, labels) for value, counts in seen.items()}


def majority(counts: Counter[str], labels: Sequence[str]) -> str:
    """The most frequent label, of equals the earlier one of `labels`."""
    return max(labels, key=lambda label: counts[label])
