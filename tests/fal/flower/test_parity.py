"""The third engine: five rounds of Flower's simulation end as those in process do, in a stack and in the loop."""

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from fal.train import train
from tests.fal.flower.deployed import apart, config

pytestmark = [pytest.mark.flower, pytest.mark.slow]


@pytest.mark.parametrize("method", ["fat", "feddynat"])
def test_five_rounds_in_float32_are_the_same_in_all_three_engines(tmp_path: Path, method: str) -> None:
    words = [f"method={method}", "federation.rounds=5", "loop.again=true"]
    for name, more in {
        "stack": [], "loop": ["federation.stack=false"], "flower": ["engine=flower_simulation"],
    }.items():  # fmt: skip
        train(config(tmp_path, *words, *more), tmp_path / name)
    assert apart(tmp_path / "stack", tmp_path / "loop") < 1e-5
    assert apart(tmp_path / "stack", tmp_path / "flower") < 1e-5
