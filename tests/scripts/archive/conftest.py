"""Every test has a repository, a user and a host of its own."""

from pathlib import Path

import pytest

from common.run import private
from tests.scripts.archive.making import HOST, USER


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty repository, and a user and a host that must not be told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(private.getpass, "getuser", lambda: USER)
    monkeypatch.setattr(private.socket, "gethostname", lambda: HOST)
