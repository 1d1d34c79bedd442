"""Budgets by lines: the first that agrees with the settings counts, and where none does the way out is said."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from common.errors import UserError
from common.run import budget
from common.run.keys import explain

LINES = [
    {"when": {"data.hops": 5, "data.kind": "all"}, "steps": 110, "test": 40},
    {"when": {"data.hops": 5}, "steps": 130},
    {"when": {"data.kind": 0}, "steps": 200, "test": 240},
]


def composed(hops: int | None, kind: str, name: str = "steps") -> Any:
    given = {"experiment": "one", "scale": "cpu", "data": {"hops": hops, "kind": kind}, budget.NAME: LINES}
    return OmegaConf.create({**given, "outer": {"steps": f"${{{budget.NAME}:{name}}}"}})


@pytest.mark.parametrize(
    ("hops", "kind", "name", "value"),
    [(5, "all", "steps", 110), (5, "0", "steps", 130), (5, "0", "test", 240), (None, "0", "steps", 200)],
)
def test_the_first_line_that_agrees_and_has_the_number_gives_it(hops: int, kind: str, name: str, value: int) -> None:
    """Text and number are the same, as `data.distractors` is text."""
    assert composed(hops, kind, name).outer.steps == value


def test_without_a_line_the_way_out_is_said() -> None:
    with pytest.raises(Exception) as raised:
        _ = composed(7, "all").outer.steps
    said = explain(raised.value)  # type: ignore[arg-type]
    assert isinstance(said, UserError)
    assert str(said) == (
        "outer.steps: the budget of experiment=one, scale=cpu has no steps for data.hops=7, data.kind=all; give "
        "outer.steps=<number>, or a line in conf/<paper>/budget/one_cpu.yaml"
    )
