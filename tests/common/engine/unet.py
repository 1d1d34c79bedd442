"""A video UNet of diffusers small enough for tests, and clips for it."""

import torch
from torch import Tensor, nn

from common.engine.weights import Weights, call

FRAMES = 3
TEMPORAL = ["*temp_attentions.*.to_*", "transformer_in.*.to_*", "*temp_convs.*"]
"""Temporal attention and temporal convolutions."""


def video_unet() -> nn.Module:
    """In float64, with the processors that diffusers chooses."""
    from diffusers import UNet3DConditionModel

    unet = UNet3DConditionModel(
        sample_size=4,
        in_channels=2,
        out_channels=2,
        block_out_channels=(4, 8),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        cross_attention_dim=4,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    for name, value in unet.named_parameters():
        if "temp_convs" in name and "conv4" in name:  # zero at the start: the block would be the identity
            nn.init.normal_(value, std=0.3)
    return unet.eval().double()


def clip(*shape: int) -> Tensor:
    """[*shape, channels, frames, height, width]."""
    return torch.randn(*shape, 2, FRAMES, 4, 4, dtype=torch.double)


def generated(network: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """What becomes of `x` [rows, channels, frames, h, w]; a diffusion time and a text a row are read off it."""
    times = 100 + 10 * x[:, 0, 0, 0, 0]
    text = x[:, :, 0, :2, 0].flatten(1)[:, None]
    sample: Tensor = call(network, weights, x, times, text).sample
    return sample


def video_rows(network: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """One number a row; [rows]."""
    return generated(network, weights, x).square().flatten(1).mean(1)
