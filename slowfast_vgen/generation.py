"""Generate what an episode comes back to, with its own memory and with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import Seen, memories, seen
from slowfast_vgen.imagine import imagined
from slowfast_vgen.memory import Memory
from slowfast_vgen.noise import Noise, normal
from slowfast_vgen.sampler import next_chunk
from slowfast_vgen.scoring import Ints, looks_of
from slowfast_vgen.settings import Control
from slowfast_vgen.worlds.episode import Episodes

Frames = NDArray[np.float64]


def visits(
    parts: Parts, config: TrainConfig, episodes: Episodes, controls: Sequence[Control] = ()
) -> Iterator[tuple[int, dict[Control, Frames], Frames]]:
    """Every chunk that comes back to a place, generated from the true one before it.

    The own memory stands first among the controls; all are own where the network has no adapter yet.

    Returns:
        The chunk, by control its frames [episodes, frames, height, width, 3] in [0, 1], and the true ones as the
        autoencoder gives them.
    """
    there = seen(episodes, parts.latents, config.method, parts.device)
    written = memories(parts.lora, there) if parts.lora.attached else None
    asked = (Control.own, *controls)
    thetas = {each: None if written is None else _controlled(parts, config, there, written, each) for each in asked}
    for chunk in there.visits:
        found = {}
        for control, theta in thetas.items():
            found[control] = _generated(parts, config, there, chunk, None if theta is None else theta[chunk])
        yield chunk, found, _decoded(parts, there.z[:, chunk])


def imagined_looks(parts: Parts, config: TrainConfig, episodes: Episodes) -> dict[Control, Ints]:
    """The picture that each chunk [episodes, chunks] ends on where all but the first are generated: with fast learning
    after every one of them, and without.
    """
    there = seen(episodes, parts.latents, config.method, parts.device)
    found = {}
    for control in (Control.own, Control.none) if parts.lora.attached else (Control.own,):
        z = imagined(parts, config, there, every=True, learning=control is Control.own).z
        found[control] = looks_of(parts.world, _decoded(parts, z[:, :, -1:])[:, :, 0])
    return found


def _controlled(
    parts: Parts, config: TrainConfig, episodes: Seen, written: list[Memory], control: Control
) -> list[Memory] | None:
    """Theta before each chunk under a control; None: no adapter."""
    if control is Control.own:
        return written
    if control is Control.none:
        return None
    if control is Control.swapped:
        return [memory.rolled() for memory in written]
    if control is Control.frozen:
        once = next((memory for memory in written if memory.chunks), written[0])
        return [once] * len(written)
    if control is Control.samples:
        return memories(parts.lora, imagined(parts, config, episodes))
    return memories(parts.lora, episodes, begin=min(episodes.visits))


def _generated(parts: Parts, config: TrainConfig, episodes: Seen, chunk: int, memory: Memory | None) -> Frames:
    keys = Noise(config.seed, "sample").keys(episodes.ids, chunk)[:, 0]
    past = episodes.past(chunk)
    noise = normal(keys, episodes.z.shape[2:]).to(past)
    weights = None if memory is None else memory.weights
    return _decoded(parts, next_chunk(parts, config, past, episodes.actions[:, chunk], noise, weights))


def _decoded(parts: Parts, z: Tensor) -> Frames:
    return parts.latents.decode(z).double().cpu().numpy()
