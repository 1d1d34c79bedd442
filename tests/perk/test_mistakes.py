"""Bad contexts, models and files end a command with one line that says what is wrong and the way out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.language.sources import source_of
from perk.problems import Problem, Question
from tests.learners import losses_of
from tests.perk.miniature import parts_of, write_model

Fails = Callable[..., str]
LINE = "Rain fell on the old house all day and nobody in the village went out to look for the dog. "


@pytest.fixture
def fails(mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the training command, which must end with exit code 2 and one line; returns that."""

    def command(*words: str) -> str:
        assert mini.train(tmp_path / "runs", *words) == 2
        shown = capsys.readouterr().err
        assert shown.count("error: ") == 1 and "Traceback" not in shown, shown
        return shown

    return command


# ---- contexts


@pytest.mark.parametrize(
    ("data", "content", "message"),
    [
        ("students_cpu", {"database": [], "questions": [{"question": "q", "answer": "a"}]}, "database is empty"),
        (
            "apis_cpu",
            {"context": [], "location": "pre", "question": "q", "answer": "a"},
            "context=[]: a list of documents is needed",
        ),
        (
            "hotpotqa_cpu",
            {"question": "q", "answer": "a", "supporting_facts": [["t", 0]], "context": []},
            "context=[]: a list with content is needed",
        ),
        (
            "triviaqa_cpu",
            {"question": "q", "answers": ["a"], "passages": [{"title": "t", "text": " "}]},
            "a passage needs title and text",
        ),
    ],
)
def test_an_empty_context_names_file_and_line(
    fails: Fails, tmp_path: Path, data: str, content: Any, message: str
) -> None:
    (tmp_path / "empty.jsonl").write_text(json.dumps(content) + "\n")
    files = "data.files={train:empty.jsonl,dev:null,test:null}"
    found = fails(
        f"data={data}", files, f"data.root={tmp_path}", "data.cache=null", "data.count={train:0,dev:0,test:0}"
    )
    assert f"{tmp_path / 'empty.jsonl'}:1: " in found and message in found


def test_stories_and_texts_without_a_sentence_are_named(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "qa1.txt").write_text("\n")
    files = "data.files={train:qa1.txt,dev:null,test:null}"
    assert "qa1.txt: the file is empty; give a bAbI file" in fails(files, f"data.root={tmp_path}")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "blank.txt").write_text("# Heading\n\n---\n")
    found = fails(f"data.babilong.haystack.source={tmp_path / 'texts'}")
    assert "blank.txt: no sentence in it; give a file with running text" in found


@pytest.mark.parametrize("text", ["Rain", "A"])
def test_a_context_of_one_token_needs_a_label(tmp_path: Path, text: str) -> None:
    from common.errors import UserError

    parts = parts_of(write_model(tmp_path, "gpt2"))
    problem = Problem("p", (text,), (Question("q", "Where is Mary?", ("hallway",), "k"),), (), 1)
    assert len(parts.learner.respond([problem], 2)) == 1, "behind its label the token is written"
    parts.templates.config.label = ""
    for call in (lambda: parts.learner.respond([problem], 2), lambda: list(losses_of(parts.learner, [problem]))):
        with pytest.raises(UserError, match="^p: a context of 1 token in 1 segment has nothing to predict, so nothing"):
            call()


def test_a_segment_longer_than_the_window_is_found_before_training(fails: Fails, tmp_path: Path) -> None:
    found = fails("data.length=16384", "data.segment=8192")
    assert "qa1_cpu/train/" in found and "the model reads 512; lower data.segment" in found
    assert not list((tmp_path / "runs").rglob("step-*"))


def test_a_segment_longer_than_the_context_is_refused(fails: Fails) -> None:
    assert "data.segment=1024: longer than the context (data.length=512" in fails("data.segment=1024")


# ---- files


@pytest.mark.parametrize(
    ("encoding", "reason"), [("latin-1", "invalid continuation byte"), ("utf-16", "invalid start byte")]
)
def test_a_context_file_in_a_wrong_encoding_is_named(fails: Fails, tmp_path: Path, encoding: str, reason: str) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "café.txt").write_bytes(("Café au lait. " + LINE * 200).encode(encoding))
    found = fails(f"data.babilong.haystack.source={texts}")
    assert f"café.txt:1: not UTF-8 text ({reason}); save the file as UTF-8" in found
    (texts / "café.txt").write_text("Café au lait. " + LINE * 200, encoding="utf-8-sig")
    found = fails(f"data.babilong.haystack.source={texts}", "data.length=16384")
    assert "split holds only" in found, "now it is read"


def test_a_damaged_archive_and_stories_in_a_wrong_encoding_are_named(fails: Fails, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress((LINE * 500).encode())[:-40])
    assert "cut.txt.gz:1: damaged gzip archive" in fails(f"data.babilong.haystack.source={tmp_path / 'cut.txt.gz'}")
    (tmp_path / "qa1.txt").write_bytes("1 Zoë moved to the hall.\n".encode("latin-1"))
    files = "data.files={train:qa1.txt,dev:null,test:null}"
    assert "qa1.txt:1: not UTF-8 text" in fails(files, f"data.root={tmp_path}")


# ---- models


@pytest.mark.parametrize("targets", ["[w_q]", "[query_key_value,w_q]"])
def test_an_unknown_target_module_is_named(fails: Fails, targets: str) -> None:
    found = fails(f"model.lora.targets={targets}")
    assert "error: model.lora.targets=['" in found and "w_q" in found
    assert "give the ends of the names of linear layers" in found


def test_more_layers_than_there_are_and_positions_that_a_model_lacks_are_refused(fails: Fails, tmp_path: Path) -> None:
    assert "model.lora.top_layers=2: use 0 (all) to 1, which the model has" in fails("model.lora.top_layers=2")
    gpt2 = write_model(tmp_path / "gpt2", "gpt2")
    words = [f"model.name={gpt2}", f"model.tokenizer={source_of('tiny_stories')}", "model.pretrained=false"]
    assert "has no rotary positions; use 0" in fails(*words, "model.positions=4096")
    assert "embeds" in fails(*words), "a tokenizer with more tokens than the model embeds"


def test_a_template_that_cannot_be_read_back_is_refused_before_training(fails: Fails) -> None:
    found = fails("data.templates.support='{support} {answer}'")
    assert "data.templates.support='{support} {answer}': nothing stands between the answer and the support" in found
