"""What `python -m slowfast_vgen.data` prints and draws."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.data.splits import SPLITS
from common.run.media import FOLDER
from common.tables.grid import grid
from slowfast_vgen.audit import SplitAudit, audit, of_families, overlaps
from slowfast_vgen.contact import Row, sheet
from slowfast_vgen.worlds.driving import Driving
from slowfast_vgen.worlds.episode import World

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slowfast_vgen.worlds.config import DataConfig

WIDTH = 160
"""Of what goes to a file or a pipe."""
DRAWN, MOST_CHUNKS = 4, 12
"""Episodes of a sheet, and chunks of each: its last ones."""


def show(world: World, config: DataConfig, root: Path) -> None:
    """Print counts and audits of all splits; write contact sheets below `root`.

    Raises:
        UserError: a split cannot be read, or a sheet not be written.
    """
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    found = {split: audit(world, config.seed, split) for split in SPLITS}
    height, width, chunk = config.shape
    console.print(f"{config.world}: chunks of {chunk} frames of {height} by {width} pixels, data.seed={config.seed}")
    console.print(_counts(found))
    console.print(_audits(found))
    for (a, b), shared in overlaps(found).items():
        console.print(f"Episodes in both {a} and {b}: {shared} of {len(found[a].prints)} and {len(found[b].prints)}")
    if isinstance(world, Driving):
        matched, elsewhere = world.match_error()
        console.print(
            f"A lap has {world.lap} frames. The same place one lap later: {matched:.1f} dB against the frame matched, "
            f"{elsewhere:.1f} dB against one half a lap on",
            soft_wrap=True,
        )
    for path in draw(world, config, root / "slowfast_vgen" / "data" / FOLDER):
        console.print(f"Sheet: {path}", soft_wrap=True)


def draw(world: World, config: DataConfig, folder: Path) -> list[Path]:
    """Write a sheet of clips, one for each action, and one of each family's first test episodes.

    Raises:
        UserError: a sheet cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{config.world}_{config.height or config.size}_{config.seed}"
    clips = world.clips(config.seed, "train", 0, 256)
    first = {id: row for row, id in reversed(list(enumerate(clips.actions[:, 1].tolist())))}
    rows = [
        Row(world.actions.text(id) or "(none)", clips.frames[row].reshape(-1, *clips.frames.shape[3:]))
        for id, row in sorted(first.items())
    ]
    before, after = ([f"{which} {frame + 1}" for frame in range(world.chunk)] for which in ("before", "asked for"))
    paths = [folder / f"{name}_clips.png"]
    sheet(paths[0], rows, before + after, 1)
    for family, episodes in of_families(world, config.seed, "test", DRAWN).items():
        shown = slice(max(0, episodes.chunks - MOST_CHUNKS), None)
        captions = [
            f"{number + (shown.start or 0)} {phase}" + (f" {gap}" if gap >= 0 else "")
            for number, (phase, gap) in enumerate(
                zip(episodes.phases[0][shown], episodes.gaps[0, shown].tolist(), strict=True)
            )
        ]
        frames = episodes.frames[:, shown]
        rows = [
            Row(id, each.reshape(-1, *each.shape[2:]))
            for id, each in zip(episodes.ids, frames, strict=True)
        ]  # fmt: skip
        paths.append(folder / f"{name}_{family}.png")
        sheet(paths[-1], rows, captions, world.chunk)
    return paths


def _counts(found: dict[str, SplitAudit]) -> RenderableType:
    names = list(dict.fromkeys(name for each in found.values() for name in each.counts))
    body = [[name, *(str(each.counts.get(name, 0)) for each in found.values())] for name in names]
    return grid("Chunks by action", ["action", *found], body)


def _audits(found: dict[str, SplitAudit]) -> RenderableType:
    families = list(dict.fromkeys(name for each in found.values() for name in each.inside))
    body = []
    for split, each in found.items():
        name, share = each.frequent
        inside = (_share(each.inside[family]) if family in each.inside else "none" for family in families)
        body.append([split, f"{100 * share:.1f} % {name}", f"{each.copied:.1f} dB", *inside])
    head = ["split", "most frequent action", "copy of last frame", *(f"in window: {family}" for family in families)]
    return grid("What needs no learning", head, body)


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"
