"""What tells where something was made is found in any nesting, and left out of what goes elsewhere."""

from typing import Any

import pytest

from common.run import private
from common.run.private import as_typed, public_command, public_environment, public_settings, telling, told
from reckoning.config import TrainConfig


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private.socket, "gethostname", lambda: "node17")
    monkeypatch.setenv("SOME_API_KEY", "a-very-own-key")
    monkeypatch.setenv("FLAG_TOKEN", "true")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("/users/ada/data", "absolute path"),
        ("~/gpt2", "absolute path"),
        (r"D:\data", "absolute path"),
        ("see file:///mnt/a/b", "absolute path"),
        (r"\\fileserver\data", "absolute path"),
        (r"read from \\fileserver\data$\train.jsonl", "absolute path"),
        (r"open('\\\\fileserver\\data')", "absolute path"),
        (r"\\?\UNC\fileserver\data", "absolute path"),
        ({"a": [{"b": "read from /mnt/disk/a"}]}, "absolute path"),
        ({"/scratch/one/two": 1}, "absolute path"),
        ("`/usr/x/y`", "absolute path"),
        ("on node17", "host or a user"),
        ("by ada", "host or a user"),
        ({"ada": 1}, "host or a user"),
        ("on other9", "host or a user"),
        ("on NODE17", "host or a user"),
        ("ssh node17.cluster.example.org", "host or a user"),
        ("on Other9.Lab.Example", "host or a user"),
        ("on box4", "host or a user"),
        ("on box4.example.org", "host or a user"),
        ("by Ada", "host or a user"),
        ("hf_" + "A1b2" * 8, "key or password"),
        ("ghp_" + "A1b2" * 8, "key or password"),
        ("sk-" + "A1b2" * 8, "key or password"),
        ("ghr_" + "A1b2" * 8, "key or password"),
        ("glpat-" + "A1b2" * 8, "key or password"),
        ("ASIA" + "A1B2" * 4, "key or password"),
        (f"eyJ{'a1' * 8}.eyJ{'b2' * 8}.{'c3' * 8}", "key or password"),
        ("WANDB_API_KEY=" + "0f" * 20, "key or password"),
        ("http://me:word@proxy:80", "key or password"),
        ("-----BEGIN RSA PRIVATE KEY-----", "key or password"),
        ({"x": ["the a-very-own-key"]}, "key or password"),
    ],
)
def test_whatever_tells_of_a_place_a_person_or_a_key_is_named(value: Any, reason: str) -> None:
    assert reason in telling(value, ["other9", "Box4.example.org"], ["ada"])
    assert "a-very-own-key" not in telling(value)


@pytest.mark.parametrize(
    "value",
    [
        "Yes/no, 1/2 / 3 </think> a /no_think b https://a.b/c",
        "adam",
        "a node of ten",
        "10 gpu",
        r"a \\ b \n c",
        r"\\alone",
        "eos_token=<|endoftext|>",
        "true",
        "0f" * 20,
        3,
        None,
        True,
        {"a": [1.5, "x"]},
    ],
)
def test_what_tells_nothing_passes(value: Any) -> None:
    assert telling(value, ["a.example.org", "10.1.2.3", "gpu.example.org"], ["root", ""]) == ""


def test_commands_and_settings_keep_what_can_change_a_number() -> None:
    command = "python /users/ada/reckoning/train.py -m scale=cpu loop.root=/users/ada/runs hydra.run.dir=x inner.lr=0.1"
    assert public_command(command, TrainConfig) == "python -m reckoning.train -m scale=cpu inner.lr=0.1"
    assert as_typed("python -m reckoning.train") == "python -m reckoning.train"
    config = {"loop": {"root": "/users/ada/runs"}, "data": {"root": "/d/e", "cache": "/c/d"}, "model": {"name": "gpt2"}}
    assert public_settings(config, TrainConfig) == {
        "loop": {"root": "runs"}, "data": {"root": None, "cache": "runs/data"}, "model": {"name": "gpt2"},
    }  # fmt: skip


def test_the_folder_of_a_run_whose_weights_were_taken_is_left_out() -> None:
    from slowfast_vgen.config import TrainConfig as VideoConfig

    assert public_settings({"slow": {"run": "/users/ada/runs/x"}}, VideoConfig) == {"slow": {"run": None}}
    assert public_settings({"slow": {"run": None, "steps": 3}}, VideoConfig) == {"slow": {"run": None, "steps": 3}}


def test_an_environment_has_no_host_at_any_start() -> None:
    start = {"command": "python /a/b/reckoning/train.py scale=cpu", "hardware": {"host": "node17", "cores": 2}}
    plain = {"command": "python -m reckoning.train scale=cpu", "hardware": {"cores": 2}}
    assert public_environment({**start, "starts": [start]}, TrainConfig) == {**plain, "starts": [plain]}


def test_of_an_absolute_path_a_tracker_is_told_the_last_part() -> None:
    settings = {
        "model": {"name": "/models/of/ada/gpt2", "note": "from ~/a/b.txt, and /no_think as it is"},
        "data": {"files": {"train": r"D:\data\train.jsonl", "dev": ["/x/y/dev.jsonl"], "test": r"\\server\d\t"}},
    }
    found = told("reckoning", settings, {"sweep": None}, machine=False)
    assert found == {
        "model": {"name": "gpt2", "note": "from b.txt, and /no_think as it is"},
        "data": {"files": {"train": "train.jsonl", "dev": ["dev.jsonl"], "test": "t"}},
        "environment": {"sweep": None},
    }
    assert told("reckoning", settings, {}, machine=True) == {**settings, "environment": {}}
