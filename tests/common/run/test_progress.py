"""How far a run is: lines in a log, a bar on a terminal."""

import logging
from pathlib import Path

import pytest

from common.run import progress


def test_a_progress_line_says_how_far_how_fast_and_how_long_still(caplog: pytest.LogCaptureFixture) -> None:
    told = progress.Progress(20, 100, bar=False, name="seed=1")
    told.note({"train/outer_loss": 0.51234})
    assert told.line(40, 10.0) == "seed=1: step 40/100 (40 %), 2 steps/s, 0:30 left, train/outer_loss 0.5123"
    assert told.line(21, 100.0).startswith("seed=1: step 21/100 (21 %), 100 s/step, 2:11:40 left")
    with caplog.at_level(logging.INFO), progress.Progress(0, 500, bar=False) as lines:
        for step in range(1, 501):
            lines.update(step)
    assert len(caplog.records) == 1  # the last step; the others came within ten seconds


def test_whoever_watches_is_told_how_much_of_a_runs_own_loop_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(progress, "watch", lambda *numbers: told.append(numbers))
    monkeypatch.setattr(progress, "SECONDS", 0)
    for name in ("", "answers"):
        with progress.Progress(20, 100, bar=False, name=name) as lines:
            lines.update(30)
    assert told == [(10, 80)], "those of an earlier start took none of this one's time"


def test_on_a_terminal_there_is_a_bar_and_log_lines_do_not_break_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with progress.Progress(0, 3, bar=True) as bar:
        for step in (1, 2, 3):
            bar.note({"loss": step / 4})
            bar.update(step)
    assert "3/3" in capsys.readouterr().err
