"""Readers, generators, the cut of the dev split, and what damaged or foreign files lead to."""

import gzip
import io
import logging
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.packed import Bounds, bounded
from common.data.splits import SPLITS
from common.errors import UserError
from fal import data
from fal.images import generated, idx, packed
from fal.images.build import build
from fal.images.config import FILES, ClustersConfig, ColumnsConfig, DataConfig
from fal.images.images import Pixels, check_labels

SHAPES = DataConfig(source="shapes", train=40, validation=10, test=20)
SMALL = DataConfig(source="mnist", train=30, validation=10, test=8)


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx_bytes(array)))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A root with 50 training and 10 test images of 6 by 6; two of the former are copies of test images."""
    draw = np.random.default_rng(0)
    train, test = draw.integers(0, 256, (50, 6, 6)), draw.integers(0, 256, (10, 6, 6))
    train[:2] = test[:2]
    for split, images in (("train", train), ("test", test)):
        names = FILES["mnist"][split]
        write_idx(tmp_path / names[0], images)
        write_idx(tmp_path / names[1], np.arange(len(images)) % 10)
    return tmp_path


def test_an_idx_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    (tmp_path / "images").write_bytes(idx_bytes(images))
    (tmp_path / "labels").write_bytes(idx_bytes(np.array([0, 1, 2, 1, 0])))
    found = idx.read(tmp_path / "images", tmp_path / "labels", 3)
    assert torch.equal(found.x, torch.from_numpy(images)[:, None]) and found.y.tolist() == [0, 1, 2, 1, 0]
    floats = found.images(3, "a").x
    assert torch.equal((floats * 255).round().byte(), found.x) and floats.dtype == torch.float32


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda raw: raw[:-1], r"images: cut short: 75 bytes, and 76 with the sizes \[5, 3, 4\]; copy or download"),
        (lambda raw: raw + b"x", r"images: longer than its header says: 77 bytes"),
        (lambda raw: raw[:9], r"images: cut short within its header"),
        (lambda raw: b"", r"images: begins with \[\], and an IDX file of bytes in 3 dimensions with \[0, 0, 8, 3\]"),
        (lambda raw: raw[:2] + b"\x0d" + raw[3:], r"images: begins with \[0, 0, 13, 3\]"),
        (
            lambda raw: raw[:4] + b"\xff" * 12 + raw[16:],
            r"images: cut short: 76 bytes, and 7922816245892410\d+ with",
        ),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, harm: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(harm(idx_bytes(np.zeros((5, 3, 4)))))
    with pytest.raises(UserError, match=message):
        idx.array(path, 3)


@pytest.mark.parametrize("harm", [lambda raw: raw[:-20], lambda raw: raw[:30] + b"\0\0\0" + raw[33:]])
def test_a_damaged_archive_is_named(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "images.gz"
    raw = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (5, 9, 9))))
    path.write_bytes(harm(raw))
    with pytest.raises(UserError, match=r"images\.gz: damaged archive \(.+\); copy or download it again"):
        idx.array(path, 3)


def test_an_archive_beyond_the_bounds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((2000, 30, 30)))))
    with bounded(Bounds(file_mb=1)), pytest.raises(UserError, match=r"images\.gz.*data\.bounds\.file_mb"):
        idx.array(path, 3)


def test_images_and_labels_of_different_number_are_both_named(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx_bytes(np.zeros((5, 3, 4))))
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(4)))
    with pytest.raises(UserError, match=r"images has 5 images, and .*labels 4 labels"):
        idx.read(tmp_path / "images", tmp_path / "labels", 10)


def test_a_label_beyond_the_classes_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx_bytes(np.zeros((3, 2, 2))))
    (tmp_path / "labels").write_bytes(idx_bytes(np.array([0, 9, 4])))
    with pytest.raises(UserError, match=r"labels: label 9 of item 1 is none of 0 to 4 \(data\.classes=5\)"):
        idx.read(tmp_path / "images", tmp_path / "labels", 5)
    with pytest.raises(UserError, match=r"here: label -1 of item 0"):
        check_labels(torch.tensor([-1]), 5, "here")


@pytest.mark.parametrize(
    ("x", "told"), [(torch.tensor([[-0.5, 2.0]]), "from -0.5 to 2"), (torch.tensor([[0.0, torch.nan]]), "from nan")]
)
def test_pixels_outside_0_and_1_are_refused_with_the_place_of_normalising(x: torch.Tensor, told: str) -> None:
    with pytest.raises(UserError, match=rf"mine: pixels {told}.*\[0, 1\]; take normalising out.*model\.mean and model"):
        Pixels(x, torch.tensor([0])).images(2, "mine")
    assert not Pixels(x, torch.tensor([0])).images(2, "mine", bounded=False).bounded


def test_the_dev_split_is_cut_off_and_nothing_of_the_test_file_is_left(
    mnist: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = data.load(replace(SMALL, root=str(mnist)))
    assert [len(found[split]) for split in SPLITS] == [30, 10, 8]
    assert "mnist: 2 training images are left out" in caplog.text
    rows = {split: {tuple(image.flatten().tolist()) for image in images.x} for split, images in found.items()}
    raw = idx.array(mnist / (FILES["mnist"]["test"][0] + ".gz"), 3)
    whole = {tuple((image / np.float32(255)).flatten().tolist()) for image in raw.astype(np.float32)}
    assert not rows["train"] & rows["dev"] and not (rows["train"] | rows["dev"]) & whole
    again, other = data.load(replace(SMALL, root=str(mnist))), data.load(replace(SMALL, root=str(mnist), seed=1))
    assert data.digests(again) == data.digests(found)
    assert data.digests(other)["dev"] != data.digests(found)["dev"]
    assert data.digests(other)["test"] == data.digests(found)["test"], "test images do not depend on the seed"
    every = data.load(replace(SMALL, root=str(mnist), train=None, test=None))
    assert [len(every[split]) for split in SPLITS] == [38, 10, 10]


def test_a_copy_of_a_dev_image_stays_in_no_split(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("test", 3)):
        names = FILES["mnist"][split]
        images = np.zeros((count, 6, 6)) + (np.arange(count) % 15 + (split == "test") * 100)[:, None, None]
        write_idx(tmp_path / names[0], images)
        write_idx(tmp_path / names[1], np.arange(count) % 10)
    found = build(DataConfig(source="mnist", root=str(tmp_path), validation=4))  # each training image is there twice
    dev, train = (set(found[split].x[:, 0, 0, 0].tolist()) for split in ("dev", "train"))
    assert not dev & train and len(dev) + len(train) == 15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"test": 11}, r"data\.test=11: mnist has 10 test images"),
        ({"validation": 19}, r"data\.train=30, data\.validation=19: mnist has 48 training images"),
        ({"train": None, "validation": 48}, r"data\.train=None, data\.validation=48"),
    ],
)
def test_more_images_than_there_are_are_refused(mnist: Path, words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load(replace(SMALL, root=str(mnist), **words))


def test_without_its_files_a_generated_set_takes_its_place_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = DataConfig(source="fashion_mnist", root=str(tmp_path), train=20, validation=5000)
    found = data.load(given)
    assert "data.source=fashion_mnist: its files are not below" in caplog.text and "INNERLOOP_DATA" in caplog.text
    assert found["train"].name == "shapes in place of fashion_mnist"
    assert [len(found[split]) for split in SPLITS] == [20, 500, 1000]
    taken = data.available(given)
    assert (taken.source, taken.stands_for) == ("shapes", "fashion_mnist") and data.available(taken) is taken


def test_files_of_which_some_are_missing_are_not_replaced(mnist: Path) -> None:
    (mnist / (FILES["mnist"]["test"][1] + ".gz")).unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is not below it"):
        data.load(replace(SMALL, root=str(mnist)))


def test_kept_splits_are_those_that_were_read_and_damage_is_repaired(
    mnist: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = replace(SMALL, root=str(mnist), cache=str(tmp_path / "kept"))
    plain = data.digests(data.load(replace(given, cache=None)))
    assert data.digests(data.load(given)) == plain
    with monkeypatch.context() as patched:
        patched.setattr("fal.images.build._read", lambda config: pytest.fail("they are kept"))
        assert data.digests(data.load(given)) == plain
    (file,) = (tmp_path / "kept").glob("*/train.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert data.digests(data.load(given)) == plain and "damaged (train)" in caplog.text
    names = FILES["mnist"]["train"]
    write_idx(mnist / names[1], np.arange(50) % 7)
    assert data.digests(data.load(given))["train"] != plain["train"], "other files are other splits"
    owned = DataConfig(source="shapes", train=6, validation=4, test=4, writers=3, cache=given.cache)
    first, second = data.load(owned)["train"], data.load(owned)["train"]
    assert first.owners is not None and second.owners is not None and torch.equal(first.owners, second.owners)


@pytest.mark.parametrize("make", [generated.shapes, generated.clusters])
def test_a_generated_item_is_a_function_of_seed_split_and_number(make: Callable[..., Pixels]) -> None:
    config = SHAPES if make is generated.shapes else DataConfig(source="clusters", train=9, test=9, classes=2)
    state = torch.get_rng_state()
    few, many = make(config, "train", 7), make(config, "train", 31)
    torch.manual_seed(5)
    again = make(config, "train", 7)
    assert torch.equal(few.x, many.x[:7]) and torch.equal(few.x, again.x) and torch.equal(few.y, many.y[:7])
    assert not torch.equal(few.x, make(config, "test", 7).x)
    assert not torch.equal(few.x, make(replace(config, seed=1), "train", 7).x)
    torch.set_rng_state(state)


def test_shapes_are_images_whose_classes_a_simple_rule_tells_apart() -> None:
    made = generated.shapes(SHAPES, "train", 600)
    assert made.x.shape == (600, 1, 8, 8) and 0 <= made.x.min() and made.x.max() <= 1
    assert made.y.bincount().tolist() == [60] * 10
    spectrum = torch.fft.fft2(made.x[:, 0]).abs().flatten(1)  # stripes whatever their phase, blobs by their place
    features = torch.cat([spectrum, made.x.flatten(1)], 1)
    train, test = slice(0, 400), slice(400, 600)
    centres = torch.stack([features[train][made.y[train] == label].mean(0) for label in range(10)])
    right = (torch.cdist(features[test], centres).argmin(1) == made.y[test]).float().mean()
    assert right > 0.9


def test_writers_differ_in_brightness() -> None:
    made = generated.shapes(replace(SHAPES, writers=4), "train", 400)
    assert made.owners is not None and sorted(set(made.owners.tolist())) == [0, 1, 2, 3]
    means = [float(made.x[made.owners == writer].mean()) for writer in range(4)]
    assert means == sorted(means) and means[3] - means[0] > 0.15


def test_clusters_have_their_means_spread_and_flipped_labels() -> None:
    settings = ClustersConfig(means=[[[0.0, 0.0]], [[10.0, 4.0]]], std=0.5, scale=2.0, flipped=0.25)
    config = DataConfig(source="clusters", train=9, test=9, classes=2, clusters=settings)
    train, test = generated.clusters(config, "train", 2000), generated.clusters(config, "test", 2000)
    truth = torch.arange(2000) % 2
    assert torch.equal(test.y, truth) and abs(float((train.y != truth).float().mean()) - 0.25) < 0.03
    for label, mean in ((0, [0.0, 0.0]), (1, [20.0, 8.0])):
        own = test.x[truth == label]
        assert torch.allclose(own.mean(0), torch.tensor(mean), atol=0.15)
        assert torch.allclose(own.std(0), torch.tensor(1.0), atol=0.08)
    loaded = data.load(config)["train"]
    assert not loaded.bounded and loaded.shape == (2, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"source": "svhn"}, r"data\.source=svhn: use one of fashion_mnist.*or datasets:<name or folder>"),
        ({"source": "datasets:"}, r"data\.source=datasets:"),
        ({"source": "shapes", "train": None}, r"data\.train=None.*generated in any size; say how many"),
        ({"train": 0}, r"data\.train=0: use 1 or more"),
        ({"classes": 1}, r"data\.classes=1: use 2 or more"),
        ({"source": "clusters", "test": 5, "classes": 3}, r"data\.clusters\.means=.*data\.classes=3"),
        (
            {"source": "clusters", "test": 5, "classes": 2, "clusters": ClustersConfig(flipped=1)},
            r"clusters\.flipped=1",
        ),
        ({"source": "clusters", "test": 5, "classes": 2, "clusters": ClustersConfig(scale=0)}, r"clusters\.scale=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**{"train": 5, **words})


def jpeg(color: tuple[int, int, int], side: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "JPEG")
    return file.getvalue()


def archive(path: Path, files: list[bytes], **changed: Any) -> Path:
    """As the packed CIFAR-10: here without a shared beginning of more than two bytes."""
    body = b"".join(file[2:] for file in files)
    parts = {
        "header": np.frombuffer(files[0][:2], np.uint8),
        "body": np.frombuffer(body, np.uint8),
        "offsets": np.cumsum([0, *(len(file) - 2 for file in files)]),
        "labels": np.arange(len(files), dtype=np.uint8),
    }
    np.savez(path, **{key: value for key, value in {**parts, **changed}.items() if value is not None})
    return path


def test_packed_jpeg_images_are_unpacked(tmp_path: Path) -> None:
    found = packed.read(archive(tmp_path / "a.npz", [jpeg((200, 0, 0)), jpeg((0, 0, 100))]), 10)
    assert found.x.shape == (2, 3, 32, 32) and found.x.dtype == torch.uint8 and found.y.tolist() == [0, 1]
    means = found.x.float().mean((2, 3)).round()
    assert (means - torch.tensor([[200.0, 0, 0], [0, 0, 100]])).abs().max() < 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(3, np.uint8)}, r"a\.npz: 2 images, and 3 labels"),
        ({"labels": np.array([0, 10], np.uint8)}, r"a\.npz: label 10 of item 1 is none of 0 to 9"),
        ({"labels": None}, r"a\.npz: no part 'labels\.npy' in it; of header, body, offsets, labels"),
        ({"offsets": np.array([0, 5, 5])}, r"a\.npz: offsets that do not cut its \d+ bytes"),
        ({"body": np.zeros(10, np.uint8), "offsets": np.array([0, 4, 10])}, r"a\.npz: image 0 is damaged"),
        ({"labels": np.array([0, None], object)}, r"a\.npz: damaged archive \(Object arrays cannot be loaded"),
    ],
)
def test_a_damaged_packed_archive_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = archive(tmp_path / "a.npz", [jpeg((200, 0, 0)), jpeg((0, 0, 100))], **changed)
    with pytest.raises(UserError, match=message):
        packed.read(path, 10)


def test_an_image_of_another_size_and_a_file_cut_short_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image 1 is of \(16, 16\) pixels, and 32 by 32 are needed"):
        packed.read(archive(tmp_path / "a.npz", [jpeg((9, 9, 9)), jpeg((9, 9, 9), 16)]), 10)
    path = archive(tmp_path / "b.npz", [jpeg((9, 9, 9))])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"b\.npz: damaged archive \(File is not a zip file\)"):
        packed.read(path, 10)


@pytest.mark.parametrize("saved", [True, False])
def test_any_data_set_of_the_library_is_read_by_name(tmp_path: Path, saved: bool) -> None:
    import datasets

    draw = np.random.default_rng(0)
    rows = {
        "picture": [Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(24)],
        "kind": [number % 3 for number in range(24)],
        "writer": [f"hand {number % 4}" for number in range(24)],
    }
    kinds = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.Value("int64"), "writer": datasets.Value("string")}
    )
    whole = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows, features=kinds),
        test=datasets.Dataset.from_dict({key: values[:1] for key, values in rows.items()}, features=kinds),
    )
    if saved:
        whole.save_to_disk(str(tmp_path / "mine"))
    else:
        (tmp_path / "mine").mkdir()
        for split in ("train", "test"):
            whole[split].to_parquet(str(tmp_path / "mine" / f"{split}-0.parquet"))
    columns = ColumnsConfig(image="picture", label="kind", client="writer")
    given = DataConfig(source="datasets:mine", root=str(tmp_path), validation=5, classes=3, columns=columns)
    found = data.load(given)
    assert [len(found[split]) for split in SPLITS] == [18, 5, 1], "one training image is the test image"
    assert found["train"].x.shape == (18, 1, 8, 8) and found["train"].name == "datasets:mine"
    assert found["train"].owners is not None and set(found["train"].owners.tolist()) <= {0, 1, 2, 3}
    raw = {
        np.asarray(image).tobytes(): (kind, int(writer[-1])) for image, kind, writer in zip(*rows.values(), strict=True)
    }
    for image, label, owner in zip(found["train"].x, found["train"].y, found["train"].owners, strict=True):
        assert raw[(image[0] * 255).round().byte().numpy().tobytes()] == (int(label), int(owner))
    for columns, message in [
        (ColumnsConfig(image="x", label="kind"), r"data\.columns\.image=x: datasets:mine, split train has the columns"),
        (
            ColumnsConfig(image="picture", label="kind", test="dev"),
            r"data\.columns\.test=dev: .* the splits train, test",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            data.load(replace(given, columns=columns))
    with pytest.raises(UserError, match=r"label 2 of item 2 is none of 0 to 1"):
        data.load(replace(given, classes=2))


def test_a_data_set_that_is_nowhere_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.source=datasets:nowhere/at_all: cannot be read .*; give a folder"):
        data.load(DataConfig(source="datasets:nowhere/at_all", root=str(tmp_path)))


@pytest.mark.parametrize(
    "words", [("data=shapes", "partition=dirichlet"), ("data=clusters", "partition=iid", "partition.validation=1")]
)
def test_the_command_prints_the_matrix_and_draws_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fal.data", *words, f"loop.root={tmp_path / 'runs'}"])
    data.main()
    shown = capsys.readouterr().out
    for text in ("Images of each client and class", "earth mover's", "client 4", "delta of all points", "eps sqrt("):
        assert text in shown
    assert ("client 5 (validation)" in shown) == (len(words) == 3)
    (figure,) = (tmp_path / "runs" / "fal" / "data").glob("*.png")
    with Image.open(figure) as image:
        assert image.size[0] > 300
    assert not any(path.is_dir() and path.name != "data" for path in (tmp_path / "runs" / "fal").iterdir())


def test_real_fashion_mnist(data_root: Path) -> None:
    found = data.load(DataConfig(source="fashion_mnist", root=str(data_root), train=2000, validation=500, test=200))
    assert [tuple(found[split].x.shape) for split in SPLITS] == [(2000, 1, 28, 28), (500, 1, 28, 28), (200, 1, 28, 28)]
    assert found["test"].y[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
