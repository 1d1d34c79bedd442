"""Play a trained run: a first frame and actions in free text give a video.

python -m slowfast_vgen.generate run=<run folder> actions="turn right, turn right, turn left, turn left"
python -m slowfast_vgen.generate run=... actions=... first=frame.png         from a picture instead of a test episode
python -m slowfast_vgen.generate run=... actions=... save_memory=memories/a  keep what was learned, as a peft adapter
python -m slowfast_vgen.generate run=... actions=... memory=memories/a       go on with it
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import Device, to_typed
from slowfast_vgen.config import TrainConfig

if TYPE_CHECKING:
    from slowfast_vgen.actions import Actions
    from slowfast_vgen.contact import Row
    from slowfast_vgen.playing import Played

LONGEST = 80
"""Characters of a video's name that tell of its actions."""
log = logging.getLogger(__name__)


@dataclass
class GenerateConfig:
    """What `python -m slowfast_vgen.generate` reads."""

    run: str = "???"
    """Folder of a run."""
    actions: str = "???"
    """In free text, with commas between: each leads into one chunk."""
    first: str | None = None
    """Picture that the video begins with, of the world's size; null takes an episode of the test split, of which the
    truth is known if one from `item` on goes the same way."""
    item: int = 0
    """Number of the test episode, or of the first that is tried."""
    memory: str | None = None
    """Folder of a saved memory that the episode begins with; null: an empty one."""
    save_memory: str | None = None
    """Folder that gets the memory at the end."""
    out: str | None = None
    """`<name>.gif` or `<name>.mp4`; null: into the run's media. A sheet `<name>.png` lies beside it."""
    fps: float = 4.0
    steps: int = 0
    """Of the sampler, `diffusion.steps`; 0 takes the run's own."""
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""


ConfigStore.instance().store(name="slowfast_vgen_generate_schema", node=GenerateConfig)


def generate(config: GenerateConfig) -> Path:
    """Generate the video with fast learning, without, and with the memory of another episode; returns its file.

    Raises:
        UserError: no such run, an action that nobody declared, a picture of another size, a memory of another run, or
            a place that cannot be written.
    """
    from common.run import seeding
    from common.run.stored import stored_config
    from slowfast_vgen import contact
    from slowfast_vgen.evaluate import restored
    from slowfast_vgen.playing import begin, check_context, play

    folder = Path(config.run)
    trained = stored_config(folder, TrainConfig)
    diffusion = replace(trained.diffusion, steps=config.steps or trained.diffusion.steps)
    runtime = replace(trained.runtime, device=config.device or trained.runtime.device)
    trained = replace(trained, diffusion=diffusion, runtime=runtime)
    path = place_of(config, folder)
    check(config, trained)
    check_context(trained.method, config.run)
    contact.check(path, config.fps)
    with seeding.applied(trained.runtime, trained.seed):
        parts = restored(folder, trained)
        asked = ids_of(config.actions, parts.world.actions)
        start = begin(parts.world, trained.data.seed, asked, config.first, config.item)
        memory = None if config.memory is None else parts.lora.open(config.memory, str(folder), start.id)
        played = play(parts, trained, start, asked, memory)
    captions = ["start", *(parts.world.actions.text(each) for each in asked)]
    rows = rows_of(played)
    contact.film(path, rows, captions, parts.world.chunk, config.fps)
    contact.sheet(path.with_suffix(".png"), rows, captions, parts.world.chunk)
    for row in rows:
        log.info("%s: %s", row.label, row.note or "shown")
    log.info("written: %s and %s", path, path.with_suffix(".png").name)
    if config.save_memory is not None:
        parts.lora.save(played.memory, 0, config.save_memory, str(folder))
        log.info("memory of %d chunks kept in %s", played.memory.chunks, config.save_memory)
    return path


def check(config: GenerateConfig, trained: TrainConfig) -> None:
    """See that the run can do what is asked before anything is computed.

    Raises:
        UserError: it cannot.
    """
    if not trained.method.memory:
        for key in ("memory", "save_memory"):
            if (value := getattr(config, key)) is not None:
                raise UserError(
                    f"{key}={value}: method={trained.method.name} of run={config.run} has no memory; leave {key} out, "
                    "or give a run of method=temp_lora, loop or meta"
                )
    if config.item < 0:
        raise UserError(f"item={config.item}: test episodes are numbered from 0")


def ids_of(text: str, known: Actions) -> list[int]:
    """The actions of a text with commas.

    Raises:
        UserError: none, or one that nobody declared.
    """
    names = [name for name in map(str.strip, re.split(r"[,;\n]", text)) if name]
    if not names:
        raise UserError(f"actions={text!r}: name one or more, with commas between; known are {', '.join(known.names)}")
    return [known.id(name) for name in names]


def place_of(config: GenerateConfig, folder: Path) -> Path:
    """Where the video goes."""
    from common.run import media

    if config.out is not None:
        return Path(config.out)
    name = re.sub(r"[^a-z0-9]+", "-", f"{config.actions} {config.item}".lower()).strip("-")
    return folder / media.FOLDER / f"generated-{name[:LONGEST]}.gif"


def rows_of(played: Played) -> list[Row]:
    """A row for each video, with its PSNR to the truth where that is known."""
    from slowfast_vgen.contact import Row
    from slowfast_vgen.metrics.pixels import psnr

    rows = [] if played.truth is None else [Row("truth", played.truth)]
    for label, frames in played.videos.items():
        note = ""
        if played.truth is not None:
            shown = slice(played.chunk, None)  # the first chunk is given
            note = f"PSNR {psnr(frames[None, shown], played.truth[None, shown])[0]:.1f} dB"
        rows.append(Row(label, frames, note))
    return rows


@entry("pkg://conf.slowfast_vgen", "generate")
def main(cfg: DictConfig) -> None:
    """Write a video."""
    generate(to_typed(cfg, GenerateConfig))


if __name__ == "__main__":
    main()
