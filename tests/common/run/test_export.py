"""An export is whole or not there."""

import errno
from pathlib import Path

import pytest

from common.errors import UserError
from common.run.export import export


class Part:
    """Saves one file, or fails after it."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.error = name, error

    def save_pretrained(self, save_directory: str) -> None:
        (Path(save_directory) / self.name).write_text(self.name)
        if self.error:
            raise self.error


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_parts_lie_in_one_folder_and_replace_an_older_export(tmp_path: Path) -> None:
    export(tmp_path / "run" / "model", Part("old"))
    export(tmp_path / "run" / "model", Part("weights"), Part("tokenizer"))
    assert names(tmp_path) == ["run", "run/model", "run/model/tokenizer", "run/model/weights"]


def test_a_full_disk_leaves_the_older_export_and_nothing_temporary(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    export(tmp_path / "model", Part("old"))
    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (full, SafetensorError("I/O error: No space left on device")):
        with pytest.raises(UserError, match="cannot write the trained model into .*No space left.*it continues"):
            export(tmp_path / "model", Part("weights"), Part("tokenizer", error))
        assert names(tmp_path) == ["model", "model/old"]
