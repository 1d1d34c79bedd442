"""The keys below `model`: which denoiser, how large, and what it is told about its frames."""

from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import UserError


class Kind(StrEnum):
    """Which denoiser."""

    factored = "factored"
    """Attention over space, attention over time and an MLP, of this repository."""
    unet3d = "unet3d"
    """`UNet3DConditionModel` of diffusers, from scratch."""
    modelscope = "modelscope"
    """The same class with the weights of ModelScopeT2V, the paper's backbone (Section 3.1.1)."""


TEMPORAL: dict[Kind, tuple[str, ...]] = {
    Kind.factored: ("*.temporal.*", "*.mlp.*"),
    Kind.unet3d: ("*temp_attentions.*.to_*", "*transformer_in.*.to_*", "*temp_convs.*"),
    Kind.modelscope: ("*temp_attentions.*.to_*", "*transformer_in.*.to_*", "*temp_convs.*"),
}
"""Shell patterns of the layers that carry TEMP-LORA, where nothing else is asked for. The paper names none; its extra
memory of 352 MB rules out all layers of ModelScopeT2V."""
PART: dict[Kind, str] = {Kind.factored: "", Kind.unet3d: "unet", Kind.modelscope: "unet"}
"""The module of a denoiser that `peft` knows as the network, so that diffusers' own takes its adapters; "" is all."""
TIMED: dict[Kind, tuple[str, ...]] = {
    Kind.factored: ("*.temporal.*",),
    Kind.unet3d: ("*temp_attentions.*", "*transformer_in.*", "*temp_convs.*"),
    Kind.modelscope: ("*temp_attentions.*", "*transformer_in.*", "*temp_convs.*"),
}
"""Shell patterns of all weights that see more than one frame."""


@dataclass
class ModelConfig:
    """The denoiser: conf/slowfast_vgen/model."""

    kind: Kind = Kind.modelscope
    window: int = 32
    """Frames, past and new together, that the network sees at most (the paper's Section D.1)."""
    mask_channel: bool = False
    """One more input channel says which frames are clean. The paper has none."""
    frame_times: bool = False
    """Every frame has its own diffusion time, a clean one 0. The paper gives one time a video."""
    widths: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])
    """Of a UNet's levels, each but the last of twice the next one's side; of kind=factored one number."""
    depth: int = 2
    """Layers a level; of kind=factored all layers."""
    head: int = 64
    """Width of an attention head."""
    groups: int = 32
    """Of a UNet's group norm."""
    context: int = 1024
    """Width of the text, or of the learned vector of an action, that a UNet attends to."""
    attended: list[bool] = field(default_factory=lambda: [True, True, True, False])
    """Levels of a UNet that have attention."""
    expansion: int = 2
    """How many times wider the MLP of kind=factored is."""
    path: str | None = None
    """kind=modelscope: folder or hub name of the pretrained pipeline; null: its sizes alone, weights from scratch."""

    def __post_init__(self) -> None:
        """Refuse what is no network.

        Raises:
            UserError: a size is out of range, or a key does not go with the kind.
        """
        for key, least in {"window": 1, "depth": 1, "head": 1, "groups": 1, "context": 1, "expansion": 1}.items():
            if getattr(self, key) < least:
                raise UserError(f"model.{key}={getattr(self, key)}: use {least} or more")
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"model.widths={self.widths}: give a width of 1 or more for each level")
        if self.path is not None and self.kind is not Kind.modelscope:
            raise UserError(f"model.path={self.path} with model.kind={self.kind}: only kind=modelscope is loaded")
        if self.kind is Kind.factored:
            self._check_factored()
        else:
            self._check_unet()

    def _check_factored(self) -> None:
        if len(self.widths) != 1:
            raise UserError(f"model.widths={self.widths} with model.kind=factored: it has one width; use [64]")
        if self.widths[0] % self.head:
            raise UserError(
                f"model.head={self.head}: the width {self.widths[0]} of model.widths is no multiple of it; use "
                f"{_divisor(self.widths[0], self.head)}"
            )

    def _check_unet(self) -> None:
        if self.frame_times:
            raise UserError(
                f"model.frame_times=true with model.kind={self.kind}: UNet3DConditionModel takes one time a video; use "
                "model.frame_times=false or model=factored_tiny"
            )
        if len(self.attended) != len(self.widths):
            raise UserError(
                f"model.attended={self.attended}: {len(self.attended)} values for the {len(self.widths)} levels of "
                "model.widths; give one each"
            )
        if any(width % self.groups for width in self.widths):
            raise UserError(f"model.groups={self.groups}: the widths {self.widths} are no multiples of it")
        if any(width % self.head for width in self.widths):
            raise UserError(f"model.head={self.head}: the widths {self.widths} are no multiples of it")
        if self.kind is Kind.modelscope and self.mask_channel and self.path is not None:
            raise UserError(
                f"model.mask_channel=true with model.path={self.path}: the pretrained first layer has no such channel; "
                "use model.mask_channel=false"
            )


def _divisor(width: int, wanted: int) -> int:
    """The largest number up to `wanted` that divides `width`."""
    return max(size for size in range(1, min(wanted, width) + 1) if width % size == 0)
