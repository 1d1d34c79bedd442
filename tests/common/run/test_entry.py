"""The command line of a small paper: messages instead of traces, folders, help, and both launchers of conf/common."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.run.entry import explain

CHECKOUT = Path(__file__).parents[3]
CONFIG = """
defaults:
  - schema
  - run
  - runtime: cpu
  - tracker: none
  - _self_
hydra:
  searchpath: ["pkg://conf.common"]
"""
SCHEMA = """
from dataclasses import dataclass, field
from common.run.schema import RunConfig

@dataclass
class Inner:
    steps: int = 4

@dataclass
class Config(RunConfig):
    inner: Inner = field(default_factory=Inner)
"""
PROGRAM = '''
"""Add nothing up.

python -m toy.train seed=1
    python -m toy.train seed=2
"""
import sys
from pathlib import Path
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from common.run.entry import entry, in_sweep
from common.errors import UserError
from common.run.schema import to_typed
from toy.config import Config

ConfigStore.instance().store(name="schema", node=Config)

@entry("pkg://toy.conf")
def main(cfg: DictConfig) -> None:
    config = to_typed(cfg, Config)
    assert "torch" not in sys.modules
    if config.seed == 13:
        raise UserError("seed=13: choose another")
    if config.seed == 99:
        raise ZeroDivisionError("ours")
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "result").write_text(f"{config.seed} {config.inner.steps} {in_sweep()}")

if __name__ == "__main__":
    main()
'''
SAYING = """
    import logging
    place = Path(HydraConfig.get().runtime.output_dir)
    own = logging.FileHandler(place / "log.txt")
    own.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(own)
    logging.getLogger("toy").info("%d %% done", 50)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    files = {"config.py": SCHEMA, "train.py": PROGRAM, "conf/__init__.py": "", "conf/config.yaml": CONFIG}
    for name, text in {**files, "conf/model/small.yaml": "{}", "conf/experiment/sum.yaml": "{}"}.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def command(app: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [sys.executable, "-m", "toy.train", *words],
        cwd=app,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_good_command_runs_in_its_folder(app: Path) -> None:
    done = command(app, "inner.steps=7")
    assert (done.returncode, done.stderr) == (0, "")
    assert (app / "runs" / "toy" / "none" / "inner.steps-7" / "result").read_text() == "0 7 False"


@pytest.mark.parametrize(
    "word, expected",
    [
        ("inner.stps=1", "unknown key inner.stps: did you mean inner.steps?"),
        ("+inner.stps=1", "unknown key inner.stps: did you mean inner.steps?"),
        ("sed=1", "unknown key sed: did you mean seed?"),
        ("innr.steps=1", "unknown key innr.steps: did you mean inner.steps?"),
        ("innr={steps:1}", "unknown key innr: did you mean inner?"),
        ("inner.steps=few", "inner.steps=few: a whole number is needed"),
        ("runtime.device=gpu", "runtime.device: Invalid value 'gpu', expected one of [auto, cpu, cuda] (Error merging"),
        ("runtime.threads=-1", "runtime.threads=-1: use 0"),
        ("runtime=tpu", "Could not find 'runtime/tpu'"),
        ("seed=13", "seed=13: choose another"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_two(app: Path, word: str, expected: str) -> None:
    done = command(app, word)
    assert done.returncode == 2
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "full_key" not in done.stderr


def test_a_mistake_of_ours_keeps_its_trace(app: Path) -> None:
    done = command(app, "seed=99")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError: ours" in done.stderr


def test_help_and_cfg_work(app: Path) -> None:
    assert "steps: 4" in command(app, "--cfg", "job").stdout
    assert "pkg://conf.common" in command(app, "--info", "searchpath").stdout
    assert "--multirun" in command(app, "--hydra-help").stdout
    for flag in ("--help", "-h"):
        done = command(app, flag, "+experiment=gone")
        assert (done.returncode, done.stderr) == (0, "")
        purpose, example, groups, ending = done.stdout.split("\n\n")
        assert (purpose, example) == (
            "Add nothing up.",
            "    python -m toy.train seed=1\n    python -m toy.train seed=2",
        )
        assert "  +experiment            sum\n" in groups and "  runtime (cpu)          auto, cpu, gpu\n" in groups
        assert "model" not in groups, "not among its defaults: nothing to choose"
        assert "--cfg job" in ending


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_one_bad_job_does_not_stop_the_others(app: Path, launcher: str) -> None:
    done = command(app, "-m", "seed=1,13,2", f"hydra/launcher={launcher}")
    assert done.returncode == 2
    assert "error: seed=13: choose another" in done.stderr and "Traceback" not in done.stderr
    for seed in (1, 2):
        assert (app / "runs" / "toy" / "none" / f"seed-{seed}" / "result").read_text() == f"{seed} 4 True"


def test_a_local_sweep_names_its_runs_and_nothing_that_is_no_run(app: Path) -> None:
    (app / "toy" / "train.py").write_text(PROGRAM.replace("    folder = Path(", SAYING + "    folder = Path("))
    done = command(app, "-m", "seed=1,2", "inner.steps=3", "hydra/launcher=local")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"2 runs, \d at a time", lines[0])
    for seed in (1, 2):
        assert f"[{seed}/2] seed {seed}: 50 % done" in lines
        log = app / "runs" / "toy" / "none" / f"inner.steps-3+seed-{seed}" / "log.txt"
        assert log.read_text() == "50 % done\n", "a folder's own log needs no name"
    assert lines[-1] == "2 of 2 runs ended, 0 running"
    assert len(lines) == 5


def test_the_number_of_processes_follows_the_variable_and_the_device(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = ("hydra/launcher=local", "--cfg", "all", "-p", "hydra.launcher", "--resolve")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert "n_jobs: -1\n" in command(app, *shown).stdout
    assert "n_jobs: 3\n" in command(app, "runtime=auto", *shown).stdout
    monkeypatch.setenv("INNERLOOP_JOBS", "2")
    assert "n_jobs: 2\n" in command(app, *shown).stdout
    monkeypatch.setenv("INNERLOOP_JOBS", "0")
    done = command(app, "-m", "seed=1", "hydra/launcher=local")
    assert done.returncode == 2
    assert done.stderr == "error: INNERLOOP_JOBS=0: use a number above 0, or -1 for one process a core\n"


@pytest.mark.parametrize(
    "preset, lines",
    [
        ("slurm", ["cpus_per_task: null", "gpus_per_node: null", "timeout_min: 240", "array_parallelism: 32"]),
        ("slurm_cpu", ["cpus_per_task: 1", "gpus_per_node: null", "timeout_min: 60", "array_parallelism: 128"]),
        ("slurm_gpu", ["cpus_per_task: 4", "gpus_per_node: 1", "tasks_per_node: 1", "mem_gb: 32"]),
        ("slurm_gpus", ["gpus_per_node: 4", "tasks_per_node: 4", "mem_gb: 128", "timeout_min: 1440"]),
    ],
)
def test_a_slurm_preset_composes_without_slurm(
    app: Path, monkeypatch: pytest.MonkeyPatch, preset: str, lines: list[str]
) -> None:
    monkeypatch.setenv("SLURM_PARTITION", "long")
    shown = command(app, f"hydra/launcher={preset}", "--cfg", "all", "-p", "hydra.launcher", "--resolve").stdout
    for line in ("SlurmLauncher", "partition: long", "max_num_timeout: 20", "requeue: true", *lines):
        assert line in shown


def test_only_errors_a_user_can_act_on_are_explained() -> None:
    assert explain(UserError("a: b")) == "a: b"
    assert explain(OSError(28, "No space left on device", "there")) == (
        "there: No space left on device; free space there or set loop.root to a bigger disk"
    )
    assert explain(FileNotFoundError(2, "No such file", "x")) is None
    assert explain(ValueError("x")) is None
