"""diffusers' `UNet3DConditionModel` as a denoiser: the paper's backbone, or the same class from scratch.

The action reaches every level with attention as the text that it attends to: a learned vector an action, or what the
frozen text encoder of a pretrained pipeline says of the action's words (the paper's Section 3.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.twice.policy import Need, needed, needing
from common.engine.twice.processor import make_attention_twice
from common.errors import UserError
from slowfast_vgen.networks.config import ModelConfig
from slowfast_vgen.pretrained import loaded

STEPS = 1000
"""Of the discrete diffusion that the network's time embedding counts: time t is step 1000 t - 1."""


class UNet3D(nn.Module):
    """One diffusion time a video; see `Factored.forward` for the arguments.

    In evaluation mode from the start: diffusers' temporal convolutions drop a tenth of their input in training, drawn
    from the global generator, by which no prediction would be a function of its arguments.
    """

    texts: Tensor

    def __init__(self, unet: nn.Module, window: int, mask_channel: bool, texts: Tensor | int) -> None:
        """`texts`: [actions, tokens, context] of a frozen encoder, or how many actions learn a vector each."""
        super().__init__()
        self.unet = unet.eval()
        self.window, self.mask_channel = window, mask_channel
        self.learned = isinstance(texts, int)
        if isinstance(texts, int):
            context: int = unet.config.cross_attention_dim  # type: ignore[union-attr,assignment]
            self.action = nn.Embedding(texts, context)
        else:
            self.register_buffer("texts", texts)

    def forward(self, x: Tensor, time: Tensor, action: Tensor, clean: Tensor) -> Tensor:
        """x [n, frames, values, height, width] -> the same, as `Factored.forward` says.

        Raises:
            ValueError: more frames than the window has.
        """
        frames = x.shape[1]
        if frames > self.window:
            raise ValueError(f"{frames} frames in a window of {self.window}")
        sample = x.transpose(1, 2)
        if self.mask_channel:
            mask = clean.to(x.dtype)[:, None, :, None, None].expand(-1, 1, -1, *x.shape[3:])
            sample = torch.cat([sample, mask], 1)
        text = self.action(action)[:, None] if self.learned else self.texts[action].to(x.dtype)
        step = STEPS * time.amax(1) - 1
        with _kernels():
            return self.unet(sample, step, text, return_dict=False)[0].transpose(1, 2)


def _kernels() -> AbstractContextManager[None]:
    """Where no gradient is taken, attention is by the kernel of plain diffusers, and so are the bits."""
    plainly = not torch.is_grad_enabled() and needed() is not Need.plain
    return needing(Need.first) if plainly else nullcontext()


def settings_of(config: ModelConfig, values: int) -> dict[str, Any]:
    """What diffusers calls the sizes."""
    down = ["CrossAttnDownBlock3D" if each else "DownBlock3D" for each in config.attended]
    up = ["CrossAttnUpBlock3D" if each else "UpBlock3D" for each in reversed(config.attended)]
    return {
        "in_channels": values + config.mask_channel,
        "out_channels": values,
        "block_out_channels": tuple(config.widths),
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "layers_per_block": config.depth,
        "cross_attention_dim": config.context,
        "attention_head_dim": config.head,
        "norm_num_groups": config.groups,
    }


def fresh(config: ModelConfig, values: int, actions: int) -> UNet3D:
    """From scratch, for latents of `values` numbers a position and ids 0 .. `actions` - 1."""
    from diffusers import UNet3DConditionModel

    unet = UNet3DConditionModel(**settings_of(config, values))
    return UNet3D(make_attention_twice(unet), config.window, config.mask_channel, actions)


def pretrained(config: ModelConfig, values: int, texts: Sequence[str]) -> UNet3D:
    """With the weights at `model.path`; `texts` are the actions' words, the empty ones of none first.

    Raises:
        UserError: there are no such weights, or they are for other latents.
    """
    from diffusers import UNet3DConditionModel

    unet = loaded(UNet3DConditionModel, str(config.path), "model.path", "unet")
    if unet.config.in_channels != values:
        raise UserError(
            f"model.path={config.path}: a network for latents of {unet.config.in_channels} values, these have "
            f"{values}; use latents=vae with the autoencoder of the same pipeline"
        )
    encoded = encode(str(config.path), texts)
    if encoded.shape[-1] != unet.config.cross_attention_dim:
        raise UserError(
            f"model.path={config.path}: its text encoder gives {encoded.shape[-1]} numbers a token, its network reads "
            f"{unet.config.cross_attention_dim}; give the folder of one pipeline"
        )
    return UNet3D(make_attention_twice(unet), config.window, config.mask_channel, encoded)


@torch.no_grad()
def encode(path: str, texts: Sequence[str]) -> Tensor:
    """What the pipeline's text encoder says of each text: [texts, tokens, context].

    Raises:
        UserError: the pipeline has no text encoder.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = loaded(CLIPTokenizer, path, "model.path", "tokenizer")
    encoder = loaded(CLIPTextModel, path, "model.path", "text_encoder").eval()
    words = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return encoder(words.input_ids).last_hidden_state
