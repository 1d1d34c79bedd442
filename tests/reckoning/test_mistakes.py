"""Whatever a user can get wrong in a training command: one message with the key or file:line and the way out."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reckoning import train
from tests.reckoning.miniature import lines, write_lines
from tests.runs import metrics_of, only_run, run_here
from tests.starter import Starter

Failing = Callable[..., str]


@pytest.fixture
def fails(mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Failing:
    """Run a command that must end with exit code 2 and one message on standard error; returns that message."""

    def run(*words: str, miniature: bool = True) -> str:
        capsys.readouterr()
        command = mini.words(tmp_path, *words) if miniature else [*words, f"loop.root={tmp_path}"]
        assert run_here(train.main, *command) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and "Traceback" not in message
        return message

    return run


def test_other_settings_in_the_same_folder_are_refused(fails: Failing, trained: Path) -> None:
    message = fails(f"hydra.run.dir='{trained}'", "outer.lr=0.5")
    assert f"{trained} holds a run with other settings: outer.lr=0.01 (now 0.5); go back to those settings" in message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("inner.stepz=3", "error: unknown key inner.stepz: did you mean inner.steps?"),
        ("+inner.new=1", "error: unknown key inner.new"),
        ("inner.steps=many", "inner.steps=many: a whole number is needed"),
        ("inner.steps=2.0", "inner.steps=2.0: a whole number is needed"),
        ("outer.steps=nan", "outer.steps=nan: a whole number is needed"),
        ("inner.lr=nan", "inner.lr=nan: use a finite value of 0 or more"),
        ("outer.rates_lr=inf", "outer.rates_lr=inf: use a finite value of 0 or more"),
        ("method.answer_weight=nan", "method.answer_weight=nan: use a positive, finite number"),
        ("model.dropout=nan", r"model.dropout=nan: it is a probability; use a value in \[0, 1\), or null"),
        ("inner.steps=0", "inner.steps=0: at least one inner step is needed"),
        ("method=nothing", "Could not find 'method/nothing'"),
        ("evaluation.confidence=95", "evaluation.confidence=95.0: it is a probability; use 0.95"),
        ("data.limit.dev=-1", "data.limit=.*: use 0 for all problems of a split"),
        ("evaluation.batch_problems=0", "evaluation.batch_problems=0: use 1 or more"),
        ("inner.weights=[transformer.x.*]", "inner.weights: the pattern 'transformer.x.\\*' matches no parameter"),
        ("data.templates.fact='{fact} {n}'", r"data.templates.fact='\{fact\} \{n\}': unknown slot \{n\}"),
        ("runtime.device=cuda", "runtime.device=cuda, but torch .* sees no CUDA device"),
    ],
)
def test_a_wrong_key_or_value_is_named(fails: Failing, word: str, message: str) -> None:
    if word == "runtime.device=cuda":
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
    assert re.search(message, fails(word))


def test_missing_official_data_names_the_remedies(fails: Failing, tmp_path: Path) -> None:
    message = fails("+experiment=proofwriter", miniature=False)
    assert all(f"proofwriter/OWA/depth-3/meta-{split}.jsonl" in message for split in ("train", "dev", "test"))
    assert all(remedy in message for remedy in ("data.root", "INNERLOOP_DATA", "scale=cpu"))
    message = fails("+experiment=proofwriter", f"data.root={tmp_path}", miniature=False)
    assert (
        "get the ProofWriter release V2020.12.3 from the Allen Institute for AI" in message and "scale=cpu" in message
    )


def test_missing_weights_name_the_remedies(fails: Failing, mini: Any, tmp_path: Path) -> None:
    message = fails("model.name=gpt2")
    assert message.startswith("error: model.name=gpt2: ") and "set model.name=<folder>" in message
    assert "scripts.fetch" in message and "scale=cpu" in message
    shutil.copytree(mini.folder / "model", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    message = fails(f"model.name={tmp_path / 'bare'}")
    assert "no file named model.safetensors" in message and "scale=cpu" in message
    assert "there is no such folder" in fails("model.name=./nowhere")


def test_damaged_weights_and_a_tokenizer_too_large_are_refused(fails: Failing, mini: Any, tmp_path: Path) -> None:
    shutil.copytree(mini.folder / "model", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no tensors")
    assert "error: model.name=" in fails(f"model.name={tmp_path / 'damaged'}")
    message = fails("model.tokenizer=tiny")
    assert "model.tokenizer=tiny has" in message and "use the tokenizer that belongs to the model" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"facts": []}, "facts=[]: the knowledge set is empty"),
        ("{not json", "train.jsonl:4: "),
        ({"answer": "maybe"}, "unknown label 'maybe', allowed are ['false', 'true', 'unknown']"),
        ({"question": 7}, "question=7 is not a string"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(fails: Failing, tmp_path: Path, line: Any, message: str) -> None:
    records = lines("train")
    path = tmp_path / "train.jsonl"
    write_lines(path, records)
    text = path.read_text().splitlines()
    text[3] = line if isinstance(line, str) else json.dumps({**records[3], **line})
    path.write_text("\n".join(text) + "\n")
    found = fails(f"data.files.train={path}")
    assert f"{path}:4: " in found and message in found


def test_a_missing_data_file_is_named(fails: Failing, tmp_path: Path) -> None:
    assert "nowhere.jsonl" in fails(f"data.files.train={tmp_path}/nowhere.jsonl")
    assert "data.files.train is null with data.format=jsonl; name the file" in fails("data=jsonl")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_question_longer_than_the_window_stops_the_run_before_its_first_step(
    fails: Failing, tmp_path: Path, split: str
) -> None:
    records = lines(split)
    records[-1]["question"] = " ".join(["Anne"] * 60)
    path = write_lines(tmp_path / "long.jsonl", records)
    message = fails(f"data.files.{split}={path}")
    number = len(records)
    assert (
        f"question long:{number}: " in message
        and "the model reads at most 64; use a model with a longer window" in message
    )
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_its_checkpoints(fails: Failing, tmp_path: Path) -> None:
    message = fails("outer.lr=1e30", "loop.save_every=1", "loop.evaluate_every=0")
    assert "nan" in message.lower() and "lower inner.lr or outer.lr" in message
    checkpoints = [path.name for path in tmp_path.rglob("step-*")]
    assert checkpoints == ["step-000001"]
    assert not list(tmp_path.rglob("FINISHED"))


FULL = """
import resource
from common.run.batches import Batches

