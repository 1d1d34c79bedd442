"""The training command from end to end: every method and task, what it writes, and what decides its numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.run.batches import Batches
from perk import train
from perk.problems import Problem
from tests.runs import FILES, RECORD, contents, metrics_of, only_run, run_here

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "perk" / "method").glob("*.yaml"))
FEW = ["outer.steps=2", "data.count={train:4,dev:1,test:1}", "evaluation.max_new_tokens=2", "loop.evaluate_every=0"]
INNER = ("perk", "perk_answer", "first_order", "reckoning")
"""Methods whose training runs the inner loop."""


def results_of(root: Path) -> Any:
    return json.loads((only_run(root) / "results.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_answers(mini: Any, tmp_path: Path, method: str) -> None:
    assert mini.train(tmp_path, f"method={method}", *FEW) == 0
    results, folder = results_of(tmp_path), only_run(tmp_path)
    assert (results["paper"], results["method"]) == ("perk", method)
    if method == "shortcuts":
        assert {"accuracy_chance", "accuracy_last_label"} <= set(results["test"])
        return
    assert set(results["test"]) == {"accuracy", "exact", "label_match"}
    logged = metrics_of(folder, "train")
    assert len(logged) == 2 and all(record["train/outer_loss"] > 0 for record in logged)
    assert ("train/inner_loss_first" in logged[0]) is (method in INNER)
    adapted = method not in ("reckoning", "ft_icr", "ft_icr_support", "retrieval")
    assert (folder / "model" / "adapter_model.safetensors").is_file() is adapted
    assert (folder / "model" / "model.safetensors").is_file() is not adapted
    assert (folder / "rates.json").is_file() is (method in (*INNER, "test_time"))
    said = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(said) == 1 and said[0]["slices"] == {"kind": "qa1", "length": 512}


@pytest.mark.parametrize("experiment", ["babilong_qa3", "student_relation", "hotpotqa", "triviaqa", "api_retrieval"])
def test_every_task_trains(mini: Any, tmp_path: Path, experiment: str) -> None:
    words = [f"+experiment={experiment}", "data.length=2048", *FEW]
    given = [word for word in mini.words(tmp_path, *words) if word != "+experiment=babilong_qa1"]
    assert run_here(train.main, *given) == 0
    results = results_of(tmp_path)
    assert results["experiment"] == experiment and ("label_match" in results["test"]) is experiment.startswith("babi")


def test_products_in_bfloat16_train(mini: Any, tmp_path: Path) -> None:
    losses = []
    for autocast in ("false", "true"):
        words = [*FEW, "model.lora.dropout=0", f"runtime.autocast={autocast}"]
        assert mini.train(tmp_path / autocast, *words) == 0
        records = metrics_of(only_run(tmp_path / autocast), "train")
        losses.append([record["train/outer_loss"] for record in records])
    exact, rounded = losses
    assert rounded == pytest.approx(exact, rel=0.01) and rounded != exact


@pytest.mark.cuda
def test_captured_test_time_steps_answer_as_the_plain_ones_on_a_gpu(mini: Any, tmp_path: Path) -> None:
    said = []
    for capture in ("false", "true"):
        root = tmp_path / capture
        assert mini.train(root, *FEW, "runtime=gpu", f"runtime.capture={capture}") == 0
        said.append((only_run(root) / "predictions.jsonl").read_text())
    assert said[0] == said[1]


def test_a_finished_folder_holds_everything(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()} - {".lock", "evaluation-test.json", "evaluation-dev.json"}
    assert names == FILES
    assert [record["step"] for record in metrics_of(trained, "dev")] == [0, 2, 4]
    record = json.loads((trained / "metrics.jsonl").read_text().splitlines()[1])
    assert set(record) == RECORD
    (test,) = metrics_of(trained, "test")
    results = json.loads((trained / "results.json").read_text())
    assert test["test/accuracy"] == results["test"]["accuracy"]["value"]
    assert results["test"]["accuracy"]["count"] == len((trained / "predictions.jsonl").read_text().splitlines()) == 4
    (last,) = (trained / "checkpoints").glob("step-000004")
    assert {"model.safetensors", "rates.safetensors", "weigher.safetensors"} <= {path.name for path in last.iterdir()}


def test_a_finished_run_is_not_touched_again(mini: Any, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.name not in (".lock", "log.txt")}
    assert mini.train(trained.parents[2]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_same_command_gives_the_same_numbers_and_a_seed_others(mini: Any, trained: Path, tmp_path: Path) -> None:
    assert mini.train(tmp_path / "again") == 0
    assert contents(only_run(tmp_path / "again")) == contents(trained)
    assert mini.train(tmp_path / "other", "seed=1") == 0
    seeds = [metrics_of(folder, "train")[0] for folder in (trained, only_run(tmp_path / "other"))]
    assert seeds[0]["train/outer_loss"] != seeds[1]["train/outer_loss"]


EXACT = ["runtime.dtype=float64", "model.lora.dropout=0", "outer.steps=3", "outer.lr=0.05"]
EXACT += ["loop.evaluate_every=0", "evaluation.max_new_tokens=1", "data.count={train:6,dev:1,test:1}"]


def losses(root: Path, name: str = "outer_loss") -> list[float]:
    return [record[f"train/{name}"] for record in metrics_of(only_run(root), "train")]


def test_how_the_exact_gradient_is_taken_changes_no_number_and_truncation_does(mini: Any, tmp_path: Path) -> None:
    for name, words in {
        "exact": ["inner.keep=3"],
        "rebuilt": ["inner.unroll=recompute", "inner.keep=0", "inner.stack=false", "inner.micro_batch=1"],
        "truncated": ["inner.keep=1"],
    }.items():
        assert mini.train(tmp_path / name, *EXACT, *words) == 0
    for name in ("outer_loss", "grad_norm", "inner_loss_first", "inner_loss_last"):
        assert losses(tmp_path / "exact", name) == pytest.approx(losses(tmp_path / "rebuilt", name), rel=1e-9), name
    exact, truncated = losses(tmp_path / "exact"), losses(tmp_path / "truncated")
    assert truncated[0] == pytest.approx(exact[0], rel=1e-12), "the first loss knows no gradient yet"
    assert truncated[2] != pytest.approx(exact[2], rel=1e-9)


def test_batches_of_a_step_are_one_larger_batch(mini: Any, tmp_path: Path) -> None:
    for name, words in {
        "two": ["outer.batch_problems=1", "outer.accumulation=2"],
        "one": ["outer.batch_problems=2", "outer.accumulation=1"],
    }.items():
        assert mini.train(tmp_path / name, *EXACT, *words) == 0
    for name in ("outer_loss", "grad_norm"):
        assert losses(tmp_path / "two", name) == pytest.approx(losses(tmp_path / "one", name), rel=1e-9), name


def test_shuffled_labels_are_drawn_for_training_alone(
    mini: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perk.templates import Templates

    seen: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
    segments = Templates.segments

    def noted(self: Templates, problem: Problem) -> Any:
        seen["/train/" in problem.id].append(problem.labels)
        return segments(self, problem)

    monkeypatch.setattr(Templates, "segments", noted)
    assert mini.train(tmp_path, "method.labels=shuffled", "data.segment=128", *FEW) == 0
    assert set(seen[False]) == {()}
    drawn = [labels for labels in seen[True] if labels]
    assert drawn and any(labels != tuple(sorted(labels)) for labels in drawn)


def test_a_kill_after_the_last_step_repeats_the_test_and_nothing_else(mini: Any, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("FINISHED", "results.json", "predictions.jsonl", "model"):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    assert mini.train(tmp_path, f"hydra.run.dir='{folder}'") == 0
    assert contents(folder) == contents(trained)


def test_patience_ends_a_run_early(mini: Any, tmp_path: Path) -> None:
    words = ["outer.steps=12", "outer.lr=0", "outer.rates_lr=0", "evaluation.patience=3", "loop.evaluate_every=1"]
    assert mini.train(tmp_path, "method=ft_icr", *words) == 0
    assert [record["step"] for record in metrics_of(only_run(tmp_path), "dev")] == [0, 1, 2, 3, 4]


def test_a_crash_in_a_step_is_continued_with_the_numbers_of_the_straight_run(
    mini: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Batches.__getitem__

    def crash(self: Batches[Any], number: int) -> Any:
        if number == 3:
            raise RuntimeError("power cut")
        return draw(self, number)

    monkeypatch.setattr(Batches, "__getitem__", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        mini.train(tmp_path, "loop.save_every=1")
    monkeypatch.undo()
    torch.manual_seed(99)
    assert mini.train(tmp_path, "loop.save_every=1") == 0
    found, straight = contents(only_run(tmp_path)), contents(trained)
    same = [name for name in straight if not name.startswith("checkpoints")]
    assert all(found[name] == straight[name] for name in same) and "model/adapter_model.safetensors" in same
