"""API retrieval: the published forms, the position protocol, and splits that share no document."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.data.splits import SPLITS
from common.errors import UserError
from perk.apis.build import build
from perk.apis.documents import call_of, read_placed, read_wanted
from perk.apis.generator import MOST, generate
from perk.tokens import Words

DATA = {
    "domain": "Audio",
    "framework": "Transformers",
    "functionality": "Speech",
    "api_name": "a/b",
    "api_call": "Model.load('a/b')",
    "api_arguments": ["x", "y"],
    "python_environment_requirements": "transformers",
    "example_code": "import m\nm.run()",
    "performance": {"dataset": "D", "accuracy": "0.5"},
    "description": "It listens.",
}
CODE = "###Instruction: Write code that listens.\n###Output: <<<domain>>>: Audio\n<<<api_call>>>: Model.load('a/b')"


def test_the_published_sample_is_read(data_root: Path) -> None:
    (placed,) = read_placed(data_root / "perk_samples" / "longgorilla_huggingface_api.json")
    assert len(placed.context) == 14 and placed.location == "pre"
    assert placed.answer == "AutoModel.from_pretrained('YituTech/conv-bert-base')" == call_of(placed.context[0])
    assert all(map(call_of, placed.context))


def test_an_apibench_line_becomes_an_instruction_and_a_document(tmp_path: Path) -> None:
    path = tmp_path / "huggingface_train.json"
    path.write_text(json.dumps({"code": CODE, "api_call": "Model.load('a/b')", "api_data": DATA}) + "\n")
    (wanted,) = read_wanted(path)
    assert wanted.instruction == "Write code that listens." and wanted.api.call == "Model.load('a/b')"
    assert wanted.api.document == (
        "<api>Model.load('a/b')</api> domain: Audio, framework: Transformers, functionality: Speech, api_name: a/b, "
        "api_arguments: [x, y], python_environment_requirements: transformers, example_code: import m\\nm.run(), "
        "performance: dataset: D, accuracy: 0.5, description: It listens."
    )


@pytest.mark.parametrize(("position", "share"), [("pre", 0.0), ("mid", 0.5), ("post", 1.0), ("rnd", None)])
def test_the_gold_document_stands_where_it_should(small: Any, position: str, share: float | None) -> None:
    places = []
    config = small("api_retrieval", f"data.apis.position={position}", "data.apis.test_position=post")
    splits = build(config, Words())
    for problem in splits["train"]:
        (question,) = problem.questions
        assert problem.tokens <= 1024 and question.kind == position
        calls = list(map(call_of, problem.segments))
        assert [place for place, call in enumerate(calls) if call in question.answers] == list(question.gold)
        places.append(question.gold[0] / (len(calls) - 1))
    assert share is None or all(place == pytest.approx(share, abs=0.07) for place in places)
    assert share is not None or len(set(places)) > 2
    assert {problem.questions[0].gold[0] - len(problem.segments) for problem in splits["test"]} == {-1}


def test_one_document_alone_answers_and_apis_are_pure_and_disjoint() -> None:
    seen: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for index in range(10):
            instruction, apis = generate(0, split, index, 40)
            assert (instruction, apis) == generate(0, split, index, 40)
            purposes = [re.search(r"description: A model to (.*)\.$", api.document)[1] for api in apis]  # type: ignore[index]
            assert [purpose in instruction for purpose in purposes] == [True] + [False] * 39
            seen[split] |= {api.call for api in apis}
    assert sum(map(len, seen.values())) == len(set().union(*seen.values()))
    with pytest.raises(ValueError, match="are different"):
        generate(0, "train", 0, MOST + 1)


def test_apibench_is_cut_by_api(small: Any, tmp_path: Path) -> None:
    lines = []
    for number in range(24):
        call = f"Model.load('a/{number // 2}')"  # two instructions an API
        code = f"###Instruction: Do {number}.\n###Output: {call}"
        lines.append(json.dumps({"code": code, "api_call": call, "api_data": DATA | {"api_name": f"a/{number // 2}"}}))
    (tmp_path / "hf.json").write_text("\n".join(lines))
    words = [f"data.root={tmp_path}", "data.files.train=hf.json", "data.count={train:0,dev:0,test:0}"]
    words += ["data.length=200", "data.shares={train:0.5,dev:0.25,test:0.25}"]
    splits = build(small("api_retrieval", *words), Words())
    assert [len(splits[split]) for split in SPLITS] == [12, 6, 6]
    calls = {s: {call_of(text) for problem in splits[s] for text in problem.segments} for s in SPLITS}
    assert [len(calls[split]) for split in SPLITS] == [6, 3, 3]
    assert len(set().union(*calls.values())) == 12
    with pytest.raises(UserError, match="6 API documents, all there are, fill only 450 of 1000 tokens"):
        build(small("api_retrieval", *words, "data.length=1000"), Words())["train"][0]


PLACED = {
    "context": ["<api>A.b()</api> x", "<api>C.d()</api> y"],
    "location": "mid",
    "question": "Q",
    "answer": "A.b()",
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"context": []}, "a list of documents is needed"),
        ({"location": "left"}, "location='left': use one of pre, mid, post, rnd"),
        ({"question": 3}, "question=3"),
        ({"context": ["<api>A.b()</api>", "nothing"]}, "context[1] holds no <api>"),
        ({"answer": "E.f()"}, "is the call of no document"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(PLACED)}\n{json.dumps(PLACED | change)}\n")
    with pytest.raises(UserError, match=re.escape(what)) as caught:
        list(read_placed(path))
    assert str(caught.value).startswith(f"{path}:2: ")


def test_an_apibench_line_without_what_is_needed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"code": CODE, "api_data": DATA}) + "\n" + json.dumps({"code": "x", "api_data": DATA}))
    with pytest.raises(UserError, match=r"bad.json:2: no api_call, or no text after"):
        list(read_wanted(path))
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"bad.json:1: a JSON int where an object"):
        list(read_wanted(path))


def test_a_window_for_one_document_is_refused(small: Any) -> None:
    with pytest.raises(UserError, match="do not hold two API documents"):
        build(small("api_retrieval", "data.length=128"), Words())["train"][0]
