"""A run of a few steps, and texts to memorise with it."""

from pathlib import Path

from torch import Tensor

from tests.runs import run_here

ROOT = Path(__file__).parents[2]
PLACE = "runs/perk/babilong_qa1/scale-cpu"
"""Where the documentation has its run."""
TINY = [
    "+experiment=babilong_qa1", "scale=cpu", "data.count={train:2,dev:1,test:3}", "data.length=384", "data.segment=128",
    "data.shrink=8", "data.cache=null",
    "runtime.dtype=float64", "outer.batch_problems=2", "loop.log_every=1", "loop.evaluate_every=0",
    "evaluation.max_new_tokens=24",
]  # fmt: skip
SHORT = ["data.count={train:1,dev:1,test:1}", "outer.batch_problems=1", "evaluation.max_new_tokens=1"]
MARY = ["mary went to the kitchen.", "the river was cold.", "john went to the garden. the night was long."]
MORE = ["mary went to the office.", "john took the football."]
QUESTIONS = ["Where is Mary?", "Where is John?"]


def train(place: Path, *words: str, steps: int) -> Path:
    from perk.train import main

    assert run_here(main, *TINY, f"outer.steps={steps}", *words, f"hydra.run.dir={place}") == 0
    return place


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(value.equal(b[name]) for name, value in a.items())


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest entry of its tensor."""
    assert a.keys() == b.keys()
    return max(((a[name] - b[name]).abs().max() / b[name].abs().max()).item() for name in b)
