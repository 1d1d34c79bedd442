"""Autoencoders by path: the pipeline's own results, TAEF2's layers under its names, and what is missing."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from slowfast_vgen.latents.build import latents_of
from slowfast_vgen.latents.config import Kind, LatentsConfig
from slowfast_vgen.latents.grid import grid_of
from slowfast_vgen.latents.taef2 import DECODER, ENCODER, Taef2, decoder, encoder
from tests.slowfast_vgen.pipelines import write_pipeline


def write_taef2(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    for network, name in ((encoder(), ENCODER), (decoder(), DECODER)):
        torch.save({key: value.half() for key, value in network.state_dict().items()}, folder / name)
    return folder


def test_a_pipelines_autoencoder_gives_scaled_means_and_takes_them_back(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    folder = write_pipeline(tmp_path / "pipeline")
    plain = AutoencoderKL.from_pretrained(folder / "vae").eval()
    frames = torch.randint(256, (2, 20, 4, 8, 3), dtype=torch.uint8)
    for path in (folder, folder / "vae"):
        vae = latents_of(LatentsConfig(Kind.vae, path=str(path)), 4, 8)
        assert (vae.values, vae.height, vae.width) == (4, 2, 4)
        z = vae.encode(frames)
        scale = plain.config.scaling_factor
        one = frames[1, 17].permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            mean = plain.encode(one).latent_dist.mean
            back = plain.decode(z[1, 17][None] / scale).sample
        assert z.shape == (2, 20, 4, 2, 4) and not z.requires_grad
        torch.testing.assert_close(z[1, 17], mean[0] * scale, atol=1e-5, rtol=1e-4)
        decoded = vae.decode(z)
        assert decoded.shape == frames.shape
        torch.testing.assert_close(
            decoded[1, 17], ((back[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0), atol=1e-5, rtol=1e-4
        )
    assert not any(weight.requires_grad for weight in vae.parameters())


def test_a_tiny_autoencoder_by_path(tmp_path: Path) -> None:
    taef2 = latents_of(LatentsConfig(Kind.taef2, path=str(write_taef2(tmp_path / "weights"))), 16, 24)
    assert isinstance(taef2, Taef2)
    assert grid_of(LatentsConfig(Kind.taef2), 16, 24) == (taef2.values, taef2.height, taef2.width) == (32, 2, 3)
    frames = torch.randint(256, (2, 3, 16, 24, 3), dtype=torch.uint8)
    z = taef2.encode(frames)
    assert z.shape == (2, 3, 32, 2, 3) and taef2.decode(z).shape == frames.shape
    torch.testing.assert_close(taef2.encode(frames[1]), z[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(taef2.decode(100 * z[0]), taef2.decode(1e6 * z[0]), atol=0.05, rtol=0)


def test_its_layers_have_the_numbers_of_the_released_files() -> None:
    """As `README.md` of the shared data lists them."""
    strided = [
        int(key.split(".")[0])
        for key, value in encoder().state_dict().items()
        if key.count(".") == 1 and "weight" in key
    ]
    assert strided == [0, 2, 6, 10, 14]
    pooled = sorted({int(key.split(".")[0]) for key in encoder().state_dict() if ".pool." in key})
    assert pooled == [11, 12, 13]
    keys = decoder().state_dict()
    assert sorted({int(key.split(".")[0]) for key in keys if ".pool." in key}) == [3, 4, 5]
    assert [key for key in keys if key.count(".") == 1 and "weight" in key] == [
        f"{number}.weight" for number in (1, 7, 12, 17, 19)
    ]
    assert sum(value.numel() for value in encoder().state_dict().values()) == pytest.approx(1.34e6, rel=0.01)


def test_the_released_weights_bring_back_a_smooth_picture(data_root: Path) -> None:
    taef2 = Taef2(str(data_root / "weights" / "taef2"), 64, 64)
    across, down = (
        torch.linspace(0.1, 0.9, 64)[None, :].expand(64, 64),
        torch.linspace(0.2, 0.8, 64)[:, None].expand(64, 64),
    )
    picture = (255 * torch.stack([across, down, 0.5 + 0.3 * (6 * across).sin() * (5 * down).cos()], -1)).byte()[None]
    error = (taef2.decode(taef2.encode(picture)) - picture / 255).square().mean()
    assert -10 * error.log10() > 25


@pytest.mark.parametrize(
    ("config", "side", "message"),
    [
        (LatentsConfig(Kind.vae), 8, r"latents\.kind=vae needs weights: set latents\.path.*latents=patches"),
        (
            LatentsConfig(Kind.taef2),
            8,
            r"latents\.kind=taef2 needs weights: set latents\.path to the folder of",
        ),
        (LatentsConfig(Kind.vae, path="/nowhere"), 8, r"latents\.path=/nowhere: there is no such folder"),
        (LatentsConfig(Kind.taef2, path="{empty}"), 8, r"taef2_encoder\.pth is missing; correct latents\.path"),
        (
            LatentsConfig(Kind.taef2, path="{broken}"),
            8,
            r"_encoder\.pth holds weights of another network than TAEF2",
        ),
        (LatentsConfig(Kind.taef2, path="{empty}"), 12, r"frames of 12x12 pixels are no whole number of 8x8"),
        (LatentsConfig(Kind.vae, path="{pipeline}"), 9, r"2x2 pixels each, and frames of 9x9 are no whole number"),
    ],
)
def test_an_autoencoder_that_is_not_there_is_refused(
    config: LatentsConfig, side: int, message: str, tmp_path: Path
) -> None:
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "broken" / ENCODER)
    if config.path == "{pipeline}":
        write_pipeline(tmp_path / "pipeline")
    if config.path:
        config.path = config.path.format(**{name: str(tmp_path / name) for name in ("empty", "broken", "pipeline")})
    with pytest.raises(UserError, match=message):
        latents_of(config, side, side)
