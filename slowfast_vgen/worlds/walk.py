"""Ways through a world of numbered places: random, there and back, straight on; and the episodes that they make."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slowfast_vgen.actions import Actions
from slowfast_vgen.worlds.draws import Draws, Ints
from slowfast_vgen.worlds.episode import LOOP, RETURN, TURN, Episodes, Frames, gaps_of, ids_of, phases_of

Neighbours = Callable[[Ints], Ints]
"""Places [n] -> where each action leads [n, actions]; -1: it cannot be taken there. The null action is none of them."""


@dataclass(frozen=True)
class Route:
    """Ways of several items."""

    actions: Ints
    """[items, chunks], from 1."""
    places: Ints
    """[items, chunks + 1]: before the first chunk, then after each."""


def wander(
    start: Ints, chunks: int, neighbours: Neighbours, actions: Actions, draws: Draws, items: Ints,
    weights: tuple[float, ...], places: int = 0, back: float = 0.0,
) -> Route:  # fmt: skip
    """Random steps from places [n].

    Args:
        start: where each item begins [n].
        chunks: steps.
        neighbours: where the actions lead.
        actions: the world's.
        draws: of the items, one number a step.
        items: which [n].
        weights: how often each action is taken where all can be.
        places: if not 0, how many there are, and none is come to twice while another can be.
        back: how often a step takes back the one before.
    """
    inverse = np.array([actions.inverse(id) for id in range(1, actions.count)]) - 1 if back else np.zeros(0, int)
    rows, seen = np.arange(len(start)), np.zeros((len(start), places), bool)
    at, taken, here = [start], [np.zeros_like(start)], start
    for chunk in range(chunks):
        if places:
            seen[rows, here] = True
        to = neighbours(here)
        chance = np.where(to >= 0, weights, 0.0)
        if places:
            fresh = np.where(np.take_along_axis(seen, to.clip(0), 1), 0.0, chance)
            chance = np.where(fresh.sum(1, keepdims=True) > 0, fresh, chance)
        drawn = draws.floats(items, 2 * chunk)
        choice = (chance.cumsum(1) <= (drawn * chance.sum(1))[:, None]).sum(1)
        if back and chunk:
            again = draws.floats(items, 2 * chunk + 1) < back
            choice = np.where(again, inverse[taken[-1]], choice)
        here = to[rows, choice]
        at.append(here)
        taken.append(choice)
    return Route(np.stack(taken[1:], 1) + 1, np.stack(at, 1))


def straight(start: Ints, action: Ints, chunks: int, neighbours: Neighbours) -> Route:
    """The same action [n] over and over; it can be taken everywhere."""
    at = [start]
    for _ in range(chunks):
        at.append(neighbours(at[-1])[np.arange(len(start)), action - 1])
    return Route(np.repeat(action[:, None], chunks, 1), np.stack(at, 1))


def there_and_back(out: Route, actions: Actions) -> Route:
    """A way out, then all of it but its first step back by the inverse actions."""
    inverse = np.array([actions.inverse(id) for id in range(actions.count)])
    home = inverse[out.actions[:, :0:-1]]
    return Route(np.concatenate([out.actions, home], 1), np.concatenate([out.places, out.places[:, -2:0:-1]], 1))


def episodes_of(
    route: Route, frames: Frames, looks: Ints, places: int, split: str, family: str, items: Ints, wide: bool
) -> Episodes:
    """The episodes of a way.

    Args:
        route: of n items.
        frames: [n, chunks, frames, height, width, 3].
        looks: [n, chunks].
        places: how many there are.
        split: of the ids.
        family: of the ids; coming back in a full turn is a loop, in any other a return.
        items: [n].
        wide: while a chunk leaves a place it still shows it.
    """
    begins, ends = route.places[:, :-1], route.places[:, 1:]
    visible: NDArray[np.bool_] = np.zeros((*ends.shape, places), bool)
    for shown in (ends, begins) if wide else (ends,):
        np.put_along_axis(visible, shown[..., None], True, -1)
    gaps = gaps_of(ends, visible)
    phases = phases_of(gaps, LOOP if family == TURN else RETURN)
    return Episodes(frames, route.actions, ends, looks, gaps, phases, ids_of(split, family, items))
