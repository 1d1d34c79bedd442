"""What is read back of a run folder: what can change a number, as plain data, and nothing else of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from common.errors import UserError
from common.fields import UNHASHED
from common.run.schema import RunConfig, plain, to_typed
from common.run.stored import stored_config


@dataclass
class Data:
    """Some settings."""

    name: str = "a"
    texts: list[str] = field(default_factory=list)
    labels: dict[str, str] | None = None
    cache: str | None = field(default=None, metadata=UNHASHED)


@dataclass
class Config(RunConfig):
    """A run's."""

    data: Data = field(default_factory=Data)


def write(folder: Path, **settings: Any) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


STRANGE = [
    "${oc.env:SECRET}", "${oc.decode:'1'}", "${seed}", "a ${b", "${", "\\${seed}", "\\\\${seed} \\${x}", "$", "\\",
    "${oc.env:${x}}", "{a}", "${paper:}", "x\\", "\\\\${", "${data.name} \\ ${seed}\\",
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_a_text_is_a_text_whatever_stands_in_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    data = {"name": text, "texts": [text, "b"], "labels": {"yes": text}}
    found = stored_config(write(tmp_path, experiment="e", data=data), Config)
    assert (found.data.name, found.data.texts, found.data.labels) == (text, [text, "b"], {"yes": text})


def test_an_escaped_text_of_the_command_line_is_stored_and_read_as_it_was_meant(tmp_path: Path) -> None:
    typed = to_typed(OmegaConf.create({"data": {"name": "\\${seed}"}}), Config)
    assert typed.data.name == "${seed}"
    assert stored_config(write(tmp_path, **plain(typed)), Config) == typed


def test_nothing_that_cannot_change_a_number_is_obeyed(tmp_path: Path) -> None:
    folder = write(
        tmp_path, experiment="e", seed=3, tracker={"name": "wandb", "project": "theirs", "entity": "them"},
        loop={"root": "/theirs", "evaluate_every": 7}, data={"name": "b", "cache": "/theirs/cache"},
        runtime={"threads": 99, "capture": True, "dtype": "float64"},
    )  # fmt: skip
    found, default = stored_config(folder, Config), Config()
    assert (found.seed, found.loop.evaluate_every, found.data.name) == (3, 7, "b")
    assert found.runtime.dtype.name == "float64"
    assert found.tracker == default.tracker and found.loop.root == default.loop.root and found.data.cache is None
    assert found.runtime.threads == default.runtime.threads and not found.runtime.capture


def test_an_object_to_make_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key data._target_"):
        stored_config(write(tmp_path, data={"_target_": "os.system", "command": "true"}), Config)
