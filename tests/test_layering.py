"""The rules of who may import whom, read off the syntax tree, and of what may stand in the repository at all."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPERS = {"reckoning", "perk", "fal", "slowfast_vgen"}
PRESENT = sorted(paper for paper in PAPERS if (ROOT / paper).is_dir())
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for room in ("common", "hydra_plugins", "scripts", *PRESENT)
    for path in (ROOT / room).rglob("*.py")
)
# Seconds each, or a licence to download: imported inside the function that needs them, so that --help stays quick.
HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "matplotlib",
    "pandas",
    "peft",
    "scipy",
    "sklearn",
    "tensorboard",
    "trackio",
    "transformers",
    "wandb",
    "wandb_workspaces",
}
# Each tracker's library is imported in one file.
TRACKERS = {
    "wandb": "common/run/trackers/wandb_run.py",
    "tensorboard": "common/run/trackers/tensorboard.py",
    "trackio": "common/run/trackers/trackio.py",
}
ENTRIES = {
    *("train.py", "evaluate.py", "data.py", "model.py", "cost.py", "generate.py", "plan.py"),
    *("theory.py", "planner.py", "toy.py", "flower/deploy.py"),
}
# Inside a paper: train, evaluate -> objective, model, data -> config.
CLOSED = {
    "config": {"data", "model", "objective", "train", "evaluate"},
    "data": {"model", "objective", "train", "evaluate"},
    "model": {"data", "objective", "train", "evaluate"},
    "objective": {"train", "evaluate"},
}
TOP_LEVEL = {
    *("conf", "common", "hydra_plugins", "scripts", "tests", "docs", *PAPERS),
    *("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile"),
    *("pyproject.toml", "requirements.lock", "requirements-flower.lock", "environment.yml"),
    *(".ci", ".github", ".gitignore", ".pre-commit-config.yaml"),
}


@dataclass(frozen=True)
class Import:
    module: str  # dotted; `from a import b` gives a.b, because b may be a module
    line: int
    deferred: bool  # inside a function, or for the type checker only

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def imports(file: str, source: str) -> list[Import]:
    """All imports of a file, relative ones made absolute."""

    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = file.split("/")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", node.lineno, deferred) for alias in node.names)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            deferred = True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            deferred = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, deferred)

    return list(visit(ast.parse(source, file), False))


def broken_rules(file: str, source: str) -> list[str]:
    """Every import of `file` (path from the checkout) that stands in the wrong room, with its line and the rule."""
    room, name, path = file.split("/")[0], file.split("/")[-1], file.removesuffix(".py").split("/")
    hydra_allowed = (
        file in ("common/run/entry.py", "common/tables/composing.py", "common/tables/sweep.py")
        or room == "hydra_plugins"
        or (
            room in PAPERS
            and (name in {"config.py", "__main__.py"} or file in {f"{room}/{entry}" for entry in ENTRIES})
        )
    )
    found = []
    for item in imports(file, source):
        inside = item.module.split(".")[1] if item.top == room and "." in item.module else ""
        rules = {
            "a paper never imports another paper": room in PAPERS and item.top in PAPERS - {room},
            "common imports no paper": room == "common" and item.top in PAPERS,
            "nothing imports scripts or tests": item.top == "tests" or (item.top == "scripts" and room != "scripts"),
            "hydra belongs to entries and config.py": not hydra_allowed and item.top.startswith("hydra"),
            f"{item.top} belongs to {TRACKERS.get(item.top)}": file != TRACKERS.get(item.top, file),
            "submitit belongs to the launcher": item.top == "submitit",
            f"{item.top} is imported inside functions": item.top in HEAVY and not item.deferred,
            "config.py is read without torch": name == "config.py" and item.top == "torch" and not item.deferred,
            f"{path[1]} never sees {inside}": room in PAPERS and inside in CLOSED.get(path[1], set()),
        }
        found += [f"{file}:{item.line}: import of {item.module}: {rule}" for rule, broken in rules.items() if broken]
    return found


@pytest.mark.parametrize("file", SOURCES)
def test_imports_stay_in_their_rooms(file: str) -> None:
    assert broken_rules(file, (ROOT / file).read_text()) == []


@pytest.mark.parametrize(
    "file, source, rule",
    [
        ("perk/train.py", "from reckoning import data", "another paper"),
        ("common/engine/inner.py", "def f():\n    import fal.model", "common imports no paper"),
        ("reckoning/data.py", "import scripts.tables", "scripts or tests"),
        ("reckoning/objective.py", "from hydra import compose", "hydra belongs"),
        ("reckoning/proofwriter/data.py", "import hydra", "hydra belongs"),
        ("scripts/tables/__main__.py", "import hydra", "hydra belongs"),
        ("common/run/run.py", "def f():\n    import wandb", "wandb belongs"),
        ("common/run/trackers/trackio.py", "def f():\n    from tensorboard import summary", "tensorboard belongs"),
        ("common/run/trackers/wandb_run.py", "import wandb", "inside functions"),
        ("common/run/trackers/trackio.py", "import trackio", "inside functions"),
        ("reckoning/train.py", "def f():\n    import submitit", "submitit belongs"),
        ("reckoning/audit.py", "from sklearn.linear_model import LogisticRegression", "inside functions"),
        ("reckoning/model.py", "class A:\n    import transformers", "inside functions"),
        ("reckoning/config.py", "import torch", "without torch"),
        ("reckoning/data.py", "from .model import build", "data never sees model"),
        ("reckoning/model.py", "def f():\n    from reckoning import data", "model never sees data"),
        ("reckoning/config.py", "from reckoning.objective import loss", "config never sees objective"),
    ],
)
def test_a_broken_rule_is_noticed(file: str, source: str, rule: str) -> None:
    assert [rule in line for line in broken_rules(file, source)] == [True]


@pytest.mark.parametrize(
    "file, source",
    [
        ("common/run/entry.py", "from hydra.core.hydra_config import HydraConfig"),
        ("common/run/trackers/wandb_run.py", "def f():\n    import wandb"),
        ("reckoning/config.py", "from hydra.core.config_store import ConfigStore"),
        ("reckoning/proofwriter/config.py", "from hydra.core.config_store import ConfigStore"),
        ("reckoning/data/__main__.py", "import hydra"),
        ("reckoning/model.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import transformers"),
        ("reckoning/train.py", "from reckoning import data, model, objective\nfrom common.engine.inner import adapt"),
        ("scripts/tables/__main__.py", "import reckoning.config, perk.config"),
    ],
)
def test_an_allowed_import_passes(file: str, source: str) -> None:
    assert broken_rules(file, source) == []


def outside_the_engine(file: str, source: str) -> list[str]:
    """Every import of a file of common/engine, deferred ones too, that is none of what the engine may stand on.

    An adapter is peft's and lies in peft's files: these two libraries inside functions.
    """
    found = []
    for item in imports(file, source):
        allowed = item.top in {"torch", "numpy", "triton", *sys.stdlib_module_names}
        allowed = allowed or (item.top in {"peft", "safetensors"} and item.deferred)
        if not allowed and not item.module.startswith(("common.engine.", "common.errors.")):
            found.append(f"{file}:{item.line}: the engine imports {item.module}")
    return found


ENGINE = [file for file in SOURCES if file.startswith("common/engine/")]


@pytest.mark.parametrize("file", ENGINE)
def test_the_engine_stands_on_torch_alone(file: str) -> None:
    assert outside_the_engine(file, (ROOT / file).read_text()) == []


def test_what_the_engine_does_not_stand_on_is_noticed() -> None:
    source = "import hydra, peft\ndef f():\n    import transformers\n    from common.run import run\n    import peft"
    lines = [line.split(" imports ")[1] for line in outside_the_engine("common/engine/inner.py", source)]
    assert lines == ["hydra", "peft", "transformers", "common.run.run"]


def test_importing_all_of_the_engine_loads_none_of_what_stands_on_it() -> None:
    modules = [file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in ENGINE]
    modules.remove("common.engine.cuda.fused")  # Triton is there with a CUDA build of torch only
    unwanted = ["hydra", "omegaconf", "transformers", "wandb", "diffusers", "peft"]
    program = f"import sys, {', '.join(modules)}; print(*sorted({set(unwanted)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that import one another in a ring, deferred imports and those for the type checker too; [] without one.

    `sources`: file -> text. That a module's packages are imported with it is no circle: they hold it.
    """
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in sources}

    def module_of(dotted: str) -> str:
        while dotted and dotted not in modules:
            dotted = dotted.rpartition(".")[0]
        return dotted

    following = {
        name: {module_of(item.module) for item in imports(file, sources[file])} - {"", name}
        for name, file in modules.items()
    }
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(following[name]):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(modules) if (found := walk(name, []))), [])


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circle({file: (ROOT / file).read_text() for file in SOURCES}) == []


