"""`python -m perk.data`: what it prints, keeps, writes and refuses, for every experiment."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS
from common.errors import UserError
from perk import data
from perk.config import Task
from perk.problems import Kept, Problem, Question, from_json, keep
from perk.tokens import Words
from tests.perk.conftest import small_words

EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "perk" / "experiment").glob("*.yaml"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with its folders below `tmp_path`; returns exit code, output and errors."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", f"loop.root={tmp_path / 'runs'}", *words])
        code = 0
        try:
            data.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_the_experiments_are_those_of_the_paper() -> None:
    assert {
        "babilong_qa1", "babilong_qa2", "babilong_qa3", "student_recall", "student_relation", "student_aggregate",
        "hotpotqa", "triviaqa", "api_retrieval",
    } <= set(EXPERIMENTS)  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_shows_its_data_without_a_file(run: Any, tmp_path: Path, experiment: str) -> None:
    code, out, err = run(*small_words(experiment))
    assert code == 0, err
    for part in (
        "problems (contexts)",
        "train and test",
        "One example",
        "Question (",
        "Answer: ",
        "chance",
        "constant",
    ):
        assert part in out, part
    shared = [line.split("│")[2].strip() for line in out.splitlines() if line.startswith(("│ train and", "│ dev and"))]
    assert shared == ["0", "0", "0"]
    assert not (tmp_path / "runs").exists(), "this is no run"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_splits_that_share_nothing(small: Any, experiment: str) -> None:
    config = small(experiment, "data.count={train:20,dev:8,test:8}")
    splits = data.load(config)
    data.check(splits)
    segments = {split: {text for problem in splits[split] for text in problem.segments} for split in SPLITS}
    assert not segments["train"] & segments["test"] and not segments["train"] & segments["dev"]
    assert not segments["dev"] & segments["test"]
    again = data.load(config)
    assert all(splits[split][-1] == again[split][len(again[split]) - 1] for split in SPLITS)


LENGTHS = {
    "hotpotqa": (4096, 8192),
    "triviaqa": (2048, 8192),
    "student_recall": (8192, 16384),
    "api_retrieval": (4096, 8192),
}


@pytest.mark.parametrize(("experiment", "length"), [(name, each) for name, both in LENGTHS.items() for each in both])
def test_no_context_and_no_segment_of_the_small_scale_is_longer_than_it_may_be(
    composed: Any, experiment: str, length: int
) -> None:
    config = composed(f"+experiment={experiment}", "scale=cpu", f"data.length={length}", "data.cache=null").data
    for problem in data.load(config)["test"][:5]:
        counts = Words().counts(problem.segments)
        assert max(counts) <= config.segment_tokens
        assert sum(counts) == problem.tokens <= config.length_of("test")


def test_the_sizes_that_were_reached_are_shown(run: Any) -> None:
    code, out, err = run(*small_words("student_recall"))
    assert code == 0, err
    sizes = next(line for line in out.splitlines() if "tokens a segment" in line)
    over = next(line for line in out.splitlines() if " above 32" in line)
    assert " to 3" in sizes and "0 (0.0 %)" not in over, "a record is not cut"


def test_what_is_kept_is_what_was_built_and_is_read_from_there(small: Any, tmp_path: Path) -> None:
    config = small("babilong_qa2", f"data.cache={tmp_path}")
    first = data.load(config)
    assert all(isinstance(problems, Kept) for problems in first.values())
    fresh = data.load(small("babilong_qa2"))
    assert all(list(first[split]) == list(fresh[split]) for split in SPLITS)
    (folder,) = tmp_path.iterdir()
    marks = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert data.load(config)["test"][3] == fresh["test"][3]
    assert marks == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    data.load(small("babilong_qa2", f"data.cache={tmp_path}", "data.seed=1"))
    data.load(small("babilong_qa2", f"data.cache={tmp_path}", "data.students.ask=sort"))  # of no account here
    assert len(list(tmp_path.iterdir())) == 2


def test_splits_that_share_something_are_refused_and_not_kept(small: Any, tmp_path: Path) -> None:
    record = {"Student Name": "A", "Year": "Junior", "School": "S", "Major": "M", "Grade": "50"}
    pair = {"question": "What is the name of the student with ID 1234567?", "answer": "A"}
    text = json.dumps({"database": [{"Student Id": "1234567", **record}], "questions": [pair]})
    for split in SPLITS:
        (tmp_path / f"{split}.json").write_text(text)
    files = "data.files={train:train.json,dev:dev.json,test:test.json}"
    config = small("student_recall", f"data.root={tmp_path}", files, f"data.cache={tmp_path / 'cache'}")
    for _ in range(2):
        with pytest.raises(UserError, match=r"the train and dev splits share 1 things \(such as student:1234567\)"):
            data.load(config)


EXPORTS = ["babilong_qa1", "babilong_qa3", "student_aggregate", "hotpotqa", "triviaqa", "api_retrieval"]


@pytest.mark.parametrize("experiment", EXPORTS)
def test_written_data_are_read_like_real_ones(run: Any, small: Any, tmp_path: Path, experiment: str) -> None:
    out = tmp_path / "out"
    assert run(*small_words(experiment), f"data.export={out}")[0] == 0
    names = {split: next(path.name for path in out.iterdir() if f"_{split}." in path.name) for split in SPLITS}
    files = ",".join(f"{split}:{name}" for split, name in names.items())
    made = small(experiment)
    read = small(experiment, f"data.root={out}", f"data.files={{{files}}}", "data.count={train:0,dev:0,test:0}")
    texts = []
    for config in (made, read):
        splits = data.BUILDERS[config.task](config, Words())
        texts.append(
            {split: sorted((q.text, q.answers) for p in splits[split] for q in p.questions) for split in SPLITS}
        )
        if config.task is Task.documents:  # the written form of HotpotQA has one answer
            texts[-1] = {split: [(text, answers[0]) for text, answers in told] for split, told in texts[-1].items()}
    assert texts[0] == texts[1]


def test_a_mistake_ends_with_one_line_that_names_the_key(run: Any) -> None:
    for words, what in (
        (["data.lenght=5"], "did you mean data.length?"),
        (["data.babilong.index=global"], "data.babilong.index"),
        (["data.students.ask=guess"], "data.students.ask"),
        (["data.babilong.haystack.source=nowhere"], "nowhere"),
    ):
        code, _, err = run(*small_words("babilong_qa1"), *words)
        assert code == 2 and err.startswith("error: ") and what in err, err


def test_the_published_set_up_without_data_names_the_way_out(run: Any) -> None:
    code, _, err = run("+experiment=babilong_qa1", "data.cache=null")
    assert code == 2 and "data.tokenizer=Qwen/Qwen2.5-0.5B" in err
    for name in ("babi/en-10k/qa1_single-supporting-fact_train.txt", "_test.txt", "HuggingFaceFW/fineweb-edu"):
        assert name in err, "all at once"
    assert "get bAbI tasks v1.2" in err and err.count("\n") == 1
    code, _, err = run("+experiment=babilong_qa1", "data.cache=null", "data.tokenizer=words")
    assert code == 2 and "data.babilong.haystack.source=HuggingFaceFW/fineweb-edu" in err and "Qwen" not in err


def test_a_problem_must_hold_together(tmp_path: Path) -> None:
    question = Question("q", "Where?", ("here",), "qa1", ("It is here.",), (0,))
    problem = Problem("p", ("It is here.",), (question,), ("story:1",), 4)
    (again,) = keep(tmp_path / "kept.jsonl", [problem])
    assert again == problem
    for segments, questions in (((), (question,)), (("",), (question,)), (("a",), ())):
        with pytest.raises(ValueError, match="problem p"):
            Problem("p", segments, questions, (), 1)
    with pytest.raises(ValueError, match="question q"):
        Problem("p", ("a",), (Question("q", "t", ("a",), "k", (), (1,)),), (), 1)
    with pytest.raises(ValueError, match="not a stored problem"):
        from_json({"id": "p"})
