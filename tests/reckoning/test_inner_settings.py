"""The ablations of the inner loop from the command line: 1 to 6 steps, static rates, rates a layer, rate spaces."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import only_run

TENSORS, LAYERS, START = 28, 5, 0.01  # of the miniature: wte, wpe, two blocks, ln_f
NUMBERS = {"raw": START, "exp": math.log(START), "softplus": math.log(math.expm1(START))}


@pytest.mark.parametrize(
    ("steps", "space", "per", "learned", "more"),
    [
        (1, "exp", "layer", True, []),
        (2, "raw", "tensor", False, []),
        (3, "softplus", "layer", True, ["inner.stack=true"]),
        (4, "exp", "layer", False, ["evaluation.inner_steps=2"]),
        (5, "raw", "layer", True, ["inner=sgd", "evaluation.inner_steps=6"]),
        (6, "softplus", "tensor", True, ["inner.unroll=recompute"]),
    ],
)
def test_every_number_of_steps_trains_and_answers(
    mini: Any, tmp_path: Path, steps: int, space: str, per: str, learned: bool, more: list[str]
) -> None:
    few = ["outer.steps=1", "data.limit={train:4,dev:1,test:1}", "evaluation.max_new_tokens=2", "loop.evaluate_every=0"]
    words = [f"inner.space={space}", f"inner.per={per}", f"inner.learned={str(learned).lower()}", *more, *few]
    # after inner=sgd, whose file has settings of its own
    assert mini.train(tmp_path, *words, f"inner.steps={steps}", f"inner.lr={START}") == 0
    run = only_run(tmp_path)
    numbers = load_file(run / "checkpoints" / "step-000001" / "rates.safetensors")["numbers"]
    assert numbers.shape == (TENSORS if per == "tensor" else LAYERS, steps)
    start = torch.full_like(numbers, NUMBERS[space])
    if learned:
        assert (numbers != start).all(), "every rate of every step has a gradient"
    else:
        torch.testing.assert_close(numbers, start)
    test = json.loads((run / "results.json").read_text())["test"]
    assert test["accuracy"]["count"] == 3 and test["fact_loss_after"]["value"] < test["fact_loss_before"]["value"]
