"""Pretrained pipelines small enough for tests, as diffusers writes them."""

import json
from pathlib import Path

import torch

VALUES, CONTEXT, LENGTH = 4, 8, 6


def write_pipeline(folder: Path, context: int = CONTEXT) -> Path:
    """UNet, autoencoder, tokenizer and text encoder of random weights."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    UNet3DConditionModel(
        in_channels=VALUES,
        out_channels=VALUES,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock3D",),
        up_block_types=("CrossAttnUpBlock3D",),
        layers_per_block=1,
        cross_attention_dim=context,
        attention_head_dim=4,
        norm_num_groups=2,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=VALUES,
        norm_num_groups=2,
    ).save_pretrained(folder / "vae")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    place = folder / "tokenizer"
    place.mkdir(parents=True)
    (place / "vocab.json").write_text(json.dumps({word: id for id, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=LENGTH)
    tokenizer.save_pretrained(place)
    settings = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=CONTEXT,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    CLIPTextModel(settings).save_pretrained(folder / "text_encoder")
    return folder
