"""What perk/README.md tells to type composes, and the methods it lists are those that there are."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from common.tables import published
from perk.jsonl import read_lines
from tests.runs import run_here

ROOT = Path(__file__).parents[2]
README = (ROOT / "perk" / "README.md").read_text()
SHELL = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
COMMANDS = [words for line in SHELL.splitlines() if (words := shlex.split(line, comments=True))]


FILES = re.findall(r"^```yaml\n# conf/perk/(\S+\.yaml)(.*?)^```$", README, re.MULTILINE | re.DOTALL)
OWN = ["perk.train", "perk.evaluate", "perk.data", "perk.model"]
LAUNCH = ("-m", "hydra/launcher=local")


def test_every_shell_line_is_a_command_of_this_package() -> None:
    assert {tuple(words[:2]) for words in COMMANDS} == {("python", "-m")}
    assert {words[2] for words in COMMANDS} == {*OWN, "scripts.tables"}


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[2] in OWN], ids=" ".join)
def test_every_command_composes(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the files that the README shows; a sweep as one of its runs."""
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#{text}")
    main = importlib.import_module(words[2]).main
    given = [word for word in words[3:] if word not in LAUNCH and not word.startswith(("+sweep=", "seed="))]
    assert run_here(main, "--config-dir", str(tmp_path), *given, "--cfg", "job") == 0, capsys.readouterr().err


def test_an_own_problem_is_read_as_shown(tmp_path: Path) -> None:
    (lines,) = re.findall(r"^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.jsonl").write_text(lines)
    first, second = read_lines(tmp_path / "mine.jsonl")
    assert first.questions[0].support == ("Mary went home.",)
    assert second.questions[0].answers == ("home", "at home")


def test_tables_are_those_that_there_are() -> None:
    table = re.search(r"^\| `\+sweep=` \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert table
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", table[0], re.MULTILINE))
    found = {name: str(len(table.at("cpu").jobs())) for name, table in published.read("perk").tables.items()}
    assert listed == {name: count for name, count in found.items() if count != "0"}


def test_every_method_is_listed() -> None:
    rows = re.search(r"^\| `method=` \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert rows
    listed = {name for row in rows[0].strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == {path.stem for path in (ROOT / "conf" / "perk" / "method").glob("*.yaml")}
