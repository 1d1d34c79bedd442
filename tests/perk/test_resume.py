"""A run killed without warning, again and again, ends with the bytes of the run that nobody disturbed."""

from pathlib import Path
from typing import Any

import pytest

from tests.kills import finish_despite_kills
from tests.runs import contents
from tests.starter import Starter

METHODS = {
    "perk": ["inner.stack=true"],
    "ft_icr": ["model.dropout=0.1"],
}


def compare(mini: Any, starter: Starter, root: Path, method: str, *, kills: int, steps: int, seed: int) -> list[str]:
    settings = [f"method={method}", *METHODS[method], f"outer.steps={steps}", "loop.save_every=1"]
    settings += [
        "loop.evaluate_every=5",
        "evaluation.max_new_tokens=1",
        "inner.steps=2",
        "data.count={train:6,dev:1,test:1}",
    ]
    straight, killed = root / "straight", root / "killed"
    starter.start(root / "straight.txt", mini.words(straight, *settings, f"hydra.run.dir='{straight}'"))
    assert starter.wait() == 0, (root / "straight.txt").read_text()
    words = mini.words(killed, *settings, f"hydra.run.dir='{killed}'")
    hits = finish_despite_kills(starter, words, root / "killed.txt", killed, kills, seed)
    expected, found = contents(straight), contents(killed)
    assert expected.keys() == found.keys() and f"checkpoints/step-{steps:06d}/model.safetensors" in expected
    for name in expected:
        assert expected[name] == found[name], name
    return hits


@pytest.mark.parametrize("method", METHODS)
def test_two_kills_leave_no_trace(mini: Any, starter: Starter, tmp_path: Path, method: str) -> None:
    hits = compare(mini, starter, tmp_path, method, kills=2, steps=10, seed=len(method))
    assert len(hits) == 2, "the run ended before it could be killed twice"


@pytest.mark.faults
@pytest.mark.parametrize("method", METHODS)
def test_twenty_kills_leave_no_trace(mini: Any, starter: Starter, tmp_path: Path, method: str) -> None:
    hits = compare(mini, starter, tmp_path, method, kills=20, steps=60, seed=1)
    assert len(hits) == 20, "the run ended before it could be killed twenty times"
    assert {"torn checkpoint", "start", "step"} <= set(hits), hits
