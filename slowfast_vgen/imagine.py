"""Episodes whose every chunk but the first is generated, with fast learning on what was generated (Algorithm 1a)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import Seen
from slowfast_vgen.noise import Noise, normal
from slowfast_vgen.sampler import next_chunk, roll_out
from slowfast_vgen.settings import Context
from slowfast_vgen.worlds.episode import NEW


@dataclass
class Spent:
    """Seconds of every generated chunk of a stack of episodes: of the process on a CPU, else of the clock."""

    device: torch.device
    sampling: list[float] = field(default_factory=list)
    learning: list[float] = field(default_factory=list)
    bytes: int = 0
    """Adapter and rule's state of one episode, at the end."""

    @contextmanager
    def counted(self, seconds: list[float]) -> Iterator[None]:
        """Within this block one chunk is sampled or learned."""
        began = self._now()
        yield
        seconds.append(self._now() - began)

    def _now(self) -> float:
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def imagined(
    parts: Parts,
    config: TrainConfig,
    episodes: Seen,
    *,
    every: bool = False,
    learning: bool = True,
    spent: Spent | None = None,
) -> Seen:
    """The same episodes as the model lives them from their first chunk; with its own memories if it has an adapter.

    `every` writes after every chunk, also on the way back; `learning=False` never does. `spent` is filled.
    """
    noise = Noise(config.seed, "imagined")
    memory = [parts.lora.start(episodes.ids)] if parts.lora.attached and learning else []

    def given(chunks: Sequence[Tensor]) -> Tensor:
        looked_at = chunks[-1:] if episodes.context is Context.none else chunks
        return replace(episodes, z=torch.stack(list(looked_at), 1)).past(len(looked_at))

    def generate(past: Tensor, action: Tensor, chunk: int) -> Tensor:
        drawn = normal(noise.keys(episodes.ids, chunk)[:, 0], episodes.z.shape[2:]).to(past)
        with spent.counted(spent.sampling) if spent else nullcontext():
            return next_chunk(parts, config, past, action, drawn, memory[-1].weights if memory else None)

    def learn(past: Tensor, new: Tensor, action: Tensor, chunk: int) -> None:
        if memory and (every or episodes.phases[chunk] == NEW or config.fast.on_return):
            with spent.counted(spent.learning) if spent else nullcontext():
                memory.append(parts.lora.write(memory.pop(), past, new, action))

    chunks = roll_out(generate, episodes.z[:, 0], episodes.actions[:, 1:], learn, given)
    if memory and spent:
        kept = [*memory[-1].weights.values(), *(each for own in memory[-1].state.buffers.values() for each in own)]
        spent.bytes = sum(each.numel() * each.element_size() for each in kept) // len(episodes.ids)
    return replace(episodes, z=torch.stack(list(chunks), 1))
