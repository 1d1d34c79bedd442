"""The script that starts a SLURM: when it refuses, what it reports, and that it ends only its own processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from tests.slurm import node as slurm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("log", "run"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_it_takes_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slurm.os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="takes root"):
        slurm.up(tmp_path)
    with pytest.raises(UserError, match="takes root and apt-get; the packages are mariadb-server munge slurm-client"):
        slurm.install()


def test_missing_packages_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = slurm._program
    monkeypatch.setattr(slurm.os, "geteuid", lambda: 0)
    monkeypatch.setattr(slurm, "_program", lambda name: None if name in ("slurmd", "munged") else there("sh"))
    monkeypatch.setattr(sys, "argv", ["slurm", "check"])
    with pytest.raises(SystemExit) as stopped:
        slurm.main()
    assert stopped.value.code == 1
    assert "packages are missing: munge slurmd; install them with `make slurm-packages`" in capsys.readouterr().err


def test_a_daemon_that_ends_is_reported_with_its_last_words(folder: Path) -> None:
    broken = slurm.Daemon("broken", ["sh", "-c", "echo no such port; exit 3"], ["false"])
    with pytest.raises(UserError, match=r"broken ended with 3; read .*log\nno such port"):
        slurm._start(broken, folder, {})


def test_a_daemon_that_never_answers_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "PATIENCE", 0.3)
    with pytest.raises(UserError, match="silent did not come up within"):
        slurm._start(slurm.Daemon("silent", ["sleep", "60"], ["false"]), folder, {})
    pid = int((folder / "run" / "silent.started").read_text().split()[0])
    slurm.down(folder)
    assert slurm._born(pid) is None
    assert not list((folder / "run").iterdir())


def test_a_process_that_only_has_the_number_is_left_alone(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        (folder / "run" / "old.started").write_text(f"{process.pid} 1")
        slurm.down(folder)
        assert process.poll() is None
        process.kill()


def test_a_second_start_in_the_same_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "obstacle", lambda: None)
    (folder / "run" / "munged.started").write_text(f"{os.getpid()} {slurm._born(os.getpid())}")
    with pytest.raises(UserError, match="SLURM runs there already; end it with"):
        slurm.up(folder)
