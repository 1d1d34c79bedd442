"""One page of a small paper, shared by the tests of what it says and of how it looks."""

import json
from pathlib import Path

import pytest

from common.tables import published, sweep
from common.tables.join import Joined
from common.tables.runs import read_runs
from scripts.report import __main__ as report
from scripts.tables.published_tables import all_tables
from tests.scripts.report.pages import PUBLISHED, RIGHT, Found, Reader, write_cost, write_method, write_rules


@pytest.fixture(scope="session")
def paper() -> published.Paper:
    return published.parse("reckoning", PUBLISHED)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, paper: published.Paper) -> Path:
    """Runs of two seeds that fill the first table but for one cell, and half of the second."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    with sweep.composing("reckoning") as compose:
        for words, once in paper.table("levels").jobs():
            method = next(word.partition("=")[2] for word in words if word.startswith("method="))
            level = words[-2].partition("=")[2]
            for seed in (0,) if once else (0, 1):
                settings = sweep.settings_of(compose(["scale=cpu", f"seed={seed}", *words]))
                if method == "shortcuts":
                    write_rules(folder, settings)
                elif (method, level) != ("ft_icr", "2"):
                    write_method(folder, settings, RIGHT[method, level] + seed)
    write_cost(folder)
    unfinished = folder / "reckoning" / "begun"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("experiment: proofwriter\n")
    (unfinished / "environment.json").write_text(json.dumps({"command": "python -m reckoning.train begun=yes"}))
    return folder


@pytest.fixture(scope="session")
def page(root: Path, paper: published.Paper) -> Path:
    """The page as the command writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "read", lambda name: paper)
        patch.setattr(report, "every_paper", lambda: ["reckoning"])
        return report.write([f"root={root}", f"output={root.parent / 'report.html'}"])


@pytest.fixture(scope="session")
def found(page: Path) -> Found:
    reader = Reader()
    reader.feed(page.read_text())
    return reader.found


@pytest.fixture(scope="session")
def joined(root: Path, paper: published.Paper) -> list[Joined]:
    return all_tables(read_runs(root, None, None)[0], [paper])
