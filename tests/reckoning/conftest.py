"""One miniature set-up and one finished run of it, shared by all tests of the package."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.reckoning import miniature
from tests.runs import run_here
from tests.starter import Starter


@dataclass(frozen=True)
class Mini:
    """The miniature set-up on disk, and commands on it."""

    folder: Path

    def words(self, root: Path, *given: str) -> list[str]:
        """A training command that takes a second or two; `given` overrides it."""
        flags, more = [word for word in given if word == "-m"], [word for word in given if word != "-m"]
        return [
            "--config-dir", str(self.folder / "conf"), *flags, "data=mini", "model=mini", "+experiment=mini",
            "runtime=cpu", f"loop.root={root}", "inner.steps=2", "inner.lr=0.01", "outer.lr=0.01", "outer.steps=4",
            "loop.log_every=1", "loop.evaluate_every=2", "evaluation.max_new_tokens=8", *more,
        ]  # fmt: skip

    def train(self, root: Path, *more: str) -> int:
        """Run the training command in this process; returns its exit code."""
        from reckoning.train import main

        return run_here(main, *self.words(root, *more))


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Mini:
    """Data, tokenizer, model and their YAML files."""
    folder = miniature.make_all(tmp_path_factory.mktemp("mini"))
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "mini.yaml").write_text("# @package _global_\nexperiment: mini\n")
    return Mini(folder)


@pytest.fixture(scope="session")
def tokenizer(mini: Mini) -> Any:
    """The miniature's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(mini.folder / "model")


@pytest.fixture(scope="session")
def problems(mini: Mini) -> Callable[[str], list[Any]]:
    """Split -> its problems, three questions each."""
    from reckoning.problems import read_jsonl

    return lambda split: read_jsonl(mini.folder / f"{split}.jsonl", questions_per_set=3)


@pytest.fixture(scope="session")
def trained(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: two problems a batch, one by one, with dropout."""
    root = tmp_path_factory.mktemp("trained")
    assert mini.train(root) == 0
    (folder,) = (root / "reckoning" / "mini").iterdir()
    return folder


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Starts the training command in processes of their own."""
    gpt2 = "transformers.models.gpt2.modeling_gpt2"
    found = Starter("reckoning.train", gpt2, "reckoning.build", "reckoning.scoring", "reckoning.shortcut_rows")
    with found.process:  # closes its pipes, at which it ends
        yield found
