"""What every metric says of videos whose faults are known: the truth spoilt in nine ways.

Nothing is generated here. A metric that does not tell a spoilt video from the truth will not tell a model's, either, so
the table stands beside every result. What each cell should say (`UNSEEN`) follows from what the metric measures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.tables.estimates import Jackknife, over_items
from common.tables.grid import grid
from common.tables.intervals import mean_interval
from slowfast_vgen.metrics import frechet, pixels, revisit
from slowfast_vgen.metrics.cuts import cuts
from slowfast_vgen.metrics.spoilt import SPOILT, Video, middle

if TYPE_CHECKING:
    from rich.table import Table

    from slowfast_vgen.metrics.lens import Lens
    from slowfast_vgen.worlds.episode import Episodes, World

Array = NDArray[np.float64]
TRUTH, OTHER = "truth", "other world"
FRAMES = 64
"""Of a video, at the least: PySceneDetect's scenes have 15."""
COUNT = 320
"""Videos: ten for each feature of FVD-world."""
AT_ONCE = 32
"""Videos that are in memory at once."""
ASKED = 4
"""Chunks on each side of the middle whose action is asked for."""
METRICS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS-world",
    "src": "SRC-world",
    "fvd": "FVD-world",
    "scuts": "SCuts",
    "agreement": "agreement",
    "place": "place",
}
"""Metric -> its heading with the world's own encoders. SRC is rescaled; agreement is the share of chunks that show the
motion that was asked for."""
MORE_IS_WORSE = ("lpips", "scuts", "fvd")
UNSEEN: Mapping[str, tuple[str, ...]] = {
    "psnr": (),
    "ssim": (),
    "lpips": (),
    "src": ("freeze", "blur"),
    "fvd": ("other world",),
    "scuts": tuple(name for name in SPOILT if name != "splice"),
    "agreement": ("noise", "blur"),
    "place": ("noise", "blur"),
}
"""Metric -> what it cannot tell from the truth, by what it measures. A frozen video is the most consistent of all,
one that is blurred throughout as consistent as the truth; a distribution of clips is the same in another episode."""
LEAST = 0.005
"""Smaller differences are those of rounding."""


@dataclass(frozen=True)
class Cell:
    """A metric's value of one row."""

    value: float
    seen: bool
    """Is it worse than that of the truth, beyond the interval of the difference over videos? Of FVD: than that of
    as many true clips of other episodes?"""
    expected: bool
    """Should it be?"""

    def __str__(self) -> str:
        text = f"{self.value:.2f}" if self.seen else f"({self.value:.2f})"
        return text if self.seen == self.expected else f"{text} !"


@dataclass(frozen=True)
class Calibration:
    """The table, and the scale of SRC."""

    cells: Mapping[str, Mapping[str, Cell]]
    """Row -> metric -> cell; a metric that the world does not have is left out."""
    scale: revisit.Scale | None
    videos: int
    frames: int
    """Of a video."""
    headings: Mapping[str, str] = field(default_factory=lambda: dict(METRICS))
    """Metric -> what it is called."""

    def surprises(self) -> list[str]:
        """Where a metric saw what it should not, or did not see what it should."""
        return [
            f"{self.headings[metric]} {'tells' if cell.seen else 'does not tell'} {row} from the truth"
            for row, cells in self.cells.items()
            for metric, cell in cells.items()
            if cell.seen != cell.expected
        ]

    def lines(self) -> list[dict[str, Any]]:
        """For `table.jsonl`: a head, then a row with its values, what is not told from the truth in it, and where that
        is not what the metric should say.
        """
        note = "Not told: metrics that do not tell the row from the truth beyond the interval; ! where they should."
        found: list[dict[str, Any]] = [{"title": self.title, "note": note}]
        for row, cells in self.cells.items():
            missed = [
                f"{self.headings[metric]}{' !' if cell.expected else ''}"
                for metric, cell in cells.items()
                if row != TRUTH and not cell.seen
            ]
            values = {self.headings[metric]: [cell.value] for metric, cell in cells.items()}
            found.append({"cell": len(found), "video": row, "not told": ", ".join(missed), "values": values})
        return found

    @property
    def title(self) -> str:
        """Of the table."""
        return f"Calibration on {self.videos} true videos of {self.frames} frames"

    def table(self) -> Table:
        """For a terminal: (value) where it is not told from the truth, ! where that is not what it should say."""
        metrics = list(self.cells[TRUTH])
        rows = [[row, *(str(cells[metric]) for metric in metrics)] for row, cells in self.cells.items()]
        return grid(self.title, ["video", *(self.headings[metric] for metric in metrics)], rows)


def calibrate(world: World, lens: Lens, seed: int, count: int = COUNT) -> Calibration:
    """Score the truth and its spoilt forms.

    Args:
        world: its test split's random walks are the truth; the walks after them are the other episodes.
        lens: what the metrics look through.
        seed: of the walks and of the draws.
        count: videos.
    """
    chunks = 2 * -(-FRAMES // (2 * world.chunk))
    scored: dict[str, dict[str, list[Array]]] = defaultdict(lambda: defaultdict(list))
    draws = np.random.default_rng(seed)
    for first in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - first)
        episodes = world.clips(seed, "test", first, some, chunks)
        video = _video(episodes)
        other = _video(world.clips(seed, "test", count + first, some, chunks))
        made = {TRUTH: video, **{name: spoil(video, other, world.chunk, draws) for name, spoil in SPOILT.items()}}
        for row, each in made.items():
            for name, part in _scores(each, video, episodes, world, lens).items():
                scored[row][name].append(part)
    values = {row: {name: np.concatenate(parts) for name, parts in found.items()} for row, found in scored.items()}
    scale = _scale(values[TRUTH])
    apart = _distances(values)
    cells = {row: _cells(row, found, values[TRUTH], scale, apart[row]) for row, found in values.items()}
    return Calibration(cells, scale, count, chunks * world.chunk, headings(lens))


