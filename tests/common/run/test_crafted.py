"""Checkpoints crafted by hand: each is taken for damaged, and the good one before it is read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.run import state
from tests.common.run.checkpoints import Holder, two


def edited(change: Callable[[dict[str, Any]], Any], *, signed: bool = False) -> Callable[[Path], None]:
    """Change `state.json`; `signed`: as an earlier version wrote it, without a hash of its own."""

    def harm(path: Path) -> None:
        content = json.loads((path / "state.json").read_text())
        del content["sha256"]
        content = change(content) or content
        data = json.dumps(content)
        if signed:
            data = f'{data[:-1]}, "sha256": "{hashlib.sha256(data.encode()).hexdigest()}"}}'
        (path / "state.json").write_text(data)

    return harm


def raw(text: str) -> Callable[[Path], None]:
    return lambda path: (path / "state.json").write_text(text) and None


def header(change: Callable[[dict[str, Any]], Any], name: str = "model") -> Callable[[Path], None]:
    """Change the header of a tensor file, and its hash in `state.json` so that it fits."""

    def harm(path: Path) -> None:
        file = path / f"{name}.safetensors"
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:end])
        new = change(entries)
        text = new if isinstance(new, bytes) else json.dumps(new or entries).encode()
        data = len(text).to_bytes(8, "little") + text + data[end:]
        file.write_bytes(data)
        found = hashlib.sha256(data).hexdigest()

        def sign(content: dict[str, Any]) -> None:
            parts = name.split("/")
            if len(parts) == 1:
                content["objects"][name]["sha256"] = found
            else:
                content["objects"][parts[0]]["shards"][parts[1]] = found

        edited(sign)(path)

    return harm


def linked(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(path.parent / "step-000001" / "model.safetensors")


def in_a_circle(path: Path) -> None:
    (path / "state.json").unlink()
    (path / "state.json").symlink_to("state.json")


def linked_folder(path: Path) -> None:
    (path / "clients").rename(path.parent.parent / "elsewhere")
    (path / "clients").symlink_to(path.parent.parent / "elsewhere")


def pipe(path: Path) -> None:
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def file_for_a_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def sparse(path: Path) -> None:
    os.truncate(path / "state.json", 1 << 40)


def at(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def structured(value: Any) -> Callable[[Path], None]:
    return edited(at("objects", "model", "structure", value=value), signed=True)


HARMS = {
    "a list": raw("[]"),
    "nothing": raw(""),
    "null": raw("null"),
    "deep": raw('{"schema": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "no number": raw('{"schema": 1, "step": NaN, "run": {}, "objects": {}}'),
    "a key twice": raw('{"schema": 1, "schema": 1, "step": 2, "run": {}, "objects": {}}'),
    "no utf-8": lambda path: (path / "state.json").write_bytes(b"\xff\xfe{}") and None,
    "a terabyte": sparse,
    "schema 0": edited(at("schema", value=0)),
    "schema true": edited(at("schema", value=True)),
    "schema text": edited(at("schema", value="1")),
    "step text": edited(at("step", value="2")),
    "step negative": edited(at("step", value=-2)),
    "another step": edited(at("step", value=1)),
    "step huge": edited(at("step", value=10**30)),
    "run a list": edited(at("run", value=[])),
    "run empty": edited(at("run", value={})),
    "best a number": edited(at("run", "best", value=3)),
    "best step text": edited(at("run", "best", "step", value="../x")),
    "records text": edited(at("run", "records", value="many")),
    "records negative": edited(at("run", "records", value=-1)),
    "seconds text": edited(at("run", "seconds", value="long")),
    "seconds without end": raw('{"schema": 1, "step": 2, "run": {"seconds": 1e999}, "objects": {}}'),
    "device null": edited(at("run", "device", value=None)),
    "made a list": edited(at("run", "made", value=[1])),
    "made of lists": edited(at("run", "made", value={"fixed": [1]})),
    "objects a list": edited(at("objects", value=[])),
    "object a number": edited(at("objects", "model", value=4)),
    "object a way out": edited(lambda c: c["objects"].update({"../step-000001/model": c["objects"].pop("model")})),
    "object a root": edited(lambda c: c["objects"].update({"/etc/passwd": c["objects"].pop("model")})),
    "hash a number": edited(at("objects", "model", "sha256", value=1)),
    "hash short": edited(at("objects", "model", "sha256", value="ab")),
    "no structure": edited(lambda c: c["objects"]["model"].pop("structure") and None),
    "shards a list": edited(at("objects", "clients", "shards", value=["a"])),
    "shard a way out": edited(at("objects", "clients", "shards", "../model", value="0" * 64)),
    "no generators": edited(lambda c: c["objects"].pop("rng") and None),
    "generators of a word": edited(at("objects", "rng", "structure", "python", value="x")),
    "numpy's generator short": edited(at("objects", "rng", "structure", "numpy", value=["MT19937", [1], 0, 0, 0.0])),
    "a tensor that is missing": structured({"weight": {"$tensor": "nowhere"}}),
    "a tensor by number": structured({"weight": {"$tensor": [1]}}),
    "a tuple of a number": structured({"weight": {"$tuple": 1}}),
    "a key that is a list": structured({"$dict": [[[1], 2]]}),
    "pairs that are none": structured({"$dict": [[1]]}),
    "no float": structured({"$float": "much"}),
    "no bytes": structured({"$bytes": "&"}),
    "deep structure": structured(json.loads("[" * 900 + "]" * 900)),
    "shape negative": header(at("weight", "shape", value=[-2, -3])),
    "shape huge": header(at("weight", "shape", value=[1 << 62, 1 << 62])),
    "shape huge and empty": header(lambda e: {**e, "none": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0],
                                                            "data_offsets": [24, 24]}}),
    "shape of texts": header(at("weight", "shape", value=["2", "3"])),
    "offsets negative": header(at("weight", "data_offsets", value=[-24, 0])),
    "offsets of three": header(at("weight", "data_offsets", value=[0, 1, 2])),
    "offsets beyond": header(at("weight", "data_offsets", value=[0, 1 << 40])),
    "a type of nowhere": header(at("weight", "dtype", value="F7")),
    "a tensor that is text": header(at("weight", value="w")),
    "no header": header(lambda _: b"]"),
    "header a list": header(lambda _: b"[]"),
    "deep header": header(lambda _: b"[" * 100_000),
    "metadata of numbers": header(at("__metadata__", value={"a": 1})),
    "a shard without structure": header(lambda e: e.pop("__metadata__") and None, "clients/a"),
    "a shard of a list": header(at("__metadata__", "structure", value="[1]"), "clients/a"),
    "a link": linked,
    "a link to itself": in_a_circle,
    "a linked folder": linked_folder,
    "a pipe": pipe,
    "a file for a folder": file_for_a_folder,
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_crafted_checkpoint_is_passed_over_for_the_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "checkpoints"
    harm(two(folder))
    run = state.RunState(tmp_path, keep=2)
    holders = {name: Holder() for name in ("model", "clients")}
    for name, holder in holders.items():
        run.add(name, holder)
    before = sorted(str(path) for path in folder.rglob("*"))
    assert run.restore(torch.device("cpu"))
    assert run.step == 1 and holders["model"].state["weight"].equal(torch.ones(2, 3))
    assert "step-000002" in caplog.text and "trying the one before" in caplog.text
    assert sorted(str(path) for path in folder.rglob("*")) == before, "nothing is deleted by looking"
