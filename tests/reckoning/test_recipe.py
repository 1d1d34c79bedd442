import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning import data
from reckoning.config import DataConfig, Format, SplitFiles
from reckoning.problems import Problem
from reckoning.proofwriter.recipe import (
    Alternative,
    check_published_counts,
    problems_of,
    proof_identifiers,
    read_records,
    split_by_theory,
)


def failing(depth: int, chain: str) -> str:
    return f"[@{depth}: Bob is cold.[CWA. Example of deepest failure = ({chain})]]"


def entries(**texts: str) -> dict[str, Any]:
    return {name: {"text": text, "representation": "-"} for name, text in texts.items()}


def asked(text: str, answer: bool | str, proofs: str, depth: int) -> dict[str, Any]:
    return {"question": text, "answer": answer, "QDep": depth, "proofs": proofs}


RECORD: dict[str, Any] = {
    "id": "T1",
    "triples": entries(triple1="Anne is kind.", triple2="Bob is big.", triple3="The cow is red."),
    "rules": entries(rule1="Kind people are big.", rule2="Red things are cold.", rule3="If it is big then it is old."),
    "questions": {
        "Q1": asked("Anne is kind.", True, "[(triple1)]", 0),  # one sentence: never kept
        "Q2": asked("Anne is big.", True, "[(((triple1) -> rule1))]", 1),
        "Q3": asked("Anne is not old.", False, "[(((((triple1) -> rule1)) -> rule3) OR ((triple2) -> rule3))]", 1),
        "Q4": asked("Bob is big.", True, "[(triple2 OR ((triple3 triple2 triple1) -> rule2))]", 0),
        "Q5": asked("Bob is cold.", "Unknown", failing(2, "rule2 <- rule1 <- FAIL"), 2),
        "Q6": asked("Bob is not red.", "Unknown", failing(1, "rule2 <- FAIL"), 1),  # one sentence: never kept
        "Q7": asked("Bob is red.", "Unknown", failing(0, "FAIL"), 0),  # none
    },
}
FACTS = {"Anne is kind", "Bob is big", "The cow is red"}


def make(record: dict[str, Any] = RECORD, seed: int = 0, **options: Any) -> list[Problem]:
    return problems_of(record, rng=random.Random(f"test/{seed}"), **options)


def recited(problem: Problem) -> tuple[str, ...]:
    return tuple(problem.facts[index] for index in problem.questions[0].relevant)


@pytest.mark.parametrize(
    ("alternative", "q3", "q4"),
    [
        ("first", ["triple1", "rule1", "rule3"], ["triple2"]),
        ("longest", ["triple1", "rule1", "rule3"], ["triple3", "triple2", "triple1", "rule2"]),
        ("shortest", ["triple2", "rule3"], ["triple2"]),
        ("union", ["triple1", "rule1", "rule3", "triple2"], ["triple2", "triple3", "triple1", "rule2"]),
        ("skip", [], []),
    ],
)
def test_alternative_proofs_worked_out_by_hand(alternative: Alternative, q3: list[str], q4: list[str]) -> None:
    questions = RECORD["questions"]
    assert proof_identifiers(questions["Q3"]["proofs"], alternative) == tuple(q3)
    assert proof_identifiers(questions["Q4"]["proofs"], alternative) == tuple(q4)
    assert proof_identifiers(questions["Q2"]["proofs"], alternative) == ("triple1", "rule1")
    assert proof_identifiers(questions["Q5"]["proofs"], alternative) == ("rule2", "rule1")
    kept = {problem.questions[0].id for problem in make(alternative=alternative, balance=False)}
    assert kept == {"T1_Q2", "T1_Q5"} | {f"T1_{q}" for q, proof in (("Q3", q3), ("Q4", q4)) if len(proof) > 1}


def test_articles_case_and_failures_are_dropped_and_alternatives_may_be_nested() -> None:
    assert proof_identifiers("[((the Triple1 (NAF triple2)) -> Rule1)]") == ("triple1", "triple2", "rule1")
    nested = "[((((triple1 OR triple2) triple3) -> rule1) OR ((triple1) -> rule2))]"
    assert proof_identifiers(nested, "first") == ("triple1", "triple3", "rule1")
    assert proof_identifiers(nested, "shortest") == ("triple1", "rule2")
    assert proof_identifiers(nested, "union") == ("triple1", "triple2", "triple3", "rule1", "rule2")


