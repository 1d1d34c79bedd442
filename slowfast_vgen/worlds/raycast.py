"""A ray caster over blocks on a grid, all rays of all frames at once (after Amanatides and Woo 1987).

Only sums, products and quotients of table values are taken, so the same pose gives the same bits in any batch.
"""

import numpy as np
from numpy.typing import NDArray

from slowfast_vgen.worlds.episode import Frames, Ints

FIELD = 0.7
"""Tangent of half the field of view: 70 degrees in all."""
SHADE = 0.72
"""Brightness of faces that look along y."""
SKY = (120, 160, 215)
Floats = NDArray[np.float64]


def directions(steps: int) -> Floats:
    """Unit vectors [steps, 2] round the circle; quarter turns are exact images of one another."""
    quarter = 2 * np.pi * np.arange(steps // 4) / steps
    x, y = np.cos(quarter), np.sin(quarter)
    return np.concatenate([np.stack(pair, 1) for pair in ((x, y), (-y, x), (-x, -y), (y, -x))])


def cast(blocks: Ints, position: Floats, towards: Floats, width: int) -> tuple[Floats, Floats, Ints, Ints, Floats]:
    """Where the rays of frames hit.

    Args:
        blocks: 0 where one can walk, else a wall [maps, side, side] by x and y; the rim is walled.
        position: of the viewers [maps, frames, 2], in cells.
        towards: unit vectors [maps, frames, 2].
        width: rays of a frame.

    Returns:
        Distances along the view [maps, frames, width]; where along the face, from 0 to 1; the cell hit as
        x * side + y; the face, 0 to 3; the rays [..., 2].
    """
    maps, frames = position.shape[:2]
    side = blocks.shape[1]
    across = FIELD * (2 * (np.arange(width) + 0.5) / width - 1)
    sideways = np.stack([-towards[..., 1], towards[..., 0]], -1)
    ray = towards[:, :, None] + across[:, None] * sideways[:, :, None]
    step = np.where(ray < 0, -1, 1)
    with np.errstate(divide="ignore"):
        delta = np.minimum(abs(1 / ray), 1e9)
    cell = np.broadcast_to(np.floor(position).astype(np.int64)[:, :, None], ray.shape).copy()
    next_at = np.where(ray < 0, position[:, :, None] - cell, cell + 1 - position[:, :, None]) * delta
    flat, first = blocks.reshape(-1), (np.arange(maps) * side * side)[:, None, None]
    axis, going = np.zeros((maps, frames, width), np.int64), np.ones((maps, frames, width), bool)
    for _ in range(2 * side):
        axis = np.where(going, (next_at[..., 1] < next_at[..., 0]).astype(np.int64), axis)
        for way in (0, 1):
            moved = going & (axis == way)
            cell[..., way] += np.where(moved, step[..., way], 0)
            next_at[..., way] += np.where(moved, delta[..., way], 0.0)
        going &= flat[first + cell[..., 0] * side + cell[..., 1]] == 0
        if not going.any():
            break
    chosen = axis[..., None]
    distance = np.take_along_axis(next_at - delta, chosen, -1)[..., 0]
    along = np.take_along_axis(position[:, :, None] + distance[..., None] * ray, 1 - chosen, -1)[..., 0]
    face = 2 * axis + (np.take_along_axis(step, chosen, -1)[..., 0] > 0)
    return distance, along - np.floor(along), cell[..., 0] * side + cell[..., 1], face, ray


def draw(
    blocks: Ints,
    faces: Ints,
    floors: Ints,
    textures: Frames,
    position: Floats,
    towards: Floats,
    height: int,
    width: int,
) -> Frames:
    """Frames [maps, frames, height, width, 3].

    Args:
        blocks, position, towards: as in `cast`.
        faces: which texture each of the four faces of a cell has [maps, side * side, 4].
        floors: the two colours of the floor's squares [maps, 2, 3].
        textures: [textures, size, size, 3].
        height: rows.
        width: columns.
    """
    distance, along, cell, face, ray = cast(blocks, position, towards, width)
    maps, size = np.arange(len(blocks))[:, None, None], textures.shape[1]
    shaded = np.concatenate([textures, (textures * SHADE).astype(np.uint8)])
    texture = faces[maps, cell, face] + np.where(face < 2, 0, len(textures))
    row = np.arange(height) + 0.5 - height / 2  # from the horizon down
    v = row[:, None] * np.maximum(distance, 1e-6)[:, :, None] / height + 0.5  # [maps, frames, height, width]
    pixel = (v.clip(0, 1 - 1e-9) * size).astype(np.int64)
    column = (along * size).astype(np.int64).clip(0, size - 1)[:, :, None]
    found = shaded[texture[:, :, None], pixel, column]
    above, down = height // 2, row[height // 2 :]
    with np.errstate(divide="ignore"):
        ahead = 0.5 * height / down  # where a row meets the floor; an odd height's middle row nowhere
    ground = position[:, :, None, None] + ahead.clip(max=1e6)[:, None, None] * ray[:, :, None]
    square = np.floor(2 * ground).astype(np.int64).sum(-1) % 2
    colours = floors.astype(np.uint8)[maps[..., None], square]
    outside = (v < 0) | (v >= 1)
    found[:, :, :above][outside[:, :, :above]] = SKY
    found[:, :, above:] = np.where(outside[:, :, above:, :, None], colours, found[:, :, above:])
    return found