def test_a_circle_is_noticed_wherever_its_imports_stand() -> None:
    ring = {
        "a/__init__.py": "from a.b import f",
        "a/b.py": "def f():\n    import a.c",
        "a/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import f",
    }
    assert circle(ring) == ["a", "a.b", "a.c"]
    assert circle({**ring, "a/c.py": "import os\nfrom a.d import e", "a/d.py": ""}) == []


def test_starting_a_command_loads_no_heavy_library() -> None:
    entries = [
        f"{paper}.{name[:-3].replace('/', '.')}"
        for paper in PRESENT
        for name in sorted(ENTRIES)
        if (ROOT / paper / name).exists()
    ]
    program = f"import sys, {', '.join(entries)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_reading_a_schema_loads_no_torch() -> None:
    program = f"import sys, {', '.join(f'{paper}.config' for paper in PRESENT)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_common_names_no_paper_and_no_dataset() -> None:
    names = re.compile(
        r"\b(" + "|".join([*PAPERS, "proofwriter", "clutrr", "folio", "babilong"]) + r")\b", re.IGNORECASE
    )
    rooms = ("common", "conf/common", "conf/language")
    files = [path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in sorted(files)
        if path.suffix in {".py", ".yaml"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := names.search(line))
    ]
    assert found == []


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Paths under version control."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [file for file in done.stdout.split("\0") if file and (ROOT / file).is_file()]
    if "pyproject.toml" not in files:
        pytest.skip("not a git checkout: what is under version control cannot be told")
    return files


def test_top_level_holds_what_it_should_and_nothing_else(tracked: list[str]) -> None:
    assert {file.split("/")[0] for file in tracked} - TOP_LEVEL == set()
    assert TOP_LEVEL - PAPERS - {file.split("/")[0] for file in tracked} == set()


def test_no_file_names_a_place_on_one_machine(tracked: list[str]) -> None:
    # Written with brackets so that this file passes its own test.
    folders = r"(?<![\w.])/(?:w[o]rk|r[o]ot|h[o]me|t[m]p|o[p]t)(?:/|\b)"
    hosts = r"p[y]pi\.org|p[y]thonhosted|p[y]torch\.org/wh[l]|--(?:extra-)?inde[x]-url|--find-link[s]"
    pattern = re.compile(f"{folders}|{hosts}")
    found = []
    for file in tracked:
        try:
            lines = (ROOT / file).read_text().splitlines()
        except UnicodeDecodeError:
            continue  # weights
        found += [f"{file}:{number}: {line}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert found == []


def test_no_file_is_too_large_for_a_repository(tracked: list[str]) -> None:
    assert [file for file in tracked if (ROOT / file).stat().st_size > 8_000_000] == []
