"""Commands in a locale that knows ASCII alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.tables.test_tables import write_run

ROOT = Path(__file__).parents[2]
POOR = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def said(*words: str) -> tuple[int, str, str]:
    environment = {**os.environ, **POOR, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, env=environment, cwd=ROOT, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.skipif(shutil.which("env") is None, reason="no POSIX")
def test_tables_read_and_name_a_path_in_japanese(tmp_path: Path) -> None:
    root = tmp_path / "実験" / "読む"
    write_run(root, "ft_icr", 30)
    (write_run(root, "no_facts", 30) / "results.json").write_text("{", encoding="utf-8")
    code, out, err = said("scripts.tables", f"root={root}", "experiment=demo", "--format", "md")
    assert (code, "FT-ICR (multi-task)" in out) == (0, True), err
    assert f"left out: {root}" in err
    code, out, err = said("scripts.tables", f"root={tmp_path / '無い'}", "experiment=demo")
    assert code == 2 and f"root={tmp_path / '無い'}: no such folder" in err


def test_a_training_command_takes_such_a_path(tmp_path: Path) -> None:
    code, out, err = said("reckoning.train", "scale=cpu", f"loop.root='{tmp_path / '実験'}'", "--cfg", "job")
    assert code == 0 and f"root: {tmp_path / '実験'}" in out, err
