"""What the encoders are trained on: batches of a training world, and the losses.

Frames are float tensors from 0 to 1. Every draw comes from the generator that is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_vgen.metrics.encoders import CORRUPTIONS, InverseDynamics, MotionEncoder, PlaceEncoder

if TYPE_CHECKING:
    from slowfast_vgen.worlds.episode import World

TEMPERATURE = 0.1
"""Of the contrast between frames."""
SAME = 1e-6
"""Mean squared difference below which two frames are the same picture, and neither is the other's negative."""
BRIGHTNESS, NOISE = 0.15, 0.1
"""How far a view of a frame, or a noised clip, may be off."""


@dataclass(frozen=True)
class Batch:
    """Clips of two chunks."""

    clips: Tensor
    """[n, 2 f, height, width, 3]"""
    actions: Tensor
    """[n]: the action that leads into the second chunk."""
    looks: Tensor
    """[n]: what the last frame shows, -1 without a catalogue."""

    @property
    def chunk(self) -> int:
        """Frames of a chunk."""
        return self.clips.shape[1] // 2


def batch_of(world: World, seed: int, split: str, first: int, count: int) -> Batch:
    """Clips `first` to `first + count` of a split."""
    found = world.clips(seed, split, first, count, 2)
    clips = torch.from_numpy(np.ascontiguousarray(found.frames)).flatten(1, 2).float() / 255
    return Batch(clips, torch.from_numpy(found.actions[:, 1]), torch.from_numpy(found.looks[:, 1]))


def place_loss(encoder: PlaceEncoder, batch: Batch, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrast of two views of a frame against all other frames of the batch (InfoNCE), and how often it is right."""
    which = torch.randint(batch.clips.shape[1], (len(batch.clips),), generator=draw)
    frames = batch.clips[torch.arange(len(which)), which]
    first, second = (F.normalize(encoder(view(frames, draw)), dim=1) for _ in range(2))
    flat = frames.flatten(1)
    same = torch.cdist(flat, flat) ** 2 / flat.shape[1] < SAME
    alike = (first @ second.T / TEMPERATURE).masked_fill(same & ~torch.eye(len(flat), dtype=torch.bool), -torch.inf)
    own = torch.arange(len(flat))
    loss = (F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own)) / 2
    return loss, {"frame": alike.argmax(1) == own}


def motion_loss(encoder: MotionEncoder, batch: Batch, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Action, order of frames, corruption and last picture of clips, half of them shuffled and most corrupted."""
    clips, kinds = corrupted(batch.clips, draw)
    shuffled = torch.rand(len(clips), generator=draw) < 0.5
    clips = torch.where(shuffled[:, None, None, None, None], shuffle(clips, draw), clips)
    told = encoder.told(clips)
    whole = ~shuffled & (kinds != CORRUPTIONS.index("splice"))
    named = whole & (batch.looks >= 0)
    asked = {
        "action": (told.action, batch.actions, whole),
        "order": (told.shuffled, shuffled.long(), torch.ones_like(whole)),
        "corruption": (told.corruption, kinds, torch.ones_like(whole)),
        "look": (told.look, batch.looks, named),
    }
    loss = torch.zeros(())
    right = {}
    for name, (logits, wanted, counted) in asked.items():
        if counted.any():
            loss = loss + F.cross_entropy(logits[counted], wanted[counted])
            right[name] = logits[counted].argmax(1) == wanted[counted]
    return loss, right


def inverse_loss(network: InverseDynamics, batch: Batch, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The action between two frames of which the later one belongs to the second chunk."""
    place = batch.chunk + torch.randint(batch.chunk, (len(batch.clips),), generator=draw)
    rows = torch.arange(len(place))
    logits = network(batch.clips[rows, place - 1], batch.clips[rows, place])
    return F.cross_entropy(logits, batch.actions), {"action": logits.argmax(1) == batch.actions}


def view(frames: Tensor, draw: torch.Generator) -> Tensor:
    """Frames [n, height, width, 3] moved by a sixteenth of their side at most, brighter or darker, with some noise."""
    n, height, width, _ = frames.shape

    def moved(side: int) -> Tensor:
        most = max(1, round(side / 16))
        by = torch.randint(-most, most + 1, (n, 1), generator=draw)
        return (torch.arange(side) + by).clamp(0, side - 1)

    rows = torch.arange(n)[:, None, None]
    found = frames[rows, moved(height)[:, :, None], moved(width)[:, None]]
    bright = 1 + BRIGHTNESS * (2 * torch.rand(n, 1, 1, 1, generator=draw) - 1)
    level = NOISE / 2 * torch.rand(n, 1, 1, 1, generator=draw)
    return (bright * found + level * torch.randn(found.shape, generator=draw)).clamp(0, 1)


def corrupted(clips: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips [n, f, height, width, 3], a quarter each as they are, with noise, blurred, spliced; and which [n]."""
    kinds = torch.randint(len(CORRUPTIONS), (len(clips),), generator=draw)
    level = NOISE * (0.5 + torch.rand(len(clips), 1, 1, 1, 1, generator=draw))
    noised = (clips + level * torch.randn(clips.shape, generator=draw)).clamp(0, 1)
    half = clips.shape[1] // 2
    spliced = torch.cat([clips[:, :half], clips.roll(1, 0)[:, half:]], 1)
    made = torch.stack([clips, noised, blurred(clips), spliced])
    return made[kinds, torch.arange(len(clips))], kinds


def blurred(clips: Tensor, pixels: int = 5) -> Tensor:
    """Clips [..., height, width, 3], each pixel the mean of `pixels` by `pixels` around it; edges repeat."""
    flat = clips.flatten(0, -4).movedim(-1, 1)
    edge = pixels // 2
    found = F.avg_pool2d(F.pad(flat, (edge,) * 4, mode="replicate"), pixels, stride=1)
    return found.movedim(1, -1).reshape(clips.shape)


def shuffle(clips: Tensor, draw: torch.Generator) -> Tensor:
    """Clips [n, f, ...] with their frames in another order: none keeps the one it has."""
    n, frames = clips.shape[:2]
    order = torch.rand(n, frames, generator=draw).argsort(1)
    kept = (order == torch.arange(frames)).all(1)
    order[kept] = order[kept].flip(1)
    return clips[torch.arange(n)[:, None], order]
