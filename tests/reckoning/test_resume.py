"""A run killed without warning, again and again, ends with the bytes of the run that nobody disturbed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kills import alive, finish_despite_kills
from tests.runs import contents
from tests.starter import CHECKOUT, Starter

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


@pytest.mark.faults
@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("SIGTERM to the parent", 143), ("SIGKILL", -9)])
def test_a_stopped_local_sweep_saves_every_run_and_continues_to_the_same_bytes(
    mini: Any, tmp_path: Path, how: str, code: int
) -> None:
    steps = ["outer.steps=100", "loop.evaluate_every=50", "loop.save_seconds=0", "loop.save_every=0"]
    sweep = ["-m", "seed=1,2", *steps]
    assert mini.train(tmp_path / "straight", *sweep) == 0
    local = mini.words(tmp_path / "stopped", *sweep, "hydra/launcher=local", "hydra.launcher.n_jobs=2")
    command = [sys.executable, "-m", "reckoning.train", *local]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, env=environment, process_group=0)
    root = tmp_path / "stopped"
    while len([path for path in root.rglob("metrics.jsonl") if '"train"' in path.read_text()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGKILL if code < 0 else signal.SIGTERM)
    assert process.wait() == code
    while any(alive(int(pid.name)) for pid in Path("/proc").glob("[0-9]*") if _group(pid) == process.pid):
        time.sleep(0.05)
    saved = sorted(path.parents[1].name for path in root.rglob("checkpoints/step-*"))
    assert len(set(saved)) == 2 and not list(root.rglob("FINISHED"))
    assert subprocess.run(command, env=environment).returncode == 0
    runs = [sorted((tmp_path / name).rglob("FINISHED")) for name in ("straight", "stopped")]
    assert len(runs[0]) == len(runs[1]) == 2
    for straight, stopped in zip(*runs, strict=True):
        there, found = contents(straight.parent), contents(stopped.parent)
        assert found["predictions"] == there["predictions"] and found["metrics"] == there["metrics"]
        assert found["model/model.safetensors"] == there["model/model.safetensors"]


def _group(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[2])
    except (OSError, IndexError):
        return 0
