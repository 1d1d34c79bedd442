"""What proves a checkpoint damaged, and what does not: only a proven one is passed over or goes."""

import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from common.run import checkpoint, state
from tests.common.run.checkpoints import flipped_bit, objects_of, run_of, two


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    run = state.RunState(tmp_path, keep=2)
    run.step = 1
    assert run.save(1, torch.device("cpu"), 0.0, 0)
    (tmp_path / "checkpoints" / checkpoint.name_of(1) / "state.json").write_text("{}")
    with pytest.raises(UserError, match="no checkpoint there can be read; delete the folder"):
        state.RunState(tmp_path, keep=2).restore(torch.device("cpu"))


NO_DAMAGE = (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ENOLCK, errno.EINTR)


@pytest.mark.parametrize("code", NO_DAMAGE, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "clients/b.safetensors", ""])
def test_an_error_of_reading_proves_no_damage(tmp_path: Path, code: int, name: str) -> None:
    folder = tmp_path / "checkpoints"
    newest = two(folder)
    harmed = newest / name if name else folder
    real = {"open": os.open, "listdir": os.listdir}

    def failing(call: str) -> Callable[..., Any]:
        def now(path: Any, *given: Any, **named: Any) -> Any:
            if Path(path) == harmed:
                raise OSError(code, os.strerror(code), str(path))
            return real[call](path, *given, **named)

        return now

    with pytest.MonkeyPatch.context() as patch:
        for call in real:
            patch.setattr(os, call, failing(call))
        with pytest.raises(
            UserError, match="cannot be read .*proves no damage: nothing is passed over or deleted; see"
        ):
            state.RunState(tmp_path, keep=1).restore(torch.device("cpu"))
    assert checkpoint.steps(folder) == [2, 1]
    found = checkpoint.latest(folder)
    assert found is not None and found.step == 2


def test_memory_that_is_short_proves_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two(tmp_path)
    monkeypatch.setattr(checkpoint.tensorfile, "verify", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match=r"step-000002: cannot be read \(out of memory\)"):
        checkpoint.latest(tmp_path)


def test_checkpoints_of_a_later_version_stop_everything(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for path in (two(folder), folder / "step-000001"):
        content = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps({**content, "schema": 2}))
    with pytest.raises(
        UserError, match=r"step-000002: checkpoint format 2, this code reads 1; update it\. If no later"
    ):
        state.RunState(tmp_path, keep=1).restore(torch.device("cpu"))
    # not even a run that went on from elsewhere deletes them
    checkpoint.save(folder, 0, {}, {}, keep=1)
    assert checkpoint.steps(folder) == [2, 1, 0]


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.faults)])
def test_every_flipped_bit_of_every_file_is_noticed(tmp_path: Path, every: int) -> None:
    small = {name: value for name, value in objects_of(1).items() if name != "rng"}
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, small, run_of(step))
    logging.disable(logging.WARNING)
    flips = 0
    try:
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            data = file.read_bytes()
            for bit in range(flips % every, 8 * len(data), every):
                changed = bytearray(data)
                changed[bit // 8] ^= 1 << bit % 8
                file.write_bytes(changed)
                with suppress(UserError):  # the digit of the version: a later one stops
                    found = checkpoint.latest(tmp_path)
                    assert found is not None and found.step == 1, (file.name, bit)
                flips += 1
            file.write_bytes(data)
    finally:
        logging.disable(logging.NOTSET)
    print(flips, "bits")
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2 and flips * every > 5_000


def test_later_checkpoints_go_when_they_are_proven_damaged_and_never_else(tmp_path: Path) -> None:
    for step in (1, 8, 9):
        checkpoint.save(tmp_path, step, objects_of(step), run_of(step), keep=9)
    flipped_bit(tmp_path / "step-000009" / "model.safetensors")
    checkpoint.save(tmp_path, 2, objects_of(2), run_of(2), keep=1)
    assert checkpoint.steps(tmp_path) == [8, 2], "9 was damaged, nobody knows why 8 is there"
    checkpoint.save(tmp_path, 8, objects_of(8), run_of(8), keep=1)
    assert checkpoint.steps(tmp_path) == [8]
