"""FOLIO: the reader, the five-fold training set, and dev cut so that no premise set is in two splits."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning import data, train
from reckoning.config import DataConfig, Format, SplitFiles, Target, TemplateConfig
from reckoning.folio import RELEASE, check_release, cleaned, read_folio
from reckoning.preview import Characters
from reckoning.problems import Problem, Question, content_key, shuffled_copies
from reckoning.templates import Templates
from tests.reckoning.miniature import write_lines
from tests.runs import run_here

LINE: dict[str, Any] = {
    "story_id": 7,
    "example_id": 12,
    "premises": ["All well-known songs are old. ", "Rina sings an old song in the U.S.", ""],
    "conclusion": "Rina sings a well-known song.",
    "label": "Uncertain",
}
LABELS = {"true": "yes", "false": "no", "unknown": "unknown"}
TEXTS = ("All well known songs are old", "Rina sings an old song in the US")


def test_a_conclusion_becomes_a_problem_with_all_premises_relevant(tmp_path: Path) -> None:
    (read,) = read_folio(write_lines(tmp_path / "folio-train.jsonl", [LINE]), LABELS)
    assert read.facts == TEXTS
    assert (read.kinds, read.theory) == ((), content_key(TEXTS))
    assert read.questions == (Question("12", "Rina sings a well known song", "unknown", (0, 1)),)


def test_the_validation_file_has_neither_stories_nor_ids(tmp_path: Path) -> None:
    bare = {key: LINE[key] for key in ("premises", "conclusion", "label")}
    (read,) = read_folio(write_lines(tmp_path / "folio-validation.jsonl", [bare]), LABELS)
    assert (read.id, read.theory, read.questions[0].answer) == ("folio-validation:1", content_key(TEXTS), "unknown")


def test_the_target_recites_all_premises_as_they_are_given(tmp_path: Path) -> None:
    problems = read_folio(write_lines(tmp_path / "folio-train.jsonl", [LINE]), LABELS)
    tokenizer: Any = Characters()
    templates = Templates(TemplateConfig(), LABELS, tokenizer, 10_000)
    for problem in shuffled_copies(problems, 3, seed=0):
        row = templates.question(problem, problem.questions[0], Target.multi)
        assert tokenizer.decode(row.ids) == (
            "Based on fact_0 fact_1, can we conclude Rina sings a well known song?"
            f"unknown because {problem.facts[0]},{problem.facts[1]}<end of text>"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"premises": "one. two."}, "premises='one. two.' is not a list; correct the line"),
        ({"premises": ["one.", 2]}, r"premises=\['one.', 2\] is not a list of sentences"),
        ({"premises": [" . "]}, r"premises=\[' . '\] holds no sentence"),
        ({"conclusion": "."}, "conclusion is empty"),
        ({"label": "Maybe"}, r"unknown label 'maybe', allowed are \['false', 'true', 'unknown'\]; .* data\.labels"),
        ({"example_id": 12}, "example_id '12' was used in line 1"),
        ({"premises": ["Another."]}, "story 7 has other premises than in line 1.*give it a story_id of its own"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "folio.jsonl", [LINE, {**LINE, "example_id": 13, **change}])
    with pytest.raises(UserError, match=rf"folio\.jsonl:2: {message}"):
        read_folio(path, LABELS)


@pytest.mark.parametrize("field", ["premises", "conclusion", "label"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write_lines(tmp_path / "folio.jsonl", [{key: value for key, value in LINE.items() if key != field}])
    with pytest.raises(UserError, match=rf"folio\.jsonl:1: field '{field}' is missing"):
        read_folio(path)


def test_copies_differ_in_order_alone_and_every_copy_recites_in_its_own_order() -> None:
    facts, kinds = tuple(f"sentence {n}" for n in range(6)), ("fact",) * 3 + ("rule",) * 3
    asked = (Question("q", "?", "true", (4, 1)), Question("r", "?", "false"))
    originals = [Problem(name, name, facts, kinds, asked) for name in "ab"]
    copies = shuffled_copies(originals, 5, seed=0)
    assert copies[:2] == originals and [copy.id for copy in copies[2:4]] == ["a/copy1", "b/copy1"]
    assert len(copies) == 10 and len({copy.id for copy in copies}) == 10
    assert len({copy.facts for copy in copies}) > 6
    for copy in copies[2:]:
        assert sorted(zip(copy.facts, copy.kinds, strict=True)) == sorted(zip(facts, kinds, strict=True))
        first, second = copy.questions
        assert {copy.facts[index] for index in first.relevant} == {"sentence 1", "sentence 4"}
        assert first.relevant == tuple(sorted(first.relevant)) and second.relevant == ()
        assert copy.theory == copy.id[0]
    assert shuffled_copies(originals, 5, seed=0) == copies != shuffled_copies(originals, 5, seed=1)
    assert shuffled_copies(originals[1:], 5, seed=0) == [copy for copy in copies if copy.theory == "b"]
    assert shuffled_copies(originals, 1, seed=0) == originals
    with pytest.raises(UserError, match=r"data\.copies=0: use 1"):
        DataConfig(copies=0)


def release(split: str) -> list[Problem]:
    answers = [label for label, count in RELEASE[split].items() for _ in range(count)]
    return [Problem(str(n), str(n), ("x",), (), (Question(str(n), "x", a),)) for n, a in enumerate(answers)]


def test_the_releases_sizes_are_asserted() -> None:
    assert (len(release("train")), len(release("test"))) == (1004, 204)
    check_release("train", release("train"))
    check_release("test", release("test"))
    message = r"FOLIO test: 203 conclusions \{'true': 71, .*the release has 204 .*data\.check_counts=false"
    with pytest.raises(UserError, match=message):
        check_release("test", release("test")[1:])
    with pytest.raises(UserError, match=r"no dev file; leave data\.files\.dev null"):
        check_release("dev", release("test"))


def config(root: Path, **more: Any) -> DataConfig:
    files = SplitFiles(train="folio/folio-train.jsonl", test="folio/folio-validation_part.jsonl")
    settings = {"files": files, "copies": 5, "labels": LABELS, "shares": {"train": 0.9, "dev": 0.1}, **more}
    return DataConfig(name="folio", format=Format.folio, root=str(root), **settings)  # type: ignore[arg-type]


def raw(data_root: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(data_root / "folio" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_the_real_files_are_read_completely(data_root: Path) -> None:
    folder = data_root / "folio"
    read = read_folio(folder / "folio-train.jsonl.gz", LABELS)
    check_release("train", read)
    assert len(read) == 1004 and len({problem.theory for problem in read}) == 340
    part = read_folio(folder / "folio-validation_part.jsonl.gz", LABELS)
    assert Counter(problem.questions[0].answer for problem in part) == {"true": 40, "false": 39, "unknown": 34}
    assert len(part) == 113 and len({problem.theory for problem in part}) == 37
    for problem in (*read, *part):
        assert problem.questions[0].relevant == tuple(range(len(problem.facts)))
        assert not set("-.") & set("".join([*problem.facts, problem.questions[0].text]))
    with pytest.raises(UserError, match="FOLIO test: 113 conclusions"):
        check_release("test", part)


def test_real_splits_share_neither_story_nor_premise_set(data_root: Path) -> None:
    splits = data.load(config(data_root))
    stories = {str(record["example_id"]): record["story_id"] for record in raw(data_root, "folio-train")}
    ids = {split: {problem.questions[0].id for problem in splits[split]} for split in ("train", "dev")}
    assert len(ids["train"]) + len(ids["dev"]) == 1004 and ids["train"] | ids["dev"] == set(stories)
    of = {split: {stories[name] for name in names} for split, names in ids.items()}
    assert not of["train"] & of["dev"] and (len(of["train"]), len(of["dev"])) == (306, 34)
    premises = {split: {frozenset(problem.facts) for problem in splits[split]} for split in splits}
    test = {frozenset(filter(None, map(cleaned, r["premises"]))) for r in raw(data_root, "folio-validation_part")}
    assert premises["test"] == test
    assert not premises["train"] & premises["dev"] and not test & (premises["train"] | premises["dev"])


def test_real_training_examples_are_there_five_times_and_the_others_once(data_root: Path) -> None:
    splits, again = data.load(config(data_root)), data.load(config(data_root))
    assert splits == again
    plain = data.load(config(data_root, copies=1))
    assert len(splits["train"]) == 5 * len(plain["train"]) and splits["train"][: len(plain["train"])] == plain["train"]
    assert (splits["dev"], splits["test"]) == (plain["dev"], plain["test"])
    times = Counter(problem.questions[0].id for problem in splits["train"])
    assert set(times.values()) == {5}
    assert data.load(config(data_root, seed=1))["train"] != splits["train"]


def test_without_the_files_the_experiment_stops_and_names_the_remedies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*words: str) -> str:
        assert run_here(train.main, "+experiment=folio", f"loop.root={tmp_path}", *words) == 2
        return capsys.readouterr().err

    message = fails("scale=cpu")
    assert "data.root is not set and folio/folio-train.jsonl, folio/folio-validation_part.jsonl are needed" in message
    assert all(remedy in message for remedy in ("data.root=<folder>", "INNERLOOP_DATA", "data=generated"))
    message = fails(f"data.root={tmp_path}")
    assert "folio/folio-train.jsonl, " in message and "are not below it; put them there, or get FOLIO v0.0" in message


def test_the_published_set_up_refuses_a_part_of_the_validation_file(data_root: Path) -> None:
    with pytest.raises(UserError, match="FOLIO test: 113 conclusions"):
        data.load(config(data_root, check_counts=True))
    whole = SplitFiles(train="folio/folio-train.jsonl", test="folio/folio-validation.jsonl")
    with pytest.raises(UserError, match=r"folio/folio-validation\.jsonl is not below it"):
        data.load(config(data_root, files=whole))