def headings(lens: Lens) -> dict[str, str]:
    """Metric -> its heading: those of `METRICS`, without "-world" where the network is the published one."""
    published = [name for name in (lens.src, lens.fvd, lens.perceptual) if name in METRICS]
    return {name: each.removesuffix("-world") if name in published else each for name, each in METRICS.items()}


def visits(places: NDArray[np.int64], gaps: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(episode, chunk of the first visit, chunk of a later one) of every return from outside the window.

    Args:
        places: [episodes, chunks], -1 where unknown.
        gaps: [episodes, chunks], as in `Episodes`.
    """
    found = []
    for episode, chunk in np.argwhere((gaps > 0) & (places >= 0)).tolist():
        found.append((episode, int(np.argmax(places[episode] == places[episode, chunk])), chunk))
    return found


def names_of(episodes: Episodes, first: int = 0) -> NDArray[np.int64]:
    """What must differ for two frames to be unrelated [episodes, chunks]: the picture, without a catalogue the episode.

    `first` is the number of the first episode.
    """
    return np.where(episodes.looks >= 0, episodes.looks, -1 - first - np.arange(len(episodes))[:, None])


def _video(episodes: Episodes) -> Video:
    frames = episodes.frames
    return pixels.unit(frames.reshape(len(episodes), -1, *frames.shape[3:]))


def _scores(made: Video, truth: Video, episodes: Episodes, world: World, lens: Lens) -> dict[str, Array]:
    """Values of every video [n], and what the numbers of all videos are made of [..., features]."""
    shown = np.rint(made * 255).astype(np.uint8)
    chunk, (videos, frames), size = world.chunk, made.shape[:2], made.shape[2:]
    ends = shown[:, chunk - 1 :: chunk].reshape(-1, *size)
    wanted = truth[:, chunk - 1 :: chunk].reshape(-1, *size)
    start = middle(frames, chunk)
    found = {
        "psnr": _by_video(pixels.psnr(ends, wanted), videos),
        "ssim": 100 * _by_video(pixels.ssim(ends, wanted), videos),
        "lpips": 100 * _by_video(lens.lpips(ends, wanted), videos),
        "fvd": lens.motions(shown[:, start - chunk : start + chunk]),
        "scuts": np.array([len(cuts(video)) for video in shown], np.float64),
        "agreement": _agreement(shown, episodes.actions, chunk, lens),
    }
    if (episodes.looks >= 0).all():
        right = world.look(ends) == episodes.looks.reshape(-1)
        found["place"] = 100 * _by_video(right.astype(np.float64), videos)
    if pairs := visits(episodes.places, episodes.gaps):
        features = lens.places(ends)
        features = features.reshape(videos, -1, features.shape[-1])
        which, before, later = np.array(pairs).T
        alike = revisit.similarity(features[which, before], features[which, later])
        counts = np.bincount(which, minlength=videos)
        found["src"] = np.bincount(which, alike, videos) / np.where(counts, counts, np.nan)
        floor = revisit.floor_of(features.reshape(-1, features.shape[-1]), names_of(episodes).reshape(-1).tolist())
        found["floor"] = np.full(videos, floor)
    return found


def _by_video(values: Array, videos: int) -> Array:
    return values.reshape(videos, -1).mean(1)


def _agreement(video: NDArray[np.uint8], actions: NDArray[np.int64], chunk: int, lens: Lens) -> Array:
    """Share [n] of the chunks around the middle that show what was asked for, times 100."""
    chunks = range(middle(video.shape[1], chunk) // chunk - ASKED, middle(video.shape[1], chunk) // chunk + ASKED)
    right = [
        lens.actions(video[:, place * chunk - 1 : (place + 1) * chunk], given=1) == actions[:, place]
        for place in chunks
    ]
    return 100 * np.mean(right, 0)


def _scale(truth: Mapping[str, Array]) -> revisit.Scale | None:
    if "src" not in truth:
        return None
    return revisit.Scale(float(truth["floor"].mean()), float(np.nanmean(truth["src"])))


def _cells(
    row: str,
    found: Mapping[str, Array],
    truth: Mapping[str, Array],
    scale: revisit.Scale | None,
    apart: tuple[float, bool],
) -> dict[str, Cell]:
    cells = {}
    for metric in METRICS:
        if metric not in found:
            continue
        expected = row != TRUTH and row not in UNSEEN[metric]
        if metric == "fvd":
            value, seen = apart
        else:
            own, right = found[metric], truth[metric]
            if metric == "src" and scale is not None:
                own, right = (np.asarray(scale.rescaled(each)) for each in (own, right))
            value, seen = float(np.nanmean(own)), _is_worse(own - right, metric in MORE_IS_WORSE)
        cells[metric] = Cell(value, seen, expected)
    return cells


def _is_worse(difference: Array, more: bool) -> bool:
    there = difference[np.isfinite(difference)]
    interval = mean_interval(there.tolist(), range(len(there)))
    return interval.low > LEAST if more else interval.high < -LEAST


def _distances(found: Mapping[str, Mapping[str, Array]]) -> dict[str, tuple[float, bool]]:
    """Row -> FVD-world of its clips, and whether that is above the one of other episodes beyond its interval."""
    truth = found[TRUTH]["fvd"]
    sets = {row: frechet.frechet(truth, each["fvd"], range(len(truth))) for row, each in found.items()}
    lows = {row: over_items(row, [Jackknife.of(each.value, each.without)]).interval()[0] for row, each in sets.items()}
    return {row: (each.value, lows[row] > sets[OTHER].value) for row, each in sets.items()}
