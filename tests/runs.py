"""Whole runs in tests: started in this process, and looked into."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FILES = {
    "FINISHED", "checkpoints", "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "model",
    "predictions.jsonl", "rates.json", "results.json",
}  # fmt: skip
"""What a finished run of a method with an inner loop has."""
RECORD = {
    "step", "time", "split", "train/outer_loss", "train/grad_norm", "train/inner_loss_first",
    "train/inner_loss_last", "rates/min", "rates/median", "rates/max", "rates/negative_share",
    "cost/seconds_per_step", "cost/peak_memory_bytes",
}  # fmt: skip
"""Keys of a record of its training."""


def run_here(main: Any, *words: str) -> int:
    """Call an entry point in this process with a command line; returns its exit code."""
    before = sys.argv
    sys.argv = ["program", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def metrics_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """Records of one split without what depends on the clock or the machine."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in record.items() if not key.startswith(("time", "cost/"))}
        for record in records
        if record["split"] == split
    ]


def contents(folder: Path) -> dict[str, Any]:
    """What is the same in equal runs: every tensor file, predictions, results, metrics without the clock."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))
    }
    found["predictions"] = (folder / "predictions.jsonl").read_bytes()
    found["test"] = json.loads((folder / "results.json").read_text())["test"]
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found["metrics"] = [
        {key: value for key, value in record.items() if key != "time" and not key.startswith("cost/")}
        for record in records
    ]
    return found


def only_run(root: Path) -> Path:
    """The folder of the one finished run below `root`."""
    (mark,) = root.rglob("FINISHED")
    return mark.parent


def hashes(folder: Path) -> dict[str, str]:
    """Every file of a run and what is in it."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
