"""Every YAML file below conf/ composes against its paper's schema, sweeps in all their combinations."""

import importlib
import itertools
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from common.run.results import config_hash
from common.run.schema import schema_of, to_typed
from common.tables import published

CONF = Path(__file__).parents[1] / "conf"
PAPERS = sorted(path.parent.name for path in CONF.glob("*/config.yaml"))
APPENDED = ("experiment", "sweep")  # never in the defaults list, so chosen with a plus sign


def choices(folder: Path) -> Iterator[tuple[str, str]]:
    """(group, name) of every file in the groups below `folder`."""
    for path in sorted(folder.rglob("*.yaml")):
        if path.parent != folder:
            yield path.parent.relative_to(folder).as_posix(), path.stem


def own(folder: Path) -> list[tuple[str, str]]:
    """The choices of a primary config's folder that are not those of another command's below it."""
    other = {path.parent.relative_to(folder).parts[0] for path in folder.glob("*/config.yaml")}
    return [(group, name) for group, name in choices(folder) if group.partition("/")[0] not in other]


def word(group: str, name: str) -> str:
    return f"+{group}={name}" if group in APPENDED else f"{group}={name}"


CASES = [
    pytest.param(paper, group, name, id=f"{paper} {word(group, name)}")
    for paper in PAPERS
    for group, name in [*own(CONF / paper), *choices(CONF / "common")]
]


def composed(paper: str, *words: str, command: str = "train") -> Any:
    """The typed configuration, its folder, and Hydra's own, for one command line."""
    entry = command if (CONF.parent / paper / f"{command}.py").exists() else "data"  # a paper that is not finished
    importlib.import_module(f"{paper}.{entry}")  # registers the schema
    folder = f"conf.{paper}" if command == "train" else f"conf.{paper}.{command}"
    with initialize_config_module(folder, version_base="1.3"):
        cfg = compose("config", overrides=list(words), return_hydra_config=True)
    hydra, place = cfg.hydra, cfg.hydra.run.dir
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return to_typed(cfg, importlib.import_module(f"{paper}.config").SCHEMAS[command]), place, hydra


def test_there_is_something_to_test() -> None:
    assert "reckoning" in PAPERS and len(CASES) > 20


@pytest.mark.parametrize(("paper", "group", "name"), CASES)
def test_every_file_composes_at_every_scale(paper: str, group: str, name: str) -> None:
    for scale in [name] if group == "scale" else [path.stem for path in (CONF / paper / "scale").glob("*.yaml")]:
        words = [word(group, name)] if group == "scale" else [f"scale={scale}", word(group, name)]
        config, *_ = composed(paper, *words)
        assert config.scale == scale
        if group == "experiment":
            assert config.experiment == name, "an experiment file gives its runs their folder"


@pytest.mark.parametrize("scale", ["paper", "gpu", "cpu"])
def test_the_run_time_study_has_the_scales_of_the_training(scale: str) -> None:
    config, *_ = composed("reckoning", f"scale={scale}", command="cost")
    assert config.scale == scale and (CONF / "reckoning" / "scale" / f"{scale}.yaml").exists()


COMMANDS = sorted(
    f"{paper}.{path.stem}"
    for paper in PAPERS
    for path in (CONF.parent / paper).glob("*.py")
    if "@entry(" in path.read_text()
)


def groups_of(command: str) -> set[tuple[str, str]]:
    """(group, choice) on disk of what a command can choose from."""
    paper, name = command.split(".")
    reads = "pkg://conf.language" in (CONF / paper / "config.yaml").read_text()
    shared = {*choices(CONF / "common"), *(choices(CONF / "language") if reads else ())}
    hydra = {(group, choice) for group, choice in shared if group.startswith("hydra/")}
    papers = set(own(CONF / paper))
    if name == "evaluate":  # of a run, whose settings stand: at most on other data, and its own tracker
        tracker = {each for each in shared if each[0] == "tracker"}
        return hydra | tracker | {each for each in papers if paper == "reckoning" and each[0] == "data"}
    if name in ("generate", "plan"):  # of a run, with all its settings
        return hydra
    if command in ("fal.theory", "fal.toy"):  # points of their own, no images
        return {*own(CONF / paper / name), *shared}
    if command == "fal.planner":  # of any images, or of such points
        return {each for each in shared | papers if each[0] in ("data", "partition", "runtime")} | hydra
    if name == "cost":  # no problems, no methods
        return {*own(CONF / paper / name), *shared, *(each for each in papers if each[0] in ("model", "inner"))}
    return papers | shared


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_with_two_examples_and_every_choice(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [command, "--help"])
    importlib.import_module(command).main()
    shown, errors = capsys.readouterr()
    purpose, examples = shown.split("\n\n")[:2]
    assert len(purpose.splitlines()) <= 2 and purpose.endswith(".")
    assert len(re.findall(rf"^ *python -m {re.escape(command)}(?= )", examples, re.MULTILINE)) >= 2
    told: set[tuple[str, str]] = set()
    listed = shown.partition("is chosen without:\n")[2].partition("\n\n")[0]
    for group, names in re.findall(r"^  (\S+)(?: \(.+?\))? +((?:.+\n?)(?: {10}.+\n?)*)", listed, re.MULTILINE):
        assert group.startswith("+") == (group[1:] in APPENDED)
        told |= {(group.lstrip("+"), name) for name in names.replace("\n", " ").replace(" ", "").split(",")}
    assert told == groups_of(command) and not errors


