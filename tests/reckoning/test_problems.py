import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.problems import (
    Problem,
    Question,
    content_key,
    group_questions,
    problem_from_json,
    problem_to_json,
    read_jsonl,
    split_by_key,
)

LINE = {"facts": ["Anne is red.", "Red people are big."], "question": "Anne is big.", "answer": "true"}
LABELS = {"true": "yes", "false": "no"}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def problem(name: str, questions: int, facts: tuple[str, ...] = ("Anne is red",)) -> Problem:
    asked = tuple(Question(f"{name}.{index}", f"question {index}", "true") for index in range(questions))
    return Problem(name, content_key(facts), facts, (), asked)


def test_a_problem_survives_json_exactly() -> None:
    questions = (Question("q1", "Is it?", "true", (1, 0), 2), Question("q2", "Is it not?", "unknown"))
    original = Problem("p", "t", ("Anne is red", "Red people are big"), ("fact", "rule"), questions)
    assert problem_from_json(json.loads(json.dumps(problem_to_json(original)))) == original
    with pytest.raises(ValueError, match=r"not a stored problem \(KeyError\('questions'\)\)"):
        problem_from_json({"id": "p"})


@pytest.mark.parametrize(
    ("facts", "kinds", "relevant"),
    [((), (), ()), (("a", "b"), ("fact",), ()), (("a",), ("law",), ()), (("a",), (), (1,)), (("a",), (), (-1,))],
)
def test_impossible_problems_cannot_be_made(facts: Any, kinds: Any, relevant: Any) -> None:
    with pytest.raises(ValueError, match="p"):
        Problem("p", "t", facts, kinds, (Question("p.0", "x", "true", relevant),))


def test_a_plain_line_becomes_one_problem(tmp_path: Path) -> None:
    (read,) = read_jsonl(write(tmp_path / "own.v2.jsonl", LINE), LABELS)
    assert read.facts == ("Anne is red", "Red people are big")
    assert read.kinds == ()
    assert read.theory == content_key(["Red people are big", "Anne is red"])
    assert read.questions == (Question("own:1", "Anne is big", "true"),)


def test_optional_fields_are_kept_and_sentences_become_indices(tmp_path: Path) -> None:
    more = {
        "id": 7,
        "theory": "story 1",
        "depth": 1,
        "kinds": ["fact", "rule"],
        "relevant": ["Red people are big.", 0, 1],
    }
    (read,) = read_jsonl(write(tmp_path / "own.jsonl", LINE | more))
    assert (read.id, read.theory, read.kinds) == ("7", "story 1", ("fact", "rule"))
    assert read.questions == (Question("7", "Anne is big", "true", (1, 0), 1),)


