"""The engine's page shows how to meta-learn any module in a few lines, and those lines run."""

import re
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"


def test_the_first_snippet_of_the_engines_page_meta_learns_sine_waves() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    room: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(code, str(PAGE), "exec"), room)
    losses = room["losses"]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert room["rates"].rates().std() > 0.01, "rates have learned, each its own value"
    assert len(code.splitlines()) <= 35
