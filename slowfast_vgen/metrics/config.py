"""Keys of the metrics."""

from dataclasses import dataclass, field

from common.fields import UNHASHED


@dataclass
class FeaturesConfig:
    """The frozen networks that metrics look through."""

    steps: int = 500
    """Training steps of each of the world's own encoders, of `batch` clips."""
    batch: int = 64
    cache: str | None = field(default=None, metadata=UNHASHED)
    """Folder that keeps the world's own encoders; null trains them for every run."""
    resnet18: str | None = None
    """File of torchvision's ResNet-18 weights for SRC; null: SRC-world."""
    i3d: str | None = None
    """TorchScript file of I3D for FVD; null: FVD-world."""
    alexnet: str | None = None
    """File of torchvision's AlexNet weights for LPIPS; null: LPIPS-world."""
    lpips: str | None = None
    """File of the linear layers that LPIPS puts upon AlexNet (`alex.pth` of the package lpips)."""
