"""The command line: every method, stopped runs, slow weights of another run, later evaluations."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.run.items import read_items, score_of
from slowfast_vgen import evaluate, train
from slowfast_vgen.stages import Optimiser
from tests.runs import contents, metrics_of, only_run, run_here
from tests.slowfast_vgen.small import SMALL

BASELINES = {"longer_window", "anchor", "retrieval", "oracle", "avdc_like", "copy"}
UNCONSOLIDATED = {"slow", "temp_lora", "original", "full_sequence", "reservoir", "one_frame", *BASELINES}
METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "slowfast_vgen" / "method").glob("*.yaml"))
RUN = ("loop.log_every=1", "loop.evaluate_every=2", "loop.save_every=1")


def run(root: Path, *words: str) -> int:
    return run_here(train.main, *SMALL, *RUN, f"loop.root={root}", *words)


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_is_tested(tmp_path: Path, method: str) -> None:
    assert run(tmp_path, f"method={method}") == 0
    folder = only_run(tmp_path)
    test = {name: each["value"] for name, each in results_of(folder)["test"].items()}
    assert {"place", "other", "foreign", "psnr", "copy", "place@gap_0", "place@gap_2", "ssim@phase_return"} <= set(test)
    assert test["place"] + test["other"] + test["foreign"] == pytest.approx(1)
    assert ("gain_swapped@gap_2" in test) == (method not in {"slow", *BASELINES})
    steps = 0 if method == "copy" else 4 if method in UNCONSOLIDATED else 7
    losses = metrics_of(folder, "train")
    assert len(losses) == steps and all("train/loss" in each or "train/outer_loss" in each for each in losses)
    assert (folder / "media" / "return.png").stat().st_size > 1000
    items = read_items(folder)
    assert len(items) == 6 * 2 and len({item.group for item in items}) == 6
    assert score_of(items, "psnr") == pytest.approx(test["psnr"])


class Stopped(Exception):
    """The process ends here."""


@pytest.mark.parametrize(("method", "at"), [("temp_lora", 2), ("meta", 3), ("meta", 4), ("meta", 6), ("loop", 9)])
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    tmp_path: Path, method: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"method={method}", *(["fast.steps=1", "fast.weights=[B]"] if method == "loop" else []))
    assert run(tmp_path / "straight", *words) == 0
    own, count = Optimiser.step, [0]

    def stopping(self: Optimiser, loss: Any) -> dict[str, float]:
        count[0] += 1
        if count[0] > at:
            raise Stopped
        return own(self, loss)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Optimiser, "step", stopping)
        run(tmp_path / "stopped", *words)
    assert run(tmp_path / "stopped", *words) == 0
    assert contents(only_run(tmp_path / "stopped")) == contents(only_run(tmp_path / "straight"))


def test_slow_weights_of_another_run_give_the_same_numbers(tmp_path: Path) -> None:
    assert run(tmp_path / "slow", "method=slow") == 0
    slow = only_run(tmp_path / "slow")
    for method in ("temp_lora", "meta"):
        assert run(tmp_path / "own" / method, f"method={method}") == 0
        assert run(tmp_path / "taken" / method, f"method={method}", f"slow.run={slow}") == 0
        own, taken = (only_run(tmp_path / which / method) for which in ("own", "taken"))
        assert results_of(own)["test"] == results_of(taken)["test"]
        assert results_of(own)["config_hash"] == results_of(taken)["config_hash"]
    assert run_here(evaluate.main, f"run={taken}") == 0
    found = json.loads((taken / "evaluation-test.json").read_text())
    assert found == results_of(taken)["test"]


def test_a_method_that_is_given_something_else_trains_its_own_slow_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "slow", "method=slow") == 0
    slow = only_run(tmp_path / "slow")
    assert run(tmp_path / "own", "method=one_frame") == 0
    for method, key in {"one_frame": "method.past", "copy": "method.copies"}.items():
        capsys.readouterr()
        assert run(tmp_path / method, f"method={method}", f"slow.run={slow}") == 0
        assert f"has another {key}: its slow weights are not for this method" in "".join(capsys.readouterr())
    assert results_of(only_run(tmp_path / "one_frame"))["test"] == results_of(only_run(tmp_path / "own"))["test"]


def test_a_copy_is_what_every_psnr_stands_beside(tmp_path: Path) -> None:
    assert run(tmp_path, "method=copy", "evaluation.imagined=true", "latents.values=15") == 0
    folder = only_run(tmp_path)
    test = {name: each["value"] for name, each in results_of(folder)["test"].items()}
    assert test["psnr"] == pytest.approx(test["copy"], abs=1e-3)
    assert test["distinct@imagined_2"] == 1
    assert run_here(evaluate.main, f"run={folder}") == 0
    assert json.loads((folder / "evaluation-test.json").read_text()) == results_of(folder)["test"]


def test_slow_weights_of_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "slow", "method=slow") == 0
    slow = only_run(tmp_path / "slow")
    assert run(tmp_path / "other", "method=meta", "slow.lr=0.1", f"slow.run={slow}") == 2
    said = capsys.readouterr().err
    assert "slow.lr is 0.002 there and 0.1 here, so its slow weights would be others" in said
    assert run(tmp_path / "seed", "method=meta", "seed=1", f"slow.run={slow}") == 2
    assert "seed is 0 there and 1 here" in capsys.readouterr().err


def test_an_evaluation_asks_otherwise_and_says_so_in_its_name(tmp_path: Path) -> None:
    assert run(tmp_path, "method=temp_lora") == 0
    folder = only_run(tmp_path)
    assert (
        run_here(evaluate.main, f"run={folder}", "longer=[3]", "controls=[swapped]", "fast_steps=1", "imagined=true")
        == 0
    )
    (path,) = folder.glob("evaluation-test+*.json")
    found = json.loads(path.read_text())
    assert {"place@of3_4", "gain_swapped@of3_4", "consistent_none@imagined_2"} <= set(
        found
    ) and "place_reset" not in found
    assert "fast_steps-1" in path.name and "longer-3" in path.name


def test_a_fresh_run_says_what_it_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(evaluate.main, f"run={tmp_path}") == 2
    assert str(tmp_path) in capsys.readouterr().err
