"""Text that nests without end, or means more than it says, is an error and never the end of the process."""

import subprocess
import sys

import pytest

from common.data.nested import from_json, from_yaml


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        "{a: " * 200_000,
        "- " * 200_000,
        "? " * 200_000,
        "-\t" * 200_000,
        "\n".join(" " * depth + "-" for depth in range(1500)),
        "a:\n" + "\n".join(" " * depth + "b:" for depth in range(1, 1500)),
        "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]\n" for n in range(1, 9)),
        "a: &a [*a]",
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "a: [1",
        "\x00",
    ],
    ids=range(14),
)  # fmt: skip
def test_a_hostile_text_is_a_value_error(text: str) -> None:
    code = "import sys; from common.data.nested import from_yaml\ntry: from_yaml(sys.stdin.read())\n"
    code += "except ValueError: print('refused')"
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-300:]


def test_plain_data_is_read() -> None:
    assert from_yaml("a: [1, {b: null}]\nc: &x [1]\nd: *x\n") == {"a": [1, {"b": None}], "c": [1], "d": [1]}
    assert from_yaml("text: 'a - b - c [d'\n") == {"text": "a - b - c [d"}
    assert from_json('{"a": [1]}') == {"a": [1]} and from_yaml("") is None


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "[" * 5000 + "]" * 5000])
def test_json_alike(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)
