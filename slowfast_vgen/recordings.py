"""Anybody's recordings: a folder of videos, each with a sidecar that says what was asked for and when.

    drive1.mp4  drive1.csv       time,action            time in seconds, or frame counted from 0
                                 0,turn left            what is asked for from then on
    walk2/  (images)  walk2.jsonl   {"frame": 0, "action": "go forward"}

Kinds of videos: `slowfast_vgen.worlds.videos`. A recording is in one split as a whole.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataroot import find
from common.data.splits import cut
from common.data.textfile import read_csv, read_json_lines
from common.errors import UserError
from slowfast_vgen.actions import NULL, Actions, normal
from slowfast_vgen.worlds.config import REMEDY, DataConfig, FolderConfig, Shape
from slowfast_vgen.worlds.draws import Ints
from slowfast_vgen.worlds.recorded import Recorded, Recording, most
from slowfast_vgen.worlds.videos import SUFFIXES, Video, images_of, read

SIDECARS = {".csv": read_csv, ".jsonl": read_json_lines}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A line of a sidecar."""

    where: str
    """File and line."""
    at: float
    """In seconds, or a frame of the recording."""
    counted: bool
    """It is a frame."""
    action: str


def opened(config: DataConfig) -> Recorded:
    """The recordings of `data.folder.path`, shared out by `data.folder.shares` and `data.seed`.

    Raises:
        UserError: no folder, or too few recordings; a video or a sidecar that cannot be used.
    """
    folder, given = _folder(config), config.folder
    videos = recordings_in(folder)
    split_of = _shared_out([path.name for path in videos], given, config.seed, folder)
    asked = {path: sidecar(path) for path in videos}
    actions = _actions(given, asked)
    splits: dict[str, list[Recording]] = {split: [] for split in given.shares}
    sizes: dict[tuple[int, int], Path] = {}
    for path in videos:
        video = read(path, given.fps, given.source_fps, config.shape.height, config.shape.width)
        sizes.setdefault(video.size, path)
        if len(sizes) > 1:
            (a, first), (b, other) = list(sizes.items())[:2]
            raise UserError(
                f"{other}: frames of {b[0]} by {b[1]} pixels, and {first} has {a[0]} by {a[1]}; bring all "
                "recordings of a folder to one size"
            )
        splits[split_of[path.name]].append(_recording(path, video, asked[path], actions, config.shape, given.fps))
    logger.info("%s: %d recordings, %s", folder, len(videos), {split: len(some) for split, some in splits.items()})
    return Recorded(actions, splits, config.shape)


def recordings_in(folder: Path) -> list[Path]:
    """The videos and folders of images of a folder, by name.

    Raises:
        UserError: there are none.
    """
    inside = sorted(folder.iterdir())
    found = [path for path in inside if path.suffix.lower() in SUFFIXES or (path.is_dir() and images_of(path))]
    if not found:
        raise UserError(
            f"data.folder.path={folder}: no recording in it; put {', '.join(SUFFIXES)} files or folders of images there"
        )
    return found


def sidecar(video: Path) -> list[Asked]:
    """What was asked for in a recording, in order.

    Raises:
        UserError: there is no sidecar or more than one, or a line says no moment or no action, or comes too late.
    """
    stem = video if video.is_dir() else video.with_suffix("")
    paths = [path for suffix in SIDECARS if (path := stem.with_name(stem.name + suffix)).is_file()]
    if len(paths) != 1:
        names = " or ".join(stem.name + suffix for suffix in SIDECARS)
        what = "no sidecar" if not paths else "two sidecars"
        raise UserError(f"{video}: {what}; put one {names} beside it, with the columns time or frame, and action")
    found = list(_lines(paths[0]))
    if not found:
        raise UserError(f"{paths[0]}: asks for nothing; write a line for each action, from its moment on")
    for before, after in zip(found, found[1:], strict=False):
        if after.at <= before.at or after.counted != before.counted:
            raise UserError(f"{after.where}: not after the line before, or counted otherwise; put the lines in order")
    return found


def _lines(path: Path) -> Iterator[Asked]:
    for line, row in SIDECARS[path.suffix](path):
        yield _asked(f"{path}:{line}", row)


