"""How well the next chunk is foreseen without memory: frame by frame, split by split, beside copying the last frame.

`expected` is the PSNR in dB of the mean of all futures, which one pass of the network from pure noise gives, `sampled`
that of a sample, `copied` that of the last given frame. Where the future is open a mean is blurred and has the better
PSNR for it, so both stand there. `expected@dev_2` is of the second frame of the chunk, `expected@dev_all` of all of it;
`expected_gain` and `sampled_gain` are what they are better by than copying, clip by clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from common.data.splits import SPLITS
from common.run.items import Item
from common.run.results import Interval
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import seen
from slowfast_vgen.metrics.pixels import psnr
from slowfast_vgen.noise import Noise, normal
from slowfast_vgen.sampler import sample
from slowfast_vgen.scoring import Floats
from slowfast_vgen.worlds.episode import Episodes, World
from slowfast_vgen.worlds.recorded import Recorded

MEAN, SAMPLE, COPY = "expected", "sampled", "copied"
WHOLE = "all"
"""In place of a frame's number: the chunk as a whole."""


def foreseen(parts: Parts, config: TrainConfig) -> list[Item]:
    """Items of `evaluation.ahead` clips of each split, one for each frame of the new chunk and one for all of it;
    none of a method that copies, which foresees nothing.
    """
    if config.method.copies:
        return []
    return [item for split in SPLITS for item in _of_split(parts, config, split)]


def told(found: Mapping[str, Interval], world: World) -> Iterator[str]:
    """A line for each split and frame, of what `slowfast_vgen.scoring.summarise` made of the items."""
    places = [where for metric, _, where in (name.partition("@") for name in found) if metric == COPY]
    for where in sorted(places, key=lambda each: SPLITS.index(each.partition("_")[0])):
        split, _, frame = where.partition("_")
        values = [f"copy {found[f'{COPY}@{where}'].value:.1f} dB"]
        for each in (MEAN, SAMPLE):
            gain = found[f"{each}_gain@{where}"]
            own = found[f"{each}@{where}"].value
            values.append(f"{each} {own:.1f} ({gain.value:+.1f}, {gain.low:+.1f} to {gain.high:+.1f})")
        shown = "all frames" if frame == WHOLE else f"frame {frame}"
        yield f"{split}{_recorded(world, split)}, {shown}: {', '.join(values)}"


def _of_split(parts: Parts, config: TrainConfig, split: str) -> Iterator[Item]:
    clips, groups = _clips(parts.world, config, split)
    size = config.evaluation.batch
    for first in range(0, len(clips), size):
        rows = range(first, min(first + size, len(clips)))
        some = clips.at(rows)
        truth = some.frames[:, -1]
        made: dict[str, NDArray[np.generic]] = {COPY: some.frames[:, -2, -1:].repeat(truth.shape[1], 1)}
        made |= _generated(parts, config, some)
        parted: dict[int | str, slice] = {frame + 1: slice(frame, frame + 1) for frame in range(truth.shape[1])}
        for frame, shown in (parted | {WHOLE: slice(None)}).items():
            values = {name: psnr(frames[:, shown], truth[:, shown]) for name, frames in made.items()}
            values |= {f"{name}_gain": values[name] - values[COPY] for name in (MEAN, SAMPLE)}
            for row, own in enumerate(rows):
                scores = {name: (float(each[row]), 1.0) for name, each in values.items()}
                yield Item(f"{some.ids[row]}/ahead/{frame}", groups[own], scores, {split: frame}, split)


def _clips(world: World, config: TrainConfig, split: str) -> tuple[Episodes, tuple[str, ...]]:
    """Clips, and what each hangs on: itself, or a moment of a recording."""
    count, chunks = config.evaluation.ahead, config.clip
    if isinstance(world, Recorded):
        return world.through(split, count, chunks)
    clips = world.clips(config.data.seed, split, 0, count, chunks)
    return clips, clips.ids


def _generated(parts: Parts, config: TrainConfig, clips: Episodes) -> dict[str, Floats]:
    with torch.no_grad():
        there = seen(clips, parts.latents, config.method, parts.device)
        past = there.past(clips.chunks - 1)
        keys = Noise(config.seed, "ahead").keys(clips.ids, clips.chunks - 1)[:, 0]
        noise = normal(keys, there.z.shape[2:]).to(past)
        found = {}
        for name, steps in ((MEAN, 1), (SAMPLE, config.diffusion.steps)):
            z = sample(parts.network, parts.diffusion, past, there.actions[:, -1], noise, steps=steps)
            found[name] = parts.latents.decode(z).double().cpu().numpy()
    return found


def _recorded(world: World, split: str) -> str:
    """The recording that a split is, in brackets."""
    names = {each.name for each in world.splits[split]} if isinstance(world, Recorded) else set()
    return f" ({names.pop()})" if len(names) == 1 else ""
