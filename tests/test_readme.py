"""What the READMEs tell to type is true: commands compose, modules and targets exist, examples of one's own train."""

import ast
import importlib
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from common.run.schema import to_typed
from tests.runs import run_here

ROOT = Path(__file__).parents[1]
README, MANUAL = (ROOT / "README.md").read_text(), (ROOT / "reckoning" / "README.md").read_text()
OTHERS = ("CONTRIBUTING.md", "common/run/README.md", "docs/results/README.md")  # tests/perk/ has perk/README.md
PAGES = "\n".join([README, MANUAL, *((ROOT / name).read_text() for name in OTHERS)])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HARMLESS = {"source", "export", "mkdir", "cp", ".ci/run"}
OWN = ("data", "model", "method", "inner")
# Two outer steps of the least that can be trained; none of it says what is learned from, by what or how.
MINIATURE = [
    "outer.steps=2", "outer.batch_problems=2", "loop.log_every=1", "loop.evaluate_every=0",
    "evaluation.max_new_tokens=4", "data.theories={train:20,dev:2,test:2}", "data.cache=null",
]  # fmt: skip


def blocks(language: str, text: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def commands(text: str) -> list[list[str]]:
    """Every command of the sh blocks and every inline one, as words."""
    lines = [line for body in blocks("sh", text) for line in body.splitlines()]
    lines += re.findall(r"`((?:make|python -m) [^`]+)`", FENCE.sub("", text))
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = commands(PAGES)
PYTHON = [words[2:] for words in COMMANDS if words[0] == "python"]
HYDRA = [words for words in PYTHON if words[0].startswith("reckoning.")]
PERK = [words for words in PYTHON if words[0].startswith("perk.")]


def examples() -> dict[str, str]:
    """group/name.yaml -> text of every YAML block, which says in its first line where it belongs."""
    return {
        re.match(r"# conf/reckoning/(\S+\.yaml)\n", body)[1]: body  # type: ignore[index]
        for body in blocks("yaml", MANUAL)
    }


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder outside the checkout with everything that RECKONING's README tells to write."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name, text in examples().items():
        path = folder / "my_conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (lines,) = blocks("json", MANUAL)
    (folder / "mine.jsonl").write_text(lines)
    shutil.copytree(ROOT / "common" / "language" / "tiny", folder / "models" / "mine")
    return folder


def cells(words: list[str]) -> Iterator[list[str]]:
    """The single runs of a command line: without -m, one choice of every swept override each."""
    flags = [word for word in words if word.startswith("--") or "=" not in word and word != "-m"]
    parsed = OverridesParser.create().parse_overrides([word for word in words if "=" in word])
    axes = [
        [f"{o.input_line.split('=')[0]}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    for cell in itertools.product(*axes):
        yield [*flags, *cell]


# ---- what it says


def test_the_first_screen_says_what_why_how_and_what_is_not_there() -> None:
    screen = README[: README.index("\n## ")]
    assert len(screen.splitlines()) < 40
    assert [words[1] for words in commands(screen) if words[0] == "make"][:2] == ["run", "test"]
    papers = [line for line in screen.splitlines() if re.match(r"\| \[(RECKONING|PERK|FAL|SlowFast-VGen)\]", line)]
    assert len(papers) == 4
    for line in papers:
        package = re.match(r"\| \[([\w-]+)", line)[1].lower().replace("-", "_")  # type: ignore[index]
        assert ("not there yet" in line) != (ROOT / package).is_dir(), f"{package}: say what is there"


def test_beside_the_number_that_make_run_prints_stands_its_spread_over_seeds() -> None:
    """Both as in the row of the results page; more than one seed is behind it."""
    page = (ROOT / "docs" / "results" / "reckoning.md").read_text()
    value, interval, seeds = re.search(
        r"^\| Repaired \| RECKONING MT \| *\| ([\d.]+) \| ([\d.]+ to [\d.]+) \| *\| (\d) \|", page, re.MULTILINE
    ).groups()  # type: ignore[union-attr]
    assert int(seeds) > 1
    screen = README[: README.index("\n## ")]
    given, made = re.search(r"RECKONING gets ([\d., and]+) %, which makes ([^,]+ to [^,]+)\)", screen).groups()  # type: ignore[union-attr]
    each = [float(number) for number in re.findall(r"[\d.]+", given)]
    assert len(each) == int(seeds) and f"{sum(each) / len(each):.1f}" == value
    assert f"{made})" == f"{value} ({interval})"
    assert f"| ProofWriter without its shortcuts | {value} ({interval}) |" in README


def test_every_line_of_a_shell_block_is_a_command_that_is_checked_here() -> None:
    assert {words[0] for words in COMMANDS} <= {"make", "python", *HARMLESS}
    assert len(HYDRA) > 20 and PERK


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {word for words in COMMANDS if words[0] == "make" for word in words[1:] if "=" not in word}
    assert {"run", "test", "setup"} <= used <= targets
    variables = {word.split("=")[0] for words in COMMANDS if words[0] == "make" for word in words[1:] if "=" in word}
    assert all(re.search(rf"^{name} +\?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in variables)


@pytest.mark.parametrize("module", sorted({words[0] for words in PYTHON}))
def test_every_module_can_be_run(module: str) -> None:
    file = ROOT / module.replace(".", "/")
    tree = ast.parse((file / "__main__.py" if file.is_dir() else file.with_suffix(".py")).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names |= {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names & {"main", "dispatch"}
    assert any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)


def test_every_choice_of_a_group_is_listed() -> None:
    commands = MANUAL.split("\n## Commands\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `\+?(\w+)=`(?:, `(\w+)=`)? \|[^|]+\| (.+) \|$", commands, re.MULTILINE)
    folders = [ROOT / "conf" / name for name in ("common", "language", "reckoning")]
    seen = []
    for first, second, choices in rows:
        for group, part in zip(filter(None, (first, second)), choices.split(";"), strict=True):
            there = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
            assert set(re.findall(r"`(\w+)`", part)) == there, f"choices of {group}"
            seen.append(group)
    assert set(seen) == {"experiment", "scale", "runtime", "tracker", "method", "inner", "budget", "model", "data"}


def test_every_key_in_the_prose_is_a_key() -> None:
    from common.run.schema import flat, plain
    from perk.config import TrainConfig as PerkConfig
    from reckoning.config import TrainConfig

    known = {key for config in (TrainConfig(), PerkConfig()) for key in flat(plain(config))}
    text = FENCE.sub("", PAGES)
    pattern = r"`((?:model|data|method|inner|outer|evaluation|loop|runtime|tracker)\.[\w.]+)[=`]"
    named = set(re.findall(pattern, text))
    assert len(named) > 10
    assert {key for key in named if key not in known and not any(k.startswith(f"{key}.") for k in known)} == set()


# ---- what it tells to type


@pytest.mark.parametrize("words", HYDRA, ids=lambda words: " ".join(words))
def test_every_command_composes(
    newcomer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    from reckoning import cost, evaluate, train
    from reckoning.config import TrainConfig

    monkeypatch.chdir(newcomer)
    with_own_config: dict[str, Any] = {
        "reckoning.evaluate": (evaluate.main, evaluate.EvaluateConfig),
        "reckoning.cost": (cost.main, cost.CostConfig),
    }
    alone = words[0] in with_own_config
    main, schema = with_own_config.get(words[0], (train.main, TrainConfig))
    with_own = [] if alone or "--config-dir" in words else ["--config-dir", "my_conf"]
    given = [word for word in words[1:] if word not in ("--cfg", "job")]
    for cell in cells(given):
        assert run_here(main, *with_own, *cell, "--cfg", "job") == 0, capsys.readouterr().err
        to_typed(OmegaConf.create(yaml.safe_load(capsys.readouterr().out)), schema)


@pytest.mark.parametrize("words", PERK, ids=lambda words: " ".join(words))
def test_every_command_of_perk_composes(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    main = importlib.import_module(words[0]).main
    for cell in cells(words[1:]):
        assert run_here(main, *cell, "--cfg", "job") == 0, capsys.readouterr().err


def test_the_run_folders_it_names_are_those_that_its_commands_make(newcomer: Path) -> None:
    made = set()
    for words in HYDRA:
        if words[0] == "reckoning.train" and "--config-dir" not in words and not any("mine" in word for word in words):
            for cell in cells([word for word in words[1:] if "=" in word]):
                with initialize_config_module("conf.reckoning", version_base="1.3"):
                    cfg = compose("config", cell, return_hydra_config=True)
                made.add(cfg.hydra.run.dir)
    named = {word.removeprefix("run=").strip('"') for words in HYDRA for word in words if word.startswith("run=")}
    assert named and named <= made


def own_commands() -> list[list[str]]:
    """The training commands that use a file of one's own."""
    return [
        words
        for words in HYDRA
        if words[0] == "reckoning.train" and any(word in words for word in (f"{g}=mine" for g in OWN))
    ]


def test_there_is_an_example_of_each_group() -> None:
    assert set(examples()) == {f"{group}/mine.yaml" for group in OWN}
    assert {word for words in own_commands() for word in words if word.endswith("=mine")} == {f"{g}=mine" for g in OWN}
    assert any("--config-dir" in words for words in own_commands())


@pytest.mark.parametrize("words", own_commands(), ids=lambda words: " ".join(words[1:]))
def test_own_data_model_and_method_train(
    newcomer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    from reckoning import train

    monkeypatch.chdir(newcomer)
    given = words[1:] if "--config-dir" in words else ["--config-dir", "my_conf", *words[1:]]
    assert run_here(train.main, *given, *MINIATURE, f"loop.root={tmp_path}") == 0
    (mark,) = tmp_path.rglob("FINISHED")
    results = json.loads((mark.parent / "results.json").read_text())
    config = yaml.safe_load((mark.parent / "config.yaml").read_text())
    assert results["test"]["accuracy"]["count"] >= 1
    if not any(word.startswith("+experiment=") for word in given):
        assert mark.parts[-4:-2] == ("reckoning", "none")
    group = next(word for word in given if word.endswith("=mine")).split("=")[0]
    for key, value in yaml.safe_load(examples()[f"{group}/mine.yaml"]).items():
        there = config[group].get(key)
        expected = {**there, **value} if isinstance(value, dict) else value
        assert key == "defaults" or there == expected, f"{group}.{key} did not arrive"
