"""Published networks where their files are given, the world's own elsewhere, and the names of what they make."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from slowfast_vgen.calibration import METRICS, headings
from slowfast_vgen.data import world_of
from slowfast_vgen.metrics import lens as lenses
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.metrics.features import Encoders
from slowfast_vgen.metrics.lens import Lens, lens_of
from slowfast_vgen.metrics.trunks import ResNet18
from slowfast_vgen.worlds.config import DataConfig

DATA = DataConfig()
WORLD = world_of(DATA)
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def own(trained: Encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's encoders are there already."""
    monkeypatch.setattr(lenses, "encoders", lambda *_: trained)


def test_a_number_of_the_worlds_own_network_says_so_in_its_name(trained: Encoders) -> None:
    found = lens_of(WORLD, DATA, FeaturesConfig())
    assert (found.src, found.fvd, found.perceptual) == ("src_world", "fvd_world", "lpips_world")
    assert headings(found) == METRICS
    np.testing.assert_array_equal(found.places(FRAMES), trained.places(FRAMES))
    np.testing.assert_array_equal(found.lpips(FRAMES, FRAMES[::-1]), trained.lpips(FRAMES, FRAMES[::-1]))


def test_a_published_network_takes_its_place_and_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(ResNet18().state_dict(), tmp_path / "resnet18.safetensors")
    found = lens_of(WORLD, DATA, FeaturesConfig(resnet18=str(tmp_path / "resnet18.safetensors")))
    assert (found.src, found.fvd) == ("src", "fvd_world") and found.places(FRAMES).shape == (3, 512)
    named = headings(Lens(found.own, resnet18=found.resnet18, i3d=found.places))
    assert (named["src"], named["fvd"], named["lpips"]) == ("SRC", "FVD", "LPIPS-world")


@pytest.mark.parametrize(("given", "lacking"), [("alexnet", "lpips"), ("lpips", "alexnet")])
def test_lpips_needs_both_of_its_files(given: str, lacking: str) -> None:
    with pytest.raises(UserError, match=f"features.{given} without features.{lacking}: LPIPS needs AlexNet and"):
        lens_of(WORLD, DATA, FeaturesConfig(**{given: "there.safetensors"}))


def test_a_path_that_leads_nowhere_is_named() -> None:
    with pytest.raises(UserError, match="features.i3d=there.safetensors: no such file"):
        lens_of(WORLD, DATA, FeaturesConfig(i3d="there.safetensors"))
