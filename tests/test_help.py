"""`--help` of every command answers without a library that takes seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = [
    *(
        f"{paper}.{room}"
        for paper in ("reckoning", "perk", "fal", "slowfast_vgen")
        for room in ("train", "evaluate", "data", "model")
    ),
    *("slowfast_vgen.generate", "slowfast_vgen.plan"),
    *("reckoning.cost", "scripts.archive", "scripts.budget", "scripts.fetch", "scripts.figure", "scripts.report"),
    "scripts.tables",
    *("scripts.benchmark", "scripts.dashboards", "scripts.embedded", "scripts.embedded shapes"),
    *(
        "scripts.embedded pretrain",
        "scripts.benchmark engine",
        "scripts.benchmark fal",
        "scripts.benchmark perk",
        "scripts.benchmark slowfast",
        "scripts.dashboards replay",
    ),
]
HEAVY = ("torch", "transformers", "datasets", "peft", "diffusers", "wandb", "matplotlib")
SLOW = {
    *("scripts.benchmark engine", "scripts.benchmark fal", "scripts.benchmark perk", "scripts.benchmark slowfast"),
    "scripts.embedded pretrain",
}
"""Read torch, of which they are about, and nothing heavier: still below two seconds."""
WATCH = """
import runpy, sys
name, *words = sys.argv[1:]
sys.argv = [name, *words, "--help"]
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as stopped:
    assert not stopped.code, stopped
print("imported:", *sorted({module.partition(".")[0] for module in sys.modules}))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *command.split()], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    shown, _, imported = done.stdout.rpartition("imported:")
    assert len(shown.strip()) > 100
    allowed = {"torch"} if command in SLOW else set()
    assert not (set(imported.split()) & set(HEAVY)) - allowed
