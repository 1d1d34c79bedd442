"""Shortcut-free problems: labels from the knowledge set alone, and nothing but reasoning tells a group apart."""

import gzip
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.problems import Problem, Question
from reckoning.proofwriter.config import GeneratorConfig
from reckoning.proofwriter.generator import generate
from reckoning.proofwriter.repaired import repaired
from tests.reckoning.english_logic import consequences, read, truth

PLANTED = {
    "matched": (GeneratorConfig(), 600),
    "matched, drawn": (GeneratorConfig(polarity="drawn", depths=[1, 2]), 600),
    "matched, all": (
        GeneratorConfig(
            depths=[1, 2, 3],
            groups=2,
            broken=0.5,
            distractors=4,
            body=2,
            relations=0.3,
            negation=0.3,
            animals=0.5,
            attributes=64,
            paraphrases=4,
        ),
        200,
    ),
    "square": (GeneratorConfig(shape="square", depths=[1, 2]), 200),
    "shared": (GeneratorConfig(shape="shared", names=12, attributes=15), 600),
}
NEGATED = GeneratorConfig(shape="random", negation=0.4, attributes=7, entities=6, facts=16, rules=8)


def plain_looks(problem: Problem, question: Question) -> tuple[Any, ...]:
    """All that can be counted about a question without following a rule from a fact."""
    read_facts = [read(sentence) for sentence in problem.facts]
    _, (subject, verb, thing, positive) = read(question.text)
    own = [head for body, head in read_facts if not body and head[0] == subject]
    flat = [literal for body, head in read_facts for literal in (*body, head)]
    conditions = [literal for body, _ in read_facts for literal in body]
    return (
        positive,
        len(own),
        sum(subject in (literal[0], literal[2]) for literal in flat),
        sum(literal[1:3] == (verb, thing) for literal in flat),
        sum(body != () and head[1:] == (verb, thing, positive) for body, head in read_facts),
        sum(condition[1:] == fact[1:] for condition in conditions for fact in own),
        any(fact[1:3] == (verb, thing) for fact in own),
    )


def groups(problems: Iterable[Problem]) -> list[tuple[Problem, list[Question]]]:
    found: dict[tuple[str, Any], tuple[Problem, list[Question]]] = {}
    for problem in problems:
        for question in problem.questions:
            _, literal = read(question.text)
            found.setdefault((problem.id, literal[1:]), (problem, []))[1].append(question)
    return list(found.values())


def labels_follow(problem: Problem) -> None:
    model = consequences(problem.facts)
    for question in problem.questions:
        assert truth(question.text, model) == question.answer, (problem, question)
        _, literal = read(question.text)
        assert model.get(literal, model.get((*literal[:3], not literal[3]), 1)) >= 1


def recitations_suffice(problem: Problem) -> None:
    for question in problem.questions:
        kinds = [problem.kinds[index] for index in question.relevant]
        assert kinds == sorted(kinds) and set(kinds) == {"fact", "rule"}  # facts first, then rules
        assert len(set(question.relevant)) == len(question.relevant)
        recited = [problem.facts[index] for index in question.relevant]
        subject = read(question.text)[1][0]
        assert truth(question.text, consequences(recited)) == question.answer
        if question.answer == "unknown":
            assert all(read(text)[1][0] == subject for text, kind in zip(recited, kinds, strict=True) if kind == "fact")


@pytest.fixture(scope="module", params=PLANTED, ids=list(PLANTED))
def planted(request: pytest.FixtureRequest) -> list[Problem]:
    config, count = PLANTED[request.param]
    config.validate()
    records = [generate(config, 1, "train", index) for index in range(count)]
    problems = [repaired(record, random.Random(f"1/{record['id']}")) for record in records]
    assert all(len(found) == 1 for found in problems)
    return [found[0] for found in problems]


def test_labels_of_planted_problems_follow_from_the_knowledge_set(planted: list[Problem]) -> None:
    for problem in planted:
        labels_follow(problem)
        recitations_suffice(problem)
        assert len({len(question.relevant) for question in problem.questions}) == 1


def test_nothing_countable_tells_planted_labels_apart(planted: list[Problem]) -> None:
    for problem, questions in groups(planted):
        assert sorted(question.answer for question in questions) == ["false", "true", "unknown"]
        assert len({plain_looks(problem, question) for question in questions}) == 1
        _, (_, verb, thing, _) = read(questions[0].text)
        rules = [head for body, head in map(read, problem.facts) if body]
        assert {head[3] for head in rules if head[1:3] == (verb, thing)} == {True, False}


def first_fact(problem: Problem, question: Question) -> bool:
    """Whether the subject's fact comes before those of the others."""
    subjects = [read(problem.facts[q.relevant[0]])[1][0] for q in problem.questions]
    order = [read(fact)[1][0] for fact in problem.facts if read(fact)[1][0] in subjects and not read(fact)[0]]
    return order[0] == read(question.text)[1][0]


CHANCE_RULES: dict[str, Callable[[Problem, Question], Any]] = {
    "asked first": lambda problem, question: problem.questions.index(question) % 3,
    "own fact first": first_fact,
    "initial of the subject": lambda problem, question: read(question.text)[1][0][0],
    "word asked for": lambda problem, question: read(question.text)[1][2],
    "last sentence is a rule": lambda problem, question: problem.kinds[-1],
    "own fact in the first half": lambda problem, question: question.relevant[0] < len(problem.facts) / 2,
    "rule recited is in the first half": lambda problem, question: question.relevant[-1] < len(problem.facts) / 2,
    "rule comes after the fact": lambda problem, question: question.relevant[-1] > question.relevant[0],
}


