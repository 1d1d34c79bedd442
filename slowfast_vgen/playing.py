"""Episodes that a user asks for: where they begin, and their chunks with fast learning, without, and with a memory of
another episode."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.errors import UserError
from slowfast_vgen.build import Parts
from slowfast_vgen.config import MethodConfig, TrainConfig
from slowfast_vgen.memory import Memory
from slowfast_vgen.noise import Noise, normal
from slowfast_vgen.sampler import next_chunk, roll_out
from slowfast_vgen.settings import Context, Past
from slowfast_vgen.worlds.episode import Episodes, World

AT_ONCE, TRIED = 256, 8192
"""Random walks that are looked through for one that goes the way that is asked for."""
WITHOUT, WITH, SWAPPED = "without fast learning", "with fast learning", "swapped memory"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """Where the episode begins, and that of another one, which goes the same way from elsewhere."""

    id: str
    frames: NDArray[np.uint8]
    """The first chunk [frames, height, width, 3]."""
    other: NDArray[np.uint8]
    """That of the other one."""
    truth: NDArray[np.uint8] | None = None
    """All chunks as they are in the world [chunks * frames, height, width, 3], where they are known."""


@dataclass(frozen=True)
class Played:
    """What was generated."""

    videos: Mapping[str, NDArray[np.float64]]
    """Label -> [chunks * frames, height, width, 3] from 0 to 1; the first chunk is the given one, decoded."""
    truth: NDArray[np.uint8] | None
    chunk: int
    """Frames of a chunk."""
    memory: Memory
    """At the end; without fast learning an empty one."""


def check_context(method: MethodConfig, run: str) -> None:
    """See that chunks can be generated from generated ones alone.

    Raises:
        UserError: the method is given more of the true episode.
    """
    if method.context is not Context.none:
        raise UserError(
            f"run={run}: method={method.name} is given more than the chunk before (method.context={method.context}), "
            "which an imagined episode does not have; give a run of another method"
        )


def begin(world: World, seed: int, actions: Sequence[int], picture: str | None, item: int) -> Beginning:
    """The first chunk: of a picture, or of the first test walk from `item` on that goes the way `actions` say.

    Raises:
        UserError: the picture is missing, damaged, or of another size.
    """
    walks = world.clips(seed, "test", item, 2, 2)
    if picture is not None:
        still = np.repeat(read(picture, world)[None], world.chunk, 0)
        return Beginning(f"picture/{picture}", still, walks.frames[1, 0])
    for first in range(item, item + TRIED, AT_ONCE):
        found = world.clips(seed, "test", first, AT_ONCE, len(actions) + 1)
        same = np.flatnonzero((found.actions[:, 1:] == actions).all(1))
        if len(same):
            return _known(found, int(same[0]), world, seed)
    log.info("no test walk from %d to %d goes this way: the truth is not known", item, item + TRIED - 1)
    return Beginning(walks.ids[0], walks.frames[0, 0], walks.frames[1, 0])


def _known(found: Episodes, row: int, world: World, seed: int) -> Beginning:
    other = world.clips(seed, "dev", 0, 1, 2).frames[0, 0]
    truth = found.frames[row].reshape(-1, *found.frames.shape[3:])
    log.info("%s goes this way: its chunks are the truth", found.ids[row])
    return Beginning(found.ids[row], found.frames[row, 0], other, truth)


def read(picture: str, world: World) -> NDArray[np.uint8]:
    """A picture as a frame [height, width, 3].

    Raises:
        UserError: it is missing, damaged, or of another size.
    """
    path = Path(picture).expanduser()
    try:
        with Image.open(path) as image:
            frame = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"first={picture}: no picture that can be read ({error}); give a PNG or JPEG") from error
    if frame.shape[:2] != (world.height, world.width):
        raise UserError(
            f"first={picture}: {frame.shape[1]}x{frame.shape[0]} pixels, this run's frames have "
            f"{world.width}x{world.height}; scale the picture to that"
        )
    return frame


@torch.no_grad()
def play(
    parts: Parts, config: TrainConfig, start: Beginning, actions: Sequence[int], memory: Memory | None = None
) -> Played:
    """Generate the chunks; `memory` is what the episode begins with, None: an empty one.

    Both episodes learn in one stack, each its own memory, after every chunk (Algorithm 1a). Then both are generated
    again, each with what the other knew at the time.
    """
    frames = torch.from_numpy(np.stack([start.frames, start.other])).to(parts.device)
    first = parts.latents.encode(frames)
    asked = torch.tensor([list(actions)] * 2, device=parts.device)
    ids = (start.id, f"{start.id}/other")
    frames_given = 1 if config.method.past is Past.frame else len(start.frames)
    noise = Noise(config.seed, "played")

    def rolled(thetas: Sequence[Memory | None], learn: list[Memory] | None = None) -> Tensor:
        """All chunks; chunk j with memory j - 1 of `thetas`, or with the last of `learn`, which grows."""

        def generate(past: Tensor, action: Tensor, chunk: int) -> Tensor:
            theta = learn[-1] if learn is not None else thetas[chunk - 1]
            drawn = normal(noise.keys(ids, chunk)[:, 0], first.shape[1:]).to(past)
            return next_chunk(parts, config, past, action, drawn, None if theta is None else theta.weights)

        def write(past: Tensor, new: Tensor, action: Tensor, chunk: int) -> None:
            if learn is not None:
                learn.append(parts.lora.write(learn[-1], past, new, action))

        return torch.stack(list(roll_out(generate, first, asked, write, lambda z: z[-1][:, -frames_given:])), 1)

    found = {WITHOUT: rolled([None] * len(actions))}
    known = [Memory(ids, {})]
    if parts.lora.attached:
        known = [_both(parts, ids, memory)]
        found[WITH] = rolled([], known)
        found[SWAPPED] = rolled([each.rolled() for each in known])
    videos = {name: parts.latents.decode(z[0]).flatten(0, 1).double().cpu().numpy() for name, z in found.items()}
    return Played(videos, start.truth, len(start.frames), known[-1])


def _both(parts: Parts, ids: tuple[str, str], opened: Memory | None) -> Memory:
    """The memories that both episodes begin with, one stack; only the first may have been opened."""
    empty = parts.lora.start(ids)
    if opened is None:
        return empty
    weights = {name: torch.cat([opened.weights[name], value[1:]]) for name, value in empty.weights.items()}
    return Memory(ids, weights, chunks=opened.chunks)
