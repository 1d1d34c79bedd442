"""Small data settings for the tests of PERK's data, and small runs, shared by the tests of whole runs and memories."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

import perk
from common.run.schema import to_typed
from perk.config import TrainConfig
from tests.perk.memories import PLACE, train
from tests.runs import run_here
from tests.starter import Starter

SMALL = ["scale=cpu", "data.count={train:6,dev:4,test:6}", "data.cache=null", "data.shrink=1"]
SIZES = {"babilong": (256, 32), "student": (512, 32), "hotpotqa": (512, 64), "triviaqa": (512, 64), "api": (1024, 128)}
"""First word of an experiment -> tokens of a context and of a segment, whatever the scale's own are."""


def small_words(experiment: str) -> list[str]:
    """The overrides of a small data set."""
    length, segment = SIZES[experiment.partition("_")[0]]
    return [f"+experiment={experiment}", *SMALL, f"data.length={length}", f"data.segment={segment}"]


@pytest.fixture(scope="session")
def composed() -> Callable[..., Any]:
    """The typed configuration of a command line."""
    import perk.data  # noqa: F401 - registers the schema

    def call(*words: str) -> TrainConfig:
        with initialize_config_module("conf.perk", version_base="1.3"):
            return to_typed(compose("config", overrides=list(words)), TrainConfig)

    return call


@pytest.fixture
def small(composed: Callable[..., Any]) -> Callable[..., Any]:
    """Experiment and overrides -> data settings of a few problems without cache."""
    return lambda experiment, *words: composed(*small_words(experiment), *words).data


@dataclass(frozen=True)
class Mini:
    """A model on disk that reads generated stories, and commands on it."""

    folder: Path

    def words(self, root: Path, *given: str) -> list[str]:
        """A training command that takes a second or two; `given` overrides it."""
        return [
            "+experiment=babilong_qa1", "scale=cpu", f"model.name={self.folder}", "model.digest=null",
            "model.lora.rank=2", "model.lora.dropout=0.1", f"loop.root={root}", "data.cache=null",
            "data.count={train:12,dev:3,test:4}", "data.shrink=8", "data.length=512", "data.segment=128",
            "inner.steps=3", "outer.steps=4", "outer.batch_problems=2", "loop.log_every=1", "loop.evaluate_every=2",
            "evaluation.max_new_tokens=4", *given,
        ]  # fmt: skip

    def train(self, root: Path, *more: str) -> int:
        """Run the training command in this process; returns its exit code."""
        from perk.train import main

        return run_here(main, *self.words(root, *more))


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Mini:
    """One layer of random weights behind the tokenizer of the embedded model of stories."""
    import torch
    from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

    from common.language.sources import source_of

    folder = tmp_path_factory.mktemp("mini")
    words = AutoTokenizer.from_pretrained(source_of("tiny_stories"))
    words.save_pretrained(folder)
    torch.manual_seed(0)
    settings = GPTNeoXConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoXForCausalLM(settings).save_pretrained(folder)
    return Mini(folder)


@pytest.fixture(scope="session")
def trained(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of PERK."""
    root = tmp_path_factory.mktemp("trained")
    assert mini.train(root) == 0
    (folder,) = (root / "perk" / "babilong_qa1").iterdir()
    return folder


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Starts the training command in processes of their own."""
    found = Starter("perk.train", "transformers.models.gpt_neox.modeling_gpt_neox", "perk.build", "perk.evaluate")
    with found.process:  # closes its pipes, at which it ends
        yield found


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run of a few steps where the documentation has its own."""
    folder = tmp_path_factory.mktemp("home")
    train(folder / PLACE, steps=1)
    return folder


@pytest.fixture(scope="session")
def reader(home: Path) -> perk.Reader:
    return perk.load(home / PLACE)


@pytest.fixture
def changed(home: Path, tmp_path: Path) -> Callable[..., Path]:
    """The run with other settings in its configuration."""

    def call(**settings: Any) -> Path:
        folder = Path(shutil.copytree(home / PLACE, tmp_path / "changed"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        for key, value in settings.items():
            *path, last = key.split("__")
            part = config
            for name in path:
                part = part[name]
            part[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return call
