"""The keys below `latents`: what a frame is before it is noised."""

from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import UserError
from common.fields import UNHASHED


class Kind(StrEnum):
    """Which autoencoder."""

    pixels = "pixels"
    """None: the colours, from -1 to 1."""
    patches = "patches"
    """Principal components of square patches, in closed form."""
    vae = "vae"
    """`AutoencoderKL` of diffusers, frame by frame: the paper's (Section 3.1.1)."""
    taef2 = "taef2"
    """A tiny autoencoder: 8 by 8 pixels become 32 values."""


PRETRAINED = (Kind.vae, Kind.taef2)


@dataclass
class LatentsConfig:
    """conf/slowfast_vgen/latents."""

    kind: Kind = Kind.vae
    patch: int = 8
    """kind=patches: side of a patch, in pixels."""
    values: int = 10
    """kind=patches: components kept of each patch."""
    path: str | None = field(default=None, metadata=UNHASHED)
    """kind=vae: folder or hub name of the pipeline or of its autoencoder; kind=taef2: folder of the two files. The
    weights' own hash is kept with a run."""

    def __post_init__(self) -> None:
        """Refuse what encodes nothing.

        Raises:
            UserError: a size is out of range.
        """
        if self.patch < 1:
            raise UserError(f"latents.patch={self.patch}: use a side of 1 or more pixels")
        if self.kind is Kind.patches and not 1 <= self.values <= 3 * self.patch**2:
            raise UserError(
                f"latents.values={self.values}: a patch of {self.patch}x{self.patch} pixels has {3 * self.patch**2} "
                f"colours, so use 1 to {3 * self.patch**2}"
            )
        if self.path is not None and self.kind not in PRETRAINED:
            raise UserError(f"latents.path={self.path} with latents.kind={self.kind}: nothing is loaded; use null")
