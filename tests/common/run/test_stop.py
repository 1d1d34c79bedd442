"""Stop signals: the step is finished and saved, and whoever else waits for the signal gets it."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from common.run import checkpoint, stop
from tests.common.run.counting import Counter, count, open_run


def signalled(folder: Path, *numbers: int, total: int = 6) -> Counter:
    """A counting run that sends itself `numbers` in step 3."""
    counter = Counter()
    with open_run(folder) as run:
        run.track("counter", counter)
        for step in run.steps(total):
            for number in numbers if step == 3 else ():
                os.kill(os.getpid(), number)
            counter.value += step
            run.save_if_due(step)
    return counter


@pytest.mark.parametrize("number", [number for number in stop.STOPS if number != signal.SIGUSR2])
def test_a_stop_signal_finishes_the_step_saves_and_exits_with_its_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, number)
    assert caught.value.code == 128 + number
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    assert f"{signal.Signals(number).name}: saving after this step" in capfd.readouterr().err
    assert "saved after step 3" in (tmp_path / "log.txt").read_text()
    assert count(tmp_path, 6).value == 21


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "TWIN", 0)
    with pytest.raises(KeyboardInterrupt):
        signalled(tmp_path, signal.SIGINT, signal.SIGINT)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_somebody_doubles_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(stop, "TWIN", 1000)
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, number, number, number)
    assert caught.value.code == 128 + number
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    assert capfd.readouterr().err.count("saving after this step") == 1


def test_a_signal_is_obeyed_where_standard_error_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stop.os, "write", gone)
    with pytest.raises(SystemExit) as caught:
        signalled(tmp_path, signal.SIGHUP)
    assert caught.value.code == 129
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]


def test_a_signal_after_the_last_save_is_not_forgotten(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught, open_run(tmp_path) as run:
        for step in run.steps(2):
            run.save_if_due(step)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_outside_the_steps_a_signal_acts_at_once_and_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, open_run(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert "SIGTERM: stopped between steps; the same command continues" in capfd.readouterr().err


def test_a_handler_of_somebody_elses_is_called_after_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def requeue(number: int, _: Any) -> None:  # as submitit does
        assert checkpoint.steps(tmp_path / "checkpoints") == [3]
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    ignored: list[int] = []
    term = signal.signal(signal.SIGTERM, lambda number, _: ignored.append(number))
    try:
        with pytest.raises(SystemExit) as caught:
            signalled(tmp_path, signal.SIGUSR2, signal.SIGTERM)
        assert caught.value.code == -1
        assert signalled(tmp_path / "ignored", signal.SIGTERM).value == 21  # saved, handed on, and went on
        assert ignored == [signal.SIGTERM]
        assert checkpoint.steps(tmp_path / "ignored" / "checkpoints") == [6, 3]
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
        signal.signal(signal.SIGTERM, term)


def test_a_step_that_takes_too_long_does_not_cost_the_place_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requeue(number: int, _: Any) -> None:
        raise SystemExit(-1)

    monkeypatch.setattr(stop, "PATIENCE", 0.02)
    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit) as caught, open_run(tmp_path) as run:
            for _ in run.steps(1):
                os.kill(os.getpid(), signal.SIGUSR2)
                signal.pause()
        assert caught.value.code == -1
        assert checkpoint.steps(tmp_path / "checkpoints") == []
    finally:
        signal.signal(signal.SIGUSR2, before)
