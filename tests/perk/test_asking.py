"""What the reader and its memories are given by mistake is refused, or said in the log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perk
from common.errors import UserError
from common.run.results import FINISHED
from perk.evaluate import main, restored
from perk.methods import Perk
from tests.runs import run_here


@pytest.fixture(scope="module")
def reader(trained: Path) -> perk.Reader:
    return perk.load(trained)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "a context of type NoneType: give running text, a Path to a text file, or a list of segments"),
        (b"mary went", r"a context of type bytes: .*; bytes are text after .decode\(\)"),
        ({"context": "mary"}, "a context of type dict"),
        ({"mary went", "john went"}, "a context of type set"),
        (5, "a context of type int"),
        (["mary went", None], "segment 1 of 2 is a NoneType, a text is needed"),
        ([b"mary went"], "segment 0 of 1 is a bytes, a text is needed"),
        ("", "an empty context"),
        ([], "an empty context"),
        (["mary went", " "], "segment 1 of 2 is empty"),
    ],
)
def test_what_is_no_context_is_refused(reader: perk.Reader, context: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reader.read(context)
    memory = reader.read("mary went to the kitchen.")
    with pytest.raises(UserError, match=message):
        memory.append(context)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (None, "a question of type NoneType: give a text, or a list of them"),
        (b"Where?", "a question of type bytes"),
        ({"question": "Where?"}, "a question of type dict"),
        (" \n", "question 0 of 1 is empty; ask something"),
        (["Where is Mary?", ""], "question 1 of 2 is empty"),
        (["Where is Mary?", None], "question 1 of 2 is a NoneType, a text is needed"),
    ],
)
def test_what_is_no_question_is_refused(reader: perk.Reader, question: Any, message: str) -> None:
    memory = reader.read("mary went to the kitchen.")
    for ask in (memory.ask, memory.respond):
        with pytest.raises(UserError, match=message):
            ask(question)
    assert memory.ask([]) == []


def test_a_text_that_names_a_file_is_said_and_a_path_is_read(
    reader: perk.Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my notes").write_text("Mary went to the kitchen. " * 8)
    for name in ("my notes", "notes.txt", str(tmp_path / "x"), "~/notes", "sub/notes.md"):
        caplog.clear()
        reader.read(name)
        assert f"{name!r} is memorised as it stands; to read a file of that name give Path({name!r})" in caplog.text
    caplog.clear()
    assert reader.read(Path("my notes")).segments > 1
    for text in (
        "Mary went to the kitchen.",
        "and/or is a word",
        "She read notes.txt twice.",
        "x" * 10_000,
        "a\nb.txt",
    ):
        reader.read(text)
    assert "memorised as it stands" not in caplog.text


def test_an_answer_that_is_not_there_is_said_with_what_was_said(
    reader: perk.Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = reader.read("mary went to the kitchen.")
    monkeypatch.setattr(memory, "respond", lambda question: "mary went to the kitchen")
    assert memory.ask("Where is Mary?") == ""
    assert "no answer: nothing follows the supporting facts" in caplog.text
    assert "said was 'mary went to the kitchen'" in caplog.text and "(`respond` returns it)" in caplog.text
    caplog.clear()
    monkeypatch.setattr(memory, "respond", lambda question: "mary went to the kitchen so kitchen")
    assert memory.ask("Where is Mary?") == "kitchen" and not caplog.messages


def test_a_run_that_is_not_finished_is_loaded_with_a_word(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    perk.load(trained)
    assert "has not finished" not in caplog.text
    folder = Path(shutil.copytree(trained, tmp_path / "training"))
    (folder / FINISHED).unlink()
    perk.load(folder)
    assert f"run={folder} has not finished: this is the model selected so far" in caplog.text


def test_appending_is_measured_as_a_memory_does_it(trained: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    assert run_here(main, f"run={folder}", "appended=true") == 0
    found = json.loads((folder / "evaluation-test+appended-True.json").read_text())
    assert found["accuracy@appended_halves"]["count"] == found["accuracy"]["count"] == 4


def test_the_halves_are_those_of_read_and_append(trained: Path) -> None:
    from perk import data

    config, parts = restored(trained)
    learner = parts.learner
    assert isinstance(learner, Perk)
    reader = perk.load(trained)
    for problem in data.load(config.data)["test"][:2]:
        middle = (len(problem.segments) + 1) // 2
        memory = reader.read(problem.segments[:middle])
        memory.append(problem.segments[middle:])
        with learner.appending():
            learner.learns.eval()
            found = learner.memorise([problem], training=False)
        assert not learner.halves and found.keys() == memory.weights.keys()
        assert all(value.allclose(memory.weights[name], atol=1e-6) for name, value in found.items())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lengths=4096", "lengths=4096: a list is needed; write 'lengths=[4096]'"),
        ("positions=pre", "positions=pre: a list is needed; write 'positions=[pre]'"),
        ("split=[test]", "split=[test]: one value is needed, no list; write split=test"),
        ("inner_steps=2.0", "inner_steps=2.0: a whole number is needed"),
        ("inner_steps=[3]", "inner_steps=[3]: one value is needed, no list; write inner_steps=3"),
    ],
)
def test_a_value_of_the_wrong_form_is_one_line(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(main, "run=nowhere", word) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_appending_is_asked_of_those_that_can(composed: Callable[..., Any]) -> None:
    words = ["+experiment=babilong_qa1", "scale=cpu", "method=ft_icr", "evaluation.appended=true"]
    with pytest.raises(UserError, match="evaluation.appended=true with method.learner=in_context: it writes no memory"):
        composed(*words)
