"""Branches of a run: each is the run of its own length, and leaves no trace in the one that goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.outer import Outer, falls_from, share_of_peak
from common.engine.settings import OuterConfig, Schedule
from common.errors import UserError
from common.run import checkpoint
from tests.common.run.counting import open_run, records

STEPS, DECAY = 10, 0.3
SETTINGS: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1, "clip": 0.0, "warmup": 0.2, "decay": DECAY}


class Killed(Exception):
    """What ends a process, as far as a test can tell."""


def trained(
    folder: Path, steps: int = STEPS, *, warmup: float = 0.2, multiples: tuple[int, ...] = (), kill: int = 0
) -> dict[str, Any]:
    """A run with dropout; returns its weights and what dev saw. `kill`: after so many steps, branches' among them."""
    dev: dict[int, float] = {}
    config = OuterConfig(**{**SETTINGS, "warmup": warmup}, steps=steps, multiples=list(multiples))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    with open_run(folder) as run:
        total = config.total_steps(0)
        outer = Outer(config, model, None, total)
        run.track("model", model)
        run.track("outer", outer)
        done = 0
        for step in run.steps(total, outer):
            loss = (model(torch.full((2, 4), step / 9) + torch.randn(2, 4)) - 1).square().mean()
            score = outer.accumulate(loss)
            norm = outer.step()
            if run.due(2):
                run.log(step, "train", norm=norm)
            if run.due(5):
                run.log(step, "dev", score=score)
                dev[step] = score
                run.select(-score)
            done += 1
            if done == kill:
                raise Killed
            run.save_if_due(step)
    return {"dev": dev, "weights": [weight.detach().clone() for weight in model.parameters()]}


def trunk(folder: Path) -> list[dict[str, Any]]:
    """Records of the run itself, without the clock."""
    kept = [record for record in records(folder) if record["split"] != "branch"]
    return [{key: value for key, value in record.items() if key != "time"} for record in kept]


def branches(folder: Path) -> dict[int, float]:
    return {record["step"]: record["branch/score"] for record in records(folder) if record["split"] == "branch"}


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_branch_is_the_run_of_its_length_and_leaves_no_trace(tmp_path: Path) -> None:
    study = trained(tmp_path / "study", multiples=(1, 3, 9))
    plain = trained(tmp_path / "plain", 9 * STEPS, warmup=0.2 / 9)
    assert same(study["weights"], plain["weights"]) and trunk(tmp_path / "study") == trunk(tmp_path / "plain")
    assert branches(tmp_path / "plain") == {}
    short = trained(tmp_path / "short")
    middle = trained(tmp_path / "middle", 3 * STEPS, warmup=0.2 / 3)
    assert branches(tmp_path / "study") == {10: short["dev"][10], 30: middle["dev"][30]}


@pytest.mark.parametrize("kill", [4, 7, 9, 10, 12, 13, 20, 37, 40, 60])
def test_a_study_that_is_killed_anywhere_ends_as_if_it_had_not_been(tmp_path: Path, kill: int) -> None:
    """The first branch leaves after 7 steps and has 3 of its own, the second after 27 and has 9."""
    straight = trained(tmp_path / "straight", multiples=(1, 3, 9))
    with pytest.raises(Killed):
        trained(tmp_path / "killed", multiples=(1, 3, 9), kill=kill)
    ended = trained(tmp_path / "killed", multiples=(1, 3, 9))
    assert same(straight["weights"], ended["weights"])
    assert branches(tmp_path / "killed") == branches(tmp_path / "straight")
    assert trunk(tmp_path / "killed") == trunk(tmp_path / "straight")


def test_the_time_of_a_branch_is_not_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    original = Outer.step

    def slow(outer: Outer) -> float:
        now[0] += 1.0
        return original(outer)

    monkeypatch.setattr(Outer, "step", slow)
    trained(tmp_path / "study", multiples=(1, 3))
    times = {(record["split"], record["step"]): record["time"] for record in records(tmp_path / "study")}
    assert times["branch", 10] == times["dev", 10] == 10.0 and times["dev", 30] == 30.0


def test_the_rate_stays_at_its_peak_until_the_decay() -> None:
    shares = [share_of_peak(step, 2, 10, Schedule.linear, 0.3) for step in range(11)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0])
    assert falls_from(2, 10, 0.3) == 7 and falls_from(2, 10, 0.001) == 9 and falls_from(2, 10, 0.0) == 2
    assert share_of_peak(8, 2, 10, Schedule.cosine, 0.4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"multiples": [1, 3, 9], "decay": 0.0}, "outer.multiples=[1, 3, 9] with outer.decay=0.0: give ascending"),
        ({"multiples": [3, 1]}, "outer.multiples=[3, 1]"),
        ({"multiples": [0, 3]}, "outer.multiples=[0, 3]"),
        ({"decay": 0.9}, "outer.decay=0.9 with outer.warmup=0.2: both are shares of all steps; use 0 to 0.8"),
    ],
)
def test_budgets_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        OuterConfig(**{**SETTINGS, **changed})
    assert str(error.value).startswith(message)


def test_a_stop_in_a_branch_names_the_checkpoint_that_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = iter([False] * 7 + [True] * 90)
    monkeypatch.setattr("common.run.stop.StopSignal.asked", property(lambda _: next(asked)))
    monkeypatch.setattr("common.run.stop.StopSignal.obey", lambda _: (_ for _ in ()).throw(SystemExit(143)))
    with pytest.raises(SystemExit):
        trained(tmp_path, multiples=(1, 3))
    assert "saved after step 7 in" in caplog.text and checkpoint.steps(tmp_path / "checkpoints")[0] == 7