def _asked(where: str, row: Mapping[str, Any]) -> Asked:
    names = [name for name in ("time", "frame") if name in row]
    if len(names) != 1 or "action" not in row:
        raise UserError(f"{where}: has {', '.join(row) or 'nothing'}; time or frame is needed, and action")
    value, action = row[names[0]], row["action"]
    try:
        at = float(value)
    except (TypeError, ValueError):
        at = np.nan
    if not np.isfinite(at) or (names[0] == "frame" and at != int(at)):
        raise UserError(f"{where}: {names[0]}={value!r}; write {'seconds' if names[0] == 'time' else 'a whole number'}")
    if not isinstance(action, str):
        raise UserError(f"{where}: action={action!r}; write a text")
    return Asked(where, at, names[0] == "frame", action)


def _folder(config: DataConfig) -> Path:
    if config.folder.path is None:
        raise UserError(f"data.folder.path is not set; set it to the folder of your recordings, or {REMEDY}")
    folder = find(config.root, config.folder.path, "check data.folder.path")
    if not folder.is_dir():
        raise UserError(f"data.folder.path={folder}: is a file; give the folder that it lies in")
    return folder


def _shared_out(names: list[str], config: FolderConfig, seed: int, folder: Path) -> dict[str, str]:
    """Recording -> split; each split gets one at the least."""
    held = {split: max(1, round(share * len(names))) for split, share in config.shares.items() if split != "train"}
    counts = {"train": len(names) - sum(held.values()), **held}
    if counts["train"] < 1:
        raise UserError(
            f"data.folder.path={folder}: {len(names)} recordings for {len(counts)} splits ({', '.join(counts)}); a "
            "recording is in one split as a whole, so add some"
        )
    return cut(names, {split: count / len(names) for split, count in counts.items()}, seed, "recordings")


def _actions(config: FolderConfig, asked: Mapping[Path, list[Asked]]) -> Actions:
    """Those declared, or else all that are asked for, in alphabetical order."""
    lines = [line for some in asked.values() for line in some]
    if not config.actions:
        spelt: dict[str, str] = {}
        for line in lines:
            spelt.setdefault(normal(line.action), line.action.strip())
        spelt.pop("", None)
        return Actions(tuple(spelt[name] for name in sorted(spelt)))
    actions = Actions(tuple(config.actions))
    for line in lines:
        try:
            actions.id(line.action)
        except UserError as error:
            raise UserError(f"{line.where}: {error}; correct it, or add it to data.folder.actions") from error
    return actions


def _recording(path: Path, video: Video, asked: list[Asked], actions: Actions, shape: Shape, fps: float) -> Recording:
    """A recording with the action in force at each frame; a chunk may begin where it changes, and every chunk on."""
    in_force = np.full(len(video.frames), NULL, np.int64)
    moments = np.arange(len(video.frames)) / fps
    for line in asked:
        in_force[moments >= _moment(line, video, path) - 1e-6] = actions.id(line.action)
    return Recording(path.name, video.frames, most(in_force, shape.chunk), _starts(in_force, shape.chunk))


def _moment(line: Asked, video: Video, path: Path) -> float:
    """When a line's action begins, in seconds from the first frame."""
    if line.counted:
        if not 0 <= line.at < len(video.times):
            raise UserError(
                f"{line.where}: frame={line.at:g}, and {path.name} has {len(video.times)} frames from 0; correct it"
            )
        return float(video.times[int(line.at)] - video.times[0])
    if not 0 <= line.at < video.end - video.times[0]:
        raise UserError(
            f"{line.where}: time={line.at:g} s, and {path.name} lasts {video.end - video.times[0]:g} s; correct it"
        )
    return line.at


def _starts(in_force: Ints, chunk: int) -> np.ndarray:
    """Each frame at which the action changes, and each whole chunk after one."""
    changes = np.flatnonzero(np.diff(in_force, prepend=in_force[0] - 1))
    since = np.arange(len(in_force)) - changes[np.searchsorted(changes, np.arange(len(in_force)), "right") - 1]
    return since % chunk == 0