def test_unbalanced_problems_worked_out_by_hand() -> None:
    two, three, five = make(balance=False, order="relevant_first")
    assert two.facts == ("Anne is kind", "Kind people are big")
    assert (two.kinds, two.questions[0].relevant, two.questions[0].depth) == (("fact", "rule"), (0, 1), 1)
    assert (two.questions[0].text, two.questions[0].answer) == ("Anne is big", "true")
    assert three.facts == ("Anne is kind", "Kind people are big", "If it is big then it is old")
    assert (three.questions[0].text, three.questions[0].answer) == ("Anne is not old", "false")
    assert (five.facts, five.kinds) == (("Red things are cold", "Kind people are big"), ("rule", "rule"))
    assert five.questions[0].answer == "unknown"
    assert len({problem.theory for problem in (two, three, five)}) == 1


def test_balancing_draws_with_replacement_and_gives_every_copy_an_id_of_its_own() -> None:
    record = json.loads(json.dumps(RECORD))
    record["questions"]["Q8"] = asked("Bob is not cold.", "Unknown", failing(2, "rule3 <- rule1 <- FAIL"), 2)
    problems = make(record)
    assert [problem.questions[0].answer for problem in problems] == ["true"] * 2 + ["false"] * 2 + ["unknown"] * 2
    # one true and one false question are kept, so either is drawn twice
    ids = ["T1_Q2", "T1_Q2#2", "T1_Q3", "T1_Q3#2", "T1_Q5", "T1_Q8"]
    assert [problem.questions[0].id for problem in problems] == ids == [problem.id for problem in problems]


@pytest.mark.parametrize("missing", ["Q2", "Q3", "Q5"])
def test_a_theory_without_one_of_the_labels_vanishes_when_balanced(missing: str) -> None:
    questions = {name: question for name, question in RECORD["questions"].items() if name != missing}
    assert make(RECORD | {"questions": questions}) == []
    assert len(make(RECORD | {"questions": questions}, balance=False)) == 2


@pytest.mark.parametrize("level", ["0", "2", "4", "6", "all"])
def test_distractors_come_from_the_rest_of_the_theory_up_to_the_level(level: Any) -> None:
    sizes: Counter[int] = Counter()
    for seed in range(60):
        for problem in make(seed=seed, distractors=level):
            assert len(set(problem.facts)) == len(problem.facts)
            assert all(
                (kind == "fact") == (fact in FACTS) for fact, kind in zip(problem.facts, problem.kinds, strict=True)
            )
            if problem.id == "T1_Q2":
                assert recited(problem) == ("Anne is kind", "Kind people are big")
                sizes[len(problem.facts) - 2] += 1
    # four sentences are left; k draws with replacement lose their duplicates, so fewer than k may remain
    expected = {"0": {0}, "2": {1, 2}, "4": {1, 2, 3, 4}, "6": {1, 2, 3, 4}, "all": {4}}[level]
    assert set(sizes) <= expected and max(sizes) == max(expected)
    if level == "2":  # both draws are the same sentence in one case of four
        assert 5 <= sizes[1] <= 25


def test_a_rest_of_one_sentence_gives_no_distractor() -> None:
    record = RECORD | {"triples": entries(triple1="Anne is kind."), "rules": entries(rule1="Kind.", rule2="Old.")}
    record["questions"] = {"Q2": RECORD["questions"]["Q2"]}
    for level in ("2", "all"):
        (problem,) = make(record, distractors=level, balance=False)
        assert set(problem.facts) == {"Anne is kind", "Kind"}


def test_the_three_orders() -> None:
    first, last, mixed = (
        make(balance=False, distractors="all", order=order)[0]
        for order in ("relevant_first", "distractors_first", "shuffled")
    )
    assert first.facts[:2] == last.facts[-2:] == ("Anne is kind", "Kind people are big")
    assert first.questions[0].relevant == (0, 1) and last.questions[0].relevant == (4, 5)
    assert set(first.facts) == set(last.facts) == set(mixed.facts)
    assert {make(seed=seed, distractors="all", balance=False)[0].questions[0].relevant for seed in range(40)} > {(0, 1)}
    assert recited(mixed) == recited(first)