draw = Batches.__getitem__
def until_full(self, number):
    if number == 2 * 3:  # in the fourth step
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    return draw(self, number)
Batches.__getitem__ = until_full
"""


def test_a_full_disk_at_a_checkpoint_keeps_the_earlier_one_and_a_rerun_continues(
    mini: Any, starter: Starter, tmp_path: Path
) -> None:
    settings = ["loop.save_every=2", "outer.steps=6", "loop.evaluate_every=0"]
    output, words = tmp_path / "output.txt", mini.words(tmp_path / "full", *settings)
    starter.start(output, words, FULL)
    assert starter.wait() == 2, output.read_text()
    (folder,) = (tmp_path / "full" / "reckoning" / "mini").iterdir()
    message = output.read_text().splitlines()[-1]
    assert f"error: cannot write checkpoint {folder}/checkpoints/step-000004" in message
    assert f"the last good checkpoint is {folder}/checkpoints/step-000002; free space there" in message
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000002"]
    starter.start(output, words)
    assert starter.wait() == 0, output.read_text()
    assert mini.train(tmp_path / "straight", *settings) == 0
    other = only_run(tmp_path / "straight")
    for name in ("model", "rates", "outer"):
        place = f"checkpoints/step-000006/{name}.safetensors"
        assert (folder / place).read_bytes() == (other / place).read_bytes()
    assert metrics_of(folder, "train") == metrics_of(other, "train")
