"""Arrays of archives, images packed in them, and IDX files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import idx, jpegs, npz
from common.errors import UserError


def packed(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """JPEG images of one colour each, without the two bytes with which all begin."""
    files = []
    for number, size in enumerate(sizes):
        file = io.BytesIO()
        Image.new("RGB", size, (40 * number, 0, 0)).save(file, "JPEG")
        files.append(file.getvalue())
    bodies = [each[2:] for each in files]
    offsets = np.cumsum([0, *map(len, bodies)])
    np.savez(path, header=np.frombuffer(files[0][:2], np.uint8), body=np.frombuffer(b"".join(bodies), np.uint8),
             offsets=offsets)  # fmt: skip
    return path


def test_optional_arrays_are_given_where_they_are_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones(2))
    assert set(npz.arrays(tmp_path / "a.npz", ["x"], optional=["y", "z"])) == {"x", "y"}
    with pytest.raises(UserError, match=r"a.npz: no part 'z.npy' in it; of x, z all are needed"):
        npz.arrays(tmp_path / "a.npz", ["x", "z"])


def test_what_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(UserError, match="a.npz: damaged archive"):
        npz.arrays(tmp_path / "a.npz", ["x"])


def test_images_of_any_size_are_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", [(24, 8)] * 3)
    found = jpegs.images(path, npz.arrays(path, jpegs.PARTS), 24, 8)
    assert found.shape == (3, 8, 24, 3) and found[:, 0, 0, 0].tolist() == pytest.approx([0, 40, 80], abs=2)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", [(24, 8), (8, 8)])
    with pytest.raises(UserError, match=r"image 1 is of \(8, 8\) pixels, and 24 by 8 are needed"):
        jpegs.images(path, npz.arrays(path, jpegs.PARTS), 24, 8)


def test_offsets_that_do_not_cut_the_body_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", [(8, 8)])
    parts = npz.arrays(path, jpegs.PARTS)
    for offsets in (np.array([0, 3]), np.array([], int)):
        with pytest.raises(UserError, match="offsets that do not cut its"):
            jpegs.images(path, {**parts, "offsets": offsets}, 8, 8)


def test_an_idx_file_is_read_and_one_cut_short_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03" + bytes(range(6)))
    assert idx.array(path, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"images: cut short: 17 bytes, and 18 with the sizes \[2, 3\]"):
        idx.array(path, 2)
