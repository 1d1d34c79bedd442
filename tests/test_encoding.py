"""Every text file and every text of another process is read and written as UTF-8, whatever the locale."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("common", "hydra_plugins", "perk", "reckoning", "scripts")
PROCESSES = {"run", "Popen", "check_output", "check_call", "call"}


def nameless(tree: ast.AST) -> Iterator[int]:
    """Lines with a call that takes the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Name, ast.Attribute)):
            continue
        attribute = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        given = {word.arg: word.value for word in node.keywords}
        if "encoding" in given or None in given:
            continue
        texts = [each.value for each in (*node.args, *given.values())
                 if isinstance(each, ast.Constant) and isinstance(each.value, str)]  # fmt: skip
        modes = [each for each in texts if each and set(each) <= set("rwaxbt+")]
        packed = any(each.startswith(("r:", "w:")) for each in texts)
        bare = name == "read_text" and attribute and not node.args
        opened = name in ("open", "fdopen") and bool(not attribute or modes or not node.args)
        opened |= name in ("TemporaryFile", "NamedTemporaryFile") and bool(modes)
        text = name in PROCESSES and ("text" in given or "universal_newlines" in given)
        opened = opened and not packed and not any("b" in mode for mode in modes)
        if bare or name in ("write_text", "FileHandler") or text or opened:
            yield node.lineno


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True), ("path.read_text(encoding='utf-8')", False), ("path.write_text(x)", True),
        ("open(p)", True), ("open(p, 'rb')", False), ("path.open('a')", True), ("path.open('wb')", False),
        ("subprocess.run(x, text=True)", True), ("subprocess.run(x, encoding='utf-8')", False), ("path.open()", True),
        ("gzip.open(p, 'rt')", True), ("gzip.open(p)", False), ("os.fdopen(d, 'w')", True), ("read_text(p)", False),
        ("logging.FileHandler(p)", True), ("open(p, mode='w')", True), ("reader.open('memories/mary')", False),
    ],
)  # fmt: skip
def test_the_check_finds_what_it_looks_for(code: str, found: bool) -> None:
    assert bool(list(nameless(ast.parse(code)))) is found


def test_nothing_takes_the_encoding_of_the_locale() -> None:
    paths = [path for name in OWN for path in sorted((ROOT / name).rglob("*.py"))]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in nameless(ast.parse(path.read_bytes()))]
    assert not found
