"""Published trunks from files: torchvision and lpips themselves where they are installed, and files that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.errors import UserError
from slowfast_vgen.metrics.i3d import I3D, same
from slowfast_vgen.metrics.trunks import AlexNet, ResNet18, i3d, lpips, resnet18

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (3, 72, 64, 3)).astype(np.uint8)


def stirred(network: nn.Module) -> nn.Module:
    """The network with weights, and running statistics, of its own."""
    draw = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value + 0.05 * torch.randn(value.shape, generator=draw).abs())
    return network.eval()


def file_of(network: nn.Module, place: Path) -> str:
    save_file(network.state_dict(), place)
    return str(place)


def test_resnet_equals_torchvisions(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    theirs = stirred(models.resnet18())
    path = file_of(theirs, tmp_path / "resnet18.safetensors")
    theirs.fc = nn.Identity()
    x = torch.from_numpy(FRAMES / 255).float().permute(0, 3, 1, 2)
    x = nn.functional.interpolate(x, (224, 224), mode="bilinear", align_corners=False, antialias=True)
    mean, spread = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        wanted = theirs((x - mean) / spread)
    np.testing.assert_allclose(resnet18(path)(FRAMES), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning", "ignore:Arguments other than:UserWarning")
def test_lpips_equals_the_package(tmp_path: Path) -> None:
    package = pytest.importorskip("lpips", reason="lpips is not installed")
    theirs = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    names = {str(place): f"features.{place}" for place in (0, 3, 6, 8, 10)}
    slices = {
        f"{names[key.split('.')[1]]}.{key.split('.')[2]}": value for key, value in theirs.net.state_dict().items()
    }
    save_file(slices, tmp_path / "alexnet.safetensors")
    heads = torch.load(
        Path(package.__file__).parent / "weights" / "v0.1" / "alex.pth", map_location="cpu", weights_only=True
    )
    save_file(heads, tmp_path / "alex.safetensors")
    other = RNG.integers(0, 256, FRAMES.shape).astype(np.uint8)
    pair = [2 * torch.from_numpy(each / 255).float().permute(0, 3, 1, 2) - 1 for each in (FRAMES, other)]
    with torch.no_grad():
        wanted = theirs(*pair).flatten()
    found = lpips(str(tmp_path / "alexnet.safetensors"), str(tmp_path / "alex.safetensors"))(FRAMES, other)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_file_of_our_own_weights_is_read_and_its_classes_are_left_out(tmp_path: Path) -> None:
    network = stirred(ResNet18())
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "a.safetensors")
    with torch.no_grad():
        wanted = network(torch.from_numpy(FRAMES / 255).float())
    np.testing.assert_allclose(resnet18(str(tmp_path / "a.safetensors"))(FRAMES), wanted, rtol=1e-5)


def test_lpips_is_0_between_equal_frames_and_small_frames_are_enlarged(tmp_path: Path) -> None:
    trunk = file_of(stirred(AlexNet()), tmp_path / "alexnet.safetensors")
    heads = {f"lin{place}.model.1.weight": torch.ones(1, kind[2], 1, 1) for place, kind in enumerate(AlexNet.KINDS)}
    save_file(heads, tmp_path / "alex.safetensors")
    distance = lpips(trunk, str(tmp_path / "alex.safetensors"))
    small = FRAMES[:, :8, :16]
    assert distance(FRAMES, FRAMES).tolist() == [0, 0, 0] and (distance(small, 255 - small) > 0.01).all()


def test_i3d_sees_clips_of_its_size_from_minus_1_to_1(tmp_path: Path) -> None:
    network = stirred(I3D())
    encode = i3d(file_of(network, tmp_path / "i3d.safetensors"))
    clips = RNG.integers(0, 256, (2, 9, 14, 14, 3)).astype(np.uint8)
    wide = np.repeat(np.repeat(clips[:1, :, :1, :1], 224, 2), 224, 3)  # one colour a frame: scaling changes nothing
    with torch.no_grad():
        wanted = network(2 * torch.from_numpy(wide / 255).float().permute(0, 4, 1, 2, 3) - 1)
    np.testing.assert_allclose(encode(np.repeat(np.repeat(clips[:1, :, :1, :1], 14, 2), 14, 3)), wanted, rtol=1e-3)
    assert encode(clips).shape == (2, 400)
    with pytest.raises(UserError, match=r"features\.i3d=.*: clips of 8 frames, I3D needs 9; use longer chunks"):
        encode(clips[:, :8])


def test_i3d_has_the_published_size() -> None:
    # 25 million in two streams (Carreira and Zisserman 2017, Table 1)
    assert sum(weight.numel() for weight in I3D().parameters()) == pytest.approx(25e6 / 2, rel=0.03)


@pytest.mark.parametrize(
    "side, kernel, stride, before, after", [(8, 7, 2, 2, 3), (9, 7, 2, 3, 3), (6, 3, 1, 1, 1), (7, 2, 2, 0, 1)]
)
def test_windows_are_padded_as_tensorflow_pads(side: int, kernel: int, stride: int, before: int, after: int) -> None:
    x = torch.ones(1, 1, 1, 1, side)
    padded = same(x, (1, 1, kernel), (1, 1, stride))[0, 0, 0, 0]
    assert padded.tolist() == [0] * before + [1] * side + [0] * after
    assert (len(padded) - kernel) // stride + 1 == -(-side // stride)


def test_files_that_are_missing_or_of_another_network_name_key_and_remedy(tmp_path: Path) -> None:
    for key, load in (("resnet18", resnet18), ("i3d", i3d), ("alexnet", lambda path: lpips(path, path))):
        with pytest.raises(
            UserError, match=rf"features\.{key}=gone\.safetensors: no such file; correct the path, or give null"
        ):
            load("gone.safetensors")
    other = file_of(AlexNet(), tmp_path / "alexnet.safetensors")
    with pytest.raises(UserError, match=r"features\.resnet18=.*: not the weights of ResNet18 \(it lacks \['conv1"):
        resnet18(other)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(UserError, match=r"features\.resnet18=.*text\.safetensors: not the weights of ResNet18"):
        resnet18(str(tmp_path / "text.safetensors"))
    with pytest.raises(UserError, match=r"features\.i3d=.*text\.safetensors: not the weights of I3D"):
        i3d(str(tmp_path / "text.safetensors"))
    with pytest.raises(UserError, match=r"features\.lpips=.*alexnet\.safetensors: not the weights"):
        lpips(other, other)
