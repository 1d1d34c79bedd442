"""Engines agree in float32: five rounds of real commands, in a stack and in the loop (Flower: tests/fal/flower)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from common.engine.weights import Weights
from fal.build import build
from tests.fal.runs import WORDS
from tests.fal.small import apart

UNDETERMINED = {"method=calfat": 1e-3, "method=trades": 1e-3}
"""Float32 does not decide the signs of their first steps: the divergence that they climb is near 0 where they start."""
LOCALLY = [word for word in WORDS if not word.startswith(("loop.", "federation.rounds"))]


@pytest.mark.parametrize(
    "words",
    [
        ["method=fat"], ["method=sfat", "optimiser=scaffold"], ["method=calfat"], ["method=feddynat"], ["method=dbfat"],
        ["method=free", "attack.steps=1"], ["method=trades", "method.early_exit=true"], ["method=local_at"],
        ["method=fedrbn", "model=cnn_9k", "model.channels=[4]", "model.hidden=[]"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_five_rounds_in_float32_are_the_same_in_a_stack_and_in_the_loop(
    composed: Callable[..., Any], words: list[str]
) -> None:
    def run(stack: bool) -> tuple[Weights, Weights]:
        config = composed(*LOCALLY, *words, f"federation.stack={str(stack).lower()}")
        federation = build(config, torch.device("cpu"), torch.float32).federation
        if stack:
            federation.chunk = lambda work, clients: clients  # type: ignore[method-assign]
        for number in range(1, 6):
            federation.round(number)
        return federation.server.state

    for one, other in zip(run(True), run(False), strict=True):
        assert not one or apart(one, other) < UNDETERMINED.get(words[0], 1e-5)
