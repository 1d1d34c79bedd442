"""What metrics look through: published networks whose weights were given, and the world's own in place of the others.

A number that was made with the world's own is called so (`fvd_world`), whichever command prints it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from common.run.results import hashed_keys
from common.run.schema import plain
from slowfast_vgen.metrics import trunks
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.metrics.features import Encoders, encoders

if TYPE_CHECKING:
    from slowfast_vgen.worlds.config import DataConfig
    from slowfast_vgen.worlds.episode import World

Array = NDArray[np.float64]
OWN = "_world"
"""End of a metric's name that was made with the world's own network."""


@dataclass(frozen=True)
class Lens:
    """The networks behind SRC, FVD, LPIPS and the agreement with the actions."""

    own: Encoders
    resnet18: trunks.Encode | None = None
    i3d: trunks.Encode | None = None
    alexnet: Callable[[ArrayLike, ArrayLike], Array] | None = None

    @property
    def src(self) -> str:
        """What SRC is called: `src` through ResNet-18, else `src_world`."""
        return "src" if self.resnet18 else "src" + OWN

    @property
    def fvd(self) -> str:
        """What the Frechet distance is called: `fvd` through I3D, else `fvd_world`."""
        return "fvd" if self.i3d else "fvd" + OWN

    @property
    def perceptual(self) -> str:
        """What LPIPS is called: `lpips` through AlexNet, else `lpips_world`."""
        return "lpips" if self.alexnet else "lpips" + OWN

    def places(self, frames: ArrayLike) -> Array:
        """Features [n, d] of frames [n, height, width, 3] (uint8, or floats from 0 to 1) for SRC."""
        return (self.resnet18 or self.own.places)(frames)

    def motions(self, clips: ArrayLike) -> Array:
        """Features [n, d] of clips [n, f, height, width, 3] for the Frechet distance."""
        return (self.i3d or self.own.motions)(clips)

    def lpips(self, made: ArrayLike, truth: ArrayLike) -> Array:
        """LPIPS [n] of frames [n, height, width, 3]."""
        return (self.alexnet or self.own.lpips)(made, truth)

    def actions(self, videos: ArrayLike, given: int) -> NDArray[np.int64]:
        """As `Encoders.actions`."""
        return self.own.actions(videos, given)


def lens_of(world: World, data: DataConfig, config: FeaturesConfig) -> Lens:
    """The networks that the settings name.

    Args:
        world: of `data`.
        data: what the world's clips depend on.
        config: `features.*`.

    Raises:
        UserError: a file is missing or holds other weights, AlexNet without its linear layers or they without it, or
            the cache cannot be written.
    """
    if (config.alexnet is None) != (config.lpips is None):
        given, lacking = ("alexnet", "lpips") if config.lpips is None else ("lpips", "alexnet")
        raise UserError(
            f"features.{given} without features.{lacking}: LPIPS needs AlexNet and its linear layers; give both, or "
            "neither for LPIPS-world"
        )
    identity = json.dumps(hashed_keys(plain(data), type(data)), sort_keys=True)
    return Lens(
        own=encoders(world, identity, data.seed, config),
        resnet18=trunks.resnet18(config.resnet18) if config.resnet18 else None,
        i3d=trunks.i3d(config.i3d) if config.i3d else None,
        alexnet=trunks.lpips(config.alexnet, config.lpips) if config.alexnet and config.lpips else None,
    )
