"""The outer gradient through fast learning as one would write it in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from scripts.benchmark.slowfast_bench import Bench
from slowfast_vgen.memory import Pair

Fast = dict[str, Tensor]


class Plain:
    """`torch.func.grad` under `vmap` over the episodes; every step's graph is kept."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def outer(self) -> None:
        """Gradients for all that learns."""
        bench, lora, case = self.bench, self.bench.lora, self.bench.case
        fast = lora.start(bench.ids).weights
        for chunk in range(case.chunks):
            pair = Pair(torch.cat([bench.z[:, chunk], bench.z[:, chunk + 1]], 1), bench.z.shape[2], bench.action)
            batch = lora._batch(bench.ids, (), pair, chunk, 0)
            rows = [part.unflatten(0, (case.episodes, case.draws)) for part in batch]
            gradients = vmap(grad(self._loss))(fast, *rows)
            fast = {name: value - lora.config.lr * gradients[name] for name, value in fast.items()}
        clip, clean, t, noise = bench.asked()
        rows = [part[:, None] for part in (clip, bench.action, clean, t, noise)]
        vmap(self._loss)(fast, *rows).sum().backward()

    def _loss(self, fast: Fast, clip: Tensor, action: Tensor, clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Of one episode; clip [draws, frames, ...]."""
        diffusion, given = self.bench.diffusion, clean[:, :, None, None, None]
        x = torch.where(given, clip, diffusion.noised(clip, noise, t))
        out = functional_call(self.bench.network, fast, (x, t[:, None].expand(clean.shape), action, clean))
        error = (out - diffusion.target(clip, noise, t)).square().mean((2, 3, 4))
        return (torch.where(clean, 0, error).sum(1) / (~clean).sum(1)).mean()
