"""Video planning (Sections 3.4 and 4.2): a video is generated from sub-goals, its actions are read off and carried out.

The paper's sub-goals come from a language model; here they are a script: the way out, then the way back, one action a
chunk. An inverse dynamics network reads the actions off the generated frames, the simulator carries them out, and Dist
is how far the way-points are from the way back. The oracle reads the true frames, so what the reading costs is known.

On the table a gripper puts the cube that it is asked to move where the last frame of the chunk shows it, and Dist is
how far the cubes that were to be brought back lie from where they stood at first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from common.run.items import OfAll
from slowfast_vgen.metrics.frechet import frechet
from slowfast_vgen.worlds.episode import OUT_AND_BACK
from slowfast_vgen.worlds.table import Table

if TYPE_CHECKING:
    from slowfast_vgen.metrics.lens import Lens
    from slowfast_vgen.worlds.episode import Episodes, World

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class Simulator(Protocol):
    """A world in which actions can be carried out."""

    def follow(self, seed: int, split: str, family: str, items: Ints, start: Ints, actions: Ints) -> Ints:
        """Places after each of `actions` [n, k] from `start` [n]; where an action cannot be taken nothing moves."""
        ...

    def distance(self, places: Ints, others: Ints) -> Array:
        """How far places are apart, in steps of the world (cells, panels)."""
        ...


@dataclass(frozen=True)
class Plan:
    """Of some episodes."""

    dist: Array
    """[n]: mean over the way-points of the closest that the way back, as carried out, comes to them; on the table over
    the cubes that are brought back, of how far from their place they are put."""
    end: Array
    """[n]: from where it ends to the starting point; on the table of the last cube, which was away longest."""
    agreement: Array
    """[n]: share of the chunks whose action is read as what was asked for; on the table, that leave the cube right."""


Reader = Callable[["Lens", "Episodes", ArrayLike, int, str], Plan]
"""Lens, episodes in truth, frames of the same perhaps generated, seed and split of them -> what is read off."""


def reader(world: World, name: str) -> Reader:
    """How plans are read in a world.

    Raises:
        UserError: nothing can be carried out in it.
    """
    if isinstance(world, Table):
        return lambda lens, episodes, frames, seed, split: put_back(world, episodes, frames)
    return partial(carried_out, simulator(world, name))


def can_be_acted_in(world: World) -> bool:
    """Has the world a `reader`?"""
    return isinstance(world, Table) or hasattr(world, "follow")


def simulator(world: World, name: str) -> Simulator:
    """The world as a simulator.

    Raises:
        UserError: nothing can be carried out in it.
    """
    if not hasattr(world, "follow"):
        raise UserError(f"data.world={name}: recordings cannot be acted in; plan with a run of rooms, maze or table")
    return world  # type: ignore[return-value]


def carried_out(world: Simulator, lens: Lens, episodes: Episodes, frames: ArrayLike, seed: int, split: str) -> Plan:
    """Read the actions off episodes `out_and_back`, carry them out from the true start, and see where they lead.

    Args:
        world: of the episodes.
        lens: with their inverse dynamics.
        episodes: in truth.
        frames: of the same episodes, perhaps generated [n, chunks, frames, height, width, 3].
        seed: of the episodes.
        split: of the episodes.
    """
    taken = read(lens, np.asarray(frames))
    items = np.array([int(name.rsplit("/", 1)[1]) for name in episodes.ids])
    way = world.follow(seed, split, OUT_AND_BACK, items, episodes.places[:, 0], taken)
    out = episodes.chunks // 2
    points, back = episodes.places[:, :out], way[:, out - 1 :]  # the turning point begins the way back
    apart = world.distance(points[:, :, None], back[:, None])
    return Plan(
        dist=apart.min(2).mean(1),
        end=world.distance(way[:, -1], episodes.places[:, 0]),
        agreement=(taken == episodes.actions[:, 1:]).mean(1),
    )


def read(lens: Lens, frames: NDArray[np.generic]) -> Ints:
    """The actions [n, chunks - 1] that the chunks after the first seem to take.

    Args:
        lens: with the inverse dynamics of the world.
        frames: [n, chunks, frames, height, width, 3].
    """
    count, chunks, length = frames.shape[:3]
    video = frames.reshape(count, chunks * length, *frames.shape[3:])
    shown = (video[:, chunk * length - 1 : (chunk + 1) * length] for chunk in range(1, chunks))
    return np.stack([lens.actions(each, given=1) for each in shown], 1)


def put_back(world: Table, episodes: Episodes, frames: ArrayLike) -> Plan:
    """See where the cubes of episodes `out_and_back` are put.

    Args:
        world: of the episodes.
        episodes: in truth; the frame that a chunk should end on says where its cube belongs.
        frames: of the same episodes, perhaps generated [n, chunks, frames, height, width, 3].
    """
    cube = world.moved(episodes.actions[:, 1:])[..., None]
    put, right = (_ends(world, np.asarray(each), cube) for each in (frames, episodes.frames))
    apart = world.distance(put, right)
    return Plan(
        dist=apart[:, apart.shape[1] // 2 :].mean(1),
        end=apart[:, -1],
        agreement=(apart == 0).mean(1),
    )


def _ends(world: Table, frames: NDArray[np.generic], cube: Ints) -> Ints:
    """Where each chunk but the first leaves its cube [n, chunks - 1]."""
    last = frames[:, 1:, -1]
    seen = world.read(last.reshape(-1, *last.shape[2:])).reshape(*last.shape[:2], -1)
    return np.take_along_axis(seen, cube, 2)[..., 0]


def fvd(lens: Lens, truth: NDArray[np.generic], made: NDArray[np.generic]) -> OfAll:
    """Frechet distance of all pairs of chunks of videos [n, chunks, frames, height, width, 3], by episode."""
    real, other = (lens.motions(_pairs(video)) for video in (truth, made))
    episodes = np.arange(len(truth)).repeat(truth.shape[1] - 1)
    return frechet(real, other, episodes.tolist())


def _pairs(video: NDArray[np.generic]) -> NDArray[np.generic]:
    """Clips of two chunks, as the encoders know them."""
    return np.concatenate([video[:, :-1], video[:, 1:]], 2).reshape(-1, 2 * video.shape[2], *video.shape[3:])
