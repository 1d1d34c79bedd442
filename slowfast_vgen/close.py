"""Generated chunks through frozen networks: LPIPS of each, and the Frechet distance of all from the true ones.

A clip is the true chunk before and the generated one, of every episode the first chunk that comes back. Beside the
distance stands that of as many true clips of other episodes: what is left when nothing is wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.run.items import OfAll
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.metrics.frechet import frechet
from slowfast_vgen.metrics.lens import Lens, lens_of
from slowfast_vgen.metrics.pixels import whole
from slowfast_vgen.worlds.episode import Episodes

Array = NDArray[np.float64]
REAL = "real"


class Close:
    """Collects the chunks of a test, batch by batch."""

    def __init__(self, parts: Parts, config: TrainConfig, lens: Lens | None = None) -> None:
        """For the chunks of a test; without a `lens` the one that the settings name.

        Raises:
            UserError: as `lens_of`.
        """
        self.world, self.config = parts.world, config
        self.lens = lens or lens_of(parts.world, config.data, config.features)
        self.groups: list[str] = []
        self.clips: dict[str, list[Array]] = {"true": [], "made": [], REAL: []}

    def scores(self, episodes: Episodes, chunk: int, frames: Array) -> dict[str, Array]:
        """LPIPS times 100 of a chunk of every episode; the first chunk of an episode is kept for `sets`.

        Args:
            episodes: in truth.
            chunk: which one was generated.
            frames: it [episodes, frames, height, width, 3] in [0, 1].
        """
        made, true = whole(frames), episodes.frames[:, chunk]
        if episodes.ids[0] not in self.groups:
            self._keep(episodes, chunk, made)
        pair = (each.reshape(-1, *each.shape[2:]) for each in (made, true))
        return {self.lens.perceptual: 100 * self.lens.lpips(*pair).reshape(len(made), -1).mean(1)}

    def sets(self) -> dict[str, OfAll]:
        """The Frechet distances, each with its value without every episode."""
        true, made, real = (np.concatenate(each) for each in self.clips.values())
        return {
            self.lens.fvd: frechet(true, made, self.groups),
            f"{self.lens.fvd}_{REAL}": frechet(true, real, self.groups),
        }

    def _keep(self, episodes: Episodes, chunk: int, made: NDArray[np.uint8]) -> None:
        asked, first = self.config.evaluation, self.config.evaluation.test + len(self.groups)
        further = self.world.episodes(
            self.config.data.seed, "test", asked.family, self.config.length, first, len(episodes)
        )
        before = episodes.frames[:, chunk - 1]
        sides = (np.concatenate([before, episodes.frames[:, chunk]], 1), np.concatenate([before, made], 1),
                 np.concatenate([further.frames[:, chunk - 1], further.frames[:, chunk]], 1))  # fmt: skip
        for kept, clips in zip(self.clips.values(), sides, strict=True):
            kept.append(self.lens.motions(clips))
        self.groups += episodes.ids
