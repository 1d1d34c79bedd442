"""Which pairs of chunks a fast step sees: the local learning rule, and what departs from it (Table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slowfast_vgen.noise import Keys, chosen
from slowfast_vgen.settings import FastConfig, Source


@dataclass(frozen=True)
class Pair:
    """A chunk and what it was generated from, of every episode of a stack."""

    clip: Tensor
    """Latents [episodes, frames, values, height, width], input first."""
    given: int
    """Frames of the input."""
    action: Tensor
    """int64 [episodes]"""


def kept(config: FastConfig, pairs: Sequence[Pair], new: Pair, keys: Keys, count: int) -> tuple[Pair, ...]:
    """The pairs of the past that later steps may see, once `new` has come; none by the local rule.

    A reservoir holds each pair with the same chance (Algorithm R, Vitter 1985).

    Args:
        config: `fast.*`.
        pairs: those so far.
        new: the latest.
        keys: of the place that it takes, one an episode.
        count: how many came before it.
    """
    if config.source is Source.local:
        return ()
    if config.source is Source.full or len(pairs) < config.kept:
        return (*pairs, new)
    place = chosen(keys, count + 1).to(new.clip.device)
    found = []
    for number, old in enumerate(pairs):
        here = place == number
        clip = torch.where(here[:, None, None, None, None], new.clip, old.clip)
        found.append(Pair(clip, new.given, torch.where(here, new.action, old.action)))
    return tuple(found)


def drawn(source: Source, pairs: Sequence[Pair], last: Pair, keys: Keys, step: int) -> tuple[Tensor, Tensor]:
    """Clips [episodes * draws, ...] and actions of one fast step, episode after episode.

    Args:
        source: `fast.source`.
        pairs: what `kept` keeps, `last` perhaps among them.
        last: the latest pair.
        keys: of the choice [episodes, draws].
        step: after the chunk; with one draw a reservoir has its turn every other step.
    """
    episodes, draws = keys.shape
    if source is Source.local or not pairs:
        return last.clip.repeat_interleave(draws, 0), last.action.repeat_interleave(draws, 0)
    device = last.clip.device
    which = chosen(keys, len(pairs)).to(device)
    if source is Source.reservoir:
        local = (torch.arange(draws, device=device) + step) % 2 == 0
        which = torch.where(local, len(pairs), which)
    rows = torch.arange(episodes, device=device)[:, None]
    clips = torch.stack([*(each.clip for each in pairs), last.clip], 1)[rows, which]
    actions = torch.stack([*(each.action for each in pairs), last.action], 1)[rows, which]
    return clips.flatten(0, 1), actions.flatten()
