"""Episodes as latents, and the memories that are learned along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.engine.settings import Unroll
from slowfast_vgen.baselines import beside
from slowfast_vgen.config import MethodConfig
from slowfast_vgen.latents.latents import Latents
from slowfast_vgen.memory import Memory, TempLora
from slowfast_vgen.settings import Context, Past
from slowfast_vgen.worlds.episode import NEW, START, Episodes


@dataclass(frozen=True)
class Seen:
    """Episodes of one family and length, encoded."""

    z: Tensor
    """Latents [episodes, chunks, frames, values, height, width]."""
    actions: Tensor
    """int64 [episodes, chunks]"""
    phases: tuple[str, ...]
    """Of each chunk, the same in all episodes; empty where they differ, as in random walks."""
    ids: tuple[str, ...]
    places: Tensor
    """int64 [episodes, chunks]: what each chunk ends on."""
    keep: int | None = None
    """How many of the last frames of a chunk the next one is given; None: all."""
    context: Context = Context.none
    """What is given before them."""

    @property
    def chunks(self) -> int:
        """Of an episode."""
        return self.z.shape[1]

    @property
    def visits(self) -> tuple[int, ...]:
        """The chunks that come back to a place; of episodes that never do, all but the first.

        Raises:
            ValueError: their phases differ from episode to episode.
        """
        if not self.phases:
            raise ValueError("episodes of several shapes in one stack")
        back = tuple(number for number, phase in enumerate(self.phases) if phase not in (START, NEW))
        return back or tuple(range(1, self.chunks))

    def past(self, chunk: int) -> Tensor:
        """What chunk `chunk` is generated from [episodes, frames, values, height, width]."""
        before = self.z[:, chunk - 1]
        if self.context is not Context.none:
            return torch.cat([beside(self.context, self.z, self.places, chunk), before], 1)
        return before if self.keep is None else before[:, -self.keep :]

    def of(self, names: Sequence[str]) -> tuple[int, ...]:
        """The chunks with one of the phases `names`."""
        return tuple(number for number, phase in enumerate(self.phases) if phase in names)


def seen(episodes: Episodes, latents: Latents, method: MethodConfig, device: torch.device) -> Seen:
    """The episodes encoded."""
    phases = episodes.phases[0] if len(set(episodes.phases)) == 1 else ()
    frames = torch.from_numpy(episodes.frames).to(device)
    z = latents.encode(frames)
    actions, places = (torch.from_numpy(each).to(device) for each in (episodes.actions, episodes.places))
    keep = 1 if method.past is Past.frame else None
    return Seen(z, actions, phases, episodes.ids, places, keep, method.context)


def memories(
    lora: TempLora, episodes: Seen, unroll: Unroll = Unroll.none, *, start: Memory | None = None, begin: int = 1
) -> list[Memory]:
    """Theta before each chunk: entry j is what chunk j is generated with; entry 0 is Theta_0, as entry 1.

    Written after every chunk that shows a new place, and with `fast.on_return` after every other one, too.

    Args:
        lora: attached.
        episodes: what happens, in truth.
        unroll: whether an outer gradient passes through the steps.
        start: Theta before the first chunk that may be written; None: Theta_0.
        begin: chunks before this one are not written.
    """
    memory = lora.start(episodes.ids) if start is None else start
    found = [memory]
    for chunk in range(1, episodes.chunks):
        found.append(memory)
        if chunk >= begin and (episodes.phases[chunk] == NEW or lora.config.on_return):
            memory = lora.write(memory, episodes.past(chunk), episodes.z[:, chunk], episodes.actions[:, chunk], unroll)
    return found


def stacks(count: int, most: int) -> Iterator[tuple[int, int]]:
    """First and size of parts of `count`, none above `most` and none of one alone."""
    many, first = -(-count // most), 0
    for number in range(many):
        size = count // many + (number < count % many)
        yield first, size
        first += size
