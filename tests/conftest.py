"""What every test starts from: one thread, fixed seeds, no network, no keys."""

import logging
import os
import random
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before torch is imported anywhere; subprocesses and xdist workers inherit them.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)

CHECKOUT = Path(__file__).parents[1]
DATA_VARIABLE = "INNERLOOP_DATA"
GIVEN_DATA = os.environ.get(DATA_VARIABLE)  # read before any test hides it


@pytest.fixture(autouse=True)
def same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seeds for every test, and nothing of the developer's: no data folder, no W&B key."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def same_end() -> Iterator[None]:
    """Commands that ran in this process leave handlers that write where pytest no longer listens."""
    before = list(logging.root.handlers)
    yield
    for handler in logging.root.handlers[:]:
        if handler not in before and type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: $INNERLOOP_DATA, or shared/data in the checkout or in a folder above it."""
    candidates = [Path(GIVEN_DATA)] if GIVEN_DATA else [p / "shared" / "data" for p in (CHECKOUT, *CHECKOUT.parents)]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    pytest.skip(f"no real data: set {DATA_VARIABLE} to the folder that holds them (looked at {candidates[0]})")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none")
    if item.get_closest_marker("flower") and not find_spec("flwr"):
        pytest.skip("no Flower: make setup-flower")
    if item.get_closest_marker("slurm"):
        from tests.slurm.node import obstacle

        if reason := obstacle():
            pytest.skip(f"no SLURM: {reason}")
