"""A step of slow learning, and one of what follows it: fine-tuning, the slow-fast loop, or through the fast steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.engine import settings
from common.engine.outer import Outer
from common.engine.settings import Schedule
from common.engine.weights import norm
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import Seen, memories, seen
from slowfast_vgen.imagine import imagined
from slowfast_vgen.loop import Triples
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.outer import calibrate, outer_loss, shifted, targets
from slowfast_vgen.settings import Inner, OptimiserConfig, Stage
from slowfast_vgen.slow import slow_loss


class Optimiser:
    """AdamW of the stage that a run is in: slow learning, then what follows it."""

    def __init__(self, parts: Parts, config: TrainConfig) -> None:
        self.parts, self.config = parts, config
        self.second = False
        self.outer = self._made(config.slow, config.slow.steps)

    def _made(self, config: OptimiserConfig, total: int, rates_lr: float = 0.0) -> Outer:
        named = ("lr", "beta1", "beta2", "eps", "weight_decay", "clip", "warmup")
        keys = {name: getattr(config, name) for name in named}
        rates = self.parts.lora.rates if self.parts.lora.attached and self.config.fast.learned else None
        engine = settings.OuterConfig(**keys, rates_lr=rates_lr)
        return Outer(engine, self.parts.network, rates, total, Schedule.cosine)

    def begin_second(self) -> None:
        """A fresh optimiser for what follows slow learning."""
        outer = self.config.outer
        self.second = True
        self.outer = self._made(outer, outer.steps * steps_of_round(self.config), outer.rates_lr)

    def step(self, loss: Tensor) -> dict[str, float]:
        """Step on a loss; what to log of it.

        Raises:
            UserError: the run has diverged.
        """
        value = self.outer.accumulate(loss)
        return {"outer_loss" if self.second else "loss": value, "grad_norm": self.outer.step()}

    def state_dict(self) -> dict[str, Any]:
        """Which stage, and its moments."""
        return {"second": self.second, "outer": self.outer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the parts are as they were then."""
        if state["second"] and not self.second:
            self.begin_second()
        self.outer.load_state_dict(state["outer"])


def slow_batch_loss(parts: Parts, config: TrainConfig, step: int) -> Tensor:
    """Eq. 2 of the clips of a step, counted from 1."""
    batch, chunks = config.slow.batch, config.clip
    clips = parts.world.clips(config.seed, "train", (step - 1) * batch, batch, chunks)
    with torch.no_grad():
        there = seen(clips, parts.latents, config.method, parts.device)
        new = there.z[:, -1]
        z = torch.cat([there.past(chunks - 1), new], 1)
    args = (parts.network, parts.diffusion, config.slow, config.seed, clips.ids)
    return slow_loss(*args, z, there.actions[:, -1], new.shape[1])


def begin_outer(parts: Parts, config: TrainConfig, optimiser: Optimiser) -> None:
    """Go on from the mean of the slow weights; with an adapter where the stage has memories."""
    parts.slow.settle()
    if config.method.stage in (Stage.loop, Stage.meta):
        parts.lora.attach()
        if config.fast.first_move is not None:
            calibrate(parts.lora, training_episodes(parts, config, 0), config.fast.first_move)
    optimiser.begin_second()


def outer_step(
    parts: Parts, config: TrainConfig, optimiser: Optimiser, step: int, folder: Path, shown: bool = True
) -> dict[str, float]:
    """One step, counted from 1, or one round of the loop; what to log of it.

    `shown`: whether it will be logged, so that what takes a further pass is measured.
    """
    episodes = training_episodes(parts, config, step)
    chunks = targets(episodes, config.outer, config.seed, step)
    if config.method.stage is Stage.loop:
        return loop_round(parts, config, optimiser, episodes, chunks, step, folder, shown)
    written = None
    if config.method.stage is Stage.meta:
        written = memories(parts.lora, episodes, config.inner.unroll)
    args = (parts.network, parts.diffusion, episodes, written, chunks, config.seed, config.outer.shift)
    found = optimiser.step(outer_loss(*args))
    if config.fast.learned:
        found |= {f"rates/{name}": value for name, value in parts.lora.rates.summary().items()}
    return found


def training_episodes(parts: Parts, config: TrainConfig, step: int) -> Seen:
    """The episodes of an outer step; of step 0 those that learned rates begin with."""
    outer = config.outer
    family = outer.families[step % len(outer.families)]
    found = parts.world.episodes(config.seed, "train", family, outer.length, step * outer.episodes, outer.episodes)
    with torch.no_grad():
        return seen(found, parts.latents, config.method, parts.device)


def loop_round(
    parts: Parts,
    config: TrainConfig,
    optimiser: Optimiser,
    episodes: Seen,
    chunks: list[int],
    step: int,
    folder: Path,
    shown: bool,
) -> dict[str, float]:
    """Algorithm 1(b): store {X_i, X_i+1, Theta_i} of all episodes, then step Phi on the triples, Theta as stored."""
    lived = imagined(parts, config, episodes) if config.consolidate.inner is Inner.samples else episodes
    written = [memory.detached() for memory in memories(parts.lora, lived)]
    with Triples(folder, config.consolidate.budget_mb * 2**20) as triples:
        for place, chunk in enumerate(chunks):
            triples.add(episodes, chunk, place, written[chunk].weights)
        losses = []
        for part in triples.batches(config.consolidate.batch, config.seed, step):
            clean = (torch.arange(part.clip.shape[1], device=parts.device) < part.given).expand(len(part.clip), -1)
            t = parts.diffusion.times(shifted(part.u, config.outer.shift)).to(part.clip)
            loss = denoising_loss(
                parts.network, parts.diffusion, part.clip, part.action, clean, t, part.noise, part.weights
            )
            losses.append(optimiser.step(loss.mean()))
    found = {name: sum(each[name] for each in losses) / len(losses) for name in losses[0]}
    if not shown:
        return found
    again = memories(parts.lora, lived)[-1].weights  # by the Phi that the stored Theta have become stale to
    stale = norm([again[name] - value for name, value in written[-1].weights.items()])
    return found | {"staleness": float(stale / norm(list(written[-1].weights.values())).clamp(min=1e-12))}


def steps_of_round(config: TrainConfig) -> int:
    """Steps of Phi in one outer step: one, or one for each batch of a round's triples."""
    if config.method.stage is not Stage.loop:
        return 1
    outer = config.outer
    return (outer.replay + outer.returns + outer.new) * -(-outer.episodes // config.consolidate.batch)
