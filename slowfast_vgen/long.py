"""Long videos, generated from their first chunk on, and plans: cuts, revisits, actions, Dist, and what they cost.

The walks are random, as in the calibration; fast learning follows every chunk. Their items count in the slice
`@long_walk`, those of the ways out and back, whose actions are read off and carried out, in `@long_plan`. Beside every
number of a generated video stands that of the true one: a frozen video has no cut and revisits itself perfectly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.run.items import Item, OfAll
from common.run.results import Interval
from common.tables.intervals import mean_interval
from slowfast_vgen.build import Parts
from slowfast_vgen.calibration import FRAMES, names_of, visits
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import seen, stacks
from slowfast_vgen.imagine import Spent, imagined
from slowfast_vgen.metrics import revisit
from slowfast_vgen.metrics.cuts import cuts
from slowfast_vgen.metrics.lens import Lens
from slowfast_vgen.metrics.pixels import whole
from slowfast_vgen.planning import can_be_acted_in, fvd, read, reader
from slowfast_vgen.worlds.episode import OUT_AND_BACK, Episodes

LONG, WALK, PLAN = "long", "walk", "plan"
AT_ONCE = 32
"""Walks: one stack of memories."""
Array = NDArray[np.float64]
Frames = NDArray[np.uint8]


@dataclass
class Found:
    """What a further pass over the test split says."""

    items: list[Item] = field(default_factory=list)
    sets: dict[str, OfAll] = field(default_factory=dict)
    metrics: dict[str, Interval] = field(default_factory=dict)
    """What is measured and not counted: seconds, bytes."""


@dataclass(frozen=True)
class _Walks:
    """Some walks, generated, and what counts in them."""

    episodes: Episodes
    scores: dict[str, Array]
    """Metric -> part of every video."""
    made: Array
    """Features of the last frame of every chunk [n, chunks, d]."""
    true: Array


def filmed(parts: Parts, config: TrainConfig, lens: Lens) -> Found:
    """All that `evaluation.videos` asks for beyond the test's own chunks."""
    walks, plans = walked(parts, config, lens), planned(parts, config, lens)
    return Found([*walks.items, *plans.items], plans.sets, walks.metrics)


