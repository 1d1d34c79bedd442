"""A run killed without warning, again and again, ends with the bytes of the run that nobody disturbed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.kills import finish_despite_kills
from tests.runs import contents
from tests.starter import Starter

MODES = {
    "one by one": ["inner.stack=false", "outer.batch_problems=2", "outer.accumulation=2"],
    "stacked": ["inner.stack=true", "outer.batch_problems=3", "outer.accumulation=1"],
}


def compare(mini: Any, starter: Starter, root: Path, mode: str, *, kills: int, steps: int, seed: int) -> list[str]:
    settings = [*MODES[mode], f"outer.steps={steps}", "model.dropout=0.2", "loop.save_every=1", "loop.evaluate_every=5"]
    settings += ["evaluation.max_new_tokens=4"]
    folders = {}
    for name in ("straight", "killed"):
        words = mini.words(root / name, *settings, f"hydra.run.dir='{root / name}'")
        folders[name] = root / name
        if name == "straight":
            starter.start(root / "straight.txt", words)
            assert starter.wait() == 0, (root / "straight.txt").read_text()
        else:
            hits = finish_despite_kills(starter, words, root / "killed.txt", root / name, kills, seed)
    straight, killed = contents(folders["straight"]), contents(folders["killed"])
    assert straight.keys() == killed.keys()
    last, best = f"checkpoints/step-{steps:06d}/model.safetensors", "model/model.safetensors"
    assert last in straight and best in straight
    for name in straight:
        assert straight[name] == killed[name], name
    return hits


@pytest.mark.parametrize("mode", MODES)
def test_two_kills_leave_no_trace(mini: Any, starter: Starter, tmp_path: Path, mode: str) -> None:
    hits = compare(mini, starter, tmp_path, mode, kills=2, steps=12, seed=len(mode))
    assert len(hits) == 2, "the run ended before it could be killed twice"


@pytest.mark.faults
@pytest.mark.parametrize("mode", MODES)
def test_twenty_kills_leave_no_trace(mini: Any, starter: Starter, tmp_path: Path, mode: str) -> None:
    hits = compare(mini, starter, tmp_path, mode, kills=20, steps=60, seed=1)
    assert len(hits) == 20, "the run ended before it could be killed twenty times"
    assert {"torn checkpoint", "start", "step"} <= set(hits), hits


@pytest.mark.parametrize("lost", [["FINISHED"], ["FINISHED", "results.json", "predictions.jsonl", "model"]])
def test_a_kill_after_the_last_step_repeats_the_test_and_nothing_else(
    mini: Any, trained: Path, tmp_path: Path, lost: list[str]
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in lost:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    assert mini.train(tmp_path, f"hydra.run.dir='{folder}'") == 0
    assert contents(folder) == contents(trained)
