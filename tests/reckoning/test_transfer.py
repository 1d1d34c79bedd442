"""A trained run answers another data set: its own file, its words, its templates, and nothing else touched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reckoning import evaluate, train
from tests.reckoning.miniature import write_lines
from tests.reckoning.test_evaluate import hashes
from tests.runs import only_run, run_here

OTHER = """
defaults: [jsonl]
name: other/set
files: {{train: {folder}/other.jsonl}}
shares: {{train: 0.5, dev: 0.25, test: 0.25}}
labels: {{right: "yes", wrong: "no"}}
cache: null
"""
Command = Callable[..., str]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, under its own name."""
    return Path(shutil.copytree(trained, tmp_path / trained.name))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder of configuration with the data set `other`: four knowledge sets, two questions each."""
    records = [
        {
            "facts": [f"Anne is {word}", "Bob is red"],
            "questions": [
                {"question": f"Anne is {word}", "answer": "right", "relevant": [0]},
                {"question": f"Anne is not {word}", "answer": "wrong", "relevant": [0]},
            ],
        }
        for word in ("kind", "round", "big", "cold")
    ]
    write_lines(tmp_path / "other.jsonl", records)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "other.yaml").write_text(OTHER.format(folder=tmp_path))
    return tmp_path / "conf"


@pytest.fixture
def transfer(run: Path, conf: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Evaluate the run on `other`; returns the message of a command that must fail."""

    def command(*words: str, code: int = 2) -> str:
        assert run_here(evaluate.main, "--config-dir", str(conf), f"run={run}", "data=other", *words) == code
        return capsys.readouterr().err

    return command


def test_another_data_set_is_answered_into_a_file_of_its_own(run: Path, transfer: Command) -> None:
    before = hashes(run)
    transfer(code=0)
    transfer("split=all", code=0)
    after = hashes(run)
    assert {path: after[path] for path in before} == before
    names = {"evaluation-other_set-test.json", "evaluation-other_set-all.json"}
    assert set(after) - set(before) == {str(run / name) for name in names}
    found = {name: json.loads((run / name).read_text()) for name in names}
    assert {name: each["accuracy"]["count"] for name, each in found.items()} == {
        "evaluation-other_set-test.json": 2,
        "evaluation-other_set-all.json": 8,
    }
    assert {"accuracy@answer_yes", "accuracy@answer_no", "recall_exact"} <= set(found["evaluation-other_set-all.json"])


def test_words_that_the_run_cannot_say_are_refused(transfer: Command) -> None:
    message = transfer("data.labels.wrong=nay", "split=all")
    assert "data=other/set has answers that run=" in message
    assert "cannot say: nay; it says no, none, yes. Map them, such as data.labels.wrong=<word>" in message
    transfer("data.labels.wrong=none", "split=all", code=0)


def test_a_run_that_took_any_label_is_not_held_to_words(run: Path, transfer: Command) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["labels"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    transfer("data.labels.wrong=nay", code=0)


def test_what_the_run_has_learned_from_is_not_evaluated_as_a_whole(run: Path, transfer: Command) -> None:
    assert "split=all: the run has learned from mini's training split" in transfer("data.name=mini", "split=all")
    assert run_here(evaluate.main, f"run={run}", "split=all") == 2
    assert "split=val: use one of train, dev, test, or all with another data set" in transfer("split=val")


def test_the_runs_templates_are_used_unless_the_data_set_has_its_own(
    run: Path, transfer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["templates"]["question"] = "{question}, can we conclude?"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    asked: list[str] = []

    def stop(parts: Any, problems: Any, _: Any) -> Any:
        rows = parts.learner.rows(problems[0])
        asked.append(parts.templates.tokenizer.decode(rows[-1].prompt))
        raise RuntimeError("seen")

    monkeypatch.setattr(evaluate, "measure", stop)
    for words in ((), ("data.templates.question='Based on {references} {question}'",)):
        with pytest.raises(RuntimeError, match="seen"):
            transfer(*words)
    assert asked[0].endswith(", can we conclude?") and not asked[0].startswith("Based")
    assert asked[1].startswith("Based on fact_0 fact_1 Anne is ")


def test_a_run_on_generated_theories_answers_real_questions(data_root: Path, tmp_path: Path) -> None:
    words = ["+experiment=proofwriter", "scale=cpu", "model.pretrained=false", "outer.steps=1", "inner.steps=1"]
    words += ["data.theories={train:8,dev:2,test:2}", "outer.batch_problems=2", "evaluation.max_new_tokens=3"]
    assert run_here(train.main, *words, "data.cache=null", f"loop.root={tmp_path}") == 0
    run = only_run(tmp_path)
    for name, data in (("prontoqa", "prontoqa"), ("pararule_plus_depth_3", "pararule_plus")):
        more = [f"data={data}", f"data.root={data_root}", "data.limit={train:1,dev:1,test:2}", "data.cache=null"]
        more += ["data.hops=3"] if data == "pararule_plus" else []
        assert run_here(evaluate.main, f"run={run}", *more) == 0
        found = json.loads((run / f"evaluation-{name}-test.json").read_text())
        assert found["accuracy"]["count"] in ({2} if data == "prontoqa" else {16, 18, 20})


@pytest.mark.parametrize("data", ["prontoqa", "pararule_plus", "folio_cpu"])
def test_real_files_train_with_the_same_command(data_root: Path, tmp_path: Path, data: str) -> None:
    words = ["scale=cpu", f"data={data}", f"data.root={data_root}", "model.pretrained=false", "data.cache=null"]
    words += ["data.limit={train:4,dev:2,test:2}", "outer.steps=1", "outer.batch_problems=2", "inner.steps=1"]
    words += ["method=reckoning_st", "evaluation.max_new_tokens=3", f"loop.root={tmp_path}"]
    assert run_here(train.main, *words) == 0
    assert json.loads((only_run(tmp_path) / "results.json").read_text())["test"]["accuracy"]["count"] >= 2
