"""YAML is read in one place, by either loader to the same end; hostile text ends in an error."""

import ast
from pathlib import Path

import pytest
import yaml

from common import jsontext, yamltext
from common.errors import UserError

ROOT = Path(__file__).parents[2]
OWN = ("common", "hydra_plugins", "perk", "reckoning", "scripts")


def test_both_loaders_read_every_file_of_the_repository_alike() -> None:
    for path in [path for name in ("conf", *OWN) for path in (ROOT / name).rglob("*.yaml")]:
        text = path.read_bytes()
        assert yamltext.load(text, path) == yaml.load(text, yaml.SafeLoader), path  # noqa: S506


LAUGHS = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]\n" for n in range(1, 9))
MERGES = "a0: &a0 {b: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1},' * 10}]}}\n" for n in range(1, 12))
HOSTILE = [
    "[" * 100_000, "[" * 100_000 + "]" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000, "-\t" * 100_000,
    "\n".join(" " * depth + "-" for depth in range(500)), "\n".join(" " * depth + "b:" for depth in range(500)),
    "\u2028".join(" " * depth + "b:" for depth in range(500)), MERGES, MERGES.replace("<<", "!!merge x"),
    "a: !!bool x", 'a: !!int ""', 'a: !!float ""', "a: !!timestamp x",
    LAUGHS, "a: &a [*a]", "# " + "x" * 8_000_000,
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\x00", b"\xff\xfe\xfd", "!!python/object/apply:os.getcwd []", "a: *b", *HOSTILE],
    ids=range(6 + len(HOSTILE)),
)
@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
def test_what_is_no_yaml_is_said_where_it_stands(
    text: str | bytes, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yamltext, "LOADER", getattr(yaml, loader))
    with pytest.raises(UserError, match=r"^here: not YAML \(") as caught:
        yamltext.load(text, "here")
    assert "\n" not in str(caught.value)


def test_no_other_module_loads_yaml() -> None:
    for path in [path for name in OWN for path in (ROOT / name).rglob("*.py") if path.name != "yamltext.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                assert not node.attr.endswith(("load", "load_all", "Loader")), f"{path}:{node.lineno}"


def test_plain_text_that_looks_nested_is_read() -> None:
    assert yamltext.parse("a: [1, {b: null}]\nc: &x [1]\nd: *x\n") == {"a": [1, {"b": None}], "c": [1], "d": [1]}
    assert yamltext.parse("a: '<<'\n'<<': merge\n") == {"a": "<<", "<<": "merge"}
    assert yamltext.parse("text: 'a - b - c [d'\n") == {"text": "a - b - c [d"} and yamltext.parse("") is None


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "[" * 5000 + "]" * 5000, b"\xff"])
def test_wrong_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.parse(text)