@pytest.mark.parametrize("rule", CHANCE_RULES)
def test_order_and_words_tell_planted_labels_by_chance_only(planted: list[Problem], rule: str) -> None:
    """The best label for each value of a cue, chosen on the first half, is right by chance on the second."""
    cue = CHANCE_RULES[rule]
    votes: dict[Any, Counter[str]] = defaultdict(Counter)
    half = len(planted) // 2
    for problem in planted[:half]:
        for question in problem.questions:
            votes[cue(problem, question)][question.answer] += 1
    right = total = 0
    for problem in planted[half:]:
        for question in problem.questions:
            seen = votes[cue(problem, question)]
            right += bool(seen) and seen.most_common(1)[0][0] == question.answer
            total += 1
    # Questions on one theory are not independent: count theories, which is cautious.
    assert abs(right / total - 1 / 3) < 4 * math.sqrt(2 / 9 / half)


def real(data_root: Path) -> list[dict[str, Any]]:
    path = data_root / "proofwriter" / "OWA" / "NatLang" / "meta-dev_part.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("distractors", [0, 2, 6])
def test_real_theories_without_negation_give_matched_pairs(data_root: Path, distractors: int) -> None:
    records = real(data_root)
    problems = [p for r in records for p in repaired(r, random.Random(r["id"]), distractors=distractors)]
    assert len(problems) > 150
    for problem in problems:
        labels_follow(problem)
    for problem, questions in groups(problems):
        positive = read(questions[0].text)[1][3]
        assert sorted(question.answer for question in questions) == ["true" if positive else "false", "unknown"]
        assert len({plain_looks(problem, question) for question in questions}) == 1
    if not distractors:
        for problem in problems:
            recitations_suffice(problem)
    theories = {record["id"]: record for record in records}
    for problem in problems[:40]:
        whole = consequences(
            entry["text"]
            for part in ("triples", "rules")
            for entry in theories[problem.id.split("/")[0]][part].values()
        )
        assert all(truth(question.text, whole) == question.answer for question in problem.questions)


def test_distractors_are_added_up_to_the_number_asked_for(data_root: Path) -> None:
    for record in real(data_root)[:30]:
        plain = repaired(record, random.Random(0), distractors=0, limit=1)
        more = repaired(record, random.Random(0), distractors=4, limit=1)
        assert len(plain) == len(more)
        if plain:
            assert len(plain[0].facts) <= len(more[0].facts) <= len(plain[0].facts) + 4
        for problem in repaired(record, random.Random(0), distractors="all"):
            assert len(problem.facts) == record["NFact"] + record["NRule"]
            labels_follow(problem)


def test_random_theories_with_negation_give_three_labels() -> None:
    problems = []
    for index in range(150):
        record = generate(NEGATED, 2, "train", index)
        problems += repaired(record, random.Random(index), distractors=2)
    for problem in problems:
        labels_follow(problem)
    three = 0
    for problem, questions in groups(problems):
        assert len({plain_looks(problem, question) for question in questions}) == 1
        three += sorted(question.answer for question in questions) == ["false", "true", "unknown"]
    assert three >= 20


def test_one_polarity_can_be_drawn(data_root: Path) -> None:
    drawn = [p for r in real(data_root) for p in repaired(r, random.Random(r["id"]), polarity="drawn")]
    polarities = Counter(read(problem.questions[0].text)[1][3] for problem in drawn)
    assert all(len(problem.questions) == 2 for problem in drawn)
    assert abs(polarities[True] / len(drawn) - 0.5) < 4 * math.sqrt(0.25 / len(drawn))


def test_theories_without_a_matched_group_give_nothing() -> None:
    flat = GeneratorConfig(shape="random", depths=[0], rules=1)
    assert repaired(generate(flat, 0, "train", 0), random.Random(0)) == []
    closed = GeneratorConfig(shape="random", world="closed")
    assert repaired(generate(closed, 0, "train", 0), random.Random(0)) == []


def test_problems_are_a_function_of_the_record_and_the_random_state() -> None:
    record = generate(GeneratorConfig(), 0, "train", 0)
    assert repaired(record, random.Random("a")) == repaired(record, random.Random("a"))
    assert repaired(record, random.Random("a")) != repaired(record, random.Random("b"))
    assert repaired(record, random.Random("a"))[0].theory == repaired(record, random.Random("b"))[0].theory


# ---- distractors of the shared shape


SHARED: dict[str, Any] = {"shape": "shared", "world": "open", "depths": [1], "names": 12, "attributes": 15}


def shared(distractors: int, index: int) -> dict[str, Any]:
    return generate(GeneratorConfig(**SHARED, distractors=distractors), 0, "train", index)


@pytest.mark.parametrize("count", [2, 4, 6])
def test_distractors_of_shared_theories_change_no_answer_and_no_planted_sentence(count: int) -> None:
    for index in range(40):
        plain, more = shared(0, index), shared(count, index)
        before, after = ({entry["text"] for entry in part["triples"].values()} for part in (plain, more))
        assert before < after and len(after - before) == count // 2
        rules = [{entry["text"] for entry in part["rules"].values()} for part in (plain, more)]
        assert rules[0] < rules[1] and len(rules[1] - rules[0]) == count - count // 2
        answers = [{q["question"]: q["answer"] for q in part["questions"].values()} for part in (plain, more)]
        assert answers[0] == answers[1]
        persons = {text.split()[0] for text in after - before}
        assert not any(person in question for person in persons for question in answers[1])


def test_as_many_distractors_as_there_are_persons_and_rules_left() -> None:
    GeneratorConfig(**SHARED, distractors=18).validate()
    with pytest.raises(UserError, match="distractors=20: .*shape=shared has room for 18"):
        GeneratorConfig(**SHARED, distractors=20).validate()
