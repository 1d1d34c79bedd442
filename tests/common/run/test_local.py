"""A sweep on one machine: how many cells at once, and that no two share a GPU unless that was asked for."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import UserError
from common.run import local

CHECKOUT = Path(__file__).parents[3]
HOLDER = """
import sys
from common.run import local
print(local.claim_gpu(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""
CONFIG = """
defaults: [schema, _self_, {override hydra/job_logging: stdout}]
hydra:
  searchpath: ["pkg://conf.common"]
  output_subdir: null
  sweep: {dir: out, subdir: "${hydra.job.num}"}
"""
# Every cell asks for the device as a run does, and holds a mark of its GPU while it works.
PROGRAM = """
import os, time
from dataclasses import dataclass, field
from pathlib import Path
from hydra.core.config_store import ConfigStore
from common.run.entry import entry
from common.run.schema import RuntimeConfig

@dataclass
class Config:
    seed: int = 0
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

ConfigStore.instance().store(name="schema", node=Config)

@entry("conf_app")
def main(cfg):
    from common.run.environment import pick_device
    pick_device(cfg.runtime.device)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    mark = Path(f"busy-{gpu}")
    mark.touch(exist_ok=False)
    until = time.monotonic() + 20
    while len(list(Path().glob("busy-*"))) + len(list(Path().glob("met"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    Path("met").touch()
    mark.unlink()
    Path(f"cell-{cfg.seed}-{gpu}").touch()

if __name__ == "__main__":
    main()
"""


class Holders:
    """Processes that claim a GPU and keep it."""

    def __init__(self, gpus: str, folder: Path) -> None:
        self.environment = {
            **os.environ, "CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(folder), "PYTHONPATH": str(CHECKOUT),
        }  # fmt: skip
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, jobs: int) -> str:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(jobs)], env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdout
        return process.stdout.readline().strip()

    def end(self, index: int) -> None:
        process = self.processes[index]
        process.kill()
        process.communicate(timeout=20)


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[Holders]:
    found = Holders("0,3,GPU-8f", tmp_path)
    yield found
    for index in range(len(found.processes)):
        found.end(index)


def test_every_process_has_a_gpu_of_its_own_and_a_killed_one_gives_it_back(holders: Holders) -> None:
    assert [holders.start(3) for _ in range(3)] == ["0", "3", "GPU-8f"]
    holders.end(1)
    assert holders.start(3) == "3"


def test_more_processes_than_gpus_share_them_evenly(holders: Holders) -> None:
    assert [holders.start(5) for _ in range(5)] == ["0", "3", "GPU-8f", "0", "3"]


def test_a_second_sweep_waits_for_a_free_gpu(
    holders: Holders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert [holders.start(3) for _ in range(3)] == ["0", "3", "GPU-8f"]
    monkeypatch.setattr(local.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local, "time", SimpleNamespace(sleep=lambda _: holders.end(2)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,GPU-8f")
    with caplog.at_level("INFO", "common.run.local"):
        assert local.claim_gpu(3) == "GPU-8f"
    try:
        assert "waiting for a GPU: other sweeps hold all of 0, 3, GPU-8f" in caplog.text
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-8f"
        assert local.claim_gpu(3) == "GPU-8f", "the next cell in this process keeps it"
    finally:
        local._held.pop().close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(local.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local.fcntl, "lockf", refuse)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match=rf"no lock can be had there \({os.strerror(number)}\), .*; set TMPDIR to"):
        local.claim_gpu(2)
    assert not local._held and os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_two_cells_at_once_are_on_two_gpus(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "conf_app").mkdir()
    (tmp_path / "conf_app" / "config.yaml").write_text(CONFIG)
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "4,7", "TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT),
    }  # fmt: skip
    words = ["-m", "seed=0,1,2,3", "hydra/launcher=local"]
    done = subprocess.run(
        [sys.executable, "app.py", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    seeds, gpus = zip(*sorted(path.name.split("-")[1:] for path in tmp_path.glob("cell-*")), strict=True)
    assert seeds == ("0", "1", "2", "3") and set(gpus) == {"4", "7"}


@pytest.mark.parametrize(
    "given, gpus", [("0,1", ["0", "1"]), ("GPU-a, MIG-b", ["GPU-a", "MIG-b"]), ("", []), ("-1", []), ("0,-1,2", ["0"])]
)
def test_visible_gpus_are_what_cuda_makes_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, given: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert local.visible_gpus() == gpus


def test_without_the_variable_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.visible_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g: x'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    assert local.visible_gpus() == ["0", "1"]


def test_the_number_of_processes_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNERLOOP_JOBS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [local.processes(device) for device in ("cpu", "auto", "cuda")] == [-1, 2, 2]
    monkeypatch.setenv("INNERLOOP_JOBS", "7")
    assert local.processes("cuda") == 7
    monkeypatch.setenv("INNERLOOP_JOBS", "all")
    with pytest.raises(UserError, match="INNERLOOP_JOBS=all: use a number above 0"):
        local.processes("cpu")
