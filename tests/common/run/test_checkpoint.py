"""Checkpoints: exact round trips, whole or not there, old ones intact whatever happens."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from common.errors import UserError
from common.run import checkpoint


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_any_nesting_comes_back_exactly(tmp_path: Path) -> None:
    state = {
        "a.b": torch.arange(3),
        "a": {"b": torch.tensor(1.5, dtype=torch.float64), "empty": torch.zeros(0, 2)},
        0: [torch.tensor([True]), (1, 2.5, None, "x", b"\x00\xff"), {}],
        "$odd": float("nan"),
        "far": [float("-inf"), 2**200, -0.0],
        "half": torch.randn(2, 3, dtype=torch.bfloat16).T,
    }
    path = checkpoint.save(tmp_path, 7, {"thing": state}, {"records": 3})
    assert path == tmp_path / "step-000007"
    found = checkpoint.load(path)
    assert (found.step, found.run) == (7, {"records": 3})
    assert same(state, found.objects["thing"])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: Any) -> None:
    def step(model: nn.Module, optimiser: Any) -> None:
        optimiser.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimiser.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {"amsgrad": True}
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    optimiser = kind(groups, lr=0.1, **options)
    for _ in range(3):
        step(model, optimiser)
    checkpoint.save(tmp_path, 3, {"model": model.state_dict(), "optimiser": optimiser.state_dict()}, {})
    step(model, optimiser)

    again = nn.Linear(3, 2)
    fresh = kind([{"params": [again.weight]}, {"params": [again.bias]}], lr=0.5, **options)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    again.load_state_dict(found.objects["model"])
    fresh.load_state_dict(found.objects["optimiser"])
    step(again, fresh)
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    assert same(optimiser.state_dict(), fresh.state_dict())


def test_a_models_file_holds_its_parameters_under_their_own_names_and_tied_ones_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Embedding(5, 2)
            self.outside = nn.Linear(2, 5, bias=False)
            self.outside.weight = self.inside.weight

    model = Tied()
    path = checkpoint.save(tmp_path, 1, {"model": model.state_dict()}, {})
    assert list(load_file(path / "model.safetensors")) == ["inside.weight"]
    other = Tied()
    other.load_state_dict(checkpoint.load(path).objects["model"])
    assert torch.equal(other.outside.weight, model.inside.weight)


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"groups\.0\.rule is a function, which a checkpoint cannot hold"):
        checkpoint.save(tmp_path, 1, {"thing": {"groups": [{"rule": same}]}}, {})
    assert names(tmp_path) == []


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in range(10, 70, 10):
        checkpoint.save(tmp_path, step, {}, {}, keep=2, best=20 if step >= 20 else None)
    assert checkpoint.steps(tmp_path) == [60, 50, 20]
    checkpoint.save(tmp_path, 1_234_567, {}, {}, keep=1)
    assert names(tmp_path) == ["step-1234567"]


def test_what_lies_ahead_of_the_run_takes_no_place(tmp_path: Path) -> None:
    """Step 9 was damaged, so that the run went on from 3."""
    for step in (3, 9):
        checkpoint.save(tmp_path, step, {}, {}, keep=2)
    (tmp_path / "step-000009" / "state.json").write_text("torn")
    checkpoint.save(tmp_path, 5, {}, {}, keep=1)
    assert checkpoint.steps(tmp_path) == [5]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [half_a_file, flipped_bit, Path.unlink, lambda path: path.write_text("")])
@pytest.mark.parametrize("file", ["state.json", "model.safetensors"])
def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Any, file: str
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"model": {"weight": torch.full((2,), float(step))}}, {"records": step})
    harm(tmp_path / "step-000002" / file)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 1
    assert "step-000002" in caplog.text and "trying the one before" in caplog.text
    # the step comes again and replaces the broken one
    checkpoint.save(tmp_path, 2, {"model": {"weight": torch.zeros(2)}}, {})
    again = checkpoint.latest(tmp_path)
    assert again is not None and again.step == 2


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {}, {})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "schema": 99}))
    with pytest.raises(UserError, match="checkpoint format 99, this code reads 1"):
        checkpoint.load(path)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    path = checkpoint.save(tmp_path, 1, {"rng": {"state": torch.get_rng_state()}}, {})
    checkpoint.load(path)


@pytest.mark.parametrize("code, words", [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "quota exceeded")])
def test_a_full_disk_names_the_last_good_checkpoint_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    good = checkpoint.save(tmp_path, 10, {"model": {"weight": torch.ones(3)}}, {})
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the tensors were written, state.json is not
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        checkpoint.save(tmp_path, 20, {"model": {"weight": torch.zeros(3)}}, {})
    monkeypatch.undo()
    message = str(caught.value)
    assert "step-000020" in message and words in message and str(good) in message and "free space" in message
    assert names(tmp_path) == ["step-000010"]
    found = checkpoint.latest(tmp_path)
    assert found is not None and torch.equal(found.objects["model"]["weight"], torch.ones(3))


def test_a_disk_that_really_refuses_more_bytes_is_one_clear_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large; there is no earlier one; free space there"):
            checkpoint.save(tmp_path / "checkpoints", 1, {"model": {"weight": torch.zeros(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "checkpoints") == []
