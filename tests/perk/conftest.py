"""Small data settings for the tests of PERK's data."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from common.schema import to_typed

SMALL = ["scale=cpu", "data.count={train:6,dev:4,test:6}", "data.cache=null"]


@pytest.fixture(scope="session")
def composed() -> Callable[..., Any]:
    """The typed configuration of a command line."""
    import perk.data  # noqa: F401 - registers the schema
    from perk.config import TrainConfig

    def call(*words: str) -> TrainConfig:
        with initialize_config_module("conf.perk", version_base="1.3"):
            return to_typed(compose("config", overrides=list(words)), TrainConfig)

    return call


@pytest.fixture
def small(composed: Callable[..., Any]) -> Callable[..., Any]:
    """Experiment and overrides -> data settings of a few problems without cache."""
    return lambda experiment, *words: composed(f"+experiment={experiment}", *SMALL, *words).data
