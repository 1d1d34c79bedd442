"""A run's check of its outer gradient: said once, kept, and without a trace in what is trained."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.engine.conditioning import Conditioning, conditioning
from common.errors import UserError
from common.language import gradient_check
from common.run import gradient_record, results
from common.run.folder import LOG, METRICS
from tests.reckoning.conftest import Mini


def only(root: Path) -> Path:
    (folder,) = (root / "reckoning" / "mini").iterdir()
    return folder


def said_in(folder: Path) -> list[str]:
    """Lines of the log about the outer gradient."""
    return [line for line in (folder / LOG).read_text().splitlines() if "outer gradient" in line]


def records(folder: Path) -> list[dict[str, Any]]:
    """All metrics but those of the clock."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time" and "cost/" not in key} for line in lines]


def test_a_run_says_whether_its_outer_gradient_is_determined_and_trains_as_without_the_check(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout on, so that a number drawn or a mode left behind would show."""
    assert mini.train(tmp_path / "checked") == 0
    folder = only(tmp_path / "checked")
    (line,) = said_in(folder)
    assert "outer gradient of 2 problem(s): cosine " in line and "to that one outer step away" in line
    found = results.read(folder)
    assert found.gradient_cosine == pytest.approx(1.0, abs=0.2) and -1 <= (found.metasmoothness or 0) <= 1
    assert not (folder / gradient_record.GRADIENT).exists(), "the results have its numbers"
    monkeypatch.setattr(gradient_check, "check_gradient", lambda *_: None)
    assert mini.train(tmp_path / "plain") == 0
    plain = only(tmp_path / "plain")
    assert records(plain) == records(folder)
    assert results.read(plain).gradient_cosine is None
    weights = [next(each.glob("checkpoints/step-000004/*model*")).read_bytes() for each in (folder, plain)]
    assert weights[0] == weights[1]


def test_numbers_that_the_check_draws_are_none_of_the_training_and_dropout_is_off_in_it(
    mini: Mini, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def drawing(losses: Any, learns: Any, modules: Any) -> Conditioning:
        modes.extend(module.training for module in modules[0].modules())
        found = conditioning(losses, learns, modules)
        random.random(), np.random.rand(), torch.rand(1)
        return found

    monkeypatch.setattr(gradient_check, "conditioning", drawing)
    assert mini.train(tmp_path) == 0
    assert modes and not any(modes)
    assert records(only(tmp_path)) == records(trained)


@pytest.mark.parametrize(("away", "rough"), [(0.4, False), (-0.03, True)])
def test_a_gradient_that_turns_within_one_outer_step_is_told_with_the_way_out(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: float, rough: bool
) -> None:
    monkeypatch.setattr(gradient_check, "conditioning", lambda *_: Conditioning(1.0, away))
    assert mini.train(tmp_path) == 0
    (line,) = said_in(only(tmp_path))
    assert ("use a lower outer.lr or a warm-up" in line) is rough


def test_a_continued_run_is_not_checked_again_and_keeps_the_numbers(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start ends where its results would be written."""
    words = (tmp_path, "loop.save_every=1")

    def full(*_: object) -> None:
        raise UserError("the disk is full")

    def again(*_: object) -> None:
        raise AssertionError("checked again")

    with monkeypatch.context() as patched:
        patched.setattr(results, "write", full)
        assert mini.train(*words) == 2
    folder = only(tmp_path)
    noted = gradient_record.read(folder)
    assert set(noted) == set(results.MEASURED)
    monkeypatch.setattr(gradient_check, "check_gradient", again)
    assert mini.train(*words) == 0
    found = results.read(folder)
    assert {key: getattr(found, key) for key in results.MEASURED} == noted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("unsound",),
            "to that in float64 is 0.5000, below 0.99; use inner.eps=1e-4 or inner.floor=0.1 or inner.lr below 0.01",
        ),
        (("unsound", "inner.rule=sgd"), "below 0.99; use inner.lr below 0.01"),
        (("too large",), "outer gradient not compared with that in float64: one problem is too large for it"),
        (("method=ft_icr",), ""),
        (("method=test_time",), ""),
    ],
)
def test_the_log_says_what_to_do_or_why_nothing_was_compared(
    words: tuple[str, ...], said: str, mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words == ("too large",):
        monkeypatch.setattr(gradient_check, "MOST", {"cpu": 1e3})
    if "unsound" in words:
        monkeypatch.setattr(gradient_check, "conditioning", lambda *_: Conditioning(0.5, 0.1))
    words = tuple(word for word in words if "=" in word)
    assert mini.train(tmp_path, "outer.steps=1", *words) == 0
    about = said_in(only(tmp_path))
    assert any(said in text for text in about) if said else about == []


def test_results_of_before_the_check_are_read(trained: Path, tmp_path: Path) -> None:
    found = json.loads((trained / results.RESULTS).read_text())
    for key in results.MEASURED:
        assert isinstance(found.pop(key), float)
    (tmp_path / results.RESULTS).write_text(json.dumps(found))
    (tmp_path / results.FINISHED).write_text(found["config_hash"] + "\n")
    read = results.read(tmp_path)
    assert read.gradient_cosine is None and read.metasmoothness is None and read.schema == results.SCHEMA


def test_the_record_holds_null_for_what_is_not_finite_and_refuses_another_file(tmp_path: Path) -> None:
    assert gradient_record.read(tmp_path) == {}
    gradient_record.note(tmp_path, float("nan"), 0.12345678)
    assert gradient_record.read(tmp_path) == {"gradient_cosine": None, "metasmoothness": 0.123457}
    (tmp_path / gradient_record.GRADIENT).write_text("[]")
    with pytest.raises(UserError, match=r"gradient\.json: not of this version .*; delete it"):
        gradient_record.read(tmp_path)
