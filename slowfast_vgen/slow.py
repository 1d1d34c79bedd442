"""Slow learning: Phi, its running mean, and the loss of a batch of clips (Section 3.1.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.adapter import MATRICES
from slowfast_vgen.diffusion.diffusion import Diffusion
from slowfast_vgen.noise import Noise, even, normal, strata
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.settings import SlowConfig

FIRST = 20
"""The mean of the first steps is that of about step / FIRST of them, so that the start is soon forgotten."""


class SlowWeights:
    """Phi: the weights of a network without its adapter, under the names that they have without one.

    While `keep` is above 0 a running mean is kept beside them, which is what is tested and what goes on.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self.now = {name: weight for name, weight in network.named_parameters() if MATRICES not in name}
        self.keep = keep
        self.mean = {name: weight.detach().clone() for name, weight in self.now.items()} if keep else {}

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Let the mean follow after `step`, counted from 1."""
        keep = min(self.keep, (step + 1) / (step + FIRST))
        for name, mean in self.mean.items():
            mean.lerp_(self.now[name], 1 - keep)

    @torch.no_grad()
    def settle(self) -> None:
        """Go on from the mean, without one from here on."""
        for name, mean in self.mean.items():
            self.now[name].copy_(mean)
        self.mean = {}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has the mean in the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mean in self.mean.items():
            own = self.now[name].clone()
            self.now[name].copy_(mean)
            mean.copy_(own)

    def digest(self) -> str:
        """A hash of all that counts: the mean where there is one, else the weights."""
        found = hashlib.sha256()
        for name, weight in (self.mean or self.now).items():
            found.update(f"{name} {list(weight.shape)}".encode())
            found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        """Weights and mean."""
        return {"now": {name: weight.detach() for name, weight in self.now.items()}, "mean": dict(self.mean)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            RuntimeError: names or shapes differ.
        """
        if state["now"].keys() != self.now.keys():
            raise RuntimeError(f"other weights here: {sorted(state['now'].keys() ^ self.now.keys())[:4]}")
        for name, value in state["now"].items():
            self.now[name].copy_(value)
        self.mean = {name: value.to(self.now[name]).clone() for name, value in state["mean"].items()}


def slow_loss(
    network: nn.Module,
    diffusion: Diffusion,
    config: SlowConfig,
    seed: int,
    ids: Sequence[str],
    z: Tensor,
    action: Tensor,
    new: int,
) -> Tensor:
    """Eq. 2 of a batch of clips, as many of each kind as the shares say; shape [].

    The first clips are given no frame and no action, the last ones one frame, those between all of the past.

    Args:
        network, diffusion: as `denoising_loss` takes them.
        config: `slow.*`.
        seed: of noise, times and dropped actions, which are each clip's own.
        ids: of the clips.
        z: latents [n, frames, values, height, width], the past and then the new chunk.
        action: int64 [n]: what leads into the new chunk.
        new: frames of it.
    """
    count, past = len(ids), z.shape[1] - new
    alone = round(config.no_past * count)
    first = min(round(config.one_frame * count), count - alone)
    keys = {what: Noise(seed, "slow", what).keys(ids, 0)[:, 0] for what in ("noise", "time", "action")}
    place = torch.arange(count)
    dropped = (even(keys["action"]) < config.action_dropout) | (place < alone)
    action = torch.where(dropped.to(action.device), 0, action)
    noise = normal(keys["noise"], z.shape[1:]).to(z)
    kinds = ((0, alone), (alone, count - first), (count - first, count))
    t = diffusion.times(torch.cat([strata(keys["time"][start:end]) for start, end in kinds])).to(z)
    total = z.new_zeros(())
    for rows, skipped, given in (
        (slice(0, count - first), 0, torch.where(place < alone, 0, past)),
        (slice(count - first, count), past - 1, torch.ones_like(place)),
    ):
        if rows.start < rows.stop:
            clips = z[rows, skipped:]
            clean = (torch.arange(clips.shape[1]) < given[rows, None]).to(z.device)
            own = noise[rows, skipped:]
            total = total + denoising_loss(network, diffusion, clips, action[rows], clean, t[rows], own).sum()
    return total / count
