"""YAML is read in one place, by either loader to the same end."""

import ast
from pathlib import Path

import pytest
import yaml

from common import yamltext
from common.errors import UserError

ROOT = Path(__file__).parents[2]
OWN = ("common", "hydra_plugins", "perk", "reckoning", "scripts")


def test_both_loaders_read_every_file_of_the_repository_alike() -> None:
    for path in [path for name in ("conf", *OWN) for path in (ROOT / name).rglob("*.yaml")]:
        text = path.read_bytes()
        assert yamltext.load(text, path) == yaml.load(text, yaml.SafeLoader), path  # noqa: S506


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\x00", b"\xff\xfe\xfd", "!!python/object/apply:os.getcwd []", "[" * 100_000, "a: *b"]
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
