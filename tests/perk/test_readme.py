"""What perk/README.md tells to type composes, and the methods it lists are those that there are."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tests.runs import run_here

ROOT = Path(__file__).parents[2]
README = (ROOT / "perk" / "README.md").read_text()
SHELL = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
COMMANDS = [words for line in SHELL.splitlines() if (words := shlex.split(line, comments=True))]


def test_every_shell_line_is_a_command_of_this_package() -> None:
    assert {tuple(words[:2]) for words in COMMANDS} == {("python", "-m")}
    assert {words[2] for words in COMMANDS} == {"perk.train", "perk.evaluate", "perk.data", "perk.model"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_composes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(words[2]).main
    assert run_here(main, *words[3:], "--cfg", "job") == 0, capsys.readouterr().err


def test_every_method_is_listed() -> None:
    rows = re.search(r"^\| `method=` \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert rows
    listed = {name for row in rows[0].strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == {path.stem for path in (ROOT / "conf" / "perk" / "method").glob("*.yaml")}
