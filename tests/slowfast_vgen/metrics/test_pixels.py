"""PSNR and SSIM: closed forms, a plain float64 reference, torchmetrics where it is installed."""

import math

import numpy as np
import pytest
from scipy.ndimage import correlate

from slowfast_vgen.metrics.pixels import HIGHEST, psnr, ssim

RNG = np.random.default_rng(0)
SIZES = [(8, 16), (9, 9), (11, 12), (16, 32), (40, 33)]


def clips(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    truth = RNG.integers(0, 256, (3, 2, height, width, 3))
    made = np.clip(truth + RNG.normal(0, [[[[[5]]]], [[[[40]]]], [[[[90]]]]], truth.shape), 0, 255)
    return made.astype(np.uint8), truth.astype(np.uint8)


def slow_ssim(made: np.ndarray, truth: np.ndarray) -> float:
    """SSIM of one frame and channel, from 0 to 1, the window's weights written out."""
    line = [math.exp(-((place - 5) ** 2) / (2 * 1.5**2)) for place in range(11)]
    weights = np.outer(line, line) / sum(line) ** 2

    def smooth(values: np.ndarray) -> np.ndarray:
        return correlate(values, weights, mode="mirror")

    mean, other = smooth(made), smooth(truth)
    spread, other_spread = smooth(made * made) - mean**2, smooth(truth * truth) - other**2
    shared = smooth(made * truth) - mean * other
    first = (2 * mean * other + 1e-4) / (mean**2 + other**2 + 1e-4)
    return float((first * (2 * shared + 9e-4) / (spread + other_spread + 9e-4)).mean())


def test_psnr_of_a_known_error_is_the_closed_form() -> None:
    truth = np.full((2, 3, 4, 5, 3), 0.5)
    made = truth + np.array([0.1, 0.01])[:, None, None, None, None]
    assert psnr(made, truth) == pytest.approx([20, 40])
    assert psnr(np.full((1, 1, 1, 3), 255, np.uint8), np.zeros((1, 1, 1, 3), np.uint8)) == pytest.approx([0])


def test_equal_frames_have_the_highest_values() -> None:
    _, truth = clips(8, 16)
    assert psnr(truth, truth).tolist() == [HIGHEST] * 3
    np.testing.assert_allclose(ssim(truth, truth), 1, atol=1e-12)


@pytest.mark.parametrize("height, width", SIZES)
def test_ssim_equals_the_formula_with_scipys_correlation(height: int, width: int) -> None:
    made, truth = clips(height, width)
    wanted = [
        np.mean(
            [slow_ssim(one[..., c] / 255, two[..., c] / 255) for one, two in zip(a, b, strict=True) for c in range(3)]
        )
        for a, b in zip(made, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(made, truth), wanted, atol=1e-12)
    assert list(wanted) == sorted(wanted, reverse=True)


@pytest.mark.parametrize("height, width", SIZES)
def test_both_equal_torchmetrics(height: int, width: int) -> None:
    image = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    import torch

    made, truth = clips(height, width)
    for one, two, ours, decibels in zip(made, truth, ssim(made, truth), psnr(made, truth), strict=True):
        pair = [torch.from_numpy(each / 255).permute(0, 3, 1, 2) for each in (one, two)]
        theirs = image.structural_similarity_index_measure(*pair, data_range=1.0)
        assert float(theirs) == pytest.approx(ours, abs=1e-5)
        assert float(image.peak_signal_noise_ratio(*pair, data_range=1.0)) == pytest.approx(decibels, abs=1e-5)


def test_bytes_and_floats_from_0_to_1_say_the_same() -> None:
    made, truth = clips(8, 16)
    np.testing.assert_array_equal(psnr(made, truth), psnr(made / 255, truth / 255))
    np.testing.assert_array_equal(ssim(made, truth), ssim(made / 255, truth))


def test_frames_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 8, 16, 3\) and \(1, 8, 15, 3\)"):
        psnr(np.zeros((1, 8, 16, 3)), np.zeros((1, 8, 15, 3)))
    with pytest.raises(ValueError, match="are compared"):
        ssim(np.zeros((8, 16, 3)), np.zeros((8, 16, 3)))
