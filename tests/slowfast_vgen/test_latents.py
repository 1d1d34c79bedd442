"""Patches against a singular value decomposition, inverses, and what a run keeps of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from slowfast_vgen.latents.build import latents_of
from slowfast_vgen.latents.config import Kind, LatentsConfig
from slowfast_vgen.latents.latents import Pixels
from slowfast_vgen.latents.patches import Patches

HEIGHT, WIDTH = 8, 16


def pictures(*shape: int) -> Tensor:
    """Smooth enough to have few components: uint8 [*shape, 8, 16, 3]."""
    rough = torch.rand(*shape, 3, HEIGHT // 4, WIDTH // 4).flatten(0, -4)
    smooth = torch.nn.functional.interpolate(rough, scale_factor=4, mode="bilinear")
    noisy = smooth + 0.02 * torch.randn_like(smooth)
    return (255 * noisy.clamp(0, 1)).round().byte().movedim(-3, -1).view(*shape, HEIGHT, WIDTH, 3)


def fitted(values: int = 10, patch: int = 4) -> tuple[Patches, Tensor]:
    torch.manual_seed(0)
    frames = pictures(40, 2)
    patches = Patches(patch, values, HEIGHT, WIDTH)
    patches.fit(frames)
    return patches, frames


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    patches, frames = fitted()
    rows = [
        frame[top : top + 4, left : left + 4].double().flatten() / 255
        for frame in frames.flatten(0, 1)
        for top in (0, 4)
        for left in (0, 4, 8, 12)
    ]
    matrix = torch.stack(rows)
    centred = matrix - matrix.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(patches.mean.double(), matrix.mean(0), atol=1e-6, rtol=0)
    agreement = (patches.basis.double().mT @ directions[:10].mT).abs()
    torch.testing.assert_close(agreement, torch.eye(10).double(), atol=1e-5, rtol=0)
    z = patches.encode(frames)
    assert z.shape == (40, 2, 10, 2, 4)
    by_hand = (centred[1] @ patches.basis.double() / patches.scale).float()
    torch.testing.assert_close(z[0, 0, :, 0, 1], by_hand, atol=1e-5, rtol=0)
    assert z.square().mean().item() == pytest.approx(1, abs=1e-4), "of one common scale"
    assert patches.scale.item() == pytest.approx(singular[:10].square().mean().div(len(rows)).sqrt().item(), rel=1e-5)


def test_what_is_kept_is_inverted_exactly_and_nothing_does_better() -> None:
    patches, frames = fitted()
    z = torch.randn(3, 5, 10, 2, 4)
    torch.testing.assert_close(patches.analysed(patches.composed(z)), z, atol=1e-5, rtol=1e-5)
    everything, _ = fitted(values=48)
    torch.testing.assert_close(everything.decode(everything.encode(frames)), frames / 255, atol=2e-6, rtol=0)
    lost = []
    for values in (2, 10, 20):
        fewer, _ = fitted(values)
        lost.append((fewer.decode(fewer.encode(frames)) - frames / 255).square().mean())
    assert lost[0] > lost[1] > lost[2] > 0


def test_positions_of_latents_are_those_of_patches() -> None:
    patches, _ = fitted()
    z = torch.zeros(1, 10, 2, 4)
    z[0, 0, 1, 2] = 1
    changed = (patches.composed(z) - patches.composed(torch.zeros_like(z))).abs().amax(-1)[0] > 1e-6
    where = changed.nonzero()
    assert bool(changed.any()) and where.amin(0).tolist() >= [4, 8] and where.amax(0).tolist() <= [7, 11]


def test_a_fit_is_a_function_of_the_frames_and_comes_back_from_its_state() -> None:
    first, frames = fitted()
    second, _ = fitted()
    other = Patches(4, 10, HEIGHT, WIDTH)
    other.fit(pictures(30))
    assert first.digest() == second.digest() != other.digest()
    other.load_state_dict(first.state_dict())
    assert other.digest() == first.digest()
    assert torch.equal(other.encode(frames), first.encode(frames))


def test_colours_come_back_to_the_bit_from_pixels() -> None:
    pixels = Pixels(HEIGHT, WIDTH)
    frames = pictures(2, 3)
    z = pixels.encode(frames)
    assert z.shape == (2, 3, 3, HEIGHT, WIDTH) and pixels.size == 3 * HEIGHT * WIDTH
    assert z.min() >= -1 and z.max() <= 1
    assert torch.equal((255 * pixels.decode(z)).round().byte(), frames)
    assert pixels.digest() != Pixels(WIDTH, HEIGHT).digest()


def test_a_decoded_frame_is_a_picture() -> None:
    patches, _ = fitted()
    for latents in (patches, Pixels(HEIGHT, WIDTH)):
        frames = latents.decode(9 * torch.randn(4, latents.values, latents.height, latents.width))
        assert frames.shape == (4, HEIGHT, WIDTH, 3) and frames.min() == 0 and frames.max() == 1


def test_settings_make_the_autoencoder() -> None:
    assert isinstance(latents_of(LatentsConfig(Kind.pixels), 8, 16), Pixels)
    made = latents_of(LatentsConfig(Kind.patches, patch=4, values=7), 8, 16)
    assert (made.values, made.height, made.width, made.size) == (7, 2, 4, 56)


def test_nothing_is_encoded_before_there_are_components() -> None:
    with pytest.raises(ValueError, match="neither fitted nor loaded"):
        Patches(4, 10, HEIGHT, WIDTH).encode(pictures(2))


def test_frames_of_one_colour_have_no_components() -> None:
    with pytest.raises(UserError, match=r"latents\.values=10: .* 7 frames vary along 0 directions only"):
        Patches(4, 10, HEIGHT, WIDTH).fit(torch.full((7, HEIGHT, WIDTH, 3), 9, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": Kind.patches, "patch": 5}, r"latents\.patch=5: frames of 8x16 pixels"),
        ({"kind": Kind.patches, "patch": 0}, r"latents\.patch=0: use a side of 1"),
        ({"kind": Kind.patches, "patch": 2, "values": 13}, r"latents\.values=13: a patch of 2x2 pixels has 12 colours"),
        ({"kind": Kind.pixels, "path": "here"}, r"latents\.path=here with latents\.kind=pixels: nothing is loaded"),
    ],
)
def test_what_encodes_nothing_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        latents_of(LatentsConfig(**words), HEIGHT, WIDTH)
