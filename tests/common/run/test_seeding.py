"""Seeds and generator states."""

import random
from typing import Any

import numpy as np
import torch

from common.run.seeding import rng_state, seed_everything, set_deterministic, set_rng_state


def draws() -> tuple[Any, ...]:
    gaussian = [random.gauss(0, 1), np.random.normal()]  # both keep a second value back
    return *gaussian, random.random(), np.random.rand(), torch.rand(3).tolist(), torch.randn(1).item()


def test_the_same_seed_gives_the_same_numbers_everywhere() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(mine != other for mine, other in zip(draws(), first, strict=True))


def test_a_state_taken_in_the_middle_continues_the_same_numbers() -> None:
    seed_everything(0)
    draws()
    state = rng_state()
    expected = [draws() for _ in range(3)]
    seed_everything(9)
    set_rng_state(state)
    assert [draws() for _ in range(3)] == expected


def test_deterministic_mode_sets_the_workspace_before_cuda_can_be_used(monkeypatch: Any) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    import os

    try:
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        set_deterministic(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    assert not torch.are_deterministic_algorithms_enabled()
