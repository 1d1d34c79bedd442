"""What the slow-fast loop stores (Algorithm 1b): input, true output, and the memory from before the output was seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from common.engine.weights import Weights
from common.errors import UserError
from common.run.files import write_synced
from slowfast_vgen.episodes import Seen
from slowfast_vgen.noise import Noise, even, normal, strata

FOLDER = "triples"
"""In a run's folder, while a round lasts."""


@dataclass(frozen=True)
class Batch:
    """Triples of one slow step, with noise of their own."""

    clip: Tensor
    """Latents, input then output [triples, frames, values, height, width]."""
    given: int
    """Frames of the input."""
    action: Tensor
    """int64 [triples]"""
    weights: Weights
    """Theta of each triple, a stack."""
    u: Tensor
    """Evenly drawn in [0, 1) [triples]."""
    noise: Tensor
    """As `clip`."""


@dataclass(frozen=True)
class _Stored:
    """The triples of one chunk of all episodes."""

    episodes: Seen
    chunk: int
    place: int
    weights: Weights | Path


class Triples:
    """D_s of a round; memories beyond `budget` bytes lie on disk, in a folder that goes with the round."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder, self.budget, self.held = folder / FOLDER, budget, 0
        self.stored: list[_Stored] = []

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)  # of a round that was killed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, episodes: Seen, chunk: int, place: int, weights: Weights) -> None:
        """Store chunk `chunk` of all episodes with Theta from before it, the `place`-th of the round.

        Raises:
            UserError: the disk is full.
        """
        size = sum(value.numel() * value.element_size() for value in weights.values())
        kept: Weights | Path = {name: value.detach().clone() for name, value in weights.items()}
        if self.held + size > self.budget:
            kept = self._on_disk(weights)
        else:
            self.held += size
        self.stored.append(_Stored(episodes, chunk, place, kept))

    def _on_disk(self, weights: Weights) -> Path:
        from safetensors.torch import save

        path = self.folder / f"{len(self.stored)}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            write_synced(path, save(plain))
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); free space there, or give consolidate.budget_mb what "
                "memory there is"
            ) from error
        return path

    def batches(self, size: int, seed: int, step: int) -> Iterator[Batch]:
        """The triples in an order of the round's own, `size` of one chunk at a time."""
        if not self.stored:
            return
        order = even(Noise(seed, "loop", "order").keys(("all",), step, 0, len(self.stored))[0]).argsort().tolist()
        for which in order:
            stored = self.stored[which]
            episodes, device = stored.episodes, stored.episodes.z.device
            weights = stored.weights
            if isinstance(weights, Path):
                weights = {name: value.to(device) for name, value in load_file(weights).items()}
            past = episodes.past(stored.chunk)
            clip = torch.cat([past, episodes.z[:, stored.chunk]], 1)
            draws = {what: Noise(seed, "loop", what, step, stored.place) for what in ("row", "time", "noise")}
            rows = even(draws["row"].keys(episodes.ids, stored.chunk)[:, 0]).argsort()
            for some in rows.split(size):
                ids = [episodes.ids[row] for row in some.tolist()]
                u = strata(draws["time"].keys(ids, stored.chunk)[:, 0])
                noise = normal(draws["noise"].keys(ids, stored.chunk)[:, 0], clip.shape[1:]).to(clip)
                own = {name: value[some.to(device)] for name, value in weights.items()}
                at = some.to(device)
                yield Batch(clip[at], past.shape[1], episodes.actions[at, stored.chunk], own, u, noise)
