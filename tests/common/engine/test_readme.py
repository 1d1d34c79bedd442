"""The engine's page shows how to use it in a few lines each, and those lines run, one after the other."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[3] / "common" / "engine" / "README.md"


@pytest.fixture(scope="module")
def room() -> dict[str, Any]:
    """What the snippets leave behind."""
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    for code in snippets():
        exec(compile(code, str(PAGE), "exec"), found)
    return found


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_first_snippet_meta_learns_sine_waves_and_is_short(room: dict[str, Any]) -> None:
    losses = room["losses"]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert room["rates"].rates().std() > 0.01, "rates have learned, each its own value"
    assert len(snippets()[0].splitlines()) <= 35


def test_the_others_chain_calls_attack_inputs_and_average_stacked_clients(room: dict[str, Any]) -> None:
    assert room["second"].state.count == 4 and all(w.grad.ne(0).any() for w in room["slow"].values())
    away = (room["worst"] - room["images"]).abs().max()
    assert 0.09 < away <= 0.1 + 1e-6
    assert room["minus"]({"x": room["worst"]}, None) < room["minus"]({"x": room["images"]}, None)
    assert room["size"] == 6 and room["net"][1].num_batches_tracked == 3
    assert room["net"][1].running_mean.ne(0).all()


def test_the_snippet_of_adapters_learns_by_episode_and_reaches_the_matrices(room: dict[str, Any]) -> None:
    assert {type(each).__name__ for each in room["unet"].attn_processors.values()} == {"TwiceAttnProcessor"}
    assert all("temp_" in name for name in room["adapter"].matrices())
    before, after = (
        room["episodes_loss"](weights, room["clips"]) for weights in (room["start"], room["episodes"].weights)
    )
    assert after.shape == (3,) and (after <= before).all() and (after < before).any()
    assert any(matrix.grad is not None and matrix.grad.ne(0).any() for matrix in room["adapter"].matrices().values())
    learned = room["episodes"].weights
    assert any(not torch.equal(stacked[0], stacked[1]) for stacked in learned.values()), "episodes differ"
    assert all(torch.equal(room["files"].matrices[name], learned[name][1]) for name in learned)
