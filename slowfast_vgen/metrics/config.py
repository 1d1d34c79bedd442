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
    """Weights of torchvision's ResNet-18 for SRC (safetensors, as the three below); null: SRC-world."""
    i3d: str | None = None
    """Weights of pytorch-i3d for FVD; null: FVD-world."""
    alexnet: str | None = None
    """Weights of torchvision's AlexNet for LPIPS; null: LPIPS-world."""
    lpips: str | None = None
    """The linear layers that LPIPS puts upon AlexNet (`alex.pth` of the package lpips, converted)."""