def test_labels_are_compared_without_case_and_json_booleans_are_words(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", LINE | {"answer": "TRUE"}, LINE | {"answer": False})
    assert [p.questions[0].answer for p in read_jsonl(path, LABELS)] == ["true", "false"]
    assert [p.questions[0].answer for p in read_jsonl(path)] == ["TRUE", "false"]


def test_consecutive_lines_about_the_same_facts_are_grouped_up_to_the_limit(tmp_path: Path) -> None:
    other = LINE | {"facts": ["Bob is blue."]}
    path = write(tmp_path / "own.jsonl", LINE, LINE, LINE, other, LINE)
    assert [len(p.questions) for p in read_jsonl(path)] == [1, 1, 1, 1, 1]
    grouped = read_jsonl(path, questions_per_set=2)
    assert [[q.id for q in p.questions] for p in grouped] == [["own:1", "own:2"], ["own:3"], ["own:4"], ["own:5"]]
    assert [p.id for p in grouped] == ["own:1", "own:3", "own:4", "own:5"]


def test_a_line_may_ask_several_questions(tmp_path: Path) -> None:
    asked = [
        {"question": "Anne is big.", "answer": "true", "relevant": [0, "Red people are big."], "depth": 1},
        {"question": "Anne is not big.", "answer": "false", "id": "second"},
        {"question": "Anne is red.", "answer": True},
    ]
    line = {"id": "set 1", "facts": LINE["facts"], "questions": asked}
    path = write(tmp_path / "own.jsonl", line, LINE)
    expected = [
        Question("set 1/0", "Anne is big", "true", (0, 1), 1),
        Question("second", "Anne is not big", "false"),
        Question("set 1/2", "Anne is red", "true"),
        Question("own:2", "Anne is big", "true"),
    ]
    for size, sizes in ((1, [1, 1, 1, 1]), (3, [3, 1]), (9, [4])):
        read = read_jsonl(path, LABELS, questions_per_set=size)
        assert [len(p.questions) for p in read] == sizes
        assert [q for p in read for q in p.questions] == expected


@pytest.mark.parametrize(
    ("questions", "more", "message"),
    [
        ([], {}, r"questions=\[\] is not a list of questions; write \"questions\": \["),
        ("Is it?", {}, "questions='Is it\\?' is not a list of questions"),
        (["Is it?"], {}, r"questions\[0\]='Is it\?' is not an object"),
        ([{"question": "x"}], {}, r"questions\[0\]: answer=None is not a string|.*field 'answer' is missing"),
        ([{"question": "x", "answer": "nay"}], {}, r"questions\[0\]: unknown label 'nay'"),
        ([{"question": "x", "answer": "true", "relevant": [7]}], {}, r"questions\[0\]: relevant index 7"),
        ([{"question": "x", "answer": "true", "id": "first"}], {}, "id 'first' was used in line 1"),
        ([{"question": "x", "answer": "true"}], {"answer": "true"}, "answer beside 'questions'; move it into"),
    ],
)
def test_a_bad_list_of_questions_is_named(tmp_path: Path, questions: Any, more: dict[str, Any], message: str) -> None:
    line = {"facts": LINE["facts"], "questions": questions, **more}
    path = write(tmp_path / "own.jsonl", LINE | {"id": "first"}, line)
    with pytest.raises(UserError, match=rf"own\.jsonl:2: {message}"):
        read_jsonl(path, LABELS)


def test_any_number_of_labels_of_one_or_more_words_is_read_and_scored(tmp_path: Path) -> None:
    from reckoning.audit import audit
    from reckoning.config import DataConfig, TrainConfig
    from reckoning.scoring import score
    from reckoning.shortcut_rows import labels_of

    words = [f"{half}{kin}" for half in ("", "step ") for kin in ("son", "aunt", "mother-in-law", "great uncle")]
    lines = [
        {"facts": ["Ann has a kin called Bob."], "question": "Who is Bob to Ann?", "answer": word, "theory": word}
        for word in words
    ]
    read = read_jsonl(write(tmp_path / "own.jsonl", *lines))
    assert [p.questions[0].answer for p in read] == words
    said = [[f"{word} because Ann has a kin called Bob"] for word in words]
    assert all(item.scores["accuracy"] == (1, 1) for item in score(read, said, {}))
    assert all(item.scores["accuracy"] == (1, 1) for item in score(read, [[word] for word in words], {}))
    # a label that only the test split has is a label of the task
    splits = {"train": read[:6], "dev": read[6:7], "test": read[7:]}
    labels = labels_of(splits, TrainConfig(data=DataConfig(labels=None)))
    assert labels == sorted(words)
    assert {rule.name for rule in audit(splits["train"], splits["test"], labels, seed=0)} > {"chance", "majority"}


@pytest.mark.parametrize("answer", ["Paris, France", "just because"])
def test_an_answer_that_could_never_be_right_is_refused(tmp_path: Path, answer: str) -> None:
    path = write(tmp_path / "own.jsonl", LINE | {"answer": answer})
    with pytest.raises(UserError, match=r"own\.jsonl:1: the answer '.*' holds a comma or 'because'.*data\.labels"):
        read_jsonl(path)
    assert read_jsonl(path, {answer: "Paris"})[0].questions[0].answer == answer


def test_grouping_fills_up_cuts_and_loses_nothing() -> None:
    before = [problem("a", 3), problem("b", 3), problem("c", 5, ("other",))]
    after = group_questions(before, 4)
    assert [(p.id, len(p.questions)) for p in after] == [("a", 4), ("b", 2), ("c", 4), ("c/c.4", 1)]
    assert [q for p in after for q in p.questions] == [q for p in before for q in p.questions]
    with pytest.raises(UserError, match=r"data\.questions_per_set=0: at least one question"):
        group_questions(before, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": None}, "facts is a NoneType, a list is needed"),
        ({"facts": []}, r"facts=\[\]: the knowledge set is empty; give at least one sentence"),
        ({"facts": ["Anne is red.", " . "]}, r"facts\[1\] is an empty sentence"),
        ({"facts": ["Anne is red.", 3]}, r"facts\[1\]=3 is not a string"),
        ({"question": ""}, "question is empty"),
        ({"question": 5}, "question=5 is not a string"),
        ({"answer": "maybe"}, r"unknown label 'maybe', allowed are \['false', 'true'\]; .* to data\.labels"),
        ({"kinds": ["fact"]}, r"kinds=\['fact'\] for 2 facts"),
        ({"kinds": ["fact", "law"]}, r"kinds=\['fact', 'law'\] for 2 facts"),
        ({"depth": -1}, "depth=-1; a whole number from 0"),
        ({"relevant": [2]}, "relevant index 2, the facts are 0 to 1"),
        ({"relevant": [True]}, r"relevant\[0\]=True is not a string or index"),
        ({"relevant": ["Bob is red."]}, "relevant sentence 'Bob is red.' is not one of the facts"),
        ({"id": "x"}, r"id 'x' was used in line 1"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "own.jsonl", LINE | {"id": "x"}, LINE | change)
    with pytest.raises(UserError, match=rf"own\.jsonl:2: {message}"):
        read_jsonl(path, LABELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevent": [0]}, "unknown field 'relevent': did you mean 'relevant'"),
        ({"support": [0]}, "unknown field 'support': did you mean 'relevant'"),
        ({"dept": 1}, "unknown field 'dept': did you mean 'depth'"),
        ({"Theory": "a"}, "unknown field 'Theory': did you mean 'theory'"),
        ({"relevant": 0}, "relevant is a int, a list is needed"),
        ({"relevant": ""}, "relevant is a str, a list is needed"),
        ({"kinds": ""}, "kinds is a str, a list is needed"),
        ({"theory": " "}, "theory=' ' is neither a text nor a number"),
        ({"id": ["a"]}, r"id=\['a'\] is neither a text nor a number"),
        ({"all_facts": ["Bob is red."]}, "relevant sentence 'Anne is red.' is not one of the facts"),
        ({"all_facts": ["Anne is red."], "relevant": [0]}, "relevant beside all_facts"),
    ],
)
def test_nothing_optional_is_dropped_in_silence(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {"facts": ["Anne is red."], "question": "Anne is big", "answer": "true"}
    path = write(tmp_path / "own.jsonl", line, line | change)
    with pytest.raises(UserError, match=rf"own\.jsonl:2: {message}"):
        read_jsonl(path, LABELS)


def test_a_question_of_a_list_is_read_as_strictly(tmp_path: Path) -> None:
    line = {"facts": ["Anne is red."], "questions": [{"question": "Anne is big", "answer": "true", "relevent": [0]}]}
    with pytest.raises(UserError, match=r"own\.jsonl:1: questions\[0\]: unknown field 'relevent'"):
        read_jsonl(write(tmp_path / "own.jsonl", line))
    line["questions"][0] = {"question": "Anne is big", "answer": "true", "facts": []}  # type: ignore[index]
    with pytest.raises(UserError, match=r"questions\[0\]: facts is a field of the line"):
        read_jsonl(write(tmp_path / "own.jsonl", line))


def test_the_authors_own_form_is_read_with_its_distractors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {
        "guid": "p1", "question": "Anne is big", "answer": "true", "proofs": "(t1)",
        "facts": ["Anne is red.", "Red people are big."],
        "all_facts": ["Bob is blue.", "Red people are big.", "Anne is red."],
    }  # fmt: skip
    kin = {"guid": 0, "facts": ["Bob is Ann's son."], "questions": "Who is Bob to Ann?", "answer": "son", "comment": ""}
    first, second = read_jsonl(write(tmp_path / "own.jsonl", line, kin))
    assert first.facts == ("Bob is blue", "Red people are big", "Anne is red")
    assert (first.id, first.questions[0].relevant) == ("p1", (2, 1))
    assert (second.id, second.questions[0].text) == ("0", "Who is Bob to Ann?")
    assert caplog.messages == [f"{tmp_path / 'own.jsonl'}:2: field 'comment' is not read"]


def test_zero_is_an_id_and_a_theory_and_null_is_none(tmp_path: Path) -> None:
    line = {"facts": ["Anne is red."], "question": "Anne is big", "answer": "true"}
    zero, none = read_jsonl(write(tmp_path / "own.jsonl", line | {"id": 0, "theory": 0}, line | {"id": None}))
    assert (zero.id, zero.theory, none.id) == ("0", "0", "own:2")


def own(path: Path, **more: Any) -> Any:
    from reckoning.config import DataConfig, Format, SplitFiles

    shares = {"train": 0.5, "dev": 0.25, "test": 0.25}
    return DataConfig(name="own", format=Format.jsonl, files=SplitFiles(train=str(path)), shares=shares, **more)


def test_spellings_that_scoring_takes_for_one_are_one_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from reckoning.data import load

    words = ["Yes", "yes", "YES", "yes ", "the yes", "No", "no", "Yes"]
    lines = [{"facts": [f"Day {n}."], "question": "Is it?", "answer": word} for n, word in enumerate(words)]
    splits = load(own(write(tmp_path / "own.jsonl", *lines)))
    assert {q.answer for problems in splits.values() for p in problems for q in p.questions} == {"Yes", "No"}
    assert any("'yes'" in said and "own.jsonl:2" in said and "read as 'Yes'" in said for said in caplog.messages)


def test_one_question_has_one_answer(tmp_path: Path) -> None:
    from reckoning.data import load

    line = {"facts": ["Anne is red.", "Bob is big."], "question": "Anne is big", "answer": "true"}
    more = [{"facts": [f"Day {n}."], "question": "Is it?", "answer": "true"} for n in range(6)]
    other = line | {"facts": line["facts"][::-1], "answer": "false"}
    with pytest.raises(
        UserError, match=r"own\.jsonl:8: 'Anne is big' is answered 'false', and 'true' of the same .*:1;"
    ):
        load(own(write(tmp_path / "own.jsonl", line, *more, other)))


def test_an_answer_of_which_scoring_leaves_nothing_is_refused(tmp_path: Path) -> None:
    line = {"facts": ["Anne is red."], "question": "Which letter?", "answer": "A"}
    path = write(tmp_path / "own.jsonl", line)
    with pytest.raises(UserError, match=r"own\.jsonl:1: of the answer 'A' scoring leaves nothing"):
        read_jsonl(path)
    assert read_jsonl(path, {"A": "alpha"})[0].questions[0].answer == "A"


def test_labels_whose_words_scoring_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    from reckoning.data import load

    with pytest.raises(UserError, match=r"data.labels: 'Yes' \(of 'b'\) and 'yes' are one word for scoring"):
        load(own(write(tmp_path / "own.jsonl", LINE), labels={"a": "yes", "b": "Yes"}))


def test_shared_theories_are_named_by_their_lines(tmp_path: Path) -> None:
    from reckoning.config import SplitFiles
    from reckoning.data import load

    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.jsonl", {"facts": ["Anne is red."], "question": "Is it?", "answer": "yes"})
    files = SplitFiles(*(str(tmp_path / f"{split}.jsonl") for split in ("train", "dev", "test")))
    config = own(tmp_path / "train.jsonl")
    config.files = files
    with pytest.raises(UserError, match=r"train and dev splits share 1 theories .*; it is in train:1 and dev:1; give"):
        load(config)


@pytest.mark.parametrize("words", [[], ["data.variant=repaired"]])
def test_a_file_of_a_closed_world_is_named_as_such(tmp_path: Path, words: list[str]) -> None:
    from hydra import compose, initialize_config_module

    from common.run.schema import to_typed
    from reckoning.config import TrainConfig
    from reckoning.data import load
    from reckoning.proofwriter.generator import generate

    def generator(*more: str) -> Any:
        with initialize_config_module("conf.reckoning", version_base="1.3"):
            given = ["+experiment=proofwriter", "scale=cpu", "data.cache=null", *more]
            return to_typed(compose("config", overrides=given), TrainConfig).data

    records = []
    for index in range(12):
        record = generate(generator().generator, 0, "train", index)
        record["questions"] = {
            name: {**question, "answer": question["answer"] in (True, "True", "true")}
            for name, question in record["questions"].items()
            if str(question["answer"]).lower() != "unknown"
        }
        records.append(record)
    path = tmp_path / "cwa.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    files = ["data=natlang", f"data.files.train={path}", "data.shares={train:0.5,dev:0.25,test:0.25}"]
    with pytest.raises(UserError, match=r"cwa.jsonl has no question that is answered unknown \(.*closed world\).*OWA"):
        load(generator(*files, *words))


@pytest.mark.parametrize("field", ["facts", "question", "answer"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    record = {key: value for key, value in LINE.items() if key != field}
    with pytest.raises(UserError, match=rf"own\.jsonl:1: field '{field}' is missing, found .*; each line is {{"):
        read_jsonl(write(tmp_path / "own.jsonl", record), LABELS)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: no such file; give the path of a JSON-lines file"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"own\.jsonl: the file is empty"):
        read_jsonl(write(tmp_path / "own.jsonl"))


def test_splits_are_disjoint_in_keys_complete_and_do_not_depend_on_the_order_of_items() -> None:
    items = [f"{key}/{copy}" for copy in range(3) for key in range(40)]
    shares = {"train": 0.8, "dev": 0.1, "test": 0.1}

    def split(these: list[str], seed: int) -> dict[str, list[str]]:
        return split_by_key(these, [item.split("/")[0] for item in these], shares, seed)

    found = split(items, 0)
    assert {name: len(part) for name, part in found.items()} == {"train": 96, "dev": 12, "test": 12}
    keys = {name: {item.split("/")[0] for item in part} for name, part in found.items()}
    assert not keys["train"] & keys["dev"] and not keys["test"] & (keys["train"] | keys["dev"])
    assert found["train"] == [item for item in items if item in set(found["train"])]
    assert {name: set(part) for name, part in split(items[::-1], 0).items()} == {n: set(p) for n, p in found.items()}
    assert split(items, 1) != found


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.5, "test": 0.4}, "shares must be positive and sum to 1"),
        ({"train": 1.5, "test": -0.5}, "shares must be positive and sum to 1"),
        ({"train": 0.99, "test": 0.01}, "2 theories leave none for 'test'"),
    ],
)
def test_unusable_shares_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=rf"data\.shares=.*{message}"):
        split_by_key(["x", "y"], ["x", "y"], shares, 0)
