"""Whole runs of a second or two on generated shapes."""

from pathlib import Path

from tests.runs import run_here

WORDS = [
    "scale=cpu", "data=shapes", "data.train=240", "data.validation=40", "data.test=60", "data.classes=4",
    "data.cache=null", "partition=skew", "partition.clients=4", "partition.share=0.7", "model=mlp_64",
    "model.hidden=[12]", "model.mean=[0.4]", "model.std=[0.2]", "optimiser.lr=0.1",
    "federation.rounds=4", "federation.local_steps=3", "federation.batch=8", "attack.steps=2",
    "evaluation.dev=20", "evaluation.recent=2", "evaluation.sanity=false", "evaluation.aa_lite=false",
    "loop.log_every=1", "loop.evaluate_every=2", "loop.save_every=1",
]  # fmt: skip


def words(root: Path, *given: str) -> list[str]:
    """A training command; `given` overrides it."""
    return [*WORDS, f"loop.root={root}", *given]


def train(root: Path, *given: str) -> int:
    """Run it in this process; returns its exit code."""
    from fal.train import main

    return run_here(main, *words(root, *given))
