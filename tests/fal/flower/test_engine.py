"""Keys of the engine, what goes without Flower and what does not, processes and ports."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import UserError
from fal.flower import config, processes
from fal.flower.config import EngineConfig, held_by
from fal.train import train
from tests.fal.flower.deployed import config as composed


@pytest.mark.parametrize("engine", ["flower_simulation", "flower_deployment"])
def test_without_flower_the_engine_names_the_one_command_that_helps(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"engine={engine} needs Flower, which is not installed: run make setup-flower"):
        train(composed(tmp_path, f"engine={engine}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key, value", [("nodes", -1), ("port", 80), ("round_seconds", 0.0), ("start_seconds", -1.0)])
def test_a_value_that_cannot_work_is_named(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"engine\.{key}={value:g}"):
        EngineConfig(**{key: value})  # type: ignore[arg-type]


def test_every_client_is_at_one_node() -> None:
    assert sorted(client for node in range(3) for client in held_by(node, 3, 8)) == list(range(8))
    assert held_by(1, 3, 8) == [1, 4, 7]


def test_a_port_in_use_is_named_before_anything_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}, which superlink needs, is in use .*engine.port"):
            processes.refuse_taken({"superlink": port})


def test_processes_are_found_by_their_federation_with_what_they_started_and_ended_alone(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    sleeper = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        processes.start("node0", [sys.executable, "-c", sleeper], home, tmp_path / "log")
    try:
        while any(len(processes.running(home).get("node0", processes.Group(False, [])).members) < 2 for home in homes):
            time.sleep(0.05)
        processes.stop(processes.running(homes[0])["node0"].members)
        assert not processes.running(homes[0])
        assert len(processes.running(homes[1])["node0"].members) == 2
    finally:
        for home in homes:
            processes.stop([process for group in processes.running(home).values() for process in group.members])


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "node0.log"
    child = processes.start("node0", [sys.executable, "-c", "print('no such key'); exit(3)"], tmp_path, log)
    with pytest.raises(processes.Ended, match=r"node0 ended with code 3; (?s:.*)no such key"):
        processes.wait(lambda: False, child, log, time.monotonic() + 60, 0.05)


def test_a_command_of_flowers_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended with code 2:\nno"):
        processes.call([sys.executable, "-c", "print('no'); exit(2)"], tmp_path, 60)
    with pytest.raises(UserError, match="no answer in engine.start_seconds=0.1"):
        processes.call([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.1)


def test_flowers_own_folder_and_the_network_are_left_alone(tmp_path: Path) -> None:
    program = "import os; print(os.environ['FLWR_HOME'], os.environ['FLWR_TELEMETRY_ENABLED'])"
    assert processes.call([sys.executable, "-c", program], tmp_path, 60).split() == [str(tmp_path), "0"]
    assert (
        subprocess.run(
            [sys.executable, "-c", "import fal.flower"], env=processes.environment(tmp_path), cwd=os.sep
        ).returncode
        == 0
    )