def texts(params: Any) -> list[tuple[str, str]]:
    """Keys and values of a sweep, as they would be typed."""
    return [(key, str(value)) for key, value in params.items()]


def command_at(path: Path) -> str:
    """Whose choice a file in a group is: that of the command whose folder the group stands in, usually the training."""
    return "train" if path.parents[2] == CONF else path.parents[1].name


SWEEPS = [
    (paper, command_at(path), path.stem) for paper in PAPERS for path in sorted((CONF / paper).rglob("sweep/*.yaml"))
]


@pytest.mark.parametrize(("paper", "command", "name"), SWEEPS)
def test_every_cell_of_a_sweep_composes_and_has_a_folder_of_its_own(paper: str, command: str, name: str) -> None:
    tables = published.read(paper).tables if (CONF.parent / paper / published.FILE).exists() else {}
    command = tables[name].command if name in tables else command
    *_, hydra = composed(paper, f"+sweep={name}", command=command)
    assert hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    if "table" in hydra.sweeper:
        its = hydra.sweeper
        assert its.paper == paper and name in (its.table, f"budget_{its.table}")
        table = published.read(paper).table(its.table)
        first = [f"{key}={value if value[:1] == '[' else value.split(',')[0]}" for key, value in texts(its.params)]
        cells = [(*words, *first) for words, _ in table.jobs(its.rows, its.columns)]
        small = {(*words, *first) for words, _ in table.at("cpu").jobs(its.rows, its.columns)}
    else:
        small = None
        params = texts(hydra.sweeper.params)
        cells = list(itertools.product(*([f"{key}={word.strip()}" for word in v.split(",")] for key, v in params)))
    folders = set()
    for cell in cells:
        scale = "cpu" if small is None or cell in small else "paper"
        folders.add(composed(paper, f"+sweep={name}", f"scale={scale}", *cell, command=command)[1])
    assert len(folders) == len(cells)


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if (CONF.parent / paper / published.FILE).exists()])
def test_every_table_is_a_sweep(paper: str) -> None:
    with_runs = {name for name, table in published.read(paper).tables.items() if table.jobs()}
    assert with_runs == {name for its, _, name in SWEEPS if its == paper and name in published.read(paper).tables}


KEPT = sorted((CONF.parent / "docs" / "results").glob("*.runs.tar.xz"))


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_todays_schema_finds_every_kept_run(archive: Path) -> None:
    paper, files = archive.name.partition(".")[0], dict[str, dict[str, bytes]]()
    with tarfile.open(archive) as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if name in ("FINISHED", "config.yaml") and (content := tar.extractfile(member)):
                files.setdefault(folder, {})[name] = content.read()
    assert len(files) >= {"reckoning": 350, "perk": 102}.get(paper, 1)
    studies = {path.stem: command_at(path) for path in (CONF / paper).glob("*/experiment/*.yaml")} | {
        "run_time": "cost"
    }
    for folder, its in files.items():
        config = yaml.safe_load(its["config.yaml"])
        schema = schema_of(paper, config)
        command = studies.get(folder.split("/")[1], "train")
        assert schema is importlib.import_module(f"{paper}.config").SCHEMAS[command], folder
        assert config_hash(config, schema) == its["FINISHED"].decode().strip(), folder


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_file_opens_with_what_it_is_for(path: Path) -> None:
    lines = path.read_text().splitlines()
    first = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert first.startswith("# "), "say what the file is for"
    whole = path.parent.name in (*APPENDED, "scale", "budget") or path.parent in (
        CONF / "perk" / "method",
        CONF / "fal" / "method",
        CONF / "slowfast_vgen" / "method",
    )
    assert ("# @package _global_" in lines) == whole
    assert yaml.safe_load(path.read_text()), "nothing in it"
