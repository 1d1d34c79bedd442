"""A run that counts its steps: the smallest with a state."""

import json
from pathlib import Path
from typing import Any

from common.run.results import Interval
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig

WHO = RunIdentity(paper="paper", experiment="experiment", method="method", scale="cpu", seed=3)


def options(**changed: Any) -> dict[str, Any]:
    return {
        "config": {"inner": {"steps": 4}, "seed": 3},
        "runtime": RuntimeConfig(device=Device.cpu),
        "tracker": TrackerConfig(),
        "loop": LoopConfig(save_seconds=0),
        "identity": WHO,
        **changed,
    }


def open_run(folder: Path, **changed: Any) -> Run:
    return Run(folder, **options(**changed))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Counter:
    """The smallest thing with a state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


def count(folder: Path, total: int, until: int | None = None, **changed: Any) -> Counter:
    """A run that adds its steps up; `until` raises in the middle of that step."""
    counter = Counter()
    with open_run(folder, **changed) as run:
        run.track("counter", counter)
        for step in run.steps(total):
            counter.value += step
            run.log(step, "train", value=counter.value)
            if step == until:
                raise ZeroDivisionError
            run.save_if_due(step)
        run.finish({"value": Interval(counter.value, 1, 0, 9)})
    return counter
