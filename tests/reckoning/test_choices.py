import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.choices import annotations_beside, kind_of, read_choices
from reckoning.problems import Question

LINE: dict[str, Any] = {
    "id": "Q1",
    "context": "Anne is red. All red people are big. If someone is big then they are not cold.",
    "question": "Based on the above information, is the following statement true, false, or unknown? Anne is cold.",
    "options": ["A) True", "B) False", "C) Unknown"],
    "answer": "B",
}
ANNOTATION = {"id": "Q1", "n_sentences": 3, "depth": 2, "support": [0, 1, 2]}


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_question_with_annotation_becomes_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", LINE)
    assert annotations_beside(path) is None
    beside = write(tmp_path / "q_annot.jsonl", ANNOTATION)
    assert annotations_beside(path) == beside
    (read,) = read_choices(path, beside)
    assert read.facts == ("Anne is red", "All red people are big", "If someone is big then they are not cold")
    assert read.kinds == ("fact", "rule", "rule")
    assert read.questions == (Question("Q1", "Anne is cold", "false", (0, 1, 2), 2),)
    assert read_choices(path)[0].questions == (Question("Q1", "Anne is cold", "false"),)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Anne is red", "fact"),
        ("The bald eagle does not like the cow", "fact"),
        ("Gary likes people", "fact"),
        ("Allan is big", "fact"),
        ("Young, cold people are red", "rule"),
        ("Red things are quiet", "rule"),
        ("All things are round", "rule"),
        ("If the cow is cold then the cow visits the lion", "rule"),
        ("Someone who is green will be cold", "rule"),
    ],
)
def test_kinds_follow_the_wording(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind


def test_long_sentences_are_classified_at_once() -> None:
    assert kind_of("red and " * 5000 + "blue") == "fact"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": " "}, "context holds no sentence, the knowledge set is empty"),
        ({"context": 3}, "context=3 is not a str"),
        ({"answer": "D"}, r"answer 'D' is none of the options \['A', 'B', 'C'\]"),
        ({"options": ["True"]}, r"option 'True' cannot be read; write it as \"A\) True\""),
        ({"options": ["B) Perhaps"]}, r"unknown label 'perhaps', allowed are \['false', 'true'\]; .*data\.labels"),
        ({"question": LINE["question"].removesuffix("Anne is cold.")}, "holds no statement"),
        ({"id": "Q1"}, "id 'Q1' was used in line 1"),
        ({"id": "Q3"}, r"question 'Q3' has no line in .*_annot\.jsonl"),
    ],
)
def test_a_bad_question_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "q.jsonl", LINE, LINE | {"id": "Q2"} | change)
    beside = write(tmp_path / "q_annot.jsonl", ANNOTATION, ANNOTATION | {"id": "Q2"})
    with pytest.raises(UserError, match=rf"q\.jsonl:2: .*{message}"):
        read_choices(path, beside, {"true": "yes", "false": "no"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_sentences": 4}, "n_sentences=4 but the context of 'Q1' has 3 sentences"),
        ({"support": [3]}, r"support=\[3\], the sentences are 0 to 2"),
        ({"support": "all"}, "support='all' is not a list of sentence numbers or null"),
        ({"id": None}, "id=None is not a string"),
    ],
)
def test_a_bad_annotation_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "q.jsonl", LINE)
    beside = write(tmp_path / "q_annot.jsonl", ANNOTATION | change)
    with pytest.raises(UserError, match=rf"q_annot\.jsonl:1: {message}"):
        read_choices(path, beside)


@pytest.mark.parametrize("field", list(LINE))
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "q.jsonl", {key: value for key, value in LINE.items() if key != field})
    with pytest.raises(UserError, match=rf"q\.jsonl:1: field '{field}' is missing"):
        read_choices(path)


def test_the_real_depth_5_files_are_read_completely(data_root: Path) -> None:
    folder = data_root / "proofwriter"
    splits = {name: folder / f"owa_d5_{name}.jsonl.gz" for name in ("train", "dev")}
    read = {name: read_choices(path, annotations_beside(path)) for name, path in splits.items()}
    theories = {name: {problem.theory for problem in problems} for name, problems in read.items()}
    assert {name: len(problems) for name, problems in read.items()} == {"train": 3000, "dev": 600}
    assert {name: len(keys) for name, keys in theories.items()} == {"train": 2022, "dev": 345}
    assert not theories["train"] & theories["dev"]
    for problems in read.values():
        assert len(set(Counter(p.questions[0].answer for p in problems).values())) == 1  # balanced
        for problem in problems:
            question = problem.questions[0]
            assert (question.depth is None) == (question.answer == "unknown") == (not question.relevant)
            # independent of the classifier: base facts speak of one of eight persons or of an animal with its article
            persons = ("Anne ", "Bob ", "Charlie ", "Dave ", "Erin ", "Fiona ", "Gary ", "Harry ", "The ")
            assert problem.kinds == tuple("fact" if fact.startswith(persons) else "rule" for fact in problem.facts)
            if question.depth:
                assert {problem.kinds[index] for index in question.relevant} == {"fact", "rule"}


def test_kinds_agree_with_the_official_format(data_root: Path) -> None:
    import gzip

    path = data_root / "proofwriter" / "OWA" / "NatLang" / "meta-dev_part.jsonl.gz"
    with gzip.open(path, "rt") as file:
        for line in file:
            record = json.loads(line)
            assert {kind_of(entry["text"]) for entry in record["triples"].values()} == {"fact"}
            assert {kind_of(entry["text"]) for entry in record["rules"].values()} == {"rule"}
