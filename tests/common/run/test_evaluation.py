"""Problems in batches of like size, answers in the order of the problems."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.run.evaluation import in_batches, report
from common.run.results import Interval
from common.run.schema import TrackerConfig, TrackerName
from tests.common.run.test_finished import make
from tests.tracked_run import WHO

WORDS = ["aaaa", "b", "ccc", "dd", "e", "ffff", "gg"]


def asked(size: int, **how: object) -> tuple[list[str], list[list[str]]]:
    batches: list[list[str]] = []

    def ask(batch: Sequence[str]) -> list[str]:
        batches.append(list(batch))
        return [word.upper() for word in batch]

    return in_batches(ask, WORDS, size, **how), batches  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_problem_gets_its_own_answer_whatever_the_batches(size: int) -> None:
    for how in ({}, {"load": len}, {"load": len, "quiet": True}):
        found, batches = asked(size, **how)
        assert found == [word.upper() for word in WORDS], how
        assert sorted(sum(batches, [])) == sorted(WORDS) and max(map(len, batches)) == min(size, len(WORDS))


def test_problems_of_like_load_share_a_batch_and_without_one_they_come_as_they_are() -> None:
    assert asked(2, load=len)[1] == [["b", "e"], ["dd", "gg"], ["ccc", "aaaa"], ["ffff"]]
    assert asked(3)[1] == [["aaaa", "b", "ccc"], ["dd", "e", "ffff"], ["gg"]]


def test_an_answer_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError):
        in_batches(lambda batch: batch[1:], WORDS, 3)


def test_progress_is_shown_unless_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    asked(3, quiet=True)
    assert not caplog.messages
    asked(3)
    assert caplog.messages[-1].startswith("answers: step 7/7")


def test_an_evaluation_of_a_run_that_goes_on_says_so_in_its_name_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make(tmp_path / "run")
    found: Any = ({"inner_steps": 6}, {"accuracy": Interval(0.5, 4, 0.25, 0.75)}, WHO, {}, TrackerConfig())
    report(tmp_path / "run", "test", *found)
    assert (tmp_path / "run" / "evaluation-test+inner_steps-6.json").is_file() and "not finished" not in caplog.text
    (tmp_path / "run" / "FINISHED").unlink()
    report(tmp_path / "run", "test", *found)
    assert (tmp_path / "run" / "evaluation-test+inner_steps-6+unfinished.json").is_file()
    assert f"{tmp_path / 'run'} is not finished" in caplog.text
    assert "test+inner_steps-6+unfinished/accuracy 0.5000" in caplog.text


@pytest.mark.parametrize(
    ("had", "words"),
    [
        ({"name": "wandb"}, "tracker=wandb"),
        (
            {"name": "wandb", "project": "mine", "entity": "team"},
            "tracker=wandb tracker.project=mine tracker.entity=team",
        ),
        ({"name": "trackio", "project": "innerloop", "entity": None}, "tracker=trackio"),
        ({"name": "wandb", "mode": "disabled"}, None),
        ({"name": "none"}, None),
        ({"name": ["wandb"]}, None),
        ("wandb", None),
    ],
)  # fmt: skip
def test_an_evaluation_without_the_tracker_of_its_run_says_so_and_how_to_have_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, had: Any, words: str | None
) -> None:
    make(tmp_path / "run", tracker=had)
    found: Any = ({}, {"accuracy": Interval(0.5, 4, 0.25, 0.75)}, WHO, {})
    report(tmp_path / "run", "test", *found, TrackerConfig(TrackerName.tensorboard))
    assert "was tracked" not in caplog.text
    report(tmp_path / "run", "test", *found, TrackerConfig())
    told = f"{tmp_path / 'run'} was tracked and this evaluation is not; to track it add {words}"
    assert [each for each in caplog.messages if "was tracked" in each] == ([told] if words else [])
