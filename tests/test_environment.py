"""The lock, the version ranges, conda's file, the hooks and the imports say the same."""

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEVELOPMENT, FLOWER = (
    [Requirement(line) for line in PROJECT["project"]["optional-dependencies"][extra]] for extra in ("dev", "flower")
)
EXTRAS = {
    "common": ["tensorboard", "trackio"],
    "fal": ["aa", "flower"],
    "scripts": ["benchmark", "dashboard"],
    "slowfast_vgen": ["video"],
    "tests": ["dev", "flower", "trackio"],
}
"""Package -> the extras whose libraries it may import."""
BROUGHT_BY_TORCH = {Path("common/engine/cuda/fused.py"): {"triton"}}
"""File -> what it imports though pyproject.toml does not name it: torch's CUDA build brings its own triton, of the one
version it fits, and its CPU build has none. The file is imported on CUDA alone."""
PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py"))


def locked(file: str) -> tuple[dict[str, Version], dict[str, list[Requirement]]]:
    """Canonical distribution name -> version, and -> what it asks of others; any other line is refused."""
    pins: dict[str, Version] = {}
    asked: dict[str, list[Requirement]] = {}
    for line in (ROOT / file).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)(?:  # (.+))?", line)
        assert match, f"{file}: {line!r} is not name==version (no paths, no local versions)"
        name = canonicalize_name(match[1])
        assert name not in pins, f"{file}: {name} stands twice"
        pins[name] = Version(match[2])
        asked[name] = [Requirement(word) for word in (match[3] or "").split()]
    return pins, asked


LOCK, _ = locked("requirements.lock")
FLOWER_LOCK, ASKED = locked("requirements-flower.lock")
ALL = {**LOCK, **FLOWER_LOCK}


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT + FLOWER, ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_the_range(requirement: Requirement) -> None:
    file, versions = ("both locks", ALL) if requirement in FLOWER else ("requirements.lock", LOCK)
    name = canonicalize_name(requirement.name)
    assert name in versions, f"{name} is declared in pyproject.toml but not in {file}"
    assert requirement.specifier, f"{name} has no version range in pyproject.toml"
    assert requirement.specifier.contains(versions[name]), f"{file} {versions[name]}, pyproject.toml {requirement}"


def test_the_lock_holds_everything_its_packages_need() -> None:
    needed = {name for name, _ in closure(RUNTIME + DEVELOPMENT)}
    assert not (missing := needed - LOCK.keys()), f"requirements.lock lacks {sorted(missing)}"
    assert not (unused := LOCK.keys() - needed), f"nothing needs {sorted(unused)}"


def test_the_locks_packages_bear_each_other() -> None:
    for name, extra in sorted(closure(RUNTIME + DEVELOPMENT)):
        if name in LOCK and installed(name) == LOCK[name]:
            for asked in requirements_of(name, extra):
                assert meets(asked, LOCK), f"{name} {LOCK[name]} asks for {asked}: requirements.lock has another"


def test_flower_joins_the_lock_without_moving_it() -> None:
    """By what requirements-flower.lock records of its packages' metadata: this needs neither Flower nor a network."""
    assert not (twice := LOCK.keys() & FLOWER_LOCK.keys()), f"in both locks: {sorted(twice)}"
    assert ASKED["flwr"], "requirements-flower.lock records nothing that flwr asks for"
    for name, requirements in ASKED.items():
        for asked in requirements:
            assert meets(asked, LOCK), f"{name} asks for {asked}, requirements.lock has {LOCK.get(asked.name)}"


@pytest.mark.flower
def test_flowers_lock_is_whole_and_records_what_is_asked_of_the_other() -> None:
    asks: dict[str, set[str]] = {name: set() for name in FLOWER_LOCK}
    for name, extra in (found := closure(FLOWER)):
        for asked in requirements_of(name, extra):
            assert meets(asked, ALL), f"{name} asks for {asked}: the two locks have another"
            if name in FLOWER_LOCK and asked.specifier and (other := canonicalize_name(asked.name)) in LOCK:
                asks[name].add(f"{other}{asked.specifier}")
    assert (needed := {name for name, _ in found}) <= ALL.keys(), f"lacking: {sorted(needed - ALL.keys())}"
    assert FLOWER_LOCK.keys() <= needed, f"nothing needs {sorted(FLOWER_LOCK.keys() - needed)}"
    for name, words in asks.items():
        assert sorted(map(str, ASKED[name])) == sorted(words), f"write {name}=={ALL[name]}  # {' '.join(sorted(words))}"


def closure(roots: list[Requirement]) -> set[tuple[str, str]]:
    """All that `roots` bring, by the metadata of what is installed: (canonical name, extra asked of it or "")."""
    seen: set[tuple[str, str]] = set()
    queue = [(canonicalize_name(r.name), extra) for r in roots for extra in ("", *r.extras)]
    while queue:
        if (found := queue.pop()) not in seen:
            seen.add(found)
            queue += [(canonicalize_name(r.name), e) for r in requirements_of(*found) for e in ("", *r.extras)]
    return seen


def meets(asked: Requirement, versions: dict[str, Version]) -> bool:
    version = versions.get(canonicalize_name(asked.name))
    return version is not None and asked.specifier.contains(version, prereleases=True)


def installed(name: str) -> Version | None:
    try:
        return Version(distribution(name).version)
    except PackageNotFoundError:
        return None


def requirements_of(name: str, extra: str) -> list[Requirement]:
    """What the installed `name` asks for; of torch's GPU build the CUDA packages are left out, as in the lock."""
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    found = [requirement for requirement in map(Requirement, lines)]
    found = [r for r in found if r.marker is None or r.marker.evaluate({"extra": extra})]
    return [r for r in found if name != "torch" or not r.name.startswith(("nvidia-", "cuda-", "triton"))]


def test_conda_installs_the_lock_on_a_python_the_project_allows() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (by_pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert by_pip == ["-r requirements.lock", "-e ."], "versions belong into requirements.lock alone"
    assert sorted(line.split("=")[0] for line in plain) == ["pip", "python"]
    (python,) = [line.split("=")[1] for line in plain if line.startswith("python=")]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)


def test_make_setup_installs_the_lock_torch_first() -> None:
    *setup, flower = re.findall(r"-m pip install (.*)", (ROOT / "Makefile").read_text())
    assert [("torch==" in line, "requirements.lock" in line) for line in setup] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert "--no-deps" in setup[-1] and "--editable ." in setup[-1]
    assert flower == "--constraint requirements.lock --requirement requirements-flower.lock"


def test_hooks_call_the_locked_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        tool = Path(shlex.split(hook["entry"])[0])
        assert hook["language"] == "system" and tool.parent == Path(".venv/bin") and tool.name in LOCK


def test_tools_aim_at_the_oldest_python_allowed() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def test_every_package_is_installed() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for package in PACKAGES:
        assert any(fnmatch(package.name, pattern) for pattern in patterns), f"{package.name} is in no pattern"


@pytest.mark.parametrize("command, target", PROJECT["project"]["scripts"].items())
def test_a_console_command_calls_a_function_that_exists(command: str, target: str) -> None:
    module, function = target.split(":")
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names |= {a.asname or a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert function in names, f"{command}: {target} does not exist"


@pytest.mark.parametrize("package", [*PACKAGES, ROOT / "tests"], ids=lambda package: package.name)
def test_every_import_is_declared(package: Path) -> None:
    lines = [
        line for extra in EXTRAS.get(package.name, []) for line in PROJECT["project"]["optional-dependencies"][extra]
    ]
    declared = {canonicalize_name(r.name) for r in [*RUNTIME, *map(Requirement, lines)]}
    providers = packages_distributions()
    ours = {path.name for path in PACKAGES} | {"tests"} | set(sys.stdlib_module_names)
    for path in sorted(package.rglob("*.py")):
        for name in imported(path) - ours - BROUGHT_BY_TORCH.get(path.relative_to(ROOT), set()):
            distributions = {canonicalize_name(d) for d in providers.get(name, [name])}
            assert distributions & declared, f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml lacks"


def imported(path: Path) -> set[str]:
    """First part of every absolute import in the file, wherever it stands."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module or ""

    return {name.split(".")[0] for name in names()}
