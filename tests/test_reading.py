"""Nothing that is read runs: no pickle, no YAML of objects, no code of a model's or a data set's folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "reckoning", "perk", "fal", "slowfast_vgen", "scripts", "hydra_plugins")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "shelve",
    "marshal",
    "jsonpickle",
    "joblib.numpy_pickle",
}
ITS_OWN = {
    "common/run/pool.py": "what a process of the sweep says",
    "common/run/worker.py": "what the sweep says",
    "hydra_plugins/innerloop_launcher.py": "what the sweep says",
    "common/tables/composing.py": "a copy, in memory",
    "common/engine/unroll/scenes.py": "states of random generators, compared and never read back",
}
"""Files that may pickle, and what: never what lies in a file."""
CALLS = {
    *("torch.load", "numpy.load", "np.load", "joblib.load", "pandas.read_pickle", "pd.read_pickle"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all", "yaml.load_all"),
    *("eval", "exec", "input", "compile", "__import__"),
}
"""`compile` is Python's own; torch's is `torch.compile`."""
SAFE = {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader", "CSafeLoader"}
AUTO = ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForCausalLM")
ASKED = ("from_pretrained", "from_config")


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(text: str) -> Iterator[str]:
    tree = ast.parse(text)
    closed = {  # names of mappings that hold trust_remote_code=False, for calls with **
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
        and any(
            isinstance(key, ast.Constant) and key.value == "trust_remote_code" and closing(value)
            for key, value in zip(node.value.keys, node.value.values, strict=True)
        )
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {each.name}" for each in node.names if each.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS:
                yield f"{name}()"
            if name == "yaml.load":
                given = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "Loader")]
                if not given or any(dotted(loader) not in SAFE for each in given for loader in branches(each)):
                    yield "yaml.load() by another loader"
            owner, _, method = name.rpartition(".")
            if owner in AUTO and method in ASKED:
                words = {word.arg: word.value for word in node.keywords if word.arg}
                spread = {dotted(word.value) for word in node.keywords if word.arg is None}
                if not closing(words.get("trust_remote_code")) and not spread & closed:
                    yield f"{name}() without trust_remote_code=False"
            for word in node.keywords:
                if word.arg in ("trust_remote_code", "allow_pickle") and not closing(word.value):
                    yield f"{name}({word.arg}=...)"
                if word.arg == "weights_only" and closing(word.value):
                    yield f"{name}(weights_only=False)"


def closing(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def branches(node: ast.expr) -> list[ast.expr]:
    return [*branches(node.body), *branches(node.orelse)] if isinstance(node, ast.IfExp) else [node]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_runs(path: Path) -> None:
    name, found = path.relative_to(ROOT).as_posix(), list(faults(path.read_text(encoding="utf-8")))
    if name in ITS_OWN:
        assert found and all(fault.removeprefix("import ") in MODULES for fault in found)
    elif name == "common/yamltext.py":  # its LOADER: tests/common/test_yamltext.py
        assert found == ["yaml.load() by another loader"]
    else:
        assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from dill import load",
        "import torch\ntorch.load('a.pt')",
        "import numpy as np\nnp.load('a.npy')",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.load(text, yaml.CSafeLoader if fast else yaml.FullLoader)",
        "AutoConfig.from_pretrained('a')",
        "AutoModelForCausalLM.from_pretrained('a', trust_remote_code=config.trusted)",
        "how = {'trust_remote_code': True}\nAutoModelForCausalLM.from_config(c, **how)",
        "np.frombuffer(x)\nf(allow_pickle=True)",
        "read(path, weights_only=False)",
        "input('run it? ')",
    ],
)
def test_what_would_run_is_seen(text: str) -> None:
    assert list(faults(text))


def test_what_is_safe_passes() -> None:
    safe = "import yaml\nyaml.safe_load(x)\nyaml.load(x, yaml.CSafeLoader if c else yaml.SafeLoader)\n"
    safe += "how = {'trust_remote_code': False}\nAutoConfig.from_pretrained(x, **how)\n"
    assert not list(faults(safe + "torch.compile(f)\nAutoTokenizer.from_pretrained(x, trust_remote_code=False)\n"))
