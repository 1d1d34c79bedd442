"""Every page is true to the repository: links and paths, numbers, figures, versions, and what a hosted machine runs."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
README = (ROOT / "README.md").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ROOMS = r"\.ci|\.github|common|conf|docs|fal|hydra_plugins|perk|reckoning|scripts|slowfast_vgen|tests"
DIARY = "docs/log.md"
"""Says what things were called when they were tried."""


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        "common/**/*.md",
        "docs/**/*.md",
        "fal/**/*.md",
        "perk/**/*.md",
        "reckoning/**/*.md",
        "slowfast_vgen/**/*.md",
        "tests/**/*.md",
    )
    for path in ROOT.glob(pattern)
)


@cache
def anchors(path: Path) -> set[str]:
    """What the headings of a page can be linked to as."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_every_page_resolves(page: str) -> None:
    here = ROOT / page
    for link in LINK.findall(FENCE.sub("", here.read_text())):
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (here.parent / place).resolve() if place else here
        assert target.exists() and target.is_relative_to(ROOT), f"{page} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}, which has no such heading"


def named(text: str) -> tuple[set[str], set[str]]:
    """The paths and the modules that a page names, without those with a placeholder in them."""
    prose = FENCE.sub("", text)
    paths = {
        line.split()[0] for name, body in FENCE.findall(text) if name == "text" for line in body.splitlines() if line
    }
    paths |= set(re.findall(rf"`((?:{ROOMS})/[^`\s=<*{{]*)`", prose))
    rooms = "common|fal|perk|reckoning|scripts|slowfast_vgen|tests"
    modules = re.findall(rf"`((?:{rooms})(?:\.\w+)+)`|python -m ((?:\w+\.)+\w+)", text)
    return paths, {first or second for first, second in modules}


@pytest.mark.parametrize("page", [page for page in PAGES if page != DIARY])
def test_every_path_and_module_that_a_page_names_exists(page: str) -> None:
    paths, modules = named((ROOT / page).read_text())
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert [name for name in sorted(modules) if not is_module(name)] == []


def is_module(name: str) -> bool:
    """Whether a dotted name is a module here, or something that a module defines or imports."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    above, _, last = name.rpartition(".")
    for file in (path.parent.with_suffix(".py"), path.parent / "__init__.py"):
        if above and file.is_file() and re.search(rf"^(def|class) {last}\b|^{last}\b", file.read_text(), re.MULTILINE):
            return True
    return False


def test_names_that_are_not_there_are_noticed() -> None:
    paths, modules = named("`common/gone.py`, `perk/<name>.py`, `common.engine.gone`, ```\n`scripts.tables`")
    assert paths == {"common/gone.py"} and modules == {"common.engine.gone", "scripts.tables"}
    assert [name for name in modules if not is_module(name)] == ["common.engine.gone"]


# ---- the root README


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 10_240


def printed() -> str:
    return "\n".join((RESULTS / f"{paper}.md").read_text() for paper in ("reckoning", "perk", "fal", "slowfast_vgen"))


def test_every_number_of_its_results_stands_in_the_printed_tables() -> None:
    text = "\n".join(
        [*re.findall(r"^\| \[.*$", README, re.MULTILINE), README.split("\n## Results\n")[1].split("\n## ")[0]]
    )
    cells = {(value, low, high) for _, value, low, high in re.findall(
        r"^(.*)\| ([-\d.]+) \| ([-\d.]+) to ([-\d.]+) \|", printed(), re.MULTILINE
    )}  # fmt: skip
    quoted = re.findall(r"(\d+\.\d) %? ?\((\d+\.\d) to (\d+\.\d)\)", text)
    assert len(quoted) > 15
    assert [triple for triple in quoted if triple not in cells] == []
    numbers = set(re.findall(r"(?<![\d.:/])-?\d+\.\d(?![\d.])", re.sub(r"\(https?:\S+\)", "", text)))
    there = set(re.findall(r"(?<![\d.])-?\d+\.\d(?![\d.])", printed()))
    assert numbers - there == set()


def test_the_figure_shows_what_the_tables_say() -> None:
    """Numbers and intervals of the picture, place by place, and the command that draws it."""
    picture = (RESULTS / "clutrr.svg").read_text()
    (command,) = [
        line for line in (RESULTS / "README.md").read_text().splitlines() if line.startswith("python -m scripts.figure")
    ]
    words = dict(re.findall(r"'?\b(columns|rows|output)=([^']*?)(?:'|$)", command))
    places = [(c, r) for c in words["columns"].split("; ") for r in words["rows"].split("; ")]
    cells = {(c, r): (v, float(low), float(high)) for c, r, v, low, high in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|[^|]*\| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", printed(), re.MULTILINE
    )}  # fmt: skip
    starts = [float(x) for x in re.findall(r'class="title" x="([\d.]+)" y="40"', picture)]
    shown = re.findall(r'class="bar" d="M([\d.]+) \d+H([\d.]+)".*>([\d.]+)</text>', picture)
    assert len(shown) == len(places) and words["output"] == "docs/results/clutrr.svg"
    for index, (place, (left, right, value)) in enumerate(zip(places, shown, strict=True)):
        start = starts[index * len(starts) // len(shown)]
        low, high = (float(end) - start for end in (left, right))
        assert value == cells[place][0]
        assert [low / 1.8, high / 1.8] == pytest.approx(cells[place][1:], abs=0.15), place
    assert README.index("docs/results/clutrr.svg") < README.index("\n## "), "it stands near the top"


# ---- citation, changelog, hosted CI


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert CITATION["version"] == version
    assert re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version  # type: ignore[index]


def test_the_citation_file_has_what_its_format_asks_for_and_the_readme_cites_the_same_papers() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION.keys() >= {"message", "title", "authors", "type", "license"}
    (bibtex,) = [body for name, body in FENCE.findall(README) if name == "bibtex"]
    entries = re.split(r"^@", bibtex, flags=re.MULTILINE)[1:]
    assert len(CITATION["references"]) == len(entries) == 4
    for reference, entry in zip(CITATION["references"], entries, strict=True):
        assert reference["type"] == "conference-paper"
        assert reference["title"] == re.search(r" title=\{(.+?)\}, booktitle", entry)[1].replace("{", "").replace(
            "}", ""
        )  # type: ignore[index]
        authors = [f"{each['given-names']} {each['family-names']}" for each in reference["authors"]]
        assert authors == re.search(r"author=\{(.+?)\}", entry)[1].split(" and ")  # type: ignore[index]
        assert f"year={{{reference['year']}}}" in entry
        (identifier,) = [each["value"] for each in reference["identifiers"]]
        assert f"note={{{identifier}}}" in entry
        assert reference["url"].endswith(identifier.removeprefix("arXiv:")) and f"]({reference['url']})" in README
        assert entry.count("{") == entry.count("}")


def test_a_hosted_machine_runs_what_a_change_must_pass_and_may_write_nothing() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={python}"
