"""Media of a run folder: which files, in which order, under which names, and what fits."""

from pathlib import Path

from common.run import media
from common.run.media import Medium, find, size_text, within


def test_files_come_in_the_order_of_their_numbers_with_kind_and_size(tmp_path: Path) -> None:
    assert find(tmp_path) == []
    folder = tmp_path / media.FOLDER
    folder.mkdir()
    for place, name in enumerate(["return-ep10.gif", "return-ep2.gif", "a.mp4", "return-ep02.gif", "b.png"]):
        (folder / name).write_bytes(bytes(place))
    for other in ("notes.txt", ".b.png.tmp-7", ".hidden.png"):
        (folder / other).write_bytes(b"x")
    (folder / "folder.png").mkdir()
    found = find(tmp_path)
    names = ["a.mp4", "b.png", "return-ep02.gif", "return-ep2.gif", "return-ep10.gif"]
    assert [medium.path for medium in found] == [folder / name for name in names]
    assert [medium.key for medium in found] == [f"media/{Path(name).stem}" for name in names]
    assert [medium.kind for medium in found] == ["video", "image", "video", "video", "video"]
    assert [medium.size for medium in found] == [2, 4, 3, 1, 0]


def test_two_files_of_one_stem_keep_their_suffix_as_a_name(tmp_path: Path) -> None:
    (tmp_path / media.FOLDER).mkdir()
    for name in ("a.gif", "a.png", "b.png"):
        (tmp_path / media.FOLDER / name).write_bytes(b"x")
    assert [medium.key for medium in find(tmp_path)] == ["media/a.gif", "media/a.png", "media/b.png"]


def test_what_does_not_fit_leaves_its_room_to_what_comes_later() -> None:
    sizes = {"first": 40, "large": 61, "second": 50, "third": 20, "last": 10}
    files = [Medium(Path(name), name, "image", size) for name, size in sizes.items()]
    kept, left_out = within(files, each=60, total=100)
    assert [medium.key for medium in kept] == ["first", "second", "last"]
    assert [medium.key for medium in left_out] == ["large", "third"]


def test_sizes_are_told_in_three_units() -> None:
    assert [size_text(size) for size in (90, 14_200, 3_210_000)] == ["90 bytes", "14 kB", "3.2 MB"]


def test_no_two_files_have_one_key(tmp_path: Path) -> None:
    (tmp_path / media.FOLDER).mkdir()
    names = ("a.png", "a.gif", "a.png.gif")
    for name in names:
        (tmp_path / media.FOLDER / name).write_bytes(b"x")
    assert {medium.key for medium in find(tmp_path)} == {f"media/{name}" for name in names}
