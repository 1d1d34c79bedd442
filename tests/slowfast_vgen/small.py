"""Parts of a run in a world so small that a step takes milliseconds."""

from __future__ import annotations

import torch
from hydra import compose, initialize_config_module

import slowfast_vgen.train  # noqa: F401  registers the schema
from common.run.schema import to_typed
from slowfast_vgen.build import Parts, build
from slowfast_vgen.config import TrainConfig

SMALL = (
    "+experiment=rooms", "scale=cpu", "model.widths=[16]", "model.head=8", "model.depth=1", "diffusion.steps=2",
    "latents.values=4", "slow.batch=8", "slow.steps=4", "outer.episodes=4", "outer.steps=3", "evaluation.dev=4",
    "evaluation.test=6", "evaluation.batch=4", "fast.rank=2",
)  # fmt: skip
"""Words for the command line."""


def config(*words: str) -> TrainConfig:
    """What the words compose on top of `SMALL`."""
    with initialize_config_module("conf.slowfast_vgen", version_base=None):
        return to_typed(compose("config", overrides=[*SMALL, *words]), TrainConfig)


def parts(*words: str, seed: int = 0, stirred: bool = True) -> tuple[Parts, TrainConfig]:
    """Parts whose network says something: a fresh one predicts 0 whatever it is given."""
    asked = config(f"seed={seed}", *words)
    found = build(asked, torch.device("cpu"), torch.float32)
    if stirred:
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in found.network.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
        now = found.slow.state_dict()["now"]
        found.slow.load_state_dict({"now": now, "mean": now})
    return found, asked
