"""Small data settings for the tests of PERK's data."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from common.schema import to_typed
from perk.config import TrainConfig

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
