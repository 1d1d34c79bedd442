"""A contact sheet of a run: a few test episodes in truth, and generated with each memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.run.media import FOLDER
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.contact import Row, sheet
from slowfast_vgen.generation import Frames, visits
from slowfast_vgen.settings import Control

SHOWN = 3
"""Episodes."""
MOST = 12
"""Chunks of each: its last ones."""
OWN = "generated"
"""Label of a row with the episode's own memory, or without any where the method has none."""


def contact_sheet(parts: Parts, config: TrainConfig, controls: list[Control], folder: Path) -> None:
    """Write `media/return.png` into a run's folder: what is given and what is generated, a row a memory."""
    family = config.evaluation.family
    episodes = parts.world.episodes(config.data.seed, "test", family, config.length, 0, SHOWN)
    truth = episodes.frames / 255.0
    rows: dict[Control, Frames] = {control: truth.copy() for control in (Control.own, *controls)}
    for chunk, found, _ in visits(parts, config, episodes, controls):
        for control, frames in found.items():
            rows[control][:, chunk] = frames
    given = [phase in ("start", "new") for phase in episodes.phases[0]]
    shown = []
    for number in range(SHOWN):
        shown.append(Row(f"episode {number}", _video(truth[number, -MOST:]), "truth"))
        shown += [
            Row("", _video(each[number, -MOST:]), OWN if c is Control.own else c.value) for c, each in rows.items()
        ]
    texts = [parts.world.actions.text(int(action)) for action in episodes.actions[0]]
    captions = [f"{text} (given)" if known else text for text, known in zip(texts, given, strict=True)]
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    sheet(place / "return.png", shown, captions[-MOST:], parts.world.chunk)


def _video(chunks: Frames) -> Frames:
    return np.clip(chunks.reshape(-1, *chunks.shape[2:]), 0, 1)
