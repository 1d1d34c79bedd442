"""A user's own problems, one JSON object a line: what is read, how it is cut, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from perk.config import DataConfig, SplitFiles, Target, Task
from perk.data import check, digests, load
from perk.jsonl import read_lines
from perk.tokens import Words
from perk.train import main
from tests.runs import only_run, run_here

LINE = {"context": "Mary went home. Rain fell.", "question": "Where is Mary?", "answer": "home"}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def config_of(train: Path, **more: Any) -> DataConfig:
    count = {"train": 0, "dev": 0, "test": 0}
    return DataConfig(
        name="mine", task=Task.jsonl, files=SplitFiles(train=str(train)), count=count, length=64, segment=8, **more
    )


def stories(count: int) -> list[dict[str, Any]]:
    def story(i: int) -> dict[str, Any]:
        first = f"Anne{i} went to the garden."
        questions = [
            {"question": f"Where is Anne{i}?", "answer": "garden", "support": [first], "kind": "first"},
            {"question": f"Where is Bob{i}?", "answer": ["kitchen", "the kitchen"], "kind": "last"},
        ]
        return {"context": f"{first} The river was cold. Bob{i} went to the kitchen.", "questions": questions}

    return [story(i) for i in range(count)]


def test_running_text_is_cut_and_segments_stay(tmp_path: Path) -> None:
    parts = ["Mary went  home.", "Rain fell."]
    lines = [*stories(6), {"context": parts, "question": "Where is Mary?", "answer": "home"}]
    problems = [each for split in load(config_of(written(tmp_path / "mine.jsonl", *lines))).values() for each in split]
    assert len(problems) == 7
    for problem in problems:
        if problem.id.endswith(":7"):
            assert problem.segments == ("Mary went home.", "Rain fell.")
        else:
            assert len(problem.segments) > 1
            first, last = problem.questions
            assert " ".join(problem.segments).startswith(first.support[0])
            assert first.gold == (0,)
            assert last.answers == ("kitchen", "the kitchen")
            assert {first.kind, last.kind} == {"first", "last"}


def test_zero_is_an_id_and_a_source(tmp_path: Path) -> None:
    more = [{"context": f"Mary went home. Day {i}.", "question": "Where is Mary?", "answer": "home"} for i in range(2)]
    path = written(tmp_path / "mine.jsonl", *({**each, "id": i, "source": 0} for i, each in enumerate(more)))
    assert [(line.id, line.source) for line in read_lines(path)] == [("0", "0"), ("1", "0")]


def test_splits_are_cut_by_source(tmp_path: Path) -> None:
    lines = [{**LINE, "context": f"Mary went home. Day {i}.", "source": f"book {i % 4}"} for i in range(12)]
    shares = {"train": 0.5, "dev": 0.25, "test": 0.25}
    splits = load(config_of(written(tmp_path / "mine.jsonl", *lines), shares=shares))
    check(splits)
    assert [len(splits[split]) for split in ("train", "dev", "test")] == [6, 3, 3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": " "}, "neither a text nor a list of segments"),
        ({"context": ["", "Rain."]}, "neither a text nor a list of segments"),
        ({"question": None}, "question=None is no text"),
        ({"answer": []}, "answer=\\[\\] is neither"),
        ({"support": ["Mary went out."]}, "'Mary went out.' is not in the context"),
        ({"support": "Rain fell."}, "is no list of sentences"),
        ({"questions": [{}]}, "question beside questions"),
        ({"facts": []}, "unknown field 'facts'; known are context"),
        ({"suport": []}, "unknown field 'suport': did you mean 'support'"),
        ({"relevant": []}, "unknown field 'relevant': did you mean 'support'"),
        ({"support": 0}, "support=0 is no list of sentences"),
        ({"support": ""}, "support='' is no list of sentences"),
        ({"source": " "}, "source=' ' is neither a text nor a number"),
        ({"kind": ["a"]}, "kind=.*is neither a text nor a number"),
        ({"answer": 5}, "answer=5 is neither a text nor a list"),
        ({"answer": "office"}, "'Where is Mary\\?' is answered 'office', and 'home' of the same context in .*:1"),
    ],
)
def test_bad_lines_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", LINE, {**LINE, **change})
    with pytest.raises(UserError, match=f"mine.jsonl:2: .*{said}"):
        list(read_lines(path))


def test_an_id_is_used_once_and_a_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine.jsonl:2: id 'a' was used in line 1"):
        list(read_lines(written(tmp_path / "mine.jsonl", {**LINE, "id": "a"}, {**LINE, "id": "a"})))
    with pytest.raises(UserError, match="jsonl generates nothing; name a file"):
        load(DataConfig(task=Task.jsonl))


def test_a_run_on_own_problems(tmp_path: Path) -> None:
    """By one YAML file; its memory gives the answer behind the support, or the whole response."""
    from perk.memory import load as reader_of

    path = written(tmp_path / "mine.jsonl", *stories(8))
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"defaults: [jsonl]\nname: mine\nfiles: {{train: {path}}}\n")
    words = ["--config-dir", str(tmp_path / "conf"), "data=mine", "scale=cpu", "outer.steps=1", "data.segment=8"]
    root = tmp_path / "runs"
    assert run_here(main, *words, "evaluation.max_new_tokens=4", "runtime=cpu", f"loop.root={root}") == 0
    run = only_run(root)
    results = json.loads((run / "results.json").read_text())["test"]
    assert {"accuracy", "exact", "accuracy@kind_first", "accuracy@kind_last"} <= set(results)
    memory = reader_of(run).read(stories(1)[0]["context"])
    assert memory.reader.config.method.target is Target.support
    assert memory._answer("Anne0 went home. so home") == "home"
    assert memory._answer("home") == "home"


def test_a_flipped_label_changes_the_digest_of_its_split_and_no_other(tmp_path: Path) -> None:
    files = {}
    for number, split in enumerate(("train", "dev", "test")):
        records = [{**LINE, "context": f"Mary{number}{i} went home."} for i in range(20)]
        files[split] = str(written(tmp_path / f"{split}.jsonl", *records))
    config = config_of(Path(files["train"]))
    config.files = SplitFiles(**files)
    before = digests(config, load(config))
    text = Path(files["dev"]).read_text()
    Path(files["dev"]).write_text(text.replace('"home"', '"away"', 1).replace("Mary10 went home", "Mary10 went away"))
    after = digests(config, load(config))
    assert [split for split in before if before[split] != after[split]] == ["dev"]


def test_splits_cut_from_one_file_change_with_it_and_a_cache_does_not_matter(tmp_path: Path) -> None:
    config = config_of(written(tmp_path / "mine.jsonl", *stories(12)))
    before = digests(config, load(config))
    config.cache = str(tmp_path / "cache")
    assert digests(config, load(config)) == before == digests(config, load(config))
    written(tmp_path / "mine.jsonl", *stories(12)[::-1])
    after = digests(config, load(config))
    assert all(before[split] != after[split] for split in before)


def test_a_kept_split_is_built_again_if_damaged_and_watched_while_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(written(tmp_path / "mine.jsonl", *stories(12)), cache=str(tmp_path / "cache"))
    first = load(config)["train"]
    (folder,) = (tmp_path / "cache").iterdir()
    kept = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(kept.replace("garden", "forest"))
    with pytest.raises(UserError, match=r"train.jsonl:1: has changed since it was opened; run the same command again"):
        first[0]
    again = load(config)["train"]
    assert "damaged (train); the splits are built again" in caplog.text
    assert (folder / "train.jsonl").read_text() == kept and again[0] == first[0]


def test_segments_of_a_file_that_are_too_long_are_said_and_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [{**LINE, "context": [f"Mary went home on day {i}.", "Rain fell. " * 9]} for i in range(6)]
    splits = load(config_of(written(tmp_path / "mine.jsonl", *lines)))
    assert splits["train"][0].segments[1] == ("Rain fell. " * 9).strip()
    assert "of 8 segments have more than data.segment=8 tokens, up to 27; they stay as they are" in caplog.text
    shares = {"train": 0.5, "dev": 0.25, "test": 0.25}
    for problem in load(config_of(written(tmp_path / "text.jsonl", *stories(6)), shares=shares))["train"]:
        assert max(Words().counts(problem.segments)) <= 8


def test_spellings_of_an_answer_are_one_and_accepted_ones_may_be_several(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [{**LINE, "context": f"Mary went home. Day {i}.", "answer": each}
             for i, each in enumerate(("Home", "home", ["HOME", "at home"]))]  # fmt: skip
    read = list(read_lines(written(tmp_path / "mine.jsonl", *lines, {**lines[2], "answer": "at home"})))
    assert [line.questions[0].answers for line in read] == [("Home",), ("Home",), ("Home", "at home"), ("at home",)]
    assert any("the answer 'home' (" in said and "mine.jsonl:2" in said for said in caplog.messages)


def test_a_question_of_a_list_is_read_as_strictly(tmp_path: Path) -> None:
    line = {"context": "Mary went home.", "questions": [{"question": "Where?", "answer": "home", "suport": []}]}
    with pytest.raises(UserError, match=r"mine.jsonl:1: questions\[0\]: unknown field 'suport': did you mean"):
        list(read_lines(written(tmp_path / "mine.jsonl", line)))
