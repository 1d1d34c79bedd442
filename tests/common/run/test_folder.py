"""What is read again of a run folder: any form of `environment.json` is read, or named in one message."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.run.folder import read_environment
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig


def begin(folder: Path) -> None:
    parts = (RuntimeConfig(device=Device.cpu), TrackerConfig(), LoopConfig())
    with Run(folder, {}, *parts, RunIdentity("paper", "experiment", "method", "cpu", 3)):
        pass


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "a list where an object is needed"),
        (None, "a NoneType where an object is needed"),
        ({"command": None}, "command is no str"),
        ({"command": ["python"]}, "command is no str"),
        ({"started": 3}, "started is no str"),
        ({"run": "x"}, "run is no dict"),
        ({"starts": {"revision": "a"}}, "starts is no list"),
        ({"starts": ["a"]}, "one of starts is no dict"),
    ],
)
def test_another_form_is_named_by_whoever_reads_it_and_stops_a_start(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for read in (read_environment, begin):
        with pytest.raises(UserError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"{path}: damaged ({reason}); delete the file and run the command again"
    assert json.loads(path.read_text(encoding="utf-8")) == content
    path.unlink()
    begin(tmp_path)
    assert len(read_environment(tmp_path)["starts"]) == 1


@pytest.mark.parametrize("content", [{}, {"revision": "a"}, {"starts": [{}]}, {"starts": [], "sweep": None}])
def test_what_earlier_versions_did_not_write_need_not_be_there(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "environment.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_environment(tmp_path) == content
    begin(tmp_path)
    assert read_environment(tmp_path)["starts"][-1]["revision"]