def walked(parts: Parts, config: TrainConfig, lens: Lens) -> Found:
    """`evaluation.videos` walks: `scuts`, `agreement`, SRC with its scale, and seconds and bytes of generating them."""
    world, count = parts.world, config.evaluation.videos
    chunks = 2 * -(-FRAMES // (2 * world.chunk))
    spent = Spent(parts.device)
    found, sizes = [], []
    for first, size in stacks(count, AT_ONCE):
        episodes = world.clips(config.data.seed, "test", first, size, chunks)
        made = _generated(parts, config, episodes, every=True, spent=spent)
        found.append(_walks(made, episodes, lens))
        sizes += [size] * (chunks - 1)
    return Found(_items(found, lens), metrics=_cost(parts, spent, sizes))


def planned(parts: Parts, config: TrainConfig, lens: Lens) -> Found:
    """Ways out and back of the test split: `dist`, `agreement`, and the distance of their last chunks from true ones;
    nothing in a world that cannot be acted in.
    """
    if not can_be_acted_in(parts.world):
        return Found()
    taken, seed = reader(parts.world, config.data.world), config.data.seed
    items, true, made = [], [], []
    for first, size in stacks(config.evaluation.test, config.evaluation.batch):
        episodes = parts.world.episodes(seed, "test", OUT_AND_BACK, config.length, first, size)
        true.append(episodes.frames)
        made.append(_generated(parts, config, episodes, every=False))
        plan, oracle = (taken(lens, episodes, side[-1], seed, "test") for side in (made, true))
        values = {"dist": plan.dist, "dist_truth": oracle.dist, "agreement": plan.agreement}
        for row, name in enumerate(episodes.ids):
            scores = {metric: (float(each[row]), 1.0) for metric, each in values.items()}
            items.append(Item(f"{name}/{PLAN}", name, scores, {LONG: PLAN}, LONG))
    return Found(items, {f"{lens.fvd}_{PLAN}": fvd(lens, np.concatenate(true), np.concatenate(made))})


def _generated(
    parts: Parts, config: TrainConfig, episodes: Episodes, *, every: bool, spent: Spent | None = None
) -> Frames:
    """The episodes as the model lives them [n, chunks, frames, height, width, 3]; arguments as of `imagined`."""
    there = seen(episodes, parts.latents, config.method, parts.device)
    lived = imagined(parts, config, there, every=every, spent=spent)
    return whole(parts.latents.decode(lived.z).double().cpu().numpy())


def _walks(made: Frames, episodes: Episodes, lens: Lens) -> _Walks:
    scores, features = {}, []
    for end, frames in (("", made), ("_truth", episodes.frames)):
        videos = frames.reshape(len(frames), -1, *frames.shape[3:])
        scores[f"scuts{end}"] = np.array([len(cuts(video)) for video in videos], np.float64)
        scores[f"agreement{end}"] = (read(lens, frames) == episodes.actions[:, 1:]).mean(1)
        ends = lens.places(frames[:, :, -1].reshape(-1, *frames.shape[3:]))
        features.append(ends.reshape(*frames.shape[:2], -1))
    return _Walks(episodes, scores, *features)


def _items(found: list[_Walks], lens: Lens) -> list[Item]:
    names = np.concatenate([names_of(each.episodes, first) for each, first in zip(found, _firsts(found), strict=True)])
    true = np.concatenate([each.true for each in found])
    floor = revisit.floor_of(true.reshape(-1, true.shape[-1]), names.reshape(-1).tolist())
    pairs = [_revisits(each) for each in found]
    ceilings = [one for each in pairs for _, one, _ in each.values()]
    scale = revisit.Scale(floor, float(np.mean(ceilings))) if ceilings else None
    items = []
    for walks, revisits in zip(found, pairs, strict=True):
        for row, name in enumerate(walks.episodes.ids):
            scores = {metric: (float(values[row]), 1.0) for metric, values in walks.scores.items()}
            if scale is not None and row in revisits:
                made, ceiling, apart = revisits[row]
                own = {"": made, "_floor": scale.floor, "_ceiling": ceiling, "_apart": apart}
                if scale.ceiling > scale.floor + revisit.LEAST:
                    own["_rescaled"] = float(scale.rescaled(made))
                scores |= {f"{lens.src}{end}": (value, 1.0) for end, value in own.items()}
            items.append(Item(f"{name}/{WALK}", name, scores, {LONG: WALK}, LONG))
    return items


def _firsts(found: list[_Walks]) -> list[int]:
    return np.cumsum([0, *(len(each.episodes) for each in found[:-1])]).tolist()


def _revisits(walks: _Walks) -> dict[int, tuple[float, float, float]]:
    """Video -> mean similarity of its returns to their first visits, of the true ones, and between its other places."""
    found: dict[int, list[tuple[float, float]]] = {}
    for row, before, later in visits(walks.episodes.places, walks.episodes.gaps):
        made, true = (
            float(revisit.similarity(each[row, before][None], each[row, later][None])[0])
            for each in (walks.made, walks.true)
        )
        found.setdefault(row, []).append((made, true))
    return {
        row: (
            float(np.mean([made for made, _ in values])),
            float(np.mean([true for _, true in values])),
            revisit.floor_of(walks.made[row], walks.episodes.places[row].tolist()),
        )
        for row, values in found.items()
    }


def _cost(parts: Parts, spent: Spent, sizes: list[int]) -> dict[str, Interval]:
    """Seconds of a chunk of one video, the share that learning adds to sampling, and megabytes of weights and state."""
    learning = spent.learning or [0.0] * len(spent.sampling)
    own = [sum(each) for each in zip(spent.sampling, learning, strict=True)]
    kept = sum(weight.numel() * weight.element_size() for weight in parts.slow.now.values()) + spent.bytes
    found = {"seconds": mean_interval(own, range(len(own)), wholes=sizes)}
    if spent.learning:
        found["fast_share"] = mean_interval(learning, range(len(own)), wholes=spent.sampling)
    return found | {"memory_mb": Interval(kept / 1e6, 1, kept / 1e6, kept / 1e6)}
