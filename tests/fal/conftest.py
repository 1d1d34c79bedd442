"""Typed configurations of command lines."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from common.run.schema import to_typed


@pytest.fixture(scope="session")
def composed() -> Callable[..., Any]:
    """The typed configuration of a command line."""
    import fal.data  # noqa: F401 - registers the schema
    from fal.config import TrainConfig

    def call(*words: str) -> TrainConfig:
        with initialize_config_module("conf.fal", version_base="1.3"):
            return to_typed(compose("config", overrides=list(words)), TrainConfig)

    return call
