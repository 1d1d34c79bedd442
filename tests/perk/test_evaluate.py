"""The evaluation command: the run's own numbers again, other lengths, positions and groups, and nothing touched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.run import checkpoint
from perk.evaluate import main, restored
from perk.methods import Perk
from tests.runs import hashes, only_run, run_here


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, under its own name."""
    return Path(shutil.copytree(trained, tmp_path / trained.name))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 2; returns its message."""

    def command(*words: str) -> str:
        assert run_here(main, *words) == 2
        return capsys.readouterr().err

    return command


def found(run: Path, split: str = "test", changed: str = "") -> Any:
    return json.loads((run / f"evaluation-{split}{changed}.json").read_text())


def test_it_finds_the_runs_own_results_and_changes_nothing(run: Path) -> None:
    before = hashes(run)
    assert run_here(main, f"run={run}") == 0
    assert found(run) == json.loads((run / "results.json").read_text())["test"]
    after = hashes(run)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {str(run / "evaluation-test.json")}


def test_further_lengths_and_positions_are_metrics_of_their_own(run: Path) -> None:
    assert run_here(main, f"run={run}", "lengths=[512,1024]", "positions=[pre,post]", "micro_batch=1") == 0
    changed = "+lengths-512_1024+positions-pre_post"
    metrics, own = found(run, "test", changed), json.loads((run / "results.json").read_text())["test"]
    assert set(metrics) - set(own) == {
        "accuracy@length_512", "accuracy@length_1024",
        "accuracy@position_scattered", "accuracy@position_pre", "accuracy@position_post",
    }  # fmt: skip
    assert {name: metrics[name] for name in own} == own, "groups of segments write the same adapter"
    assert metrics["accuracy@length_512"] == metrics["accuracy@position_scattered"] == own["accuracy"]
    assert all(interval["count"] == 4 for interval in metrics.values())


def test_what_is_asked_has_the_length_and_position_that_the_metric_names(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the dev split too, where `data.test_length` says nothing."""
    read: list[tuple[str, int, int, set[int]]] = []
    respond = Perk.respond

    def noted(self: Perk, problems: Any, new_tokens: int) -> Any:
        gold = {place for problem in problems for q in problem.questions for place in q.gold}
        read.extend((p.id.split("/")[1], p.tokens - p.added, self.micro_batch, gold) for p in problems[:1])
        return respond(self, problems, new_tokens)

    monkeypatch.setattr(Perk, "respond", noted)
    for split, count in (("test", 4), ("dev", 3)):
        read.clear()
        words = [f"run={run}", f"split={split}", "lengths=[1024]", "positions=[pre]", "micro_batch=3"]
        assert run_here(main, *words) == 0
        assert [name for name, *_ in read] == [split] * 3 and {size for *_, size, _ in read} == {3}
        tokens = [length for _, length, *_ in read]
        assert tokens == [pytest.approx(64, abs=8), pytest.approx(128, abs=16), pytest.approx(64, abs=8)]
        assert max(read[2][3]) <= 5, "all facts in the first segments, one in each as they hold no more"
        assert found(run, split, "+lengths-1024+positions-pre")["accuracy@length_1024"]["count"] == count


def test_other_inner_steps_and_another_confidence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    respond = Perk.respond
    monkeypatch.setattr(
        Perk, "respond", lambda self, *given: (taken.append(self.writer.inner_steps), respond(self, *given))[1]
    )
    for words in ([], ["inner_steps=6", "confidence=0.5"]):
        assert run_here(main, f"run={run}", "split=dev", "device=cpu", *words) == 0
        taken.append(0)
    assert list(dict.fromkeys(taken)) == [3, 0, 6]
    interval = found(run, "dev", "+inner_steps-6")["accuracy"]
    assert run_here(main, f"run={run}", "split=dev") == 0
    wide = found(run, "dev")["accuracy"]
    assert interval["high"] - interval["low"] < wide["high"] - wide["low"]


def test_the_restored_model_is_the_selected_one(run: Path) -> None:
    config, parts = restored(run)
    assert config.method.name == "perk" and set(parts.tracked) == {"model", "rates", "weigher"}
    last = checkpoint.latest(run / "checkpoints")
    assert last is not None and last.run["best"]["step"] == 2 != last.step
    best = checkpoint.load(run / "checkpoints" / "step-000002")
    for name, part in parts.tracked.items():
        for key, value in part.state_dict().items():
            assert value.equal(best.objects[name][key]), f"{name} {key}"
    assert not best.objects["weigher"]["last.bias"].equal(last.objects["weigher"]["last.bias"])


def test_what_is_not_a_run_or_not_there_is_refused(
    mini: Any, run: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "no run folder (config.yaml is missing)" in fails(f"run={tmp_path / 'empty'}")
    assert "run has no value: give one" in fails()
    assert "split=tset: use one of train, dev, test" in fails(f"run={run}", "split=tset")
    assert "evaluation.positions: left is none of scattered" in fails(f"run={run}", "positions=[left]")
    assert "evaluation.lengths=[4]: use 16 tokens or more" in fails(f"run={run}", "lengths=[4]")
    assert mini.train(tmp_path, "method=shortcuts") == 0
    assert "shortcut rules have no weights to evaluate" in fails(f"run={only_run(tmp_path / 'perk')}")
    for mark in (run / "checkpoints").glob("step-*"):
        shutil.rmtree(mark)
    assert "finished, and without weights: archives (python -m scripts.archive) keep none" in fails(f"run={run}")


def test_in_context_runs_are_evaluated_at_other_lengths_too(mini: Any, tmp_path: Path) -> None:
    words = ["method=ft_icr", "outer.steps=1", "evaluation.lengths=[1024,8192]", "data.test_length=1024"]
    assert mini.train(tmp_path, *words) == 0
    folder = only_run(tmp_path)
    own = json.loads((folder / "results.json").read_text())["test"]
    assert own["accuracy@length_8192"]["count"] == 4
    said = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [item["slices"]["length"] for item in said] == [1024] * 4 + [8192] * 4
    assert own["accuracy@length_1024"] == own["accuracy"]
    assert "the model reads 512 tokens, so the first" in (folder / "log.txt").read_text()
    assert run_here(main, f"run={folder}") == 0
    assert found(folder) == own
    assert run_here(main, f"run={folder}", "split=dev", "lengths=[512]") == 0
    dev = found(folder, "dev", "+lengths-512")
    assert dev["accuracy@length_512"] == dev["accuracy"], "data.test_length is the test split's"
