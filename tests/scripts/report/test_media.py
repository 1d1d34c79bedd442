"""Media on the page: the very bytes of each file inside it, and what is too large named instead."""

import json
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from common.run.results import config_hash
from common.run.schema import RunConfig
from common.tables import published
from scripts.report import __main__ as report
from scripts.report import media
from tests.tracked_run import finished_folder, write_media

KINDS = {"image/png": "img", "image/gif": "img", "video/mp4": "video"}


class Reader(HTMLParser):
    """Elements with bytes inside, by name of the file, and the text of each article."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shown: dict[str, dict[str, tuple[str, str, bytes]]] = {}
        """Article -> name -> tag, type, bytes."""
        self.texts: dict[str, str] = {}
        self._article = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "article":
            self._article = given["id"]
        if given.get("class") == "media":
            kind, _, data = given["src"].removeprefix("data:").partition(";base64,")
            name = given.get("alt") or given["aria-label"]
            assert tag == "img" or "controls" in given
            self.shown.setdefault(self._article, {})[name] = (tag, kind, b64decode(data, validate=True))

    def handle_data(self, data: str) -> None:
        self.texts[self._article] = self.texts.get(self._article, "") + data


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs of a paper without tables."""
    paper = published.parse("paper", "tables: {}")
    monkeypatch.setattr(published, "read", lambda name: paper)
    monkeypatch.setattr(report, "every_paper", lambda: ["paper"])
    for name in ("a", "b"):
        folder = tmp_path / "runs" / "paper" / "experiment" / name
        folder.mkdir(parents=True)
        finished_folder(folder)
        config = {"experiment": "experiment", "seed": 3}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        digest = config_hash(config, RunConfig)
        found = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps(found | {"config_hash": digest}))
        (folder / "FINISHED").write_text(f"{digest}\n")
        (folder / "environment.json").write_text(json.dumps({"command": f"python -m paper.train name={name}"}))
    return tmp_path / "runs"


def page(root: Path) -> tuple[str, Reader]:
    text = report.write([f"root={root}", f"output={root.parent / 'report.html'}"]).read_text()
    return text, Reader(text)


def test_without_media_there_is_no_such_section(root: Path) -> None:
    assert 'id="media"' not in page(root)[0]


def test_every_file_is_inside_the_page_below_its_run(root: Path) -> None:
    written = write_media(root / "paper" / "experiment" / "a")
    (root / "paper" / "experiment" / "b" / "media").mkdir()
    (root / "paper" / "experiment" / "b" / "media" / 'x<"&.png').write_bytes(written["frame.png"])
    text, found = page(root)
    assert list(found.shown) == ["media-1", "media-2"] and "media-left-out" not in found.texts
    assert {name: content for name, (_, _, content) in found.shown["media-1"].items()} == written
    assert list(found.shown["media-1"]) == ["frame.png", "return-ep2.gif", "return-ep10.mp4"]
    assert {kind: tag for tag, kind, _ in found.shown["media-1"].values()} == KINDS
    assert list(found.shown["media-2"]) == ['x<"&.png'] and 'x<"&' not in text
    assert str(root / "paper" / "experiment" / "a") in found.texts["media-1"]
    assert "experiment, method, seed 3" in found.texts["media-1"]
    assert "python -m paper.train name=b" in found.texts["media-2"]


def test_what_is_too_large_is_named_with_its_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST_EACH", 3000)
    monkeypatch.setattr(media, "MOST_IN_ALL", 5000)
    for name, sizes in {"a": {"first": 2900, "large": 3100}, "b": {"second": 2200, "third": 2000}}.items():
        folder = root / "paper" / "experiment" / name / "media"
        folder.mkdir()
        for file, size in sizes.items():
            (folder / f"{file}.gif").write_bytes(bytes(size))
    _, found = page(root)
    assert {anchor: list(shown) for anchor, shown in found.shown.items()} == {
        "media-1": ["first.gif"],
        "media-2": ["third.gif"],
    }
    told = " ".join(found.texts["media-left-out"].split())
    for name, file, size, why in (
        ("a", "large.gif", "3 kB", "larger than 3 kB"),
        ("b", "second.gif", "2 kB", "no room left on the page"),
    ):
        assert f"{root / 'paper' / 'experiment' / name / 'media' / file} {size} {why}" in told


def test_a_page_full_of_media_leaves_room_for_the_rest() -> None:
    assert media.MOST_IN_ALL * 4 / 3 + 2.5e6 < report.MOST_BYTES