def test_neither_distractors_nor_order_change_the_selection(data_root: Path) -> None:
    record = next(read_records(data_root / "proofwriter/OWA/NatLang/meta-dev_part.jsonl.gz"))
    reference = [problem.id for problem in make(record)]
    for level in ("2", "6", "all"):
        for order in ("relevant_first", "shuffled"):
            assert [problem.id for problem in make(record, distractors=level, order=order)] == reference
    assert make(record, seed=1) == make(record, seed=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"alternative": "last"}, "data.alternative='last' is not known; use one of first, longest, shortest"),
        ({"distractors": "5"}, "data.distractors='5' is not known; use one of 0, 2, 4, 6, all"),
        ({"order": "sorted"}, "data.order='sorted' is not known; use one of shuffled, relevant_first"),
    ],
)
def test_unknown_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**option)


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(RECORD))
    place = record
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (changed(("rules",), None), r"field 'rules' is missing, found .*official ProofWriter lines"),
        (changed(("triples",), []), "triples is a list, an object is needed"),
        (changed(("triples", "triple2"), {"text": "."}), "triple2 has no sentence in 'text'"),
        (RECORD | {"triples": {}, "rules": {}}, "theory T1 is an empty knowledge set"),
        (changed(("questions", "Q3", "proofs"), None), "question Q3 has no 'proofs'; .*meta-.*jsonl"),
        (
            changed(("questions", "Q3", "answer"), "Perhaps"),
            r"Q3: unknown label 'Perhaps', allowed are \['true', 'false'",
        ),
        (changed(("questions", "Q2", "proofs"), "[(rule9)]"), r"Q2: the proof '\[\(rule9\)\]' names rule9, which"),
    ],
)
def test_a_bad_theory_is_named_with_its_line(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = tmp_path / "meta-dev.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps(record) + "\n")
    records = read_records(path)
    assert next(records) == RECORD  # streaming: what comes before is delivered
    with pytest.raises(UserError, match=rf"meta-dev\.jsonl:2: .*{message}"):
        next(records)


def test_files_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta-dev\.jsonl: no such file; point data\.root at the folder"):
        read_records(tmp_path / "meta-dev.jsonl")
    (tmp_path / "meta-dev.jsonl").write_text(json.dumps(RECORD)[:-1])
    with pytest.raises(UserError, match=r"meta-dev\.jsonl:1: malformed JSON"):
        list(read_records(tmp_path / "meta-dev.jsonl"))


def test_an_unchecked_theory_with_a_stray_proof_is_named() -> None:
    with pytest.raises(UserError, match="theory T1, question Q2: the proof .* names rule9"):
        make(changed(("questions", "Q2", "proofs"), "[((triple1) -> rule9)]"))


def test_published_counts_are_held_against_the_found_ones() -> None:
    check_published_counts(5, "train", theories=3322, examples=18525)
    with pytest.raises(
        UserError, match=r"depth-5 train: theories 3322 \(published 3322\), examples 9 \(published 18525\)"
    ):
        check_published_counts(5, "train", theories=3322, examples=9)
    with pytest.raises(UserError, match="no published counts for depth-1 train, only for depth-2 train, depth-2 dev"):
        check_published_counts(1, "train", theories=0, examples=0)


def test_counts_are_of_theories_read_and_of_questions_after_balancing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A theory of which balancing leaves nothing counts as read; grouped questions count one by one."""
    known = {name: each for name, each in RECORD["questions"].items() if each["answer"] != "Unknown"}
    bare = {**RECORD, "id": "T9", "questions": known}
    files = {}
    for split in ("train", "dev", "test"):
        lines = [json.dumps({**record, "id": f"{split}{i}"}) for i, record in enumerate((RECORD, bare))]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines).replace("Anne", split.title()))
        files[split] = str(tmp_path / f"{split}.jsonl")
    found: list[Any] = []
    monkeypatch.setattr(data, "check_published_counts", lambda hops, split, **counts: found.append((split, counts)))
    labels = {"true": "yes", "false": "no", "unknown": "none"}
    asked = DataConfig(
        format=Format.proofwriter, files=SplitFiles(**files), labels=labels, hops=2, check_counts=True,
        questions_per_set=6,
    )  # fmt: skip
    splits = data.load(asked)
    examples = sum(len(problem.questions) for problem in splits["train"])
    assert examples == 3  # one unknown question and its two partners
    assert found == [(split, {"theories": 2, "examples": examples}) for split in ("train", "dev", "test")]


# The shared real file: 160 of 240 theories of the NatLang dev file.


@pytest.fixture(scope="module")
def real(data_root: Path) -> list[dict[str, Any]]:
    return list(read_records(data_root / "proofwriter/OWA/NatLang/meta-dev_part.jsonl.gz"))


def test_the_real_file_is_read_completely(real: list[dict[str, Any]]) -> None:
    assert (len(real), sum(len(record["questions"]) for record in real)) == (160, 2676)


def recount(record: dict[str, Any], alternative: str) -> dict[str, set[str]]:
    """Question id -> identifiers of its proof, from the field with intermediate conclusions, which the recipe ignores;
    for unknown questions from the words between the arrows."""
    kept = {}
    for name, question in record["questions"].items():
        if question["answer"] == "Unknown":
            chain = question["proofs"].rsplit("(", 1)[1].split(")")[0].split(" <- ")
            assert len(chain) == question["QDep"] + 1 and chain[-1] == "FAIL"
            found = set(chain[:-1])
        else:
            proofs = [proof["representation"] for proof in question["proofsWithIntermediates"]]
            assert len(proofs) == question["proofs"].count("OR") + 1
            if alternative == "skip" and len(proofs) > 1:
                continue
            sets = [
                {word for word in re.split(r"[^a-z0-9]+", proof) if re.match("triple|rule", word)} for proof in proofs
            ]
            ranked = sorted(sets, key=len)  # stable: the earlier of equals comes first
            longest = next(each for each in sets if len(each) == len(ranked[-1]))
            found = {"longest": longest, "shortest": ranked[0], "union": set().union(*sets)}.get(alternative, sets[0])
        if len(found) > 1:
            kept[f"{record['id']}_{name}"] = found
    return kept


@pytest.mark.parametrize(
    ("alternative", "true", "false", "unknown"),
    [
        ("first", 509, 509, 203),
        ("longest", 522, 518, 203),
        ("shortest", 509, 509, 203),
        ("union", 522, 518, 203),
        ("skip", 454, 459, 203),
    ],
)
def test_kept_questions_of_the_real_file_equal_an_independent_recount(
    real: list[dict[str, Any]], alternative: Alternative, true: int, false: int, unknown: int
) -> None:
    labels: Counter[str] = Counter()
    for record in real:
        expected = recount(record, alternative)
        problems = make(record, alternative=alternative, balance=False)
        assert [problem.id for problem in problems] == list(expected)
        for problem in problems:
            sentences = record["triples"] | record["rules"]
            assert set(problem.facts) == {sentences[each]["text"].rstrip(".") for each in expected[problem.id]}
            labels[problem.questions[0].answer] += 1
    assert labels == {"true": true, "false": false, "unknown": unknown}


def test_questions_with_several_proofs_in_the_real_file(real: list[dict[str, Any]]) -> None:
    several = sum(
        len(question.get("proofsWithIntermediates", ())) > 1 and f"{record['id']}_{name}" in recount(record, "union")
        for record in real
        for name, question in record["questions"].items()
    )
    with_them = sum(len(make(record, alternative="union", balance=False)) for record in real)
    without = sum(len(make(record, alternative="skip", balance=False)) for record in real)
    assert with_them - without == several == 127  # of 1243; all 240 theories have 176 of 1848


def test_balanced_sets_of_the_real_file_equal_an_independent_recount(real: list[dict[str, Any]]) -> None:
    total = 0
    for record in real:
        kept = recount(record, "first")
        answers = [record["questions"][name.split("_")[1]]["answer"] for name in kept]
        unknown = answers.count("Unknown") if {True, False} <= set(answers) else 0
        problems = make(record)
        assert Counter(p.questions[0].answer for p in problems) == (
            dict.fromkeys(("true", "false", "unknown"), unknown) if unknown else {}
        )
        assert {problem.id.split("#")[0] for problem in problems} <= set(kept)
        total += len(problems)
    assert total == 609 == 3 * 203


@pytest.mark.parametrize("balance", [True, False])
def test_shortcut_rules_on_the_real_file_score_as_computed_before(real: list[dict[str, Any]], balance: bool) -> None:
    from reckoning.audit import audit

    problems = [problem for record in real for problem in make(record, balance=balance)]
    results = {each.name: each for each in audit(problems[:9], problems, ("true", "false", "unknown"), seed=0)}
    right: dict[str, Counter[str]] = {
        "polarity": Counter(),
        "knowledge": Counter(),
        "knowledge_and_polarity": Counter(),
    }
    for problem in problems:  # the recount: from the words of the record, not through the audit's features
        question = problem.questions[0]
        by_polarity = "false" if " not " in question.text else "true"
        base = any(not fact.startswith("If ") for fact in problem.facts)
        right["polarity"][question.answer] += by_polarity == question.answer
        right["knowledge"][question.answer] += ("true" if base else "unknown") == question.answer
        right["knowledge_and_polarity"][question.answer] += (by_polarity if base else "unknown") == question.answer
    totals = Counter(problem.questions[0].answer for problem in problems)
    for name, published in (("polarity", 66.7), ("knowledge", 66.7), ("knowledge_and_polarity", 100.0)):
        balanced = sum(right[name][label] / totals[label] for label in totals) / len(totals)
        assert results[name].balanced_accuracy == pytest.approx(balanced)
        assert round(100 * balanced, 1) == published


def test_one_file_is_split_by_theory_and_equal_theories_stay_together(real: list[dict[str, Any]]) -> None:
    records = [*real, *(record | {"id": f"copy of {record['id']}"} for record in real[:40])]
    splits = split_by_theory(records, {"train": 0.6, "dev": 0.2, "test": 0.2}, seed=3)
    assert sum(map(len, splits.values())) == 200
    ids = {name: {record["id"].removeprefix("copy of ") for record in part} for name, part in splits.items()}
    assert {name: len(part) for name, part in ids.items()} == {"train": 96, "dev": 32, "test": 32}
    theories = {name: {p.theory for r in part for p in make(r)} for name, part in splits.items()}
    assert not theories["train"] & theories["test"] and not theories["dev"] & (theories["train"] | theories["test"])
